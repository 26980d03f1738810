"""Downloads from a local server that drops connections, changes its file, or answers nonsense."""

import http.server
import json
import threading
from dataclasses import dataclass, field

import pytest
import torch
from torch7_files import dump
from torch7_models import Tree, tiny_network

from sharpmask.checkpoints import download, load_network
from sharpmask.checkpoints.download import checksums, fetch, load_published
from sharpmask.checkpoints.published import Published, cache_folder, published_path
from sharpmask.errors import ConfigError, ModelError


@dataclass
class Site:
    """What the server has and how it misbehaves."""

    content: bytes
    etag: str = '"one"'
    drop_after: list[int] = field(default_factory=list)  # bytes to send before closing, one entry a request
    ranges: bool = True
    say_length: bool = True
    status: int = 200
    requests: list[dict[str, str]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def site(monkeypatch):
    state = Site(bytes(range(256)) * 4000)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            state.requests.append(dict(self.headers))
            if state.status != 200:
                self.send_error(state.status)
                return
            start = 0
            wanted = self.headers.get("Range", "")
            if wanted == f"bytes={len(state.content)}-":
                self.send_error(416)
                return
            if wanted and state.ranges and self.headers.get("If-Range") == state.etag:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(state.content) - 1}/{len(state.content)}")
            else:
                self.send_response(200)
            body = state.content[start:]
            if state.say_length:
                self.send_header("Content-Length", str(len(body)))
            if state.etag:
                self.send_header("ETag", state.etag)
            self.end_headers()
            limit = state.drop_after.pop(0) if state.drop_after else len(body)
            self.wfile.write(body[:limit])

        def log_message(self, *args):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/model.t7"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def test_plain_download(site, tmp_path):
    seen = []
    found = fetch(site.url, tmp_path / "x", progress=lambda done, total: seen.append((done, total)))
    assert (tmp_path / "x").read_bytes() == site.content
    assert found == checksums(tmp_path / "x") and found.size == len(site.content)
    assert seen[-1] == (len(site.content), len(site.content))
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert fetch(site.url, tmp_path / "x") == found and len(site.requests) == 1


def test_a_dropped_connection_is_resumed(site, tmp_path):
    site.drop_after = [len(site.content) // 2, 100_000]
    fetch(site.url, tmp_path / "x", wait=0)
    assert (tmp_path / "x").read_bytes() == site.content
    assert [request.get("Range") for request in site.requests] == [None, "bytes=512000-", "bytes=612000-"]


def test_a_later_run_resumes(site, tmp_path):
    site.drop_after = [300_000, 0]
    with pytest.raises(ModelError, match=r"300,000 bytes have arrived and are kept, run again"):
        fetch(site.url, tmp_path / "x", attempts=2, wait=0)
    assert not (tmp_path / "x").exists()
    fetch(site.url, tmp_path / "x", attempts=1)
    assert (tmp_path / "x").read_bytes() == site.content
    assert site.requests[-1]["Range"] == "bytes=300000-"


def test_a_part_that_is_no_part_is_dropped(site, tmp_path):
    (tmp_path / "x.part").write_bytes(b"?" * len(site.content))
    (tmp_path / "x.part.stamp").write_text(site.etag)
    fetch(site.url, tmp_path / "x", wait=0)
    assert (tmp_path / "x").read_bytes() == site.content


@pytest.mark.parametrize("change", ["other file", "no ranges", "no stamp"])
def test_what_cannot_be_resumed_starts_anew(site, tmp_path, change):
    site.drop_after = [300_000, 0]
    if change == "no stamp":
        site.etag = ""
    with pytest.raises(ModelError):
        fetch(site.url, tmp_path / "x", attempts=2, wait=0)
    if change == "other file":
        site.content, site.etag = site.content[::-1], '"two"'
    site.ranges = change != "no ranges"
    fetch(site.url, tmp_path / "x", wait=0)
    assert (tmp_path / "x").read_bytes() == site.content


def test_server_errors(site, tmp_path, monkeypatch):
    site.status = 404
    with pytest.raises(ModelError, match="404"):
        fetch(site.url, tmp_path / "x", wait=0)
    assert len(site.requests) == 1
    site.status = 503
    with pytest.raises(ModelError, match="503"):
        fetch(site.url, tmp_path / "x", attempts=3, wait=0)
    assert len(site.requests) == 4
    site.status = 200
    monkeypatch.setattr(download, "MAX_BYTES", 1000)
    with pytest.raises(ModelError, match="more than"):
        fetch(site.url, tmp_path / "x", wait=0)
    site.say_length = False
    with pytest.raises(ModelError, match="more than"):
        fetch(site.url, tmp_path / "x", wait=0)
    with pytest.raises(ConfigError, match="only http"):
        fetch("file:///etc/hostname", tmp_path / "x")


@pytest.fixture
def model(site, tmp_path, monkeypatch):
    """A published model of the local server and an empty cache folder."""
    torch.set_num_threads(1)
    site.content = dump(Tree().root(tiny_network(refinement=True)))
    monkeypatch.setenv("SHARPMASK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(download.PUBLISHED, "sharpmask-fair", Published(site.url, "0" * 32))
    return tmp_path / "cache" / "sharpmask-fair"


def test_load_imports_once_and_then_works_offline(site, model):
    site.drop_after = [len(site.content) // 2]
    said: list[str] = []
    assert published_path("sharpmask-fair") is None
    path = load_published("sharpmask-fair", say=said.append)
    assert path == model / "sharpmask-fair.safetensors" == published_path("sharpmask-fair")
    network = load_network(path)
    assert network.spec.name == "sharpmask-fair"
    record = json.loads((model / "model.t7.json").read_text())
    assert record["size"] == len(site.content) and record["sha256"] in "\n".join(said)
    assert sorted(item.name for item in model.iterdir()) == ["model.t7.json", "sharpmask-fair.safetensors"]
    site.status, count = 404, len(site.requests)
    assert load_published("sharpmask-fair", say=said.append) == path
    assert len(site.requests) == count


def test_another_file_than_the_first_time_is_refused(site, model):
    path = load_published("sharpmask-fair", say=lambda text: None)
    path.unlink()
    site.content = dump(Tree().root(tiny_network(refinement=True, seed=1)))
    with pytest.raises(ModelError, match="the first download had"):
        load_published("sharpmask-fair", say=lambda text: None)
    assert not path.exists()


def test_a_damaged_file_is_not_kept_as_a_model(site, model):
    whole, site.content = site.content, site.content[:-50]
    for _ in range(2):  # the file is kept, so the second time is without download
        with pytest.raises(ModelError, match=r"model\.t7.*delete it to fetch it again"):
            load_published("sharpmask-fair", say=lambda text: None)
    assert published_path("sharpmask-fair") is None and len(site.requests) == 1
    (model / "model.t7").unlink()
    site.content = whole
    assert load_published("sharpmask-fair", say=lambda text: None).is_file()


def test_names_and_folders(monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="deepmask-fair"):
        load_published("fastmask-fair")
    monkeypatch.delenv("SHARPMASK_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "sharpmask"
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("SHARPMASK_CACHE", str(blocked))
    with pytest.raises(ConfigError, match="cache folder"):
        load_published("deepmask-fair", say=lambda text: None)


def test_command(site, model, capsys):
    from jsonargparse import ArgumentParser

    from sharpmask.cli import load as command

    parser = ArgumentParser(description=command.__doc__)
    command.add_arguments(parser)
    assert command.run(parser.parse_args(["sharpmask-fair"])) == 0
    assert "ready for offline use" in capsys.readouterr().out
