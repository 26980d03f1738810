"""The lists of rows: models that exist, findings about rows that exist, options that fit."""

from pathlib import Path
from typing import Any

import pytest

from sharpmask.errors import ConfigError
from sharpmask.networks.specs import SPECS, get_spec
from sharpmask.reproduce.datasets import Data, Photos
from sharpmask.reproduce.paper import PAPER
from sharpmask.reproduce.recipes import paper_steps, train_config
from sharpmask.reproduce.studies import build_study, check_options
from sharpmask.reproduce.study import SELECTIVE_SEARCH, Options, Study

DATA = Data("COCO 2014", Path("c"), Photos(Path("c/t.json"), Path("c/t")), Photos(Path("c/v.json"), Path("c/v")))
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("trunk", {"trunk_weights": "r.safetensors", "vgg_weights": "v.safetensors"}),
    ("trunk", {"trunk_weights": "r.safetensors", "caffe": True}),
    ("heads", {"base": "lite0"}),
    ("heads", {"base": "resnet50", "trunk_weights": "r.safetensors", "caffe": True}),
    ("refinement", {"base": "lite0"}),
    ("refinement", {"base": "resnet50", "trunk_weights": "r.safetensors", "caffe": True}),
    ("refinement", {"base": "resnet50", "model": "m.safetensors"}),
    ("coco", {}),
    ("coco", {"model": "sharpmask-fair", "deepmask": "deepmask-fair"}),
]


def options(**changes: Any) -> Options:
    return Options(data=DATA, output=Path("out"), device="cpu", **changes)


def build(name: str, changes: dict[str, Any]) -> Study:
    check_options(name, options(**changes))
    return build_study(name, options(**changes))


@pytest.mark.parametrize(("name", "changes"), VARIANTS, ids=str)
def test_rows_and_findings_fit_together(name: str, changes: dict[str, Any]) -> None:
    study = build(name, changes)
    names = [row.name for row in study.rows]
    assert len(set(names)) == len(names) and set(PAPER[name]) <= set(names)
    for row in study.rows:
        if row.stage is not None:
            spec = get_spec(row.model)
            assert (spec.stride_on == "1x1") == bool(changes.get("caffe") and spec.trunk == "resnet50")
            assert (row.stage == "sharpmask") == (spec.refinement is not None)
            assert row.without or row.start or row.start_row in names or row.trunk_weights
    published = {metric for figures in PAPER[name].values() for metric in figures}
    for finding in study.findings:
        assert finding.first in names and finding.second in names, finding
        assert finding.metric in (*study.metrics, "total time", "mask time"), finding
    if name != "refinement":  # which shows masks only
        assert published <= {*study.metrics, "total time", "mask time"} | {m for m in published if m.startswith("box")}


def test_what_distinguishes_the_rows() -> None:
    heads = build("heads", {"base": "lite0"})
    assert [get_spec(row.model).head for row in heads.rows] == ["original", "A", "B", "C"]
    assert {row.trunk_weights for row in heads.rows} == {"sharpmask-lite0"} and "trained with head C" in heads.protocol
    rows = {row.name: get_spec(row.model) for row in build("refinement", {"base": "lite0"}).trained}
    assert [rows[f"k{k}"].refinement_width for k in (4, 8, 16, 32, 64)] == [4, 8, 16, 32, 64]
    assert {rows[f"k{k}"].schedule for k in (4, 32, 64)} == {"halved"}
    assert [rows[f"k{k}-constant"].schedule for k in (4, 32)] == ["constant"] * 2
    assert not rows["no-vertical"].vertical and not rows["no-horizontal"].horizontal
    assert rows["multiscale"].refinement == "multiscale"
    trunks = {row.name: get_spec(row.model) for row in build("trunk", VARIANTS[0][1]).rows}
    assert (trunks["deepmask-vgg"].patch_size, trunks["deepmask-vgg"].head) == (224, "original")
    assert [trunks[f"w112-{x}"].features for x in ("p3-d21", "p3-d21-f128")] == [None, 128]
    assert trunks["w160-p4-d39-f128"] == SPECS["deepmask-resnet50"]
    coco = {row.name: row for row in build("coco", {}).rows}
    assert [coco[n].zoom for n in ("deepmask", "deepmask-zoom", "sharpmask-zoom", "sharpmask-zoom2")] == [0, 1, 1, 2]
    assert coco["deepmask"].coarse and not coco["sharpmask"].coarse


