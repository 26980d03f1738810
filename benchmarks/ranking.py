"""How to rank proposals: photos are searched once, then many re-rankings of what was found are measured in seconds.

    python benchmarks/ranking.py search CACHE --images DIR --annotations ANN.json [--photos 100] [--zoom 1]
        [--windows 1500] [--half-steps] [--model NAME]
    python benchmarks/ranking.py study CACHE --annotations ANN.json [--fit CACHE --fit-annotations ANN.json]
        [--half-steps CACHE] [--json OUT.json]

`search` keeps for each exhaustively annotated photo the windows, scores, scales, stabilities and run-length codes of
its best windows, more of them than the 1,000 that count, in CACHE/<image id>.pickle; a photo that is there is left as
it is, so that a stopped search goes on. `study` prints one row for each re-ranking, as a Markdown table: mask
AR@10/100/1000 and AUC, and the difference to the paper's setting (the network's score alone, nothing dropped) with its
paired bootstrap interval. What has to be fitted (offsets of the scales) is fitted on another cache, of photos of the
training set.
`--half-steps` takes a cache of the same photos searched with `--half-steps`.
"""

import argparse
import json
import pickle
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sharpmask.allocator import keep_freed_memory
from sharpmask.evaluation.bootstrap import Estimate
from sharpmask.evaluation.inputs import Annotations, read_annotations, read_json
from sharpmask.evaluation.masks import mask_ious
from sharpmask.evaluation.recall import AREAS, TOP, Ranks, Recall, compare_recalls, match_ranks, recall_of_ranks
from sharpmask.files import atomic_write
from sharpmask.indexing import evenly
from sharpmask.proposals.overlaps import Overlaps
from sharpmask.proposals.ranking import ABOVE, STABILITY_WEIGHT, Pairs, linear, overlapping_pairs, soft_order

METRICS = ("AR@10", "AR@100", "AR@1000", "AUC")
LEAST = 0.2  # smallest IoU that any of the re-rankings asks for


def search(arguments: argparse.Namespace) -> None:
    """Fill the cache."""
    from sharpmask import load

    truth = read_json(arguments.annotations)
    photos = [photo for photo in truth["images"] if photo.get("exhaustive", True)]
    if arguments.photos:
        photos = evenly(photos, arguments.photos)
    arguments.cache.mkdir(parents=True, exist_ok=True)
    proposer = load(
        arguments.model,
        top=arguments.windows,
        zoom=arguments.zoom,
        half_steps=arguments.half_steps,
        ranking="paper",
        stability_offset=1.0,
    )
    for photo in tqdm(photos, unit="photo"):
        path = arguments.cache / f"{photo['id']}.pickle"
        if path.exists():
            continue
        found = proposer.propose(arguments.images / photo["file_name"])
        with atomic_write(path) as target:
            target.write_bytes(pickle.dumps({"image_id": photo["id"], **vars(found)}))


@dataclass(frozen=True)
class Found:
    """What a photo's re-ranking may use: arrays over its N decoded windows, best first.

    Attributes:
        logits: (N,) of the score.
        scales: (N,) exponents of two.
        stability: (N,), see `Proposals`.
        pairs: masks that overlap by `LEAST` or more.
        truth: (N, G) IoU with the photo's objects, for the measurement and for fitting alone.
    """

    image_id: int
    logits: np.ndarray
    scales: np.ndarray
    stability: np.ndarray
    pairs: Pairs
    truth: np.ndarray


# From a photo to the places of its masks, best first.
Rule = Callable[[Found], np.ndarray]


