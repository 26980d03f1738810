"""What a study is made of: rows to train and measure, findings of the paper to check, and what the user chose."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sharpmask.reproduce.datasets import Data

STUDIES = ("trunk", "heads", "refinement", "coco", "detection", "qualitative")
SELECTIVE_SEARCH = "selective-search"


@dataclass(frozen=True)
class Row:
    """One model of a study.

    Attributes:
        name: key of the row, and its folder's name.
        label: what tables call it.
        model: what is trained: a name of the spec table; what is only loaded: a model's name or file, or
            SELECTIVE_SEARCH.
        stage: the stage that is trained here; None: the model is loaded as it is.
        start: name or file of a trained model that training starts from.
        start_row: row whose trained model training starts from, in its place.
        trunk_weights: ImageNet weights that training starts from.
        share: steps in relation to the other rows.
        rate: learning rate of the short schedule in relation to its config's.
        zoom: of the proposer.
        coarse: measure the DeepMask inside the model.
        without: why the accuracy is not measured, for a row of which only the cost is.
    """

    name: str
    label: str
    model: str
    stage: Literal["deepmask", "sharpmask"] | None = None
    start: str | None = None
    start_row: str | None = None
    trunk_weights: str | None = None
    share: float = 1.0
    rate: float = 1.0
    zoom: int = 0
    coarse: bool = False
    without: str | None = None


@dataclass(frozen=True)
class Finding:
    """An ordering that the paper found between two rows.

    Attributes:
        text: the finding in words.
        first, second: rows.
        relation: "above": the first's figure is higher; "not below": it is not lower by more than `MARGIN`; "equal":
            they differ by no more than that; "faster": the first takes less time.
        metric: see `metrics.py`.
    """

    text: str
    first: str
    second: str
    relation: Literal["above", "not below", "equal", "faster"]
    metric: str


# Channels k of the refinement in the capacity study.
WIDTHS = (4, 8, 16, 32, 64)
# Percentage points within which two figures count as equal.
MARGIN = 1.0


@dataclass(frozen=True)
class Study:
    """A table of the paper as it is rebuilt here."""

    name: str
    title: str
    protocol: str
    rows: tuple[Row, ...]
    metrics: tuple[str, ...]
    findings: tuple[Finding, ...]
    time: str = "total time"
    upper_bound: bool = False
    notes: tuple[str, ...] = ()

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)

    @property
    def trained(self) -> list[Row]:
        return [row for row in self.rows if row.stage is not None and row.without is None]

    @property
    def measured(self) -> list[Row]:
        return [row for row in self.rows if row.without is None]


@dataclass(frozen=True)
class Options:
    """What the user chose; see `sharpmask reproduce --help`."""

    data: Data
    output: Path
    base: Literal["resnet50", "lite0"] | None = None
    model: str | None = None
    deepmask: str | None = None
    trunk_weights: str | None = None
    vgg_weights: str | None = None
    caffe: bool = False
    schedule: Literal["short", "paper"] = "short"
    precision: Literal["fp32", "bf16"] | None = None
    minutes: float = 50.0
    steps: int | None = None
    photos: int | None = None
    min_examples: int = 200
    device: str | None = None
    seed: int = 0
    images: tuple[str, ...] = field(default=())
    licenses: tuple[int, ...] = field(default=())
    count: int | None = None
    failures: int | None = None
