"""How many steps each row is trained for and how many photos it is measured on, settled once and then kept.

A study is to end in the time that was stated. So a few steps of every row and a few photos are timed at the start, and
fixed numbers are derived from them and written to the study's folder: a run that goes on later uses the same ones.
"""

import dataclasses
import datetime
import json
import math
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from sharpmask.checkpoints import load_network
from sharpmask.errors import ConfigError, DataError
from sharpmask.files import atomic_write, file_digest
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.sharpmask import SharpMask, build_network
from sharpmask.networks.specs import get_spec
from sharpmask.reproduce.forms import FORMS_PHOTOS
from sharpmask.reproduce.measure import Validation
from sharpmask.reproduce.methods import open_method, weights_digest
from sharpmask.reproduce.recipes import paper_steps, train_config
from sharpmask.reproduce.study import Options, Row, Study
from sharpmask.training.run import train

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

P = TypeVar("P", bound="DataclassInstance")

PAPERS_PHOTOS = 5000
# Photos that all rows are timed on in turns, and how often.
TIMED_PHOTOS, TURNS = 4, 2
# Options that a plan depends on besides its rows and data.
_CHOSEN = ("schedule", "precision", "minutes", "steps", "photos", "seed")
# The first steps and the first photo are slower than all others: of the steps the second half counts, of the photos
# the median.
_PROBE_STEPS, _PROBE_PHOTOS = 10, 3
_LEAST_PHOTOS, _LEAST_STEPS = 10, 20
# Of the time that is left for measuring and training together, the part that measuring may take.
_MEASURING = 0.45
# Real masks take longer to encode than those of a network that has hardly learnt, and other things happen as well.
_RESERVE = 1.2


@dataclasses.dataclass(frozen=True)
class Plan:
    """Fixed numbers of a study: steps of each trained row, photos that are measured, and how they were found."""

    settings: dict[str, Any]
    steps: dict[str, int]
    photos: int
    origin: str


def make_plan(study: Study, options: Options, validation: Validation, folder: Path, say: Callable[[str], None]) -> Plan:
    """The plan in `folder`, or a new one, which is written there.

    Raises:
        ConfigError: the folder holds a study of other settings, or the minutes are too few for the study.
    """
    settings = study_settings(study, options)
    return kept_plan(folder, Plan, settings, lambda: _new_plan(study, options, validation, folder, settings, say))


def kept_plan(folder: Path, kind: type[P], settings: dict[str, Any], new: Callable[[], P]) -> P:
    """The plan in `folder`, a frozen dataclass with `settings` among its fields, or that of `new`, which is written
    there.

    Raises:
        ConfigError: the folder's plan has other settings.
        DataError: it cannot be read.
    """
    file = folder / "plan.json"
    if file.exists():
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            kept, before = kind(**content), content["settings"]
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{file} cannot be read ({error}); remove it, or the folder, to begin anew") from None
        changed = [name for name in settings if before.get(name) != settings[name]]
        if changed:
            raise ConfigError(
                f"{folder} holds this study with another {', '.join(changed)}; go on with the same settings, give "
                "another --output, or remove the folder"
            )
        return kept
    plan = new()
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(plan), indent=1) + "\n", encoding="utf-8")
    return plan


def study_settings(study: Study, options: Options) -> dict[str, Any]:
    """Everything that the results depend on; the device is not part of it."""
    data = options.data
    parts = {"train": data.train, "val": data.val} if study.trained else {"val": data.val}
    return {
        "study": study.name,
        "rows": [dataclasses.asdict(row) for row in study.rows],
        "weights": {source: weights_digest(source) for source in _sources(study)},
        **{part: None if photos is None else file_digest(photos.annotations) for part, photos in parts.items()},
        **{name: getattr(options, name) for name in _CHOSEN},
    }


