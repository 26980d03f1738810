"""Pictures whose proposals are known, a proposer without a network, a web server with faults, an S3 server."""

import functools
import http.server
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from fake_proposer import FakeFactory, write_pictures
from sharpmask.bulk.listing import SourceOptions
from sharpmask.bulk.run import BulkOptions, BulkReport, propose_bulk
from sharpmask.bulk.storage import Patience
from sharpmask.bulk.worker import WorkerOptions


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[..., Path]:
    """Write `count` pictures, some with faults, into a folder."""

    def write(count: int, faults: dict[int, str] | None = None, name: str = "in") -> Path:
        write_pictures(tmp_path / name, count, faults)
        return tmp_path / name

    return write


@pytest.fixture
def bulk(tmp_path: Path) -> Callable[..., BulkReport]:
    """`propose_bulk` with the fake proposer and one worker; every picture begun gets a line in `log`."""

    def run(source: Any, destination: Any, /, **changes: Any) -> BulkReport:
        factory = changes.pop("factory", FakeFactory(str(tmp_path / "log")))
        given: dict[str, Any] = {
            "workers": 1,
            "device": "cpu",
            "chunk_size": 4,
            "progress": False,
            "patience": Patience(attempts=2, timeout=60, delay=0.01),
            "worker": WorkerOptions(timeout=120, attempts=2),
            "source": SourceOptions(),
        }
        return propose_bulk(str(source), str(destination), factory, BulkOptions(**{**given, **changes}))

    return run


class FaultyServer(http.server.ThreadingHTTPServer):
    """Serves a folder. `answers` holds what to do for a path instead, once each: a status, "hang" or "reset"; `down`
    answers everything with that status."""

    daemon_threads = True
    request_queue_size = 100

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))
        self.answers: dict[str, list[int | str]] = {}
        self.down: int | None = None
        self.asked: list[str] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.SimpleHTTPRequestHandler):
    server: FaultyServer

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        self.server.asked.append(name)
        answers = self.server.answers.get(name) or []
        answer = answers.pop(0) if answers else self.server.down
        if answer is None:
            super().do_GET()
        elif answer == "hang":
            self.server.released.wait()
            self.close_connection = True
        elif answer == "reset":
            self.close_connection = True
            self.connection.close()
        else:
            self.send_error(int(answer))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[Path], FaultyServer]]:
    """Start a web server for a folder."""
    servers: list[FaultyServer] = []

    def start(folder: Path) -> FaultyServer:
        server = FaultyServer(folder)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.released.set()
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[str]:
    """An S3-compatible server of its own, without any request outside this machine."""
    if importlib.util.find_spec("moto") is None or importlib.util.find_spec("s3fs") is None:
        pytest.skip("needs moto[server] and s3fs")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(_s3_server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    """A bucket's URL; the environment leads to the server."""
    for name, value in {
        "AWS_ENDPOINT_URL": _s3_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    bucket = request.node.name.replace("_", "-").replace("[", "-").replace("]", "")[:60].lower().rstrip("-")
    s3fs.S3FileSystem().mkdir(bucket)
    yield f"s3://{bucket}"
    s3fs.S3FileSystem.clear_instance_cache()
