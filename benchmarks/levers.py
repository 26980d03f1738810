"""What each lever of training brings: a fixed baseline and one run for each lever, of equal steps, one after the other.

    python benchmarks/levers.py OUTPUT --annotations TRAIN.json --images DIR --val-annotations VAL.json --val-images DIR
        [--steps 3000] [--refine-steps 1000] [--trunk-weights FILE | --start-from MODEL] [--fold 1/5] [--photos 60]
        [--teacher MODEL] [--pseudo LABELS.json] [--negatives LIST.json] [--only NAME …] [--together NAME …]
        [--set FIELD=VALUE …]

Every run is a folder below OUTPUT. What changes a later stage alone starts from the baseline's weights before it, since
the stages before would be the same again; its minutes are those of its own stages. The command may be stopped and given
again, and goes on where it was. After each run OUTPUT/levers.md is written anew: the difference of every run to the
baseline in mask AR@10/100/1000 and their mean, with its interval paired by photos, on the validation photos and on a
fold of the training photos that no run has seen. `another-seed` tells what chance does: the intervals are those of the
photos alone. Levers that need a file (`--teacher`, `--pseudo` and `--negatives`, the last two written by `sharpmask
mine`) are left out without it.
`--together` adds a run with all the levers named. `--set` changes the baseline, and so every run.
"""

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sharpmask.allocator import keep_freed_memory
from sharpmask.data.coco import read_coco
from sharpmask.data.folds import fold_ids
from sharpmask.errors import ConfigError
from sharpmask.evaluation.recall import MEAN_AR, Recall, compare_recalls, evaluate_recall
from sharpmask.evaluation.tables import percent, percent_points
from sharpmask.files import atomic_write
from sharpmask.reproduce.recipes import stage_config
from sharpmask.training.config import TrainConfig, config_file
from sharpmask.training.ledger import LEDGER, read_rows
from sharpmask.training.measure import measured_truth
from sharpmask.training.run import train

METRICS = ("AR@10", "AR@100", "AR@1000", MEAN_AR)
BASELINE = "baseline"


