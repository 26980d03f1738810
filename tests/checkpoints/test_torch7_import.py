"""The Torch7 importer: the numbers of the original program, every variant of its files, and refusal by name."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch7_files import ORACLE, dump, needs_oracle, oracle_files, tensor
from torch7_models import Tree, tiny_network, walk

from sharpmask.checkpoints.torch7_import import import_torch7
from sharpmask.checkpoints.torch7_values import LuaTable, TorchObject
from sharpmask.errors import ModelError
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.sharpmask import SharpMask

TOLERANCE = 1e-4  # of the largest absolute value


def relative_error(found: torch.Tensor, recorded: np.ndarray) -> float:
    assert tuple(found.shape) == recorded.shape
    return float(np.abs(found.detach().numpy() - recorded).max() / np.abs(recorded).max())


@pytest.fixture(autouse=True)
def single_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # these networks are too small for more
    yield
    torch.set_num_threads(before)


def as_image(network: DeepMask, normalised: np.ndarray) -> torch.Tensor:
    """The original normalises outside of the network, ours inside."""
    return torch.from_numpy(normalised) * network.std + network.mean


def enlarge(mask_logits: torch.Tensor, side: int) -> torch.Tensor:
    """The enlargement at the end of the original's mask branch."""
    return F.interpolate(mask_logits[:, None], (side, side), mode="bilinear", align_corners=True)[:, 0]


# ---- against the recordings of the original program


@needs_oracle
@pytest.mark.parametrize("folder", ["cuda", "legacy", "float"])
def test_deepmask_gives_the_recorded_numbers(folder):
    recorded = np.load(ORACLE / folder / "oracle.npz")
    network, report = import_torch7(ORACLE / folder / "deepmask.t7")
    assert isinstance(network, DeepMask) and report.class_name == "nn.DeepMask"
    assert (network.spec.patch_size, network.spec.context, network.spec.mask_side) == (64, 16, 20)
    with torch.no_grad():
        features = network.features(as_image(network, recorded["fwd/input"]))
        for stage, number in zip(features, ("03", "05", "06", "07"), strict=True):
            assert relative_error(stage, recorded[f"fwd/trunk_{number}"]) < TOLERANCE
        encoding = network.encode_patches(features)
        assert relative_error(encoding, recorded["fwd/trunk"]) < TOLERANCE
        output = network(as_image(network, recorded["fwd/input"]))
    assert relative_error(output.mask_logits.flatten(1), recorded["fwd/maskBranch_lowres"]) < TOLERANCE
    assert relative_error(enlarge(output.mask_logits, 48).flatten(1), recorded["fwd/maskBranch"]) < TOLERANCE
    assert relative_error(output.score_logits[:, None], recorded["fwd/scoreBranch"]) < TOLERANCE


@needs_oracle
@pytest.mark.parametrize("folder", ["cuda", "legacy", "float"])
def test_sharpmask_gives_the_recorded_numbers(folder):
    recorded = np.load(ORACLE / folder / "oracle.npz")
    network, report = import_torch7(ORACLE / folder / "sharpmask.t7")
    assert isinstance(network, SharpMask) and report.config["iSz"] == 64
    network.crop_first = True  # as the original does with patches
    images = as_image(network.deepmask, recorded["fwd_sharp/input"])
    skips: list[torch.Tensor] = []
    for net in network.refinement.horizontal:
        net.register_forward_hook(lambda module, inputs, output: skips.append(output))
    with torch.no_grad():
        encoding = network.deepmask.encode_patches(network.deepmask.features(images))
        coarse = network.deepmask.mask_head(encoding)
        output = network(images)
    assert relative_error(encoding, recorded["fwd_sharp/trunk"]) < TOLERANCE
    assert relative_error(coarse.flatten(1), recorded["fwd_sharp/maskBranchDM_lowres"]) < TOLERANCE
    assert relative_error(output.score_logits[:, None], recorded["fwd_sharp/scoreBranch"]) < TOLERANCE
    assert relative_error(output.mask_logits.flatten(1), recorded["fwd_sharp/output"]) < TOLERANCE
    for stage, skip in enumerate(skips, start=1):
        expected = recorded[f"fwd_sharp/neth{stage}"]
        if (
            folder == "float"
        ):  # here the sum of both nets was written over the horizontal net's output before it was recorded
            expected = expected - recorded[f"fwd_sharp/netv{stage}"]
        assert relative_error(skip, expected) < TOLERANCE


