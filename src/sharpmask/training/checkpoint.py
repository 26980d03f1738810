"""What a run needs to go on where it stopped: the last few states, each a file that is whole or not there.

A file is called NUMBER-STAGE-STEP.HASH.pt. The numbers count up; the hash is that of the content, so that a damaged
file is known before it is used. With the damaged one set aside, a run goes on from the one before it.
"""

import dataclasses
import hashlib
import io
import json
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from sharpmask.errors import ConfigError, ModelError
from sharpmask.files import atomic_write, file_digest, make_folder
from sharpmask.training.config import RunConfig

# In the folder of a run.
CHECKPOINTS, LOG, LEDGER = "checkpoints", "log.jsonl", "ledger.json"
# Changing these between stop and resume does not change what is learnt.
FREE_FIELDS = {
    "output", "device", "workers", "threads", "cache_gigabytes", "log_every", "checkpoint_every", "keep_checkpoints",
    "images", "val_images", "measure_photos",
}  # fmt: skip
# These may lie elsewhere by then, but must be the same.
_FILES = ("annotations", "val_annotations")
_NAME = re.compile(r"(\d+)-[\w-]+-\d+\.([0-9a-f]{16})\.pt")


def open_run(output: Path, config: RunConfig, *, resume: bool) -> dict[str, Any] | None:
    """Make the folder of a run, or clear it of what a kill left. Returns the state to resume from, None if new.

    A run that begins anew does not keep the log and the ledger's row of one before it, whose checkpoints were removed.

    Raises:
        ConfigError: the folder cannot be made, holds a run that is not to be resumed, or one of other settings.
        ModelError: there are checkpoints, and all of them are damaged.
    """
    make_folder(output)
    if checkpoint_files(output) and not resume:
        raise ConfigError(f"{output} holds a run already; add --resume to go on with it, or choose another output")
    state = load_checkpoint(output, config)
    remove_leftovers(output)
    if state is None:
        for name in (LOG, LEDGER):
            (output / name).unlink(missing_ok=True)
    return state


def checkpoint_files(output: Path) -> list[Path]:
    """The checkpoints of the run in `output`, newest first."""
    return sorted((path for path in (output / CHECKPOINTS).glob("*.pt") if _number(path)), key=_number, reverse=True)


def _number(path: Path) -> int:
    """From 1 up; 0 for what is no checkpoint."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else 0


def save_checkpoint(output: Path, state: dict[str, Any], config: RunConfig, *, keep: int = 2) -> None:
    """Write the state of a run, with its "stage" and "step", and leave the `keep` newest.

    Older ones are removed only when the new one is on the disk.

    Raises:
        SharpMaskError: it cannot be written, for example because the disk is full; the older ones are untouched.
    """
    buffer = io.BytesIO()
    torch.save({**state, "config": json.dumps(dataclasses.asdict(config)), "files": _digests(config)}, buffer)
    content = buffer.getbuffer()
    number = max(map(_number, checkpoint_files(output)), default=0) + 1
    name = f"{number:06d}-{state['stage']}-{state['step']}.{_hash(content)}.pt"
    path = make_folder(output / CHECKPOINTS) / name
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
    for old in checkpoint_files(output)[keep:]:
        old.unlink(missing_ok=True)


def load_checkpoint(output: Path, config: RunConfig) -> dict[str, Any] | None:
    """The newest whole state of the run in `output`, None if it has none yet.

    A damaged file is reported on stderr and renamed, so that it is neither used nor counted again.

    Raises:
        ModelError: there are checkpoints, and all of them are damaged.
        ConfigError: the run was started with other settings.
    """
    paths = checkpoint_files(output)
    for path in paths:
        state = _read(path)
        if state is not None:
            _assert_same_run(path, state, config)
            return state
    if paths or any((output / CHECKPOINTS).glob("*.damaged")):
        raise ModelError(f"no checkpoint in {output / CHECKPOINTS} is whole; remove the folder to start the run anew")
    return None


def remove_leftovers(output: Path) -> None:
    """Remove the temporary files that a killed run left in its folder."""
    for pattern in (".*.tmp.safetensors", f"{CHECKPOINTS}/.*.tmp.pt"):
        for path in output.glob(pattern):
            with suppress(OSError):  # of no use, and no harm either
                path.unlink()


def _hash(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _read(path: Path) -> dict[str, Any] | None:
    match = _NAME.fullmatch(path.name)
    try:
        content = path.read_bytes()
        if match is None or _hash(content) != match[2]:
            raise ValueError("its content does not have the hash of its name")
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return state
    except MemoryError:
        raise
    except Exception as error:  # torch.load raises whatever the damage leads to
        print(f"{path} is damaged ({error}); trying the checkpoint before it", file=sys.stderr)
        with suppress(OSError):
            path.rename(path.with_suffix(".pt.damaged"))
        return None


def _digests(config: RunConfig) -> dict[str, str]:
    paths = {name: getattr(config, name) for name in _FILES}
    return {name: file_digest(path) for name, path in paths.items() if path is not None and Path(path).is_file()}


def _assert_same_run(path: Path, state: dict[str, Any], config: RunConfig) -> None:
    before = json.loads(state["config"])
    now = json.loads(json.dumps(dataclasses.asdict(config)))
    # The names of files tell only where what is in them does not.
    before |= state.get("files", {})
    now |= {name: digest for name, digest in _digests(config).items() if name in state.get("files", {})}
    changed = [k for k in now if k not in FREE_FIELDS and before.get(k) != now[k]]
    if changed:
        raise ConfigError(f"{path} belongs to a run with another {', '.join(changed)}; resume it with its own settings")
