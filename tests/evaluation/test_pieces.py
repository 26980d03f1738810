"""Results that are read piece by piece, in one process and in two: the same figures, and the same messages."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_utils
from test_recall import encode, random_case, square_case

from sharpmask.errors import ConfigError, DataError, SharpMaskError
from sharpmask.evaluation import collecting, pieces
from sharpmask.evaluation.inputs import read_annotations
from sharpmask.evaluation.masks import mask_ious, mask_shapes, may_overlap
from sharpmask.evaluation.pieces import JsonPiece, json_pieces
from sharpmask.evaluation.recall import Recall, evaluate_recall


def same(one: Recall, two: Recall) -> None:
    """Every figure, bit for bit."""
    assert (one.proposals, one.empty_images, one.notes) == (two.proposals, two.empty_images, two.notes)
    assert one.iou_types == two.iou_types
    for iou_type, areas in one.areas.items():
        for area, figures in areas.items():
            other = two.areas[iou_type][area]
            for name in ("credits", "objects", "curve", "recalls"):
                assert np.array_equal(getattr(figures, name), getattr(other, name), equal_nan=True), (iou_type, area)
            assert str(figures.estimates) == str(other.estimates)  # nan is not equal to itself


def measured(truth: Any, results: Any, **options: Any) -> Recall:
    return evaluate_recall(truth, results, **{"name": "n", "resamples": 20, "progress": False, **options})


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE", 3000)
    monkeypatch.setattr(pieces, "_WINDOW", 700)


@pytest.fixture
def written(tmp_path: Path, small_pieces: None) -> Callable[..., Path]:
    """Write results as a file of many pieces."""

    def write(results: list[dict], **options: Any) -> Path:
        path = tmp_path / "results.json"
        path.write_text(json.dumps(results, **options), encoding="utf-8")
        found = json_pieces(str(path))
        assert found is not None and len(found) > 5
        assert [p.end for p in found[:-1]] == [p.begin for p in found[1:]] and [p.last for p in found][-2:] == [0, 1]
        return path

    return write


@pytest.mark.parametrize("layout", ["by image", "shuffled", "indented", "masks", "boxes"])
def test_pieces_are_the_whole(written: Callable[..., Path], layout: str) -> None:
    """Wherever the records of an image stand, and with equal scores across pieces."""
    truth, results = random_case(21, images=8)
    if layout == "shuffled":
        np.random.default_rng(0).shuffle(results)
    for record in results:
        if layout in ("masks", "boxes"):
            del record["bbox" if layout == "masks" else "segmentation"]
    path = written(results, indent=3 if layout == "indented" else None)
    same(measured(truth, path), measured(truth, results))


def test_more_than_a_thousand_of_an_image_in_many_pieces(written: Callable[..., Path]) -> None:
    truth, results = random_case(5, images=3, proposals=1300, side=40)
    same(measured(truth, written(results)), measured(truth, results))


def test_gaps_within_texts_and_lists_are_no_gaps(written: Callable[..., Path]) -> None:
    truth, results = random_case(22)
    for number, record in enumerate(results):
        record["note"] = '"},{"image_id": ü' * (number % 30)
        record["parts"] = [{"image_id": 1}, {"image_id": 2}] * 60 * (number % 40 == 7)
    path = written(results, ensure_ascii=False)
    found = json_pieces(str(path))
    assert found is not None
    with pytest.raises(pieces.NotWhole):  # some are cut wrongly, indeed
        for piece in found:
            piece.measure(pieces.Wanted(read_annotations(truth), ("bbox",)))
    same(measured(truth, path), measured(truth, results))


def test_processes_give_the_same_figures_and_messages(written: Callable[..., Path], tmp_path: Path) -> None:
    truth, results = random_case(23, images=12)
    path = written(results)
    same(measured(truth, path, workers=2), measured(truth, results))
    results[200]["score"] = None
    results[300]["image_id"] = 4444
    with pytest.raises(DataError, match=r"results\.json: result number 201 \(image \d+\) has the score None"):
        measured(truth, written(results), workers=2)


def test_a_killed_process_is_told(written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    truth, results = random_case(24)
    path = written(results)
    monkeypatch.setattr(collecting, "_measure", _die)
    with pytest.raises(SharpMaskError, match="was killed"):
        measured(truth, path, workers=2)


def _die(piece: JsonPiece) -> None:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-400], "not valid JSON"),
        (lambda text: text[:9000] + text[9000:].replace('"bbox"', '"bbox', 1), "not valid JSON"),
        (lambda text: text[:-1] + ", ]", "not valid JSON"),
        (lambda text: text[:-1] + ", 7]", "number 301 is not an object but int"),
        (lambda text: text + "x", "not valid JSON"),
        (lambda text: '{"results": ' + text + "}", "COCO results are a list"),
        (lambda text: text.replace('"score"', '"scare"', 1), "number 1 .* has the score None"),
        (lambda text: text[:-1] + ', {"image_id": 3, "score": 1}]', "number 301 .* has neither"),
    ],
)
def test_damage_is_named(tmp_path: Path, small_pieces: None, damage: Callable[[str], str], message: str) -> None:
    truth, results = random_case(25, images=6)
    path = tmp_path / "results.json"
    path.write_text(damage(json.dumps(results[:300])))
    with pytest.raises(DataError, match=message):
        measured(truth, path)


def test_boxes_of_some_results_are_not_used(written: Callable[..., Path]) -> None:
    """Also where a piece has nothing but results with boxes."""
    truth, results = random_case(26)
    for record in results[:5]:
        del record["bbox"]
    recall = measured(truth, written(results))
    same(recall, measured(truth, results))
    masks_only = [{key: value for key, value in record.items() if key != "bbox"} for record in results]
    same(recall, measured(truth, masks_only))
    del results[-1]["segmentation"]
    with pytest.raises(DataError, match="99 of 100 results have a segmentation and 95 a bbox"):
        measured(truth, [*results[:50], *results[-50:]])


def test_progress_counts_bytes(
    written: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, results = random_case(27)
    path = written(results)
    measured(truth, path, progress=True)
    assert capsys.readouterr().err == ""  # no terminal
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    measured(truth, path, progress=True)
    shown = capsys.readouterr().err
    assert "evaluate n:   0%" in shown and "B/s" in shown


# --- masks ---------------------------------------------------------------------------------------------------------


def test_areas_and_boxes_are_those_of_pycocotools() -> None:
    rng = np.random.default_rng(4)
    rles = []
    for number in range(200):
        height, width = rng.integers(1, 90, 2)
        mask = rng.random((height, width)) < rng.choice([0, 0.02, 0.5, 1])
        rles.append(encode(mask) if number % 2 else mask_utils.encode(np.asfortranarray(mask, np.uint8)))
    for chosen in (rles, [encode(np.ones((50, 70))), encode(np.zeros((50, 70)))]):
        shapes = mask_shapes(chosen)
        assert shapes.broken is None
        assert shapes.areas.tolist() == [int(mask_utils.area(rle)) for rle in chosen]
        x, y, w, h = np.array([mask_utils.toBbox(rle) for rle in chosen]).T
        assert np.array_equal(shapes.boxes, np.stack([x, y, x + w, y + h], axis=1))


def test_huge_images_are_measured_with_64_bits() -> None:
    rle = mask_utils.frPyObjects({"size": [60_000, 70_000], "counts": [10, 5, 60_000 * 70_000 - 15]}, 60_000, 70_000)
    shapes = mask_shapes([{"size": [60_000, 70_000], "counts": rle["counts"]}] * 2)
    assert shapes.broken is None and shapes.areas.tolist() == [5, 5] and shapes.boxes[1].tolist() == [0, 10, 1, 15]


@pytest.mark.parametrize("seed", range(5))
def test_no_pair_that_matters_is_ruled_out(seed: int) -> None:
    """And most that do not are."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((60, 40, 50), bool)
    for mask in masks:
        x, y = rng.integers(0, 20, 2)
        w, h = rng.integers(2, 30, 2)
        mask[y : y + h, x : x + w] = rng.random() < 0.8 or rng.random((min(h, 40 - y), w)) < 0.9
    rles = [encode(mask) for mask in masks]
    ious = mask_ious(rles, rles[:9])
    may = may_overlap(mask_shapes(rles), mask_shapes(rles[:9]))
    assert may[ious >= 0.5].all() and may[ious < 0.5].mean() < 0.5


