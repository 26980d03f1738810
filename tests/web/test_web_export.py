"""Masks sent back by a client: each format as the command line writes it, and every false mask refused."""

import io
import json
import sqlite3
import sys
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from web_fakes import BOXES, encoded, known_masks

from sharpmask.formats import PHOTO_FORMATS, FormatOptions, Photo, open_formats
from sharpmask.proposals.result import Proposals
from sharpmask.web.limits import MAX_RUNS

SIZE = (40, 60)


def _found(client: TestClient) -> dict[str, Any]:
    return client.post("/v1/proposals", files={"file": ("Zoë & co.png", encoded(60, 40))}).json()


def _to_export(found: dict[str, Any], chosen: list[int]) -> dict[str, Any]:
    fields = ("score", "segmentation")
    proposals = [{field: found["proposals"][i][field] for field in fields} for i in chosen]
    return {**found["image"], "proposals": proposals}


def _files(answer: Any) -> dict[str, bytes]:
    """What was sent, by name; the content of a ZIP."""
    assert answer.status_code == 200, answer.text
    name = answer.headers["content-disposition"].removeprefix("attachment; filename*=utf-8''")
    if not name.endswith(".zip"):
        return {name: answer.content}
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        return {item: archive.read(item) for item in archive.namelist()}


def _rows(database: bytes, folder: Path) -> list[bytes]:
    """The features of a GeoPackage as text."""
    (folder / "copy.gpkg").write_bytes(database)
    with closing(sqlite3.connect(folder / "copy.gpkg")) as connection:
        return [repr(row).encode() for row in connection.execute("SELECT * FROM proposals ORDER BY rank")]


NAMES = {
    "coco": {"images.json", "proposals.json"},
    "coco-polygons": {"Zo%C3%AB%20%26%20co-coco_polygons.json"},
    "cvat": {"Zo%C3%AB%20%26%20co-cvat.xml"},
    "geojson": {"Zo%C3%AB%20%26%20co.geojson"},
    "geopackage": {"Zo%C3%AB%20%26%20co.gpkg"},
    "label-map": {"Zo%C3%AB%20%26%20co.png"},
    "label-studio": {"Zo%C3%AB%20%26%20co-label_studio.json"},
    "labelme": {"Zo%C3%AB%20%26%20co.json"},
    "parquet": {"Zo%C3%AB%20%26%20co-proposals.parquet"},
    "yolo": {"yolo/data.yaml", "yolo/labels/Zoë & co.txt"},
}


@pytest.mark.parametrize("name", PHOTO_FORMATS)
def test_every_format_is_what_the_writer_writes(client: TestClient, tmp_path: Path, name: str) -> None:
    """The writers themselves are read back by other programs' readers in tests/formats."""
    chosen = [0, 3, 4]
    options = {"label": "horse", "simplify": 0.5, "image_prefix": "s3://bucket/"}
    request = {"format": name, "images": [_to_export(_found(client), chosen)], "options": options}
    files = _files(client.post("/v1/export", json=request))
    assert set(files) == NAMES.get(name, set(files))
    masks = Proposals.from_masks(known_masks(*SIZE)[chosen], [BOXES[i][1] for i in chosen])
    record = {"id": 1, "file_name": "Zoë & co.png", "width": 60, "height": 40}
    with open_formats([name], tmp_path, FormatOptions(**options)) as write:
        write(Photo(tmp_path / name / "Zoë & co.png", "Zoë & co", record), masks)
    expected = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    if name == "geopackage":  # a database, which holds the time at which it was written
        assert [data[:15] for data in files.values()] == [b"SQLite format 3"]
        files = {name: b"".join(_rows(data, tmp_path)) for name, data in files.items()}
        expected = [b"".join(_rows(data, tmp_path)) for data in expected]
        assert expected[0].count(b"horse") == 3
    assert sorted(files.values()) == sorted(expected)


def test_coco_export_reads_back_to_the_masks(client: TestClient) -> None:
    request = {"format": "coco", "images": [_to_export(_found(client), [1, 4])]}
    entries = json.loads(_files(client.post("/v1/export", json=request))["proposals.json"])
    truth = known_masks(*SIZE)[[1, 4]]
    assert [entry["score"] for entry in entries] == [0.95, 0.4]
    assert np.array_equal([coco_mask.decode(entry["segmentation"]) for entry in entries], truth)


def test_masks_are_sorted_and_rewritten(client: TestClient) -> None:
    """A client may send them in any order, and a code with empty runs, which is right but not the shortest."""
    image = {"file_name": "a.png", "width": 3, "height": 2}
    codes = [(0.1, "15"), (0.8, "2004")]  # lengths 1 5, and 2 0 0 4 (as its excess over the one two before)
    proposals = [{"score": score, "segmentation": {"size": [2, 3], "counts": text}} for score, text in codes]
    answer = client.post("/v1/export", json={"format": "coco", "images": [{**image, "proposals": proposals}]})
    entries = json.loads(_files(answer)["proposals.json"])
    assert [(entry["score"], entry["segmentation"]["counts"]) for entry in entries] == [(0.8, "24"), (0.1, "15")]


def test_names_with_dots(client: TestClient) -> None:
    found = _found(client)
    images = [{**_to_export(found, [0]), "file_name": f"2024.05.0{day}.jpg"} for day in (1, 2)]
    files = _files(client.post("/v1/export", json={"format": "yolo", "images": images}))
    assert set(files) == {"yolo/data.yaml", "yolo/labels/2024.05.01.txt", "yolo/labels/2024.05.02.txt"}


