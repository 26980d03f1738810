"""Running the application: the socket, the model, the signals."""

import errno
import ipaddress
import os
import signal
import socket
import sys
import webbrowser
from collections.abc import Sequence
from types import FrameType

from sharpmask.errors import ConfigError, MissingExtraError
from sharpmask.web.limits import Limits

# module -> distribution
_NEEDED = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "python_multipart": "python-multipart",
    "prometheus_client": "prometheus-client",
}
_BACKLOG = 128
_CONNECTIONS = 64  # at a time; more get status 503


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    model: str | None = None,
    device: str | None = None,
    runtime: str | None = None,
    limits: Limits | None = None,
    hosts: Sequence[str] = (),
    open_browser: bool = False,
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        host: address or name to listen on.
        port: 0 takes any free one.
        model, device, runtime: see `sharpmask.load`.
        limits: what clients may ask.
        hosts: further names by which clients call the server.
        open_browser: show the page when it is ready.

    Raises:
        MissingExtraError: the extra `web` is not installed.
        ConfigError: the address cannot be listened on, or the device is not there.
        ModelError: the model cannot be read.
    """
    _check_extra()
    with _listen(host, port) as listener:  # before the model is read: a port that is in use is told at once
        import uvicorn

        from sharpmask.checkpoints import DEFAULT_MODEL, load_network
        from sharpmask.runtimes import with_runtime
        from sharpmask.web.app import create_app
        from sharpmask.web.engine import make_propose

        name = model or DEFAULT_MODEL
        propose = make_propose(with_runtime(load_network(name), runtime, device), device)
        address = listener.getsockname()[0]
        local = ipaddress.ip_address(address).is_loopback
        app = create_app(propose, model=name, limits=limits, hosts=[host, *hosts], local=local)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=3,
        )

        class Server(uvicorn.Server):
            def handle_exit(self, sig: int, frame: FrameType | None) -> None:
                app.state.stop_work()  # so that nobody has to be waited for
                super().handle_exit(sig, frame)

        server = Server(config)
        # uvicorn's own handlers are there while it runs. When it has finished it sends itself the signal that stopped
        # it once more, for the handlers that were there before: these do no harm.
        before = {number: signal.signal(number, server.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            _announce(address, listener.getsockname()[1], name, local, open_browser)
            server.run(sockets=[listener])
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        print("sharpmask serve: stopped")


def _announce(address: str, port: int, model: str, local: bool, open_browser: bool) -> None:
    if not local:
        print(
            f"sharpmask serve: warning: {address} is not this machine's alone: whoever reaches it can use the server, "
            "there is no password",
            file=sys.stderr,
        )
    # All addresses at once is none that a browser can go to.
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
    url = f"http://{_in_url(here)}:{port}/"
    print(f"sharpmask serve: {url} is ready ({model}); API: {url}docs; Ctrl-C stops", flush=True)
    if open_browser:
        webbrowser.open(url)


def _check_extra() -> None:
    for module, package in _NEEDED.items():
        try:
            __import__(module)
        except ImportError as error:
            raise MissingExtraError(package, "web", "sharpmask serve") from error


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ConfigError: the port is in use or not allowed, or the host is not one of this machine.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port {port}: must lie between 0 and 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--host {host}: not an address or name of this machine") from error
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # after a stop the port can be taken again at once; elsewhere this means another thing
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(_complaint(host, port, error)) from error
    return listener


def _complaint(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is in use; choose another one with --port, or 0 for any that is free"
    if error.errno == errno.EACCES:
        return f"port {port} of {host} is reserved for the system; choose one above 1023 with --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host {host}: not an address of this machine; 127.0.0.1 always is, 0.0.0.0 means all"
    return f"cannot listen on port {port} of {host}: {error.strerror or error}"


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address
