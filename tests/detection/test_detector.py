"""A detector learns two kinds of shapes and finds them: class, box, mask, files, pictures, and the result's methods."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detector_runs import detector_run, write_shapes
from PIL import Image
from pycocotools import mask as coco_mask

import sharpmask
from sharpmask.checkpoints import load_network
from sharpmask.cli.main import main
from sharpmask.detection.detector import Detector
from sharpmask.detection.folder import detect_files
from sharpmask.detection.infer import ScoredBoxes, select
from sharpmask.detection.overlay import draw_detections
from sharpmask.detection.remask import refine_masks
from sharpmask.detection.result import Detections
from sharpmask.detection.store import load_detector, save_detector
from sharpmask.detection.train import train_detector
from sharpmask.errors import ConfigError, ModelError
from sharpmask.evaluation.detections import evaluate_detections
from sharpmask.images import read_image
from sharpmask.proposals.proposer import Proposer
from sharpmask.proposals.result import Proposals


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that tells discs from squares; `val` beside it has photos it has not seen."""
    folder = tmp_path_factory.mktemp("learnt")
    for part, seed in (("train", 1), ("val", 2)):
        (folder / part).mkdir()
        write_shapes(folder / part, count=8, seed=seed)
    train_detector(
        detector_run(folder / "train", folder / "run", steps=60, average=0.9, flip=False, checkpoint_every=60)
    )
    return folder


def proposals_of(folder: Path, image_id: int) -> Proposals:
    """The proposals that were written with the photos."""
    records = [r for r in json.loads((folder / "proposals.json").read_text()) if r["image_id"] == image_id]
    masks = np.stack([coco_mask.decode(r["segmentation"]) for r in records])
    return Proposals.from_masks(masks, [r["score"] for r in records])


def detector_of(folder: Path, **options: object) -> Detector:
    network, classes = load_detector(folder / "run" / "detector.safetensors")
    proposer = Proposer(load_network("sharpmask-lite0"), top=20, scales=(-0.5,), device="cpu")
    return Detector(network, classes, proposer, **options)  # type: ignore[arg-type]


def mask_iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_unseen_shapes_are_found_with_class_box_and_mask(learnt: Path) -> None:
    detector = detector_of(learnt)
    truth = json.loads((learnt / "val" / "truth.json").read_text())
    records = []
    for image in truth["images"]:
        pixels = read_image(learnt / "val" / image["file_name"])
        found = detector.detect_proposals(pixels, proposals_of(learnt / "val", image["id"]))
        assert (np.diff(found.scores) <= 0).all()
        records += found.to_coco(image["id"])
        for annotation in (a for a in truth["annotations"] if a["image_id"] == image["id"]):
            own = found[found.class_ids == annotation["category_id"]][0]
            assert own.names == [{3: "disc", 8: "square"}[annotation["category_id"]]]
            expected = coco_mask.decode(annotation["segmentation"]).astype(bool)
            assert mask_iou(own.masks[0], expected) > 0.6
    scores = evaluate_detections(truth, records, classes=["disc", "square"], resamples=0)
    assert scores.figures["bbox"]["AP50"] > 0.9 and scores.figures["segm"]["AP50"] > 0.9


def test_the_number_of_proposals_can_be_lowered_afterwards(learnt: Path) -> None:
    """As if there had been no others."""
    detector, folder = detector_of(learnt), learnt / "val"
    pixels, proposals = read_image(folder / "1.png"), proposals_of(folder, 1)
    scored = detector.score(pixels, proposals)
    few = detector.choose(pixels, proposals, scored, 5)
    alone = detector.detect_proposals(pixels, proposals[:5])
    np.testing.assert_allclose(few.scores, alone.scores, rtol=1e-5)
    assert few.ranks.tolist() == alone.ranks.tolist() and few.ranks.max() < 5


