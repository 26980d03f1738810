"""A study from its rows to its results: train, measure, time. What is finished is never done again."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sharpmask.checkpoints import load_network
from sharpmask.errors import ConfigError, DataError
from sharpmask.evaluation.costs import Cost, model_cost
from sharpmask.evaluation.timing import interleaved_times
from sharpmask.files import atomic_write, file_digest
from sharpmask.images import read_image
from sharpmask.indexing import evenly
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.sharpmask import SharpMask, build_network
from sharpmask.networks.specs import get_spec
from sharpmask.reproduce.forms import Forms, compare_forms
from sharpmask.reproduce.machine import describe_machine
from sharpmask.reproduce.measure import Validation, measure, read_validation
from sharpmask.reproduce.methods import load_row, open_method, weights_digest
from sharpmask.reproduce.metrics import Measured
from sharpmask.reproduce.plan import TIMED_PHOTOS, TURNS, Plan, make_plan
from sharpmask.reproduce.recipes import train_config
from sharpmask.reproduce.study import SELECTIVE_SEARCH, Options, Row, Study
from sharpmask.training.checkpoint import CHECKPOINTS, FREE_FIELDS
from sharpmask.training.config import TrainConfig
from sharpmask.training.run import train

Say = Callable[[str], None]
# row -> for each run of a photo, seconds by part
Times = dict[str, list[dict[str, float]]]


@dataclass(frozen=True)
class Results:
    """All that a study found; the tables and plots are made from it.

    `data` is the data set's name; `photos` and `objects` were measured; all other names are those of rows.
    """

    study: Study
    plan: Plan
    data: str
    photos: int
    objects: int
    measured: dict[str, Measured]
    costs: dict[str, Cost]
    times: Times
    machine: dict[str, str]
    training_seconds: dict[str, float]
    forms: Forms | None = None


def run_study(study: Study, options: Options, say: Say) -> Results:
    """Do what is not done yet of a study in `options.output`/<study>, and return its results.

    Raises:
        SharpMaskError: data, weights or settings that cannot be used, or that differ from those the folder has.
    """
    for row in study.measured:
        if row.stage is None and row.model != SELECTIVE_SEARCH:
            load_row(row)  # a model that is not there is to be noticed now
    folder = options.output / study.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    everything = read_validation(options.data.val)
    plan = make_plan(study, options, everything, folder, say)
    validation = everything.first(plan.photos)
    seconds = {}
    for number, row in enumerate(study.trained, start=1):
        say(f"{study.name}: training row {number} of {len(study.trained)}, {row.label}: {plan.steps[row.name]} steps")
        seconds[row.name] = train_row(row, options, plan.steps[row.name], folder)
    measured = {}
    for number, row in enumerate(study.measured, start=1):
        say(f"{study.name}: measuring row {number} of {len(study.measured)}, {row.label}: {plan.photos} photos")
        measured[row.name] = _measure_row(row, study, options, validation, folder)
    say(f"{study.name}: timing all rows in turns on {min(TIMED_PHOTOS, plan.photos)} photos")
    times, machine = _timed(study, options, validation, folder)
    costs = {row.name: model_cost(_network(row, folder).spec) for row in study.rows if row.model != SELECTIVE_SEARCH}
    forms = None
    if study.name == "refinement":
        say("refinement: plain and refactored form")
        paths = list(validation.paths.values())
        forms = compare_forms(_network(study.row("k32"), folder), paths, folder, options)
    return Results(
        study=study,
        plan=plan,
        data=options.data.name,
        photos=len(validation.truth.image_ids),
        objects=sum(map(len, validation.truth.objects.values())),
        measured=measured,
        costs=costs,
        times=times,
        machine=machine,
        training_seconds=seconds,
        forms=forms,
    )


def train_row(row: Row, options: Options, steps: int, folder: Path) -> float:
    """Train one row in `folder`/<row>, going on where it was; returns the seconds it took in all sessions.

    A finished row has `done.json`, with the settings it was trained with.

    Raises:
        ConfigError: the row was trained with other settings.
    """
    output = folder / row.name
    start = row.start if row.start_row is None else str(folder / row.start_row / "model.safetensors")
    config = train_config(row, options, steps=steps, output=output, start=start)
    settings = _row_settings(config)
    done = output / "done.json"
    if done.exists():
        kept = _read_json(done)
        changed = [name for name in settings if kept.get("settings", {}).get(name) != settings[name]]
        if changed:
            raise ConfigError(
                f"{output} was trained with another {', '.join(changed)}; give another --output, or remove {output}"
            )
        return float(kept["seconds"])
    train(config, resume=True)
    seconds = _logged_seconds(output / "log.jsonl", batch_size=getattr(config, str(row.stage)).batch_size)
    _write_json(done, {"settings": settings, "seconds": seconds})
    shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)  # large, and of no more use
    return seconds


def _logged_seconds(log: Path, batch_size: int) -> float:
    """Seconds that the steps of a log took, a stretch that was repeated after a stop counted once."""
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    rates = {entry["step"]: entry["patches_per_second"] for entry in entries if "patches_per_second" in entry}
    before, seconds = 0, 0.0
    for step, rate in sorted(rates.items()):
        seconds += (step - before) * batch_size / rate
        before = step
    return seconds


def _row_settings(config: TrainConfig) -> dict[str, Any]:
    """What a row's training depends on, as JSON types."""
    fields = {name: value for name, value in dataclasses.asdict(config).items() if name not in FREE_FIELDS}
    for name in ("start_from", "trunk_weights"):
        fields[name] = None if fields[name] is None else weights_digest(fields[name])
    for name in ("annotations", "images"):
        fields[name] = Path(getattr(config, name)).resolve().as_posix()
    return dict(json.loads(json.dumps(fields)))


