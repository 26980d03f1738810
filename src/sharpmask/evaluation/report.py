"""`sharpmask evaluate` without the command line: several results files measured, side by side, and as JSON."""

import json
from collections.abc import Sequence
from pathlib import Path

from sharpmask.errors import ConfigError
from sharpmask.evaluation.inputs import read_annotations
from sharpmask.evaluation.recall import IOU_TYPES, Recall, compare_recalls, evaluate_recall
from sharpmask.evaluation.tables import recall_table


def evaluate_files(
    proposals: Sequence[str | Path],
    *,
    annotations: str | Path,
    names: Sequence[str] | None = None,
    iou_types: Sequence[str] = IOU_TYPES,
    seed: int = 0,
    resamples: int = 1000,
    progress: bool = True,
    workers: int | None = None,
) -> tuple[list[Recall], str]:
    """Measure each results file on the same annotations; returns the figures and the table that sets them side by side.

    names: one for each file, all different; by default the file's name, or its path where two names are equal.
    workers: processes; None: as many as cores where the results are large.
    Raises DataError for files that cannot be measured, ConfigError for options that do not fit.
    """
    if not proposals:
        raise ConfigError("no results file given")
    if names is None:
        stems = [Path(path).stem for path in proposals]
        names = stems if len(set(stems)) == len(stems) else [str(path) for path in proposals]
    if len(names) != len(proposals):
        raise ConfigError(f"{len(names)} names for {len(proposals)} results files; give one name for each file")
    if len(set(names)) != len(names):
        raise ConfigError(f"the names of the columns must differ: {', '.join(names)}")
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers must be at least 1, not {workers}")
    if seed < 0:
        raise ConfigError(f"the seed must not be negative, it is {seed}")
    truth = read_annotations(annotations)
    recalls = [
        evaluate_recall(
            truth,
            path,
            name=name,
            iou_types=iou_types,
            seed=seed,
            resamples=resamples,
            progress=progress,
            workers=workers,
        )
        for path, name in zip(proposals, names, strict=True)
    ]
    return recalls, recall_table(recalls)


def report_json(recalls: Sequence[Recall]) -> str:
    """The figures as JSON text: {"results": [...], "differences": [{"name", "minus", "iou_type", "figures"}, ...]}."""
    differences = [
        {
            "name": other.name,
            "minus": recalls[0].name,
            "iou_type": iou_type,
            "figures": {
                metric: estimate.to_dict()
                for metric, estimate in compare_recalls(recalls[0], other, iou_type=iou_type).items()
            },
        }
        for other in recalls[1:]
        for iou_type in other.iou_types
        if iou_type in recalls[0].areas
    ]
    content = {"results": [recall.to_dict() for recall in recalls], "differences": differences}
    return json.dumps(content, indent=1, allow_nan=False) + "\n"
