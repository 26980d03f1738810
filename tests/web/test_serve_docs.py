"""What docs/serve.md tells people to type, and the tables in it."""

import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from jsonargparse import ArgumentParser
from web_fakes import FakeModel, running

from sharpmask.cli import serve
from sharpmask.web.app import create_app

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"<!-- test: parse only: run by tests/web -->\n```(\w+)\n(.*?)```\n", TEXT, re.DOTALL)


def test_examples_run(model: FakeModel, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    assert [language for language, _ in BLOCKS] == ["bash", "python"]
    if not shutil.which("curl"):
        pytest.skip("needs curl")
    with running(create_app(model, model="fake")) as address:
        (shell, python) = (code.replace("http://127.0.0.1:8000", address) for _, code in BLOCKS)
        lines = [line for line in shell.splitlines() if line]
        answers = [json.loads(subprocess.check_output(["bash", "-c", line], cwd=tmp_path)) for line in lines]
        subprocess.run([sys.executable, "-c", python], cwd=tmp_path, check=True)
    single, raw, batch = answers
    assert [len(answer["proposals"]) for answer in (single, raw, *batch["results"])] == [4, 5, 5, 5]  # NMS in the first
    image = ElementTree.parse(tmp_path / "riders-cvat.xml").find("image")
    assert image is not None and image.get("name") == "riders.jpg" and len(image.findall("mask")) == 5


def test_tables_are_complete(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    named = set(re.findall(r"`(?:GET|POST) (/[\w/]+)`", TEXT))
    assert named == set(document["paths"])
    statuses = {status for path in document["paths"].values() for way in path.values() for status in way["responses"]}
    assert set(re.findall(r"^\| (\d{3}) \|", TEXT, re.MULTILINE)) == statuses - {"200"}
    settings = document["paths"]["/v1/proposals"]["post"]["parameters"]
    assert all(f"`{setting['name']}`" in TEXT for setting in settings)
    parser = ArgumentParser()
    serve.add_arguments(parser)
    options = set(re.findall(r"--[\w-]+", parser.format_help())) - {"--help", "--config", "--print_config"}
    assert options - set(re.findall(r"--[\w-]+", TEXT)) == {"--port", "--model", "--device"}
