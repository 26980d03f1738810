"""Detectors that take milliseconds: the real structure at a fraction of the channels."""

import dataclasses

from sharpmask.detection.specs import DETECTORS, DetectorSpec


def tiny(name: str, **changes: object) -> DetectorSpec:
    """A row of the table with an eighth of the trunk's channels, small layers and small photos."""
    small = {"trunk_width": 8, "hidden": 12, "short_side": 96, "long_side": 160}
    row = DETECTORS[name]
    side = 4 if row.head == "c5" else 3
    return dataclasses.replace(row, **{**small, "pooled_side": side, **changes})  # type: ignore[arg-type]