def levers(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """By name: what differs from the baseline."""
    steps, refine = arguments.steps, arguments.refine_steps

    def both(field: str, value: object) -> dict[str, Any]:
        return {f"deepmask.{field}": value, f"sharpmask.{field}": value}

    found: dict[str, dict[str, Any]] = {
        BASELINE: {},
        "another-seed": {"seed": 1},
        "twice-the-steps": {"deepmask.steps": 2 * steps, "sharpmask.steps": 2 * refine},
        "no-average": both("average", 0.0),
        "jitter": both("augmentation.colour", 0.5) | both("augmentation.extra_scale", 0.25),
        "copy-paste": both("augmentation.copy_paste", 0.3),
        "by-category": both("balance", "category"),
        "by-area": both("balance", "area"),
        "trunk-frozen": {"deepmask.trunk_factor": 0.0},
        "trunk-late": {"deepmask.trunk_start": steps // 4},
        "score-iou": {"deepmask.score_target": "iou"},
        "score-both": {"deepmask.score_target": "both"},
        "boundary": {"sharpmask.boundary_weight": 3.0},
        "end-to-end": {"endtoend.steps": refine},
    }
    if arguments.negatives:
        found["hard-negatives"] = {"negatives": str(arguments.negatives), "deepmask.hard_negatives": 0.3}
    if arguments.pseudo:
        found["pseudo-labels"] = {"annotations": str(arguments.pseudo)}
    if arguments.teacher:
        found["teacher"] = {"teacher": arguments.teacher} | both("distil", 0.5)
    unknown = [name for name in (*(arguments.only or ()), *(arguments.together or ())) if name not in found]
    if unknown:
        raise ConfigError(f"no lever '{unknown[0]}' (or without its file); there are: {', '.join(found)}")
    together: dict[str, Any] = {}
    for name in arguments.together or ():
        together |= found[name]
    if arguments.only:
        found = {name: changes for name, changes in found.items() if name == BASELINE or name in arguments.only}
    return found | ({"together": together} if together else {})


def baseline(arguments: argparse.Namespace) -> TrainConfig:
    """The `small-cpu` config with the steps asked for, and stage 3 ready but left out."""
    shipped = yaml.safe_load(Path(config_file("small-cpu")).read_text(encoding="utf-8"))
    deepmask, sharpmask = (stage_config(shipped[name]) for name in ("deepmask", "sharpmask"))
    steps, refine = arguments.steps, arguments.refine_steps
    deepmask = dataclasses.replace(deepmask, steps=steps, warmup=min(deepmask.warmup, steps // 10))
    sharpmask = dataclasses.replace(sharpmask, steps=refine, warmup=min(sharpmask.warmup, refine // 10))
    config = TrainConfig(
        annotations=str(arguments.annotations),
        images=str(arguments.images),
        val_annotations=str(arguments.val_annotations),
        val_images=str(arguments.val_images),
        output=str(arguments.output / BASELINE),
        model=shipped["model"],
        trunk_weights=arguments.trunk_weights,
        start_from=arguments.start_from,
        fold=arguments.fold,
        measure_photos=arguments.photos,
        checkpoint_every=max(1, min(250, steps // 4)),
        validate_every=max(1, steps // 2),
        validation_patches=600,
        deepmask=deepmask,
        sharpmask=sharpmask,
        endtoend=dataclasses.replace(deepmask, steps=0, learning_rate=deepmask.learning_rate / 5),
    )
    return changed(config, {name: yaml.safe_load(value) for name, value in (s.split("=", 1) for s in arguments.set)})


def same_stages(changes: Mapping[str, Any], done: Path) -> dict[str, Any]:
    """The settings by which a run takes from the one in `done` the stages that its changes leave as they are."""
    order = ["deepmask", "sharpmask", "endtoend"]
    heads = {name.split(".")[0] for name in changes}
    same = order[: min(map(order.index, heads))] if heads and heads <= set(order) else []
    if not same:
        return {}
    return {
        "trunk_weights": None,  # first: never both
        "start_from": str(done / f"{same[-1]}.safetensors"),
        **{f"{name}.steps": 0 for name in same},
    }


def changed(config: Any, changes: Mapping[str, Any]) -> Any:
    """A config with some fields changed, those of its parts by names such as deepmask.steps."""
    for name, value in changes.items():
        head, _, rest = name.partition(".")
        if not any(field.name == head for field in dataclasses.fields(config)):
            raise ConfigError(f"{type(config).__name__} has no setting '{name}'")
        config = dataclasses.replace(config, **{head: changed(getattr(config, head), {rest: value}) if rest else value})
    return config


def run_all(arguments: argparse.Namespace) -> Path:
    """Train what is not trained yet; returns the page."""
    base = baseline(arguments)
    done: list[Path] = []
    page = arguments.output / "levers.md"
    for name, changes in levers(arguments).items():
        output = arguments.output / name
        config = changed(base, {**same_stages(changes, arguments.output / BASELINE), **changes, "output": str(output)})
        if not (output / LEDGER).exists():
            print(f"{name}: {changes or 'as it is'}", flush=True)
            train(config, resume=True)
        done.append(output)
        with atomic_write(page) as target:
            target.write_text(table(done, base), encoding="utf-8")
    return page


def table(runs: list[Path], base: TrainConfig) -> str:
    """The ablation table: the first run's figures, the others' differences to it."""
    assert base.val_annotations is not None
    truths = {"val": measured_truth(base.val_annotations, base.measure_photos)}
    if base.fold:
        ids = fold_ids(read_coco(base.annotations), base.fold)
        truths["fold"] = measured_truth(base.annotations, base.measure_photos, ids)
    head = ["lever", "minutes", "patch IoU", *(f"{part} {metric}" for part in truths for metric in METRICS)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    first: dict[str, Recall] = {}
    for run, row in zip(runs, read_rows(runs), strict=True):
        cells = [run.name, str(row["minutes"]), f"{row['patches']['mean_iou']:.3f}"]
        for part, truth in truths.items():
            file = run / f"{part}_proposals.json"
            recall = evaluate_recall(truth, file, name=run.name, iou_types=["segm"], progress=False)
            if part not in first:
                first[part] = recall
                cells += [percent(recall.areas["segm"]["all"].estimates[metric]) for metric in METRICS]
                continue
            difference = compare_recalls(first[part], recall, iou_type="segm")
            cells += [percent_points(difference[metric]) for metric in METRICS]
        lines.append("| " + " | ".join(cells) + " |")
    sizes = ", ".join(f"{part}: {len(truth['images'])} photos" for part, truth in truths.items())
    return "\n".join([*lines, "", f"{sizes}; the first row in percent, the others minus the first.", ""])


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("output", type=Path)
    options.add_argument("--annotations", type=Path, required=True)
    options.add_argument("--images", type=Path, required=True)
    options.add_argument("--val-annotations", type=Path, required=True)
    options.add_argument("--val-images", type=Path, required=True)
    options.add_argument("--steps", type=int, default=3000, help="of stage 1")
    options.add_argument("--refine-steps", type=int, default=1000, help="of stage 2, and of stage 3")
    options.add_argument("--trunk-weights")
    options.add_argument("--start-from")
    options.add_argument("--fold", default="1/5")
    options.add_argument("--photos", type=int, default=60, help="photos of each set on which AR is measured")
    options.add_argument("--teacher")
    options.add_argument("--pseudo", type=Path)
    options.add_argument("--negatives", type=Path)
    options.add_argument("--only", nargs="+", metavar="NAME")
    options.add_argument("--together", nargs="+", metavar="NAME")
    options.add_argument("--set", nargs="+", default=[], metavar="FIELD=VALUE")
    return options


if __name__ == "__main__":
    keep_freed_memory()
    print(run_all(parser().parse_args()))
