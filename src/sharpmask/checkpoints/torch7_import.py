"""From a Torch7 file of the public DeepMask/SharpMask release to a network of this package with the same numbers.

The modules are walked in the order in which the original runs them, nested containers flattened, and every step must be
what our network does at that place; sizes are read from the tensors. What is not understood is refused by its path and
class. Frozen affine layers (SpatialConstDiagonal, ConstAffine, batch normalisation) and the biases of the convolutions
before them become the scale and shift of ours.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sharpmask.checkpoints.torch7 import LuaTable, Storage, Tensor, TorchObject, read_torch7
from sharpmask.errors import ModelError
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.layers import count_parameters
from sharpmask.networks.sharpmask import SharpMask, build_network
from sharpmask.networks.specs import ModelSpec
from sharpmask.networks.trunk import ResNetTrunk

MAX_MODULES = 10_000  # of one flattened container; a damaged file can make a container hold itself

# Class names without their package (nn, cudnn, inn).
_CONVOLUTIONS = ("SpatialConvolution", "SpatialConvolutionMM")
_AFFINES = ("SpatialConstDiagonal", "ConstAffine", "SpatialBatchNormalization", "BatchNormalization")
_SYMMETRIC = ("SpatialSymmetricPadding", "SpatialReplicationPadding")
_RELUS = ("ReLU", "Threshold")
_TRANSPARENT = ("Identity", "Copy", "Dropout")  # nothing happens here at inference


@dataclass(frozen=True)
class ImportReport:
    """What was imported.

    Attributes:
        class_name: the model's class in the file.
        config: the training options stored beside the model, plain values only; empty if there are none.
        spec: the architecture that was found.
        values: numbers taken from the file.
        parameters: parameters of the resulting network, frozen affine pairs included.
    """

    class_name: str
    config: dict[str, bool | float | str]
    spec: ModelSpec
    values: int
    parameters: int

    def __str__(self) -> str:
        spec = self.spec
        sizes = f"window {spec.patch_size} + {2 * spec.context} pixels, mask {spec.mask_side}x{spec.mask_side}"
        if spec.refinement:
            sizes += f", refined to {spec.patch_size}x{spec.patch_size} with k = {spec.refinement_width}"
        options = ", ".join(f"{key}={_plain(value)}" for key, value in sorted(self.config.items())) or "none stored"
        return (
            f"class {self.class_name}: ResNet-50 trunk of width {spec.trunk_width}, {sizes}\n"
            f"{self.values:,} numbers read, network of {self.parameters:,} parameters\n"
            f"training options: {options}"
        )


def import_torch7(source: str | Path | bytes, *, name: str | None = None) -> tuple[DeepMask | SharpMask, ImportReport]:
    """Read a DeepMask or SharpMask of the Torch7 release, alone or in a table {model =, config =}.

    Args:
        source: path or bytes of the `.t7` file.
        name: name of the resulting spec; by default "deepmask-torch7" or "sharpmask-torch7".

    Returns:
        The network in eval mode, float32 on the CPU, and a report.

    Raises:
        ModelError: the file is damaged, or holds something that is not understood; the message names it.
    """
    label = "Torch7 data" if isinstance(source, bytes) else str(source)
    root = read_torch7(source)
    try:
        model, config = _find_model(root)
        walk = _Walk()
        spec = walk.model(model, name)
        network = _build(spec, walk.state, walk.elements_available())
    except ModelError as error:
        raise ModelError(f"{label}: {error}") from None
    report = ImportReport(model.class_name, config, spec, walk.values, count_parameters(network))
    return network, report


def _find_model(root: Any) -> tuple[TorchObject, dict[str, bool | float | str]]:
    model, config = root, None
    if isinstance(root, LuaTable):
        model, config = root.get("model"), root.get("config")
    if not isinstance(model, TorchObject) or _kind(model) not in ("DeepMask", "SharpMask"):
        found = f"class {model.class_name}" if isinstance(model, TorchObject) else f"a {type(root).__name__}"
        raise ModelError(f"holds {found} instead of nn.DeepMask or nn.SharpMask, alone or as 'model' of a table")
    options = config.items if isinstance(config, LuaTable) else {}
    return model, {k: v for k, v in options.items() if isinstance(k, str) and isinstance(v, bool | float | str)}


def _build(spec: ModelSpec, state: dict[str, np.ndarray], available: int) -> DeepMask | SharpMask:
    """The network with this state. The walk has compared all sizes, so it takes as much memory as the state does."""
    if sum(value.size for value in state.values()) > available:
        raise ModelError("several layers use the same numbers; weights of a trained model do not overlap")
    network = build_network(spec)
    network.load_state_dict({key: torch.from_numpy(np.array(value, np.float32)) for key, value in state.items()})
    return network.eval()


def _kind(module: TorchObject) -> str:
    return module.class_name.rpartition(".")[2]


def _plain(value: bool | float | str) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass
class _Leaf:
    """One module that is no Sequential, and where it was found."""

    path: str
    module: TorchObject

    @property
    def kind(self) -> str:
        return _kind(self.module)

    def number(self, name: str, default: float | None = None) -> int:
        value = self.module.get(name, default)
        if not isinstance(value, float | int) or not float(value).is_integer():
            raise self.error(f"field '{name}' is {value!r}, a whole number was expected")
        return int(value)

    def error(self, problem: str) -> ModelError:
        return ModelError(f"{self.path} ({self.module.class_name}): {problem}")


class _Steps:
    """The leaves of a container in running order, and how far they were understood."""

    def __init__(self, container: Any, path: str) -> None:
        self.path = path
        self.leaves: list[_Leaf] = []
        self._flatten(container, path, 0)
        self.next = 0

    def _flatten(self, module: Any, path: str, depth: int) -> None:
        if not isinstance(module, TorchObject):
            raise ModelError(f"{path}: a module was expected, found {type(module).__name__}")
        if _kind(module) in _TRANSPARENT:
            return
        if _kind(module) != "Sequential":
            self.leaves.append(_Leaf(path, module))
            return
        if depth > 50 or len(self.leaves) > MAX_MODULES:
            raise ModelError(f"{path}: containers nested without end")
        for number, child in enumerate(_children(module, path), start=1):
            self._flatten(child, f"{path}.{number}", depth + 1)

    def kind(self) -> str | None:
        """Class of the next leaf, None at the end."""
        return self.leaves[self.next].kind if self.next < len(self.leaves) else None

    def take(self, kinds: Collection[str]) -> _Leaf:
        """The next leaf, which must be of one of these classes."""
        if self.next == len(self.leaves):
            raise ModelError(f"{self.path}: ends where {' or '.join(kinds)} was expected")
        leaf = self.leaves[self.next]
        if leaf.kind not in kinds:
            raise leaf.error(f"not understood at this place, where {' or '.join(kinds)} was expected")
        self.next += 1
        return leaf

    def position(self) -> range:
        """Which of the container's own modules, counted from 1, give the output of what was taken so far, if any."""
        own = [int(leaf.path[len(self.path) + 1 :].partition(".")[0] or 0) for leaf in self.leaves]
        after = own[self.next] if self.next < len(own) else own[-1] + 1
        return range(own[self.next - 1], after)

    def end(self) -> None:
        if self.next < len(self.leaves):
            raise self.leaves[self.next].error("not understood: nothing was expected after the modules before it")