def test_several_images_of_one_name(client: TestClient) -> None:
    found = _found(client)
    images = [_to_export(found, [0]), _to_export(found, [3])]
    files = _files(client.post("/v1/export", json={"format": "label-map", "images": images}))
    assert sorted(files) == ["label_map/Zoë & co.png", "label_map/Zoë & co_2.png"]
    for data, mask in zip((files[name] for name in sorted(files)), known_masks(*SIZE)[[0, 3]], strict=True):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))) > 0, mask)


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "/etc/passwd", "..\\..\\x.png", "..", "a\r\nb.png", "con: <x>|?*.png", "x" * 255, " ", "."],
)
@pytest.mark.parametrize("format_name", ["labelme", "cvat", "yolo"])
def test_names_are_never_paths(client: TestClient, name: str, format_name: str) -> None:
    image = {**_to_export(_found(client), [0]), "file_name": name}
    answer = client.post("/v1/export", json={"format": format_name, "images": [image]})
    for path in _files(answer):
        assert ".." not in path and not path.startswith("/") and "\n" not in path and len(path) < 100
        assert path.count("/") == (0 if format_name != "yolo" else path.endswith("txt") + 1)


def _image(counts: str, size: tuple[int, int] = (4, 5), width: int = 5, height: int = 4) -> dict[str, Any]:
    mask = {"score": 0.5, "segmentation": {"size": list(size), "counts": counts}}
    return {"file_name": "a.png", "width": width, "height": height, "proposals": [mask]}


@pytest.mark.parametrize(
    ("image", "status", "says"),
    [
        (_image("5", (5, 4)), 422, "a.png, mask 1: its size [5, 4] is not that of the image, [4, 5]"),
        (_image("5"), 422, "its counts are not those of 20 pixels"),
        (_image("5?1"), 422, "its counts are not those of 20 pixels"),
        (_image("O" * 3), 422, "its counts are not"),  # negative lengths
        (_image("d0"), 422, "has no pixels"),  # one run of 20 zeros
        (_image("oooooo?"), 422, "its counts are not"),
        (_image("ooooooo?"), 422, "images.0.proposals.0.segmentation.counts"),
        (_image("o"), 422, "images.0.proposals.0.segmentation.counts"),
        (_image("5 1"), 422, "images.0.proposals.0.segmentation.counts"),
        (_image(""), 422, "images.0.proposals.0.segmentation.counts"),
        (_image("é"), 422, "images.0.proposals.0.segmentation.counts"),
        (_image("5", (100_000, 100_000), 100_000, 100_000), 413, "a.png: 100000x100000 is more than the limit"),
        (_image("5", (0, 5), 5, 0), 422, "images.0.height"),
        ({**_image("5"), "path": "/etc/passwd"}, 422, "images.0.path"),
        ({**_image("5"), "file_name": ""}, 422, "images.0.file_name"),
        ({**_image("5"), "proposals": [{"score": 1.5, "segmentation": {"size": [4, 5], "counts": "5"}}]}, 422, "score"),
    ],
)
def test_false_masks_are_refused(client: TestClient, image: dict[str, Any], status: int, says: str) -> None:
    answer = client.post("/v1/export", json={"format": "coco", "images": [image]})
    assert answer.status_code == status, answer.text
    assert says in answer.json()["detail"]


def test_masks_that_would_take_minutes_are_refused(client: TestClient) -> None:
    side = 2 * int((MAX_RUNS / 2) ** 0.5) + 40
    chessboard = np.indices((side, side)).sum(axis=0) % 2
    rle = coco_mask.encode(np.asfortranarray(chessboard.astype(np.uint8)))
    image = _image(rle["counts"].decode(), (side, side), side, side)
    answer = client.post("/v1/export", json={"format": "yolo", "images": [image]})
    assert answer.status_code == 413
    assert f"more than the limit of {MAX_RUNS}" in answer.json()["detail"]


def test_wrong_requests(client: TestClient) -> None:
    def post(**request: Any) -> tuple[int, str]:
        answer = client.post("/v1/export", **request)
        return answer.status_code, answer.json()["detail"]

    image = _to_export(_found(client), [0])
    assert post(json={"format": "svg", "images": [image]})[0] == 422
    assert "coco, coco-polygons, cvat" in post(json={"format": "svg", "images": [image]})[1]
    assert post(json={"format": "coco", "images": []})[0] == 422
    assert post(json={"format": "coco", "images": [image], "options": {"shapes": "circles"}})[0] == 422
    assert post(json={"format": "coco", "images": [image], "options": {"simplify": -1}})[0] == 422
    assert post(json={"format": "coco", "images": [image], "options": {"label": " "}})[0] == 422
    assert post(content=b"{", headers={"content-type": "application/json"})[0] == 422
    assert post(content=b"x=1", headers={"content-type": "text/plain"})[0] == 422


def test_missing_package_is_named(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    answer = client.post("/v1/export", json={"format": "parquet", "images": [_to_export(_found(client), [0])]})
    assert answer.status_code == 501
    assert "pip install 'sharpmask[parquet]'" in answer.json()["detail"]


@given(masks=st.lists(st.lists(st.booleans(), min_size=35, max_size=35), max_size=4))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_masks_pass_unchanged(client: TestClient, masks: list[list[bool]]) -> None:
    wanted = [mask for mask in np.array(masks, bool).reshape(-1, 5, 7) if mask.any()]
    proposals = []
    for mask in wanted:
        rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        segmentation = {"size": rle["size"], "counts": rle["counts"].decode()}
        proposals.append({"score": 0.5, "segmentation": segmentation})
    image = {"file_name": "a.png", "width": 7, "height": 5, "proposals": proposals}
    answer = client.post("/v1/export", json={"format": "coco", "images": [image]})
    entries = json.loads(_files(answer)["proposals.json"])
    assert [entry["segmentation"] for entry in entries] == [proposal["segmentation"] for proposal in proposals]
