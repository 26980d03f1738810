"""Each format read back by a reader that is not ours, or by its published description written down here."""

import base64
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from sharpmask.errors import ConfigError, MissingExtraError
from sharpmask.formats import PHOTO_FORMATS, FormatOptions, assert_used, open_formats, parse_formats
from sharpmask.proposals.folder import Photo, photo_names
from sharpmask.proposals.records import Records
from sharpmask.proposals.result import Proposals

Save = Callable[..., Path]
Fill = Callable[..., np.ndarray]


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_coco_polygons_in_pycocotools(save: Save, masks: np.ndarray, proposals: Proposals) -> None:
    truth = COCO(save("coco-polygons", label="thing") / "coco_polygons.json")
    assert truth.getImgIds() == [7, 8] and truth.loadCats([1])[0]["name"] == "thing"
    annotations = truth.loadAnns(truth.getAnnIds(imgIds=[7]))
    assert len(annotations) == len(masks) == len(truth.anns)
    for annotation, mask, score in zip(annotations, masks, proposals.scores, strict=True):
        np.testing.assert_array_equal(truth.annToMask(annotation), mask)
        assert annotation["area"] == mask.sum() and np.float32(annotation["score"]) == score
        assert all(len(polygon) >= 6 for polygon in annotation["segmentation"])


def test_coco_in_pycocotools(save: Save, masks: np.ndarray) -> None:
    folder = save("coco")
    results = COCO(folder / "images.json").loadRes(str(folder / "proposals.json"))
    for annotation, mask in zip(results.loadAnns(results.getAnnIds()), masks, strict=True):
        np.testing.assert_array_equal(results.annToMask(annotation), mask)


def test_yolo_by_its_description(save: Save, photo: Photo, masks: np.ndarray, fill: Fill) -> None:
    folder = save("yolo") / "yolo"
    settings = yaml.safe_load((folder / "data.yaml").read_text())
    assert settings["names"] == {0: "object"} and settings["train"] == "images"
    assert "path" not in settings  # a relative one would be taken from where the training program runs
    assert (folder / "labels" / "empty.txt").read_text() == ""
    lines = (folder / "labels" / f"{photo.name}.txt").read_text().splitlines()
    for line, mask in zip(lines, masks, strict=True):
        kind, *values = line.split()
        points = np.array(values, float).reshape(-1, 2)
        assert kind == "0" and points.min() >= 0 and points.max() <= 1
        np.testing.assert_array_equal(fill([points * mask.shape[::-1]]), mask)


def test_yolo_in_supervision(tmp_path: Path) -> None:
    supervision = pytest.importorskip("supervision")
    y, x = np.mgrid[:200, :300]
    blob = (np.hypot((x - 180) / 1.6, y - 90) < 60) & ~(np.hypot(x - 180, y - 90) < 25)
    (tmp_path / "yolo" / "images").mkdir(parents=True)
    picture = tmp_path / "yolo" / "images" / "a.png"
    Image.new("RGB", (300, 200)).save(picture)
    record = {"id": 1, "file_name": "a.png", "width": 300, "height": 200}
    with open_formats(["yolo"], tmp_path) as write:
        write(Photo(picture, "a", record), Proposals.from_masks(blob[None]))
    dataset = supervision.DetectionDataset.from_yolo(
        str(picture.parent), str(tmp_path / "yolo" / "labels"), str(tmp_path / "yolo" / "data.yaml"), force_masks=True
    )
    _, _, detections = next(iter(dataset))
    # It fills whole-number corners with their outline, so that a pixel is gained along two sides.
    assert dataset.classes == ["object"] and iou(np.asarray(detections.mask[0]), blob) > 0.95


@pytest.mark.parametrize("shapes", ["masks", "polygons"])
def test_labelme_by_its_description(
    save: Save, photo: Photo, masks: np.ndarray, fill: Fill, tmp_path: Path, shapes: str
) -> None:
    folder = save("labelme", shapes=shapes) / "labelme"
    content = json.loads((folder / f"{photo.name}.json").read_text(encoding="utf-8"))
    # What labelme's loader asks for.
    assert {"version", "imageData", "imagePath", "shapes", "flags", "imageHeight", "imageWidth"} <= content.keys()
    assert (folder / content["imagePath"]).resolve() == photo.path.resolve()
    assert (content["imageHeight"], content["imageWidth"]) == masks.shape[1:]
    found = np.zeros_like(masks)
    for shape in content["shapes"]:
        assert {"label", "points", "group_id", "flags", "shape_type"} <= shape.keys()
        if shape["shape_type"] == "mask":
            (x0, y0), (x1, y1) = shape["points"]
            inside = np.asarray(Image.open(io.BytesIO(base64.b64decode(shape["mask"])))).astype(bool)
            found[shape["group_id"] - 1, y0 : y1 + 1, x0 : x1 + 1] |= inside
        else:
            assert len(shape["points"]) >= 3
            found[shape["group_id"] - 1] |= fill([shape["points"]])
    np.testing.assert_array_equal(found, masks)


