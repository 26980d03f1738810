"""What training can be varied by: each lever does what it says, on cases whose answer is known."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from short_runs import short_run, short_stage

from sharpmask.checkpoints.store import read_safetensors
from sharpmask.errors import ConfigError, DataError
from sharpmask.networks.deepmask import PatchOutput
from sharpmask.networks.specs import SPECS, ModelSpec
from sharpmask.training.config import StageConfig, TrainConfig
from sharpmask.training.losses import boundary, mask_ious, mask_loss_sum
from sharpmask.training.run import train
from sharpmask.training.stages import score_targets, taught

MODEL = "sharpmask-w112-p4-d39"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, small: Callable[[ModelSpec], ModelSpec]) -> str:
    monkeypatch.setitem(SPECS, MODEL, small(SPECS[MODEL]))
    return MODEL


def square(side: int, begin: int, end: int) -> torch.Tensor:
    mask = torch.zeros(1, side, side)
    mask[:, begin:end, begin:end] = 1
    return mask


def test_boundary_is_a_band_on_both_sides_of_the_edge() -> None:
    band = boundary(square(160, 40, 120))[0]
    assert band[80].nonzero()[:, 0].tolist() == [38, 39, 40, 41, 118, 119, 120, 121]
    # An object that leaves the patch has no edge where the patch ends.
    assert boundary(torch.ones(1, 160, 160)).sum() == 0
    assert boundary(square(56, 10, 30))[0, 20].nonzero()[:, 0].tolist() == [9, 10, 29, 30]


def test_boundary_weight_counts_errors_at_the_edge_more() -> None:
    target, has_mask = square(80, 20, 60), torch.ones(1)
    right = (target * 2 - 1) * 4
    at_edge, inside = right.clone(), right.clone()
    at_edge[:, 20, 25:35] *= -1
    inside[:, 40, 25:35] *= -1
    plain = [mask_loss_sum(logits, target, has_mask) for logits in (at_edge, inside)]
    torch.testing.assert_close(plain[0], plain[1])
    weighted = [mask_loss_sum(logits, target, has_mask, 3.0) for logits in (at_edge, inside)]
    least = mask_loss_sum(right, target, has_mask, 3.0)
    assert (weighted[0] - least).item() == pytest.approx(4 * (weighted[1] - least).item(), rel=1e-3)
    # A weighted mean: where all pixels are equally wrong the weights change nothing.
    torch.testing.assert_close(
        mask_loss_sum(right, target, has_mask, 3.0), mask_loss_sum(right, target, has_mask), rtol=1e-4, atol=0
    )


def test_score_targets() -> None:
    target = torch.cat([square(8, 0, 4), square(8, 0, 4), torch.zeros(1, 8, 8)])
    found = torch.cat([square(8, 0, 4), square(8, 0, 8), square(8, 0, 8)])  # IoU 1, 1/4, nothing to find
    output = PatchOutput((found * 2 - 1) * 5, torch.zeros(3))
    batch = {"mask": target.to(torch.uint8), "label": torch.tensor([1.0, 1.0, 0.0])}
    torch.testing.assert_close(mask_ious(output.mask_logits, target), torch.tensor([1.0, 0.25, 0.0]))
    assert score_targets(output, batch, "label").tolist() == [1, 1, 0]
    assert score_targets(output, batch, "iou").tolist() == [1, 0.25, 0]
    assert score_targets(output, batch, "both").tolist() == [1, 0.625, 0]


def test_a_teacher_moves_the_targets() -> None:
    class Teacher(torch.nn.Module):
        def forward(self, patches: torch.Tensor) -> PatchOutput:
            return PatchOutput(torch.full((len(patches), 4, 4), 20.0), torch.full((len(patches),), -20.0))

    batch = {"mask": torch.zeros(2, 8, 8, dtype=torch.uint8), "label": torch.ones(2), "has_mask": torch.ones(2)}
    mixed = taught(batch, Teacher(), torch.zeros(2, 3, 16, 16), 0.25)
    torch.testing.assert_close(mixed["mask"], torch.full((2, 8, 8), 0.25))
    torch.testing.assert_close(mixed["label"], torch.full((2,), 0.75))
    assert mixed["has_mask"] is batch["has_mask"] and batch["mask"].sum() == 0


def test_a_run_with_everything(shapes: Path, tmp_path: Path, tiny: str) -> None:
    """All levers at once, after a run that makes the teacher; stage 3 trains what the others trained apart."""
    train(short_run(shapes, tmp_path / "teacher", model=tiny, sharpmask=short_stage(1, "mask")))
    negatives = tmp_path / "negatives.json"
    negatives.write_text(json.dumps([{"image_id": 1, "x": 115.0, "y": 15.0, "scale": 1.0, "score": 0.9}]))
    config = short_run(
        shapes,
        tmp_path / "run",
        model=tiny,
        teacher=str(tmp_path / "teacher" / "model.safetensors"),
        negatives=str(negatives),
        deepmask=short_stage(
            3, score_target="both", distil=0.5, hard_negatives=0.5, balance="area", trunk_start=2, negative_shift=10.0
        ),
        sharpmask=short_stage(2, "mask", boundary_weight=2.0),
        endtoend=short_stage(2, learning_rate=1e-3, score_target="iou"),
        fold="1/3",
        measure_photos=1,
        val_annotations=str(shapes / "instances.json"),
        val_images=str(shapes),
    )
    train(config)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(entry["stage"] for entry in log)) == ["deepmask", "sharpmask", "endtoend"]
    before, _ = read_safetensors(tmp_path / "run" / "sharpmask.safetensors")
    after, _ = read_safetensors(tmp_path / "run" / "endtoend.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    for part in ("deepmask.trunk.", "deepmask.encoder.", "deepmask.score_head.", "refinement."):
        assert any(name.startswith(part) for name in changed), part
    assert not any(name.startswith("deepmask.mask_head.") for name in changed)
    row = json.loads((tmp_path / "run" / "ledger.json").read_text())
    assert row["photos"] == 4 and row["fold"] == "1/3"  # of six
    assert row["measured"]["val"]["photos"] == row["measured"]["fold"]["photos"] == 1
    assert 0 <= row["measured"]["fold"]["AR@1000"]["value"] <= 1
    assert row["changes"]["deepmask.distil"] == 0.5 and "fold" not in row["changes"]
    train(config, resume=True)  # a finished run stays as it is, its row too
    assert json.loads((tmp_path / "run" / "ledger.json").read_text()) == row


def test_a_teacher_with_other_windows_is_refused(shapes: Path, tmp_path: Path, tiny: str) -> None:
    config = short_run(shapes, tmp_path, model=tiny, teacher="sharpmask-lite0", deepmask=short_stage(1, distil=0.5))
    with pytest.raises(ConfigError, match="teacher=sharpmask-lite0 sees windows of 160 pixels"):
        train(config)


@pytest.mark.parametrize(
    ("stage", "run", "message"),
    [
        ({"distil": 0.5}, {}, "give teacher=MODEL"),
        ({"distil": 2.0}, {"teacher": "sharpmask-lite0"}, "between 0 and 1"),
        ({"hard_negatives": 0.5}, {}, "give negatives=FILE"),
        ({"score_target": "iou"}, {}, "needs deepmask.batches=joint"),
        ({}, {"fold": "5/4"}, "fold '5/4'"),
        ({}, {"endtoend": StageConfig(steps=1, batches="mask")}, "endtoend.batches must be 'joint'"),
    ],
)
def test_levers_that_cannot_work_are_refused(stage: dict[str, object], run: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(annotations="a", images="i", output="o", deepmask=StageConfig(**stage), **run)  # type: ignore[arg-type]


def test_a_list_of_negatives_that_is_none(shapes: Path, tmp_path: Path, tiny: str) -> None:
    (tmp_path / "list.json").write_text('{"a": 1}')
    config = short_run(
        shapes, tmp_path / "o", model=tiny, negatives=str(tmp_path / "list.json"), deepmask=short_stage(1)
    )
    with pytest.raises(DataError, match=r"list\.json: no list of windows"):
        train(config)


def test_balance_by_area_draws_sizes_alike(shapes: Path) -> None:
    """Eleven small objects and a large one: by annotation the large one is one of twelve, by area every second."""
    import dataclasses

    from sharpmask.data.coco import read_coco
    from sharpmask.data.examples import ExampleDataset

    dataset = read_coco(shapes / "instances.json")
    first, *rest = dataset.annotations
    sized = [dataclasses.replace(first, area=20_000.0), *(dataclasses.replace(a, area=1_500.0) for a in rest)]
    dataset = dataclasses.replace(dataset, annotations=tuple(sized))
    shares = {}
    for balance in ("annotation", "area"):
        examples = ExampleDataset(dataset=dataset, image_dir=shapes, seed=0, length=2, balance=balance)
        rng = np.random.default_rng(1)
        shares[balance] = np.mean([examples._draw_positive(rng).area > 10_000 for _ in range(600)])
    assert shares["annotation"] == pytest.approx(1 / 12, abs=0.05) and shares["area"] == pytest.approx(0.5, abs=0.08)
