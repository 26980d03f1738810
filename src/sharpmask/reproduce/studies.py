"""The paper's studies as lists of rows, one function each (SharpMask paper, section 5)."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from sharpmask.checkpoints import DEFAULT_MODEL
from sharpmask.errors import ConfigError, MissingExtraError
from sharpmask.evaluation.baselines import require_opencv
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.sharpmask import build_network
from sharpmask.networks.specs import get_spec
from sharpmask.proposals.proposer import pick_device
from sharpmask.reproduce.study import SELECTIVE_SEARCH, WIDTHS, Finding, Options, Row, Study

_MASKS = tuple(f"mask {name}" for name in ("AR@10", "AR@100", "AR@1000", "AUC", "AUC-S", "AUC-M", "AUC-L"))
_BOXES = ("box AR@10", "box AR@100", "box AR@1000")


def build_study(name: str, options: Options) -> Study:
    """The study of that name for what the user chose; raises ConfigError where an option is missing."""
    if options.base is None:
        options = replace(options, base="resnet50" if pick_device(options.device).type == "cuda" else "lite0")
    if options.caffe and name != "trunk" and options.base != "resnet50":
        raise ConfigError("--caffe has no meaning for the light trunk; it is for --base resnet50")
    builders: dict[str, Callable[[Options], Study]] = {
        "trunk": _trunk, "heads": _heads, "refinement": _refinement, "coco": _coco
    }  # fmt: skip
    return builders[name](options)


# Options that are not for every study: name -> studies, default.
_ONLY = {
    "base": (("heads", "refinement", "detection"), None),
    "model": (("refinement", "coco", "detection", "qualitative"), None),
    "deepmask": (("coco", "qualitative"), None),
    "trunk_weights": (("trunk", "heads", "refinement", "detection"), None),
    "vgg_weights": (("trunk",), None),
    "caffe": (("trunk", "heads", "refinement", "detection"), False),
    "schedule": (("trunk", "heads", "refinement"), "short"),
    "precision": (("trunk", "heads", "refinement"), None),
    "steps": (("trunk", "heads", "refinement", "detection"), None),
    "min_examples": (("detection",), 200),
    "images": (("qualitative",), ()),
    "licenses": (("qualitative",), ()),
    "count": (("qualitative",), None),
    "failures": (("qualitative",), None),
}


def check_options(name: str, options: Options) -> None:
    """Raise ConfigError for an option that the study does not have, and for a number that is too small."""
    for option, (studies, default) in _ONLY.items():
        if name not in studies and getattr(options, option) != default:
            flag = "--" + option.replace("_", "-")
            raise ConfigError(f"{flag} has no meaning for '{name}'; it is for: {', '.join(studies)}")
    if options.schedule == "paper" and options.steps is not None:
        raise ConfigError("--steps and --schedule paper exclude each other: the paper's schedule has its own steps")
    for option in ("minutes", "steps", "photos", "min_examples", "count"):
        value = getattr(options, option)
        if value is not None and not value > 0:
            raise ConfigError(f"--{option.replace('_', '-')} {value:g}: must be greater than 0")
    if options.failures is not None and options.failures < 0:
        raise ConfigError(f"--failures {options.failures}: must not be negative")


def _training(options: Options, frozen: str) -> str:
    """How rows are trained, in words."""
    if options.schedule == "paper":
        return "The released schedule (config `coco`): SGD, everything is trained."
    return (
        f"A short schedule: config `small-cpu` with AdamW, the learning rate falling to zero over the steps named "
        f"below, {frozen}" + (", in bf16" if options.precision == "bf16" else "") + "; no validation, the weights' "
        "running average at the last step is measured."
    )


def _spec_name(options: Options, stem: str, middle: str = "") -> str:
    """`deepmask-resnet50` and `head-a` -> `deepmask-resnet50-head-a`, with `-caffe` where the weights need it."""
    return "-".join(part for part in (stem, middle, "caffe" if options.caffe else "") if part)


def _window_inputs(model: str) -> int:
    """Inputs of the layer over a whole window, from which a DeepMask makes its encoding."""
    with torch.device("meta"):
        network = build_network(get_spec(model))
    assert isinstance(network, DeepMask)
    return network.encoder.encode.in_features


def _trunk(options: Options) -> Study:
    if options.trunk_weights is None and options.vgg_weights is None:
        raise ConfigError(
            "'trunk' needs ImageNet weights to start from: --trunk-weights FILE (ResNet-50, with --caffe if its stride "
            "is on the 1x1 convolutions), --vgg-weights FILE (VGG-A), or both"
        )
    missing = {
        "resnet": None if options.trunk_weights else "no ImageNet weights of ResNet-50 were given (--trunk-weights)",
        "vgg": None if options.vgg_weights else "no ImageNet weights of VGG-A were given (--vgg-weights)",
    }

    def row(name: str, label: str, model: str) -> Row:
        kind = "vgg" if "vgg" in name else "resnet"
        weights = options.vgg_weights if kind == "vgg" else options.trunk_weights
        model = model if kind == "vgg" else _spec_name(options, model)
        rate = min(1.0, _window_inputs("deepmask-resnet50") / _window_inputs(model))
        return Row(name, label, model, stage="deepmask", trunk_weights=weights, rate=rate, without=missing[kind])

    names = ("w160-p4-d39", "w160-p4-d39-f128", "w112-p4-d39", "w112-p3-d21", "w112-p3-d21-f128")
    rows = (
        row("deepmask-vgg", "DeepMask (W224, VGG-A)", "deepmask-vgg"),
        row("w160-p4-d8-vgg", "W160-P4-D8-VGG", "deepmask-w160-p4-d8-vgg"),
        *(row(name, name.upper(), "deepmask-resnet50" if name == names[1] else f"deepmask-{name}") for name in names),
    )
    bound = "upper bound"
    chosen = "w160-p4-d39-f128"
    return Study(
        name="trunk",
        title="Trunks",
        protocol=_training(options, "each row's trunk as ImageNet made it and frozen")
        + (
            " AdamW moves every weight by as much, so that a layer over a window of more numbers than F128's 12,800 "
            "needs a learning rate that is as much lower."
            if options.schedule == "short"
            else ""
        ),
        rows=rows,
        metrics=(bound, "mask AR@10", "mask AR@100", "mask AR@1000", "mask AUC"),
        findings=(
            Finding("ResNet (D39) is above VGG-A", "w160-p4-d39", "w160-p4-d8-vgg", "above", bound),
            Finding("as good as DeepMask's VGG-A at W224", chosen, "deepmask-vgg", "not below", bound),
            Finding("and faster than it", chosen, "deepmask-vgg", "faster", "mask time"),
            Finding("128 feature channels (F128) lose nothing", chosen, "w160-p4-d39", "equal", bound),
            Finding("W160 is above W112", "w160-p4-d39", "w112-p4-d39", "above", bound),
            Finding("W160 is above W112, cut at stride 8", "w160-p4-d39", "w112-p3-d21", "above", bound),
            Finding("the same with F128", chosen, "w112-p3-d21-f128", "above", bound),
            Finding("faster than VGG-A at the same size", chosen, "w160-p4-d8-vgg", "faster", "mask time"),
        ),
        time="mask time",
        upper_bound=True,
        notes=(
            "Upper bound: AR when the masks of all windows of all scales count and each object takes the best of them, "
            "so that neither the ranking nor a limit of proposals plays a part.",
            "Mask time: trunk and masks, without scores, as in the paper's table.",
            "Scales: 2^-2.5 … 2^0.5 for windows of 160 pixels, half an octave less for 112 and more for 224.",
        ),
    )


def _heads(options: Options) -> Study:
    weights, origin = options.trunk_weights, "as ImageNet made it"
    if weights is None:
        if options.base == "resnet50":
            raise ConfigError(
                "'heads' on ResNet-50 needs ImageNet weights: --trunk-weights FILE (with --caffe if its stride is on "
                "the 1x1 convolutions), or --base lite0, which takes the bundled model's trunk"
            )
        weights, origin = DEFAULT_MODEL, f"that of {DEFAULT_MODEL}, which was trained with head C"
    heads = {"original": "head-original", "A": "head-a", "B": "head-b", "C": ""}
    rows = tuple(
        Row(
            head,
            f"head {head}",
            _spec_name(options, f"deepmask-{options.base}", middle),
            stage="deepmask",
            trunk_weights=weights,
        )
        for head, middle in heads.items()
    )
    others = ("original", "A", "B")
    return Study(
        name="heads",
        title="Heads",
        protocol=_training(options, f"the same trunk in every row, {origin} and frozen"),
        rows=rows,
        metrics=_MASKS,
        findings=(
            *(Finding(f"C is as good as {other}", "C", other, "not below", "mask AUC") for other in others),
            *(Finding(f"C is faster than {other}", "C", other, "faster", "total time") for other in others),
        ),
        notes=("The paper's row of the original head is DeepMask as published, on VGG-A at W224.",),
    )


def _refinement(options: Options) -> Study:
    sharp = f"sharpmask-{options.base}"
    start: dict[str, str]
    if options.base == "lite0" or options.model is not None:
        if options.trunk_weights is not None:
            raise ConfigError("--trunk-weights has no meaning for 'refinement' where stage 1 is a trained model")
        start = {"start": options.model or "deepmask-lite0"}
        feed = Row("deepmask", "feed-forward (DeepMask)", start["start"], coarse=True)
        origin = f"All rows refine the same frozen DeepMask, that of `{Path(start['start']).name}`"
    elif options.trunk_weights is not None:
        start = {"start_row": "deepmask"}
        feed = Row(
            "deepmask",
            "feed-forward (DeepMask)",
            _spec_name(options, "deepmask-resnet50"),
            stage="deepmask",
            trunk_weights=options.trunk_weights,
            share=5.0,
        )
        origin = "All rows refine the same DeepMask, trained here first (five times their steps) and then frozen"
    else:
        raise ConfigError(
            "'refinement' on ResNet-50 needs a trained model (--model FILE) or ImageNet weights to train stage 1 from "
            "(--trunk-weights FILE, with --caffe if its stride is on the 1x1 convolutions)"
        )

    def row(name: str, label: str, middle: str, stem: str = sharp) -> Row:
        return Row(name, label, _spec_name(options, stem, middle), stage="sharpmask", **start)  # type: ignore[arg-type]

    halved = {k: "k32" if k == 32 else f"k{k}" for k in WIDTHS}
    constant = {k: f"k{k}-constant" for k in WIDTHS}
    auc = "mask AUC"
    return Study(
        name="refinement",
        title="Refinement",
        protocol=f"{origin}, so that they rank the same windows. "
        + _training(options, "only the refinement is trained"),
        rows=(
            feed,
            *(row(halved[k], f"(b) k = {k}, halved", "" if k == 32 else f"k{k}") for k in WIDTHS),
            *(row(constant[k], f"(a) k = {k}, constant", constant[k]) for k in WIDTHS),
            row("no-vertical", "without vertical convolutions", "no-vertical"),
            row("no-horizontal", "without horizontal convolutions", "no-horizontal"),
            row("multiscale", "multiscale baseline", "", f"multiscale-{options.base}"),
        ),
        metrics=_MASKS,
        findings=(
            *(
                Finding(
                    f"SharpMask is above DeepMask in {name.removeprefix('mask ')}", "k32", "deepmask", "above", name
                )
                for name in _MASKS[:4]
            ),
            Finding("halved widths (b) are as good as constant ones (a)", "k32", "k32-constant", "not below", auc),
            Finding("and faster", "k32", "k32-constant", "faster", "total time"),
            *(
                Finding(f"AUC grows with k: {b} after {a}, {kind}", names[b], names[a], "above", auc)
                for kind, names in (("halved", halved), ("constant", constant))
                for a, b in itertools.pairwise(WIDTHS)
            ),
            *(
                Finding(f"nothing is gained {part}: DeepMask is as good", "deepmask", row, "not below", auc)
                for row, part in (
                    ("no-vertical", "without vertical convolutions"),
                    ("no-horizontal", "without horizontal ones"),
                )
            ),
            Finding("the multiscale baseline is below SharpMask", "k32", "multiscale", "above", auc),
        ),
        notes=(
            "The paper's rows are SharpMask (k = 32, halved) and its DeepMask, each trained in full.",
            *(
                ["The DeepMask was trained for longer than the refinements here, which compare with one another."]
                if options.schedule == "short"
                else []
            ),
        ),
    )


def _coco(options: Options) -> Study:
    model = options.model or DEFAULT_MODEL
    coarse = {"model": options.deepmask or model, "coarse": True}
    missing = ""
    try:
        require_opencv()
    except MissingExtraError as error:
        missing = f"Selective Search is left out: {error}"
    found = [
        *(
            Finding(f"SharpMask is above DeepMask in {metric}", "sharpmask", "deepmask", "above", metric)
            for metric in (*_MASKS[:4], *_BOXES)
        ),
        Finding("DeepMask is faster than SharpMask", "deepmask", "sharpmask", "faster", "total time"),
        *(
            Finding(f"zoom raises SharpMask's {metric}", "sharpmask-zoom", "sharpmask", "above", metric)
            for metric in ("mask AR@100", "mask AR@1000", "mask AUC", "mask AUC-S", "box AR@1000")
        ),
        *(
            Finding(f"a second zoom raises {metric} further", "sharpmask-zoom2", "sharpmask-zoom", "above", metric)
            for metric in ("mask AR@100", "mask AR@1000", "mask AUC")
        ),
        Finding("zoom raises DeepMask's mask AR@1000", "deepmask-zoom", "deepmask", "above", "mask AR@1000"),
        *(
            Finding(f"DeepMask is above Selective Search in {metric}", "deepmask", SELECTIVE_SEARCH, "above", metric)
            for metric in _BOXES
            if not missing
        ),
    ]
    return Study(
        name="coco",
        title="Main table",
        protocol="Nothing is trained; the models are measured as they are: "
        f"`{Path(model).name}` and "
        + (f"for DeepMask `{Path(options.deepmask).name}`." if options.deepmask else "its DeepMask."),
        rows=(
            Row("deepmask", "DeepMask", **coarse),  # type: ignore[arg-type]
            Row("deepmask-zoom", "DeepMaskZoom", zoom=1, **coarse),  # type: ignore[arg-type]
            Row("sharpmask", "SharpMask", model),
            Row("sharpmask-zoom", "SharpMaskZoom", model, zoom=1),
            Row("sharpmask-zoom2", "SharpMaskZoom²", model, zoom=2),
            *([] if missing else [Row(SELECTIVE_SEARCH, "Selective Search", SELECTIVE_SEARCH)]),
        ),
        metrics=(*_BOXES, *_MASKS),
        findings=tuple(found),
        notes=(
            "The paper's DeepMask is its own W160-P4-D39-F128 (DeepMask-ours). Selective Search gives boxes only here "
            "(OpenCV, fast mode, large regions first); the paper measured its masks.",
            "The box figures of the paper's SharpMask and SharpMaskZoom are those of the authors' released models.",
            *([missing] if missing else []),
        ),
    )
