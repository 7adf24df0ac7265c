"""What several benchmarks say together: the findings in one table, the goals set beforehand in another.

Made from the stored results when the documents are filled; nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks.accuracy import anatomy_transfer, comparison, real, simulated, views
from benchmarks.harness import hidden_slices, paper, tabulate
from benchmarks.harness.cases import ANATOMIES
from benchmarks.harness.measuring import BASELINES
from benchmarks.harness.tabulate import ORDER, Record

Results = dict[str, dict[str, Any]]
_SIMPLE = "shape-based"
_WITH_TRUTH = {
    "anatomy_transfer": ("real anatomies, cut into slices", anatomy_transfer.EMBEDDED),
    "simulated": ("unseen synthetic hearts", simulated.DEFAULT),
}
_VIEWS = {"raw": "raw", "tilt": "after translation and tilt"}
_HIDDEN_VIEWS = {"raw": "raw", "translation": "each hidden slice translated"}
_SIZES = simulated.VOLUMES | simulated.MASSES
_MEAN_GOAL = 0.940
_QUOTED_SIZES = paper.VOLUMES_ML | paper.MASSES_G


class _Question(NamedTuple):
    """One population, its records, our method's name in them, and the alignments shown."""

    name: str
    records: Sequence[Record]
    ours: str
    views: dict[str, str]


def tables(results: Results) -> dict[str, str]:
    """Return the findings and the goals, from whichever results are stored."""
    with_truth = list(_questions(results, ("anatomy_transfer", "simulated")))
    hidden = list(_questions(results, ("real",)))
    seen = list(_with_views(results))
    findings = [row for each in (*with_truth, *seen, *hidden) for row in _finding(each)]
    columns = [f"{each.name} ({_count(each)})" for each in with_truth]
    goals = _goals(with_truth)
    if "comparison" in results and with_truth:
        goals.insert(1, _compared_goal(results["comparison"]["records"], with_truth))
    return {
        "summary-findings": tabulate.markdown(
            ["Dice: shape-based interpolation → cardiacreg", *ORDER], findings
        ),
        "summary-goals": tabulate.markdown(["goal", *columns], goals),
        "summary-goals-patients": tabulate.markdown(
            ["goal, patients", "found", "reached"], _patient_goals(results)
        ),
    }


def _questions(results: Results, names: Sequence[str]) -> Iterator[_Question]:
    """Yield the populations of some benchmarks; each data set of patients is one."""
    for name in names:
        if name in _WITH_TRUTH and name in results:
            words, ours = _WITH_TRUTH[name]
            yield _Question(words, results[name]["records"], ours, _VIEWS)
        elif name in results:
            hidden = [r for r in results[name]["hidden"] if "scores" in r]
            for data in dict.fromkeys(r["data"] for r in hidden):
                own = [r for r in hidden if r["data"] == data]
                yield _Question(f"{data}, hidden slices", own, hidden_slices.OURS, _HIDDEN_VIEWS)


def _with_views(results: Results) -> Iterator[_Question]:
    """Yield the real anatomies that were given two long-axis views."""
    if "views" in results:
        records = [r for r in results["views"]["records"] if r["case"] in ANATOMIES]
        words = "the same with a four- and a two-chamber view"
        yield _Question(words, records, views.TWO, {"raw": "raw"})


def _count(question: _Question) -> int:
    return len({r["case"] for r in question.records if "scores" in r})


def _finding(question: _Question) -> list[list[str]]:
    """One row per alignment: the mean of interpolation, and ours."""
    pair = (_SIMPLE, question.ours)
    rows = []
    for alignment, words in question.views.items():
        cells = []
        for structure in ORDER:
            simple, ours = tabulate.paired(question.records, pair, structure, "dice", alignment)
            cells.append(f"{np.mean(simple):.3f} → {np.mean(ours):.3f}" if ours else "–")
        rows.append([f"{question.name} ({_count(question)}), {words}", *cells])
    return rows


def _goals(questions: Sequence[_Question]) -> list[list[str]]:
    """One row per goal, one cell per population: above every other way, Dice, sizes, whole."""
    goals: dict[str, Callable[[_Question], str]] = {
        "mean raw Dice above interpolation and the paper method, each structure": _ahead,
        **{
            f"Dice of the {structure} at least {goal:.3f}": partial(_dice, structure, goal)
            for structure, goal in simulated.GOALS.items()
        },
    }
    goals[f"mean Dice of the four structures at least {_MEAN_GOAL:.3f}"] = _labels_mean
    for structure, (figure, unit) in _SIZES.items():
        goal = _QUOTED_SIZES[structure][0] / 2
        words = f"{structure}: mean absolute error at most half of the paper's, {goal:.1f} {unit}"
        goals[words] = partial(_size, structure, figure, goal)
    goals["none torn, none with a hole"] = _whole
    return [[words, *(judge(each) for each in questions)] for words, judge in goals.items()]


