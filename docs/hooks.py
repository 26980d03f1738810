"""What MkDocs cannot do by itself: the help of every command as a page, and links that lead out of this folder.

Pages are written so that they read well where the repository is browsed. There a link such as ../README.md works; in
the site it has to lead elsewhere.
"""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
# The README is not part of the site: the pages that hold what it says there.
README = {
    "": "index.md",
    "#how-good-it-is": "benchmarks.md#accuracy",
    "#use-it": "index.md",
    "#train-it-on-your-own-data": "train.md",
}
_SECTION = re.compile(r"<!-- from the README: (.+?) -->.*?<!-- end -->", re.S)
_README_LINK = re.compile(r"\]\(\.\./README\.md(#[\w-]+)?\)")
_FILE_LINK = re.compile(r"\]\(\.\./(LICENSE|CITATION\.cff|examples/CREDITS\.md)\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages, and the files beside this folder that pages link to."""
    files.append(File.generated(config, "reference/cli.md", content=command_line()))
    for name in ("LICENSE", "CITATION.cff", "examples/CREDITS.md"):
        target = f"files/{Path(name).name}.txt"
        files.append(File.generated(config, target, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(text: str, page: Any, config: Any, files: Any) -> str:
    """Put the README's table where a page asks for it, and turn links to files beside this folder."""
    text = _SECTION.sub(lambda match: readme_section(match[1]), text)
    text = _README_LINK.sub(lambda match: f"]({README[match[1] or '']})", text)
    return _FILE_LINK.sub(lambda match: f"](files/{Path(match[1]).name}.txt)", text)


def readme_section(title: str) -> str:
    """The text under a heading of the README, its links as seen from here. Raises ValueError without such a heading."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    match = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", readme, flags=re.S | re.M)
    if match is None:
        raise ValueError(f"README.md has no heading '{title}'")
    return match[1].strip().replace("](docs/", "](")


def command_line() -> str:
    """The help of every command, as the command line prints it."""
    from sharpmask.cli.main import COMMANDS, build_parser, usage

    before = {name: os.environ.get(name) for name in ("COLUMNS", "NO_COLOR")}
    os.environ |= {"COLUMNS": "100", "NO_COLOR": "1"}
    try:
        parts = [f"# Command line\n\nWhat `sharpmask COMMAND --help` prints.\n\n```text\n{usage()}\n```\n"]
        for name in COMMANDS:
            parts.append(f"## sharpmask {name}\n\n```text\n{build_parser(name).format_help().rstrip()}\n```\n")
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
    return "\n".join(parts)