def test_stage_one_is_shared_and_trained_longer() -> None:
    study = build("refinement", VARIANTS[5][1])
    assert study.row("deepmask").share == 5 and study.row("deepmask").stage == "deepmask"
    assert {row.start_row for row in study.trained if row.name != "deepmask"} == {"deepmask"}
    assert study.row("k8").model == "sharpmask-resnet50-k8-caffe"


def test_without_opencv_selective_search_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    study = build("coco", {})
    assert SELECTIVE_SEARCH not in [row.name for row in study.rows]
    assert not [finding for finding in study.findings if SELECTIVE_SEARCH in (finding.first, finding.second)]
    assert any("pip install 'sharpmask[baselines]'" in note for note in study.notes)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("trunk", {}, "--trunk-weights FILE .*--vgg-weights FILE"),
        ("heads", {"base": "resnet50"}, "'heads' on ResNet-50 needs ImageNet weights"),
        ("refinement", {"base": "resnet50"}, r"needs a trained model \(--model FILE\)"),
        ("refinement", {"base": "lite0", "trunk_weights": "x"}, "--trunk-weights has no meaning"),
        ("heads", {"vgg_weights": "x"}, "--vgg-weights has no meaning for 'heads'; it is for: trunk"),
        ("heads", {"base": "lite0", "caffe": True}, "--caffe has no meaning for the light trunk"),
        ("coco", {"steps": 3}, "--steps has no meaning for 'coco'"),
        ("heads", {"steps": 3, "schedule": "paper"}, "exclude each other"),
        ("heads", {"minutes": 0.0}, "--minutes 0: must be greater than 0"),
        ("qualitative", {"failures": -1}, "--failures -1"),
    ],
)
def test_options_that_do_not_fit(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(name, changes)


def test_wide_layers_learn_in_smaller_steps() -> None:
    """10 x 10 x 128 inputs of F128 against 10 x 10 x 1024 and 7 x 7 x 1024 without."""
    study = build("trunk", {"trunk_weights": "r.safetensors"})
    rates = {row.name: row.rate for row in study.trained}
    assert rates["w160-p4-d39-f128"] == 1 and rates["w160-p4-d39"] == 1 / 8
    assert rates["w112-p4-d39"] == pytest.approx(12800 / 50176)
    wide, plain = (
        train_config(study.row(name), options(), steps=90, output=Path("o"), start=None).deepmask.learning_rate
        for name in ("w160-p4-d39", "w160-p4-d39-f128")
    )
    assert wide == plain / 8
    full = train_config(study.row("w160-p4-d39"), options(schedule="paper"), steps=9, output=Path("o"), start=None)
    assert full.deepmask.learning_rate == 0.001  # the released one


def test_the_two_schedules() -> None:
    study = build("refinement", VARIANTS[5][1])
    short = train_config(study.row("k8"), options(), steps=90, output=Path("o"), start="s.safetensors")
    assert (short.deepmask.steps, short.sharpmask.steps, short.sharpmask.optimiser) == (0, 90, "adamw")
    assert short.sharpmask.warmup == 18 and short.start_from == "s.safetensors" and short.val_annotations is None
    first = train_config(study.row("deepmask"), options(), steps=90, output=Path("o"), start=None)
    assert (first.deepmask.steps, first.deepmask.trunk_factor, first.trunk_weights) == (90, 0.0, "r.safetensors")
    steps = paper_steps(study.row("deepmask"))
    full = train_config(study.row("deepmask"), options(schedule="paper"), steps=steps, output=Path("o"), start=None)
    assert (full.deepmask.steps, full.deepmask.trunk_factor, full.deepmask.optimiser) == (600_000, 1.0, "sgd")
    assert paper_steps(study.row("k8")) == 400_000
    with pytest.raises(ConfigError, match="no photos to train on"):
        data = Data("x", Path("x"), None, DATA.val)
        train_config(study.row("k8"), Options(data, Path("o")), steps=1, output=Path("o"), start=None)
