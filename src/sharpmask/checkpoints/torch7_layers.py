"""Single layers of a Torch7 model as parameters of ours, their sizes and settings compared with what is understood."""

import math
from dataclasses import dataclass, field

import numpy as np

from sharpmask.checkpoints.torch7_modules import Leaf, Steps
from sharpmask.checkpoints.torch7_values import Storage, Tensor
from sharpmask.errors import ModelError

# Class names without their package (nn, cudnn, inn).
_CONVOLUTIONS = ("SpatialConvolution", "SpatialConvolutionMM")
_AFFINES = ("SpatialConstDiagonal", "ConstAffine", "SpatialBatchNormalization", "BatchNormalization")
_SYMMETRIC = ("SpatialSymmetricPadding", "SpatialReplicationPadding")
_RELUS = ("ReLU", "Threshold")


@dataclass
class LayerWalk:
    """Collects `state`, our network's parameters by name, layer by layer.

    Attributes:
        values: numbers that were read.
        storages: those that they lie in.
    """

    state: dict[str, np.ndarray] = field(default_factory=dict)
    values: int = 0
    storages: dict[int, Storage] = field(default_factory=dict)

    def elements_available(self) -> int:
        """Numbers in the storages that were used, plus the constants added here for layers without bias or affine."""
        read = sum(len(storage.data) for storage in self.storages.values())
        return read + sum(value.size for value in self.state.values() if value.ndim == 1)

    def convolution(
        self,
        steps: Steps,
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

    def affine(self, leaf: Leaf, channels: int) -> tuple[np.ndarray, np.ndarray]:
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
        self, steps: Steps, name: str, *, inputs: int | None = None, outputs: int | None = None
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

    def size(self, leaf: Leaf, what: str, found: int, expected: int | None) -> int:
        if found < 1 or (expected is not None and found != expected):
            raise leaf.error(f"{found} {what}, where {expected or 'some'} fit the other layers")
        return found

    def relu(self, steps: Steps) -> None:
        leaf = steps.take(_RELUS)
        threshold, value = leaf.module.get("threshold", 0.0), leaf.module.get("val", 0.0)
        if leaf.kind == "Threshold" and (threshold != 0 or not isinstance(value, float) or abs(value) > 1e-6):
            raise leaf.error(f"threshold {threshold!r} and value {value!r}; only a ReLU is understood")

    def padding(self, leaf: Leaf) -> int:
        """The padding, equal on all sides; negative for a crop."""
        sides = {leaf.number(f"pad_{side}") for side in "lrtb"}
        if len(sides) != 1:
            raise leaf.error("padding that differs from side to side")
        (size,) = sides
        if leaf.kind == "SpatialReplicationPadding" and size > 1:
            raise leaf.error(f"replication padding by {size} pixels is not symmetric padding")
        return size

    def vector(self, leaf: Leaf, name: str, length: int, default: float | None) -> np.ndarray:
        """One number a channel, whatever the tensor's shape; `default` for each where the field is absent or empty."""
        tensor = leaf.module.get(name)
        if default is not None and (tensor is None or (isinstance(tensor, Tensor) and not tensor.numel)):
            return np.full(length, default)
        values = self.tensor(leaf, name)
        if values.size != length:
            raise leaf.error(f"'{name}' has {values.size} elements, {length} were expected")
        return values.reshape(length).astype(np.float64)

    def tensor(self, leaf: Leaf, name: str) -> np.ndarray:
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


def side_of(cells: float, what: str) -> int:
    """The side of a square of so many cells; ModelError where it is none."""
    side = math.isqrt(int(cells))
    if side < 1 or side * side != cells:
        raise ModelError(f"{what} has {cells:g} cells, which are not a square")
    return side
