"""How often does a good patient raise an alarm when both frames are given? Development patients.

End-diastole and end-systole of each patient are refined alone, and each told of the other, as
`refine_patient` does. A report of both has the worse verdict and the lesser score of the two
(`reports.report`), so that it may raise an alarm where either frame alone does. The limits were set on
other hearts and on the first frames of these patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.accuracy import quality
from benchmarks.harness import tabulate
from benchmarks.harness.cases import Acquisition, acdc, siblings
from benchmarks.harness.measuring import is_development, refine_quietly, rounded
from benchmarks.harness.store import Record, Unit, gather
from cardiacreg.reports.case import open_case
from cardiacreg.reports.inputs import Inputs
from cardiacreg.reports.report import score_of, verdict_of
from cardiacreg.results.result import RefineResult

GIVEN = {
    "end-diastole alone": "ED alone",
    "end-systole alone": "ES alone",
    "end-diastole, told of end-systole": "ED",
    "end-systole, told of end-diastole": "ES",
    "a report of both": "both",
}
"""What is given, in words, and the part of a record that tells of it."""
LIMITS = (0.25, 0.5, 0.6, 0.7)


def run(quick: bool, cases: int = 100) -> dict[str, Any]:
    """Refine both frames of development patients; `cases` counts patients from the first."""
    count = 2 if quick else cases
    frames = acdc(tuple(n for n in range(1, count + 1) if is_development(n)))
    first = [frame for frame in frames if frame.phase == "ED"]
    return {"records": gather("two_frames", [_unit(ed, siblings(ed, frames)[0]) for ed in first])}


def _unit(ed: Acquisition, es: Acquisition) -> Unit:
    key = {"case": ed.labels.parent.name, "group": ed.group}
    return Unit(key, lambda: rounded(key | measured(ed, es)))


def measured(ed: Acquisition, es: Acquisition) -> Record:
    """Refine both frames alone and together, and return what a report of each says."""
    found: Record = {}
    together = []
    for phase, frame, other in (("ED", ed, es), ("ES", es, ed)):
        found[f"{phase} alone"] = _told([_refined(frame, [])])
        together.append(_refined(frame, [other.labels]))
        found[phase] = _told(together[-1:])
    return found | {"both": _told(together)}


def _refined(frame: Acquisition, others: Sequence[Any]) -> RefineResult:
    how: dict[str, Any] = {"image": frame.image, "preset": frame.preset, "threads": 1}
    return refine_quietly(frame.labels, frames=others, **how)


def _told(results: Sequence[RefineResult]) -> Record:
    """Return the verdict, the score and the warnings of a report of one frame or of both."""
    case = open_case(results[0], Inputs(), *results[1:])
    verdict = verdict_of(case)
    return {
        "verdict": verdict.word,
        "codes": list(verdict.codes),
        "warnings": sorted(
            {text for each in results for text in quality.outcome(each)["warnings"]}
        ),
        "score": score_of(case),
    }


def _is_alarm(told: Record) -> bool:
    return told["verdict"] != "accept" or bool(told["warnings"])


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return the share of patients with an alarm, by what is given, and which findings raised it."""
    good = [record for record in result["records"] if "both" in record]
    rows = []
    for words, part in GIVEN.items():
        told = [record[part] for record in good]
        alarms = sum(map(_is_alarm, told))
        low = [100 * np.mean([each["score"] <= limit for each in told]) for limit in LIMITS]
        shown = f"{alarms} of {len(told)} ({100 * alarms / len(told):.0f} %)"
        rows.append([words, shown, *(f"{share:.0f} %" for share in low)])
    header = ["given", "alarm", *(f"score at most {limit:g}" for limit in LIMITS)]
    raised = [
        [record["case"], _why(record["ED"]), _why(record["ES"])]
        for record in good
        if _is_alarm(record["both"])
    ]
    return {
        "two-frames": tabulate.markdown(header, rows),
        "two-frames-raised": tabulate.markdown(
            ["patient", "at end-diastole", "at end-systole"], raised
        ),
    }


def _why(told: Record) -> str:
    words = [f"`{code}`" for code in told["codes"]] + ["warning"] * bool(told["warnings"])
    return ", ".join(words) or "–"
