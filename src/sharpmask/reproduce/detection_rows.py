"""What the detection study is made of: its rows, its fixed numbers, and what it finds."""

from dataclasses import dataclass
from typing import Any

from sharpmask.detection.classes import DetectorClass
from sharpmask.evaluation.detections import DetectionScores
from sharpmask.reproduce.study import SELECTIVE_SEARCH

# Proposals of an image that are tested with; a row's AP is that with the last, which is the study's own.
COUNTS = (10, 30, 100, 300, 1000)
TRAIN_COUNT = 300
# Objects in the photos that are measured from which a class is frequent: the orderings are looked at in its AP too,
# since in the mean over classes one of seven objects counts as much as one of hundreds.
FREQUENT = 100


@dataclass(frozen=True)
class DetectionRow:
    """A row of the study.

    Attributes:
        name: key of the row, and its folder's name.
        label: what tables call it.
        source: of the proposals.
        detector: beginning of the detector's name, before the trunk's: "fast-rcnn" or "multipathnet".
        lacks: its end, after the trunk's: the part that it is without.
        masks: the proposals have masks, whose AP is measured too.
    """

    name: str
    label: str
    source: str
    detector: str = "fast-rcnn"
    lacks: str = ""
    masks: bool = True

    def detector_name(self, trunk: str) -> str:
        return "-".join(filter(None, (self.detector, trunk, self.lacks)))


ROWS = (
    DetectionRow(SELECTIVE_SEARCH, "Selective Search + Fast R-CNN", SELECTIVE_SEARCH, masks=False),
    DetectionRow("rpn", "RPN + Fast R-CNN", "rpn", masks=False),
    DetectionRow("deepmask", "DeepMask + Fast R-CNN", "deepmask"),
    DetectionRow("sharpmask", "SharpMask + Fast R-CNN", "sharpmask"),
    DetectionRow("multipathnet", "SharpMask + MultiPathNet", "sharpmask", "multipathnet"),
    DetectionRow("no-foveal", "… without foveal regions", "sharpmask", "multipathnet", "no-foveal"),
    DetectionRow("no-skips", "… without skips", "sharpmask", "multipathnet", "no-skips"),
    DetectionRow("no-integral", "… without the integral loss", "sharpmask", "multipathnet", "no-integral"),
)


@dataclass(frozen=True)
class DetectionPlan:
    """Fixed numbers of a study, and the settings they belong to."""

    settings: dict[str, Any]
    train_photos: int
    photos: int
    steps: int
    origin: str


@dataclass(frozen=True)
class DetectionResults:
    """All that the study found.

    `scores`: row -> number of proposals -> figures; `classes` are those that were learnt, with at least `min_examples`
    objects, `left_out` how many were not, `shown` class -> its objects in the photos that are measured; `trunk` and
    `weights` by name, `short_side` of the photos in pixels.
    """

    plan: DetectionPlan
    data: str
    rows: tuple[DetectionRow, ...]
    classes: list[DetectorClass]
    min_examples: int
    left_out: int
    shown: dict[str, int]
    scores: dict[str, dict[int, DetectionScores]]
    trunk: str
    short_side: int
    weights: str
    notes: tuple[str, ...]
    machine: dict[str, str]
