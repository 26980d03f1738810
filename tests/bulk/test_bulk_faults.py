"""A few rounds of benchmarks/bulk_faults.py: kill -9 of drivers and workers at random moments."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bulk_faults.py"


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the processes to kill in /proc")
def test_kills_at_random_moments_lose_and_double_nothing() -> None:
    options = ["--rounds", "3", "--images", "60", "--faults", "kill,text", "--seed", "3", "--timeout", "600"]
    command = [sys.executable, str(SCRIPT), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    cells = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    counts = {row[0]: row[1] for row in cells if len(row) == 2}
    assert counts["driver kills"] != "0"
    assert (counts["lost"], counts["twice"], counts["wrong"]) == ("0", "0", "0")
    assert int(counts["results out"]) + int(counts["errors out"]) == int(counts["images in"]) >= 60