@needs_oracle
@pytest.mark.parametrize("name", oracle_files("*/*.t7"))
def test_every_oracle_file_is_imported(name):
    network, report = import_torch7(ORACLE / name)
    assert not network.training
    assert report.parameters == (55_741 if isinstance(network, DeepMask) else 80_733)
    assert report.values == report.parameters + (
        956 if "legacy" in name else 0
    )  # convolution biases before affine layers
    assert all(value.dtype == torch.float32 for value in network.state_dict().values())
    assert report.class_name in str(report) and "iSz=64" in str(report)


def assert_same_update(network: torch.nn.Module, after: torch.nn.Module, before: dict[str, torch.Tensor]) -> None:
    """Parameters within the tolerance, and so are their changes, but for the rounding of float32."""
    for name, value in after.state_dict().items():
        found = network.state_dict()[name]
        difference, change = (found - value).abs().max(), (value - before[name]).abs().max()
        assert difference <= TOLERANCE * value.abs().max(), name
        assert difference <= TOLERANCE * change + 2 * torch.finfo(torch.float32).eps * value.abs().max(), name


@needs_oracle
def test_deepmask_training_steps():
    recorded = np.load(ORACLE / "cuda" / "train_deepmask.npz")
    network, _ = import_torch7(ORACLE / "cuda" / "deepmask.t7")
    assert isinstance(network, DeepMask)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    parts = {
        "trunk": [*network.trunk.parameters(), *network.encoder.parameters()],
        "mask": [*network.mask_head.parameters()],
        "score": [*network.score_head.parameters()],
    }
    optimisers = {part: torch.optim.SGD(p, lr=2e-5, momentum=0.9, weight_decay=5e-4) for part, p in parts.items()}
    network.train()
    network.score_head.dropout.p = 0.0
    for step in range(1, 5):
        output = network(as_image(network, recorded[f"inputs_{step}"]))
        labels = torch.from_numpy(recorded[f"labels_{step}"])
        if step % 2:
            logits = enlarge(output.mask_logits, 48)
            loss = F.soft_margin_loss(logits, labels)
            (loss * len(labels)).backward()
        else:
            logits = output.score_logits[:, None]
            loss = F.soft_margin_loss(logits, labels)
            loss.backward()
        assert loss.item() == pytest.approx(recorded["losses"][step - 1], rel=TOLERANCE)
        assert relative_error(logits.flatten(1), recorded[f"outputs_{step}"]) < TOLERANCE
        for part in ("trunk", "mask" if step % 2 else "score"):
            optimisers[part].step()
        network.zero_grad(set_to_none=True)
    assert_same_update(network, import_torch7(ORACLE / "cuda" / "train_deepmask_after.t7")[0], before)


@needs_oracle
def test_sharpmask_training_steps():
    recorded = np.load(ORACLE / "cuda" / "train_sharpmask.npz")
    network, _ = import_torch7(ORACLE / "cuda" / "sharpmask.t7")
    assert isinstance(network, SharpMask)
    network.crop_first = True
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimiser = torch.optim.SGD(network.refinement.parameters(), lr=2e-5)
    for step in (1, 2):
        logits = network(as_image(network.deepmask, recorded[f"inputs_{step}"])).mask_logits
        loss = F.soft_margin_loss(logits, torch.from_numpy(recorded[f"labels_{step}"]))
        assert loss.item() == pytest.approx(recorded["losses"][step - 1], rel=TOLERANCE)
        assert relative_error(logits.flatten(1), recorded[f"outputs_{step}"]) < TOLERANCE
        optimiser.zero_grad()
        (loss * len(logits)).backward()
        optimiser.step()
    assert_same_update(network, import_torch7(ORACLE / "cuda" / "train_sharpmask_after.t7")[0], before)


