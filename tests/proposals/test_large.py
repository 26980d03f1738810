"""Large and georeferenced pictures on the command line: from a GeoTIFF to shapes on the ground."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from sharpmask import checkpoints
from sharpmask.cli.main import main
from sharpmask.proposals import large, raster_files

rasterio = pytest.importorskip("rasterio")
pyogrio = pytest.importorskip("pyogrio")
shapely = pytest.importorskip("shapely")

from rasterio import features  # noqa: E402
from rasterio.transform import Affine  # noqa: E402

TRANSFORMS = {
    "north up": Affine(0.2, 0, 691000.4, 0, -0.2, 5334000.6),
    "rotated": Affine(0.1879, 0.0684, 691000.4, 0.0684, -0.1879, 5334000.6),  # by 20 degrees
}
SIZE = (420, 560)
# Only windows with the object in their middle, at one scale.
ONE_EACH = ["--scales", "0", "--min-score", "0.4", "--threshold", "0.5", "--nms", "0.5"]


@pytest.fixture(autouse=True)
def bright_things(monkeypatch: pytest.MonkeyPatch, brightness_network: Any) -> None:
    """In place of the model one that finds what is bright."""
    monkeypatch.setattr(checkpoints, "load_network", lambda name: brightness_network())
    monkeypatch.setattr("sharpmask.runtimes.choice.DEFAULT_RUNTIME", "eager")  # no runtime can prepare the fake


def objects() -> list[np.ndarray]:
    """A disc, an L with a hole, and a bar, far apart; the second one on the corner of four tiles of 256."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    disc = np.hypot(y - 70, x - 90) < 30
    ell = (abs(y - 240) < 40) & (abs(x - 256) < 40) & ~((y < 225) & (x > 270)) & ~(np.hypot(y - 255, x - 240) < 8)
    bar = (abs(y - 330) < 14) & (abs(x - 470) < 36)
    return [disc, ell, bar]


def geotiff(path: Path, transform: Affine, dtype: str = "uint8", **options: Any) -> Path:
    bright = np.any(objects(), axis=0)
    values = np.where(bright, 255, 20).astype(dtype)
    if dtype != "uint8":
        values = np.where(bright, 3000, 1000).astype(dtype)
    profile = {"driver": "GTiff", "height": SIZE[0], "width": SIZE[1], "count": 3, "dtype": dtype, "crs": "EPSG:25832"}
    with rasterio.open(path, "w", transform=transform, **profile | options) as file:
        file.write(np.repeat(values[None], 3, axis=0))
    return path


def propose(path: Path, output: Path, *options: str) -> int:
    return main(["propose", str(path), "--output", str(output), "--device", "cpu", *ONE_EACH, *options])


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS.keys())
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_from_a_geotiff_to_shapes_on_the_ground(tmp_path: Path, transform: Affine, dtype: str) -> None:
    """Each object comes out once, within a pixel of its place, in both formats."""
    path = geotiff(tmp_path / "ortho.tif", transform, dtype, tiled=True, blockxsize=64, blockysize=64)
    status = propose(path, tmp_path / "out", "--tile", "256", "--format", "coco,geojson,geopackage")
    assert status == 0
    with Image.open(tmp_path / "out" / "ortho_overlay.png") as overlay:
        assert overlay.size == SIZE[::-1]
    entries = json.loads((tmp_path / "out" / "proposals.json").read_text())
    for kind, suffix in (("geojson", "geojson"), ("geopackage", "gpkg")):
        meta, _, geometry, columns = pyogrio.raw.read(tmp_path / "out" / kind / f"ortho.{suffix}")
        assert meta["crs"] == "EPSG:25832"
        shapes = shapely.from_wkb(geometry)
        assert len(shapes) == len(entries) == 3
        for mask in objects():
            burnt = [features.rasterize([shape], out_shape=SIZE, transform=transform).astype(bool) for shape in shapes]
            best = int(np.argmax([(b & mask).sum() for b in burnt]))
            assert (burnt[best] & mask).sum() / (burnt[best] | mask).sum() > 0.98
            truth = shapely.MultiPolygon(
                [shapely.geometry.shape(s) for s, _ in features.shapes(mask.astype("u1"), mask, 4, transform)]
            )
            assert shapes[best].hausdorff_distance(truth) < 0.2 * 1.5  # a pixel's diagonal
            np.testing.assert_array_equal(coco_mask.decode(entries[best]["segmentation"]), burnt[best])
            table = dict(zip(meta["fields"], columns, strict=True))
            assert table["area_m2"][best] == pytest.approx(mask.sum() * 0.04, rel=0.02)
            assert table["rank"][best] == best + 1


