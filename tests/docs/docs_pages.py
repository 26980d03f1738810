"""The code blocks of the documentation, and what its markers say about how a test runs them.

Markers are HTML comments, not seen by readers. `inputs` counts for the whole page, the others for the next block:

    <!-- test: inputs NAME NAME -->              what the page's folder holds before its first block, see docs_inputs.py
    <!-- test: parse only: REASON -->            not run; options are checked, commands other than sharpmask skipped
    <!-- test: replace "OLD" with "NEW" -->      so that it ends in seconds; OLD has to be there
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LANGUAGES = ("bash", "python")

_BLOCK = re.compile(r"((?:^[ ]*<!--.*?-->\n)*)^([ ]*)```(\w+)\n(.*?)^\2```", re.M | re.S)
_REPLACE = re.compile(r'<!-- test: replace "(.*?)" with "(.*?)" -->')
_PARSE_ONLY = re.compile(r"<!-- test: parse only: (.+?) -->")
_INPUTS = re.compile(r"<!-- test: inputs ([\w ]+?) -->")
_MARKER = re.compile(r"<!-- test: .*?-->")
_CALL = re.compile(r"(?:^|[;&|(]|\bdo\b|\bthen\b|-m)\s*(?:\w+=\S*\s+)*sharpmask(?:\.cli\.main)?\s", re.M)
_INLINE = re.compile(r"`(sharpmask [a-z][^`]*)`")


@dataclass(frozen=True)
class Block:
    """A block as it is run; `parse_only` is the reason for not running it."""

    place: str  # file:line
    language: str
    text: str
    parse_only: str | None = None


def pages() -> list[Path]:
    """The README and all pages that are written by hand."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def inputs(page: str) -> list[str]:
    """Names of what the page's folder has to hold."""
    return [name for match in _INPUTS.finditer(page) for name in match[1].split()]


def blocks(page: str, name: str = "page") -> Iterator[Block]:
    """The blocks of LANGUAGES in a page. Raises ValueError for a marker that has no effect."""
    used = len(_INPUTS.findall(page))
    for match in _BLOCK.finditer(page):
        markers, indent, language, text = match.groups()
        if language not in LANGUAGES:
            continue
        place = f"{name}:{page.count(chr(10), 0, match.start(3)) + 1}"
        text = re.sub(f"^{indent}", "", text, flags=re.M)
        for old, new in _REPLACE.findall(markers):
            if old not in text:
                raise ValueError(f"{place}: the marker replaces '{old}', which the block does not hold")
            text = text.replace(old, new)
        reason = _PARSE_ONLY.search(markers)
        used += len(_REPLACE.findall(markers)) + bool(reason)
        yield Block(place, language, text, reason[1] if reason else None)
    idle = len(_MARKER.findall(page)) - used
    if idle:
        raise ValueError(f"{name}: {idle} test markers stand before no block, or are misspelt")


def inline_commands(page: str) -> list[str]:
    """Commands that are mentioned within the text."""
    return _INLINE.findall(re.sub(r"^[ ]*```.*?^[ ]*```", "", page, flags=re.M | re.S))


def commands_in(text: str) -> int:
    """How many times a bash block calls sharpmask, as far as the text shows."""
    text = re.sub(r"\\\n", " ", text)
    text = re.sub(r"(?m)(^|\s)#.*", r"\1", text)
    return len(_CALL.findall(text))
