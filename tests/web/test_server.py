"""The command: where it listens, what it says, how it stops, and what it refuses."""

import io
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import torch
import uvicorn
from fastapi.testclient import TestClient
from PIL import Image

from sharpmask.cli.main import main
from sharpmask.errors import SharpMaskError
from sharpmask.web import server
from sharpmask.web.limits import Limits

EXAMPLE = Path(__file__).parents[2] / "examples" / "riders.jpg"


@contextmanager
def _command(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command on a free port once it is ready, and its first line."""
    command = [sys.executable, "-m", "sharpmask.cli.main", "serve", "--port", "0", "--device", "cpu", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline()
        finally:
            process.kill()


def test_a_photo_from_upload_to_export_with_the_bundled_model() -> None:
    with _command() as (process, line):
        assert line.startswith("sharpmask serve: http://127.0.0.1:") and "sharpmask-lite0" in line
        address = line.split()[2].rstrip("/")
        photo = io.BytesIO()
        Image.open(EXAMPLE).resize((320, 212)).save(photo, "JPEG")
        files = {"file": ("riders.jpg", photo.getvalue())}
        found = httpx.post(f"{address}/v1/proposals?top=20", files=files, timeout=300).json()
        assert found["image"] == {"file_name": "riders.jpg", "width": 320, "height": 212}
        assert 10 < len(found["proposals"]) <= 20
        keep = [{name: proposal[name] for name in ("score", "segmentation")} for proposal in found["proposals"][:3]]
        request = {"format": "yolo", "images": [{**found["image"], "proposals": keep}]}
        archive = zipfile.ZipFile(io.BytesIO(httpx.post(f"{address}/v1/export", json=request, timeout=300).content))
        assert len(archive.read("yolo/labels/riders.txt").splitlines()) == 3
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out, err) == (0, "sharpmask serve: stopped\n", "")


def test_interrupt_during_work_stops_at_once_and_without_a_traceback(tmp_path: Path) -> None:
    """An image that would take minutes is under way; nobody gets an answer, and nothing else happens."""
    Image.new("RGB", (3000, 2000), (90, 120, 60)).save(tmp_path / "large.png")
    with _command() as (process, line):
        address = line.split()[2].rstrip("/")
        client = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import sys, httpx; httpx.post(sys.argv[1], content=open(sys.argv[2], 'rb').read(), timeout=300, "
                "headers={'content-type': 'image/png'})",
                f"{address}/v1/proposals?fit=0&zoom=2",
                str(tmp_path / "large.png"),
            ],
            stderr=subprocess.DEVNULL,
        )
        with client:
            while not httpx.get(f"{address}/healthz", timeout=60).json()["running"]:
                assert client.poll() is None
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=120)
            client.kill()
        assert process.returncode == 0
        assert out == "sharpmask serve: stopped\n"
        assert "Traceback" not in err


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)])
def test_other_addresses_are_warned_about(
    host: str, warned: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[bool] = []

    def run(self: uvicorn.Server, sockets: list[socket.socket]) -> None:
        with TestClient(self.config.app, base_url=f"http://{host}") as client:
            seen.append(client.get("/v1/info").json()["local"])

    monkeypatch.setattr(uvicorn.Server, "run", run)
    monkeypatch.setattr("sharpmask.checkpoints.load_network", lambda name: torch.nn.Identity())
    monkeypatch.setattr("sharpmask.runtimes.choice.DEFAULT_RUNTIME", "eager")  # no runtime can prepare the fake
    assert main(["serve", "--host", host, "--port", "0"]) == 0
    out, err = capsys.readouterr()
    assert seen == [not warned]
    assert ("there is no password" in err) == warned
    assert out.startswith(f"sharpmask serve: http://{'127.0.0.1' if warned else ''}") and "is ready" in out
    assert out.count("\n") == 2


def test_port_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 2
    assert capsys.readouterr().err == (
        f"sharpmask serve: port {port} of 127.0.0.1 is in use; "
        "choose another one with --port, or 0 for any that is free\n"
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--port", "70000"], "--port 70000: must lie between 0 and 65535"),
        (["--host", "192.0.2.1"], "--host 192.0.2.1: not an address of this machine"),
        (["--host", "no such name"], "--host no such name: not an address or name"),
        (["--queue", "0"], "queue 0: must be greater than 0"),
        (["--timeout", "-1"], "timeout -1: must be greater than 0"),
        (["--port", "0", "--device", "abacus"], "device 'abacus' is not available"),
    ],
)
def test_wrong_options(options: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *options]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_unknown_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--port", "0", "--model", "none.safetensors"]) in (1, 2)
    assert "none.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "python_multipart", "prometheus_client"])
def test_missing_extra(package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["serve"]) == 2
    name = package.replace("_", "-")
    assert capsys.readouterr().err == (
        f"sharpmask serve: sharpmask serve needs the package '{name}', which is not installed: "
        "run  pip install 'sharpmask[web]'\n"
    )


def test_ipv6() -> None:
    try:
        with server._listen("::1", 0) as listener:
            assert server._in_url(listener.getsockname()[0]) == "[::1]"
    except SharpMaskError as error:
        pytest.skip(f"no IPv6 here: {error}")


def test_defaults_of_the_command_are_those_of_the_limits() -> None:
    from jsonargparse import ArgumentParser

    from sharpmask.cli import serve

    parser = ArgumentParser()
    serve.add_arguments(parser)
    args = parser.parse_args([])
    assert Limits() == Limits(
        max_body=args.max_body * 2**20,
        max_pixels=args.max_pixels * 1_000_000,
        timeout=args.timeout,
        queue=args.queue,
        max_files=args.max_files,
    )