def read_cache(cache: Path, annotations: Path) -> tuple[Annotations, list[Found]]:
    """The annotations of the photos that the cache holds, and what was found in each; overlaps are kept beside it."""
    content = read_json(annotations)
    files = {int(path.stem): path for path in sorted(cache.glob("*.pickle"))}
    content["images"] = [photo for photo in content["images"] if photo["id"] in files]
    kept = {photo["id"] for photo in content["images"]}
    content["annotations"] = [record for record in content["annotations"] if record["image_id"] in kept]
    truth = read_annotations(content)
    found = []
    for image_id in tqdm(truth.image_ids, desc="overlaps", unit="photo", leave=False):
        path = files[int(image_id)]
        beside = path.with_suffix(".npz")
        raw = pickle.loads(path.read_bytes())
        if not beside.exists():
            count = len(raw["rles"])
            pairs = overlapping_pairs(count, Overlaps(raw["rles"], raw["boxes"], raw["areas"]).ious, LEAST)
            objects = truth.truth(image_id, boxes=False, masks=True) if truth.objects.get(image_id) else None
            ious = mask_ious(raw["rles"], objects.rles or []) if objects is not None else np.zeros((count, 0))
            with atomic_write(beside) as target, target.open("wb") as file:
                np.savez(file, truth=ious, **vars(pairs))
        with np.load(beside) as stored:
            arrays = dict(stored)
        scores = raw["scores"].astype(np.float64).clip(1e-9, 1 - 1e-9)
        logits = np.log(scores) - np.log1p(-scores)
        ious = arrays.pop("truth")
        found.append(Found(image_id, logits, raw["scales"], raw["stability"], Pairs(**arrays), ious))
    return truth, found


def measure(name: str, rule: Rule, truth: Annotations, photos: list[Found]) -> Recall:
    """The recall of all photos when each is ranked by the rule."""

    def ranks() -> Iterator[Ranks]:
        for photo in photos:
            order = rule(photo)[:TOP]
            by_area = {}
            if photo.truth.shape[1]:
                areas = truth.truth(photo.image_id, boxes=False, masks=True).areas
                for area, (low, high) in AREAS.items():
                    inside = (areas >= low) & (areas <= high)
                    if inside.any():
                        by_area[area] = match_ranks(photo.truth[order][:, inside])
            yield {"segm": by_area}

    count = sum(min(TOP, len(photo.logits)) for photo in photos)
    return recall_of_ranks(ranks(), truth, name=name, iou_types=["segm"], proposals=count, empty_images=0)


def probability(logits: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-logits)))


def sub_pairs(pairs: Pairs, count: int) -> Pairs:
    """The pairs among the first `count` masks."""
    owner = np.repeat(np.arange(len(pairs.begins) - 1), np.diff(pairs.begins))
    keep = (owner < count) & (pairs.partners < count)
    return Pairs(np.searchsorted(owner[keep], np.arange(count + 1)), pairs.partners[keep], pairs.ious[keep])


def first(photo: Found, count: int) -> Found:
    """The photo's best `count` windows."""
    return Found(
        photo.image_id,
        photo.logits[:count],
        photo.scales[:count],
        photo.stability[:count],
        sub_pairs(photo.pairs, count),
        photo.truth[:count],
    )


def paper(photo: Found) -> np.ndarray:
    return np.argsort(-photo.logits, kind="stable")


def hard(iou: float, *, keep: bool = False) -> Rule:
    """Greedy suppression above an IoU; what falls is dropped, or comes after the rest with `keep`."""

    def rule(photo: Found) -> np.ndarray:
        order, pairs = paper(photo), photo.pairs
        out = np.zeros(len(order), bool)
        for place in order:
            if not out[place]:
                own = slice(pairs.begins[place], pairs.begins[place + 1])
                better = pairs.partners[own][pairs.ious[own] > iou]
                rank = np.empty(len(order), int)
                rank[order] = np.arange(len(order))
                out[better[rank[better] > rank[place]]] = True
        return np.concatenate([order[~out[order]], order[out[order]]] if keep else [order[~out[order]]])

    return rule