# --- Parquet -------------------------------------------------------------------------------------------------------


def parquet_rows(truth: dict, results: list[dict]) -> Any:
    """The results as the rows that sharpmask writes: by image, best first, ids of their own."""
    pa = pytest.importorskip("pyarrow")
    from sharpmask.proposal_rows import proposal_schema

    rows = []
    for number, image in enumerate(truth["images"], 1):
        records = [record for record in results if record["image_id"] == image["id"]]
        for rank, record in enumerate(sorted(records, key=lambda record: -record["score"]), 1):
            x, y, w, h = mask_utils.toBbox(record["segmentation"]).tolist()
            rows.append({
                "image_id": number, "file_name": f"in/some/{image['file_name']}", "width": image["width"],
                "height": image["height"], "rank": rank, "score": record["score"], "x": x, "y": y, "box_width": w,
                "box_height": h, "area": int(mask_utils.area(record["segmentation"])),
                "counts": record["segmentation"]["counts"], "stability": None,
            })  # fmt: skip
    return pa.Table.from_pylist(rows, schema=proposal_schema())


@pytest.fixture
def case() -> tuple[dict, list[dict]]:
    """Results with masks' boxes, one category, and scores that are the same in 32 bits."""
    truth, results = random_case(31, images=7)
    truth["categories"] = [{"id": 1}]
    for record in truth["annotations"]:
        record["category_id"] = 1
    for record in results:
        record.update(category_id=1, score=float(np.float32(record["score"])))
        record["bbox"] = mask_utils.toBbox(record["segmentation"]).tolist()
    return truth, results


