"""What boxes are trained as: the rules, above all those for images whose objects are not all annotated."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from sharpmask.data.coco import Annotation, CocoDataset, ImageRecord
from sharpmask.detection.classes import choose_classes, describe_classes
from sharpmask.detection.losses import box_loss_sum, class_loss_sum
from sharpmask.detection.networks import RoiOutput
from sharpmask.detection.sampling import Assigned, assign, image_truths, sample
from sharpmask.errors import ConfigError, DataError

PERSON, HORSE, HAT = 1, 4, 7


def dataset(*objects: tuple, exhaustive: bool = True) -> CocoDataset:
    """One image of 200 x 200; objects are (category, x, y, w, h) or with True at the end for a crowd."""
    annotations = tuple(
        Annotation(n, 1, category, None, (float(x), float(y), float(w), float(h)), float(w * h), bool(crowd))
        for n, (category, x, y, w, h, *crowd) in enumerate(objects)
    )
    record = ImageRecord(1, "a.jpg", 200, 200, exhaustive)
    return CocoDataset(Path("a.json"), (record,), annotations, {PERSON: "person", HORSE: "horse", HAT: "hat"})


def assigned(
    boxes: list[list[float]], *objects: tuple, exhaustive: bool = True, complete: bool = False, **options: float
) -> Assigned:
    """Boxes xyxy, with the classes person (1) and horse (2) learnt."""
    content = dataset(*objects, exhaustive=exhaustive)
    classes = choose_classes(dataset((PERSON, 0, 0, 9, 9), (HORSE, 0, 0, 9, 9)), names=["person", "horse"])
    return assign(torch.tensor(boxes), image_truths(content, classes, complete_classes=complete)[1], **options)


FAR = [150.0, 150.0, 190.0, 190.0]
ON = [10.0, 10.0, 50.0, 90.0]
HALF = [10.0, 10.0, 50.0, 34.0]  # IoU .3 with the object
OBJECT = (10, 10, 40, 80)


def test_where_everything_is_annotated() -> None:
    found = assigned([ON, HALF, FAR], (HORSE, *OBJECT))
    assert found.labels.tolist() == [2, 0, 0]
    assert found.ious.tolist() == pytest.approx([1.0, 0.3, 0.0])
    assert found.targets[0].tolist() == ON
    assert found.known.all()


def test_where_not_everything_is_annotated() -> None:
    """A box on nothing annotated is ignored; one that touches a person says nothing of horses."""
    found = assigned([ON, HALF, FAR], (PERSON, *OBJECT), exhaustive=False)
    assert found.labels.tolist() == [1, 0, -1]
    assert found.known[:2].tolist() == [[True, True, False]] * 2  # the first only where it is background, see below


def test_where_the_annotated_classes_are_complete() -> None:
    """A box on nothing annotated is no person, and says nothing of horses; without any learnt class it says nothing."""
    found = assigned([ON, HALF, FAR], (PERSON, *OBJECT), exhaustive=False, complete=True)
    assert found.labels.tolist() == [1, 0, 0]
    assert found.known.tolist() == [[True, True, False]] * 3
    found = assigned([ON, FAR], (HAT, *OBJECT), exhaustive=False, complete=True)
    assert found.labels.tolist() == [0, -1] and found.known[0].all()
    crowd = assigned([FAR], (PERSON, *OBJECT), (PERSON, 140, 140, 60, 60, True), exhaustive=False, complete=True)
    assert crowd.labels.tolist() == [-1]
    everything = assigned([ON, FAR], (PERSON, *OBJECT), complete=True)
    assert everything.labels.tolist() == [1, 0] and everything.known.all()


def test_an_object_of_a_class_that_is_not_learnt_is_background() -> None:
    for exhaustive in (True, False):
        found = assigned([ON, FAR], (HAT, *OBJECT), exhaustive=exhaustive)
        assert found.labels.tolist() == [0, 0 if exhaustive else -1]
        assert found.known[0].all()


def test_an_image_without_any_annotation_gives_background_only_if_it_is_exhaustive() -> None:
    assert assigned([ON, FAR]).labels.tolist() == [0, 0]
    assert assigned([ON, FAR], exhaustive=False).labels.tolist() == [-1, -1]


def test_crowds_are_ignored() -> None:
    found = assigned([ON, FAR, [60.0, 10.0, 100.0, 90.0]], (PERSON, *OBJECT), (PERSON, 0, 0, 120, 120, True))
    assert found.labels.tolist() == [1, 0, -1]


def test_background_may_be_asked_to_lie_near_objects() -> None:
    assert assigned([ON, HALF, FAR], (PERSON, *OBJECT), background_from=0.1).labels.tolist() == [1, 0, -1]


def test_of_two_objects_the_nearer_counts() -> None:
    found = assigned([[12.0, 10.0, 52.0, 90.0]], (PERSON, *OBJECT), (HORSE, 12, 10, 40, 84))
    assert found.labels.tolist() == [2]


def test_at_most_a_quarter_are_objects() -> None:
    found = assigned([ON] * 40 + [FAR] * 100, (PERSON, *OBJECT))
    places = sample(found, 64, 0.25, np.random.default_rng(0))
    labels = found.labels[places]
    assert (labels > 0).sum() == 16 and (labels == 0).sum() == 48 and len(places.unique()) == 64
    assert not torch.equal(places, sample(found, 64, 0.25, np.random.default_rng(1)))
    few = sample(assigned([ON] * 3 + [FAR] * 100, (PERSON, *OBJECT)), 64, 0.25, np.random.default_rng(0))
    assert len(few) == 64


def test_ignored_boxes_are_never_drawn() -> None:
    found = assigned([ON] * 5 + [FAR] * 50, (PERSON, *OBJECT), exhaustive=False)
    assert sorted(sample(found, 64, 0.25, np.random.default_rng(0)).tolist()) == [0, 1, 2, 3, 4]


def test_the_loss_of_an_unknown_class_has_no_gradient() -> None:
    found = assigned([HALF], (PERSON, *OBJECT), exhaustive=False)
    logits = torch.randn(1, 1, 3, requires_grad=True)
    output = RoiOutput(logits, torch.zeros(1, 2, 4))
    loss = class_loss_sum(output, found.labels, found.ious, found.known, (50,))
    loss.backward()
    assert logits.grad is not None and logits.grad[0, 0, 2] == 0 and logits.grad[0, 0, 1] > 0
    expected = -logits.detach()[0, 0, :2].log_softmax(0)[0]
    torch.testing.assert_close(loss.detach(), expected)


def test_each_threshold_has_its_own_labels() -> None:
    """A box of IoU .6 is an object to the classifiers of 50, 55 and 60, and background to the others."""
    logits = torch.zeros(4, 1, 3)
    logits[:, 0, 1] = 5.0
    output = RoiOutput(logits, torch.zeros(1, 2, 4))
    known = torch.ones(1, 3, dtype=torch.bool)
    loss = class_loss_sum(output, torch.tensor([1]), torch.tensor([0.6]), known, (50, 60, 65, 75))
    hit, miss = -logits[0, 0].log_softmax(0)[1], -logits[0, 0].log_softmax(0)[0]
    torch.testing.assert_close(loss, (2 * hit + 2 * miss) / 4)


def test_a_loose_box_says_nothing_of_other_classes_to_a_strict_classifier() -> None:
    """IoU .6 with a person, where horses are not annotated: a person to the first, no good person to the second."""
    found = assigned([[10.0, 10.0, 50.0, 58.0]], (PERSON, *OBJECT), exhaustive=False)
    assert found.labels.tolist() == [1] and found.ious[0] == pytest.approx(0.6)
    logits = torch.randn(2, 1, 3, requires_grad=True)
    class_loss_sum(RoiOutput(logits, torch.zeros(1, 2, 4)), found.labels, found.ious, found.known, (50, 75)).backward()
    assert logits.grad is not None
    horse = logits.grad[:, 0, 2]
    assert horse[0] > 0 and horse[1] == 0


def test_the_box_loss_is_that_of_the_true_class() -> None:
    deltas = torch.zeros(2, 2, 4, requires_grad=True)
    loss = box_loss_sum(deltas, torch.tensor([2, 0]), torch.tensor([[3.0, 0.0, 0.5, 0.0], [9.0, 9.0, 9.0, 9.0]]))
    assert loss.item() == pytest.approx(2.5 + 0.125)
    loss.backward()
    assert deltas.grad is not None and deltas.grad[0, 1].abs().sum() > 0
    assert deltas.grad[0, 0].abs().sum() == 0 and deltas.grad[1].abs().sum() == 0


def test_what_a_model_found_is_of_no_class() -> None:
    """Neither a class of its own, nor background to the classes that are learnt: as if it were not annotated."""
    content = dataset((PERSON, 100, 100, 40, 40), (HAT, *OBJECT), exhaustive=False)
    found = dataclasses.replace(content.annotations[1], pseudo=True)
    content = dataclasses.replace(content, annotations=(content.annotations[0], found))
    classes = choose_classes(content)
    assert [entry.name for entry in classes] == ["person"]
    assert assign(torch.tensor([ON]), image_truths(content, classes)[1]).labels.tolist() == [-1]


def test_what_lies_outside_the_photo_is_no_object() -> None:
    content = dataset((PERSON, 100, 100, 40, 40), (HORSE, 5000, 10, 40, 40), (HORSE, -39.5, 10, 40, 40))
    assert [entry.name for entry in choose_classes(content)] == ["person"]
    assert image_truths(content, choose_classes(content))[1].labels.tolist() == [1]


def test_classes_are_those_with_enough_examples_or_those_named() -> None:
    content = dataset((PERSON, *OBJECT), (PERSON, *OBJECT), (HORSE, *OBJECT), (PERSON, *OBJECT, True))
    assert [(c.id, c.name, c.examples) for c in choose_classes(content, min_examples=2)] == [(PERSON, "person", 2)]
    named = choose_classes(content, names=["horse", "person"], min_examples=50)
    assert [c.name for c in named] == ["person", "horse"]
    assert describe_classes(named, content).endswith("person (2), horse (1); 1 classes are left out")
    with pytest.raises(ConfigError, match="no class 'cow'; it has: person, horse, hat"):
        choose_classes(content, names=["cow"])
    with pytest.raises(DataError, match="no class has 9 objects"):
        choose_classes(content, min_examples=9)
    with pytest.raises(DataError, match="no object of the class 'hat'"):
        choose_classes(content, names=["hat"])
