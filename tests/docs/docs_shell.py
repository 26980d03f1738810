"""A bash in which `sharpmask` answers at once, and which can check a block's commands without running them."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import docs_server as server
from docs_pages import ROOT, Block, commands_in

# In a block that is only parsed nothing but sharpmask is run: what is not found counts as done.
_PARSE_ONLY = """
command_not_found_handle() { :; }
cd() { :; }
source() { :; }
.() { :; }
torchrun() {
  while [ $# -gt 0 ] && [ "$1" != -m ]; do shift; done
  python "$@"
}
python() {
  if [ "$1" = -m ]; then
    if [ "$2" = sharpmask.cli.main ]; then sharpmask "${@:3}"; fi
  elif [[ "$1" == *.py ]]; then
    if [ ! -f "$ROOT/$1" ]; then echo "there is no $1" >&2; return 1; fi
    local text word; text=$(<"$ROOT/$1")
    for word in "${@:2}"; do
      if [[ "$word" == --* && "$text" != *"\\"${word%%=*}\\""* ]]; then echo "$1 has no $word" >&2; return 1; fi
    done
  fi
}
python3() { python "$@"; }
"""


@dataclass(frozen=True)
class Shell:
    """`tools`: a folder with the command `sharpmask`; `socket`: where the server listens."""

    tools: Path
    socket: Path

    @classmethod
    def open(cls, tools: Path, socket: Path) -> "Shell":
        script = f'#!/bin/bash\nexec "{sys.executable}" -IS "{server.__file__}" "$@"\n'
        (tools / "sharpmask").write_text(script)
        (tools / "sharpmask").chmod(0o755)
        return cls(tools, socket)

    def run(self, block: Block, folder: Path) -> None:
        """Run or parse a block in `folder`. Raises AssertionError with what it printed where it fails."""
        log = self.tools / "log"
        log.write_text("")
        environment = {
            **os.environ,
            server.SOCKET: str(self.socket),
            server.LOG: str(log),
            server.MODE: "parse" if block.parse_only else "run",
            "ROOT": str(ROOT),
            "PATH": str(self.tools) if block.parse_only else f"{self.tools}:{os.environ['PATH']}",
        }
        if block.language == "python":
            if block.parse_only:
                compile(block.text, block.place, "exec")
                return
            command = [str(self.tools / "sharpmask"), "--python-block", block.text]
        else:
            text = (_PARSE_ONLY if block.parse_only else "") + block.text
            command = ["/bin/bash", "-eo", "pipefail", "-c", text]
        done = subprocess.run(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600
        )
        shown = f"{block.place}\n{block.text}\nexit status {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == 0, shown
        assert "Traceback" not in done.stderr, shown
        if block.language == "bash":
            seen, there = len(log.read_text().splitlines()), commands_in(block.text)
            assert seen >= there, f"{seen} of {there} commands were reached\n{shown}"
