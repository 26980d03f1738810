"""What a study was run on."""

import datetime
import platform
from pathlib import Path

import torch

from sharpmask.proposals.proposer import pick_device


def describe_machine(device_name: str | None) -> dict[str, str]:
    """The device, its threads, torch's version and today's date."""
    device = pick_device(device_name)
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"CPU, {torch.get_num_threads()} threads ({_processor()})"
    return {"device": name, "torch": torch.__version__, "date": datetime.datetime.now().date().isoformat()}


def _processor() -> str:
    """The processor's name where the system tells it, else its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
