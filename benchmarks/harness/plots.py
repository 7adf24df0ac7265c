"""Figures from stored records, in one style: one colour per structure, one row per figure.

Every function returns a matplotlib figure and is called inside `style`; `save` writes it as PNG and SVG,
the same bytes for the same numbers.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.harness import tabulate
from cardiacreg.metrics.overlap import limits_of_agreement

Record = dict[str, Any]
STRUCTURE_COLOURS = {
    "LV cavity": "#d55e00",
    "LV wall": "#c99000",
    "RV wall": "#56b4e9",
    "RV cavity": "#0a5fa8",
}
METHOD_COLOURS = ("#0a5fa8", "#d55e00", "#009e73", "#cc79a7", "#c99000", "#56b4e9", "#555555")
STYLE = {
    "figure.dpi": 110,
    "savefig.dpi": 110,
    "figure.facecolor": "white",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "svg.hashsalt": "cardiacreg",
    "svg.fonttype": "none",
}


def style() -> Any:
    """Return the context in which figures of one style are made and saved."""
    return rc_context(STYLE)


def panels(n_rows: int, n_columns: int, *, height: float = 2.6, width: float = 2.4) -> Any:
    """Return a figure and its panels, shape (rows, columns); to be called inside `style`."""
    figure = Figure(figsize=(width * n_columns + 0.6, height * n_rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(n_rows, n_columns, squeeze=False)


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write PNG and SVG."""
    folder.mkdir(parents=True, exist_ok=True)
    places = [folder / f"{name}.png", folder / f"{name}.svg"]
    figure.savefig(places[0], metadata={"Software": None})
    figure.savefig(places[1], metadata={"Date": None, "Creator": None})
    return places


def boxes(
    records: Sequence[Record],
    figure: str,
    label: str,
    *,
    alignment: str = "raw",
    structures: Sequence[str] = tabulate.ORDER,
    names: dict[str, str] | None = None,
    goals: dict[str, float] | None = None,
) -> Figure:
    """Draw one panel per structure, one box per method, every case a dot."""
    methods = tabulate.methods(records)
    drawn, axes = panels(1, len(structures))
    for panel, structure in zip(axes[0], structures, strict=True):
        found = [tabulate.values(records, m, structure, figure, alignment) for m in methods]
        _boxes(panel, found, STRUCTURE_COLOURS[structure])
        shown = [(names or {}).get(m, m) for m in methods]
        panel.set_xticks(range(1, len(methods) + 1), shown, rotation=40, ha="right", fontsize=8)
        panel.set_title(structure)
        if goals and structure in goals:
            panel.axhline(goals[structure], color="0.3", linestyle=":", linewidth=1)
    axes[0, 0].set_ylabel(label)
    return drawn


def _boxes(panel: Any, found: list[list[float]], colour: str) -> None:
    known = [(n, values) for n, values in enumerate(found, 1) if values]
    if known:
        panel.boxplot(
            [values for _, values in known], positions=[n for n, _ in known], widths=0.55,
            showfliers=False, medianprops={"color": "black"}, patch_artist=True,
            boxprops={"facecolor": colour, "alpha": 0.45, "edgecolor": "0.3"},
            whiskerprops={"color": "0.4"}, capprops={"color": "0.4"},
        )  # fmt: skip
    for n, values in known:
        jitter = np.random.default_rng(n).uniform(-0.14, 0.14, len(values))
        panel.scatter(n + jitter, values, s=6, color="0.15", alpha=0.55, linewidths=0, zorder=3)
    panel.grid(axis="x", visible=False)


def bland_altman(
    records: Sequence[Record], quantities: dict[str, tuple[str, str, str]], methods: Sequence[str]
) -> Figure:
    """Draw error against size, a row per quantity and a column per method, with bias and limits.

    Parameters
    ----------
    quantities : dict
        Structure to names of the true size, of the error, and the unit.
    """
    drawn, axes = panels(len(quantities), len(methods), height=2.1, width=2.5)
    for row, (structure, (size, error, unit)) in zip(axes, quantities.items(), strict=True):
        for panel, method in zip(row, methods, strict=True):
            true = np.array(tabulate.values(records, method, structure, size))
            errors = np.array(tabulate.values(records, method, structure, error))
            if len(true) != len(errors) or len(errors) < 2:
                continue
            panel.scatter(
                true + errors / 2, errors, s=11, color=STRUCTURE_COLOURS[structure], alpha=0.8,
                linewidths=0,
            )  # fmt: skip
            found = limits_of_agreement(errors, np.zeros(len(errors)))
            panel.axhline(found.bias, color="0.2", linewidth=1.2)
            for limit in (found.lower, found.upper):
                panel.axhline(limit, color="0.2", linewidth=0.9, linestyle="--")
            panel.axhline(0, color="0.7", linewidth=0.8, zorder=0)
        row[0].set_ylabel(f"{structure}\nerror, {unit}")
        _share_y(row)
        for panel in row:
            panel.set_xlabel(f"mean of both, {unit}", fontsize=8)
    for panel, method in zip(axes[0], methods, strict=True):
        panel.set_title(textwrap.fill(method, 22))
    return drawn


def _share_y(row: Sequence[Any]) -> None:
    limits = [panel.get_ylim() for panel in row if panel.has_data()]
    if limits:
        low, high = min(a for a, _ in limits), max(b for _, b in limits)
        for panel in row:
            panel.set_ylim(low, high)


def curve(panel: Any, x: Sequence[float], found: Sequence[Sequence[float]], **style: Any) -> None:
    """Draw the mean of each x with its standard error as a band."""
    means = np.array([np.mean(values) for values in found])
    errors = np.array([np.std(v, ddof=1) / np.sqrt(len(v)) if len(v) > 1 else 0.0 for v in found])
    (line,) = panel.plot(x, means, marker="o", markersize=3.5, **style)
    panel.fill_between(x, means - errors, means + errors, color=line.get_color(), alpha=0.18)


def bars(panel: Any, names: Sequence[str], found: Sequence[Sequence[float]], colour: str) -> None:
    """Draw horizontal bars of medians with every value a dot, first name on top."""
    places = np.arange(len(names))[::-1]
    panel.barh(places, [np.median(values) for values in found], color=colour, alpha=0.5, height=0.6)
    for place, values in zip(places, found, strict=True):
        panel.scatter(
            values, np.full(len(values), place), s=8, color="0.15", linewidths=0, zorder=3
        )
    panel.set_yticks(places, names, fontsize=8)
    panel.grid(axis="y", visible=False)