def test_what_lies_on_the_ground_and_what_does_not_are_not_mixed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A photo's masks must not depend on its neighbours in the command."""
    path = geotiff(tmp_path / "ortho.tif", TRANSFORMS["north up"])
    Image.new("RGB", (60, 40)).save(tmp_path / "photo.png")
    given = ["propose", str(path), str(tmp_path / "photo.png"), "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*given, *ONE_EACH]) == 2
    assert "ortho.tif lies on the ground" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert main([*given, *ONE_EACH, "--tile", "256"]) == 0


def test_georeferenced_files_need_no_option(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "ortho.tif", TRANSFORMS["north up"])
    assert propose(path, tmp_path / "out", "--format", "geojson", "--coordinates", "wgs84") == 0
    content = json.loads((tmp_path / "out" / "geojson" / "ortho.geojson").read_text())
    longitude, latitude = content["features"][0]["geometry"]["coordinates"][0][0]
    assert 11 < longitude < 12 and 48 < latitude < 49


def test_places_without_data(tmp_path: Path) -> None:
    """White stripes that the file declares to be no data are no objects."""
    path = geotiff(tmp_path / "ortho.tif", TRANSFORMS["north up"], nodata=255)
    assert propose(path, tmp_path / "out", "--format", "geojson") == 0
    assert json.loads((tmp_path / "out" / "geojson" / "ortho.geojson").read_text())["features"] == []


def test_bands_and_stretch(tmp_path: Path) -> None:
    path = tmp_path / "many.tif"
    values = np.full((5, *SIZE), 200, np.uint16)
    values[3] = np.where(np.any(objects(), axis=0), 900, 100)
    profile = {"driver": "GTiff", "height": SIZE[0], "width": SIZE[1], "count": 5, "dtype": "uint16"}
    with rasterio.open(path, "w", transform=TRANSFORMS["north up"], **profile) as file:
        file.write(values)
    assert propose(path, tmp_path / "out", "--bands", "4", "--stretch", "0,100", "--no-overlay") == 0
    assert len(json.loads((tmp_path / "out" / "proposals.json").read_text())) == 3


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg"])
def test_plain_pictures_in_tiles(tmp_path: Path, suffix: str) -> None:
    bright = np.where(np.any(objects(), axis=0), 255, 20).astype(np.uint8)
    path = tmp_path / f"plain{suffix}"
    Image.fromarray(np.repeat(bright[:, :, None], 3, axis=2)).save(path)
    annotations = tmp_path / "ann.json"
    annotations.write_text(json.dumps({"images": [{"id": 42, "file_name": path.name, "width": 560, "height": 420}]}))
    options = ["--tile", "224", "--overlap", "64", "--format", "coco,geojson", "--annotations", str(annotations)]
    assert propose(path, tmp_path / "out", *options) == 0
    entries = json.loads((tmp_path / "out" / "proposals.json").read_text())
    assert len(entries) == 3 and {entry["image_id"] for entry in entries} == {42}
    content = json.loads((tmp_path / "out" / "geojson" / "plain.geojson").read_text())
    assert content["coordinates"].startswith("pixels") and "crs" not in content


def test_what_cannot_be_placed_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (60, 50)).save(tmp_path / "a.png")
    (tmp_path / "b.tif").write_bytes(b"no picture")
    bare = geotiff(tmp_path / "c.tif", TRANSFORMS["north up"], crs=None)
    good = geotiff(tmp_path / "d.tif", TRANSFORMS["north up"])
    inputs = [str(tmp_path / "a.png"), str(tmp_path / "b.tif"), str(bare), str(good)]
    options = ["--format", "geojson", "--coordinates", "ground", "--no-overlay", *ONE_EACH]
    assert main(["propose", *inputs, "--output", str(tmp_path / "out"), *options]) == 1
    message = capsys.readouterr().err
    assert "a.png: names no coordinate system" in message and "c.tif: names no coordinate system" in message
    assert "b.tif: cannot be read" in message and "3 of 4 images failed" in message and "Traceback" not in message
    assert [path.name for path in (tmp_path / "out" / "geojson").iterdir()] == ["d.geojson"]


def test_label_maps_of_huge_pictures_are_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(large, "MAX_PIXELS", 100_000)
    path = geotiff(tmp_path / "ortho.tif", TRANSFORMS["north up"])
    for options in (["--partition"], ["--format", "label-map"]):
        assert propose(path, tmp_path / "out", *options) == 1
        assert "label map or --partition" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--tile", "100"],
        ["--tile", "many"],
        ["--tile", "256", "--overlap", "250"],
        ["--overlap", "-3"],
        ["--bands", "1,2"],
        ["--stretch", "9,1"],
        ["--coordinates", "mars"],
        ["--compat", "torch7"],
        ["--step", "2"],
        ["--format", "youtube-vis"],
    ],
)
def test_bad_options_give_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    path = geotiff(tmp_path / "ortho.tif", TRANSFORMS["north up"])
    try:
        status = propose(path, tmp_path / "out", *options)
    except SystemExit as stop:
        status = stop.code  # type: ignore[assignment]
    assert status == 2 and not (tmp_path / "out").exists()
    assert capsys.readouterr().err.strip()


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = geotiff(tmp_path / "ortho.tif", TRANSFORMS["north up"])
    monkeypatch.setattr(raster_files, "has_rasterio", lambda: False)
    monkeypatch.setattr(large, "has_rasterio", lambda: False)
    assert propose(path, tmp_path / "out", "--format", "geojson", "--no-overlay") == 0
    assert "sharpmask[geo]" in capsys.readouterr().err
    content = json.loads((tmp_path / "out" / "geojson" / "ortho.geojson").read_text())
    assert content["coordinates"].startswith("pixels")
    assert propose(path, tmp_path / "out2", "--bands", "1") == 2
    assert "sharpmask[geo]" in capsys.readouterr().err


def test_a_full_disk(tmp_path: Path, files_of_at_most: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = geotiff(tmp_path / "ortho.tif", TRANSFORMS["north up"])
    with files_of_at_most(9_000):
        assert propose(path, tmp_path / "out", "--format", "geopackage", "--no-overlay") == 1
    assert "cannot write" in capsys.readouterr().err
    assert list((tmp_path / "out" / "geopackage").iterdir()) == []
