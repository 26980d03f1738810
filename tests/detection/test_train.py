"""Whole detector runs: what they leave, resume, flags of images, bad input."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from detector_runs import detector_run, train_in_processes
from detectors import tiny
from safetensors.torch import load_file, save_file

from sharpmask.checkpoints.store import load_network, read_safetensors
from sharpmask.cli.main import build_parser, main
from sharpmask.cli.train_detector import detector_config, rewrite
from sharpmask.data.coco import read_coco
from sharpmask.detection.classes import DetectorClass, choose_classes
from sharpmask.detection.config import DetectorConfig, detector_config_file
from sharpmask.detection.features import FeatureStore
from sharpmask.detection.networks import TrunkNetwork, build_detector
from sharpmask.detection.proposal_boxes import compute_proposals, read_proposals
from sharpmask.detection.sampling import assign, image_truths
from sharpmask.detection.specs import DETECTORS
from sharpmask.detection.store import load_detector, load_detector_trunk
from sharpmask.detection.train import DetectorTask, initial_detector, train_detector
from sharpmask.detection.validation import validation_part
from sharpmask.errors import ConfigError, DataError, ModelError, SharpMaskError
from sharpmask.proposals.proposer import Proposer
from sharpmask.training import loop
from sharpmask.training.distributed import World


def log_of(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def weights(output: Path) -> dict[str, torch.Tensor]:
    return read_safetensors(output / "detector.safetensors")[0]


@pytest.fixture(scope="module")
def finished(two_kinds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run with validation."""
    output = tmp_path_factory.mktemp("runs") / "whole"
    train_detector(_validated(two_kinds, output))
    return output


def _validated(folder: Path, output: Path) -> DetectorConfig:
    truth, proposals = str(folder / "truth.json"), str(folder / "proposals.json")
    return detector_run(
        folder, output, val_annotations=truth, val_images=str(folder), val_proposals=proposals, validate_every=2
    )


def test_a_run_makes_a_detector_that_names_its_classes(finished: Path) -> None:
    network, classes = load_detector(finished / "detector.safetensors")
    assert [(entry.id, entry.name, entry.examples) for entry in classes] == [(3, "disc", 6), (8, "square", 6)]
    assert not network.training and network.spec.short_side == 96
    log = log_of(finished)
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2, 3, 4]
    assert all({"class_loss", "box_loss", "images_per_second"} <= entry.keys() for entry in log if "loss" in entry)
    assert [entry["step"] for entry in log if "box_ap" in entry] == [2, 4]


def test_a_frozen_bundled_trunk_is_named_instead_of_stored(finished: Path) -> None:
    tensors, metadata = read_safetensors(finished / "detector.safetensors")
    assert metadata["trunk_of"] == "sharpmask-lite0"
    assert not any(name.startswith("trunk.") for name in tensors)


