"""One graph from an image to the best windows of all scales with their masks."""

import json
from dataclasses import dataclass
from typing import Any

import sharpmask
from sharpmask.errors import ConfigError
from sharpmask.export.builder import GraphBuilder
from sharpmask.export.network import DecodePart, DensePart, logit, prepared, skip_steps
from sharpmask.export.pyramid import add_level
from sharpmask.export.selection import add_windows, crop_skips, lay_cells, select
from sharpmask.export.trace import trace_decode, trace_dense
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.sharpmask import SharpMask

FORMAT = "sharpmask-pipeline-1"
DESCRIPTION = """\
Every object of a photo as a ranked mask. Input: image (H,W,3) uint8, RGB. Outputs, best first, N at most `top`:
scores (N,) probabilities; boxes (N,4) of the masks, xyxy in whole pixels of the image, zeros for an empty mask;
windows (N,4) xyxy in pixels of the image, continuous coordinates, may reach beyond the image; mask_logits (N,M,M), the
mask of the whole window, a pixel is set where the logit is above threshold_logit (see the metadata)."""


@dataclass(frozen=True)
class Settings:
    """What is fixed in an exported graph.

    Attributes:
        model: the name or file the network came from.
        scales: exponents of two.
        top: windows whose masks are computed, the best over all scales.
        threshold: probability above which a pixel belongs to the mask; used for the boxes.
    """

    model: str
    scales: tuple[float, ...]
    top: int = 1000
    threshold: float = 0.2

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ConfigError(f"top {self.top}: must be at least 1")
        if not 0 < self.threshold < 1:
            raise ConfigError(f"threshold {self.threshold:g}: must lie between 0 and 1, both excluded")


def build_pipeline(network: DeepMask | SharpMask, settings: Settings) -> Any:
    """The whole pipeline as an ONNX model for images of any size (see DESCRIPTION).

    The network is contained once, its dense run unrolled for each scale on shared weights.

    Raises:
        ConfigError: a kind of network that cannot be exported.
    """
    if network.spec.refinement == "multiscale":
        raise ConfigError(
            f"{settings.model}: the multiscale baseline cannot be exported; export a DeepMask or SharpMask"
        )
    network = prepared(network)
    spec, steps = network.spec, skip_steps(network)
    dense, decode = DensePart(network), DecodePart(network, settings.threshold)
    dense_model = trace_dense(dense)
    channels = [item.type.tensor_type.shape.dim[1].dim_value for item in dense_model.graph.output[2:]]
    crops = [(c, spec.grid_side * step) for c, step in zip(channels, steps, strict=True)]
    decode_model = trace_decode(decode, spec.encoding, crops)
    return assemble(dense_model, decode_model, network, settings)


def assemble(dense_model: Any, decode_model: Any, network: DeepMask | SharpMask, settings: Settings) -> Any:
    """The pipeline from its two translated parts."""
    from onnx import TensorProto, helper

    spec = network.spec
    b = GraphBuilder()
    image_size = (b.size("image", 0), b.size("image", 1))
    turned = b("Transpose", b("Cast", "image", to=TensorProto.FLOAT), perm=[1, 0, 2])
    levels = [add_level(b, turned, image_size, exponent, spec) for exponent in settings.scales]
    dense = [b.inline(dense_model, "dense", [level.images]) for level in levels]

    scores = lay_cells(b, [outputs[0] for outputs in dense], levels)
    chosen = select(b, b("Squeeze", scores, [1]), levels, settings.top)
    encodings = b("Gather", lay_cells(b, [outputs[1] for outputs in dense], levels), chosen.numbers, axis=0)
    crops = [
        crop_skips(b, [outputs[2 + skip] for outputs in dense], chosen, levels, step=step, spec=spec)
        for skip, step in enumerate(skip_steps(network))
    ]
    windows = add_windows(b, chosen, levels, image_size, spec)
    size = b("Cast", b.vector(*image_size), to=TensorProto.FLOAT)
    mask_logits, boxes = b.inline(decode_model, "decode", [windows, size, encodings, *crops])

    side = decode_model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["height", "width", 3])
    outputs = [
        (b("Sigmoid", chosen.logits), "scores", (TensorProto.FLOAT, ["N"])),
        (boxes, "boxes", (TensorProto.FLOAT, ["N", 4])),
        (windows, "windows", (TensorProto.FLOAT, ["N", 4])),
        (mask_logits, "mask_logits", (TensorProto.FLOAT, ["N", side, side])),
    ]
    return b.model("sharpmask", [image], outputs, metadata(network, settings), DESCRIPTION)


def metadata(network: DeepMask | SharpMask, settings: Settings) -> dict[str, str]:
    """Text for the file's header."""
    spec = network.spec
    return {
        "format": FORMAT,
        "model": settings.model,
        "architecture": spec.name,
        "scales": json.dumps(list(settings.scales)),
        "top": str(settings.top),
        "patch_size": str(spec.patch_size),
        "stride": str(spec.stride),
        "threshold": str(settings.threshold),
        "threshold_logit": str(logit(settings.threshold)),
        "version": sharpmask.__version__,
        "licence": spec.licence or "not stated",
    }
