"""The ledger of experiments: what a finished run was and what came out of it, one row a run, and their table.

A run writes its row to ledger.json in its own folder; `table` sets rows side by side. The settings are given as the
differences to the shipped config that they differ least from, so that a row can be read, and run again.
"""

import dataclasses
import json
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import yaml

import sharpmask
from sharpmask.data.coco import CocoDataset
from sharpmask.errors import DataError
from sharpmask.evaluation.inputs import read_json
from sharpmask.evaluation.recall import Recall, evaluate_recall
from sharpmask.files import atomic_write
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.sharpmask import SharpMask
from sharpmask.proposals.ranking import DEFAULT_RANKING
from sharpmask.training.checkpoint import LEDGER, LOG
from sharpmask.training.config import TrainConfig
from sharpmask.training.measure import measured_parts, propose_for
from sharpmask.training.validation import Validator

BEGIN, END = "<!-- ledger -->", "<!-- end ledger -->"
_FIGURES = ("AR@10", "AR@100", "AR@1000")
# Where things are and how they are computed: no part of what a run tries.
_PLACES = {
    "annotations",
    "images",
    "output",
    "trunk_weights",
    "val_annotations",
    "val_images",
    "device",
    "precision",
    "workers",
    "threads",
    "cache_gigabytes",
    "validate_every",
    "validation_patches",
    "validation_photos",
    "checkpoint_every",
    "log_every",
    "measure_photos",
    "seed",
    "fold",
    "negatives",
}


def write_row(
    config: TrainConfig,
    dataset: CocoDataset,
    network: DeepMask | SharpMask,
    device: torch.device,
    validator: Validator | None,
) -> Path:
    """Measure a finished run and write its row; a row that is there already stays. Returns the row's file.

    Args:
        dataset: what the run was trained on.
        validator: of the run, None where it has no validation data.
    """
    path = Path(config.output) / LEDGER
    if path.exists():
        return path
    written = path.parent / LOG
    log = [json.loads(line) for line in written.read_text(encoding="utf-8").splitlines()] if written.exists() else []
    start, changes = nearest_config(config)
    row: dict[str, Any] = {
        "run": path.parent.name,
        "version": sharpmask.__version__,
        "model": network.spec.name,
        "config": start,
        "changes": changes,
        "seed": config.seed,
        "fold": config.fold,
        "photos": len(dataset.images),
        "steps": {name: stage.steps for name, stage in config.stages.items() if stage.steps},
        "minutes": round(minutes(log, {name: stage.batch_size for name, stage in config.stages.items()}), 1),
        "device": device_name(device),
        "patches": validator.patches_scalars(network, device) if validator else {},
        "measured": measure_run(config, network, device),
    }
    with atomic_write(path) as target:
        target.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    return path


def measure_run(config: TrainConfig, network: DeepMask | SharpMask, device: torch.device) -> dict[str, Any]:
    """Mask AR@10/100/1000 with intervals on the run's validation data and on its fold, as far as there are any.

    The proposals stay in val_proposals.json and fold_proposals.json beside the model, to compare runs photo by photo.
    """
    found = {}
    for name, part in measured_parts(config).items():
        records = propose_for(network, part, device)
        with atomic_write(Path(config.output) / f"{name}_proposals.json") as target:
            target.write_text(json.dumps(records), encoding="utf-8")
        recall = evaluate_recall(part.truth, records, iou_types=["segm"], progress=False)
        found[name] = {
            "photos": recall.images,
            "objects": recall.objects,
            "ranking": DEFAULT_RANKING,
            **_figures(recall),
        }
    return found


def _figures(recall: Recall) -> dict[str, Any]:
    estimates = recall.areas["segm"]["all"].estimates
    return {name: estimates[name].to_dict() for name in _FIGURES}


def minutes(log: Iterable[Mapping[str, Any]], batch_sizes: Mapping[str, int]) -> float:
    """What a run took by its own log, steps that were repeated after a stop included and pauses not."""
    seconds, before = 0.0, {name: 0 for name in batch_sizes}
    for entry in log:
        stage, step = entry["stage"], entry["step"]
        seconds += entry.get("validation_seconds", 0.0)
        if entry.get("patches_per_second"):
            # After a stop steps are counted from the last checkpoint on: where that was the log does not tell.
            steps = max(0, step - before[stage])
            seconds += steps * batch_sizes[stage] / entry["patches_per_second"]
            before[stage] = step
    return seconds / 60


