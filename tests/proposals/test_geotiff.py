"""Windows of files that rasterio reads: the right pixels, bands, stretch, places without data; and no more memory."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sharpmask.errors import ConfigError, ImageError, MissingExtraError
from sharpmask.images import BACKGROUND
from sharpmask.proposals import geotiff, raster_files
from sharpmask.proposals.raster_files import is_raster, open_raster, parse_bands, parse_stretch
from sharpmask.proposals.rasters import ArrayRaster

rasterio = pytest.importorskip("rasterio")

from rasterio.enums import ColorInterp, Resampling  # noqa: E402
from rasterio.shutil import copy  # noqa: E402
from rasterio.transform import from_origin  # noqa: E402

GROUND = {"crs": "EPSG:25832", "transform": from_origin(691000.5, 5334000.25, 0.2, 0.2)}


def write(path: Path, bands: np.ndarray, **options: Any) -> Path:
    """A GeoTIFF of bands (count,H,W)."""
    count, height, width = bands.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": bands.dtype, **GROUND}
    with rasterio.open(path, "w", **profile | options) as file:
        file.write(bands)
    return path


def noise(height: int, width: int, count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 255, (count, height, width), dtype=np.uint8)


def read(path: Path, step: int = 1, rows: Any = None, cols: Any = None, **options: Any) -> Any:
    with open_raster(path, **options) as raster:
        spans = (span or (0, -(-side // step)) for span, side in zip((rows, cols), raster.size, strict=True))
        return raster.read(*spans, step)


@pytest.mark.parametrize("layout", [{"tiled": True, "blockxsize": 64, "blockysize": 64}, {"blockysize": 7}])
@pytest.mark.parametrize("step", [1, 2, 4, 5, 16])
def test_reduced_pixels_are_means_of_blocks(tmp_path: Path, layout: dict[str, Any], step: int) -> None:
    bands = noise(131, 157)
    path = write(tmp_path / "a.tif", bands, **layout)
    height, width = (-(-side // step) for side in bands.shape[1:])
    expected = np.empty((height, width, 3))
    for row in range(height):
        for col in range(width):
            block = bands[:, row * step : (row + 1) * step, col * step : (col + 1) * step]
            expected[row, col] = block.mean(axis=(1, 2))
    whole = read(path, step)
    assert whole.valid is None
    assert np.abs(whole.pixels - expected).max() <= 0.51
    part = read(path, step, (3, height), (2, width - 1))
    np.testing.assert_array_equal(part.pixels, whole.pixels[3:, 2 : width - 1])
    in_memory = ArrayRaster(np.ascontiguousarray(bands.transpose(1, 2, 0)))
    assert np.abs(in_memory.read((3, height), (2, width), step).pixels - expected[3:, 2:]).max() <= 0.8  # rounds twice


def test_overviews_are_used_and_in_place(tmp_path: Path) -> None:
    y, x = np.mgrid[:400, :600]
    bands = np.repeat((x / 3 + y / 8)[None], 3, axis=0).astype(np.uint8)
    path = write(tmp_path / "a.tif", bands, tiled=True, blockxsize=64, blockysize=64)
    without = read(path, 4).pixels
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], Resampling.average)
    assert np.abs(read(path, 4).pixels.astype(int) - without).max() <= 1


def test_which_bands(tmp_path: Path) -> None:
    bands = noise(20, 30, 5)
    path = write(tmp_path / "a.tif", bands)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp[name] for name in ("blue", "green", "red", "undefined", "undefined")]
    np.testing.assert_array_equal(read(path).pixels, bands[[2, 1, 0]].transpose(1, 2, 0))
    np.testing.assert_array_equal(read(path, bands=(5, 3, 1)).pixels, bands[[4, 2, 0]].transpose(1, 2, 0))
    np.testing.assert_array_equal(read(path, bands=(4,)).pixels, np.repeat(bands[3][:, :, None], 3, axis=2))
    with pytest.raises(ImageError, match=r"a.tif: has 5 bands, so not the bands 6"):
        read(path, bands=(6,))
    plain = write(tmp_path / "b.tif", bands[:2], photometric="minisblack")
    np.testing.assert_array_equal(read(plain).pixels[:, :, 1], bands[0])
    plain = write(tmp_path / "c.tif", bands[:4], photometric="minisblack")
    np.testing.assert_array_equal(read(plain).pixels, bands[:3].transpose(1, 2, 0))


def test_percentiles_of_16_bits_and_floats(tmp_path: Path) -> None:
    ramp = np.linspace(2000, 3000, 200 * 50).reshape(1, 50, 200)
    deep = write(tmp_path / "deep.tif", ramp.astype(np.uint16))
    shown = read(deep).pixels[:, :, 0].astype(float)
    expected = ((ramp[0] - 2020) / 960 * 255).clip(0, 255)  # 2 % and 98 % of the ramp
    assert np.abs(shown - expected).max() < 1.5
    assert np.abs(read(deep, stretch=(0, 100)).pixels[:, :, 0] - (ramp[0] - 2000) / 1000 * 255).max() < 1.5
    assert np.abs(read(deep, stretch="none").pixels[:, :, 0] - ramp[0] / 257).max() < 1
    floats = ramp.astype(np.float32).copy()
    floats[0, :10, :10] = np.nan
    floats[0, 20, 20] = np.inf
    part = read(write(tmp_path / "float.tif", floats))
    assert not part.valid[:10, :10].any() and not part.valid[20, 20] and part.valid.sum() == 10_000 - 101
    assert (part.pixels[~part.valid] == BACKGROUND).all()
    assert np.abs(part.pixels[30:, :, 0] - expected[30:]).max() < 3
    with pytest.raises(ImageError, match="int32"):
        read(write(tmp_path / "wide.tif", ramp.astype(np.int32)), stretch="none")
    flat = read(write(tmp_path / "flat.tif", np.full((1, 9, 9), 777, np.uint16)))
    assert len(np.unique(flat.pixels)) == 1
    bands = noise(40, 40)
    np.testing.assert_array_equal(read(write(tmp_path / "e.tif", bands)).pixels, bands.transpose(1, 2, 0))
    stretched = read(write(tmp_path / "e.tif", bands // 4), stretch=(0, 100)).pixels
    assert stretched.min() == 0 and stretched.max() == 255


def test_the_same_stretch_everywhere(tmp_path: Path) -> None:
    """Black and white are those of the picture, not of the part."""
    ramp = np.repeat(np.arange(4000, dtype=np.uint16)[None, None], 30, axis=1)
    path = write(tmp_path / "a.tif", ramp)
    whole = read(path).pixels
    np.testing.assert_array_equal(read(path, cols=(3000, 3400)).pixels, whole[:, 3000:3400])


@pytest.mark.parametrize("kind", ["nodata", "alpha", "mask"])
def test_places_without_data(tmp_path: Path, kind: str) -> None:
    bands = noise(60, 80)
    hole = np.zeros((60, 80), bool)
    hole[:24, 40:] = True
    if kind == "nodata":
        bands[:, hole] = 0
        path = write(tmp_path / "a.tif", bands, nodata=0)
    elif kind == "alpha":
        path = write(tmp_path / "a.tif", np.concatenate([bands, np.where(hole, 0, 255)[None].astype(np.uint8)]))
        with rasterio.open(path, "r+") as file:
            file.colorinterp = [ColorInterp[name] for name in ("red", "green", "blue", "alpha")]
    else:
        path = write(tmp_path / "a.tif", bands)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
            file.write_mask(~hole)
    part = read(path)
    np.testing.assert_array_equal(part.valid, ~hole)
    assert (part.pixels[hole] == BACKGROUND).all()
    np.testing.assert_array_equal(part.pixels[~hole], bands.transpose(1, 2, 0)[~hole])
    np.testing.assert_array_equal(read(path, 4).valid, ~hole[::4, ::4])
    assert read(path, rows=(30, 60)).valid is None


def test_colour_tables(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4, (1, 20, 30), dtype=np.uint8)
    path = write(tmp_path / "a.tif", values, photometric="palette")
    colours = {0: (9, 8, 7, 255), 1: (250, 0, 0, 255), 2: (0, 240, 0, 255), 3: (0, 0, 230, 255)}
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, colours)
    np.testing.assert_array_equal(read(path).pixels, np.array([colours[i][:3] for i in range(4)])[values[0]])


def test_where_it_lies(tmp_path: Path) -> None:
    with open_raster(write(tmp_path / "a.tif", noise(9, 9))) as raster:
        assert raster.ground is not None and raster.ground.name == "EPSG:25832"
        assert raster.ground.to_ground(np.array([[0, 0], [5, 10]])).tolist() == [
            [691000.5, 5334000.25],
            [691001.5, 5333998.25],
        ]
    plain = tmp_path / "plain.tif"
    Image.new("RGB", (30, 20)).save(plain)
    with open_raster(plain) as raster:
        assert raster.ground is None and raster.reduces
    assert is_raster(tmp_path / "a.tif") and not is_raster(plain) and not is_raster(tmp_path / "a.png")
    odd = write(tmp_path / "odd.tif", noise(9, 9, 7).astype(np.float64), crs=None, transform=None)
    assert is_raster(odd)  # Pillow cannot read it
    (tmp_path / "bad.tif").write_bytes(b"no picture")
    assert not is_raster(tmp_path / "bad.tif")


def test_stored_sideways(tmp_path: Path) -> None:
    """GDAL does not heed a TIFF's orientation, so these are decoded whole, upright."""
    picture = np.zeros((20, 30, 3), np.uint8)
    picture[:5, :5] = 255
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(picture).save(tmp_path / "a.tif", exif=exif)
    with open_raster(tmp_path / "a.tif") as raster:
        assert raster.size == (30, 20) and not raster.reduces
        assert raster.read((0, 5), (15, 20), 1).pixels.min() == 255
    with pytest.raises(ImageError, match="bands"), open_raster(tmp_path / "a.tif", bands=(1,)):
        pass


