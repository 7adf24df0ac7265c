"""Does the verdict catch what goes wrong? Failures are made on purpose, on hearts that set no threshold.

Each good stack is refined as it is, which should be accepted, and after each failure of
`harness.failures`, which should not pass unseen: it is refused, the verdict is look or reject, or a
warning tells what is wrong with the stack. A mirrored stack is also caught where it is recognised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.harness import tabulate
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
from cardiacreg.reports.case import Inputs, open_case
from cardiacreg.reports.report import verdict_of
from cardiacreg.results.guards import GUARDED
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
    lengths = np.linalg.norm(result.slice_shifts_mm, axis=1)
    volumes = [v for name, v in result.volumes.items() if name in GUARDED and v.input_ml]
    dice = [d for name, d in result.agreement.items() if name in GUARDED and d is not None]
    return {
        "disagreement": 1.0 - min(dice, default=1.0),
        "volume_change": max(
            (abs(v.total_ml / (v.input_ml or 1) - 1) for v in volumes), default=0.0
        ),
        "share_beyond": max(
            ((v.beyond_apex_ml + v.beyond_base_ml) / max(v.total_ml, 1e-9) for v in volumes),
            default=0.0,
        ),
        "largest_shift_mm": float(lengths.max(initial=0.0)),
        "landmark_residual_mm": min(each.landmark_residual_mm for each in result.atlases),
        "inconsistency_before": 1.0 - max(each.consistency_before for each in result.atlases),
        "inconsistency_after": 1.0 - float(np.mean([e.consistency_after for e in result.atlases])),
        "atlas_diversity": result.atlas_diversity or 0.0,
    }


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
    }