def gaussian(sigma: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda iou: np.exp(-(iou**2) / sigma)


def soft(
    factor: Callable[[np.ndarray], np.ndarray],
    score: Callable[[Found], np.ndarray] = lambda photo: photo.logits,
    *,
    odds: bool = False,
) -> Rule:
    """Soft suppression of probabilities, or of odds."""

    def rule(photo: Found) -> np.ndarray:
        logits = score(photo)
        values = np.exp(logits) if odds else probability(logits)
        return soft_order(values, photo.pairs, factor)[0]

    return rule


def by(score: Callable[[Found], np.ndarray]) -> Rule:
    return lambda photo: np.argsort(-score(photo), kind="stable")


def stabler(weight: float) -> Callable[[Found], np.ndarray]:
    """The score with the logarithm of the mask's stability added."""
    return lambda photo: photo.logits + weight * np.log(photo.stability.clip(0.01))


@dataclass(frozen=True)
class Calibration:
    """Score logits made comparable over scales: slope and offset for each exponent of two."""

    slopes: dict[float, float]
    offsets: dict[float, float]

    def __call__(self, photo: Found) -> np.ndarray:
        values = np.zeros(len(photo.logits))
        for scale in np.unique(photo.scales):
            at = photo.scales == scale
            values[at] = self.slopes[float(scale)] * photo.logits[at] + self.offsets[float(scale)]
        return values


def calibrate(photos: list[Found], *, slopes: bool) -> Calibration:
    """Fit the best IoU of each window's mask with an object as a logistic function of its score, by Newton's method:
    one offset a scale and one slope for all, or a slope a scale as well."""
    scales = sorted({float(scale) for photo in photos for scale in photo.scales})
    logits = np.concatenate([photo.logits for photo in photos])
    which = np.concatenate([np.searchsorted(scales, photo.scales) for photo in photos])
    target = np.concatenate([photo.truth.max(axis=1, initial=0.0) for photo in photos])
    one_hot = np.eye(len(scales))[which]
    features = np.concatenate([one_hot, one_hot * logits[:, None] if slopes else logits[:, None]], axis=1)
    weights = np.zeros(features.shape[1])
    for _ in range(30):
        fitted = probability(features @ weights)
        slope = features.T @ (target - fitted) - 1e-3 * weights
        curvature = (features * (fitted * (1 - fitted))[:, None]).T @ features + 1e-3 * np.eye(len(weights))
        weights = weights + np.linalg.solve(curvature, slope)
    offsets = dict(zip(scales, weights[: len(scales)].tolist(), strict=True))
    found = weights[len(scales) :].tolist()
    return Calibration(dict(zip(scales, found if slopes else found * len(scales), strict=True)), offsets)


def rules(fitted: list[Found], most: int) -> dict[str, tuple[int, Rule]]:
    """All re-rankings by name: how many windows they decode, and the rule. The first is the paper's.

    fitted: photos to fit what has to be fitted on. most: windows in the cache.
    """
    named: dict[str, tuple[int, Rule]] = {"paper": (1000, paper)}
    for iou in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95):
        named[f"NMS {iou:g}"] = (1000, hard(iou))
        named[f"NMS {iou:g}, dropped last"] = (1000, hard(iou, keep=True))
    for above in (0.3, 0.4, 0.5, 0.6, 0.7):
        named[f"soft NMS, linear above {above:g}"] = (1000, soft(linear(above)))
    for sigma in (0.2, 0.5, 1.0, 2.0):
        named[f"soft NMS, gaussian {sigma:g}"] = (1000, soft(gaussian(sigma)))
        named[f"soft NMS of odds, gaussian {sigma:g}"] = (1000, soft(gaussian(sigma), odds=True))
    for weight in (2.0, 4.0, 8.0, 12.0, 16.0, 32.0):
        score, text = stabler(weight), f"score + {weight:g} log stability"
        named[text] = (1000, by(score))
        named[f"soft NMS, gaussian 0.5, {text}"] = (1000, soft(gaussian(0.5), score))
        for above in (0.4, 0.5, 0.6):
            named[f"soft NMS, linear above {above:g}, {text}"] = (1000, soft(linear(above), score))
    if fitted:
        for text, slopes in (("offset", False), ("offset and slope", True)):
            calibration = calibrate([first(photo, 1000) for photo in fitted], slopes=slopes)
            named[f"{text} a scale"] = (1000, by(calibration))
            named[f"soft NMS, linear above 0.5, {text} a scale"] = (1000, soft(linear(0.5), calibration))
    if most > 1000:
        named[f"NMS 0.8, of {most:,} windows"] = (most, hard(0.8))
        named[f"soft NMS, linear above 0.5, score + 16 log stability, of {most:,} windows"] = (
            most,
            soft(linear(0.5), stabler(16.0)),
        )
    return named


