"""One step from a foreign model file to a weights file of this package."""

import json
from pathlib import Path

import torch

from sharpmask.checkpoints.state_dict_import import import_state_dict
from sharpmask.checkpoints.store import load_network, save_network
from sharpmask.checkpoints.torch7_import import ImportReport, import_torch7
from sharpmask.checkpoints.torch7_verify import verify_import
from sharpmask.errors import ConfigError, ModelError
from sharpmask.networks.layers import count_parameters


def convert_torch7(
    source: str | Path, output: str | Path, *, name: str | None = None, verify: bool = False, half: bool = False
) -> tuple[ImportReport, dict[str, float]]:
    """Import `source` and write it to `output`, which is not touched unless all went well.

    Args:
        source: the `.t7` file.
        output: the `.safetensors` file.
        name: name of the model's spec; see `import_torch7`.
        verify: run the original's modules on random patches and compare (see `verify_import`), and read the written
            file again.
        half: store 16-bit weights; the written file then differs from the import by the rounding.

    Returns:
        The report, and the relative differences that were found ({} without `verify`).

    Raises:
        ConfigError: `output` is no .safetensors path.
        ModelError: the file is damaged, not understood, or the verification failed.
    """
    _check_output(output)
    network, report = import_torch7(source, name=name)
    errors = verify_import(source, network) if verify else {}
    notes = {
        "source": f"Torch7 file {Path(source).name}, class {report.class_name}",
        "torch7_config": json.dumps(report.config),
    }
    save_network(network, output, notes=notes, dtype=torch.float16 if half else torch.float32)
    if verify:
        written = load_network(output).state_dict()
        for key, value in network.state_dict().items():
            expected = value.half().float() if half and value.ndim > 1 else value
            if not torch.equal(written[key], expected):
                raise ModelError(f"{output}: {key} does not hold what was written; check the disk and try again")
    return report, errors


def convert_state_dict(source: str | Path, output: str | Path, *, half: bool = False) -> str:
    """Import the state dict of a PyTorch re-implementation (see `import_state_dict`) and write it to `output`.

    Returns a line that says what was imported. Raises as `convert_torch7` does.
    """
    _check_output(output)
    network = import_state_dict(source)
    notes = {"source": f"PyTorch state dict {Path(source).name}"}
    save_network(network, output, notes=notes, dtype=torch.float16 if half else torch.float32)
    return (
        f"DeepMask of a PyTorch re-implementation, network of {count_parameters(network):,} parameters; "
        "near borders its numbers differ, as those programs mirror without the edge pixel"
    )


def is_state_dict(path: str | Path) -> bool:
    """Whether a file looks like torch.save's or safetensors' and not like Torch7's."""
    if Path(path).suffix == ".safetensors":
        return True
    try:
        with open(path, "rb") as file:
            return file.read(2)[:1] in (b"P", b"\x80")  # a zip archive, a pickle
    except OSError:
        return False  # the Torch7 reader tells what is wrong


def _check_output(output: str | Path) -> None:
    if Path(output).suffix != ".safetensors":
        raise ConfigError(f"{output}: give the output a name that ends in .safetensors")
