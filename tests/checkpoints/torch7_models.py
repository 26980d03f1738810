"""For tests: networks of this package written as the module trees that the Torch7 release would have stored."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch7_files import tensor

from sharpmask.checkpoints.torch7_values import LuaTable, Storage, TorchObject
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.layers import FrozenAffineConv2d
from sharpmask.networks.sharpmask import SharpMask, build_network
from sharpmask.networks.specs import ModelSpec

TINY = {
    "trunk_width": 2, "patch_size": 32, "features": 3, "encoding": 5, "mask_side": 4, "score_hidden": 6,
    "refinement_width": 16, "horizontal_width": 4,
}  # fmt: skip


def tiny_network(*, refinement: bool, seed: int = 0, **changes: Any) -> DeepMask | SharpMask:
    """A network of a few thousand parameters, all of them random, the affine ones included."""
    torch.manual_seed(seed)
    network = build_network(ModelSpec(name="tiny", refinement="refactored" if refinement else None, **(TINY | changes)))
    for name, buffer in network.named_buffers():
        if name.endswith(("scale", "shift")):
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    return network.eval()


class Tree:
    """Turns networks into Torch7 objects.

    Args:
        package: of the classes of convolutions and ReLUs.
        kind: element type of the tensors.
        affine: class of the frozen layers, or None to fold them into convolutions with bias.
        nested: wrap padding and convolution in a Sequential of their own.
        shortcut: "conv", "sequential" or "affine": what a projection shortcut is ("affine" keeps its affine layer).
    """

    def __init__(
        self,
        *,
        package: str = "cudnn",
        kind: str = "Float",
        affine: str | None = "nn.SpatialConstDiagonal",
        nested: bool = True,
        shortcut: str = "affine",
    ) -> None:
        self.package, self.kind, self.affine, self.nested, self.shortcut = package, kind, affine, nested, shortcut

    def module(self, name: str, **fields: Any) -> TorchObject:
        return TorchObject(name, 1, LuaTable({"output": self.tensor(np.zeros(0)), "train": False, **fields}))

    def tensor(self, values: Any) -> Any:
        array = values.detach().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
        return tensor(
            array.astype({"Half": "<f2", "CudaHalf": "<f2", "Double": "<f8"}.get(self.kind, "<f4")), self.kind
        )

    def sequence(self, *modules: Any, name: str = "nn.Sequential") -> TorchObject:
        return self.module(name, modules=LuaTable(dict(enumerate(modules, start=1))))

    def padding(self, size: int, name: str = "nn.SpatialSymmetricPadding") -> TorchObject:
        return self.module(name, **{f"pad_{side}": float(size) for side in "lrtb"})

    def relu(self) -> TorchObject:
        return self.module(f"{self.package}.ReLU", inplace=True)

    def linear(self, layer: torch.nn.Linear) -> TorchObject:
        return self.module("nn.Linear", weight=self.tensor(layer.weight), bias=self.tensor(layer.bias))

    def convolution(self, layer: Any, *, flat: bool = False) -> list[TorchObject]:
        size, stride = layer.kernel_size[0], layer.stride[0]
        weight, bias = layer.weight.detach(), layer.bias
        after = []
        if isinstance(layer, FrozenAffineConv2d):
            if self.affine is None or flat:
                weight, bias = weight * layer.scale[:, None, None, None], layer.shift
            elif "Batch" in self.affine:
                n = layer.out_channels
                mean, variance = torch.rand(n), torch.rand(n) + 0.5
                gamma = layer.scale * torch.sqrt(variance + 1e-3)
                after = [
                    self.module(
                        self.affine, running_mean=self.tensor(mean), running_var=self.tensor(variance), eps=1e-3,
                        weight=self.tensor(gamma), bias=self.tensor(layer.shift + mean * layer.scale),
                    )
                ]  # fmt: skip
            else:
                shape = (1, layer.out_channels, 1, 1)
                after = [
                    self.module(
                        self.affine, a=self.tensor(layer.scale.view(shape)), b=self.tensor(layer.shift.view(shape))
                    )
                ]
        fields = {
            "nOutputPlane": layer.out_channels, "nInputPlane": layer.in_channels, "kW": size, "kH": size,
            "dW": stride, "dH": stride, "padW": 0, "padH": 0,
        }  # fmt: skip
        core = self.module(f"{self.package}.SpatialConvolution", weight=self.tensor(weight), **fields)
        if bias is not None:
            core.fields.items["bias"] = self.tensor(bias)
        modules = [self.padding(size // 2), core] if size > 1 else [core]
        return [*([self.sequence(*modules)] if self.nested and len(modules) > 1 else modules), *after]

    def block(self, block: Any) -> TorchObject:
        inner = [*self.convolution(block.conv1), self.relu(), *self.convolution(block.conv2), self.relu()]
        branch = self.sequence(*inner, *self.convolution(block.conv3))
        if block.shortcut is None:
            shortcut = self.module("nn.Identity")
        else:
            modules = self.convolution(block.shortcut, flat=self.shortcut != "affine")
            shortcut = modules[0] if self.shortcut == "conv" else self.sequence(*modules)
        both = self.sequence(branch, shortcut, name="nn.ConcatTable")
        return self.sequence(both, self.module("nn.CAddTable", inplace=True), self.relu())

    def trunk(self, deepmask: DeepMask) -> TorchObject:
        trunk = deepmask.trunk
        stages = [self.sequence(*map(self.block, stage)) for stage in (trunk.layer1, trunk.layer2, trunk.layer3)]
        pool = self.module("nn.SpatialMaxPooling", kW=3, kH=3, dW=2, dH=2, padW=1, padH=1, ceil_mode=False)
        return self.sequence(
            *self.convolution(trunk.conv1), self.relu(), pool, *stages,
            self.padding(-1, "nn.SpatialZeroPadding"), *self.convolution(deepmask.encoder.reduce), self.relu(),
            self.module("nn.View"), self.linear(deepmask.encoder.encode),
        )  # fmt: skip

    def deepmask(self, deepmask: DeepMask) -> dict[str, TorchObject]:
        score = deepmask.score_head
        threshold = self.module("nn.Threshold", threshold=0.0, val=1e-6)
        enlarge = self.sequence(
            self.module("nn.Copy"), self.module("nn.View"), self.module("nn.SpatialReSamplingEx", mode="bilinear"),
            self.module("nn.View"), self.module("nn.Copy"),
        )  # fmt: skip
        return {
            "trunk": self.trunk(deepmask),
            "maskBranch": self.sequence(self.sequence(self.linear(deepmask.mask_head.linear)), enlarge),
            "scoreBranch": self.sequence(
                self.module("nn.Dropout"),
                self.linear(score.hidden),
                threshold,
                self.module("nn.Dropout"),
                self.linear(score.score),
            ),
        }

    def refinement(self, network: SharpMask) -> dict[str, LuaTable]:
        net = network.refinement
        size = Storage("torch.LongStorage", np.array([-1, net.k, net.grid_side, net.grid_side]))
        refs = {0: self.sequence(self.linear(net.start), self.module("nn.View", size=size))}
        neths, netvs = {}, {}
        for stage, (h, v) in enumerate(zip(net.horizontal, net.vertical, strict=True), start=1):
            crop = [self.padding(-(2 ** (stage - 1)), "nn.SpatialZeroPadding")] if stage > 1 else []
            first, second = self.convolution(h.conv1), self.convolution(h.conv2)
            neths[stage] = self.sequence(*crop, *first, self.relu(), *second, self.relu(), *self.convolution(h.merge))
            netvs[stage] = self.sequence(*self.convolution(v.conv1), self.relu(), *self.convolution(v.merge))
            pair = self.sequence(neths[stage], netvs[stage], name="nn.ParallelTable")
            double = self.module("nn.SpatialUpSamplingNearest", scale_factor=2)
            last = [*self.convolution(net.output), self.module("nn.View")] if stage == 4 else []
            refs[stage] = self.sequence(pair, self.module("nn.CAddTable"), self.relu(), double, *last)
        netvs[0] = refs[0]
        relu = len(self.convolution(network.deepmask.trunk.conv1)) + 1  # the number of the trunk's first ReLU
        skpos = LuaTable(dict(enumerate((relu + 5.0, relu + 3.0, relu + 2.0, float(relu)), start=1)))
        return {"refs": LuaTable(refs), "neths": LuaTable(neths), "netvs": LuaTable(netvs), "skpos": skpos}

    def root(self, network: DeepMask | SharpMask, **config: Any) -> LuaTable:
        """{model =, config =} as the training program saves it."""
        if isinstance(network, SharpMask):
            fields: dict[str, Any] = self.deepmask(network.deepmask) | self.refinement(network)
            fields["maskBranchDM"] = fields.pop("maskBranch")
            model = TorchObject("nn.SharpMask", 1, LuaTable(fields))
        else:
            model = TorchObject("nn.DeepMask", 1, LuaTable(dict(self.deepmask(network))))
        return LuaTable({"model": model, "config": LuaTable({"iSz": 32.0, **config})})


def walk(root: Any, visit: Callable[[TorchObject], None]) -> None:
    """Call `visit` on every torch object below `root` once."""
    seen: set[int] = set()
    stack = [root]
    while stack:
        value = stack.pop()
        if id(value) in seen or not isinstance(value, LuaTable | TorchObject):
            continue
        seen.add(id(value))
        if isinstance(value, TorchObject):
            visit(value)
            stack.append(value.fields)
        else:
            stack.extend(value.items.values())
