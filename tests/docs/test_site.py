"""The site builds without a warning, asks for nothing from outside, and holds what is generated."""

import html
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from docs_pages import ROOT

from sharpmask.cli.main import COMMANDS, build_parser


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="MkDocs is not installed (extra docs)")
    pytest.importorskip("mkdocstrings_handlers.python", reason="mkdocstrings is not installed (extra docs)")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def text(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


def test_nothing_is_loaded_from_outside(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) >= 14
    loads = r"<(?:script|img|iframe|source|link)\b[^>]*(?:src|href)=\"?(?:https?:)?//[^>]*>"
    for page in pages:
        assert re.findall(loads, page.read_text(encoding="utf-8")) == [], page
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_every_option_of_every_command_is_there(site: Path) -> None:
    page = text(site / "reference/cli.html")
    for command in COMMANDS:
        assert f"usage: sharpmask {command}" in page
        for action in build_parser(command)._actions:
            assert all(flag in page for flag in action.option_strings), (command, action.option_strings)


def test_docstrings_the_readmes_table_and_credits_are_there(site: Path) -> None:
    page = text(site / "reference/python.html")
    for words in ("Finds the objects in images with one", "release 5e-4, paper 5e-5", "a bundled model (default"):
        assert words in page
    table = text(site / "benchmarks.html")
    row = re.search(r"^\| mask AR@100 \| (.+?) \|", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.M)
    assert row is not None and row[1] in table
    assert (site / "files/CITATION.cff.txt").read_text() == (ROOT / "CITATION.cff").read_text()


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """The site on a local web server, as `mkdocs serve` has it."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def test_a_browser_opens_it_and_finds_words(site: Path, address: str, browser: Any) -> None:
    page = browser.new_page()
    page.set_default_timeout(60_000)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address + "index.html")
    page.keyboard.press("/")
    page.keyboard.type("containment")
    page.wait_for_selector("a.md-search-result__link")
    found = [link.get_attribute("href") for link in page.locator("a.md-search-result__link").all()]
    assert any("cleanup" in link for link in found)
    page.goto((site / "deviations.html").as_uri())  # from disk
    assert page.locator("table").count() >= 4
    outside = [url for url in requests if not url.startswith((address, "file:", "data:", "blob:"))]
    assert outside == []
    page.close()
