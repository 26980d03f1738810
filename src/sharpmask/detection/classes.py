"""Which classes a detector learns: those with enough examples, or those that are named."""

from collections.abc import Sequence
from dataclasses import dataclass

from sharpmask.data.coco import Annotation, CocoDataset
from sharpmask.errors import ConfigError, DataError


@dataclass(frozen=True)
class DetectorClass:
    """A class: its id in the annotations (and in results), its name, and how many objects it was learnt from."""

    id: int
    name: str
    examples: int = 0


def is_object(annotation: Annotation, dataset: CocoDataset) -> bool:
    """Whether the annotation is one object with a box within an image that is listed; not where a model found it, which
    does not tell of what class it is."""
    record = dataset.image_by_id.get(annotation.image_id)
    if record is None or annotation.category_id not in dataset.categories or annotation.iscrowd or annotation.pseudo:
        return False
    x, y, width, height = annotation.bbox
    visible = (min(x + width, record.width) - max(x, 0), min(y + height, record.height) - max(y, 0))
    return min(visible) >= 1


def choose_classes(dataset: CocoDataset, *, names: Sequence[str] = (), min_examples: int = 1) -> list[DetectorClass]:
    """The classes to learn, in the order of their ids.

    Args:
        names: these, however few examples they have.
        min_examples: without names, those with at least so many objects.

    Raises:
        ConfigError: a name that the annotations do not have.
        DataError: no class has enough examples, or a named one has none.
    """
    counts = dict.fromkeys(dataset.categories, 0)
    for annotation in dataset.annotations:
        if is_object(annotation, dataset):
            counts[annotation.category_id] += 1
    unknown = [name for name in names if name not in dataset.categories.values()]
    if unknown:
        known = ", ".join(dataset.categories.values())
        raise ConfigError(f"{dataset.path} has no class '{unknown[0]}'; it has: {known}")
    chosen = [
        DetectorClass(key, name, counts[key])
        for key, name in sorted(dataset.categories.items())
        if (name in names if names else counts[key] >= max(1, min_examples))
    ]
    if not chosen:
        raise DataError(f"{dataset.path}: no class has {min_examples} objects; lower min_examples")
    empty = [entry.name for entry in chosen if entry.examples == 0]
    if empty:
        raise DataError(f"{dataset.path}: there is no object of the class '{empty[0]}' to learn from")
    return chosen


def describe_classes(classes: Sequence[DetectorClass], dataset: CocoDataset) -> str:
    """A line that says which classes are learnt and how many are left out."""
    left = len(dataset.categories) - len(classes)
    named = ", ".join(f"{entry.name} ({entry.examples})" for entry in classes)
    return f"{len(classes)} classes with their examples: {named}" + (f"; {left} classes are left out" if left else "")
