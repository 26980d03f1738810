"""Where the time of a proposer goes."""

import time

import torch


class Clock:
    """Adds up the seconds between laps by stage; a `Proposer` that is given one laps it after every stage.

    Args:
        device: of the network; on a GPU each lap waits for it, which makes the whole a little slower.

    Attributes:
        seconds: by stage, in the order of their first lap, since `start`.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.start()

    def start(self) -> None:
        """Forget all laps and begin the first one now."""
        self.seconds: dict[str, float] = {}
        self._last = self._now()

    def lap(self, stage: str) -> None:
        """The time since the last lap was that of `stage`."""
        now = self._now()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
