"""What a run needs to go on where it stopped: one file, written whole or not at all."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from sharpmask.errors import ConfigError, ModelError
from sharpmask.files import atomic_write
from sharpmask.training.config import TrainConfig

LAST = "last.pt"
# Changing these between stop and resume does not change what is learnt.
FREE_FIELDS = {"output", "device", "workers", "threads", "cache_gigabytes", "log_every", "checkpoint_every"}


def save_checkpoint(folder: Path, state: dict[str, Any], config: TrainConfig) -> None:
    """Write the state of a run to `folder`/last.pt, atomically."""
    with atomic_write(folder / LAST) as temporary:
        torch.save({**state, "config": json.dumps(dataclasses.asdict(config))}, temporary)


def load_checkpoint(folder: Path, config: TrainConfig) -> dict[str, Any] | None:
    """The state of the run in `folder`, None if it has none yet.

    Raises:
        ModelError: the file is damaged.
        ConfigError: the run was started with other settings.
    """
    path = folder / LAST
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        before = json.loads(state["config"])
    except Exception as error:  # torch.load raises whatever the damage leads to
        raise ModelError(f"{path} is not a whole checkpoint ({error}); remove it to start the run anew") from None
    now = json.loads(json.dumps(dataclasses.asdict(config)))
    changed = [k for k in now if k not in FREE_FIELDS and before.get(k) != now[k]]
    if changed:
        raise ConfigError(f"{path} belongs to a run with another {', '.join(changed)}; resume it with its own settings")
    return state