# What `--ranking soft` does.
CHOSEN = soft(linear(ABOVE), stabler(STABILITY_WEIGHT))


def row(name: str, recall: Recall, difference: dict[str, Estimate] | None) -> str:
    """One line of the Markdown table."""
    cells = [f"{100 * recall.value(metric):.2f}" for metric in METRICS]
    if difference is not None:
        for i, metric in enumerate(METRICS):
            low, high = 100 * difference[metric].low, 100 * difference[metric].high
            cells[i] += f" ({100 * difference[metric].value:+.2f} [{low:+.2f}, {high:+.2f}])"
    return f"| {name} | " + " | ".join(cells) + " |"


def study(arguments: argparse.Namespace) -> None:
    """Measure every rule."""
    truth, photos = read_cache(arguments.cache, arguments.annotations)
    print(
        f"{arguments.annotations.name}: {len(photos)} photos, {sum(photo.truth.shape[1] for photo in photos)} objects"
    )
    fitted = read_cache(arguments.fit, arguments.fit_annotations)[1] if arguments.fit else []
    print("| ranking | " + " | ".join(METRICS) + " |\n|---|" + "---|" * len(METRICS))
    baseline: Recall | None = None
    figures: dict[str, Any] = {}

    def report(name: str, rule: Rule, chosen: list[Found]) -> Recall:
        recall = measure(name, rule, truth, chosen)
        difference = None if baseline is None else compare_recalls(baseline, recall, iou_type="segm")
        print(row(name, recall, difference), flush=True)
        figures[name] = {
            metric: {
                "value": recall.value(metric),
                "difference": None if difference is None else difference[metric].to_dict(),
            }
            for metric in METRICS
        }
        return recall

    most = max(len(photo.logits) for photo in photos)
    for name, (windows, rule) in rules(fitted, most).items():
        recall = report(name, rule, [first(photo, windows) for photo in photos])
        baseline = baseline or recall
    if arguments.half_steps:
        _, finer = read_cache(arguments.half_steps, arguments.annotations)
        there = {photo.image_id: photo for photo in finer}
        if set(there) != {photo.image_id for photo in photos}:
            raise SystemExit("the cache of half steps holds other photos")
        cut_finer = [first(there[photo.image_id], 1000) for photo in photos]
        report("half steps", paper, cut_finer)
        report("half steps, soft NMS, linear above 0.5, score + 16 log stability", CHOSEN, cut_finer)
    if arguments.json:
        with atomic_write(arguments.json) as target:
            target.write_text(json.dumps({"photos": len(photos), "rankings": figures}, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    searching = commands.add_parser("search")
    searching.set_defaults(run=search)
    searching.add_argument("cache", type=Path)
    searching.add_argument("--images", type=Path, required=True)
    searching.add_argument("--annotations", type=Path, required=True)
    searching.add_argument("--photos", type=int, default=0, help="so many of them, evenly spread; 0: all")
    searching.add_argument("--zoom", type=int, default=1)
    searching.add_argument("--windows", type=int, default=1500, help="windows to decode of each photo")
    searching.add_argument("--half-steps", action="store_true")
    searching.add_argument("--model", default="sharpmask-lite0")
    studying = commands.add_parser("study")
    studying.set_defaults(run=study)
    studying.add_argument("cache", type=Path)
    studying.add_argument("--annotations", type=Path, required=True)
    studying.add_argument("--fit", type=Path, help="cache of training photos, to fit what has to be fitted")
    studying.add_argument("--fit-annotations", type=Path)
    studying.add_argument("--half-steps", type=Path, help="cache of the same photos searched in half steps")
    studying.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=DeprecationWarning)  # pycocotools on newer NumPy
        arguments.run(arguments)


if __name__ == "__main__":
    keep_freed_memory()
    main()
