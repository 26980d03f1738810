"""The command itself: help, version, unknown commands, errors without tracebacks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sharpmask
from sharpmask.cli.main import COMMANDS, main


def test_usage_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)
    assert main([]) == 2


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sharpmask {sharpmask.__version__}\n"


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment"]) == 2
    assert "no command 'segment'" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"sharpmask {command}" in capsys.readouterr().out


def test_train_takes_fields_and_shipped_configs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fields = [f"annotations={tmp_path}/none.json", "images=x", f"output={tmp_path}/out", "deepmask.steps=7"]
    assert main(["train", "--config", "small-cpu", *fields]) == 1
    assert "none.json" in capsys.readouterr().err
    assert main(["train", "--config=unheard-of", *fields]) == 2
    message = capsys.readouterr().err
    assert "shipped configs are: " in message and "small-cpu" in message


def test_train_refuses_unknown_and_impossible_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fields = ["annotations=a", "images=x", f"output={tmp_path}/out"]
    with pytest.raises(SystemExit) as stop:
        main(["train", *fields, "deepmask.stepps=7"])
    assert stop.value.code == 2
    assert "stepps" in capsys.readouterr().err
    assert main(["train", *fields, "deepmask.batches=mask"]) == 2
    assert "deepmask.batches must be" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["propose", "", "--output", "o"], "inputs: an empty value"),
        (["propose", "a.jpg", "--output", " "], "output: an empty value"),
        (["propose", "a.jpg", "--output", "o", "--annotations", ""], "annotations: an empty value"),
        (["propose", "a.jpg", "--output", "o", "--min-area", ".nan"], "min-area nan: must be a finite number"),
        (["propose", "a.jpg", "--output", "o", "--max-area", ".inf"], "max-area inf: must be a finite number"),
        (["train", "annotations=", "images=x", "output=o"], "annotations: an empty value"),
        (["train", "annotations=a", "images=x", "output=o", "cache_gigabytes=.inf"], "cache-gigabytes inf: must be"),
        (["train", "annotations=a", "images=x", "output=o", "deepmask.shift=.nan"], "deepmask.shift nan: must be"),
        (["train", "annotations=a", "images=x", "output=o", "seed=-1"], "seed"),
        (["train", "annotations=a", "images=x", "output=o", "measure_photos=-1"], "measure_photos"),
        (["train", "annotations=a", "images=x", "output=o", "validation_patches=0"], "validation_patches"),
        (["train-detector", "annotations=a", "images=x", "output=o", "box_weight=.nan"], "box-weight nan: must be"),
    ],
)
def test_values_that_mean_nothing_are_refused(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1 and not any(tmp_path.iterdir())


def test_a_config_that_is_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_bytes("output: für".encode("latin-1"))
    assert main(["train", "--config", str(tmp_path / "c.yaml"), "annotations=a", "images=b", "output=c"]) == 2
    assert "cannot be read as text in UTF-8" in capsys.readouterr().err


def test_a_reader_that_has_gone(tmp_path: Path) -> None:
    """`sharpmask … | true`: no traceback, and files are there."""
    code = "import sys; from sharpmask.cli.main import main; sys.exit(main(sys.argv[1:]))"
    annotations = '{"images": [{"id": 1}], "annotations": [], "categories": []}'
    (tmp_path / "a.json").write_text(annotations)
    (tmp_path / "p.json").write_text("[]")
    arguments = ["evaluate", "p.json", "--annotations", "a.json", "--json", "t.json"]
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr
    assert (tmp_path / "t.json").read_text().startswith("{")


def test_bench_refuses_a_size_without_pixels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jpg").touch()
    assert main(["bench", str(tmp_path / "a.jpg"), "--size", "0", "5"]) == 2
    assert "size 0 5: height" in capsys.readouterr().err


def test_help_does_not_import_torch() -> None:
    code = "import sys, sharpmask.cli.main as m; m.main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0
