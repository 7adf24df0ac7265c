"""What several benchmarks say together: the findings in one table, the goals set beforehand in another.

Made from the stored results when the documents are filled; nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks import anatomy_transfer, hidden_slices, paper, real, simulated, tabulate
from benchmarks.tabulate import ORDER, Record

Results = dict[str, dict[str, Any]]
_SIMPLE = "shape-based"
_VIEWS = {"raw": "raw", "tilt": "after translation and tilt"}
_HIDDEN_VIEWS = {"raw": "raw", "translation": "each hidden slice translated"}
_SIZES = simulated.VOLUMES | simulated.MASSES
_QUOTED_SIZES = paper.VOLUMES_ML | paper.MASSES_G


class _Question(NamedTuple):
    """One population, its records, our method's name in them, and the alignments shown."""

    name: str
    records: Sequence[Record]
    ours: str
    views: dict[str, str]


def tables(results: Results) -> dict[str, str]:
    """Return the findings and the goals, from whichever results are stored."""
    questions = list(_questions(results))
    goals = [*_simulated_goals(results), *_real_goals(results)]
    return {
        "summary-findings": tabulate.markdown(
            ["Dice: shape-based interpolation → cardiacreg", *ORDER],
            [row for question in questions for row in _finding(question)],
        ),
        "summary-goals": tabulate.markdown(["goal", "found", "reached"], goals),
    }


def _questions(results: Results) -> Iterable[_Question]:
    """Yield the populations on which a truth, or hidden slices, can be scored."""
    for name, words, ours in (
        ("anatomy_transfer", "real anatomies, cut into slices", anatomy_transfer.EMBEDDED),
        ("simulated", "unseen synthetic hearts", simulated.DEFAULT),
    ):
        if name in results:
            yield _Question(words, results[name]["records"], ours, _VIEWS)
    hidden = [r for r in results.get("real", {}).get("hidden", []) if "scores" in r]
    for data in dict.fromkeys(r["data"] for r in hidden):
        own = [r for r in hidden if r["data"] == data]
        yield _Question(f"{data}, hidden slices", own, hidden_slices.OURS, _HIDDEN_VIEWS)


def _finding(question: _Question) -> list[list[str]]:
    """One row per alignment: the mean of interpolation, and ours."""
    pair = (_SIMPLE, question.ours)
    count = len({r["case"] for r in question.records if "scores" in r})
    rows = []
    for alignment, words in question.views.items():
        cells = []
        for structure in ORDER:
            simple, ours = tabulate.paired(question.records, pair, structure, "dice", alignment)
            cells.append(f"{np.mean(simple):.3f} → {np.mean(ours):.3f}" if ours else "–")
        rows.append([f"{question.name} ({count}), {words}", *cells])
    return rows


def _simulated_goals(results: Results) -> Iterable[list[str]]:
    """Against every other method, the best published Dice, the paper's sizes, and torn structures."""
    if "simulated" not in results:
        return
    records = results["simulated"]["records"]
    ours = [r for r in records if r["method"] == simulated.DEFAULT and "scores" in r]
    yield _ahead(records)
    for structure, goal in simulated.GOALS.items():
        raw, aligned = (_mean(ours, structure, "dice", view) for view in _VIEWS)
        yield [
            f"synthetic hearts: Dice of the {structure} at least {goal:.3f} (other data)",
            f"{raw:.3f} raw, {aligned:.3f} after translation and tilt",
            _verdict(raw >= goal, "aligned only" if aligned >= goal else "no"),
        ]
    for structure, (figure, unit) in _SIZES.items():
        found, goal = _mean(ours, structure, figure, "raw"), _QUOTED_SIZES[structure][0] / 2
        yield [
            f"synthetic hearts: {structure}, absolute error at most half of the paper's, "
            f"{goal:.1f} {unit}",
            f"{found:.1f} {unit}",
            _verdict(found <= goal),
        ]
    torn = sum(_is_torn(r) for r in ours)
    yield [
        "synthetic hearts: none torn or with a hole",
        f"{torn} of {len(ours)}",
        _verdict(not torn),
    ]


def _ahead(records: Sequence[Record]) -> list[str]:
    """Whether the mean raw Dice of every structure is above that of every other method."""
    others = [method for method in tabulate.methods(records) if method != simulated.DEFAULT]
    gains = [
        float(np.mean(ours) - np.mean(theirs))
        for other in others
        for structure in ORDER
        for ours, theirs in [
            tabulate.paired(records, (simulated.DEFAULT, other), structure, "dice")
        ]
    ]
    words = f"smallest gain {min(gains):+.3f}"
    goal = "synthetic hearts: mean raw Dice above both interpolations and the paper preset"
    return [f"{goal}, every structure", words, _verdict(min(gains) > 0)]


def _real_goals(results: Results) -> Iterable[list[str]]:
    """That every frame runs and is whole, and the gain at hidden slices."""
    if "real" not in results:
        return
    frames = results["real"]["records"]
    bad = sum("error" in r or _has_faults(r) for r in frames)
    found = f"{bad} of {len(frames)} frames"
    yield ["real patients: none fails, folds, is torn or has a hole", found, _verdict(not bad)]
    for question in _questions({"real": results["real"]}):
        for alignment, words in question.views.items():
            gains = {name: _gain(question, name, alignment) for name in ORDER[:3]}
            reached = [gain >= real.GAIN_WANTED for gain in gains.values()]
            yield [
                f"{question.name}, {words}: {real.GAIN_WANTED:.2f} above shape-based",
                ", ".join(f"{name} {gain:+.3f}" for name, gain in gains.items()),
                _verdict(all(reached), f"{sum(reached)} of {len(reached)}"),
            ]


def _gain(question: _Question, structure: str, alignment: str) -> float:
    pair = (question.ours, _SIMPLE)
    ours, simple = tabulate.paired(question.records, pair, structure, "dice", alignment)
    return float(np.mean(ours) - np.mean(simple))


def _mean(records: Sequence[Record], structure: str, figure: str, alignment: str) -> float:
    """Return the mean size of one figure."""
    found = tabulate.values(records, simulated.DEFAULT, structure, figure, alignment)
    return float(np.mean(np.abs(found)))


def _is_torn(record: Record) -> bool:
    figures = record["scores"]["raw"].values()
    return any(f.get("n_components", 1) > 1 or f.get("n_holes", 0) > 0 for f in figures)


def _has_faults(record: Record) -> bool:
    torn = any(t[0] != 1 or t[1] != 0 for t in record["topology"].values())
    return torn or record["minimum_jacobian"] <= 0


def _verdict(reached: bool, otherwise: str = "no") -> str:
    return "yes" if reached else otherwise