def _network(row: Row, folder: Path) -> DeepMask | SharpMask:
    """A row's network: as trained here, as loaded, or, where only its cost is asked for, untrained."""
    if row.without is not None:
        torch.manual_seed(0)
        return build_network(get_spec(row.model)).eval()
    return load_network(folder / row.name / "model.safetensors") if row.stage else load_row(row)


def _measure_row(row: Row, study: Study, options: Options, validation: Validation, folder: Path) -> Measured:
    output = folder / row.name
    output.mkdir(exist_ok=True)
    network, weights = None, row.model
    if row.model != SELECTIVE_SEARCH:
        network = _network(row, folder)
        trained = output / "model.safetensors"
        weights = file_digest(trained) if row.stage else weights_digest(row.model)
    method = open_method(row, options, network=network, unlimited=study.upper_bound)
    identity = {
        "weights": weights,
        "zoom": row.zoom,
        "upper_bound": study.upper_bound,
        "annotations": file_digest(options.data.val.annotations),
    }
    return measure(
        method.propose,
        validation,
        output / "measured.jsonl",
        name=row.label,
        identity=identity,
        iou_types=method.iou_types,
        upper_bound=study.upper_bound,
    )


def _timed(study: Study, options: Options, validation: Validation, folder: Path) -> tuple[Times, dict[str, str]]:
    """Seconds of all rows on the same photos, in turns, and the machine; measured once and kept."""
    file = folder / "times.json"
    if file.exists():
        kept = _read_json(file)
        return kept["times"], kept["machine"]
    methods = {}
    for row in study.rows:
        network = None if row.model == SELECTIVE_SEARCH else _network(row, folder)
        methods[row.name] = open_method(row, options, network=network).times
    photos = [read_image(path) for path in spread(list(validation.paths.values()))]
    times = interleaved_times(methods, photos * TURNS)
    for row in study.rows:
        if row.without is not None:  # how long masks take to encode depends on what has been learnt
            times[row.name] = [
                {k: v for k, v in record.items() if k not in ("rest", "total")} for record in times[row.name]
            ]
    machine = describe_machine(options.device)
    _write_json(file, {"times": times, "machine": machine})
    return times, machine


def spread(paths: list[Path]) -> list[Path]:
    """TIMED_PHOTOS of the photos, evenly spread."""
    return evenly(paths, TIMED_PHOTOS)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise DataError(f"{path} cannot be read ({error}); remove it to do that part anew") from None


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
