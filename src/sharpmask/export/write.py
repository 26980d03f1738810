"""A network as a file for ONNX Runtime or OpenVINO, kept only if it gives what PyTorch gives."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sharpmask.errors import ConfigError, SharpMaskError
from sharpmask.export.check import RUNNERS, Agreement, compare
from sharpmask.export.pipeline import Settings, build_pipeline
from sharpmask.export.trace import check_installed
from sharpmask.files import atomic_write
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.sharpmask import SharpMask

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}


def export(
    network: DeepMask | SharpMask,
    settings: Settings,
    target: str,
    output: Path,
    pictures: Mapping[str, np.ndarray],
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Agreement]:
    """Write the whole pipeline and compare it with PyTorch.

    Args:
        target: "onnx" or "openvino".
        output: the file, .onnx or .xml; OpenVINO's weights go beside it, under the same name with .bin.
        pictures: name -> (H,W,3) uint8 to compare on.
        say: told what is being done.

    Returns: how well they agree, by the pictures' names.

    Raises:
        MissingExtraError: a package is not installed.
        ConfigError: the file cannot be written there.
        SharpMaskError: the graph and PyTorch do not agree, or the runtime refuses the graph. No file is left then, or
            the one that was there before.
    """
    check_installed(target)
    if output.suffix != SUFFIXES[target]:
        raise ConfigError(f"{output}: the file for {target} must end in {SUFFIXES[target]}")
    with _files(output, target) as written:
        say("translating the network")
        model = build_pipeline(network, settings)
        _SAVERS[target](model, written)
        runner = RUNNERS[target](written)
        found = {}
        for name, pixels in pictures.items():
            found[name] = compare(runner, network, settings, pixels)
            say(f"{name}: {found[name]}")
        wrong = [name for name, agreement in found.items() if not agreement.good]
        if wrong:
            raise SharpMaskError(
                f"the exported graph does not agree with PyTorch on {', '.join(wrong)}; nothing was written"
            )
    return found


@contextmanager
def _files(output: Path, target: str) -> Iterator[Path]:
    """A temporary file whose content becomes `output` when the block succeeds, together with OpenVINO's second file."""
    if target == "onnx":
        with atomic_write(output) as temporary:
            yield temporary
        return
    with (
        atomic_write(output.with_suffix(".bin")) as weights,
        atomic_write(output) as graph,
        tempfile.TemporaryDirectory(prefix=".export.", dir=graph.parent) as folder,
    ):
        written = Path(folder) / "graph.xml"
        yield written
        shutil.copyfile(written, graph)
        shutil.copyfile(written.with_suffix(".bin"), weights)


def _save_onnx(model: Any, path: Path) -> None:
    import onnx

    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _save_openvino(model: Any, path: Path) -> None:
    import openvino

    try:
        converted = openvino.Core().read_model(model.SerializeToString())
    except Exception as error:  # its errors have no common class
        raise SharpMaskError(f"OpenVINO cannot read the exported graph: {str(error).splitlines()[0]}") from error
    for item in model.metadata_props:
        converted.set_rt_info(item.value, ["sharpmask", item.key])
    openvino.save_model(converted, str(path), compress_to_fp16=False)


_SAVERS: dict[str, Callable[[Any, Path], None]] = {"onnx": _save_onnx, "openvino": _save_openvino}
