"""A few rounds of benchmarks/bulk_faults.py: kill -9 of drivers and workers at random moments."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bulk_faults.py"


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the processes to kill in /proc")
def test_kills_at_random_moments_lose_and_double_nothing() -> None:
    command = [sys.executable, str(SCRIPT), "--rounds", "3", "--images", "60", "--faults", "kill,text", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = dict(line.rsplit(maxsplit=1) for line in done.stdout.splitlines() if line and line[-1].isdigit())
    assert counts["driver kills"] != "0"
    assert (counts["lost"], counts["twice"], counts["wrong"]) == ("0", "0", "0")
    assert int(counts["results out"]) + int(counts["errors out"]) == int(counts["images in"]) >= 60
