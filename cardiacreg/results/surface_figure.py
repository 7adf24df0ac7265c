"""The heart from outside: input and model as lit surfaces, where staircases show best.

Rays run through the labels along the viewing direction; where one first meets the heart, the slope of
the depths around it gives the shading. Depths are smoothed over about a voxel of the model, far less
than a slice of the input, so that slices stay steps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from cardiacreg.arrays import Float
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL, LabelMap
from cardiacreg.results.qc_figure import COLOURS
from cardiacreg.results.qc_views import HeartAxes, heart_axes, heart_points, labels_in_frame
from cardiacreg.results.result import RefineResult

_STEP_MM = 0.8
_MARGIN_MM = 6.0
_SMOOTHING_MM = 1.5
_SIZE_INCHES = (12.0, 3.9)
_VIEWS = (("from the front", 20.0), ("from the left", 110.0))
_COLOUR_OF = {
    LV_CAVITY: COLOURS[LV_CAVITY],
    LV_WALL: COLOURS[LV_WALL],
    RV_WALL: COLOURS[RV_CAVITY],
    RV_CAVITY: COLOURS[RV_CAVITY],
}
_LIGHT = np.array([-0.4, 0.5, 0.77])


class _View(NamedTuple):
    """Rows of `directions` are right, up and towards the viewer; `low` and `size` box the heart, mm."""

    directions: Float
    low: Float
    size: Float


def draw_surface_figure(result: RefineResult) -> Figure:
    """Draw input and model from the front and from the left, apex down.

    Parameters
    ----------
    result : RefineResult
        Of a target of any orientation.

    Returns
    -------
    matplotlib.figure.Figure
        Four pictures at one scale; the LV in orange, the RV in blue, cavities that lie open in the
        colour of the blood.

    Examples
    --------
    >>> draw_surface_figure(result).savefig("surface.png")  # doctest: +SKIP
    """
    figure = Figure(figsize=_SIZE_INCHES, dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    axes = heart_axes(result)
    points = heart_points(result, axes)
    views = [_view(points, axes, degrees) for _, degrees in _VIEWS]
    grid = figure.add_gridspec(
        1, 4, width_ratios=[view.size[0] for view in views for _ in range(2)],
        left=0.01, right=0.99, top=0.9, bottom=0.02, wspace=0.03,
    )  # fmt: skip
    for number, ((place, _), view) in enumerate(zip(_VIEWS, views, strict=True)):
        for after, labels in enumerate((result.target.labels, result.labels)):
            panel = figure.add_subplot(grid[0, 2 * number + after])
            _draw(panel, _picture(labels, axes, view))
            panel.set_title(f"{('input', 'model')[after]}, {place}", fontsize=10)
    return figure


def _view(points: Float, axes: HeartAxes, degrees: float) -> _View:
    """Look at the heart with its apex down, turned about its axis from the anterior side to the LV's."""
    angle = np.deg2rad(degrees)
    towards = np.cos(angle) * axes.anterior - np.sin(angle) * axes.rv
    right = -np.cos(angle) * axes.rv - np.sin(angle) * axes.anterior
    directions = np.array([[*right, 0.0], [0.0, 0.0, axes.to_base], [*towards, 0.0]])
    seen = points @ directions.T
    low, high = seen.min(axis=0) - _MARGIN_MM, seen.max(axis=0) + _MARGIN_MM
    return _View(directions, low, high - low)


def _picture(labels: LabelMap, axes: HeartAxes, view: _View) -> Float:
    """Return a picture of shape (rows, columns, 3), the lowest row first, white where nothing is."""
    x, y, z = (low + np.arange(0.0, size, _STEP_MM) for low, size in zip(*view[1:], strict=True))
    depth = np.full((len(y), len(x)), np.nan)
    found = np.zeros((len(y), len(x)), dtype=np.uint8)
    plane = x[None, :, None] * view.directions[0] + y[:, None, None] * view.directions[1]
    for level in z[::-1]:
        open_yet = found == 0
        if not open_yet.any():
            break
        hit = labels_in_frame(labels, axes.frame, plane[open_yet] + level * view.directions[2])
        found[open_yet] = hit
        depth[open_yet] = np.where(hit > 0, level, np.nan)
    return _lit(found, depth)


def _lit(found: NDArray[np.uint8], depth: Float) -> Float:
    """Colour what was met by its structure, bright where it faces the light."""
    slope_y, slope_x = np.gradient(_smoothed(depth, found > 0), _STEP_MM)
    normal = np.stack([-slope_x, -slope_y, np.ones_like(depth)], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    brightness = 0.35 + 0.65 * np.clip(normal @ _LIGHT, 0.0, 1.0)
    colours = np.ones((5, 3))
    for label, colour in _COLOUR_OF.items():
        colours[label] = to_rgb(colour)
    lit = colours[found] * brightness[..., None]
    return np.asarray(np.where((found > 0)[..., None], lit, 1.0))


def _smoothed(depth: Float, met: NDArray[np.bool_]) -> Float:
    """Average depths over their neighbours that met the heart; far outside it they are 0."""
    sigma = _SMOOTHING_MM / _STEP_MM
    total = ndimage.gaussian_filter(np.where(met, depth, 0.0), sigma)
    weight = ndimage.gaussian_filter(met.astype(np.float64), sigma)
    return np.asarray(total / np.maximum(weight, 1e-6))


def _draw(panel: Any, picture: Float) -> None:
    panel.imshow(np.clip(picture, 0.0, 1.0), origin="lower", interpolation="bilinear")
    panel.axis("off")