def scored_boxes() -> ScoredBoxes:
    """Two boxes that are nearly the same, another, and one of another class on the first."""
    boxes = torch.tensor([[10.0, 10, 50, 50], [14, 10, 54, 50], [90, 90, 110, 120], [10, 10, 50, 54]])
    prob = torch.tensor([[0.1, 0.9, 0.0], [0.7, 0.3, 0.0], [0.4, 0.6, 0.0], [0.3, 0.0, 0.7]])
    return ScoredBoxes(prob, boxes[:, None].expand(-1, 2, 4))


def test_boxes_of_a_class_vote() -> None:
    chosen = {"min_score": 0.05, "nms": 0.3, "top": 10}
    alone = select(scored_boxes(), **chosen)
    assert alone.proposals.tolist() == [0, 3, 2] and alone.labels.tolist() == [1, 2, 1]
    assert torch.equal(alone.boxes, scored_boxes().boxes[[0, 3, 2], 0])
    voted = select(scored_boxes(), vote=0.5, **chosen)
    assert torch.equal(voted.scores, alone.scores) and torch.equal(voted.proposals, alone.proposals)
    mean = [(0.9 * 10 + 0.3 * 14) / 1.2, 10.0, (0.9 * 50 + 0.3 * 54) / 1.2, 50.0]
    torch.testing.assert_close(voted.boxes, torch.tensor([mean, [10, 10, 50, 54], [90, 90, 110, 120]]))
    first = select(scored_boxes(), vote=0.5, proposals=1, **chosen)
    assert first.boxes.tolist() == [[10, 10, 50, 50]]
    none = select(scored_boxes(), vote=0.5, min_score=0.95, nms=0.3, top=10)
    assert none.boxes.shape == (0, 4)


def test_boxes_without_a_score_stay_in_place() -> None:
    scored = ScoredBoxes(torch.tensor([[1.0, 0.0]] * 2), torch.tensor([[[0.0, 0, 9, 9]], [[20, 20, 30, 30]]]))
    found = select(scored, vote=0.5, min_score=0.0, nms=0.3, top=10)
    torch.testing.assert_close(found.boxes, torch.tensor([[0.0, 0, 9, 9], [20, 20, 30, 30]]))


def test_the_mask_is_of_the_proposal_that_fits_the_box_best(learnt: Path) -> None:
    masks = np.zeros((3, 120, 160), bool)
    masks[0, 10:40, 10:40] = masks[1, 10:60, 10:60] = masks[2, 100:110, 100:110] = True
    proposals = Proposals.from_masks(masks, [0.9, 0.8, 0.7])
    boxes = torch.tensor([[10.0, 10, 58, 58], [10, 10, 60, 60], [0, 0, 5, 5]])[:, None].expand(-1, 2, 4)
    scored = ScoredBoxes(torch.tensor([[0.1, 0.9, 0.0], [1.0, 0, 0], [0.2, 0, 0.8]]), boxes)
    detector = detector_of(learnt)
    found = detector.choose(np.zeros((120, 160, 3), np.uint8), proposals, scored)
    assert found.names == ["disc", "square"]
    assert found.ranks.tolist() == [1, 2]  # a box that overlaps no proposal keeps its own
    assert found.areas.tolist() == [2500, 100]
    assert detector.choose(np.zeros((120, 160, 3), np.uint8), proposals, scored, 1).ranks.tolist() == [0]


def test_refined_masks_fit_the_box(learnt: Path) -> None:
    """The proposal's masks are moved, the box is corrected: the mask for the box lies better."""
    truth = json.loads((learnt / "val" / "truth.json").read_text())
    network = load_network("sharpmask-lite0")
    for annotation in truth["annotations"][:6]:
        pixels = read_image(learnt / "val" / f"{annotation['image_id']}.png")
        x, y, w, h = annotation["bbox"]
        (rle,) = refine_masks(network, pixels, np.array([[x, y, x + w, y + h]]), 0.2, torch.device("cpu"))
        assert rle is not None and rle["size"] == [120, 160]
        expected = coco_mask.decode(annotation["segmentation"]).astype(bool)
        assert mask_iou(coco_mask.decode(rle).astype(bool), expected) > 0.75


