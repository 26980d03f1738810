"""Per-patch IoU and score figures: known answers, and a fake network over the real example data set."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from sharpmask.errors import ConfigError, DataError
from sharpmask.evaluation.patches import MASK_METRICS, evaluate_patches, patch_ious, patch_metrics


class Output(NamedTuple):
    mask_logits: torch.Tensor
    score_logits: torch.Tensor


class BrightIsObject(torch.nn.Module):
    """Calls every bright pixel object and scores a patch by its middle."""

    def __init__(self, side: int = 160) -> None:
        super().__init__()
        self.side = side

    def forward(self, patches: torch.Tensor) -> Output:
        window = patches[:, 0, 16:176, 16:176]
        logits = 20 * (window - 0.5)
        if self.side != 160:
            logits = torch.nn.functional.interpolate(logits[:, None], size=self.side, mode="area")[:, 0]
        return Output(logits, 20 * (window[:, 60:100, 60:100].mean((1, 2)) - 0.75))


class Items(torch.utils.data.Dataset):
    def __init__(self, items: list[dict[str, torch.Tensor]]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.items[index]


def item(truth: slice, drawn: slice, label: float = 1.0) -> dict[str, torch.Tensor]:
    """A patch with a bright square over the rows and columns `drawn` of the window, the true mask over `truth`."""
    patch, mask = torch.zeros(3, 192, 192, dtype=torch.uint8), torch.zeros(160, 160, dtype=torch.uint8)
    patch[:, 16:176, 16:176][:, drawn, drawn] = 255
    mask[truth, truth] = 1
    flags = {"has_mask": label, "label": label, "has_score": 1.0}
    return {"patch": patch, "mask": mask, **{key: torch.tensor(value) for key, value in flags.items()}}


def test_ious_of_known_masks() -> None:
    targets = torch.zeros(4, 8, 8)
    targets[:3, :4] = 1
    logits = torch.full((4, 8, 8), -5.0)
    logits[0, :4] = 5  # the same
    logits[1, 2:6] = 5  # half of each
    assert patch_ious(logits, targets).tolist() == pytest.approx([1, 1 / 3, 0, 1])  # the last: empty and empty


def test_threshold_is_a_probability() -> None:
    targets = torch.ones(1, 4, 4)
    logits = torch.full((1, 4, 4), -1.0)  # probability .27
    assert patch_ious(logits, targets).item() == 0
    assert patch_ious(logits, targets, threshold=0.2).item() == 1
    with pytest.raises(ConfigError, match="between 0 and 1"):
        patch_ious(logits, targets, threshold=0.0)


def test_coarse_logits_are_upsampled() -> None:
    logits = torch.full((1, 56, 56), -4.0)
    logits[:, 14:42, 14:42] = 4.0
    targets = torch.zeros(1, 160, 160)
    targets[:, 40:120, 40:120] = 1
    assert patch_ious(logits, targets).item() > 0.98


def test_summary_of_known_values() -> None:
    metrics = patch_metrics(np.array([0.1, 0.5, 0.7, 0.9]), np.array([2.0, 1.0, 0.5, -1.0]), np.array([1, 0, 1, 0]))
    assert [metrics.mean_iou, metrics.median_iou, metrics.share_50, metrics.share_70] == pytest.approx(
        [0.55, 0.6, 0.75, 0.5]
    )
    assert metrics.score_accuracy == 0.75
    assert metrics.score_average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert metrics.score_auroc == 0.75
    assert metrics.to_dict()["figures"]["mean IoU"]["low"] is None  # no bootstrap asked for


def test_equal_scores_are_one_threshold() -> None:
    metrics = patch_metrics(np.zeros(0), np.zeros(4), np.array([1, 0, 1, 0]))
    assert metrics.score_auroc == 0.5 and metrics.score_average_precision == 0.5
    assert np.isnan(metrics.mean_iou) and "—" in metrics.text()


def test_one_class_has_no_ranking() -> None:
    metrics = patch_metrics(np.ones(3), np.ones(3), np.ones(3))
    assert metrics.score_accuracy == 1 and np.isnan(metrics.score_auroc)


def test_median_agrees_with_numpy() -> None:
    rng = np.random.default_rng(0)
    for size in range(1, 8):
        ious = rng.random(size)
        assert patch_metrics(ious, [], []).median_iou == pytest.approx(np.median(ious))


def test_interval_resamples_groups_and_is_seeded() -> None:
    ious = np.repeat([0.2, 0.9, 0.4, 0.6], 25)
    options = {"resamples": 200, "seed": 3}
    alone = patch_metrics(ious, [], [], **options)
    grouped = patch_metrics(ious, [], [], mask_groups=np.repeat(list("abcd"), 25), **options)
    again = patch_metrics(ious, [], [], mask_groups=np.repeat(list("abcd"), 25), **options)
    widths = [m.estimates["mean IoU"].high - m.estimates["mean IoU"].low for m in (alone, grouped)]
    assert widths[1] > 2 * widths[0]
    assert all(grouped.estimates[name] == again.estimates[name] for name in MASK_METRICS)


@pytest.mark.parametrize("side", [160, 40])
def test_network_over_examples(side: int) -> None:
    full, half, empty = slice(40, 120), slice(40, 80), slice(0, 0)
    items = [item(full, full), item(full, half), item(empty, slice(0, 20), label=0.0), item(full, full)]
    network = BrightIsObject(side).train()
    metrics = evaluate_patches(network, Items(items), batch_size=3, groups=[1, 1, 1, 2], resamples=20)
    assert network.training  # its mode is restored
    assert metrics.ious.tolist() == pytest.approx([1, 0.25, 1], abs=0.03)
    assert (metrics.masks, metrics.scores, metrics.positives) == (3, 4, 3)
    assert metrics.score_accuracy == 0.75  # the half object misses the middle
    assert "masks of 3 patches (probability > 0.5)" in metrics.text("fake")


def test_no_examples_and_wrong_groups_are_refused() -> None:
    with pytest.raises(DataError, match="no patches"):
        evaluate_patches(BrightIsObject(), Items([]))
    with pytest.raises(ConfigError, match="2 groups for 1"):
        evaluate_patches(BrightIsObject(), Items([item(slice(40, 120), slice(40, 120))]), groups=[1, 2])


# --- the whole road: COCO files, canonical examples, a network ------------------------------------------------------


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    """Six photos with one bright square each, as COCO files."""
    content: dict = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "square"}]}
    for number in range(1, 7):
        pixels = np.zeros((240, 320, 3), np.uint8)
        x, y, side = 20 * number, 10 * number, 40 + 10 * number
        pixels[y : y + side, x : x + side] = 255
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        content["images"].append({"id": number, "file_name": f"{number}.png", "height": 240, "width": 320})
        corners = [x, y, x + side, y, x + side, y + side, x, y + side]
        record = {"image_id": number, "category_id": 1, "iscrowd": 0, "area": side * side, "bbox": [x, y, side, side]}
        content["annotations"].append({"id": number, "segmentation": [corners], **record})
    (tmp_path / "ann.json").write_text(json.dumps(content))
    return tmp_path


@pytest.fixture
def canonical(monkeypatch: pytest.MonkeyPatch):  # a module
    from sharpmask.evaluation import canonical as module

    class Spec(NamedTuple):
        patch_size: int = 160
        context: int = 16

    def load(name: str) -> torch.nn.Module:
        network = BrightIsObject()
        network.spec = Spec()  # type: ignore[assignment]
        return network.eval()

    monkeypatch.setattr(module, "load_network", load)
    return module


def test_canonical_patches_of_a_coco_file(squares: Path, canonical) -> None:
    options = {"annotations": squares / "ann.json", "image_dir": squares, "resamples": 20, "progress": False}
    metrics, notes = canonical.evaluate_canonical("fake", **options)
    assert metrics.masks == 6 and metrics.scores == 12 and metrics.positives == 6
    assert metrics.mean_iou > 0.95 and metrics.score_auroc > 0.9
    assert notes == ["the annotations have 6 usable objects, all of them are measured"]
    some, notes = canonical.evaluate_canonical("fake", count=3, **options)
    again, _ = canonical.evaluate_canonical("fake", count=3, **options)
    assert some.masks == 3 and some.scores == 6 and not notes
    assert np.array_equal(some.ious, again.ious)


def test_canonical_patches_without_negatives(squares: Path, canonical) -> None:
    content = json.loads((squares / "ann.json").read_text())
    for image in content["images"]:
        image["exhaustive"] = False
    (squares / "ann.json").write_text(json.dumps(content))
    metrics, notes = canonical.evaluate_canonical(
        "fake", annotations=squares / "ann.json", image_dir=squares, count=4, resamples=5, progress=False
    )
    assert metrics.masks == 4 and metrics.scores == 0 and "no negatives" in notes[0]


@pytest.mark.parametrize(
    "options", [{"count": -1}, {"seed": -1}, {"batch_size": 0}, {"threshold": 1.0}, {"device": "abacus"}]
)
def test_bad_options_are_refused(squares: Path, canonical, options: dict) -> None:
    with pytest.raises(ConfigError, match=f"--{next(iter(options)).replace('_', '-')}"):
        canonical.evaluate_canonical("fake", annotations=squares / "ann.json", image_dir=squares, **options)
