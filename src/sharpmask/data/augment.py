"""Augmentation beyond the canonical jitter: colour, greyscale, larger scale jitter, copy-paste. All of it is off by
default.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance

from sharpmask.errors import ConfigError

# no more of the object than this may be covered by a pasted one, else the target is not worth asking for
MAX_COVERED = 0.4


@dataclass(frozen=True)
class Augmentation:
    """How strongly training examples are varied; all zero: the canonical examples of the papers."""

    colour: float = 0.0
    """brightness, contrast and saturation are each multiplied by a factor within 1 - colour and 1 + colour"""
    grayscale: float = 0.0
    """probability of an example without colour"""
    extra_scale: float = 0.0
    """octaves added on both sides to the scale jitter of positives"""
    copy_paste: float = 0.0
    """probability of an object of another photo pasted beside, or over an edge of, the centred one"""

    def __post_init__(self) -> None:
        for name in ("colour", "grayscale", "copy_paste"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"augmentation.{name} must be between 0 and 1, it is {getattr(self, name)}")
        if not 0 <= self.extra_scale <= 3:
            raise ConfigError(f"augmentation.extra_scale must be between 0 and 3 octaves, it is {self.extra_scale}")


def vary_colour(patch: np.ndarray, rng: np.random.Generator, augmentation: Augmentation) -> np.ndarray:
    """Colour jitter and greyscale of a uint8 RGB (H, W, 3) patch; returns an array that may be written to."""
    image = Image.fromarray(patch)
    if augmentation.colour:
        factors = 1 + rng.uniform(-augmentation.colour, augmentation.colour, size=3)
        enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
        for number in rng.permutation(3):
            image = enhancers[number](image).enhance(max(0.0, float(factors[number])))
    if augmentation.grayscale and rng.random() < augmentation.grayscale:
        image = image.convert("L").convert("RGB")
    return np.array(image)


def blend(patch: np.ndarray, pasted: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """`pasted` over `patch`, both uint8 (H, W, 3), by `alpha` uint8 (H, W), 255 where only `pasted` shows."""
    return np.array(Image.composite(Image.fromarray(pasted), Image.fromarray(patch), Image.fromarray(alpha)))
