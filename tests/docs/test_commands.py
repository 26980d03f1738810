"""Every command and Python block of the documentation runs, page by page, or is parsed where it takes too long."""

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import docs_server as server
import pytest
from docs_inputs import prepare
from docs_pages import ROOT, Block, blocks, commands_in, inline_commands, inputs, pages
from docs_shell import Shell

from sharpmask.cli.main import COMMANDS, build_parser
from sharpmask.formats import FORMATS

# What looks like a command within the text and is none: the name and version of a file format.
FORMAT_MARK = re.compile(r"sharpmask [a-z ]+ \d+")
PAGES = [page.relative_to(ROOT).as_posix() for page in pages()]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    tools = tmp_path_factory.mktemp("tools")
    socket = tools / "socket"
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, server.__file__, "--serve", str(socket)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Shell.open(tools, socket)
        process.terminate()


@pytest.mark.parametrize("page", PAGES)
def test_page(page: str, shell: Shell, tmp_path: Path) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    parsed = tmp_path / "parsed"
    (parsed / "benchmarks").mkdir(parents=True)
    for script in (ROOT / "benchmarks").glob("*.sh"):
        (parsed / "benchmarks" / script.name).write_text("#!/bin/bash\n")
        (parsed / "benchmarks" / script.name).chmod(0o755)
    run = tmp_path / "run"
    run.mkdir()
    for name in inputs(text):
        prepare(name, run)
    for block in blocks(text, page):
        shell.run(block, parsed if block.parse_only else run)


@pytest.mark.parametrize("page", PAGES)
def test_commands_within_the_text(page: str) -> None:
    """What a sentence mentions need not be complete, but commands and options have to exist."""
    for line in inline_commands((ROOT / page).read_text(encoding="utf-8")):
        command, *words = line.split()[1:]
        if command.isupper() or FORMAT_MARK.fullmatch(line):
            continue  # such as `sharpmask COMMAND --help`
        assert command in COMMANDS, line
        known = {flag for action in build_parser(command)._actions for flag in action.option_strings}
        module = importlib.import_module(f"sharpmask.cli.{COMMANDS[command][0]}")
        if hasattr(module, "rewrite"):
            words = module.rewrite(words)
        for word in words:
            if word.startswith("--"):
                assert word.split("=")[0] in known, line


def test_every_format_is_told() -> None:
    page = (ROOT / "docs/annotate.md").read_text(encoding="utf-8")
    assert [name for name in FORMATS if not re.search(rf"(?<![\w-]){name}(?![\w-])", page)] == []


@pytest.mark.parametrize(
    "text",
    [
        "sharpmask propose photos/ --no-such-option 3 --output out",
        "true && sharpmask evaluate a.json",
        "sharpmask segment photos/",
        "sharpmask train --config small-cpu annotations=a images=b output=c deepmask.stepps=3",
        "torchrun --nproc-per-node 2 -m sharpmask.cli.main train annotations=a images=b output=c deepmask.batches=none",
        "for model in a b; do sharpmask propose x --modell $model --output $model; done",
        "python benchmarks/absent.py",
        "python benchmarks/models.py --no-such-option",
        "false || exit 0\nsharpmask doctor",
    ],
)
def test_wrong_commands_are_found_without_running_them(text: str, shell: Shell, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"exit status|commands were reached"):
        shell.run(Block("here:1", "bash", text, parse_only="a test"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_right_commands_are_parsed_and_nothing_else_is_run(shell: Shell, tmp_path: Path) -> None:
    text = """
        python3 -m venv .venv && . .venv/bin/activate && pip install sharpmask && touch here
        steps="deepmask.steps=3"   # sharpmask is not called in a comment
        CUDA_VISIBLE_DEVICES=0 sharpmask train --config small-cpu annotations=a images=b output=c $steps \\
          sharpmask.steps=0
        for model in a b; do sharpmask propose x --model $model --output out/$model; done
        torchrun --nproc-per-node 2 -m sharpmask.cli.main train annotations=a images=b output=c
        python benchmarks/overfit.py --annotations a.json
    """
    assert commands_in(text) == 3
    shell.run(Block("here:1", "bash", text, parse_only="a test"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_failing_blocks_fail(shell: Shell, tmp_path: Path) -> None:
    for language, text in (
        ("bash", "sharpmask check none.json --images ."),
        ("bash", "sharpmask propose . --output out | cat"),
        ("python", "import sharpmask\nsharpmask.load('none')"),
        ("python", "raise SystemExit(3)"),
    ):
        with pytest.raises(AssertionError, match=r"exit status [1-9]"):
            shell.run(Block("here:1", language, text), tmp_path)


def test_markers() -> None:
    page = """<!-- test: inputs photos sample -->
<!-- test: replace "100" with "2" -->
```bash
run 100
```
- indented

  <!-- test: parse only: hours -->
  ```bash
  a
    b
  ```
"""
    assert inputs(page) == ["photos", "sample"]
    first, second = blocks(page)
    assert (first.text, first.parse_only, first.place) == ("run 2\n", None, "page:3")
    assert (second.text, second.parse_only) == ("a\n  b\n", "hours")
    for wrong in (
        page.replace("run 100", "run"),
        page + "<!-- test: replace x -->\n",
        "<!-- test: parse only: x -->\ntext\n",
    ):
        with pytest.raises(ValueError, match="marker"):
            list(blocks(wrong))
