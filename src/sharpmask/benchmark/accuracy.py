"""What a choice costs in accuracy: AR of its masks, and the difference to the first choice on the same photos."""

from dataclasses import dataclass
from pathlib import Path

from sharpmask.errors import DataError
from sharpmask.evaluation.bootstrap import Estimate
from sharpmask.evaluation.inputs import Annotations, read_annotations
from sharpmask.evaluation.recall import Recall, compare_recalls, evaluate_recall
from sharpmask.proposals.proposer import Proposer

METRICS = ("AR@10", "AR@100", "AR@1000")


@dataclass(frozen=True)
class Accuracy:
    """`recall` of the masks, and `change`: by metric the difference to the reference with its paired interval."""

    recall: Recall
    change: dict[str, Estimate] | None


def measure_recall(
    proposer: Proposer, annotations: str | Path | Annotations, images: str | Path, name: str, reference: Accuracy | None
) -> Accuracy:
    """Propose for every annotated photo of a folder and measure the masks.

    Raises:
        DataError: the annotations cannot be read, or a photo that they list is not there.
    """
    truth = annotations if isinstance(annotations, Annotations) else read_annotations(annotations)
    results = []
    for file_name, image_id in truth.file_names.items():
        path = next(
            (path for path in (Path(images) / file_name, Path(images) / Path(file_name).name) if path.is_file()), None
        )
        if path is None:
            raise DataError(f"{images}: has no photo {file_name}, which the annotations list")
        results += proposer.propose(path).to_coco(image_id)  # type: ignore[arg-type]
    recall = evaluate_recall(truth, results, name=name, iou_types=("segm",), progress=False)
    if reference is None:
        return Accuracy(recall, None)
    change = compare_recalls(reference.recall, recall, iou_type="segm")
    return Accuracy(recall, {metric: change[metric] for metric in METRICS})
