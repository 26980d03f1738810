"""The real proposer of a bulk run: a model, its options, and the cleaning of what it finds."""

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

import sharpmask
from sharpmask.errors import ModelError
from sharpmask.proposals.cleaning import Cleaning

if TYPE_CHECKING:
    from sharpmask.proposals.result import Proposals

# Arguments of `Proposer` that are no options, or change no result.
_NO_MATTER = ("network", "device", "feature_bytes", "decode_batch")


@dataclass(frozen=True)
class ModelFactory:
    """A `worker.ProposerFactory`.

    Attributes:
        model: a bundled model's name or a .safetensors file, which every machine that works must have.
        weights: hash of its weights; see `weights_hash`. Each process compares what it has loaded.
        settings: arguments of `Proposer`, without the device.
        cleaning: applied to each image's proposals.
        runtime: what computes, see `sharpmask.load`; "auto" is chosen by each machine for itself.
    """

    model: str
    weights: str
    settings: dict[str, Any] = field(default_factory=dict)
    cleaning: Cleaning = field(default_factory=Cleaning)
    runtime: str | None = None

    @classmethod
    def load(
        cls, model: str, settings: dict[str, Any], cleaning: Cleaning, runtime: str | None = None
    ) -> "ModelFactory":
        """Read the model once, and try the options on it.

        Raises:
            SharpMaskError: the model cannot be loaded, or an option is out of range.
        """
        from sharpmask.checkpoints import load_network
        from sharpmask.proposals.proposer import Proposer
        from sharpmask.runtimes import parse_runtime

        network = load_network(model)
        Proposer(network, **settings, device="cpu")
        if runtime not in (None, "eager", "auto"):
            parse_runtime(runtime)
        return cls(model, weights_hash(network), settings, cleaning, runtime)

    def describe(self) -> dict[str, Any]:
        """Every option with its value, given or not: a default that changes with a version is a change too."""
        from sharpmask.proposals.proposer import Proposer
        from sharpmask.runtimes import DEFAULT_RUNTIME

        parameters = inspect.signature(Proposer).parameters
        return {
            "sharpmask": sharpmask.__version__,
            "weights": self.weights,
            **{name: parameter.default for name, parameter in parameters.items() if name not in _NO_MATTER},
            **self.settings,
            "runtime": self.runtime or DEFAULT_RUNTIME,
            **{f"cleaning {name}": value for name, value in dataclasses.asdict(self.cleaning).items()},
        }

    def make(self, device: str | None) -> "Callable[[np.ndarray], Proposals]":
        from sharpmask.checkpoints import load_network
        from sharpmask.proposals.proposer import Proposer
        from sharpmask.runtimes import with_runtime

        network = load_network(self.model)
        if weights_hash(network) != self.weights:
            raise ModelError(f"{self.model}: its weights on this machine are not those on the machine of the driver")
        prepared = with_runtime(network, self.runtime, device, say=lambda text: None)
        proposer = Proposer(prepared, **self.settings, device=device)
        return lambda pixels: self.cleaning.apply(proposer.propose(pixels))


def weights_hash(network: Any) -> str:
    """SHA-256 of a network's architecture and weights, whatever file they came from."""
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(network.spec), sort_keys=True).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