def device_name(device: torch.device) -> str:
    """A GPU by its name, a CPU by its architecture and the threads in use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as {"deepmask.steps": …}, lists as tuples."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flat_settings(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = tuple(value) if isinstance(value, list) else value
    return flat


def nearest_config(config: TrainConfig) -> tuple[str, dict[str, Any]]:
    """The shipped config that a run differs least from, and the settings in which it differs."""
    own = _tried(flat_settings(dataclasses.asdict(config)))
    usual = _tried(flat_settings(dataclasses.asdict(TrainConfig(annotations="", images="", output=""))))
    best: tuple[str, dict[str, Any]] | None = None
    for file in sorted(Path(str(resources.files("sharpmask") / "configs")).glob("*.yaml")):
        shipped = usual | _tried(flat_settings(yaml.safe_load(file.read_text(encoding="utf-8"))))
        changes = {name: value for name, value in own.items() if value != shipped[name]}
        if best is None or len(changes) < len(best[1]):
            best = file.stem, changes
    assert best is not None  # configs are part of the package
    return best


def _tried(flat: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in flat.items() if name not in _PLACES}


def read_rows(runs: Sequence[str | Path]) -> list[dict[str, Any]]:
    """The rows of finished runs, given as their folders. Raises DataError for a folder that has none."""
    rows = []
    for run in runs:
        path = Path(run) / LEDGER
        if not path.exists():
            raise DataError(f"{run}: holds no finished run ({LEDGER} is missing)")
        row = read_json(path)
        if not isinstance(row, dict) or "run" not in row or "measured" not in row:
            raise DataError(f"{path}: is no row of a ledger; remove it and end the run again with --resume")
        rows.append(row)
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table; figures in percent, intervals of 95 % in brackets."""
    head = ["run", "model", "config", "changes", "seed", "photos", "steps", "minutes", "device", "patch IoU"]
    head += [f"{part} {name}" for part in ("val", "fold") for name in _FIGURES]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        changes = ", ".join(f"`{name}={_text(value)}`" for name, value in _told(row)) or "–"
        fold = f" (fold {row['fold']})" if row.get("fold") else ""
        steps = " + ".join(f"{count:,}" for count in row["steps"].values()) or "0"
        iou = row["patches"].get("mean_iou")
        cells = [row["run"], f"`{row['model']}`", f"`{row['config']}`", changes, row["seed"]]
        cells += [
            f"{row['photos']:,}{fold}",
            steps,
            row["minutes"],
            row["device"],
            "–" if iou is None else f"{iou:.3f}",
        ]
        for part in ("val", "fold"):
            found = row["measured"].get(part)
            cells += [_estimate(found[name]) if found else "–" for name in _FIGURES]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def _told(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The row's changes, without the settings of a stage that was left out, which have changed nothing; of a file that
    the run started from its name and folder."""
    for name, value in row["changes"].items():
        stage, _, setting = name.partition(".")
        if name in ("start_from", "teacher") and value is not None:
            value = "/".join(Path(value).parts[-2:])
        if not setting or setting == "steps" or stage in row["steps"]:
            yield name, value


def put_between_marks(text: str, path: str | Path) -> None:
    """Replace what stands between the ledger's two marks in a Markdown file. Raises DataError where they are not."""
    path = Path(path)
    try:
        page = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise DataError(f"{path}: needs one line '{BEGIN}' and after it one line '{END}', between which the table goes")
    head, rest = page.split(BEGIN)
    with atomic_write(path) as target:
        target.write_text(f"{head}{BEGIN}\n{text}{END}{rest.split(END)[1]}", encoding="utf-8")


def _estimate(figure: Mapping[str, float | None]) -> str:
    value, low, high = (figure[name] for name in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return "–"
    return f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _text(value: object) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, tuple | list) else str(value)
