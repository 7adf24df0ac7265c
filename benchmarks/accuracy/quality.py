"""Does the verdict catch what goes wrong? Failures are made on purpose, on hearts that set no threshold.

Each good stack is refined as it is, which should be accepted, and after each failure of
`harness.failures`, which should not pass unseen: it is refused, the verdict is look or reject, or a
warning tells what is wrong with the stack. A mirrored stack is also caught where it is recognised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.harness import plots, tabulate
from benchmarks.harness.cases import (
    CLINICAL,
    Acquisition,
    Heart,
    acdc,
    anatomy_case,
    degrade,
    synthetic_hearts,
)
from benchmarks.harness.failures import FAILURES
from benchmarks.harness.measuring import is_development, refine_quietly, rounded
from benchmarks.harness.store import Record, Unit, gather
from cardiacreg.anatomy.segmentation import read_segmentation
from cardiacreg.errors import InvalidInputError, RefinementError, kept_warnings
from cardiacreg.geometry import Subject
from cardiacreg.io.nifti import read_volume
from cardiacreg.phantoms.hearts import sample_heart
from cardiacreg.reports.case import open_case
from cardiacreg.reports.inputs import Inputs
from cardiacreg.reports.report import verdict_of
from cardiacreg.reports.signs import measured_signs, quality_score
from cardiacreg.results.result import RefineResult

GOOD = "none"
GROUPS = ("healthy", "dilated", "hypertrophic", "pulmonary_hypertension")
FIRST_DEVELOPMENT_SEED = 20_000
_HEADER = ("sform", "qform", "pixdim")
"""Words of warnings about headers, which say nothing about the stack."""

Stack = Callable[[], Subject]


def run(quick: bool, cases: int = 24) -> dict[str, Any]:
    """Refine good stacks, and some of them after every failure."""
    count = 2 if quick else cases
    stacks = _evaluated(count)
    failing = stacks[: max(1, count // 6)]
    units = [_unit(name, stack, GOOD, stack) for name, stack in stacks]
    units += [
        _unit(name, stack, failure, stacks[(number + 1) % len(stacks)][1])
        for number, (name, stack) in enumerate(failing)
        for failure in FAILURES
    ]
    return {"records": gather("quality", units)}


def _evaluated(count: int) -> list[tuple[str, Stack]]:
    hearts = synthetic_hearts(count, groups=GROUPS)
    return [(heart.name, lambda heart=heart: _stack_of(heart)) for heart in hearts]


def _stack_of(heart: Heart) -> Subject:
    return heart.case().target


def development(count: int = 16) -> list[tuple[str, Stack]]:
    """Name the stacks that thresholds were chosen on: synthetic, real anatomies and patients."""
    found: list[tuple[str, Stack]] = []
    for number in range(count):
        seed, group = FIRST_DEVELOPMENT_SEED + number, GROUPS[number % len(GROUPS)]
        phase = ("ED", "ES")[number // len(GROUPS) % 2]
        found.append((f"{group}_{phase}_{seed}", _sampled(seed, group, phase)))
    for n in range(10):
        found.append(
            (f"random{n:03d}", lambda n=n: anatomy_case(f"random{n:03d}", 20_000 + n).target)
        )
    patients = tuple(n for n in range(1, 101) if is_development(n))
    frames = [frame for frame in acdc(patients) if frame.phase == "ED"]
    return found + [(frame.name, lambda frame=frame: _acquired(frame)) for frame in frames]


def _sampled(seed: int, group: str, phase: str) -> Stack:
    return lambda: degrade(sample_heart(seed, group=group, phase=phase), seed).subject


def _acquired(frame: Acquisition) -> Subject:
    with kept_warnings():
        labels = read_segmentation(frame.labels, preset=frame.preset)
        return Subject(labels, read_volume(frame.image), name=frame.name)


def _unit(name: str, stack: Stack, failure: str, other: Stack) -> Unit:
    key = {"case": name, "failure": failure, "degradation": repr(CLINICAL)}
    return Unit(key, lambda: rounded(key | measured(stack(), failure, other)))


def measured(stack: Subject, failure: str, other: Stack) -> Record:
    """Refine a stack after a failure, and return how it shows."""
    rng = np.random.default_rng(len(failure))
    if failure != GOOD:
        stack = FAILURES[failure](stack, rng, other())
    try:
        result = refine_quietly(stack.labels, image=stack.image, threads=1)
    except (InvalidInputError, RefinementError) as error:
        return {"refused": error.code}
    return outcome(result) | {"features": features(result)}


def outcome(result: RefineResult) -> Record:
    """Return the verdict of a result, what it rests on, and what else a reader is told."""
    verdict = verdict_of(open_case(result, Inputs()))
    told = [text for text in result.warnings if not any(word in text for word in _HEADER)]
    assert result.orientation is not None
    return {
        "verdict": verdict.word,
        "codes": list(verdict.codes),
        "warnings": told,
        "orientation": result.orientation.name,
        "ends": [end.coverage for end in result.ends],
    }


def features(result: RefineResult) -> dict[str, float]:
    """Return what may tell good results from failed ones; each is larger where a result is worse."""
    return measured_signs(
        result.agreement,
        result.volumes,
        result.slice_shifts_mm,
        result.atlases,
        result.atlas_diversity,
    ) | {
        "landmark_residual_mm": min(each.landmark_residual_mm for each in result.atlases),
        "inconsistency_before": 1.0 - max(each.consistency_before for each in result.atlases),
    }


def score_of(record: Record) -> float:
    """Return the quality score of a stack; 0 where it is refused, at most 0.5 where a warning tells."""
    if "refused" in record:
        return 0.0
    told = how_caught(record) not in ("missed", "recognised")
    word = record["verdict"] if record["verdict"] != "accept" or not told else "look"
    return quality_score(record["features"], word)


def how_caught(record: Record) -> str:
    """Return how a failure shows: refused, by the verdict, by a warning, or as missed."""
    if "refused" in record:
        return "refused"
    if record["verdict"] != "accept":
        return "verdict"
    if record["warnings"]:
        return "warning"
    mirrored = record["failure"] == "mirrored stack" and record["orientation"] == "mirrored"
    return "recognised" if mirrored else "missed"


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return how each failure shows, and how often good stacks raise an alarm."""
    records: Sequence[Record] = result["records"]
    ways = ("refused", "verdict", "warning", "recognised", "missed")
    rows = []
    for failure in (GOOD, *FAILURES):
        own = [how_caught(r) for r in records if r["failure"] == failure]
        if own:
            words = "none, a good stack" if failure == GOOD else failure
            rows.append([words, str(len(own)), *(str(own.count(way)) for way in ways)])
    caught = [how_caught(r) != "missed" for r in records if r["failure"] != GOOD]
    alarms = [how_caught(r) != "missed" for r in records if r["failure"] == GOOD]
    summary = [
        ["failures caught", f"{sum(caught)} of {len(caught)}", f"{100 * np.mean(caught):.0f} %"],
        ["false alarms", f"{sum(alarms)} of {len(alarms)}", f"{100 * np.mean(alarms):.0f} %"],
    ]  # fmt: skip
    return {
        "quality-failures": tabulate.markdown(
            ["failure", "stacks", *ways[:-1], "passes unseen"], rows
        ),
        "quality-summary": tabulate.markdown(["", "count", "share"], summary),
        "quality-score": _by_score(records),
    }


