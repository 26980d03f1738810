"""Features of photos that are asked for again and again while the trunk stays as it is."""

from pathlib import Path

import torch

from sharpmask.data.coco import CocoDataset
from sharpmask.data.photos import read_photo
from sharpmask.detection.networks import Scale, TrunkNetwork
from sharpmask.networks.trunk import Features


class FeatureStore:
    """Features of a frozen trunk, computed when they are first asked for and kept up to a number of bytes."""

    def __init__(
        self,
        network: TrunkNetwork,
        dataset: CocoDataset,
        image_dir: str | Path,
        limit_bytes: int,
        device: torch.device,
    ) -> None:
        self.network, self.dataset, self.image_dir, self.device = network, dataset, Path(image_dir), device
        self.limit_bytes, self.used_bytes = limit_bytes, 0
        self._kept: dict[tuple[int, bool, float], tuple[Features, Scale]] = {}

    def features(self, image_id: int, flip: bool, zoom: float = 1.0) -> tuple[Features, Scale]:
        """The levels of the trunk that the network reads, of an image or its mirror image, see `TrunkNetwork`."""
        key = (image_id, flip, zoom)
        kept = self._kept.get(key)
        if kept is not None:
            return kept
        pixels = torch.from_numpy(read_photo(self.dataset.image_by_id[image_id], self.image_dir))
        image = pixels.to(self.device).permute(2, 0, 1).float() / 255
        with torch.no_grad():
            features, scale = self.network.features(image.flip(2) if flip else image, zoom)
        found = (tuple(level.clone() for level in features[-self.network.levels :]), scale)
        size = sum(level.numel() * level.element_size() for level in found[0])
        if self.used_bytes + size <= self.limit_bytes:
            self._kept[key] = found
            self.used_bytes += size
        return found
