"""Markdown tables from stored records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks.scoring import wilcoxon_p

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
        if record["method"] == method:
            value = record["scores"][alignment].get(structure, {}).get(figure)
            if value is not None:
                found.append(float(value))
    return found


def mean_sd(numbers: Sequence[float], digits: int = 3) -> str:
    """Return ``mean ± sd``, or a dash for no numbers."""
    if not len(numbers):
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
) -> str:
    """Return one row per method and alignment, one column per structure."""
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
    return markdown(["method", *structures], rows)


def comparison_table(
    records: Sequence[Record], method: str, others: Sequence[str], alignment: str = "raw"
) -> str:
    """Return the mean Dice gain of a method over others and its Wilcoxon p-value, per structure."""
    rows = []
    for other in others:
        cells = []
        for structure in ORDER:
            ours = values(records, method, structure, "dice", alignment)
            theirs = values(records, other, structure, "dice", alignment)
            gain = float(np.mean(ours) - np.mean(theirs))
            cells.append(f"{gain:+.3f} ({p_text(wilcoxon_p(ours, theirs))})")
        rows.append([f"{method} minus {other}", *cells])
    return markdown(["Dice, " + ALIGNMENTS[alignment], *ORDER], rows)


def p_text(p: float) -> str:
    """Return a p-value in words."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def shift_table(records: Sequence[Record]) -> str:
    """Return the error of the slice shifts per method, and that of the input."""
    kinds = {
        "raw": "raw",
        "mean_removed": "mean removed",
        "trend_removed": "mean and trend removed",
    }
    chosen = [r for r in records if "shift_error_mm" in r]
    cases = {r["case"]: r["input_shift_error_mm"] for r in chosen}
    rows = [["input", *[mean_sd([c[k] for c in cases.values()], 2) for k in kinds]]]
    for method in methods(chosen):
        own = [r["shift_error_mm"] for r in chosen if r["method"] == method]
        rows.append([method, *[mean_sd([e[k] for e in own], 2) for k in kinds]])
    return markdown(["shift error per axis, mm (RMS)", *kinds.values()], rows)


def summary_table(
    records: Sequence[Record], columns: dict[str, Callable[[Sequence[Record]], str]]
) -> str:
    """Return one row per method; each column is made from the method's records."""
    rows = []
    for method in methods(records):
        own = [record for record in records if record["method"] == method]
        rows.append([method, *[make(own) for make in columns.values()]])
    return markdown(["method", *columns], rows)
