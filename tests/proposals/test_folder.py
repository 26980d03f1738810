"""Files in, results out: ids, names, failures."""

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from sharpmask.errors import ConfigError, DataError, ImageError
from sharpmask.images import read_image
from sharpmask.proposals import Proposals, folder
from sharpmask.proposals.folder import overlay_paths, propose_files
from sharpmask.proposals.proposer import Proposer
from sharpmask.proposals.records import Records


@pytest.fixture
def proposer(shape_network: Any) -> Proposer:
    return Proposer(shape_network(torch.ones(56, 56)), top=5, scales=[0], device="cpu")


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = []
    for i, name in enumerate(["a.png", "b.jpg", "sub/a.jpg"]):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40 + 10 * i, 60, 3), 90, np.uint8)).save(path)
        paths.append(path)
    return paths


def test_results_load_in_pycocotools(proposer: Proposer, photos: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "new" / "out"
    report = propose_files(proposer, photos, output, progress=False)
    assert (report.images, report.proposals, report.failures) == (3, 15, [])
    truth = COCO(output / "images.json")
    results = truth.loadRes(str(output / "proposals.json"))
    assert len(results.anns) == 15
    assert [image["id"] for image in truth.dataset["images"]] == [1, 2, 3]
    for image in truth.dataset["images"]:
        assert Path(image["file_name"]) == photos[image["id"] - 1]
        for annotation in results.loadAnns(results.getAnnIds(imgIds=[image["id"]])):
            assert coco_mask.decode(annotation["segmentation"]).shape == (image["height"], image["width"])
    names = sorted(path.name for path in output.iterdir())
    assert names == ["a_2_overlay.png", "a_overlay.png", "b_overlay.png", "images.json", "proposals.json"]
    with Image.open(output / "a_2_overlay.png") as overlay:
        assert overlay.size == (60, 60)


def test_a_bad_file_is_reported_and_the_rest_is_done(proposer: Proposer, photos: list[Path], tmp_path: Path) -> None:
    photos[1].write_bytes(photos[1].read_bytes()[:300])
    errors = io.StringIO()
    report = propose_files(proposer, photos, tmp_path / "out", overlay=False, errors=errors, progress=False)
    assert report.images == 2 and len(report.failures) == 1
    assert "b.jpg" in errors.getvalue()
    results = json.loads((tmp_path / "out" / "proposals.json").read_text())
    assert {entry["image_id"] for entry in results} == {1, 3}
    assert [image["id"] for image in json.loads((tmp_path / "out" / "images.json").read_text())["images"]] == [1, 3]


def test_no_results_are_still_valid_json(proposer: Proposer, photos: list[Path], tmp_path: Path) -> None:
    photos[0].write_bytes(b"")
    report = propose_files(proposer, photos[:1], tmp_path / "out", errors=io.StringIO(), progress=False)
    assert len(report.failures) == 1
    assert json.loads((tmp_path / "out" / "proposals.json").read_text()) == []


def write_annotations(path: Path, images: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    return path


def test_ids_of_an_annotation_file(proposer: Proposer, photos: list[Path], tmp_path: Path) -> None:
    ann = write_annotations(
        tmp_path / "ann.json",
        [
            {"id": 70, "file_name": "other/a.jpg"},
            {"id": 71, "file_name": "sub/a.jpg", "width": 60, "height": 60},
            {"id": 72, "file_name": "b.jpg", "width": 60, "height": 51},
            {"id": 73, "file_name": "a.png", "width": 60, "height": 40},
        ],
    )
    errors = io.StringIO()
    report = propose_files(proposer, photos, tmp_path / "out", annotations=ann, errors=errors, progress=False)
    results = json.loads((tmp_path / "out" / "proposals.json").read_text())
    assert {entry["image_id"] for entry in results} == {71, 73}
    assert len(report.failures) == 1 and "60x50" in errors.getvalue() and "60x51" in errors.getvalue()
    assert not (tmp_path / "out" / "images.json").exists()


def test_a_record_is_of_one_photo_only(proposer: Proposer, photos: list[Path], tmp_path: Path) -> None:
    """Two photos of one name: that which the annotations' folder tells, or, where they tell none, neither."""
    twins = [tmp_path / "one" / "a.jpg", tmp_path / "two" / "a.jpg"]
    for twin in twins:
        twin.parent.mkdir()
        Image.new("RGB", (60, 40)).save(twin)
    ann = write_annotations(tmp_path / "ann.json", [{"id": 5, "file_name": "two/a.jpg"}])
    records = Records(ann, twins)
    assert records.find(2, twins[1])["id"] == 5
    with pytest.raises(ImageError, match=r"one/a\.jpg: not listed .* whose 'two/a\.jpg' is .*two/a\.jpg"):
        records.find(1, twins[0])
    records = Records(write_annotations(tmp_path / "ann.json", [{"id": 5, "file_name": "a.jpg"}]), twins)
    for twin in twins:
        with pytest.raises(ImageError, match=r"'a\.jpg' may be this or .*; give it folders"):
            records.find(1, twin)


def test_annotations_with_a_byte_order_mark_and_with_ids_that_are_words(tmp_path: Path) -> None:
    ann = tmp_path / "ann.json"
    ann.write_bytes(b"\xef\xbb\xbf" + json.dumps({"images": [{"id": 4, "file_name": "a.jpg"}]}).encode())
    assert Records(ann, [Path("a.jpg")]).find(1, Path("a.jpg"))["id"] == 4
    write_annotations(ann, [{"id": "4", "file_name": "a.jpg"}])
    with pytest.raises(DataError, match="has the image id '4'"):
        Records(ann, [Path("a.jpg")])


def test_the_list_of_images_of_an_earlier_run_goes(proposer: Proposer, photos: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "out"
    propose_files(proposer, photos[:1], output, progress=False)
    assert (output / "images.json").exists()
    ann = write_annotations(tmp_path / "ann.json", [{"id": 9, "file_name": photos[0].name}])
    propose_files(proposer, photos[:1], output, annotations=ann, progress=False)
    assert not (output / "images.json").exists()


def test_annotation_files_that_do_not_fit(proposer: Proposer, photos: list[Path], tmp_path: Path) -> None:
    ann = write_annotations(tmp_path / "ann.json", [{"id": 1, "file_name": "z.jpg"}])
    with pytest.raises(DataError, match="lists none of the 3"):
        propose_files(proposer, photos, tmp_path / "out", annotations=ann, progress=False)
    for content in ("[1]", "{", '{"images": [{"id": 1}]}'):
        ann.write_text(content)
        with pytest.raises(DataError, match=r"ann\.json"):
            propose_files(proposer, photos, tmp_path / "out", annotations=ann, progress=False)
    with pytest.raises(DataError, match="cannot be read"):
        propose_files(proposer, photos, tmp_path / "out", annotations=tmp_path / "none.json", progress=False)
    assert not (tmp_path / "out").exists()


def test_an_interrupted_run_leaves_no_result_file(
    proposer: Proposer, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(image: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(proposer, "propose", interrupt)
    with pytest.raises(KeyboardInterrupt):
        propose_files(proposer, photos, tmp_path / "out", progress=False)
    assert list((tmp_path / "out").iterdir()) == []


def test_output_that_cannot_be_made(proposer: Proposer, photos: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot make the folder"):
        propose_files(proposer, photos, photos[0] / "out", progress=False)


def test_overlay_names_never_clash() -> None:
    out = Path("/data/out")
    paths = [
        Path("/x/A.png"),
        Path("/y/a.jpg"),
        Path("/data/out/b.png"),
        Path("/data/out/b_overlay.png"),
        Path("a_2.png"),
    ]
    names = [target.name for target in overlay_paths(paths, out).values()]
    assert len({name.lower() for name in names}) == 5
    assert names[:3] == ["A_overlay.png", "a_2_overlay.png", "b_2_overlay.png"]


def test_reading_and_writing_go_on_while_the_network_works(
    proposer: Proposer, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network waits in each photo until the next one has been read and the last one's results are being written;
    one after the other this would wait for ever. And no more than one photo is read ahead."""
    read, written = ([threading.Event() for _ in photos] for _ in range(2))
    started = 0
    ahead = []
    propose = proposer.propose

    def read_and_tell(path: Path, **options: Any) -> np.ndarray:
        number = photos.index(path)
        ahead.append(number - started)
        pixels = read_image(path, **options)
        read[number].set()
        return pixels

    def wait_and_propose(image: Any) -> Proposals:
        nonlocal started
        number, started = started, started + 1
        if number + 1 < len(photos):
            assert read[number + 1].wait(120)
        if number:
            assert written[number - 1].wait(120)
        return propose(image)

    @contextmanager
    def open_writer(output: Path) -> Iterator[folder.Write]:
        yield lambda photo, found: written[photos.index(photo.path)].set()

    monkeypatch.setattr(folder, "read_image", read_and_tell)
    monkeypatch.setattr(proposer, "propose", wait_and_propose)
    report = propose_files(proposer, photos, tmp_path / "out", writer=open_writer, progress=False)
    assert report.images == 3 and all(event.is_set() for event in written)
    assert max(ahead) <= 1


@pytest.mark.parametrize("fails_at", [0, 2])
def test_a_writer_that_fails_ends_the_run(
    proposer: Proposer, photos: list[Path], tmp_path: Path, fails_at: int
) -> None:
    @contextmanager
    def open_writer(output: Path) -> Iterator[folder.Write]:
        with folder.open_coco(output) as write:

            def write_or_fail(photo: folder.Photo, found: Proposals) -> None:
                if photo.path == photos[fails_at]:
                    raise ConfigError("no room")
                write(photo, found)

            yield write_or_fail

    with pytest.raises(ConfigError, match="no room"):
        propose_files(proposer, photos, tmp_path / "out", overlay=False, writer=open_writer, progress=False)
    assert list((tmp_path / "out").iterdir()) == []
