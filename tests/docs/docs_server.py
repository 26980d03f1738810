"""Runs `sharpmask` command lines of bash blocks without starting Python and importing torch each time.

    python docs_server.py SOCKET          waits for requests; each runs in a fork of this process
    python -IS docs_server.py ARGUMENTS   the request, in the place of the command `sharpmask`; see docs_shell.py

A request holds the arguments, the folder, the environment, and the three standard streams.
"""

import json
import os
import signal
import socket
import sys

SOCKET, MODE, LOG = "SHARPMASK_DOCS_SOCKET", "SHARPMASK_DOCS_MODE", "SHARPMASK_DOCS_LOG"


def request(arguments: list[str]) -> int:
    """Send a command to the server; returns its exit status."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ[SOCKET])
        body = json.dumps({"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}).encode()
        socket.send_fds(connection, [len(body).to_bytes(4, "big")], [0, 1, 2])
        connection.sendall(body)
        return int(connection.recv(16) or b"70")


def serve(path: str) -> None:
    """Answer requests until the process is ended."""
    preload()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # finished forks need no farewell
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            length, streams, _, _ = socket.recv_fds(connection, 4, 3)
            body = b""
            while len(body) < int.from_bytes(length, "big"):
                body += connection.recv(65536)
            if os.fork() == 0:
                listener.close()
                answer(json.loads(body), streams, connection)
            for stream in streams:
                os.close(stream)
            connection.close()


def preload() -> None:
    """Import what commands import; nothing is computed, so that no threads exist when this process forks."""
    import importlib

    from sharpmask.cli.main import COMMANDS

    for module, _ in COMMANDS.values():
        importlib.import_module(f"sharpmask.cli.{module}")
    for name in ("checkpoints", "formats", "report.write", "training.run", "evaluation.report", "proposals.compat"):
        importlib.import_module(f"sharpmask.{name}")


def answer(body: dict, streams: list[int], connection: socket.socket) -> None:
    """Run one request in this fork, send its exit status, and end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    status = 70
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.chdir(body["folder"])
        os.environ.clear()
        os.environ.update(body["environment"])
        status = run(body["arguments"])
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.send(str(status).encode())
        os._exit(0)


def run(arguments: list[str]) -> int:
    """The command line `sharpmask ARGUMENTS`; `--python-block CODE` runs a block of Python."""
    if arguments[:1] == ["--python-block"]:
        exec(compile(arguments[1], "<block>", "exec"), {"__name__": "__main__"})
        return 0
    with open(os.environ[LOG], "a") as log:
        log.write(json.dumps(arguments) + "\n")
    from sharpmask.cli.main import main

    return parse(arguments) if os.environ.get(MODE) == "parse" else main(arguments)


def parse(arguments: list[str]) -> int:
    """Check a command line without running it."""
    import importlib

    from sharpmask.cli.main import COMMANDS, build_parser, main

    if not arguments or arguments[0] not in COMMANDS:
        return main(arguments)  # --version, --help, or a command that does not exist
    module = importlib.import_module(f"sharpmask.cli.{COMMANDS[arguments[0]][0]}")
    rest = module.rewrite(arguments[1:]) if hasattr(module, "rewrite") else arguments[1:]
    build_parser(arguments[0]).parse_args(rest)
    return 0


if __name__ == "__main__":
    sys.argv[1:2] == ["--serve"] and serve(sys.argv[2])
    sys.exit(request(sys.argv[1:]))