def _children(module: TorchObject, path: str) -> list[Any]:
    modules = module.get("modules")
    if not isinstance(modules, LuaTable) or len(modules.sequence()) != len(modules):
        raise ModelError(f"{path} ({module.class_name}): has no list of modules")
    return modules.sequence()


@dataclass
class _Walk:
    """Collects `state`, our network's parameters by name, while it walks through a model."""

    state: dict[str, np.ndarray] = field(default_factory=dict)
    values: int = 0
    storages: dict[int, Storage] = field(default_factory=dict)
    positions: dict[int, range] = field(
        default_factory=dict
    )  # stride -> trunk modules with the features of that stride

    def elements_available(self) -> int:
        """Numbers in the storages that were used, plus the constants added here for layers without bias or affine."""
        read = sum(len(storage.data) for storage in self.storages.values())
        return read + sum(value.size for value in self.state.values() if value.ndim == 1)

    # ---- whole models

    def model(self, model: TorchObject, name: str | None) -> ModelSpec:
        sharp = _kind(model) == "SharpMask"
        prefix = "deepmask." if sharp else ""
        sizes = self.trunk(_Steps(model.get("trunk"), "trunk"), prefix)
        grid = sizes["patch_size"] // 16
        mask_field = "maskBranchDM" if sharp else "maskBranch"
        mask_steps = _Steps(model.get(mask_field), mask_field)
        sizes["mask_side"] = self.mask_branch(mask_steps, f"{prefix}mask_head.linear", sizes["encoding"])
        score = _Steps(model.get("scoreBranch"), "scoreBranch")
        sizes["score_hidden"] = self.linear(score, f"{prefix}score_head.hidden", inputs=sizes["encoding"])[0]
        self.relu(score)
        self.linear(score, f"{prefix}score_head.score", inputs=sizes["score_hidden"], outputs=1)
        score.end()
        if sharp:
            sizes |= self.refinement(model, grid, sizes)
        return ModelSpec(
            name=name or ("sharpmask-torch7" if sharp else "deepmask-torch7"),
            refinement="refactored" if sharp else None,
            **sizes,
        )

    def trunk(self, steps: _Steps, prefix: str) -> dict[str, Any]:
        width, stride = self.convolution(steps, f"{prefix}trunk.conv1", 7, frozen=True, inputs=3)
        if stride != 2:
            raise ModelError(f"trunk: the first convolution has stride {stride} instead of 2")
        self.relu(steps)
        self.positions[2] = steps.position()
        pool = steps.take(("SpatialMaxPooling",))
        shape = [pool.number(key, 0) for key in ("kW", "kH", "dW", "dH", "padW", "padH")]
        if shape != [3, 3, 2, 2, 1, 1] or pool.module.get("ceil_mode"):
            raise pool.error(f"only 3x3 pooling of stride 2 and padding 1, rounded down, is understood, not {shape}")
        strides_on: set[str] = set()
        channels = width
        for stage, blocks in enumerate(ResNetTrunk.blocks, start=1):
            for block in range(blocks):
                stride = 2 if stage > 1 and block == 0 else 1
                name, inner = f"{prefix}trunk.layer{stage}.{block}", width * 2 ** (stage - 1)
                strides_on |= self.bottleneck(steps, name, channels, inner, stride, project=block == 0)
                channels = 4 * inner
            self.positions[2 ** (stage + 1)] = steps.position()
        if len(strides_on) > 1:
            raise ModelError("trunk: some blocks have their stride on the 1x1 and some on the 3x3 convolution")
        crop = self.padding(steps.take(("SpatialZeroPadding",)))
        self.positions[16] = steps.position()
        if crop >= 0:
            raise ModelError(f"trunk: a crop of the context was expected after the last stage, not padding by {crop}")
        features, _ = self.convolution(steps, f"{prefix}encoder.reduce", 1, frozen=False, inputs=channels)
        self.relu(steps)
        steps.take(("View", "Reshape"))
        encoding, inputs = self.linear(steps, f"{prefix}encoder.encode")
        steps.end()
        return {
            "trunk_width": width,
            "stride_on": strides_on.pop(),
            "patch_size": 16 * _side(inputs / features, "trunk: the encoding layer"),
            "context": -16 * crop,
            "features": features,
            "encoding": encoding,
        }

    def bottleneck(
        self, steps: _Steps, name: str, channels: int, width: int, stride: int, *, project: bool
    ) -> set[str]:
        """One residual block. Returns on which convolution its stride is, {} for stride 1."""
        branch = steps.take(("ConcatTable",))
        steps.take(("CAddTable",))
        self.relu(steps)
        children = _children(branch.module, branch.path)
        if len(children) != 2:
            raise branch.error(f"{len(children)} branches, where two were expected")
        inner = _Steps(children[0], f"{branch.path}.1")
        _, first = self.convolution(inner, f"{name}.conv1", 1, frozen=True, inputs=channels, outputs=width)
        self.relu(inner)
        _, second = self.convolution(inner, f"{name}.conv2", 3, frozen=True, inputs=width, outputs=width)
        self.relu(inner)
        _, third = self.convolution(inner, f"{name}.conv3", 1, frozen=True, inputs=width, outputs=4 * width)
        inner.end()
        strides = (first, second, third)
        if strides not in ((stride, 1, 1), (1, stride, 1)):
            raise branch.error(f"strides {strides}, where one of {stride} was expected")
        shortcut = _Steps(children[1], f"{branch.path}.2")
        if project:
            _, found = self.convolution(
                shortcut, f"{name}.shortcut", 1, frozen=True, inputs=channels, outputs=4 * width
            )
            if found != stride:
                raise branch.error(f"a shortcut of stride {found} beside a branch of stride {stride}")
        shortcut.end()
        return set() if stride == 1 else {"1x1" if strides[0] == 2 else "3x3"}

    def mask_branch(self, steps: _Steps, name: str, encoding: int) -> int:
        """A linear layer, then nothing or an enlargement, which this package leaves to whoever wants a larger mask."""
        side = _side(self.linear(steps, name, inputs=encoding)[0], f"{steps.path}: the mask")
        while steps.kind() is not None:
            leaf = steps.take(("View", "Reshape", "SpatialReSamplingEx", "SpatialReSampling"))
            if leaf.kind.startswith("SpatialReSampling") and leaf.module.get("mode", "bilinear") != "bilinear":
                raise leaf.error(f"enlargement of mode {leaf.module.get('mode')!r}")
        return side

    def refinement(self, model: TorchObject, grid: int, sizes: dict[str, Any]) -> dict[str, Any]:
        """The five entries of `refs`: the first mask encoding and four modules."""
        tables = {}
        for key in ("refs", "neths", "netvs", "skpos"):
            tables[key] = model.get(key)
            if not isinstance(tables[key], LuaTable):
                raise ModelError(f"{model.class_name} has no table '{key}'")
        places = tables["skpos"].sequence()
        for stride, place in zip((16, 8, 4, 2), places, strict=False):
            if place not in self.positions[stride]:
                raise ModelError(
                    f"the skip features of stride {stride} are taken after trunk module {place}, which has others"
                )
        if len(places) != 4:
            raise ModelError(f"{len(places)} skip features; four are understood")
        start = _Steps(tables["refs"].get(0), "refs[0]")
        cells = self.linear(start, "refinement.start", inputs=sizes["encoding"])[0]
        k, rest = divmod(cells, grid**2)
        if rest or k % 16 or k < 16:
            raise ModelError(f"refs[0] gives {cells} numbers, not a multiple of 16 for each of {grid}x{grid} cells")
        start.take(("View", "Reshape"))
        start.end()
        width: int | None = None
        for stage, times in enumerate((16, 8, 4, 1)):
            channels, inner = times * sizes["trunk_width"], width if stage < 3 or width is None else width // 2
            inner = self.refinement_module(tables, stage, sizes["context"], channels, inner, k // 2**stage)
            width = width or inner
        return {"refinement_width": k, "horizontal_width": width, "upsampling": "nearest"}

    def refinement_module(
        self, tables: dict[str, LuaTable], stage: int, context: int, channels: int, inner: int | None, k: int
    ) -> int:
        """One refinement module. Returns the outputs of the horizontal net's first convolution, `inner` if given."""
        path = f"refs[{stage + 1}]"
        steps = _Steps(tables["refs"].get(stage + 1), path)
        pair = steps.take(("ParallelTable",))
        children = _children(pair.module, pair.path)
        for key, place in (("neths", 0), ("netvs", 1)):
            if len(children) != 2 or tables[key].get(stage + 1) is not children[place]:
                raise pair.error(f"its branch {place + 1} is not the object {key}[{stage + 1}]")
        horizontal = _Steps(children[0], f"{pair.path}.1")
        # the coarsest features were cropped in the trunk already
        crop = context // 2 ** (4 - stage) if stage > 0 else 0
        found = (
            -self.padding(horizontal.take(("SpatialZeroPadding",))) if horizontal.kind() == "SpatialZeroPadding" else 0
        )
        if found != crop:
            raise pair.error(f"the horizontal net crops {found} pixels, {crop} were expected")
        name = f"refinement.horizontal.{stage}"
        inner, _ = self.convolution(horizontal, f"{name}.conv1", 3, frozen=False, inputs=channels, outputs=inner)
        self.relu(horizontal)
        self.convolution(horizontal, f"{name}.conv2", 3, frozen=False, inputs=inner, outputs=k)
        self.relu(horizontal)
        self.convolution(horizontal, f"{name}.merge", 3, frozen=False, inputs=k, outputs=k // 2)
        horizontal.end()
        vertical = _Steps(children[1], f"{pair.path}.2")
        self.convolution(vertical, f"refinement.vertical.{stage}.conv1", 3, frozen=False, inputs=k, outputs=k)
        self.relu(vertical)
        self.convolution(vertical, f"refinement.vertical.{stage}.merge", 3, frozen=False, inputs=k, outputs=k // 2)
        vertical.end()
        steps.take(("CAddTable",))
        self.relu(steps)
        enlarge = steps.take(("SpatialUpSamplingNearest",))
        if enlarge.number("scale_factor") != 2:
            raise enlarge.error(f"enlargement by {enlarge.number('scale_factor')}, 2 was expected")
        if stage == 3:
            self.convolution(steps, "refinement.output", 3, frozen=False, inputs=k // 2, outputs=1)
            if steps.kind() is not None:
                steps.take(("View", "Reshape"))
        steps.end()
        return inner

    # ---- single layers

    def convolution(
        self,
        steps: _Steps,
        name: str,
        kernel: int,
        *,
        frozen: bool,
        inputs: int | None = None,
        outputs: int | None = None,
    ) -> tuple[int, int]:
        """Symmetric padding, a convolution and, for a frozen one, the affine layer after it, if there is one.

        Returns (outputs, stride); `inputs` and `outputs` are what they must be, where that is known.
        """
        padding = self.padding(steps.take(_SYMMETRIC)) if steps.kind() in _SYMMETRIC else 0
        leaf = steps.take(_CONVOLUTIONS)
        sizes = [leaf.number(key) for key in ("kW", "kH", "dW", "dH")]
        inputs = self.size(leaf, "inputs", leaf.number("nInputPlane"), inputs)
        outputs = self.size(leaf, "outputs", leaf.number("nOutputPlane"), outputs)
        if sizes[0] != kernel or sizes[1] != kernel or sizes[2] != sizes[3]:
            raise leaf.error(
                f"a kernel of {sizes[0]}x{sizes[1]} and stride {sizes[2]}x{sizes[3]}, {kernel}x{kernel} was expected"
            )
        if leaf.number("groups", 1) != 1:
            raise leaf.error("convolution in groups")
        if leaf.number("padW", 0) or leaf.number("padH", 0):
            raise leaf.error("zero padding; symmetric padding was expected")
        if padding != kernel // 2:
            raise leaf.error(f"symmetric padding by {padding} pixels before it, {kernel // 2} was expected")
        weight = self.tensor(leaf, "weight")
        if weight.size != outputs * inputs * kernel * kernel:
            raise leaf.error(f"a weight of shape {weight.shape} for {inputs} to {outputs} channels")
        self.state[f"{name}.weight"] = weight.reshape(outputs, inputs, kernel, kernel)
        bias = self.vector(leaf, "bias", outputs, 0.0)
        if frozen:
            scale, shift = np.ones(outputs), np.zeros(outputs)
            if steps.kind() in _AFFINES:
                scale, shift = self.affine(steps.take(_AFFINES), outputs)
            self.state[f"{name}.scale"], self.state[f"{name}.shift"] = scale, shift + scale * bias
        else:
            self.state[f"{name}.bias"] = bias
        return outputs, sizes[2]

    def affine(self, leaf: _Leaf, channels: int) -> tuple[np.ndarray, np.ndarray]:
        """Scale and shift (C,) of a frozen affine layer, or of a batch normalisation at inference."""
        if "BatchNormalization" not in leaf.kind:
            return self.vector(leaf, "a", channels, None), self.vector(leaf, "b", channels, None)
        mean = self.vector(leaf, "running_mean", channels, None)
        if isinstance(leaf.module.get("running_var"), Tensor):
            eps = leaf.module.get("eps", 1e-5)
            variance = self.vector(leaf, "running_var", channels, None)
            if not isinstance(eps, float) or not eps >= 0 or not (variance + eps > 0).all():
                raise leaf.error("a variance that is not positive")
            inverse = 1 / np.sqrt(variance + eps)
        else:  # old files hold the inverse standard deviation under this name
            inverse = self.vector(leaf, "running_std", channels, None)
        scale = inverse * self.vector(leaf, "weight", channels, 1.0)
        return scale, self.vector(leaf, "bias", channels, 0.0) - mean * scale

    def linear(
        self, steps: _Steps, name: str, *, inputs: int | None = None, outputs: int | None = None
    ) -> tuple[int, int]:
        """A linear layer. Returns (outputs, inputs); the arguments say what they must be, where that is known."""
        leaf = steps.take(("Linear",))
        weight = self.tensor(leaf, "weight")
        if weight.ndim != 2:
            raise leaf.error(f"a weight of shape {weight.shape}")
        self.size(leaf, "outputs", weight.shape[0], outputs)
        self.size(leaf, "inputs", weight.shape[1], inputs)
        self.state[f"{name}.weight"] = weight
        self.state[f"{name}.bias"] = self.vector(leaf, "bias", len(weight), 0.0)
        return weight.shape[0], weight.shape[1]

    def size(self, leaf: _Leaf, what: str, found: int, expected: int | None) -> int:
        if found < 1 or (expected is not None and found != expected):
            raise leaf.error(f"{found} {what}, where {expected or 'some'} fit the other layers")
        return found

    def relu(self, steps: _Steps) -> None:
        leaf = steps.take(_RELUS)
        threshold, value = leaf.module.get("threshold", 0.0), leaf.module.get("val", 0.0)
        if leaf.kind == "Threshold" and (threshold != 0 or not isinstance(value, float) or abs(value) > 1e-6):
            raise leaf.error(f"threshold {threshold!r} and value {value!r}; only a ReLU is understood")

    def padding(self, leaf: _Leaf) -> int:
        """The padding, equal on all sides; negative for a crop."""
        sides = {leaf.number(f"pad_{side}") for side in "lrtb"}
        if len(sides) != 1:
            raise leaf.error("padding that differs from side to side")
        (size,) = sides
        if leaf.kind == "SpatialReplicationPadding" and size > 1:
            raise leaf.error(f"replication padding by {size} pixels is not symmetric padding")
        return size

    def vector(self, leaf: _Leaf, name: str, length: int, default: float | None) -> np.ndarray:
        """One number a channel, whatever the tensor's shape; `default` for each where the field is absent or empty."""
        tensor = leaf.module.get(name)
        if default is not None and (tensor is None or (isinstance(tensor, Tensor) and not tensor.numel)):
            return np.full(length, default)
        values = self.tensor(leaf, name)
        if values.size != length:
            raise leaf.error(f"'{name}' has {values.size} elements, {length} were expected")
        return values.reshape(length).astype(np.float64)

    def tensor(self, leaf: _Leaf, name: str) -> np.ndarray:
        tensor = leaf.module.get(name)
        if not isinstance(tensor, Tensor):
            raise leaf.error(f"has no tensor '{name}'")
        values = tensor.array()
        if values.dtype.kind != "f" or not values.size:
            raise leaf.error(
                f"'{name}' is {'empty' if not values.size else 'a ' + tensor.class_name}, weights were expected"
            )
        if not np.isfinite(values).all():
            raise leaf.error(f"'{name}' holds numbers that are not finite")
        assert tensor.storage is not None
        self.storages[id(tensor.storage)] = tensor.storage
        self.values += values.size
        return values


def _side(cells: float, what: str) -> int:
    side = math.isqrt(int(cells))
    if side < 1 or side * side != cells:
        raise ModelError(f"{what} has {cells:g} cells, which are not a square")
    return side