def test_another_trunk_under_the_bundled_ones_name_is_noticed(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = load_network("sharpmask-lite0")
    next(iter(other.deepmask.trunk.parameters())).data += 0.01
    monkeypatch.setattr("sharpmask.detection.store.load_network", lambda name: other)
    with pytest.raises(ModelError, match="on the trunk of another 'sharpmask-lite0' than this version has"):
        load_detector(finished / "detector.safetensors")


def test_a_trained_trunk_is_stored(two_kinds: Path, tmp_path: Path) -> None:
    train_detector(detector_run(two_kinds, tmp_path, steps=1, trunk_factor=1.0))
    tensors, _ = read_safetensors(tmp_path / "detector.safetensors")
    assert any(name.startswith("trunk.") for name in tensors)
    load_detector(tmp_path / "detector.safetensors")


def test_box_targets_are_normalised_by_their_statistics(two_kinds: Path, finished: Path) -> None:
    network, _ = load_detector(finished / "detector.safetensors")
    dataset = read_coco(two_kinds / "truth.json")
    truths = image_truths(dataset, choose_classes(dataset))
    proposals = read_proposals(two_kinds / "proposals.json", dataset, count=1000)
    numbers = []
    for image_id, truth in truths.items():
        boxes = torch.cat([truth.boxes, proposals[image_id]])
        found = assign(boxes, truth)
        own = found.labels > 0
        numbers.append(network.encode(boxes[own], found.targets[own]))
    joined = torch.cat(numbers)
    torch.testing.assert_close(joined.mean(dim=0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(joined.std(dim=0, correction=0), torch.ones(4), atol=1e-4, rtol=0)


@pytest.mark.parametrize("detector", ["fast-rcnn-lite0", "multipathnet-lite0", "multipathnet-lite0-c4"])
def test_every_trained_weight_changes(two_kinds: Path, tmp_path: Path, detector: str) -> None:
    trunk_weights = None if detector.endswith("-c4") else "sharpmask-lite0"
    config = detector_run(
        two_kinds, tmp_path, detector=detector, trunk_weights=trunk_weights, trunk_factor=0.5, steps=2, average=0.0
    )
    dataset = read_coco(config.annotations)
    task = DetectorTask(config, dataset, choose_classes(dataset), torch.device("cpu"), World())
    before = {name: p.detach().clone() for name, p in task.network.named_parameters()}
    assert {name for name, _ in before.items()} == {
        name for name, p in task.network.named_parameters() if any(p is item.parameter for item in task.trained())
    }
    loop.run_loop(task, config, tmp_path, World(), None)
    assert [name for name, p in task.network.named_parameters() if torch.equal(p, before[name])] == []


def test_a_trunk_can_wait(two_kinds: Path, tmp_path: Path) -> None:
    config = detector_run(two_kinds, tmp_path, trunk_factor=0.5, trunk_start=1, average=0.0)
    dataset = read_coco(config.annotations)
    task = DetectorTask(config, dataset, choose_classes(dataset), torch.device("cpu"), World())
    starts = {id(item.parameter): item.start for item in task.trained()}
    trunk = {id(parameter) for parameter in task.network.trunk.parameters()}
    assert {starts[i] for i in trunk} == {1} and {start for i, start in starts.items() if i not in trunk} == {0}


@pytest.mark.parametrize("head_factor", [0.0, 0.1])
def test_the_classifiers_stages_have_a_learning_rate_of_their_own(
    two_kinds: Path, tmp_path: Path, head_factor: float
) -> None:
    config = detector_run(
        two_kinds, tmp_path, detector="multipathnet-lite0-c4", trunk_weights=None, head_factor=head_factor
    )
    dataset = read_coco(config.annotations)
    task = DetectorTask(config, dataset, choose_classes(dataset), torch.device("cpu"), World())
    factors = {id(item.parameter): item.factor for item in task.trained()}
    given = {name: factors.get(id(p), 0.0) for name, p in task.network.named_parameters()}
    assert {name: value for name, value in given.items() if name.startswith("trunk.") and value} == {}
    assert {value for name, value in given.items() if name.startswith("heads.0.c5.")} == {head_factor}
    assert given["heads.0.where.weight"] == given["classifiers.0.weight"] == given["regressor.weight"] == 1.0


@pytest.mark.parametrize("variant", ["lite0", "lite2"])
def test_an_imagenet_file_fills_trunk_and_head(shared: Path, variant: str) -> None:
    network = build_detector(dataclasses.replace(DETECTORS[f"multipathnet-{variant}-c4"], hidden=8), 2)
    file = shared / "weights" / f"tf_efficientnet_{variant}.fp16.safetensors"
    load_detector_trunk(network, str(file))
    state = load_file(file)
    for ours, public in (("trunk.conv_stem", "conv_stem"), ("heads.0.c5.conv_head", "conv_head")):
        assert torch.equal(network.get_parameter(f"{ours}.weight"), state[f"{public}.weight"].float())


def test_a_trunk_comes_from_any_trained_network(finished: Path) -> None:
    """A bundled proposal model, a bundled detector, or a file of one."""
    lite0 = DETECTORS["fast-rcnn-lite0"]
    lite2 = dataclasses.replace(lite0, trunk="efficientnet_lite2")
    cases = (
        ("sharpmask-lite0", lite0, load_network("sharpmask-lite0").deepmask.trunk),
        (str(finished / "detector.safetensors"), lite0, load_detector(finished / "detector.safetensors")[0].trunk),
        ("detector-lite2", lite2, load_detector("detector-lite2")[0].trunk),
    )
    for source, spec, trunk in cases:
        network = build_detector(spec, 2)
        load_detector_trunk(network, source)
        assert torch.equal(network.trunk.conv_stem.weight, trunk.conv_stem.weight)
        other = build_detector(DETECTORS["fast-rcnn-lite2-c4"], 2)
        with pytest.raises(ModelError, match="has no stages after the trunk"):
            load_detector_trunk(other, source)


def test_a_file_without_the_classifiers_stages_is_named(shared: Path) -> None:
    network = build_detector(DETECTORS["fast-rcnn-resnet50-caffe-c4"], 2)
    file = shared / "weights" / "resnet50_keras_caffe_trunk_layer1to3.fp16.safetensors"
    with pytest.raises(ModelError, match=r"not an ImageNet file of all of 'resnet50': no 'layer4\.0"):
        load_detector_trunk(network, str(file))


def test_a_frozen_trunk_gives_the_same_losses_from_pixels_and_from_the_store(two_kinds: Path, tmp_path: Path) -> None:
    """With the average off the first step's loss depends on the features alone."""
    for name, factor in (("frozen", 0.0), ("free", 1e-9)):
        train_detector(detector_run(two_kinds, tmp_path / name, trunk_factor=factor, steps=1))
    frozen, free = (log_of(tmp_path / name)[0]["loss"] for name in ("frozen", "free"))
    assert frozen == pytest.approx(free, rel=1e-5)


def test_memory_for_features_changes_nothing(two_kinds: Path, finished: Path, tmp_path: Path) -> None:
    train_detector(dataclasses.replace(_validated(two_kinds, tmp_path), cache_gigabytes=0.0))
    one, two = weights(finished), weights(tmp_path)
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


def test_runs_share_the_features_of_a_trunk_that_is_frozen(
    two_kinds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those with all levels serve a detector that reads the last; each photo goes through the trunk once."""
    config = detector_run(two_kinds, tmp_path / "own", steps=12, flip=False)
    train_detector(config)
    network = initial_detector(dataclasses.replace(config, detector="multipathnet-lite0"), [DetectorClass(1, "object")])
    store = FeatureStore(network, read_coco(config.annotations), two_kinds, 2**30, torch.device("cpu"))
    passed, features = [], TrunkNetwork.features
    monkeypatch.setattr(TrunkNetwork, "features", lambda self, *given: passed.append(1) or features(self, *given))
    for name in ("one", "two"):
        train_detector(dataclasses.replace(config, output=str(tmp_path / name)), store=store)
    own, one, two = (weights(tmp_path / name) for name in ("own", "one", "two"))
    assert [key for key in own if not torch.equal(own[key], one[key]) or not torch.equal(own[key], two[key])] == []
    assert len(passed) == len(store.dataset.image_by_id)


def test_losses_of_parts_of_a_batch_sum_to_its_own(two_kinds: Path, tmp_path: Path) -> None:
    """So that several processes, which share a batch out and divide by the whole count, learn what one learns."""
    config = detector_run(two_kinds, tmp_path, detector="multipathnet-lite0")
    dataset = read_coco(config.annotations)
    task = DetectorTask(config, dataset, choose_classes(dataset), torch.device("cpu"), World())
    task.network.eval()
    examples = [task.examples[i] for i in range(3)]
    whole, count = task.losses(examples)
    parts = [task.losses([example]) for example in examples]
    for name in ("class_loss", "box_loss"):
        torch.testing.assert_close(torch.stack([sums[name] for sums, _ in parts]).sum(), whole[name])
    assert sum(part for _, part in parts) == count == 3 * 16


def test_stopped_and_resumed_equals_uninterrupted(
    two_kinds: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _validated(two_kinds, tmp_path)
    keep, calls = loop.save_checkpoint, []

    def stop_after_three(*arguments: object, **options: object) -> None:
        keep(*arguments, **options)  # type: ignore[arg-type]
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_checkpoint", stop_after_three)
    with pytest.raises(KeyboardInterrupt):
        train_detector(config)
    monkeypatch.undo()
    assert not (tmp_path / "detector.safetensors").exists()
    with pytest.raises(ConfigError, match="--resume"):
        train_detector(config)
    with pytest.raises(ConfigError, match="another seed"):
        train_detector(dataclasses.replace(config, seed=3), resume=True)
    train_detector(config, resume=True)
    whole, broken = weights(finished), weights(tmp_path)
    assert whole.keys() == broken.keys() and [k for k in whole if not torch.equal(whole[k], broken[k])] == []


def test_proposals_are_computed_once(two_kinds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = read_coco(two_kinds / "truth.json")
    options = {"model": "sharpmask-lite0", "count": 12, "cache": tmp_path / "p.jsonl", "device": "cpu"}
    first = compute_proposals(dataset, two_kinds, **options)
    assert all(0 < len(boxes) <= 12 for boxes in first.values())
    # A stop has cut the last line: that photo is proposed for again, the others are not.
    text = (tmp_path / "p.jsonl").read_text()
    (tmp_path / "p.jsonl").write_text(text[:-20])
    seen, propose = [], Proposer.propose
    monkeypatch.setattr(Proposer, "propose", lambda self, image: seen.append(1) or propose(self, image))
    again = compute_proposals(dataset, two_kinds, **options)
    assert len(seen) == 1 and (tmp_path / "p.jsonl").read_text() == text
    assert all(torch.equal(first[i], again[i]) for i in first)
    with pytest.raises(ConfigError, match="another model, number or data set"):
        compute_proposals(dataset, two_kinds, **{**options, "count": 13})
    (tmp_path / "p.jsonl").write_text(text.replace('"boxes"', '"bxs"'))
    with pytest.raises(DataError, match=r"p\.jsonl is damaged"):
        compute_proposals(dataset, two_kinds, **options)


def test_a_file_that_is_no_cache_of_proposals_stays_as_it_is(two_kinds: Path, tmp_path: Path) -> None:
    dataset, mine = read_coco(two_kinds / "truth.json"), tmp_path / "results.json"
    mine.write_text('[{"image_id": 1, "bbox": [0, 0, 5, 5], "score": 1}]')  # one line, as json.dump writes it
    with pytest.raises(ConfigError, match=r"results\.json holds something else"):
        compute_proposals(dataset, two_kinds, model="sharpmask-lite0", count=12, cache=mine, device="cpu")
    assert mine.read_text().startswith("[{")


def test_boxes_alone_are_enough(two_kinds: Path, tmp_path: Path) -> None:
    content = json.loads((two_kinds / "truth.json").read_text())
    for annotation in content["annotations"]:
        del annotation["segmentation"]
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    given = {"annotations": str(tmp_path / "boxes.json"), "steps": 1}
    train_detector(detector_run(two_kinds, tmp_path / "run", **given))
    content["images"][3]["width"] = 161
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"4\.png: is not of the size of its record, 161x120"):
        train_detector(detector_run(two_kinds, tmp_path / "other", **given))


def test_photos_that_are_not_exhaustive_are_not_measured_on(two_kinds: Path, tmp_path: Path) -> None:
    content = json.loads((two_kinds / "truth.json").read_text())
    for image in content["images"][:4]:
        image["exhaustive"] = False
    (tmp_path / "val.json").write_text(json.dumps(content))
    dataset = read_coco(tmp_path / "val.json")
    chosen = validation_part(dataset, two_kinds, 100)
    assert [r.id for r in chosen.images] == [5, 6] and {a.image_id for a in chosen.annotations} == {5, 6}
    assert [r.id for r in validation_part(dataset, two_kinds, 1).images] == [5]
    none = dataclasses.replace(dataset, images=dataset.images[:4])
    with pytest.raises(DataError, match="no photo is annotated exhaustively"):
        validation_part(none, two_kinds, 100)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"detector": "yolo"}, ConfigError, "no detector named 'yolo'"),
        ({"classes": ("cow",)}, ConfigError, "no class 'cow'"),
        ({"classes": ("star",)}, DataError, "no object of the class 'star'"),
        ({"min_examples": 7}, DataError, "no class has 7 objects"),
        ({"proposals": "absent.json"}, DataError, "absent.json"),
        ({"annotations": "absent.json"}, DataError, "absent.json"),
        ({"images": "absent"}, DataError, "absent"),
        ({"trunk_weights": "absent.safetensors"}, SharpMaskError, "absent.safetensors"),
        ({"trunk_weights": "sharpmask-lite0", "detector": "fast-rcnn-resnet50"}, ModelError, "another trunk"),
        ({"start_from": "absent.safetensors", "trunk_weights": None}, ModelError, "absent.safetensors"),
        ({"start_from": "absent"}, ConfigError, "trunk_weights=sharpmask-lite0 would not be used"),
        ({"start_from": "absent", "trunk_weights": None}, ConfigError, "neither a bundled detector"),
        ({"detector": "fast-rcnn-lite0-c4"}, ModelError, "has no stages after the trunk"),
        ({"head_factor": -1.0}, ConfigError, "head_factor"),
        ({"trunk_weights": None}, ConfigError, "a frozen trunk .* needs weights"),
        ({"validation_photos": 0}, ConfigError, "validation_photos 0"),
        ({"repeat_below": 2.0}, ConfigError, "repeat_below 2"),
        ({"zooms": ()}, ConfigError, "zooms must be"),
        ({"zooms": (1.0, 0.0)}, ConfigError, "zooms must be"),
        ({"jitter": -1}, ConfigError, "jitter must not be negative"),
        ({"steps": 0}, ConfigError, "steps"),
        ({"milestones": (1,)}, ConfigError, "milestones and factors"),
        ({"trunk_factor": -1.0}, ConfigError, "trunk_factor"),
        ({"keep_checkpoints": 0}, ConfigError, "keep_checkpoints"),
        ({"val_images": "v"}, ConfigError, "val_annotations and val_images"),
    ],
)
def test_bad_settings_are_named(
    two_kinds: Path, tmp_path: Path, changes: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train_detector(detector_run(two_kinds, tmp_path, **changes))
    assert not (tmp_path / "detector.safetensors").exists()


def test_a_loss_that_is_no_number_stops_the_run(two_kinds: Path, tmp_path: Path) -> None:
    with pytest.raises(SharpMaskError, match="no longer a number"):
        train_detector(detector_run(two_kinds, tmp_path, learning_rate=1e30, clip=0.0, steps=4))


def test_several_processes_learn_what_one_learns(two_kinds: Path, tmp_path: Path) -> None:
    one, two = (detector_run(two_kinds, tmp_path / name, device="cpu", threads=1) for name in ("one", "two"))
    assert train_in_processes(one, 1) == [0] and train_in_processes(two, 2) == [0, 0]
    for single, shared in zip(log_of(tmp_path / "one"), log_of(tmp_path / "two"), strict=True):
        assert shared["loss"] == pytest.approx(single["loss"], rel=1e-4)
    third = dataclasses.replace(one, output=str(tmp_path / "three"), proposals=None)
    assert train_in_processes(third, 2) == [2, 2] and not (tmp_path / "three").exists()


def test_classes_that_both_know_are_taken_from_the_detector_a_run_starts_from(
    two_kinds: Path, finished: Path, tmp_path: Path
) -> None:
    start = finished / "detector.safetensors"
    config = detector_run(two_kinds, tmp_path, start_from=str(start), trunk_weights=None)
    given, known = load_detector(start)
    assert [entry.name for entry in known] == ["disc", "square"]
    star, square = DetectorClass(9, "star"), DetectorClass(8, "square")
    for classes, places in (([square], [1]), ([square, star], [1, None]), ([star, square], [None, 1])):
        own = initial_detector(config, classes)
        assert torch.equal(own.head.fc6.weight, given.head.fc6.weight)
        assert torch.equal(own.classifier.weight[0], given.classifier.weight[0])
        for place, source in enumerate(places):
            same = torch.equal(own.classifier.weight[place + 1], given.classifier.weight[(source or 0) + 1])
            rows = own.regressor.weight[4 * place : 4 * place + 4]
            assert same == torch.equal(rows, given.regressor.weight[4 * (source or 0) :][:4]) == (source is not None)


def test_other_box_statistics_leave_the_boxes(finished: Path) -> None:
    network, _ = load_detector(finished / "detector.safetensors")
    torch.manual_seed(0)
    x, boxes = torch.rand(3, network.head.out_features), torch.tensor([[10.0, 20, 50, 80]] * 3)
    before = network.correct(boxes, network.regressor(x).unflatten(1, (2, 4)), (200, 200))
    mean, std = torch.tensor([0.1, -0.2, 0.3, 0.0]), torch.tensor([0.5, 0.2, 2.0, 1.0])
    network.set_box_statistics(mean, std)
    after = network.correct(boxes, network.regressor(x).unflatten(1, (2, 4)), (200, 200))
    assert torch.equal(network.box_mean, mean) and torch.equal(network.box_std, std)
    torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-5)
    assert (after != boxes[:, None]).any()


def test_vgg_brings_its_fully_connected_layers(tmp_path: Path) -> None:
    """With torchvision's names; Fast R-CNN starts from them."""
    network = build_detector(tiny("multipathnet-vgg16"), 2)
    state = {name: torch.rand_like(tensor) for name, tensor in network.trunk.state_dict().items()}
    fc6, fc7 = network.heads[0].fc6.weight, network.heads[0].fc7.weight
    state |= {"classifier.0.weight": torch.rand_like(fc6), "classifier.0.bias": torch.rand(len(fc6))}
    state |= {"classifier.3.weight": torch.rand(len(fc7), 5), "classifier.3.bias": torch.rand(len(fc7))}  # another size
    save_file(state, tmp_path / "vgg.safetensors")
    before = fc7.clone()
    load_detector_trunk(network, str(tmp_path / "vgg.safetensors"))
    for head in network.heads:
        assert torch.equal(head.fc6.weight, state["classifier.0.weight"])
        assert torch.equal(head.fc6.bias, state["classifier.0.bias"])
    assert torch.equal(network.heads[0].fc7.weight, before)


def test_a_run_can_start_from_a_detector(two_kinds: Path, finished: Path, tmp_path: Path) -> None:
    start = str(finished / "detector.safetensors")
    train_detector(
        detector_run(
            two_kinds, tmp_path, start_from=start, trunk_weights=None, classes=("disc",), steps=1, learning_rate=1e-9
        )
    )
    network, classes = load_detector(tmp_path / "detector.safetensors")
    assert [entry.name for entry in classes] == ["disc"]
    torch.testing.assert_close(network.head.fc6.weight, load_detector(start)[0].head.fc6.weight, atol=1e-4, rtol=1e-2)


@pytest.mark.parametrize("name", ["detector-cpu", "detector-coco", "detector-lite2"])
def test_shipped_configs(name: str) -> None:
    arguments = rewrite(["--config", name, "annotations=a", "images=b", "output=c", "classes=[person,car]"])
    config = detector_config(build_parser("train-detector").parse_args(arguments))
    assert config.detector in DETECTORS and config.classes == ("person", "car")
    assert config.trunk_weights == ("sharpmask-lite0" if name == "detector-cpu" else None)
    with pytest.raises(ConfigError, match="detector-coco, detector-cpu, detector-lite2"):
        detector_config_file("small-cpu")


def test_the_command(two_kinds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--config=detector-cpu", f"annotations={two_kinds}/truth.json", f"images={two_kinds}"]
    arguments += [
        f"proposals={two_kinds}/proposals.json",
        f"output={tmp_path}",
        "min_examples=5",
        "steps=2",
        "warmup=0",
    ]
    assert main(["train-detector", *arguments, "short_side=64"]) == 0
    out, err = capsys.readouterr()
    assert out == f"trained detector: {tmp_path}/detector.safetensors\n"
    assert "2 classes with their examples: disc (6), square (6); 1 classes are left out" in err
    assert main(["train-detector", *arguments, "rois=0"]) == 2
    assert main(["train-detector", *arguments, "short_side=64"]) == 2
    errors = capsys.readouterr().err
    assert "rois must be positive" in errors and "--resume" in errors and "Traceback" not in errors
