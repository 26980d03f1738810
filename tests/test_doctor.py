"""What is told about a sound, a bare and a broken installation."""

import importlib
import importlib.metadata
import importlib.util
import itertools
from pathlib import Path
from typing import Any

import pytest

from sharpmask import doctor
from sharpmask.checkpoints import load_network, save_network
from sharpmask.cli.main import main


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extras' and runtimes' slow imports."""
    needed = ["torch", "numpy", "tqdm"]
    monkeypatch.setattr(doctor, "requirements", lambda: (needed, {"parquet": ["no-such-package"]}))
    monkeypatch.setattr(doctor, "_runtimes", lambda: [])


def test_requirements_are_read_from_the_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        "torch>=2.6",
        "PyYAML>=6",
        "opencv-contrib-python-headless>=4.9; extra == 'baselines'",
        "fsspec[http]>=2024.6 ; extra == 'bulk'",
        'sharpmask[bulk] ; extra == "ray"',
        'ray[data]>=2.49 ; (python_version < "3.14") and extra == "ray"',
        "fsspec>=2024 ; extra == 'web'",
        "pytest>=8; extra == 'test'",
    ]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)
    assert doctor.requirements() == (
        ["torch", "PyYAML"],
        {"baselines": ["opencv-contrib-python-headless"], "bulk": ["fsspec"], "ray": ["ray"]},
    )


def test_every_distribution_of_this_package_is_found_by_its_module() -> None:
    """A name of a module that is not the distribution's has to be added to MODULES."""
    needed, optional = doctor.requirements()
    if not needed:
        pytest.skip("sharpmask is not installed as a package")
    for name in (*needed, *itertools.chain(*optional.values())):
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        module = doctor.MODULES.get(name.lower(), name.replace("-", "_").lower())
        assert importlib.util.find_spec(module.split(".")[0]), f"{name} has no module {module}"


def test_a_source_folder_without_metadata(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "requirements", lambda: ([], {}))
    findings = {finding.subject: finding for finding in doctor.examine()}
    assert "not known" in findings["packages"].text and not findings["packages"].broken
    assert "masks in" in findings["self-test"].text or "not run" in findings["self-test"].text


def test_runtimes_tell_what_they_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(doctor, "_onnxruntime_providers", lambda: ["AProvider", "BProvider"])

    def fail() -> list[str]:
        raise OSError("libopenvino.so: no such file")

    monkeypatch.setattr(doctor, "_openvino_devices", fail)
    torch, first, second = doctor._runtimes()
    assert torch.text.startswith("fp32")
    assert str(first).split() == ["runtime", "onnxruntime", "AProvider,", "BProvider"] and not first.broken
    assert second.broken and "libopenvino.so" in second.text


def test_report(quick: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sharpmask.checkpoints.DEFAULT_MODEL", "none-of-these")
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for word in ("python", "torch", "cpu", "sharpmask[parquet]", "self-test", "sharpmask-lite0", "detector-lite2"):
        assert word in text
    assert "not run: no weights are bundled for none-of-these" in text


def test_self_test_of_a_file(quick: None, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "tiny.safetensors"
    save_network(load_network("sharpmask-fast"), path)
    assert main(["doctor", "--model", str(path), "--device", "cpu"]) == 0
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