@pytest.mark.parametrize("shapes", ["masks", "polygons"])
def test_cvat_by_its_description(save: Save, masks: np.ndarray, fill: Fill, shapes: str) -> None:
    root = ElementTree.parse(save("cvat", shapes=shapes, label="a<b") / "cvat.xml").getroot()
    assert root.findtext("version") == "1.1" and root.findtext("meta/task/labels/label/name") == "a<b"
    first, second = root.findall("image")
    assert first.attrib == {"id": "0", "name": 'Zoë & "Co".png', "width": "47", "height": "31"}
    assert second.get("id") == "1" and len(second) == 0
    found = np.zeros_like(masks)
    for shape in first:
        index = len(masks) - int(shape.attrib["z_order"])
        assert shape.attrib["label"] == "a<b" and shape.findtext("attribute")
        if shape.tag == "mask":
            left, top, width, height = (int(shape.attrib[key]) for key in ("left", "top", "width", "height"))
            lengths = [int(value) for value in shape.attrib["rle"].split(",")]
            values = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(height, width)
            found[index, top : top + height, left : left + width] = values
        else:
            points = [point.split(",") for point in shape.attrib["points"].split(";")]
            found[index] |= fill([np.array(points, float)])
    np.testing.assert_array_equal(found, masks)


def test_cvat_is_xml_whatever_the_names_hold(save: Save) -> None:
    root = ElementTree.parse(save("cvat", label="x\x01y") / "cvat.xml").getroot()
    assert root.findtext("meta/task/labels/label/name") == "x\ufffdy"


@pytest.mark.parametrize("name", PHOTO_FORMATS)
def test_a_name_in_another_encoding(name: str, photo: Photo, proposals: Proposals, tmp_path: Path) -> None:
    """Bytes of Latin-1 in a file name, as Python gives them: the results have them as escapes."""
    path = Path("caf\udce9.png")
    record = Records(None, [path]).find(1, path) | {"width": photo.size[1], "height": photo.size[0]}
    with open_formats([name], tmp_path, FormatOptions()) as write:
        write(Photo(tmp_path / path, photo_names([path])[path], record), proposals)
    assert any(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())


@pytest.mark.parametrize(
    ("prefix", "name", "address"),
    [
        ("/data/local-files/?d=photos/", "a b#1.png", "/data/local-files/?d=photos/a%20b%231.png"),
        ("s3://bucket/", "a b#1.png", "s3://bucket/a b#1.png"),
    ],
)
def test_label_studio_addresses(
    prefix: str, name: str, address: str, photo: Photo, proposals: Proposals, tmp_path: Path
) -> None:
    with open_formats(["label-studio"], tmp_path, FormatOptions(image_prefix=prefix)) as write:
        write(Photo(tmp_path / name, name, photo.record | {"file_name": name}), proposals)
    (task,) = json.loads((tmp_path / "label_studio.json").read_text())
    assert task["data"]["image"] == address


def read_brush(codes: list[int]) -> np.ndarray:
    """The bytes of a packed stream, bit by bit as its description says."""
    bits = "".join(f"{code:08b}" for code in codes)
    place = 0

    def take(count: int) -> int:
        nonlocal place
        place += count
        assert place <= len(bits)
        return int(bits[place - count : place], 2)

    total, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    out: list[int] = []
    while len(out) < total:
        repeated, length = take(1), take(sizes[take(2)]) + 1
        out += [take(word)] * length if repeated else [take(word) for _ in range(length)]
    assert len(bits) - place < 8
    return np.array(out, np.uint8)