def test_other_files_are_decoded_whole(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), (1, 2, 3)).save(tmp_path / "a.png")
    with open_raster(tmp_path / "a.png") as raster:
        assert raster.size == (30, 40) and not raster.reduces
    with pytest.raises(ImageError, match="limit"), open_raster(tmp_path / "a.png", max_pixels=1000):
        pass
    with pytest.raises(ImageError, match="no such file"), open_raster(tmp_path / "b.png"):
        pass


def test_damaged_files(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"a\.tif: cannot be read"), open_raster(tmp_path / "a.tif"):
        pass
    path = write(tmp_path / "b.tif", noise(300, 300), compress="deflate")
    path.write_bytes(path.read_bytes()[:150_000])
    with pytest.raises(ImageError, match=r"b\.tif: cannot be read"):
        read(path)
    complex_ = write(tmp_path / "c.tif", np.zeros((1, 9, 9), np.complex64))
    with pytest.raises(ImageError, match="complex64"), open_raster(complex_):
        pass


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is for what is decoded at once: a block, not the picture."""
    tiles = write(tmp_path / "a.tif", noise(200, 200), tiled=True, blockxsize=16, blockysize=16, compress="deflate")
    assert read(tiles, max_pixels=1000).pixels.shape == (200, 200, 3)
    strip = write(tmp_path / "b.tif", noise(200, 200), blockysize=200, compress="deflate")
    with pytest.raises(ImageError, match=r"blocks of 200x200 pixels.*TILED=YES"), open_raster(strip, max_pixels=1000):
        pass
    monkeypatch.setattr(geotiff, "MOST_PIXELS", 39_999)
    with pytest.raises(ImageError, match=r"200x200 is more than"), open_raster(tiles):
        pass


def test_without_rasterio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.tif", noise(20, 30))
    monkeypatch.setattr(raster_files, "has_rasterio", lambda: False)
    assert is_raster(path)
    with open_raster(path) as raster:
        assert raster.ground is None and raster.size == (20, 30)
    (tmp_path / "a.vrt").write_text("<VRTDataset/>")
    for name, options in (("a.tif", {"bands": (1,)}), ("a.tif", {"stretch": "none"}), ("a.vrt", {})):
        with pytest.raises(MissingExtraError, match=r"sharpmask\[geo\]"), open_raster(tmp_path / name, **options):
            pass


def test_a_mosaic(tmp_path: Path) -> None:
    bands = noise(20, 30)
    write(tmp_path / "a.tif", bands)
    with rasterio.open(tmp_path / "a.tif") as source, rasterio.vrt.WarpedVRT(source) as warped:
        copy(warped, tmp_path / "a.vrt", driver="VRT")
    assert is_raster(tmp_path / "a.vrt")
    np.testing.assert_array_equal(read(tmp_path / "a.vrt").pixels, bands.transpose(1, 2, 0))


def test_options_as_text() -> None:
    assert parse_bands("4,3,2") == (4, 3, 2) and parse_bands("1") == (1,) and parse_bands(None) is None
    assert parse_stretch("1,99.5") == (1.0, 99.5) and parse_stretch("none") == "none" and parse_stretch(None) is None
    for text in ("", "0", "1,2", "a", "1,2,3,4", "-1"):
        with pytest.raises(ConfigError, match="--bands"):
            parse_bands(text)
    for text in ("", "5", "9,3", "0,101", "a,b", "-1,5", "nan,5"):
        with pytest.raises(ConfigError, match="--stretch"):
            parse_stretch(text)


def test_only_parts_of_a_file_are_in_memory(tmp_path: Path) -> None:
    """100 megapixels, 300 MB: a child that searches them, with its blocks, must stay far below that."""
    path = tmp_path / "large.tif"
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "sparse_ok": True, "compress": "deflate"}
    profile = {"driver": "GTiff", "count": 3, "height": 10_000, "width": 10_000, "dtype": "uint8", **GROUND, **layout}
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.full((3, 500, 500), 255, np.uint8), window=((3000, 3500), (3000, 3500)))
    small = write(tmp_path / "small.tif", noise(600, 600))
    program = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from conftest import BrightnessNetwork
from sharpmask.proposals import Proposer, geotiff
from sharpmask.proposals.raster_files import open_raster
from sharpmask.proposals.tiling import propose_raster
geotiff.CACHE_BYTES = 16_000_000
peaks = []
for name in sys.argv[2:]:
    with open_raster(Path(name)) as raster:
        proposer = Proposer(BrightnessNetwork(56), scales=[-3.5], threshold=0.5, feature_bytes=8_000_000)
        found = propose_raster(proposer, raster, tile=512, top=20, coarser=False)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
assert found.image_size == (10000, 10000) and len(found), found
print(peaks[1] - peaks[0])
"""
    child = subprocess.run(
        [sys.executable, "-c", program, str(Path(__file__).parent), str(small), str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    assert float(child.stdout) < 130  # megabytes; the network's input of 512 x 512 and what is kept of it are most