def _sources(study: Study) -> list[str]:
    """What rows start from or are loaded from."""
    named = [s for row in study.rows for s in (row.start, row.trunk_weights, None if row.stage else row.model) if s]
    return sorted(set(named))


def _new_plan(
    study: Study,
    options: Options,
    validation: Validation,
    folder: Path,
    settings: dict[str, Any],
    say: Callable[[str], None],
) -> Plan:
    began = perf_counter()
    photos = min(len(validation.paths), options.photos or PAPERS_PHOTOS)
    if options.schedule == "paper":
        return Plan(settings, {row.name: paper_steps(row) for row in study.trained}, photos, "the released schedule")
    steps = {row.name: round(row.share * (options.steps or 0)) for row in study.trained}
    if (options.steps or not study.trained) and options.photos:
        return Plan(settings, steps, photos, "as given")
    say(f"timing a little of each of {len(study.rows)} rows, to end in about {options.minutes:g} minutes")
    probes = {row.name: _probe(row, study, options, validation, folder / "probe") for row in study.rows}
    shutil.rmtree(folder / "probe", ignore_errors=True)

    # Seconds that are spoken for: what has passed, timing, and the least of what is still open.
    spent = perf_counter() - began
    spent += (TIMED_PHOTOS * TURNS + 1) * sum(probe.photo for probe in probes.values())
    if study.name == "refinement":
        spent += FORMS_PHOTOS * probes["k32"].photo
    photo = _RESERVE * sum(probes[row.name].photo for row in study.measured)
    step = _RESERVE * sum(row.share * probes[row.name].step for row in study.trained)
    spent += _RESERVE * sum(probes[row.name].start for row in study.trained)
    least_photos = photos if options.photos else min(photos, _LEAST_PHOTOS)
    least_steps = options.steps or (_LEAST_STEPS if study.trained else 0)
    least = photo * least_photos + step * least_steps
    if options.minutes * 60 < spent + least:
        needed = math.ceil((spent + least) / 60 + 1)
        raise ConfigError(f"--minutes {options.minutes:g} is too short for '{study.name}' here: give {needed} or more")

    left = options.minutes * 60 - spent
    if options.photos is None:
        for_photos = left - step * options.steps if options.steps else left * (_MEASURING if study.trained else 1.0)
        photos = max(least_photos, min(photos, int(for_photos / photo)))
    if study.trained and not options.steps:
        unit = max(least_steps, int((left - photo * photos) / step))
        steps = {row.name: round(row.share * unit) for row in study.trained}
    moment = datetime.datetime.now().date().isoformat()
    return Plan(settings, steps, photos, f"from --minutes {options.minutes:g} and the speed measured on {moment}")


@dataclasses.dataclass(frozen=True)
class _Probe:
    """Seconds that a row takes: before its first step, each step, and each photo."""

    start: float
    step: float
    photo: float


def _probe(row: Row, study: Study, options: Options, validation: Validation, folder: Path) -> _Probe:
    start = step = 0.0
    network: DeepMask | SharpMask | None = None
    if row.without is not None:
        network = build_network(get_spec(row.model))
    elif row.stage is not None:
        shutil.rmtree(folder, ignore_errors=True)
        began = perf_counter()
        # Whatever a stage starts from, its steps take the same time.
        config = train_config(row, options, steps=_PROBE_STEPS, output=folder, start=row.start)
        config = dataclasses.replace(config, log_every=_PROBE_STEPS // 2)
        trained = train(config)
        rates = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        step = 32 / rates[-1]["patches_per_second"]
        start = max(0.0, perf_counter() - began - _PROBE_STEPS * step)
        network = load_network(trained)
    method = open_method(row, options, network=network, unlimited=study.upper_bound and row.without is None)
    seconds = []
    for image_id, path in validation.first(_PROBE_PHOTOS).paths.items():
        began = perf_counter()
        method.propose(path, image_id)
        seconds.append(perf_counter() - began)
    return _Probe(start, step, statistics.median(seconds))
