"""What is told about a sound, a bare and a broken installation."""

import importlib
import importlib.metadata
from pathlib import Path
from typing import Any

import pytest

from sharpmask import doctor
from sharpmask.checkpoints import save_network
from sharpmask.cli.main import main
from sharpmask.networks.sharpmask import build_network
from sharpmask.networks.specs import ModelSpec


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extras' slow imports."""
    monkeypatch.setattr(doctor, "EXTRAS", {"parquet": ("no-such-package", "no_such_module")})


def test_report(quick: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sharpmask.checkpoints.DEFAULT_MODEL", "none-of-these")
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for word in ("python", "torch", "cpu", "sharpmask[parquet]", "self-test"):
        assert word in text
    assert "not run: no weights are bundled for none-of-these" in text


def test_self_test_of_a_file(quick: None, tmp_path: Path, tiny_spec: ModelSpec, capsys: Any) -> None:
    path = tmp_path / "tiny.safetensors"
    save_network(build_network(tiny_spec), path)
    assert main(["doctor", "--model", str(path), "--device", "cpu"]) in (0, 1)
    assert "tiny.safetensors" in capsys.readouterr().out
    path.write_bytes(path.read_bytes()[:100])
    assert main(["doctor", "--model", str(path)]) == 1
    output = capsys.readouterr().out
    assert "BROKEN self-test" in output and "Traceback" not in output


def test_a_broken_extra_and_a_missing_core_package(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def fail(name: str, package: str | None = None) -> Any:
        if name == "tqdm":
            raise RuntimeError("undefined symbol: x")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", fail)
    findings = {finding.subject: finding for finding in doctor.examine()}
    assert findings["tqdm"].broken and "undefined symbol" in findings["tqdm"].text
    assert not findings["no-such-package"].broken
    assert findings["self-test"].text.startswith("not run")