def _shares(records: Sequence[Record], limit: float) -> tuple[float, float]:
    """Percentages of good stacks and of failures with a score of at most a limit."""
    good = [score_of(r) <= limit for r in records if r["failure"] == GOOD]
    harmful = [r for r in records if r["failure"] != GOOD and how_caught(r) != "recognised"]
    return 100 * float(np.mean(good)), 100 * float(np.mean([score_of(r) <= limit for r in harmful]))


def _by_score(records: Sequence[Record]) -> str:
    rows = []
    for limit in (0.0, 0.25, 0.5, 0.6, 0.7, 0.8):
        alarms, caught = _shares(records, limit)
        rows.append([f"{limit:g}", f"{alarms:.0f} %", f"{caught:.0f} %"])
    return tabulate.markdown(["score at most", "good stacks", "failures"], rows)


def plots_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return the share of failures found over that of good stacks, for every limit of the score."""
    figure, axes = plots.panels(1, 1, width=4.2, height=3.2)
    panel = axes[0, 0]
    points = [_shares(result["records"], limit) for limit in np.linspace(0, 1, 201)]
    panel.plot(*np.transpose(points), color=plots.METHOD_COLOURS[0])
    panel.plot(
        *_shares(result["records"], 0.5), "o", color=plots.METHOD_COLOURS[1], label="0.5, in use"
    )
    panel.axvline(5, color="0.6", lw=0.8, ls="--")
    panel.set_xlim(-1, 50)
    panel.set_ylim(0, 101)
    panel.set_xlabel("false alarms, % of good stacks")
    panel.set_ylabel("found, % of failures")
    panel.legend(loc="lower right")
    return {"quality-score": figure}
