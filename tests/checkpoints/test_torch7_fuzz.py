"""A short run of benchmarks/fuzz_torch7.py: altered files are read, or refused with a ModelError, and nothing else."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from torch7_files import ORACLE, dump, needs_oracle, tensor
from torch7_models import Tree, tiny_network

from sharpmask.checkpoints.torch7_values import LuaFunction, LuaTable, TorchObject

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "fuzz_torch7.py"


@pytest.fixture(scope="module")
def fuzzer():
    if not SCRIPT.is_file():
        pytest.skip(f"no {SCRIPT} in this installation")
    spec = importlib.util.spec_from_file_location("fuzz_torch7", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_altered_small_files(fuzzer):
    """Small enough to hit every byte, with an object of each kind."""
    linear = TorchObject("nn.Linear", 1, LuaTable({"weight": tensor(np.ones((2, 3), np.float32)), "train": True}))
    root = {
        1: linear,
        2: linear,
        "f": LuaFunction(0),
        "n": {"s": "text", 0.5: None},
        "b": tensor(np.arange(5, dtype="u1"), "Byte"),
    }
    result = fuzzer.fuzz({"small": dump(root)}, inputs=240, seed=0)
    assert not result.failures, str(result)


def test_altered_models(fuzzer):
    files = {
        "deepmask": dump(Tree().root(tiny_network(refinement=False))),
        "sharpmask": dump(Tree(kind="Cuda", nested=False).root(tiny_network(refinement=True))),
    }
    result = fuzzer.fuzz(files, inputs=60, seed=1)
    assert not result.failures, str(result)
    assert result.outcomes["refused by the reader (ModelError)"] > 25


@needs_oracle
def test_altered_oracle_files(fuzzer):
    files = {name: (ORACLE / name).read_bytes() for name in ("cuda/deepmask.t7", "legacy/sharpmask.t7")}
    result = fuzzer.fuzz(files, inputs=24, seed=2)
    assert not result.failures, str(result)


def test_the_fuzzer_notices_failures(fuzzer, monkeypatch):
    def crash(data):
        raise RecursionError("too deep")

    monkeypatch.setattr(fuzzer.torch7, "read_torch7", crash)
    assert "RecursionError" in str(fuzzer.attempt(b"", crash))
    assert fuzzer.fuzz({"x": dump({"a": 1.0})}, inputs=3, seed=0).outcomes["failure"] == 3