def test_refining_at_the_border_and_of_degenerate_boxes(learnt: Path) -> None:
    pixels = read_image(learnt / "val" / "1.png")
    boxes = np.array([[-30.0, -30.0, 10.0, 10.0], [158.0, 100.0, 160.0, 120.0], [50.0, 50.0, 50.0, 50.0]])
    found = refine_masks(load_network("sharpmask-lite0"), pixels, boxes, 0.2, torch.device("cpu"))
    assert len(found) == 3 and all(rle is None or rle["size"] == [120, 160] for rle in found)
    assert refine_masks(load_network("sharpmask-lite0"), pixels, boxes[:0], 0.2, torch.device("cpu")) == []


def test_detect_from_the_photo_alone(learnt: Path) -> None:
    detector = detector_of(learnt, refine=True, min_score=0.0, top=7)
    found = detector.detect(learnt / "val" / "1.png")
    assert len(found) == 7 and found.image_size == (120, 160)
    with Image.open(learnt / "val" / "1.png") as photo:
        again = detector.detect(photo)
    assert again.scores.tolist() == found.scores.tolist()
    assert len(detector_of(learnt, min_score=1.0).detect(learnt / "val" / "1.png")) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [({"min_score": 2.0}, "min_score 2"), ({"nms": -1.0}, "nms -1"), ({"top": 0}, "top 0"), ({"vote": 2.0}, "vote 2")],
)
def test_values_out_of_range(learnt: Path, options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        detector_of(learnt, **options)


def some() -> Detections:
    masks = np.zeros((4, 40, 60), bool)
    for place, (x, y) in enumerate([(0, 0), (2, 0), (30, 10), (2, 0)]):
        masks[place, y : y + 20, x : x + 20] = True
    proposals = Proposals.from_masks(masks, [0.9, 0.8, 0.7, 0.6])
    return Detections(
        class_ids=np.array([1, 1, 7, 7]),
        names=["cat", "cat", "dog", "dog"],
        scores=proposals.scores,
        boxes=proposals.boxes,
        rles=proposals.rles,
        image_size=(40, 60),
        ranks=np.array([5, 0, 2, 3]),
    )


def test_the_result_is_chosen_from_like_an_array() -> None:
    found = some()
    assert len(found) == 4 and "4 in an image of 60x40" in repr(found)
    assert found[1].ranks.tolist() == [0] and found[-1].names == ["dog"] and len(found[[]]) == 0
    assert found[found.scores > 0.65].names == ["cat", "cat", "dog"]
    assert found.filter(classes=["dog"], min_score=0.65).ranks.tolist() == [2]
    assert found.areas.tolist() == [400] * 4 and len(found.filter(min_area=401)) == len(found.filter(max_area=399)) == 0
    assert found.masks.shape == (4, 40, 60) and found.masks[2, 10:30, 30:50].all() and found.masks[2].sum() == 400
    with pytest.raises(IndexError):
        found[4]


def test_suppression_keeps_the_classes_apart() -> None:
    assert some().nms(0.5).ranks.tolist() == [5, 2, 3]
    with pytest.raises(ConfigError, match="NMS threshold 2"):
        some().nms(2)


def test_coco_records() -> None:
    both, boxes, masks = (some().to_coco(11, kind) for kind in ("both", "bbox", "segm"))
    assert both[1] == {
        "image_id": 11,
        "category_id": 1,
        "bbox": [2.0, 0.0, 20.0, 20.0],
        "segmentation": some().rles[1],
        "score": 0.8,
    }
    assert "segmentation" not in boxes[0] and "bbox" not in masks[0]


def test_names_are_drawn_only_where_the_detector_is_sure() -> None:
    photo = np.full((40, 60, 3), 128, np.uint8)
    drawn = np.asarray(draw_detections(photo, some(), min_score=0.75)).astype(int)
    changed = np.abs(drawn - 128).sum(axis=2) > 0
    assert changed[:20, :22].all() and not changed[25:, 25:].any()
    with pytest.raises(ValueError, match="do not fit"):
        draw_detections(photo[:30], some())


def test_pictures_tell_the_names() -> None:
    """Of two that differ in the name alone, what differs is the name, at the top of the mask."""
    side = np.zeros((200, 300), np.uint8, order="F")
    side[60:150, 40:260] = 1
    one = Detections(
        class_ids=np.array([1]), names=["cat"], scores=np.array([0.9], np.float32),
        boxes=np.array([[40, 60, 260, 150]], np.float32), rles=[coco_mask.encode(side)], image_size=(200, 300),
        ranks=np.array([0]),
    )  # fmt: skip
    photo = np.full((200, 300, 3), 128, np.uint8)
    cat, dog = (
        np.asarray(draw_detections(photo, dataclasses.replace(one, names=[name]), min_score=0.5)).astype(int)
        for name in ("cat", "dog")
    )
    rows, columns = np.nonzero(np.abs(cat - dog).sum(axis=2))
    assert len(rows) > 20 and 45 <= rows.min() <= rows.max() <= 75 and 110 <= columns.min() <= columns.max() <= 190


def test_files_and_pictures(learnt: Path, tmp_path: Path) -> None:
    paths = [learnt / "val" / f"{n}.png" for n in (2, 1)]
    report = detect_files(
        detector_of(learnt, min_score=0.0, top=5), paths, tmp_path, annotations=learnt / "val" / "truth.json",
        counts=[3], progress=False,
    )  # fmt: skip
    assert (report.images, report.detections, report.failures) == (2, 10, [])
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {
        "bbox.json", "segm.json", "bbox_3.json", "segm_3.json", "1_overlay.png", "2_overlay.png",
    }  # fmt: skip
    boxes, masks = (json.loads((tmp_path / f"{kind}.json").read_text()) for kind in ("bbox", "segm"))
    assert [r["image_id"] for r in boxes] == [2] * 5 + [1] * 5 == [r["image_id"] for r in masks]
    with Image.open(tmp_path / "1_overlay.png") as picture:
        assert picture.size == (160, 120)
    for kind in ("bbox", "segm"):
        evaluate_detections(learnt / "val" / "truth.json", tmp_path / f"{kind}.json", resamples=0)


def test_the_command(learnt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    detector = str(learnt / "run" / "detector.safetensors")
    (tmp_path / "broken.png").write_bytes(b"nothing")
    photos = [str(learnt / "val" / "1.png"), str(tmp_path / "broken.png")]
    arguments = ["--detector", detector, "--output", str(tmp_path / "out"), "--scales", "-0.5", "--proposals", "10"]
    assert main(["detect", *photos, *arguments, "--min-score", "0"]) == 1
    out, err = capsys.readouterr()
    assert "detections in 1 of 2 images" in out and "broken.png" in err and "1 of 2 images failed" in err
    listed = json.loads((tmp_path / "out" / "images.json").read_text())
    assert [c["name"] for c in listed["categories"]] == ["disc", "square"]
    for wrong, status in (
        (["--proposal-counts", "5,x"], 2),
        (["--proposal-counts", "5,11"], 2),
        (["--nms", "3"], 2),
        (["--model", "no-such-model"], 2),
    ):
        assert main(["detect", photos[0], *arguments, *wrong]) == status, wrong
    assert main(["detect", photos[0], "--detector", photos[0], "--output", str(tmp_path)]) == 1
    assert main(["detect", "absent.png", "--detector", detector, "--output", str(tmp_path)]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_other_files_are_no_detectors(tmp_path: Path, learnt: Path) -> None:
    weights = Path(sharpmask.__file__).parent / "weights" / "sharpmask-lite0.safetensors"
    with pytest.raises(ModelError, match="is no detector"):
        load_detector(weights)
    with pytest.raises(ModelError, match="no weights file"):
        load_detector(tmp_path / "absent.safetensors")
    with pytest.raises(ConfigError, match=r"neither a bundled detector \(detector-lite2\)"):
        load_detector("detector-lite9")
    network, classes = load_detector(learnt / "run" / "detector.safetensors")
    save_detector(network, classes[:1], tmp_path / "one.safetensors")
    with pytest.raises(ModelError, match="classifier"):
        load_detector(tmp_path / "one.safetensors")
