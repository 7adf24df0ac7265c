"""The 17 segments of the left ventricle as a bull's eye: apex in the middle, anterior side up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgba
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError
from cardiacreg.measures.heart import Measures
from cardiacreg.measures.segments import N_SEGMENTS

_RINGS = ((3.0, 4.0, 6, 60.0, 0), (2.0, 3.0, 6, 60.0, 6), (1.0, 2.0, 4, 45.0, 12))
"""Inner and outer radius, sectors, start of the first in degrees, segments before it."""
_SIDES = {"anterior": (0, 4.25), "inferior": (0, -4.3), "septal": (-4.3, 0), "lateral": (4.3, 0)}
_MISSING = "0.85"


def draw_bullseye(measures: Measures) -> Figure:
    """Draw wall thickness, and with two phases thickening, by segment.

    Parameters
    ----------
    measures : Measures

    Returns
    -------
    matplotlib.figure.Figure
        One picture for one phase, three for two: thickness at end-diastole and end-systole in one
        scale, and thickening. Segments without a measure are grey.

    Examples
    --------
    >>> from cardiacreg import draw_bullseye, measure
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> draw_bullseye(measure(make_toy_heart().labels)).savefig("bullseye.png")
    """
    shown = [("wall thickness, mm", measures.ed.thickness_mm, "viridis", ".1f")]
    if measures.es is not None:
        shown = [
            ("thickness at end-diastole, mm", measures.ed.thickness_mm, "viridis", ".1f"),
            ("thickness at end-systole, mm", measures.es.thickness_mm, "viridis", ".1f"),
            ("thickening, %", measures.thickening_percent(), "PuOr", ".0f"),
        ]
    limits = _limits([values for _, values, name, _ in shown if name == "viridis"])
    size = (4.4 * len(shown), 5.1)
    figure = Figure(figsize=size, dpi=120, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    for number, (title, values, colours, form) in enumerate(shown):
        panel = figure.add_subplot(1, len(shown), number + 1)
        most = max(50.0, _limits([np.abs(values)])[1])
        _draw(
            panel, values, title, colours, limits if colours == "viridis" else (-most, most), form
        )
    return figure


def _limits(many: Sequence[Float]) -> tuple[float, float]:
    known = np.concatenate([values[np.isfinite(values)] for values in many])
    if not len(known):
        return 0.0, 1.0
    low, high = float(np.floor(known.min())), float(np.ceil(known.max()))
    return low, max(high, low + 1.0)


def _draw(
    panel: Any,
    values: ArrayLike,
    title: str,
    colours: str,
    limits: tuple[float, float],
    form: str,
) -> None:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.shape != (N_SEGMENTS,):
        raise InvalidInputError(
            f"bull's eye: got shape {numbers.shape}; needs a value for each of {N_SEGMENTS} segments.",
            code="BAD_SHAPE",
        )
    scale = ScalarMappable(Normalize(*limits), colormaps[colours])
    for inner, outer, count, start, before in _RINGS:
        for sector in range(count):
            # Segments run from the anterior side over the septum (left) to the inferior side.
            first = np.radians(start + sector * 360.0 / count)
            last = first + np.radians(360.0 / count)
            _sector(panel, scale, numbers[before + sector], (inner, outer), (first, last), form)
    _sector(panel, scale, numbers[-1], (0.0, 1.0), (0.0, 2 * np.pi), form)
    for side, (x, y) in _SIDES.items():
        turned = 90 if side == "septal" else -90 if side == "lateral" else 0
        panel.text(x, y, side, ha="center", va="center", rotation=turned, fontsize=9, color="0.3")
    panel.set_xlim(-4.6, 4.6)
    panel.set_ylim(-4.6, 4.6)
    panel.set_aspect("equal")
    panel.axis("off")
    panel.set_title(title, fontsize=10)
    panel.figure.colorbar(scale, ax=panel, orientation="horizontal", fraction=0.045, pad=0.02)


def _sector(
    panel: Any,
    scale: ScalarMappable,
    value: float,
    radii: tuple[float, float],
    angles: tuple[float, float],
    form: str,
) -> None:
    around = np.linspace(*angles, 60)
    arc = np.stack([np.cos(around), np.sin(around)], axis=1)
    outline = np.concatenate([radii[1] * arc, radii[0] * arc[::-1]]) if radii[0] else radii[1] * arc
    known = bool(np.isfinite(value))
    colour = scale.to_rgba(np.array([value]))[0] if known else to_rgba(_MISSING)
    panel.fill(*outline.T, facecolor=colour, edgecolor="white", lw=1.5)
    middle = sum(angles) / 2
    radius = sum(radii) / 2 if radii[0] else 0.0
    place = radius * np.cos(middle), radius * np.sin(middle)
    text = "white" if sum(colour[:3]) < 1.3 else "black"
    written = f"{value:{form}}" if known else "–"
    panel.text(*place, written, ha="center", va="center", fontsize=9, color=text)
