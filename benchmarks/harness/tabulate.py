"""Markdown tables from stored records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks.harness.scoring import BACKGROUND, wilcoxon_p
from cardiacreg.metrics.overlap import limits_of_agreement

Record = dict[str, Any]
ORDER = ("LV cavity", "LV wall", "RV cavity", "RV wall")
ALIGNMENTS = {
    "raw": "raw",
    "translation": "after translation",
    "tilt": "after translation and tilt",
}


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a markdown table; the first column is text, the others are numbers."""
    lines = [list(header), ["---", *["---:"] * (len(header) - 1)], *[list(row) for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def methods(records: Sequence[Record]) -> list[str]:
    """Return the methods in the order in which they were measured."""
    return list(dict.fromkeys(record["method"] for record in records))


def values(
    records: Sequence[Record], method: str, structure: str, figure: str, alignment: str = "raw"
) -> list[float]:
    """Return one figure of one structure for every case of a method that has it."""
    found = []
    for record in records:
        if record["method"] == method and "scores" in record:
            value = record["scores"][alignment].get(structure, {}).get(figure)
            if value is not None:
                found.append(float(value))
    return found


def mean_sd(numbers: Sequence[float], digits: int = 3) -> str:
    """Return ``mean ± sd``, or a dash for no numbers."""
    if len(numbers) == 0:
        return "–"
    spread = np.std(numbers, ddof=1) if len(numbers) > 1 else 0.0
    return f"{np.mean(numbers):.{digits}f} ± {spread:.{digits}f}"


def figure_table(
    records: Sequence[Record],
    figure: str,
    *,
    alignments: Sequence[str] = ("raw",),
    structures: Sequence[str] = ORDER,
    digits: int = 3,
    absolute: bool = False,
    quoted: tuple[str, dict[str, tuple[float, float]]] | None = None,
) -> str:
    """Return one row per method and alignment, one column per structure, and a quoted row at the end."""
    rows = []
    for alignment in alignments:
        for method in methods(records):
            cells = []
            for structure in structures:
                found = values(records, method, structure, figure, alignment)
                cells.append(mean_sd([abs(v) if absolute else v for v in found], digits))
            several = len(alignments) > 1
            name = f"{method}, {ALIGNMENTS[alignment]}" if several else method
            rows.append([name, *cells])
    if quoted is not None:
        rows.append(quoted_row(*quoted, structures, digits))
    return markdown(["method", *structures], rows)


def quoted_row(
    name: str, figures: dict[str, tuple[float, float]], structures: Sequence[str], digits: int
) -> list[str]:
    """Return a row of published means and standard deviations."""
    pairs = [figures.get(structure) for structure in structures]
    cells = [f"{p[0]:.{digits}f} ± {p[1]:.{digits}f}" if p else "–" for p in pairs]
    return [f"*{name}*", *(f"*{cell}*" if cell != "–" else cell for cell in cells)]


def comparison_table(
    records: Sequence[Record],
    method: str,
    others: Sequence[str],
    alignment: str = "raw",
    figure: str = "dice",
    digits: int = 3,
) -> str:
    """Return the mean gain of a method over others and its Wilcoxon p-value, per structure.

    Only cases that both methods have count.
    """
    rows = []
    for other in others:
        cells = []
        for structure in ORDER:
            ours, theirs = paired(records, (method, other), structure, figure, alignment)
            if not ours:
                cells.append("–")
                continue
            gain = float(np.mean(ours) - np.mean(theirs))
            cells.append(f"{gain:+.{digits}f} ({p_text(wilcoxon_p(ours, theirs))})")
        rows.append([f"{method} minus {other}", *cells])
    words = {"dice": "Dice"}.get(figure, figure.removesuffix("_mm").replace("_", " "))
    return markdown([f"{words}, {ALIGNMENTS[alignment]}", *ORDER], rows)


def paired(
    records: Sequence[Record],
    pair: tuple[str, str],
    structure: str,
    figure: str,
    alignment: str = "raw",
) -> tuple[list[float], list[float]]:
    """Return one figure of one structure by two methods for the cases that have both."""
    found: tuple[dict[str, float], dict[str, float]] = ({}, {})
    for record in records:
        for method, own in zip(pair, found, strict=True):
            if record["method"] == method and "scores" in record:
                value = record["scores"][alignment].get(structure, {}).get(figure)
                if value is not None:
                    own[record["case"]] = float(value)
    both = [case for case in found[0] if case in found[1]]
    return [found[0][case] for case in both], [found[1][case] for case in both]


def robustness_table(records: Sequence[Record]) -> str:
    """Return, per method, failures, missed structures, topology errors and the worst Dice."""
    rows = []
    for method in methods(records):
        own = [r for r in records if r["method"] == method]
        good = [r["scores"]["raw"] for r in own if "scores" in r]
        structures = [figures for each in good for figures in each.values()]
        found = [
            (figures["dice"], name, r["case"])
            for r in own
            if "scores" in r
            for name, figures in r["scores"]["raw"].items()
        ]
        worst = "{:.3f} ({}, {})".format(*min(found)) if found else "–"
        rows.append(
            [
                method,
                str(len(own)),
                str(sum("error" in r for r in own)),
                str(sum(bool(f.get("missed", f["dice"] == 0)) for f in structures)),
                _count_torn(good),
                worst,
            ]
        )
    header = [
        "method",
        "cases",
        "failed",
        "structures missed",
        "hearts with torn or holed structures",
    ]
    return markdown([*header, "lowest Dice of any structure"], rows)


def means_table(records: Sequence[Record]) -> str:
    """Return, per method, each case's mean Dice over labels: four structures, and with background.

    With background only where it was measured. Published means "over five labels" differ in which five.
    """
    rows = []
    for method in methods(records):
        own = [r["scores"] for r in records if r["method"] == method and "scores" in r]
        cells = []
        for alignment in ("raw", "tilt"):
            for names in (ORDER, (*ORDER, BACKGROUND)):
                held = [each[alignment] for each in own if all(n in each[alignment] for n in names)]
                found = [float(np.mean([each[n]["dice"] for n in names])) for each in held]
                cells.append(mean_sd(found))
        rows.append([method, *cells])
    kinds = ("four structures", "and background")
    header = [f"{kind}, {ALIGNMENTS[a]}" for a in ("raw", "tilt") for kind in kinds]
    return markdown(["mean Dice over labels", *header], rows)


def _count_torn(scores: Sequence[dict[str, Record]]) -> str:
    """How many hearts have a torn or holed structure; a dash where pieces were not counted."""
    if not any("n_components" in figures for each in scores for figures in each.values()):
        return "–"
    return str(sum(any(torn(f) for f in each.values()) for each in scores))


def torn(figures: Record) -> bool:
    """Tell whether a structure is in several pieces or has a hole."""
    return figures.get("n_components", 1) > 1 or figures.get("n_holes", 0) > 0


def staircase_table(records: Sequence[Record]) -> str:
    """Return the staircase score per method, and the truth's own at the end."""
    truth = [
        {
            "method": "the truth itself",
            "scores": {
                "raw": {
                    name: {"staircase_mm": figures.get("true_staircase_mm")}
                    for name, figures in record["scores"]["raw"].items()
                }
            },
        }
        for record in records
        if "scores" in record and record["method"] == records[0]["method"]
    ]
    return figure_table([*records, *truth], "staircase_mm", digits=2)


def agreement_table(
    records: Sequence[Record], figures: dict[str, tuple[str, str]], digits: int = 1
) -> str:
    """Return bias and 95 % limits of agreement per method.

    Parameters
    ----------
    figures : dict
        Structure to the names of its error and its unit, such as ``("volume_error_ml", "ml")``.
    """
    rows = []
    for method in methods(records):
        cells = []
        for structure, (figure, _) in figures.items():
            errors = values(records, method, structure, figure)
            if len(errors) < 2:
                cells.append("–")
                continue
            found = limits_of_agreement(errors, np.zeros(len(errors)))
            cells.append(
                f"{found.bias:+.{digits}f} [{found.lower:+.{digits}f}, {found.upper:+.{digits}f}]"
            )
        rows.append([method, *cells])
    return markdown(["method", *(f"{name}, {unit}" for name, (_, unit) in figures.items())], rows)


def p_text(p: float) -> str:
    """Return a p-value in words."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def shift_table(records: Sequence[Record]) -> str:
    """Return the error of the slice shifts per method, and that of the input."""
    kinds = {
        "raw": "RMS per axis, raw",
        "mean_removed": "mean removed",
        "trend_removed": "mean and trend removed",
    }
    medians = {f"median_{k}": f"median length, {v}" for k, v in kinds.items() if k != "raw"}
    chosen = [r for r in records if "shift_error_mm" in r]
    if all(k in r["shift_error_mm"] for r in chosen for k in medians):
        kinds |= medians
    cases = {r["case"]: r["input_shift_error_mm"] for r in chosen}
    rows = [["input", *[mean_sd([c[k] for c in cases.values()], 2) for k in kinds]]]
    for method in methods(chosen):
        own = [r["shift_error_mm"] for r in chosen if r["method"] == method]
        rows.append([method, *[mean_sd([e[k] for e in own], 2) for k in kinds]])
    return markdown(["shift error, mm", *kinds.values()], rows)


def summary_table(
    records: Sequence[Record], columns: dict[str, Callable[[Sequence[Record]], str]]
) -> str:
    """Return one row per method; each column is made from the method's records."""
    rows = []
    for method in methods(records):
        own = [record for record in records if record["method"] == method]
        rows.append([method, *[make(own) for make in columns.values()]])
    return markdown(["method", *columns], rows)
