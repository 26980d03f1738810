"""Fewer and tidier masks: filters, suppression and partition in one record of settings."""

from dataclasses import dataclass

from sharpmask.errors import ConfigError
from sharpmask.proposals.overlaps import check_containment
from sharpmask.proposals.result import Proposals


@dataclass(frozen=True)
class Cleaning:
    """What to do with an image's proposals, in this order; each None leaves its step out.

    Attributes:
        min_score, min_area, max_area, max_aspect, max_border, min_stability: see `Proposals.filter`.
        nms: see `Proposals.nms`.
        containment: "parts", "wholes" or "both": see `Proposals.containment_nms`.
        containment_threshold: the share for it.
        partition: cut the masks so that no pixel has two (see `Proposals.partition`); `min_area` then holds for what
            is left of each.
        count: the best of what remains.

    Raises:
        ConfigError: a value outside its range.
    """

    min_score: float | None = None
    min_area: float | None = None
    max_area: float | None = None
    max_aspect: float | None = None
    max_border: float | None = None
    min_stability: float | None = None
    nms: float | None = None
    containment: str | None = None
    containment_threshold: float = 0.9
    partition: bool = False
    count: int | None = None

    def __post_init__(self) -> None:
        for name in ("min_score", "max_border", "min_stability", "nms", "containment_threshold"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"{name} {value:g}: must lie between 0 and 1")
        if self.max_aspect is not None and not self.max_aspect >= 1:
            raise ConfigError(f"max_aspect {self.max_aspect:g}: the longer side by the shorter one is at least 1")
        if self.max_area is not None and self.max_area < (self.min_area or 0):
            raise ConfigError(
                f"max_area {self.max_area:g} is smaller than min_area {self.min_area:g}: nothing would be left"
            )
        if self.containment is not None:
            check_containment(self.containment, self.containment_threshold)
        if self.count is not None and self.count < 1:
            raise ConfigError(f"count {self.count}: must be at least 1")

    def apply(self, proposals: Proposals) -> Proposals:
        """The proposals that remain, best first."""
        found = proposals.filter(
            min_score=self.min_score,
            min_area=self.min_area,
            max_area=self.max_area,
            max_aspect=self.max_aspect,
            max_border=self.max_border,
            min_stability=self.min_stability,
        )
        if self.nms is not None:
            found = found.nms(self.nms)
        if self.containment is not None:
            found = found.containment_nms(self.containment, self.containment_threshold)
        if self.partition:
            found = found.partition().filter(min_area=self.min_area)
        return found[: self.count]
