"""What accuracy costs in time: AR@100 over the milliseconds of an image, for models and settings, in one run.

    python benchmarks/tradeoff.py --images DIR --annotations ANN.json [--photos 40] [--chart out.png] [--peers]

Every setting below proposes for the first `--photos` photos, and its masks and boxes are evaluated; then all of them
take turns on `--timed` photos, `--rounds` times, from the file to COCO run lengths, in the runtime `--runtime`.
Selective Search (OpenCV, fast) takes its turns among them; with `--peers` so does the "everything" mode of
Segment Anything, in time only (see sam_everything.py).
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

import sharpmask
from sharpmask.allocator import keep_freed_memory
from sharpmask.benchmark.chart import pyplot
from sharpmask.evaluation.baselines import selective_search
from sharpmask.evaluation.recall import Recall, evaluate_recall
from sharpmask.evaluation.timing import interleaved_times
from sharpmask.files import atomic_write
from sharpmask.images import read_image
from sharpmask.indexing import evenly
from sharpmask.networks.specs import SPECS
from sharpmask.proposals.proposer import Proposer
from sharpmask.reproduce.datasets import Photos
from sharpmask.reproduce.measure import Validation, read_validation

PEER = "SAM ViT-B, everything mode (random weights)"
FLOOR = "the same without its encoder (MobileSAM and others: at least this)"
SEARCH = "Selective Search (OpenCV, fast)"


def settings(models: list[str], runtime: str) -> dict[str, Proposer]:
    """What a user can choose between, from fast to thorough, for each model that is there."""
    found = {}
    for model in models:
        full = sharpmask.load(model, runtime=runtime)
        octaves = full.scales[1::2]  # every second of the model's own
        options: dict[str, dict[str, Any]] = {
            "3 scales, 100 windows": {"scales": octaves, "top": 100},
            "3 scales": {"scales": octaves},
            "7 scales": {},
            "7 scales, half steps": {"half_steps": True},
            "7 scales, zoom 1": {"zoom": 1},
        }
        for label, chosen in options.items():
            found[f"{Path(model).stem}, {label}"] = sharpmask.load(model, runtime=runtime, **chosen) if chosen else full
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    bundled = [name for name, spec in SPECS.items() if spec.weights is not None]
    parser.add_argument("--annotations", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--models", nargs="+", default=bundled, help="names or files; default: the bundled ones")
    parser.add_argument("--runtime", default="torch")
    parser.add_argument("--photos", type=int, default=40, help="to evaluate on")
    parser.add_argument("--timed", type=int, default=4, help="photos to time")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--chart", default=None, metavar="OUT.png")
    arguments = parser.parse_args()
    keep_freed_memory()  # as the commands do; it serves the peer as well
    validation = read_validation(Photos(Path(arguments.annotations), Path(arguments.images))).first(arguments.photos)
    proposers = settings(arguments.models, arguments.runtime)
    recalls = {name: measure(validation, proposer.propose, name) for name, proposer in proposers.items()}
    recalls[SEARCH] = measure(validation, None, SEARCH)
    calls: dict[str, Callable[[Path], dict[str, float]]] = {name: timed(p) for name, p in proposers.items()}
    calls[SEARCH] = lambda path: clocked(lambda: selective_search(read_image(path)))
    if arguments.peers:
        from sam_everything import everything, load

        model = load()
        calls[PEER] = lambda path: everything(model, path)[1]
    photos = list(validation.paths.values())
    spread = evenly(photos, arguments.timed)
    records = interleaved_times(calls, spread * arguments.rounds)
    times = {name: statistics.median(record["total"] for record in of) for name, of in records.items()}
    if arguments.peers:
        times[FLOOR] = statistics.median(record["total"] - record["encoder"] for record in records[PEER])
    print(table(recalls, times, validation, spread))
    if arguments.chart:
        draw(recalls, times, arguments.chart)


def clocked(call: Callable[[], Any]) -> dict[str, float]:
    began = time.perf_counter()
    call()
    return {"total": time.perf_counter() - began}


def timed(proposer: Proposer) -> Callable[[Path], dict[str, float]]:
    return lambda path: clocked(lambda: proposer.propose(path))


def measure(validation: Validation, propose: Callable[[Path], Any] | None, name: str) -> Recall:
    """AR of a method; None: Selective Search."""
    results: list[dict[str, Any]] = []
    for image_id, path in tqdm(validation.paths.items(), desc=name):
        if propose is not None:
            results += propose(path).to_coco(image_id)
            continue
        boxes, scores = selective_search(read_image(path))
        results += [
            {"image_id": image_id, "category_id": 1, "bbox": box, "score": score}
            for box, score in zip(boxes.tolist(), scores.tolist(), strict=True)
        ]
    kinds = ("bbox", "segm") if propose is not None else ("bbox",)
    return evaluate_recall(validation.truth, results, name=name, iou_types=kinds, progress=False)


def table(recalls: dict[str, Recall], times: dict[str, float], validation: Validation, spread: list[Path]) -> str:
    sizes = sorted({"x".join(map(str, Image.open(path).size)) for path in spread})
    lines = [
        f"{len(validation.paths)} photos evaluated; {len(spread)} timed, of {', '.join(sizes)} pixels; "
        f"{torch.get_num_threads()} threads",
        "",
        "| method | ms an image | box AR@100 | mask AR@100 |",
        "|---|---:|---:|---:|",
    ]
    for name, seconds in sorted(times.items(), key=lambda item: item[1]):
        cells = [shown(recalls.get(name), iou_type) for iou_type in ("bbox", "segm")]
        lines.append(f"| {name} | {1e3 * seconds:,.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(recall: Recall | None, iou_type: str) -> str:
    if recall is None or iou_type not in recall.iou_types:
        return "–"
    estimate = recall.areas[iou_type]["all"].estimates["AR@100"]
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def draw(recalls: dict[str, Recall], times: dict[str, float], path: str) -> None:
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    models = sorted({name.partition(",")[0] for name in recalls if name != SEARCH})
    for model, colour in zip(models, ("#1f5fa8", "#e0862e", "#3c9a5f", "#6b4fa0"), strict=False):
        own = sorted((times[name], name) for name in recalls if name.partition(",")[0] == model)
        for iou_type, style in (("segm", "o-"), ("bbox", "s--")):
            values = [100 * recalls[name].value("AR@100", iou_type) for _, name in own]
            label = f"{model}, {'masks' if iou_type == 'segm' else 'boxes'}"
            axes.plot([1e3 * seconds for seconds, _ in own], values, style, color=colour, label=label)
    value = 100 * recalls[SEARCH].value("AR@100", "bbox")
    axes.plot([1e3 * times[SEARCH]], [value], "x", color="black", label=f"{SEARCH}, boxes")
    for name, style in ((PEER, "-"), (FLOOR, ":")):
        if name in times:
            axes.axvline(1e3 * times[name], color="#b0b0b0", linestyle=style, label=f"{name}: time only")
    axes.set(xscale="log", xlabel="ms an image", ylabel="AR@100, %", ylim=(0, None))
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
