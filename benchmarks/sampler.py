"""Patches a second that the training sampler makes in one process.

    python benchmarks/sampler.py --annotations ANN.json --images DIR [--count 500]

Cold: every photo is decoded for its patch. Cached: photos are in memory, the state of a run after its first epoch.
"""

import argparse
import time
from pathlib import Path

from sharpmask.data.augment import Augmentation
from sharpmask.data.coco import read_coco
from sharpmask.data.examples import ExampleDataset


def rate(examples: ExampleDataset, first: int, count: int) -> float:
    """Examples a second of the numbers first, first + 2, …: even ones are positives, odd ones negatives."""
    begin = time.perf_counter()
    for index in range(first, first + 2 * count, 2):
        examples[index]
    return count / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--count", type=int, default=500, help="patches of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache-gib", type=float, default=2.0)
    args = parser.parse_args()

    begin = time.perf_counter()
    dataset = read_coco(args.annotations)
    print(f"read {len(dataset.annotations)} annotations in {time.perf_counter() - begin:.2f} s")

    def make(cache_bytes: int, augmentation: Augmentation) -> ExampleDataset:
        return ExampleDataset(
            dataset=dataset,
            image_dir=args.images,
            seed=args.seed,
            length=2 * args.count,
            batches="joint",
            augmentation=augmentation,
            cache_bytes=cache_bytes,
        )

    plain = Augmentation()
    cold = make(0, plain)
    print(f"{'':32}{'positives':>12}{'negatives':>12}   patches/s")
    few = max(2, args.count // 5)
    print(f"{'cold':32}{rate(cold, 0, few):12.0f}{rate(cold, 1, few):12.0f}")
    variants = {
        "cached": plain,
        "cached, colour 0.4": Augmentation(colour=0.4),
        "cached, copy-paste 1": Augmentation(copy_paste=1.0),
    }
    cached = make(int(args.cache_gib * 2**30), plain)
    begin = time.perf_counter()
    photos = cached.preload(progress=True)
    used = cached.photos.used_bytes / 2**30
    print(f"preloaded {photos} photos, {used:.2f} GiB, in {time.perf_counter() - begin:.1f} s")
    for name, augmentation in variants.items():
        examples = make(0, augmentation)
        examples.photos = cached.photos
        print(f"{name:32}{rate(examples, 0, args.count):12.0f}{rate(examples, 1, args.count):12.0f}")


if __name__ == "__main__":
    main()
