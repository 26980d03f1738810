"""sharpmask: every object in a photo as a ranked, class-agnostic mask (DeepMask and SharpMask in PyTorch)."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Proposals", "Proposer", "SharpMaskError", "__version__", "load"]

if TYPE_CHECKING:
    from sharpmask.proposals.proposer import Proposer
    from sharpmask.proposals.result import Proposals


def load(name_or_path: str | None = None, *, runtime: str | None = None, **options: Any) -> "Proposer":
    """A ready-to-use `Proposer`: `sharpmask.load().propose("photo.jpg", top=200)`.

    Args:
        name_or_path: a bundled model (default "sharpmask-lite0") or a .safetensors file made by `sharpmask train`.
        runtime: what computes: "torch" (the default), "onnx", "openvino", some with a precision such as
            ":bf16" or ":int8"; "auto" for the fastest that is installed; or "eager" for the network as it was trained
            (see docs/runtimes.md).
        options: defaults of the proposer: top, zoom, scales, threshold, nms, device, … (see `Proposer`).

    Raises:
        SharpMaskError: the model does not exist or cannot be read, or an option is out of range.
    """
    from sharpmask.checkpoints import DEFAULT_MODEL, load_network
    from sharpmask.proposals.proposer import Proposer
    from sharpmask.runtimes import with_runtime

    network = load_network(name_or_path or DEFAULT_MODEL)
    return Proposer(with_runtime(network, runtime, options.get("device")), **options)


def __getattr__(name: str) -> Any:
    """Import torch only when something that needs it is asked for: `sharpmask --help` stays quick."""
    if name == "Proposer":
        from sharpmask.proposals.proposer import Proposer

        return Proposer
    if name == "Proposals":
        from sharpmask.proposals.result import Proposals

        return Proposals
    if name == "SharpMaskError":
        from sharpmask.errors import SharpMaskError

        return SharpMaskError
    raise AttributeError(f"module 'sharpmask' has no attribute '{name}'")
