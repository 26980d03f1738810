"""A study's results as a Markdown page and as CSV; every figure that is the paper's is marked as such."""

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence

import sharpmask
from sharpmask.evaluation.bootstrap import Estimate
from sharpmask.evaluation.costs import PARTS
from sharpmask.evaluation.recall import AUC_FORMULA
from sharpmask.evaluation.tables import percent
from sharpmask.evaluation.timing import TIMES
from sharpmask.reproduce.findings import DISAGREES, Verdict, judge, ratio_of_sums, seconds
from sharpmask.reproduce.forms import COUNTS, Forms
from sharpmask.reproduce.metrics import RESAMPLES, SEED
from sharpmask.reproduce.paper import CITATION, DATA, HARDWARE, OTHERS, PAPER
from sharpmask.reproduce.runner import Results
from sharpmask.reproduce.study import MARGIN

_MISSING = "—"


def markdown(results: Results, pictures: Sequence[tuple[str, str]]) -> str:
    """The page; `pictures` are file names beside it with their captions."""
    study = results.study
    sections = [
        f"# {study.title}",
        "\n".join(_introduction(results)),
        "## Accuracy",
        f"Percent; in brackets the 95 % interval of a bootstrap over the {results.photos} images ({RESAMPLES:,} "
        f"resamples, seed {SEED}). *Rows in italics are the paper's figures* ({DATA}).",
        _table(_accuracy(results)),
        "## Cost",
        "Multiply-accumulates in billions, for one 480 x 640 photo at one scale with 1,000 proposals. Milliseconds: "
        f"mean of {_runs(results.times)} runs, a photo with all scales and 1,000 proposals each, all rows in turns on "
        f"{results.machine['device']}, {results.machine['date']}. *The paper's times are of an {HARDWARE}*: only "
        "ratios within a column compare.",
        _table(_cost(results)),
    ]
    if results.forms is not None:
        sections += ["## Plain and refactored form", *_forms(results.forms)]
    sections += [
        "## The paper's orderings",
        f"Differences in percentage points, of times how many times faster, with the paired 95 % interval over the "
        f"images (of times: over the timed runs). *agrees*, *disagrees*: the whole interval says so; two figures "
        f"count as equal within {MARGIN:g} point.",
        _table(_findings(judge(study, results.measured, results.times))),
        *(f"![{caption}]({file})" for file, caption in pictures),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _introduction(results: Results) -> Iterator[str]:
    study, machine = results.study, results.machine
    yield f"`sharpmask reproduce {study.name}`, sharpmask {sharpmask.__version__}, torch {machine['torch']},"
    yield f"{machine['date']}, {machine['device']}. {study.protocol}"
    yield ""
    yield (
        f"- Measured on {results.photos} images of {results.data} with {results.objects} objects, class-agnostic, "
        "proposals in the network's own order (`--ranking paper`)."
    )
    if study.trained:
        steps = ", ".join(f"{study.row(name).label} {count:,}" for name, count in results.plan.steps.items())
        if len(set(results.plan.steps.values())) == 1:
            steps = f"{next(iter(results.plan.steps.values())):,} for every trained row"
        minutes = sum(results.training_seconds.values()) / 60
        yield f"- Steps of 32 patches ({results.plan.origin}): {steps}; {minutes:.0f} minutes of training in all."
    yield f"- {AUC_FORMULA}."
    yield from (f"- {note}" for note in study.notes)
    for row in study.rows:
        if row.without is not None:
            yield f"- {row.label}: {row.without}; only its cost is given, of the untrained network."
    yield f"- The paper: {CITATION}. {_MISSING}: not measured, or not known to us."


def _accuracy(results: Results) -> Iterator[list[str]]:
    metrics = results.study.metrics
    published = PAPER.get(results.study.name, {})
    yield ["", *metrics]
    for row in results.study.rows:
        measured = results.measured.get(row.name)
        yield [row.label, *(_percent(measured.estimate(m) if measured else None) for m in metrics)]
        if any(metric in published.get(row.name, {}) for metric in metrics):
            yield _published_row(f"{row.label}, the paper's", published[row.name], metrics)
    if results.study.name == "coco":
        for label, figures in OTHERS.items():
            yield _published_row(f"{label}, the paper's", figures, metrics)


def _published_row(label: str, figures: dict[str, float], metrics: Sequence[str]) -> list[str]:
    return [f"*{label}*", *(f"*{figures[metric]:.1f}*" if metric in figures else _MISSING for metric in metrics)]


def _cost(results: Results) -> Iterator[list[str]]:
    time = results.study.time
    extra = ["mask time"] if time == "mask time" else []
    yield [
        "", "parameters, millions", *(f"MAC {part}" for part in PARTS), "MAC total", *(f"ms {part}" for part in TIMES),
        *(f"ms {name}" for name in extra), f"*ms {time}, the paper's*",
    ]  # fmt: skip
    published = PAPER.get(results.study.name, {})
    for row in results.study.rows:
        cost, records = results.costs.get(row.name), results.times[row.name]
        cells = [_MISSING] * (len(PARTS) + 2)
        if cost is not None:
            cells = [f"{cost.parameters / 1e6:.2f}", *(f"{cost.macs[p]:.2f}" for p in PARTS), f"{cost.total:.2f}"]
        figure = published.get(row.name, {}).get(time)
        yield [
            row.label,
            *cells,
            *(_milliseconds(records, part) for part in (*TIMES, *extra)),
            _MISSING if figure is None else f"*{1000 * figure:.0f}*",
        ]


def _milliseconds(records: list[dict[str, float]], part: str) -> str:
    found = seconds(records, part)
    return _MISSING if found is None else f"{1000 * found.mean():.0f}"


def _forms(forms: Forms) -> list[str]:
    def cells(count: int, part: str) -> list[str]:
        plain, refactored = (forms.seconds(form, count, part) for form in ("plain", "refactored"))
        times = [f"{1000 * found.mean():.0f}" for found in (plain, refactored)]
        return [*times, _interval(ratio_of_sums(plain, refactored))]

    titles = [f"{part}: {name}" for part in ("refinement", "whole photo") for name in ("plain", "refactored", "factor")]
    rows = [["proposals", *titles]]
    rows += [[f"{count:,}", *cells(count, "refinement"), *cells(count, "total")] for count in COUNTS]
    return [
        f"With the same weights the two forms' mask logits differ by at most {forms.difference:.1e} (fp32; the largest "
        f"logit is {forms.largest:.1f}; {forms.windows:,} windows of one photo at its own scale).",
        f"Milliseconds, mean of {_runs(forms.times)} runs, both forms in turns, and how many times longer the plain "
        "form takes, with the 95 % interval over these runs.",
        _table(iter(rows)),
    ]


def _findings(verdicts: Sequence[Verdict]) -> Iterator[list[str]]:
    yield ["the paper found", "in", "*the paper's figures*", "measured here", "verdict"]
    for verdict in verdicts:
        here = _MISSING
        if verdict.here is not None:
            faster = verdict.finding.relation == "faster"
            here = f"{_interval(verdict.here)} times" if faster else _signed(verdict.here)
        word = f"**{verdict.verdict}**" if verdict.verdict == DISAGREES else verdict.verdict
        yield [verdict.finding.text, verdict.finding.metric, f"*{verdict.paper}*", here, word]


def table_csv(results: Results) -> str:
    """One line a figure: study, row, metric, value, low, high, unit, source and device."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["study", "row", "metric", "value", "low", "high", "unit", "source", "device"])
    device, date = results.machine["device"], results.machine["date"]
    for row, metric, estimate, unit in _figures(results):
        numbers = [f"{value:.6g}" if not math.isnan(value) else "" for value in vars(estimate).values()]
        writer.writerow([results.study.name, row, metric, *numbers, unit, f"here, {date}", device])
    for name, figures in {
        **PAPER.get(results.study.name, {}),
        **(OTHERS if results.study.name == "coco" else {}),
    }.items():
        for metric, value in figures.items():
            unit = "s" if metric.endswith("time") else "%"
            writer.writerow([results.study.name, name, metric, value, "", "", unit, "the paper", HARDWARE])
    return out.getvalue()


def _figures(results: Results) -> Iterator[tuple[str, str, Estimate, str]]:
    nan = float("nan")
    for row in results.study.rows:
        measured, cost = results.measured.get(row.name), results.costs.get(row.name)
        for metric in results.study.metrics:
            estimate = measured.estimate(metric) if measured else None
            if estimate is not None:
                yield row.name, metric, Estimate(*(100 * value for value in vars(estimate).values())), "%"
        if cost is not None:
            yield row.name, "parameters", Estimate(cost.parameters, nan, nan), ""
            for part, value in cost.macs.items():
                yield row.name, f"multiply-accumulates {part}", Estimate(value, nan, nan), "10^9"
        for part in TIMES:
            found = seconds(results.times[row.name], part)
            if found is not None:
                yield row.name, f"{part} time", Estimate(float(found.mean()), nan, nan), "s"
    for count in COUNTS if results.forms is not None else ():
        assert results.forms is not None
        for part in ("refinement", "total"):
            plain, refactored = (results.forms.seconds(form, count, part) for form in ("plain", "refactored"))
            for form, found in (("plain", plain), ("refactored", refactored)):
                yield form, f"{part} time, {count} proposals", Estimate(float(found.mean()), nan, nan), "s"
            yield "plain / refactored", f"{part} time, {count} proposals", ratio_of_sums(plain, refactored), ""
    for verdict in judge(results.study, results.measured, results.times):
        if verdict.here is not None:
            unit = "times" if verdict.finding.relation == "faster" else "points"
            yield f"{verdict.finding.first} - {verdict.finding.second}", verdict.finding.metric, verdict.here, unit


def _runs(times: Mapping[str, Sequence[object]]) -> int:
    return len(next(iter(times.values())))


def _percent(estimate: Estimate | None) -> str:
    return _MISSING if estimate is None else percent(estimate)


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def _signed(estimate: Estimate) -> str:
    return f"{estimate.value:+.1f} [{estimate.low:+.1f}, {estimate.high:+.1f}]"


def _table(rows: Iterator[list[str]]) -> str:
    head, *body = rows
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
