"""Torch7 file to safetensors file, with verification, as a function and as a command."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch7_files import ORACLE, dump, needs_oracle, oracle_files, tensor
from torch7_models import Tree, tiny_network, walk

from sharpmask.checkpoints import load_network, torch7_verify
from sharpmask.checkpoints.torch7_convert import convert_torch7
from sharpmask.checkpoints.torch7_import import import_torch7
from sharpmask.checkpoints.torch7_verify import verify_import
from sharpmask.errors import ConfigError, ModelError


@pytest.fixture(autouse=True)
def single_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@needs_oracle
@pytest.mark.parametrize("name", oracle_files("*/*mask.t7") + oracle_files("*/after*.t7"))
def test_oracle_files_are_converted_and_verified(name, tmp_path):
    report, errors = convert_torch7(ORACLE / name, tmp_path / "model.safetensors", verify=True)
    assert max(errors.values()) < 1e-5
    assert ("refined mask" in errors) == (report.class_name == "nn.SharpMask")
    network = load_network(tmp_path / "model.safetensors")
    assert network.spec == report.spec
    expected, _ = import_torch7(ORACLE / name)
    for key, value in expected.state_dict().items():
        assert torch.equal(network.state_dict()[key], value)


@pytest.mark.parametrize(
    "options", [{}, {"affine": "nn.SpatialBatchNormalization", "nested": False}, {"kind": "Half"}], ids=str
)
@pytest.mark.parametrize("refinement", [False, True], ids=["deepmask", "sharpmask"])
def test_variants_are_verified(options, refinement):
    data = dump(Tree(**options).root(tiny_network(refinement=refinement)))
    assert max(verify_import(data, import_torch7(data)[0]).values()) < 1e-4


def test_a_wrong_mapping_is_noticed():
    data = dump(Tree().root(tiny_network(refinement=True)))
    network, _ = import_torch7(data)
    verify_import(data, network)
    with torch.no_grad():
        network.refinement.vertical[2].conv1.bias[0] += 10
    with pytest.raises(ModelError, match="refined mask"):
        verify_import(data, network)


def test_modules_that_cannot_be_run_are_one_error():
    root = Tree().root(tiny_network(refinement=True))
    network, _ = import_torch7(dump(root))
    walk(
        root,
        lambda module: (
            module.fields.items.update(size=tensor(np.ones(3, np.float32))) if "View" in module.class_name else None
        ),
    )
    with pytest.raises(ModelError, match="cannot be run"):
        verify_import(dump(root), network)


def test_file_header_and_precision(tmp_path):
    source, output = tmp_path / "model.t7", tmp_path / "model.safetensors"
    source.write_bytes(dump(Tree().root(tiny_network(refinement=False), lr=0.5, dm="")))
    convert_torch7(source, output, name="mine")
    with safe_open(str(output), framework="pt") as file:
        header = file.metadata()
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float32}  # noqa: SIM118
    assert json.loads(header["torch7_config"]) == {"iSz": 32.0, "lr": 0.5, "dm": ""}
    assert "model.t7" in header["source"] and str(tmp_path) not in header["source"]
    assert load_network(output).spec.name == "mine"
    full = output.stat().st_size
    convert_torch7(source, output, half=True, verify=True)
    assert output.stat().st_size < full


def test_nothing_is_written_when_it_fails(tmp_path, monkeypatch):
    source, output = tmp_path / "model.t7", tmp_path / "model.safetensors"
    data = dump(Tree().root(tiny_network(refinement=False)))
    source.write_bytes(data[:-100])
    with pytest.raises(ModelError, match=r"model\.t7"):
        convert_torch7(source, output)
    with pytest.raises(ConfigError, match="safetensors"):
        convert_torch7(source, tmp_path / "model.pt")
    source.write_bytes(data)
    monkeypatch.setattr(torch7_verify, "TOLERANCE", -1.0)
    with pytest.raises(ModelError, match="differs"):
        convert_torch7(source, output, verify=True)
    assert list(tmp_path.iterdir()) == [source]


def test_command_with_other_files(tmp_path, capsys):
    from jsonargparse import ArgumentParser

    from sharpmask.cli import import_torch7 as command

    parser = ArgumentParser()
    command.add_arguments(parser)
    source, output = tmp_path / "model.pth", tmp_path / "model.safetensors"
    torch.save({"trunk.1.0.weight": torch.zeros(1)}, source)
    for options, error in (([], ModelError), (["--verify"], ConfigError)):
        with pytest.raises(error, match=r"model\.pth"):
            command.run(parser.parse_args([str(source), "--output", str(output), *options]))
    with pytest.raises(ModelError, match=r"nothing\.t7"):
        command.run(parser.parse_args([str(tmp_path / "nothing.t7"), "--output", str(output)]))
    assert not output.exists()


def test_command(tmp_path, capsys):
    from jsonargparse import ArgumentParser

    from sharpmask.cli import import_torch7 as command

    source, output = tmp_path / "model.t7", tmp_path / "model.safetensors"
    source.write_bytes(dump(Tree().root(tiny_network(refinement=True))))
    parser = ArgumentParser(description=command.__doc__)
    command.add_arguments(parser)
    assert command.run(parser.parse_args([str(source), "--output", str(output), "--verify"])) == 0
    text = capsys.readouterr().out
    assert "nn.SharpMask" in text and "iSz=32" in text and "refined mask" in text and str(output) in text
    assert load_network(output).spec.patch_size == 32
