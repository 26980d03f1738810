"""What the loop trains from boxes of images: a detector, or a network that proposes boxes."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sharpmask.data.stream import StreamSampler
from sharpmask.detection.config import DetectorConfig
from sharpmask.detection.examples import Example
from sharpmask.detection.features import FeatureStore
from sharpmask.detection.networks import Scale, TrunkNetwork
from sharpmask.networks.trunk import Features
from sharpmask.training.config import Schedule
from sharpmask.training.distributed import World, from_main, sum_over_world
from sharpmask.training.logs import RunLog
from sharpmask.training.stages import Trained

N = TypeVar("N", bound=TrunkNetwork)


class BoxTask(ABC, Generic[N]):
    """A `Task` of the loop whose examples are images with boxes, of several sizes, and which has one stage."""

    name: ClassVar[str]
    unit = "images"
    network: N
    examples: Dataset[Example]
    store: FeatureStore

    def __init__(self, config: DetectorConfig, device: torch.device, world: World) -> None:
        self.config, self.device, self.world = config, device, world
        self.schedule: Schedule = config
        self.best = Path(config.output) / f"{self.name}-best.safetensors"

    @abstractmethod
    def losses(self, examples: Sequence[Example]) -> tuple[dict[str, Tensor], float]:
        """Sums of the losses over these examples, weighted, and the number of boxes to divide them by."""

    @abstractmethod
    def save(self, path: Path, dtype: torch.dtype) -> None:
        """Write the network."""

    @abstractmethod
    def load(self, path: Path) -> dict[str, Tensor]:
        """The network's weights in a file that `save` wrote."""

    def trained(self) -> Iterator[Trained]:
        """All parameters, those with ImageNet weights with factors of their own."""
        for name, parameter in self.network.named_parameters():
            factor, start = 1.0, 0
            if name.startswith("trunk."):
                factor, start = self.config.trunk_factor, self.config.trunk_start
            elif ".c5." in name:
                factor = self.config.head_factor
            if factor > 0:
                yield Trained(parameter, factor, start)

    def features(self, example: Example) -> tuple[Features, Scale]:
        """Those of the example's image: computed from its pixels, or, of a frozen trunk, once."""
        if example.image is None:
            return self.store.features(example.image_id, example.flip, example.zoom)
        return self.network.features(example.image.to(self.device).float() / 255, example.zoom)

    def batches(self, first: int) -> DataLoader[Any]:
        """Lists of examples."""
        sampler = StreamSampler(
            start_step=first,
            steps=self.config.steps - first,
            batch_size=self.config.batch_size,
            rank=self.world.rank,
            world_size=self.world.size,
        )
        return DataLoader(
            self.examples,
            batch_size=sampler.local_batch_size,
            sampler=sampler,
            num_workers=self.config.workers,
            collate_fn=list,
            prefetch_factor=4 if self.config.workers else None,
        )

    def loss(self, step: int, batch: Sequence[Example]) -> tuple[Tensor, dict[str, float]]:
        """Means over the whole batch of all processes, so that the sum of gradients is that of a single process."""
        torch.manual_seed((self.config.seed * 1_000_003 + step) * self.world.size + self.world.rank)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.config.precision == "bf16"):
            sums, count = self.losses(batch)
        total = sum_over_world(torch.tensor(count, device=self.device), self.world).clamp(min=1.0)
        parts = torch.stack(list(sums.values())) / total
        whole = sum_over_world(parts.detach().clone(), self.world)
        return parts.sum(), {"loss": float(whole.sum()), **dict(zip(sums, whole.tolist(), strict=True))}

    def counts(self) -> dict[str, float]:
        """None."""
        return {}

    def validate(self, step: int, log: RunLog) -> tuple[float, dict[str, float]] | None:
        """Nothing, unless a task has something to measure on."""
        return None

    def keep_best(self) -> None:
        """Write `output`/NAME-best.safetensors."""
        self.save(self.best, torch.float32)

    def use_best(self) -> None:
        """Take its weights, sent by the first process."""
        self.network.load_state_dict(from_main(lambda: self.load(self.best), self.world))
        self.network.eval()
