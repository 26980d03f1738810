"""Selective Search: boxes of known shapes, reproducible, in the format that `evaluate` reads."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sharpmask.errors import ConfigError, DataError, MissingExtraError
from sharpmask.evaluation import baselines
from sharpmask.evaluation.baselines import selective_search, write_selective_search
from sharpmask.evaluation.recall import evaluate_recall


@pytest.fixture
def opencv() -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    if not hasattr(cv2, "ximgproc"):
        pytest.skip("OpenCV is installed without its contrib modules")


def picture(height: int = 90, width: int = 120) -> np.ndarray:
    """Two plain rectangles on a grey ground."""
    image = np.full((height, width, 3), 120, np.uint8)
    image[20:60, 10:50] = (220, 30, 30)
    image[30:80, 70:110] = (30, 40, 200)
    return image


def best_ious(boxes: np.ndarray, truth: list[list[float]]) -> np.ndarray:
    from sharpmask.evaluation.masks import box_ious

    return box_ious(boxes, np.array(truth, np.float64)).max(axis=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    images.mkdir()
    content: dict = {"images": [], "annotations": [], "categories": [{"id": 1}]}
    for number in (4, 9):
        Image.fromarray(picture()).save(images / f"{number}.png")
        content["images"].append({"id": number, "file_name": f"{number}.png", "height": 90, "width": 120})
        for box in ([10, 20, 40, 40], [70, 30, 40, 50]):
            record = {"id": len(content["annotations"]) + 1, "image_id": number, "category_id": 1, "iscrowd": 0}
            content["annotations"].append({**record, "bbox": box, "area": box[2] * box[3]})
    (tmp_path / "ann.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize("mode", ["fast", "quality"])
def test_finds_plain_shapes_the_same_every_time(opencv: None, mode: baselines.Mode) -> None:
    boxes, scores = selective_search(picture(), mode=mode)
    assert best_ious(boxes, [[10, 20, 40, 40], [70, 30, 40, 50]]).min() > 0.8
    assert (np.diff(scores) < 0).all() and scores[0] == 1
    again, _ = selective_search(picture(), mode=mode)
    assert np.array_equal(boxes, again)


def test_orders_and_top(opencv: None) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    image = np.asarray(Image.fromarray(noise).resize((160, 120), Image.Resampling.BICUBIC))
    paper, _ = selective_search(image, order="paper", top=None)
    opencv_order, _ = selective_search(image, order="opencv", top=None)
    assert np.array_equal(paper, opencv_order[::-1]) and len(paper) > 20
    assert np.array_equal(selective_search(image, top=7)[0], paper[:7])
    areas = paper[:, 2] * paper[:, 3]
    half = len(areas) // 2
    assert areas[:half].mean() > areas[half:].mean()  # large regions tend to come first


def test_channels_reach_opencv_as_bgr(opencv: None) -> None:
    import cv2

    noise = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    image = np.asarray(Image.fromarray(noise).resize((160, 120), Image.Resampling.BICUBIC))

    def boxes_of(channels: np.ndarray) -> set[tuple[int, ...]]:
        search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
        search.setBaseImage(np.ascontiguousarray(channels))
        search.switchToSelectiveSearchFast()
        return {tuple(box) for box in search.process().tolist()}

    ours = {tuple(box) for box in selective_search(image, top=None)[0].tolist()}
    assert ours == boxes_of(cv2.cvtColor(image, cv2.COLOR_RGB2BGR)) != boxes_of(image)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2)])
def test_tiny_images_work(opencv: None, size: tuple[int, int]) -> None:
    boxes, scores = selective_search(np.zeros((*size, 3), np.uint8))
    assert len(boxes) == len(scores)


def test_large_images_are_shrunk_and_boxes_scaled_back(opencv: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MAX_PIXELS", 90 * 120)
    large = picture().repeat(3, axis=0).repeat(3, axis=1)
    boxes, _ = selective_search(large)
    assert best_ious(boxes, [[30, 60, 120, 120], [210, 90, 120, 150]]).min() > 0.8


def test_file_is_what_evaluate_reads(opencv: None, folder: Path) -> None:
    Image.fromarray(picture()).save(folder / "images" / "unlisted.png")
    output = folder / "out.json"
    done = write_selective_search([folder / "images"], annotations=folder / "ann.json", output=output, progress=False)
    records = json.loads(output.read_text())
    assert (done.images, done.proposals, done.failed) == (2, len(records), [])
    assert [Path(path).name for path in done.skipped] == ["unlisted.png"]
    assert {record["image_id"] for record in records} == {4, 9}
    assert set(records[0]) == {"image_id", "category_id", "bbox", "score"}
    recall = evaluate_recall(folder / "ann.json", output, resamples=5, progress=False)
    assert recall.iou_types == ("bbox",) and recall.value("AR@1000", "bbox") > 0.7


def test_an_unreadable_image_is_named_and_the_rest_is_done(opencv: None, folder: Path) -> None:
    (folder / "images" / "9.png").write_bytes(b"no image")
    done = write_selective_search(
        [folder / "images"], annotations=folder / "ann.json", output=folder / "out.json", progress=False
    )
    assert done.images == 1 and len(done.failed) == 1 and "9.png" in done.failed[0]
    assert {record["image_id"] for record in json.loads((folder / "out.json").read_text())} == {4}
    (folder / "images" / "4.png").write_bytes(b"no image")
    (folder / "out.json").unlink()
    with pytest.raises(DataError, match="none of 2 images could be read"):
        write_selective_search(
            [folder / "images"], annotations=folder / "ann.json", output=folder / "out.json", progress=False
        )
    assert not (folder / "out.json").exists()


def test_images_that_nobody_annotated_are_refused(opencv: None, folder: Path) -> None:
    other = folder / "other"
    other.mkdir()
    Image.fromarray(picture()).save(other / "x.png")
    with pytest.raises(DataError, match="lists none of the 1 images"):
        write_selective_search([other], annotations=folder / "ann.json", output=folder / "out.json", progress=False)


@pytest.mark.parametrize("options", [{"top": 0}, {"seed": -1}])
def test_bad_options_are_refused(folder: Path, options: dict) -> None:
    with pytest.raises(ConfigError):
        write_selective_search([folder], annotations=folder / "ann.json", output=folder / "out.json", **options)


def test_missing_opencv_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)  # makes `import cv2` fail
    with pytest.raises(MissingExtraError, match=r"sharpmask\[baselines\]"):
        selective_search(picture())


def test_opencv_without_contrib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", type(sys)("cv2"))
    with pytest.raises(MissingExtraError, match="opencv-contrib-python-headless"):
        selective_search(picture())
