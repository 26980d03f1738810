"""Every limit of the server: bytes, pixels, time, places in the queue, files, and who may ask."""

import asyncio
import json
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi.testclient import TestClient
from web_fakes import Connect, FakeModel, encoded, running, until

from sharpmask.errors import ConfigError
from sharpmask.web.app import create_app
from sharpmask.web.guards import BodyLimit
from sharpmask.web.limits import Limits


def _bomb(width: int, height: int) -> bytes:
    """A PNG of some hundred bytes that claims to be this large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 50)) + chunk(b"IEND", b"")


def test_limits_are_checked() -> None:
    with pytest.raises(ConfigError, match="queue 0: must be greater than 0"):
        Limits(queue=0)
    with pytest.raises(ConfigError, match="timeout nan"):
        Limits(timeout=float("nan"))


# ---------------------------------------------------------------- bytes


def test_announced_body_is_refused_unread(connect: Connect, model: FakeModel) -> None:
    client = connect(max_body=3000)
    assert client.post("/v1/proposals", files={"file": encoded(20, 20)}).status_code == 200
    for path in ("/v1/proposals", "/v1/proposals/batch", "/v1/export", "/v1/picture"):
        answer = client.post(path, content=b"x" * 3001, headers={"content-type": "application/octet-stream"})
        assert answer.status_code == 413
        assert answer.json() == {"detail": "the request is larger than the limit of 0.00286 MiB"}
    assert len(model.seen) == 1


def test_body_is_counted_while_it_streams(model: FakeModel) -> None:
    """The refusal comes although the client has not ended its body, nor said how long it will be."""
    with running(create_app(model, model="fake", limits=Limits(max_body=200_000))) as address:
        at = urlsplit(address)
        with socket.create_connection((at.hostname, at.port), timeout=60) as connection:
            connection.sendall(
                b"POST /v1/proposals HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
            for _ in range(4):
                connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 413 ") and b"connection: close" in answer.lower()
        assert httpx.get(f"{address}/healthz", timeout=60).status_code == 200
    assert model.seen == []


def test_streamed_form_is_counted_too(connect: Connect) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        for _ in range(100):
            yield b"x" * 1000

    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert connect(max_body=50_000).post("/v1/proposals", content=chunks(), headers=headers).status_code == 413


def test_body_that_never_ends_is_refused() -> None:
    """A fake server below the check: one part of a body, then nothing."""
    sent: list[dict[str, object]] = []

    async def application(scope: object, receive: Callable[[], object], send: object) -> None:
        while True:
            await receive()  # type: ignore[misc]

    async def receive() -> dict[str, object]:
        if not parts:
            await asyncio.Event().wait()
        return parts.pop()

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    parts: list[dict[str, object]] = [{"type": "http.request", "body": b"x", "more_body": True}]
    scope = {"type": "http", "headers": [], "method": "POST", "path": "/"}
    asyncio.run(BodyLimit(application, 100, 0.05)(scope, receive, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"]) == {"detail": "the request took more than 0.05 s to arrive"}  # type: ignore[arg-type]


# ---------------------------------------------------------------- pixels and files


def test_bombs_are_refused_before_they_are_decoded(connect: Connect, model: FakeModel) -> None:
    client = connect(max_pixels=10_000)
    assert client.post("/v1/proposals", files={"file": encoded(100, 100)}).status_code == 200
    assert client.post("/v1/proposals", files={"file": encoded(100, 101)}).status_code == 413
    huge = ("bomb.png", _bomb(60_000, 50_000))  # far beyond Pillow's own limit, too
    for path, field in (("/v1/proposals", "file"), ("/v1/picture", "file")):
        answer = client.post(path, files={field: huge})
        assert answer.status_code == 413
        assert "bomb.png: 60000x50000 is 3000 megapixels, more than the limit of 0.01" in answer.json()["detail"]
    batch = client.post("/v1/proposals/batch", files=[("files", huge), ("files", encoded(50, 50))]).json()["results"]
    assert batch[0]["status"] == 413 and "proposals" in batch[1]
    assert len(model.seen) == 2


def test_number_of_files(connect: Connect) -> None:
    client = connect(max_files=2)
    picture = encoded(8, 8)
    assert client.post("/v1/proposals/batch", files=[("files", picture)] * 2).status_code == 200
    answer = client.post("/v1/proposals/batch", files=[("files", picture)] * 3)
    assert (answer.status_code, answer.json()["detail"]) == (413, "more than 2 files in one request")
    image = {"file_name": "a.png", "width": 4, "height": 4, "proposals": []}
    assert client.post("/v1/export", json={"format": "coco", "images": [image] * 2}).status_code == 200
    assert client.post("/v1/export", json={"format": "coco", "images": [image] * 3}).status_code == 413


# ---------------------------------------------------------------- time


@pytest.mark.parametrize("stubborn", [False, True])
def test_slow_image_is_given_up_and_the_next_one_works(connect: Connect, model: FakeModel, stubborn: bool) -> None:
    client = connect(timeout=0.1)
    model.gate.clear()
    model.stubborn = stubborn
    # Again and again here and below, since a tenth of a second is little on a busy machine: work may not even begin.
    while not model.began.acquire(blocking=False):
        answer = client.post("/v1/proposals", files={"file": encoded()})
        assert answer.status_code == 504
        assert "not done within 0.1 s" in answer.json()["detail"]
    if stubborn:  # work that cannot be stopped is waited for; until then others wait, too
        assert client.get("/healthz").json()["running"] is True
        assert client.post("/v1/proposals", files={"file": encoded()}).status_code == 504
    else:
        assert model.stopped.wait(60)
    model.gate.set()
    until(lambda: not client.get("/healthz").json()["running"])
    assert client.get("/healthz").json() == {"status": "ok", "waiting": 0, "running": False}
    until(lambda: client.post("/v1/proposals", files={"file": encoded()}).status_code == 200)


def test_batch_keeps_what_was_done_in_time(model: FakeModel) -> None:
    def slow_second(*args: object) -> object:
        if model.seen:
            model.gate.clear()
        return model(*args)  # type: ignore[arg-type]

    for seconds in (1, 10, 100):  # a busy machine may need more for the first
        model.seen.clear()
        model.gate.set()
        app = create_app(slow_second, model="fake", limits=Limits(timeout=seconds))  # type: ignore[arg-type]
        with TestClient(app, base_url="http://localhost") as client:
            answer = client.post("/v1/proposals/batch", files=[("files", encoded())] * 2)
        results = answer.json()["results"]
        if "proposals" in results[0]:
            break
    assert (answer.status_code, "proposals" in results[0], results[1]["status"]) == (200, True, 504)


def test_work_ends_when_the_client_goes(model: FakeModel) -> None:
    model.gate.clear()
    with running(create_app(model, model="fake")) as address:
        at = urlsplit(address)
        body = encoded()
        with socket.create_connection((at.hostname, at.port)) as connection:
            head = f"POST /v1/proposals HTTP/1.1\r\nHost: {at.netloc}\r\nContent-Type: image/png\r\n"
            connection.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
            assert model.began.acquire(timeout=60)
        assert model.stopped.wait(60)
        until(lambda: not httpx.get(f"{address}/healthz", timeout=60).json()["running"])


# ---------------------------------------------------------------- the queue


def test_full_queue_says_when_to_come_back(connect: Connect, model: FakeModel) -> None:
    client = connect(queue=2)
    model.gate.clear()
    with ThreadPoolExecutor(3) as pool:

        def post(width: int) -> httpx.Response:
            return client.post("/v1/proposals", files={"file": encoded(width)})

        answers = [pool.submit(post, 20)]
        assert model.began.acquire(timeout=60)
        answers += [pool.submit(post, 21), pool.submit(post, 22)]
        until(lambda: client.get("/healthz").json()["waiting"] == 2)
        assert "sharpmask_queue_depth 2.0" in client.get("/metrics").text
        for path, files in (("/v1/proposals", {"file": encoded()}), ("/v1/proposals/batch", {"files": encoded()})):
            refused = client.post(path, files=files)
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.json()["detail"].startswith("too many images are waiting")
        model.gate.set()
        assert [answer.result().status_code for answer in answers] == [200, 200, 200]
    assert client.post("/v1/proposals", files={"file": encoded()}).status_code == 200
    # One at a time, in the order in which they came (the two that waited came at once).
    widths = [shape[1] for shape, _ in model.seen]
    assert widths[0] == 20 and sorted(widths[1:3]) == [21, 22]


def test_one_image_is_worked_on_at_a_time(connect: Connect, model: FakeModel) -> None:
    working, most = 0, 0
    lock = threading.Lock()

    def watched(*args: object) -> object:
        nonlocal working, most
        with lock:
            working += 1
            most = max(most, working)
        try:
            return model(*args)  # type: ignore[arg-type]
        finally:
            with lock:
                working -= 1

    app = create_app(watched, model="fake")  # type: ignore[arg-type]
    with TestClient(app, base_url="http://localhost") as client, ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: client.post("/v1/proposals", files={"file": encoded()}), range(6)))
    assert [answer.status_code for answer in answers] == [200] * 6
    assert most == 1


# ---------------------------------------------------------------- who asks


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8000", "127.0.0.1:99", "[::1]:8000", "192.168.7.7", "LOCALHOST", "localhost.", "desk"],
)
def test_own_names_are_known(model: FakeModel, host: str) -> None:
    with TestClient(create_app(model, model="fake", hosts=["Desk"])) as client:
        assert client.get("/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "user@localhost", "localhost:x", "", "a b"],
)
def test_rebound_names_are_refused(client: TestClient, host: str) -> None:
    for path in ("/", "/healthz", "/static/main.js"):
        answer = client.get(path, headers={"host": host})
        assert answer.status_code == 400
        assert "is not a name of this server" in answer.json()["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://["},
        {"origin": "http://localhost:9999"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
    ],
)
def test_pages_of_other_sites_are_refused(client: TestClient, model: FakeModel, headers: dict[str, str]) -> None:
    answer = client.post("/v1/proposals", files={"file": encoded()}, headers=headers)
    assert (answer.status_code, model.seen) == (403, [])


def test_the_own_page_and_links_to_it_work(client: TestClient) -> None:
    own = {"origin": "http://localhost", "sec-fetch-site": "same-origin"}
    assert client.post("/v1/proposals", files={"file": encoded()}, headers=own).status_code == 200
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get("/", headers=link).status_code == 200


@pytest.mark.parametrize("path", ["/", "/v1/info", "/none", "/static/main.js"])
def test_headers_for_browsers(client: TestClient, path: str) -> None:
    headers = client.get(path, headers={"origin": "http://localhost"}).headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == ("no-cache" if path in ("/", "/static/main.js") else "no-store")
    assert not [name for name in headers if name.startswith("access-control")]
    assert client.options("/v1/proposals", headers={"origin": "http://localhost"}).status_code == 405
