"""From a Torch7 file of the public DeepMask/SharpMask release to a network of this package with the same numbers.

The modules are walked in the order in which the original runs them, nested containers flattened, and every step must be
what our network does at that place; sizes are read from the tensors. What is not understood is refused by its path and
class. Frozen affine layers (SpatialConstDiagonal, ConstAffine, batch normalisation) and the biases of the convolutions
before them become the scale and shift of ours.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sharpmask.checkpoints.torch7 import read_torch7
from sharpmask.checkpoints.torch7_layers import LayerWalk, side_of
from sharpmask.checkpoints.torch7_modules import Steps, children_of, kind_of
from sharpmask.checkpoints.torch7_values import LuaTable, TorchObject
from sharpmask.errors import ModelError
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.layers import count_parameters
from sharpmask.networks.sharpmask import SharpMask, build_network
from sharpmask.networks.specs import ModelSpec
from sharpmask.networks.trunk import ResNetTrunk


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
        walk = _ModelWalk()
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
    if not isinstance(model, TorchObject) or kind_of(model) not in ("DeepMask", "SharpMask"):
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


def _plain(value: bool | float | str) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass
class _ModelWalk(LayerWalk):
    """Walks through a whole model, from container to container."""

    # stride -> trunk modules with the features of that stride
    positions: dict[int, range] = field(default_factory=dict)

    def model(self, model: TorchObject, name: str | None) -> ModelSpec:
        sharp = kind_of(model) == "SharpMask"
        prefix = "deepmask." if sharp else ""
        sizes = self.trunk(Steps(model.get("trunk"), "trunk"), prefix)
        grid = sizes["patch_size"] // 16
        mask_field = "maskBranchDM" if sharp else "maskBranch"
        mask_steps = Steps(model.get(mask_field), mask_field)
        sizes["mask_side"] = self.mask_branch(mask_steps, f"{prefix}mask_head.linear", sizes["encoding"])
        score = Steps(model.get("scoreBranch"), "scoreBranch")
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

    def trunk(self, steps: Steps, prefix: str) -> dict[str, Any]:
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
            "patch_size": 16 * side_of(inputs / features, "trunk: the encoding layer"),
            "context": -16 * crop,
            "features": features,
            "encoding": encoding,
        }

    def bottleneck(self, steps: Steps, name: str, channels: int, width: int, stride: int, *, project: bool) -> set[str]:
        """One residual block. Returns on which convolution its stride is, {} for stride 1."""
        branch = steps.take(("ConcatTable",))
        steps.take(("CAddTable",))
        self.relu(steps)
        children = children_of(branch.module, branch.path)
        if len(children) != 2:
            raise branch.error(f"{len(children)} branches, where two were expected")
        inner = Steps(children[0], f"{branch.path}.1")
        _, first = self.convolution(inner, f"{name}.conv1", 1, frozen=True, inputs=channels, outputs=width)
        self.relu(inner)
        _, second = self.convolution(inner, f"{name}.conv2", 3, frozen=True, inputs=width, outputs=width)
        self.relu(inner)
        _, third = self.convolution(inner, f"{name}.conv3", 1, frozen=True, inputs=width, outputs=4 * width)
        inner.end()
        strides = (first, second, third)
        if strides not in ((stride, 1, 1), (1, stride, 1)):
            raise branch.error(f"strides {strides}, where one of {stride} was expected")
        shortcut = Steps(children[1], f"{branch.path}.2")
        if project:
            _, found = self.convolution(
                shortcut, f"{name}.shortcut", 1, frozen=True, inputs=channels, outputs=4 * width
            )
            if found != stride:
                raise branch.error(f"a shortcut of stride {found} beside a branch of stride {stride}")
        shortcut.end()
        return set() if stride == 1 else {"1x1" if strides[0] == 2 else "3x3"}

    def mask_branch(self, steps: Steps, name: str, encoding: int) -> int:
        """A linear layer, then nothing or an enlargement, which this package leaves to whoever wants a larger mask."""
        side = side_of(self.linear(steps, name, inputs=encoding)[0], f"{steps.path}: the mask")
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
        start = Steps(tables["refs"].get(0), "refs[0]")
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
        steps = Steps(tables["refs"].get(stage + 1), path)
        pair = steps.take(("ParallelTable",))
        children = children_of(pair.module, pair.path)
        for key, place in (("neths", 0), ("netvs", 1)):
            if len(children) != 2 or tables[key].get(stage + 1) is not children[place]:
                raise pair.error(f"its branch {place + 1} is not the object {key}[{stage + 1}]")
        horizontal = Steps(children[0], f"{pair.path}.1")
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
        vertical = Steps(children[1], f"{pair.path}.2")
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
