"""What the documentation's commands take as given: photos, a data set, a trained model, small enough for tests."""

import shutil
from pathlib import Path

from docs_pages import ROOT
from PIL import Image

import sharpmask
from sharpmask.data.sample import write_sample


def prepare(name: str, folder: Path) -> None:
    """Put the input of that name into a folder. Raises KeyError for another name."""
    _INPUTS[name](folder)


def _photo(name: str, target: Path, width: int = 224) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(ROOT / "examples" / name) as photo:
        photo.resize((width, photo.height * width // photo.width)).save(target)


def _photos(folder: Path) -> None:
    """photos/ with two small photos, more/ with another."""
    _photo("riders.jpg", folder / "photos/riders.jpg")
    _photo("suitcases.jpg", folder / "photos/suitcases.jpg")
    _photo("suitcases.jpg", folder / "more/station.jpg")


def _examples(folder: Path) -> None:
    """The repository's examples/, its photos made smaller."""
    for name in ("riders.jpg", "suitcases.jpg"):
        _photo(name, folder / "examples" / name)


def _sample(folder: Path) -> None:
    """train.json and val.json with their photos in train/ and val/."""
    write_sample(folder, train=4, val=2)


def _model(folder: Path) -> None:
    """The bundled model as the result of a run: runs/mine/model.safetensors."""
    (folder / "runs/mine").mkdir(parents=True, exist_ok=True)
    weights = Path(sharpmask.__file__).parent / "weights/sharpmask-lite0.safetensors"
    shutil.copy(weights, folder / "runs/mine/model.safetensors")


_INPUTS = {"photos": _photos, "examples": _examples, "sample": _sample, "model": _model}