def test_label_studio_brushes(save: Save, masks: np.ndarray) -> None:
    options = {"from_name": "tag", "to_name": "img", "image_prefix": "s3://b/", "label": "thing"}
    tasks = json.loads((save("label-studio", **options) / "label_studio.json").read_text(encoding="utf-8"))
    assert [task["data"]["image"] for task in tasks] == ['s3://b/Zoë & "Co".png', "s3://b/empty.png"]
    (prediction,) = tasks[0]["predictions"]
    assert tasks[1]["predictions"][0]["result"] == []
    for result, mask in zip(prediction["result"], masks, strict=True):
        assert (result["from_name"], result["to_name"], result["type"]) == ("tag", "img", "brushlabels")
        assert (result["original_height"], result["original_width"]) == mask.shape
        assert result["value"]["brushlabels"] == ["thing"] and result["value"]["format"] == "rle"
        pixels = read_brush(result["value"]["rle"]).reshape(*mask.shape, 4)
        np.testing.assert_array_equal(pixels, np.repeat(mask[..., None] * np.uint8(255), 4, axis=2))


def test_label_studio_long_runs() -> None:
    from sharpmask.formats.label_studio import brush_rle, image_runs

    mask = np.zeros((300, 400), bool)
    mask[100:290] = True  # runs of more than 65,536 bytes
    mask[5, 7] = mask[299, 399] = True
    code = brush_rle(image_runs(mask, 0, 0, mask.shape))
    np.testing.assert_array_equal(read_brush(code.tolist()), np.repeat(mask.ravel(), 4) * np.uint8(255))


def test_runs_of_an_image_from_a_part_of_it() -> None:
    from sharpmask.formats.cvat import row_runs
    from sharpmask.formats.label_studio import image_runs

    rng = np.random.default_rng(0)
    for top, left, bottom, right in ((0, 0, 9, 11), (2, 3, 7, 8), (0, 0, 4, 11), (5, 0, 9, 1), (8, 10, 9, 11)):
        for share in (0.0, 0.5, 1.0):
            mask = np.zeros((9, 11), bool)
            mask[top:bottom, left:right] = rng.random((bottom - top, right - left)) < share
            found = image_runs(mask[top:bottom, left:right], left, top, mask.shape)
            pairs = [int(n) for n in row_runs(mask)]
            # The runs end with ones or zeros; a last run of zeros without length may stand there or not.
            assert [int(n) for n in found][: len(pairs)] == pairs and not found[len(pairs) :].any()


def test_label_studio_polygons(save: Save, masks: np.ndarray, fill: Fill) -> None:
    (task, _) = json.loads((save("label-studio", shapes="polygons") / "label_studio.json").read_text())
    found = np.zeros_like(masks)
    for result in task["predictions"][0]["result"]:
        points = np.array(result["value"]["points"])
        assert result["type"] == "polygonlabels" and points.min() >= 0 and points.max() <= 100
        found[int(result["id"][1:].split("-")[0]) - 1] |= fill([points / 100 * masks.shape[:0:-1]])
    np.testing.assert_array_equal(found, masks)


def test_geojson_in_shapely(save: Save, photo: Photo, masks: np.ndarray) -> None:
    shapely = pytest.importorskip("shapely")
    text = (save("geojson") / "geojson" / f"{photo.name}.geojson").read_text(encoding="utf-8")
    content = json.loads(text)
    assert content["type"] == "FeatureCollection" and "downwards" in content["coordinates"]
    y, x = np.mgrid[: masks.shape[1], : masks.shape[2]] + 0.5
    features = shapely.from_geojson(text).geoms
    for feature, shape, mask in zip(content["features"], features, masks, strict=True):
        assert shape.is_valid and shape.area == mask.sum() == feature["properties"]["area"]
        for polygon in getattr(shape, "geoms", [shape]):
            assert polygon.exterior.is_ccw and not any(ring.is_ccw for ring in polygon.interiors)
        np.testing.assert_array_equal(shapely.contains_xy(shape, x, y), mask)
    assert features[1].interiors and features[5].geom_type == "MultiPolygon"


def test_label_map_in_pillow(save: Save, photo: Photo, masks: np.ndarray) -> None:
    folder = save("label-map") / "label_map"
    with Image.open(folder / f"{photo.name}.png") as image:
        assert image.mode == "I;16"
        labels = np.asarray(image)
    expected = np.where(masks.any(axis=0), masks.argmax(axis=0) + 1, 0)  # the first mask that holds the pixel
    np.testing.assert_array_equal(labels, expected)
    with Image.open(folder / "empty.png") as image:
        assert not np.asarray(image).any()


def test_label_map_never_overwrites_its_photo(save: Save, proposals: Proposals, tmp_path: Path) -> None:
    path = save("label-map") / "label_map" / "empty.png"
    before = path.read_bytes()
    record = {"id": 1, "file_name": "empty.png", "width": 47, "height": 31}
    with (
        pytest.raises(ConfigError, match="would be overwritten"),
        open_formats(["label-map"], tmp_path / "out") as write,
    ):
        write(Photo(path, "empty", record), proposals)
    assert path.read_bytes() == before


