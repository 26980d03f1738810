"""Folds: parts of a data set's exhaustively annotated photos that a run does not see, so that choices between runs need
not be made on the validation photos alone.

Photos that are annotated in part only are always trained on: what a model finds in them cannot be measured.
"""

import dataclasses
import re

import numpy as np

from sharpmask.data.coco import CocoDataset
from sharpmask.errors import ConfigError


def parse_fold(text: str) -> tuple[int, int]:
    """K and N of "K/N", the part K of 1 … N; ConfigError for anything else."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]) or int(match[2]) < 2:
        raise ConfigError(f"fold '{text}': give K/N, part K of N (at least 2) parts, for example 1/5")
    return int(match[1]), int(match[2])


def fold_ids(dataset: CocoDataset, fold: str) -> frozenset[int]:
    """The ids of the exhaustive photos that fold "K/N" leaves out: the N folds share none, and together hold all.

    The photos are dealt out in an order that depends on their ids alone.

    Raises:
        ConfigError: no fold, or fewer exhaustive photos than folds.
    """
    part, parts = parse_fold(fold)
    ids = np.array(sorted(record.id for record in dataset.images if record.exhaustive))
    if len(ids) < parts:
        raise ConfigError(f"fold '{fold}': {dataset.path} has only {len(ids)} exhaustively annotated photos")
    return frozenset(np.random.default_rng(0).permutation(ids)[part - 1 :: parts].tolist())


def without_photos(dataset: CocoDataset, ids: frozenset[int]) -> CocoDataset:
    """The data set without some of its photos and their annotations."""
    return dataclasses.replace(
        dataset,
        images=tuple(record for record in dataset.images if record.id not in ids),
        annotations=tuple(a for a in dataset.annotations if a.image_id not in ids),
    )