def _compared_goal(records: Sequence[Record], questions: Sequence[_Question]) -> list[str]:
    """Whether Dice is above that of every way that does not share our registrations."""
    rest = [m for m in tabulate.methods(records) if m != comparison.DEFAULT]
    rest = [m for m in rest if not m.endswith(comparison.SHARED)]
    gains = {
        view: min(
            float(np.mean(ours) - np.mean(theirs))
            for other in rest
            for structure in ORDER
            for ours, theirs in [
                tabulate.paired(records, (comparison.DEFAULT, other), structure, "dice", view)
            ]
        )
        for view in _VIEWS
    }
    raw, aligned = gains.values()
    verdict = _verdict(raw > 0, "when aligned" if aligned > 0 else "no")
    cell = f"smallest gain {raw:+.3f} raw, {aligned:+.3f} aligned: {verdict}"
    hearts = len({r["case"] for r in records})
    words = f"mean Dice above every other way on {hearts} of the hearts, each structure"
    synthetic = _WITH_TRUTH["simulated"][0]
    return [words, *(cell if each.name == synthetic else "–" for each in questions)]


def _ahead(question: _Question) -> str:
    """Whether the mean raw Dice of every structure is above that of the methods that are not ours."""
    rest = [m for m in tabulate.methods(question.records) if m in (*BASELINES, simulated.PAPER)]
    gains = [
        float(np.mean(ours) - np.mean(theirs))
        for other in rest
        for structure in ORDER
        for ours, theirs in [
            tabulate.paired(question.records, (question.ours, other), structure, "dice")
        ]
    ]
    return f"smallest gain {min(gains):+.3f}: {_verdict(min(gains) > 0)}"


def _dice(structure: str, goal: float, question: _Question) -> str:
    raw, aligned = (round(_mean(question, structure, "dice", view), 3) for view in _VIEWS)
    verdict = _verdict(raw >= goal, "when aligned" if aligned >= goal else "no")
    return f"{raw:.3f} raw, {aligned:.3f} aligned: {verdict}"


def _labels_mean(question: _Question) -> str:
    """Whether the mean over structures reaches the best published mean over (other) labels."""
    raw, aligned = (
        round(float(np.mean([_mean(question, name, "dice", view) for name in ORDER])), 3)
        for view in _VIEWS
    )
    verdict = _verdict(raw >= _MEAN_GOAL, "when aligned" if aligned >= _MEAN_GOAL else "no")
    return f"{raw:.3f} raw, {aligned:.3f} aligned: {verdict}"


def _size(structure: str, figure: str, goal: float, question: _Question) -> str:
    found = _mean(question, structure, figure, "raw")
    return f"{found:.1f}: {_verdict(found <= goal)}"


def _whole(question: _Question) -> str:
    own = [r["scores"]["raw"] for r in question.records if r["method"] == question.ours]
    torn = sum(any(tabulate.torn(f) for f in each.values()) for each in own)
    return f"{torn} of {len(own)} torn: {_verdict(not torn)}"


def _patient_goals(results: Results) -> list[list[str]]:
    """That every frame runs and is whole, and the gain at hidden slices."""
    frames = results["real"]["records"] if "real" in results else []
    bad = sum("error" in r or _has_faults(r) for r in frames)
    rows = [
        [
            "none fails, folds, is torn or has a hole",
            f"{bad} of {len(frames)} frames",
            _verdict(not bad),
        ]
    ]
    for question in _questions(results, ("real",)):
        for alignment, words in question.views.items():
            gains = {name: _gain(question, name, alignment) for name in ORDER[:3]}
            reached = sum(gain >= real.GAIN_WANTED for gain in gains.values())
            found = ", ".join(f"{name} {gain:+.3f}" for name, gain in gains.items())
            goal = f"{question.name}, {words}: {real.GAIN_WANTED:.2f} above shape-based"
            rows.append(
                [goal, found, _verdict(reached == len(gains), f"{reached} of {len(gains)}")]
            )
    return rows if frames else []


def _gain(question: _Question, structure: str, alignment: str) -> float:
    pair = (question.ours, _SIMPLE)
    ours, simple = tabulate.paired(question.records, pair, structure, "dice", alignment)
    return float(np.mean(ours) - np.mean(simple))


def _mean(question: _Question, structure: str, figure: str, alignment: str) -> float:
    """Return the mean size of one figure of ours."""
    found = tabulate.values(question.records, question.ours, structure, figure, alignment)
    return float(np.mean(np.abs(found)))


def _has_faults(record: Record) -> bool:
    torn = any(t[0] != 1 or t[1] != 0 for t in record["topology"].values())
    return torn or record["minimum_jacobian"] <= 0


def _verdict(reached: bool, otherwise: str = "no") -> str:
    return "yes" if reached else otherwise
