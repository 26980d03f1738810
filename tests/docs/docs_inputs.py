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


def _ortho(folder: Path) -> None:
    """ortho.tif, a small photo as a GeoTIFF of 16 bits, and scan.png."""
    import numpy as np
    import rasterio
    from rasterio.transform import from_origin

    _photo("suitcases.jpg", folder / "scan.png")
    with Image.open(folder / "scan.png") as photo:
        bands = np.asarray(photo).transpose(2, 0, 1).astype(np.uint16) * 30
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint16", "height": bands.shape[1], "width": bands.shape[2]}
    place = {"crs": "EPSG:25832", "transform": from_origin(691000, 5334000, 0.2, 0.2)}
    with rasterio.open(folder / "ortho.tif", "w", **profile, **place) as file:
        file.write(bands)


def _clip(folder: Path) -> None:
    """clip.mp4: half a second of a photo that passes by."""
    import av

    with Image.open(ROOT / "examples/riders.jpg") as photo:
        small = photo.resize((224, photo.height * 224 // photo.width // 2 * 2))
    with av.open(str(folder / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 192, small.height, "yuv420p"
        for number in range(5):
            frame = av.VideoFrame.from_image(small.crop((4 * number, 0, 4 * number + 192, small.height)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


_INPUTS = {"clip": _clip, "ortho": _ortho, "photos": _photos, "examples": _examples, "sample": _sample, "model": _model}
