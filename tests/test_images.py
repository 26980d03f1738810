"""Every kind of image becomes the same 8-bit RGB array, and what is none gives one clear message."""

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from sharpmask.errors import ConfigError, ImageError
from sharpmask.images import BACKGROUND, find_images, read_image


@pytest.fixture
def photo() -> np.ndarray:
    y, x = np.mgrid[:40, :60]
    return np.stack([x * 4, y * 6, 255 - x * 4], axis=2).astype(np.uint8)


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_rgb_file_pil_image_and_array_agree(photo: np.ndarray, tmp_path: Path) -> None:
    path = saved(Image.fromarray(photo), tmp_path / "a.png")
    for source in (path, str(path), Image.open(path), photo, photo.astype(np.int64), photo / 255.0):
        result = read_image(source)
        assert result.dtype == np.uint8 and result.flags.c_contiguous and result.flags.writeable
        np.testing.assert_array_equal(result, photo)


def test_read_only_and_flipped_arrays(photo: np.ndarray) -> None:
    flipped = photo[::-1, ::-1]
    frozen = photo.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(read_image(flipped), flipped)
    assert read_image(frozen).flags.writeable


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_grey_bilevel_and_palette(photo: np.ndarray, tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(photo).convert(mode)
    path = saved(image, tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(path), np.array(image.convert("RGB")))


def test_arrays_of_other_shapes_and_types() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    expected = np.repeat(grey[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(read_image(grey), expected)
    np.testing.assert_array_equal(read_image(grey[:, :, None]), expected)
    np.testing.assert_array_equal(read_image(grey > 5)[..., 0], np.where(grey > 5, 255, 0))
    np.testing.assert_array_equal(read_image(grey.astype(np.uint16) * 257), expected)


def test_16_bit_files(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 300).astype(np.uint16).reshape(10, 30)
    expected = np.round(values / 257).astype(np.uint8)
    for name in ("a.png", "a.tif"):
        path = saved(Image.fromarray(values), tmp_path / name)
        np.testing.assert_array_equal(read_image(path)[..., 0], expected)
    path = saved(Image.fromarray(values.astype(np.int32)), tmp_path / "b.tif")
    np.testing.assert_array_equal(read_image(path)[..., 0], expected)


def test_float_tiff(tmp_path: Path) -> None:
    path = saved(Image.fromarray(np.full((4, 5), 0.5, np.float32)), tmp_path / "a.tif")
    assert read_image(path).tolist() == np.full((4, 5, 3), 128).tolist()


def test_transparency_shows_grey(photo: np.ndarray, tmp_path: Path) -> None:
    alpha = np.zeros(photo.shape[:2], np.uint8)
    alpha[:, 30:] = 255
    rgba = Image.fromarray(np.dstack([photo, alpha]))
    palette = Image.fromarray(photo).quantize(16)
    clear = palette.getpixel((0, 0))
    sources = {
        "rgba": rgba,
        "array": np.dstack([photo, alpha]),
        "la": Image.merge("LA", (Image.fromarray(photo).convert("L"), Image.fromarray(alpha))),
        "file": saved(rgba, tmp_path / "a.png"),
        "palette": saved(palette, tmp_path / "p.png", transparency=clear),
        "gif": saved(palette, tmp_path / "p.gif", transparency=clear),
    }
    for name, source in sources.items():
        result = read_image(source)
        assert tuple(result[0, 0]) == BACKGROUND, name
        assert tuple(result[20, 50]) != BACKGROUND, name
    np.testing.assert_array_equal(read_image(rgba)[:, 30:], photo[:, 30:])


def test_cmyk(photo: np.ndarray, tmp_path: Path) -> None:
    image = Image.fromarray(photo).convert("CMYK")
    for name in ("a.jpg", "a.tif"):
        result = read_image(saved(image, tmp_path / name, quality=100))
        assert np.abs(result.astype(int) - photo).mean() < 4


def test_lab_is_converted(photo: np.ndarray) -> None:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.profileToProfile(Image.fromarray(photo), *profiles, outputMode="LAB")
    assert np.abs(read_image(lab).astype(int) - photo).mean() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(photo: np.ndarray, tmp_path: Path, orientation: int) -> None:
    turns = {
        1: photo,
        2: photo[:, ::-1],
        3: photo[::-1, ::-1],
        4: photo[::-1],
        5: photo.transpose(1, 0, 2),
        6: photo.transpose(1, 0, 2)[:, ::-1],
        7: photo[::-1, ::-1].transpose(1, 0, 2),
        8: photo.transpose(1, 0, 2)[::-1],
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(Image.fromarray(photo), tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(path), turns[orientation])


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_is_ignored(photo: np.ndarray, tmp_path: Path) -> None:
    path = saved(Image.fromarray(photo), tmp_path / "a.jpg", quality=95, exif=b"Exif\x00\x00MM\x00*garbage")
    assert read_image(path).shape == photo.shape


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp", "a.bmp", "a.gif"])
def test_truncated_files(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (80, 80, 3), dtype=np.uint8)
    path = saved(Image.fromarray(noise), tmp_path / name)
    data = path.read_bytes()
    for part in (len(data) // 2, 20, 0):
        path.write_bytes(data[:part])
        with pytest.raises(ImageError, match=name):
            read_image(path)


def test_what_is_no_image(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("hello")
    cases = [(text, "a.txt: not an image"), (tmp_path / "none.jpg", "no such file"), (tmp_path, "a folder")]
    for source, message in cases:
        with pytest.raises(ImageError, match=message):
            read_image(source)
    arrays = {
        "shape": np.zeros((3, 40, 60), np.uint8),
        "no pixels": np.zeros((0, 4, 3), np.uint8),
        "0…255": np.full((3, 4), 300),
        "0…1": np.full((3, 4), 1.5),
        "finite": np.full((3, 4), np.nan),
        "no pixels;": np.zeros((3, 4), complex),
    }
    for message, array in arrays.items():
        with pytest.raises(ImageError, match=message):
            read_image(array)
    with pytest.raises(ImageError, match="list"):
        read_image([[1, 2]])  # type: ignore[arg-type]


def test_size_limit_replaces_pillows_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(Image.new("1", (2000, 1500)), tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path).shape == (1500, 2000, 3)
        with pytest.raises(ImageError, match=r"a\.png: 2000x1500 is 3 megapixels, more than the limit of 2"):
            read_image(path, max_pixels=2_000_000)
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("1", (20000, 20000)).save(buffer, "png")
    (tmp_path / "bomb.png").write_bytes(buffer.getvalue()[:200])  # nothing to decode: only the header can be read
    with pytest.raises(ImageError, match="400 megapixels"):
        read_image(tmp_path / "bomb.png")


def test_find_images(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.PNG", "notes.txt", ".hidden.jpg", "sub/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [p.name for p in find_images([tmp_path])] == ["a.PNG", "b.jpg"]
    assert [p.name for p in find_images([str(tmp_path / "*")])] == ["a.PNG", "b.jpg"]
    assert [p.name for p in find_images([str(tmp_path / "**" / "*.jpg")])] == ["b.jpg", "c.jpg"]
    assert [p.name for p in find_images([tmp_path / "notes.txt"])] == ["notes.txt"]
    twice = find_images([tmp_path / "b.jpg", tmp_path, tmp_path / "sub" / ".." / "a.PNG"])
    assert [p.name for p in twice] == ["b.jpg", "a.PNG"]
    (tmp_path / "x[1].jpg").touch()
    assert [p.name for p in find_images([tmp_path / "x[1].jpg"])] == ["x[1].jpg"]


def test_find_images_names_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for inputs, message in [
        ([tmp_path / "none.jpg"], "none.jpg: no such file"),
        ([tmp_path / "empty"], "empty: the folder holds no images"),
        ([str(tmp_path / "*.jpg")], "no image matches"),
        ([], "no input"),
    ]:
        with pytest.raises(ConfigError, match=message):
            find_images(inputs)


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(ConfigError, match=r"cannot be read \(Permission denied\)"):
        find_images([tmp_path])
