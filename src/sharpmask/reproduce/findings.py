"""The paper's orderings, one by one, against what was measured here."""

import math
from dataclasses import dataclass

import numpy as np

from sharpmask.evaluation.bootstrap import Estimate, estimates, replicates, resample_counts
from sharpmask.reproduce.metrics import RESAMPLES, SEED, Measured
from sharpmask.reproduce.paper import PAPER
from sharpmask.reproduce.study import MARGIN, Finding, Study

AGREES, DISAGREES, NOISE, UNKNOWN = "agrees", "disagrees", "within noise", "not measured"


@dataclass(frozen=True)
class Verdict:
    """What became of a finding.

    Attributes:
        here: first figure less the second in percentage points, or how many times the first one's time the second one's
            is; None where one of them was not measured.
        paper: the paper's two figures in words.
        verdict: AGREES or DISAGREES where the whole interval says so, otherwise NOISE, or UNKNOWN.
    """

    finding: Finding
    here: Estimate | None
    paper: str
    verdict: str


def judge(study: Study, measured: dict[str, Measured], times: dict[str, list[dict[str, float]]]) -> list[Verdict]:
    """All findings of a study with their verdicts."""
    return [_judged(study, finding, measured, times) for finding in study.findings]


def _judged(
    study: Study, finding: Finding, measured: dict[str, Measured], times: dict[str, list[dict[str, float]]]
) -> Verdict:
    published = PAPER.get(study.name, {})
    figures = [published.get(row, {}).get(finding.metric) for row in (finding.first, finding.second)]
    unit = " s" if finding.relation == "faster" else ""
    paper = " / ".join("—" if figure is None else f"{figure:g}{unit}" for figure in figures)
    if finding.relation == "faster":
        here = time_ratio(times, finding.second, finding.first, finding.metric)
        return Verdict(finding, here, paper, _side(here, 1.0, 1.0))
    if finding.first not in measured or finding.second not in measured:
        return Verdict(finding, None, paper, UNKNOWN)
    difference = measured[finding.first].minus(measured[finding.second], finding.metric)
    here = None if difference is None else Estimate(*(100 * value for value in vars(difference).values()))
    return Verdict(finding, here, paper, _verdict(finding, here))


def _verdict(finding: Finding, here: Estimate | None) -> str:
    if finding.relation == "above":
        return _side(here, 0.0, 0.0)
    if finding.relation == "not below":
        return _side(here, -MARGIN, -MARGIN)
    if here is None or math.isnan(here.low):
        return UNKNOWN
    if here.low >= -MARGIN and here.high <= MARGIN:
        return AGREES
    return DISAGREES if here.low > MARGIN or here.high < -MARGIN else NOISE


def _side(here: Estimate | None, above: float, below: float) -> str:
    if here is None or math.isnan(here.low):
        return UNKNOWN
    return AGREES if here.low > above else DISAGREES if here.high < below else NOISE


def time_ratio(times: dict[str, list[dict[str, float]]], slow: str, fast: str, metric: str) -> Estimate | None:
    """How many times as long one row takes as another, over the timed runs; None where one was not timed."""
    if slow not in times or fast not in times:
        return None
    one, two = seconds(times[slow], metric), seconds(times[fast], metric)
    return None if one is None or two is None else ratio_of_sums(one, two)


def ratio_of_sums(one: np.ndarray, two: np.ndarray) -> Estimate:
    """Sum / sum over runs, with the interval over them."""
    drawn = replicates(one[:, None], two, resample_counts(len(one), RESAMPLES, SEED))
    return estimates(["ratio"], np.array([one.sum() / two.sum()]), drawn)["ratio"]


def seconds(records: list[dict[str, float]], metric: str) -> np.ndarray | None:
    """Seconds (runs,) of "total time", of "mask time" (trunk and mask), or of a part; None where it is not known."""
    parts = {"total time": ("total",), "mask time": ("trunk", "mask")}.get(metric, (metric,))
    if any(part not in record for record in records for part in parts):
        return None
    return np.array([sum(record[part] for part in parts) for record in records])