# ---- variants, written by hand


@pytest.mark.parametrize("refinement", [False, True], ids=["deepmask", "sharpmask"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"package": "nn", "nested": False, "affine": "inn.ConstAffine"},
        {"affine": None, "shortcut": "conv"},
        {"affine": "nn.SpatialBatchNormalization"},
        {"affine": "cudnn.SpatialBatchNormalization", "nested": False, "shortcut": "sequential"},
        {"kind": "Cuda", "shortcut": "conv"},
        {"kind": "Double"},
        {"kind": "Half"},
        {"kind": "CudaHalf"},
    ],
    ids=str,
)
def test_variants_give_the_same_network(options, refinement):
    network = tiny_network(refinement=refinement)
    root = Tree(**options).root(network)
    found, report = import_torch7(dump(root), name="mine")
    assert found.spec.name == "mine" and report.spec is found.spec
    if refinement:
        assert found.spec == dataclasses.replace(network.spec, name="mine")
    if "Half" in options.get("kind", ""):
        network.load_state_dict({name: value.half().float() for name, value in network.state_dict().items()})
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for one, other in zip(network(images), found(images), strict=True):
            assert relative_error(other, one.numpy()) < TOLERANCE


@pytest.mark.parametrize("stride_on", ["1x1", "3x3"])
def test_place_of_the_stride_is_read(stride_on):
    network = tiny_network(refinement=False, stride_on=stride_on)
    found, _ = import_torch7(dump(Tree().root(network)))
    assert found.spec.stride_on == stride_on
    assert_equal_state(found, network)


def test_model_alone_and_in_ascii():
    network = tiny_network(refinement=True)
    model = Tree(kind="Double").root(network)["model"]
    found, report = import_torch7(dump(model, ascii_file=True))
    assert report.config == {} and report.class_name == "nn.SharpMask"
    torch.testing.assert_close(found.state_dict(), network.state_dict())


def assert_equal_state(one: torch.nn.Module, other: torch.nn.Module) -> None:
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name])


def test_weights_as_views_of_one_storage():
    network = tiny_network(refinement=True)
    root = Tree().root(network)
    weights = []
    walk(root, lambda module: weights.extend(v for k, v in module.fields.items.items() if k in ("weight", "bias")))
    flat = np.concatenate([np.zeros(7, np.float32), *(weight.storage.data for weight in weights)])
    storage, offset = type(weights[0].storage)("torch.FloatStorage", flat), 7
    for weight in weights:
        weight.offset, offset = offset, offset + weight.numel
        weight.storage = storage
    found, _ = import_torch7(dump(root))
    assert_equal_state(found, network)


# ---- what is refused


def _first(root: LuaTable, class_name: str) -> TorchObject:
    found: list[TorchObject] = []
    walk(root, lambda module: found.append(module) if module.class_name == class_name else None)
    return found[-1]


def _change(class_name: str, **fields):
    return lambda root: _first(root, class_name).fields.items.update(fields)


def _rename(class_name: str, other: str):
    def change(root):
        _first(root, class_name).class_name = other

    return change


def _drop(field: str):
    return lambda root: root["model"].fields.items.pop(field)