def test_parquet_in_pyarrow(save: Save, masks: np.ndarray, proposals: Proposals) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(save("parquet") / "proposals.parquet")
    rows = table.to_pylist()
    assert len(rows) == len(masks) and {row["image_id"] for row in rows} == {7}
    for rank, (row, mask) in enumerate(zip(rows, masks, strict=True), start=1):
        rle = {"size": [row["height"], row["width"]], "counts": row["counts"]}
        np.testing.assert_array_equal(coco_mask.decode(rle), mask)
        assert [row[key] for key in ("x", "y", "box_width", "box_height")] == coco_mask.toBbox(rle).tolist()
        assert row["rank"] == rank and row["area"] == mask.sum() and row["stability"] is None
    np.testing.assert_array_equal(table["score"].to_numpy(), proposals.scores)


def test_missing_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"sharpmask\[parquet\]"), open_formats(["parquet"], tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", PHOTO_FORMATS)
def test_a_failure_leaves_nothing_half_written(name: str, photo: Photo, proposals: Proposals, tmp_path: Path) -> None:
    if name == "parquet":
        pytest.importorskip("pyarrow")
    folder = tmp_path / "out"
    folder.mkdir()

    class Interrupted(Proposals):
        @property
        def rles(self) -> list:  # type: ignore[override]
            raise KeyboardInterrupt

    broken = Interrupted.__new__(Interrupted)
    for field in ("scores", "boxes", "windows", "scales", "image_size", "areas", "stability"):
        object.__setattr__(broken, field, getattr(proposals, field))
    other = Photo(photo.path, "second", photo.record)
    with pytest.raises(KeyboardInterrupt), open_formats([name], folder) as write:
        write(photo, proposals)
        write(other, broken)
    files = [path.name for path in folder.rglob("*") if path.is_file()]
    assert all(path.rpartition(".")[0] == photo.name for path in files)  # at most the first photo's own file


def test_several_formats_and_bad_names(photo: Photo, proposals: Proposals, tmp_path: Path) -> None:
    with open_formats(["geojson", "cvat", "geojson"], tmp_path) as write:
        write(photo, proposals[:2])
    assert (tmp_path / "cvat.xml").exists() and (tmp_path / "geojson" / f"{photo.name}.geojson").exists()
    assert parse_formats(" cvat,coco,cvat") == ["cvat", "coco"]
    for text in ("", ",", "coco,pdf"):
        with pytest.raises(ConfigError, match="there are: coco"):
            parse_formats(text)
    for options in ({"simplify": -1}, {"shapes": "dots"}, {"label": " "}):
        with pytest.raises(ConfigError):
            FormatOptions(**options)  # type: ignore[arg-type]


def test_photo_names_are_unique_without_regard_to_case() -> None:
    names = photo_names([Path("x/A.png"), Path("y/a.jpg"), Path("a_2.png"), Path("b.png")])
    assert list(names.values()) == ["A", "a_3", "a_2", "b"]  # no photo gets another one's name


def test_simplified_polygons_are_shorter(save: Save, photo: Photo) -> None:
    sizes = [
        (save("geojson", simplify=tolerance) / "geojson" / f"{photo.name}.geojson").stat().st_size
        for tolerance in (0.0, 1.5)
    ]
    assert sizes[1] < sizes[0] * 0.9


def test_settings_that_no_format_looks_at_are_refused() -> None:
    assert_used(FormatOptions(), ["coco"])
    assert_used(FormatOptions(label="car", simplify=1.0), ["coco", "yolo"])
    for options, name in (
        (FormatOptions(simplify=1.0), "simplify"),
        (FormatOptions(shapes="masks"), "shapes"),
        (FormatOptions(from_name="a"), "from-name"),
        (FormatOptions(image_prefix="a"), "image-prefix"),
        (FormatOptions(coordinates="wgs84"), "coordinates"),
    ):
        with pytest.raises(ConfigError, match=f"--{name} has no effect with --format coco,label-map; it is for: "):
            assert_used(options, ["coco", "label-map"])


def test_coco_names_the_class(proposals: Proposals, photo: Photo, tmp_path: Path) -> None:
    with open_formats(["coco"], tmp_path, FormatOptions(label="car")) as write:
        write(photo, proposals)
    assert json.loads((tmp_path / "images.json").read_text())["categories"] == [{"id": 1, "name": "car"}]
