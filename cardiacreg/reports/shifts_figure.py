"""Slice shifts drawn over the stack: where every slice was stored, and where it belongs."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cardiacreg.arrays import Float
from cardiacreg.reports.directions import Directions
from cardiacreg.results.qc_views import Drawable, HeartAxes
from cardiacreg.slices import labelled_slices

_STORED, _TRUE, _ARROW = "0.72", "#0a5fa8", "#d0208a"
_VIEWS = (("RV", "LV"), ("inferior", "anterior"))
_LEAST_ARROW_MM = 0.2
_ENLARGED = 5
"""How much longer arrows are than the shifts, which are small beside a heart."""


def draw_shifts(result: Drawable, axes: HeartAxes, directions: Directions) -> Figure:
    """Draw the stack from two sides, apex down: every slice as stored, and moved by its shift.

    Parameters
    ----------
    result : Drawable
    axes : HeartAxes
        Of this result.
    directions : Directions
        Of this result.

    Returns
    -------
    matplotlib.figure.Figure
        A bar is how far a slice's labels reach; an arrow is the shift, enlarged, its length in mm beside
        it.
    """
    figure = Figure(figsize=(9.0, 4.2), dpi=120, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    for panel, direction, sides in zip(panels, (-axes.rv, axes.anterior), _VIEWS, strict=True):
        _draw_side(panel, result, axes, np.asarray(direction))
        low, high = (
            _side(word, directions.letters(np.array([*(sign * direction), 0.0])))
            for word, sign in zip(sides, (-1, 1), strict=True)
        )
        panel.set_title(f"{low}  ←  →  {high}", fontsize=10)
        panel.set_xlabel("mm")
    panels[0].set_ylabel("slice, apex below")
    handles = [
        panels[0].plot([], [], color=colour, lw=width, label=label)[0]
        for colour, width, label in (
            (_STORED, 5, "as stored"), (_TRUE, 2.2, "after its shift"),
            (_ARROW, 1.4, f"shift, {_ENLARGED} times as long"),
        )
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def _side(word: str, letters: str) -> str:
    return f"{word} ({letters})" if letters else word


def _draw_side(panel: Any, result: Drawable, axes: HeartAxes, direction: Float) -> None:
    target = result.target.labels
    shifts = result.slice_shifts_mm @ direction
    slices = labelled_slices(target.array)
    heights = axes.to_base * slices * float(target.spacing_mm[2])
    heights = heights - heights.min()
    extents = np.array(
        [_extent(target.array[:, :, k], target.spacing_mm, direction) for k in slices]
    )
    middle = float(extents.mean())
    for k, height, (low, high) in zip(slices, heights, extents - middle, strict=True):
        shift = float(shifts[k])
        panel.plot([low, high], [height, height], color=_STORED, lw=5, solid_capstyle="butt")
        panel.plot(
            [low + shift, high + shift],
            [height, height],
            color=_TRUE,
            lw=2.2,
            solid_capstyle="butt",
        )
        if abs(shift) >= _LEAST_ARROW_MM:
            centre = (low + high) / 2
            panel.annotate("", (centre + _ENLARGED * shift, height), (centre, height),
                           arrowprops={"arrowstyle": "-|>", "color": _ARROW, "lw": 1.4,
                                       "shrinkA": 0, "shrinkB": 0})  # fmt: skip
        panel.annotate(
            f"{shift:+.1f}", (1.01, height), xycoords=("axes fraction", "data"), fontsize=8,
            va="center",
        )  # fmt: skip
    panel.set_yticks(heights, [str(k) for k in slices], fontsize=8)
    panel.margins(x=0.04, y=0.08)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)


def _extent(plane: Any, spacing_mm: Float, direction: Float) -> tuple[float, float]:
    """How far the labels of a slice reach along an in-plane direction, in mm."""
    along = (np.argwhere(plane > 0) * spacing_mm[:2]) @ direction
    return float(along.min()), float(along.max())
