"""Completion as the shells themselves do it: the scripts are sourced in each shell that is installed."""

import shutil
import subprocess
from pathlib import Path

import pytest

from sharpmask.cli.main import COMMANDS, main


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the script of each shell, and two files to complete."""
    folder = tmp_path_factory.mktemp("completion")
    for shell in ("bash", "zsh", "fish"):
        with pytest.MonkeyPatch.context() as patch, open(folder / shell, "w") as out:
            patch.setattr("sys.stdout", out)
            assert main(["completion", shell]) == 0
    (folder / "photo.jpg").touch()
    (folder / "photos").mkdir()
    return folder


def run(folder: Path, *command: str) -> list[str]:
    shell = shutil.which(command[0])
    if shell is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run([shell, *command[1:]], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


# What bash does at the tab key: it cuts the line into words, at "=" too, and calls the function that was registered.
BASH = """
source ./bash
function=$(complete -p sharpmask | sed 's/.*-F \\([^ ]*\\).*/\\1/')
COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMPREPLY=()
compopt() { :; }
$function sharpmask "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
[ ${#COMPREPLY[@]} -eq 0 ] || printf '%s\\n' "${COMPREPLY[@]}"
"""

CASES = [
    ("sharpmask doc", {"doctor"}),
    ("sharpmask evaluate-", {"evaluate-detections", "evaluate-patches"}),
    ("sharpmask train-detector foreg", {"foreground="}),
    ("sharpmask propose --cont", {"--containment", "--containment-threshold"}),
    ("sharpmask propose photos --compat ", {"torch7"}),
    ("sharpmask propose --no-ov", {"--no-overlay"}),
    ("sharpmask train deepmask.bat", {"deepmask.batch_size=", "deepmask.batches="}),
    ("sharpmask train --resu", {"--resume"}),
    ("sharpmask load sharp", {"sharpmask-fair"}),
    ("sharpmask completion ", {"bash", "zsh", "fish"}),
]


@pytest.mark.parametrize(("line", "expected"), CASES)
def test_bash(scripts: Path, line: str, expected: set[str]) -> None:
    words = line.split(" ")
    assert set(run(scripts, "bash", "--norc", "-c", BASH, "bash", *words)) == expected


def test_bash_completes_values_after_an_equals_sign(scripts: Path) -> None:
    for words in (["deepmask.schedule", "=", "co"], ["--deepmask.schedule", "=", "co"]):
        assert run(scripts, "bash", "--norc", "-c", BASH, "bash", "sharpmask", "train", *words) == ["cosine"]
    words = ["sharpmask", "train", "deepmask.schedule", "="]
    assert run(scripts, "bash", "--norc", "-c", BASH, "bash", *words) == ["steps", "cosine"]


def test_bash_lists_all_commands_and_leaves_files_to_readline(scripts: Path) -> None:
    listed = run(scripts, "bash", "--norc", "-c", BASH, "bash", "sharpmask", "")
    assert listed == [*COMMANDS, "--help", "--version"]
    assert run(scripts, "bash", "--norc", "-c", BASH, "bash", "sharpmask", "propose", "pho") == []
    assert "-o default" in run(scripts, "bash", "--norc", "-c", "source ./bash; complete -p sharpmask")[0]


@pytest.mark.parametrize(("line", "expected"), CASES)
def test_fish(scripts: Path, line: str, expected: set[str]) -> None:
    found = run(scripts, "fish", "--no-config", "-c", 'source ./fish; complete -C "$argv"', line)
    assert {text.split("\t")[0] for text in found} == expected


def test_fish_tells_what_options_do(scripts: Path) -> None:
    found = run(scripts, "fish", "--no-config", "-c", "source ./fish; complete -C 'sharpmask train --resu'")
    assert found == ["--resume\tgo on from the last checkpoint in the output folder"]


def test_zsh_takes_the_script(scripts: Path) -> None:
    found = run(
        scripts, "zsh", "-f", "-c", "source ./zsh; print -r -- $_comps[sharpmask]; functions _sharpmask | head -1"
    )
    assert "_sharpmask" in found[0] and found[1].startswith("_sharpmask ()")


def test_unknown_shell(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["completion", "tcsh"])
    assert stop.value.code == 2
    assert "tcsh" in capsys.readouterr().err
