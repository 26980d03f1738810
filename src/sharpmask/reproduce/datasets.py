"""Where COCO's photos and annotations lie: the usual layouts of a data folder."""

import os
from dataclasses import dataclass
from pathlib import Path

from sharpmask.errors import ConfigError

VARIABLE = "SHARPMASK_DATA"


@dataclass(frozen=True)
class Photos:
    """One part of a data set: a COCO `instances` file and the folder of its photos."""

    annotations: Path
    images: Path


@dataclass(frozen=True)
class Data:
    """A data set; `train` is None where the folder has the photos to measure on only."""

    name: str
    folder: Path
    train: Photos | None
    val: Photos


# title -> for train and val: annotation file, and the folders where the photos may be
_LAYOUTS = {
    "COCO 2014": tuple(
        (f"annotations/instances_{part}2014.json", (f"{part}2014", f"images/{part}2014")) for part in ("train", "val")
    ),
    "COCO 2017": tuple(
        (f"annotations/instances_{part}2017.json", (f"{part}2017", f"images/{part}2017")) for part in ("train", "val")
    ),
    "small": tuple((f"instances_{part}.json", (part, f"images/{part}")) for part in ("train", "val")),
}


def find_data(folder: str | Path | None) -> Data:
    """The data set in `folder`, or for None in the folder that the environment variable SHARPMASK_DATA names.

    Known are COCO's own layouts (`annotations/instances_train2014.json`, `train2014/`, and so on, also 2017) and a
    small one: `instances_train.json`, `train/`, `instances_val.json`, `val/`.

    Raises:
        ConfigError: no folder is named, or it has none of these layouts.
    """
    named = folder if folder is not None else os.environ.get(VARIABLE)
    if not named:
        raise ConfigError(
            f"no data: give --data DIR, or set {VARIABLE}; DIR holds COCO (annotations/instances_val2014.json, "
            "val2014/, …) or a smaller set (instances_train.json, train/, instances_val.json, val/)"
        )
    root = Path(named)
    if not root.is_dir():
        raise ConfigError(f"no data folder {root}: check --data or {VARIABLE}")
    for title, (train, val) in _LAYOUTS.items():
        found = _part(root, val)
        if found is not None:
            return Data(root.resolve().name if title == "small" else title, root, _part(root, train), found)
    known = "; ".join(f"{val[0]} with {' or '.join(f'{name}/' for name in val[1])}" for _, val in _LAYOUTS.values())
    raise ConfigError(f"{root} has no data in a known layout; looked for {known}")


def _part(root: Path, layout: tuple[str, tuple[str, ...]]) -> Photos | None:
    annotations, folders = root / layout[0], [root / name for name in layout[1]]
    images = next((images for images in folders if images.is_dir()), None)
    return Photos(annotations, images) if annotations.is_file() and images is not None else None