def _loop(root):
    container = root["model"].get("trunk")
    container.fields.items["modules"].items[1] = container


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_rename("cudnn.SpatialConvolution", "nn.SpatialDilatedConvolution"), r"trunk.*nn\.SpatialDilatedConvolution"),
        (_rename("nn.SpatialMaxPooling", "nn.SpatialAveragePooling"), r"trunk\.\d \(nn\.SpatialAveragePooling\)"),
        (_rename("nn.SpatialUpSamplingNearest", "nn.SpatialUpSamplingBilinear"), r"refs\[\d\].*Bilinear"),
        (_rename("nn.SharpMask", "nn.FastMask"), r"nn\.FastMask"),
        (_rename("cudnn.ReLU", "nn.PReLU"), r"nn\.PReLU"),
        (_change("nn.SpatialMaxPooling", ceil_mode=True), "pooling"),
        (_change("cudnn.SpatialConvolution", padW=1.0), "zero padding"),
        (_change("cudnn.SpatialConvolution", groups=2.0), "groups"),
        (_change("cudnn.SpatialConvolution", dW=3.0, dH=3.0), "stride"),
        (_change("cudnn.SpatialConvolution", kW=5.0), "kernel"),
        (_change("cudnn.SpatialConvolution", nOutputPlane=1.5), "whole number"),
        (_change("cudnn.SpatialConvolution", weight=None), "no tensor 'weight'"),
        (_change("cudnn.SpatialConvolution", weight=tensor(np.ones((2, 2), np.float32))), "weight of shape"),
        (_change("cudnn.SpatialConvolution", weight=tensor(np.ones((2, 2), "i4"), "Int")), "weights were expected"),
        (_change("nn.Linear", weight=tensor(np.full((1, 6), np.nan, np.float32))), "not finite"),
        (_change("nn.Linear", bias=tensor(np.zeros(3, np.float32))), "3 elements"),
        (_change("nn.SpatialConstDiagonal", a=None), "no tensor 'a'"),
        (_change("nn.SpatialSymmetricPadding", pad_l=2.0), "side to side"),
        (_change("nn.SpatialZeroPadding", pad_l=-3.0, pad_r=-3.0, pad_t=-3.0, pad_b=-3.0), "crop"),
        (_change("nn.Threshold", val=0.5), "only a ReLU"),
        (_change("nn.SpatialReSamplingEx", mode="simple"), "mode 'simple'"),
        (_drop("trunk"), "trunk: a module was expected"),
        (_drop("neths"), "no table 'neths'"),
        (_drop("scoreBranch"), "scoreBranch"),
        (lambda root: root["model"].get("skpos").items.update({1: 7.0}), "stride 16 are taken after trunk module 7"),
        (lambda root: root["model"].get("skpos").items.update({3: 6.0}), "stride 4 are taken after trunk module 6"),
        (lambda root: root["model"].get("skpos").items.update({3: None}), "2 skip features|trunk module"),
        (lambda root: root["model"].get("neths").items.update({1: root["model"].get("neths")[2]}), r"neths\[1\]"),
        (_loop, "without end"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_by_name(change, message):
    root = Tree().root(tiny_network(refinement=True))
    change(root)
    with pytest.raises(ModelError, match=message):
        import_torch7(dump(root))


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "other.t7"
    path.write_bytes(dump({"weights": tensor(np.ones(3, np.float32))}))
    with pytest.raises(ModelError, match=r"other\.t7.*nn\.DeepMask or nn\.SharpMask"):
        import_torch7(path)
    with pytest.raises(ModelError, match=r"class nn\.Linear"):
        import_torch7(dump(TorchObject("nn.Linear", 1)))


def test_overlapping_weights_are_refused():
    root = Tree().root(tiny_network(refinement=False))
    modules = []
    walk(root, lambda module: modules.append(module))
    weights = [module.get("weight") for module in modules if module.get("weight") is not None]
    largest = max(weights, key=lambda weight: weight.numel)
    for weight in weights:
        weight.storage, weight.offset = largest.storage, 0
    with pytest.raises(ModelError, match="overlap"):
        import_torch7(dump(root))


def test_sizes_that_do_not_fit_are_refused_before_memory_is_taken():
    """A first layer of 50,000 channels would ask for a network of terabytes."""
    root = Tree().root(tiny_network(refinement=False))
    walk(root, lambda module: module.fields.items.update(nOutputPlane=50_000.0) if module.get("kW") == 7 else None)
    walk(
        root,
        lambda m: (
            m.fields.items.update(weight=tensor(np.zeros((50_000, 3, 7, 7), np.float32))) if m.get("kW") == 7 else None
        ),
    )
    big = tensor(np.ones(50_000, np.float32))
    affine = root["model"].get("trunk").get("modules")[2]
    affine.fields.items.update(a=big, b=big)
    with pytest.raises(ModelError, match="fit the other layers"):
        import_torch7(dump(root))
