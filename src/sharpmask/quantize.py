"""Post-training quantization: measure the ranges of activations on photos, and what 8 bits cost in AR."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from sharpmask.benchmark.accuracy import METRICS, measure_recall
from sharpmask.checkpoints import load_network, save_network
from sharpmask.errors import DataError, SharpMaskError
from sharpmask.evaluation.inputs import read_annotations
from sharpmask.files import atomic_write
from sharpmask.images import find_images
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.sharpmask import SharpMask
from sharpmask.proposals.proposer import Proposer
from sharpmask.runtimes.choice import PACKAGES
from sharpmask.runtimes.dispatch import prepare
from sharpmask.runtimes.int8 import Calibration, watched
from sharpmask.runtimes.parts import Parts
from sharpmask.runtimes.torch_runtime import torch_prepared

LIMIT = 0.005  # of AR that a quantized model may lose
_WINDOWS = 200  # decoded in each photo: the masks' ranges are found in fewer than users decode


def quantize(
    model: str,
    images: str | Path,
    output: str | Path,
    *,
    annotations: str | Path | None = None,
    photos: int = 50,
    top: int = 1000,
    runtime: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Calibration:
    """Write a model file that also runs in int8: the weights as they are, and the ranges of activations as a note.

    Args:
        model: bundled model or .safetensors file.
        images: folder of photos like those that the model will see.
        output: file to write, .safetensors.
        annotations: COCO annotations of photos in that folder, to measure AR on; None leaves that out.
        photos: number of photos to measure the ranges on, spread over the folder.
        top: proposals an image for AR.
        runtime: in which int8 is measured, "openvino" or "onnx"; None takes the first that is installed.
        say: is told of the progress.

    Raises:
        SharpMaskError: an input cannot be read, a package is missing, or AR falls by more than `LIMIT`; then no file is
            written.
    """
    with atomic_write(output) as temporary:
        network = load_network(model)
        runtime = runtime or next((name for name in ("openvino", "onnx") if _installed(name)), "onnx")
        found = find_images([str(images)])
        if annotations is not None:
            read_annotations(annotations)  # says early what cannot be read
        chosen = found[:: max(1, len(found) // photos)][:photos]
        calibration = calibrate(network, chosen, say=say)
        network.int8 = calibration.to_json()
        quantized = prepare(network, runtime=runtime, precision="int8", device="cpu")
        if annotations is not None:
            change = _change(network, quantized, annotations, images, top, say)
            if change < -LIMIT:
                raise SharpMaskError(
                    f"{output} is not written: in int8 AR changes by {change:+.4f}, more than {LIMIT}; "
                    "take more photos, of the kind that the model will see"
                )
            calibration = replace(calibration, change=change)
        save_network(network, temporary, notes={"int8": calibration.to_json(), "quantized_from": str(model)})
    return calibration


def calibrate(
    network: DeepMask | SharpMask, photos: list[Path], *, say: Callable[[str], None] = lambda text: None
) -> Calibration:
    """The ranges of all activations while the objects of photos are looked for at the usual scales."""
    parts = Parts(network)
    proposer = Proposer(torch_prepared(parts, "fp32", torch.device("cpu")), top=_WINDOWS)
    with watched(parts) as ranges:
        for number, photo in enumerate(photos, start=1):
            proposer.propose(photo)
            say(f"ranges: photo {number} of {len(photos)}")
    return Calibration(ranges, len(photos))


def _installed(runtime: str) -> bool:
    from importlib.util import find_spec

    return all(map(find_spec, PACKAGES[runtime]))


def _change(
    network: DeepMask | SharpMask,
    quantized: object,
    annotations: str | Path,
    images: str | Path,
    top: int,
    say: Callable[[str], None],
) -> float:
    """The worst change of AR in int8."""
    reference = None
    for name, candidate in (("fp32", network), ("int8", quantized)):
        say(f"AR in {name}")
        reference = measure_recall(Proposer(candidate, top=top, device="cpu"), annotations, images, name, reference)
    if reference is None or reference.change is None or math.isnan(reference.change[METRICS[0]].value):
        raise DataError(f"{annotations}: has no objects to measure AR on")
    for metric in METRICS:
        say(f"{metric} changes by {reference.change[metric].value:+.4f}")
    return min(reference.change[metric].value for metric in METRICS)