def test_parquet_gives_what_json_gives(case: tuple[dict, list[dict]], tmp_path: Path) -> None:
    truth, results = case
    table = parquet_rows(truth, results)
    from pyarrow import parquet

    path = tmp_path / "p.parquet"
    parquet.write_table(table, path, row_group_size=100)  # images go across row groups
    same(measured(truth, path), measured(truth, results))
    same(measured(truth, path, iou_types=["segm"]), measured(truth, results, iou_types=["segm"]))


@pytest.mark.parametrize("rows", [100, 1_000_000])
def test_parquet_of_two_images_that_are_one_in_the_annotations(
    case: tuple[dict, list[dict]], tmp_path: Path, rows: int
) -> None:
    """Of one name in two folders, in one row group or in two."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import compute, parquet

    truth, results = case
    table = parquet_rows(truth, results)
    name = f"in/other/{truth['images'][0]['file_name']}"
    first = table.filter(compute.equal(table["image_id"], 1))
    second = first.set_column(0, "image_id", pa.array([99] * len(first), pa.int64()))
    second = second.set_column(1, "file_name", pa.array([name] * len(first)))
    path = tmp_path / "p.parquet"
    parquet.write_table(pa.concat_tables([table, second]), path, row_group_size=rows)
    with pytest.raises(DataError, match=rf"in/some/.* and {name} are both taken for one image"):
        measured(truth, path)


def test_parquet_of_other_images_is_refused(case: tuple[dict, list[dict]], tmp_path: Path) -> None:
    truth, results = case
    table = parquet_rows(truth, results)
    from pyarrow import parquet

    path = tmp_path / "p.parquet"
    parquet.write_table(table, path)
    truth["images"][2]["height"] += 1
    with pytest.raises(DataError, match=r"the masks of image 23 are \d+x\d+ .* but the image is"):
        measured({**truth, "annotations": [{**truth["annotations"][0], "image_id": 23}]}, path)
    truth["images"][2]["file_name"] = "other.png"
    with pytest.raises(DataError, match=r"proposals of in/some/2\.png, which is not in"):
        measured(truth, path)
    parquet.write_table(table.drop_columns(["counts"]), path)
    with pytest.raises(DataError, match="has no column counts"):
        measured(truth, path)
    path.write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        measured(truth, path)
    with pytest.raises(DataError, match="neither a results file nor a destination of propose-bulk"):
        measured(truth, tmp_path)


def test_unusable_numbers_of_workers() -> None:
    from sharpmask.evaluation.report import evaluate_files

    with pytest.raises(ConfigError, match="--workers must be at least 1, not 0"):
        evaluate_files(["a.json"], annotations="b.json", workers=0)
    assert square_case([1.0])
