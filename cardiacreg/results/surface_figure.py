"""The heart from outside and opened: label maps as lit surfaces, where staircases show best."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from cardiacreg.arrays import Float
from cardiacreg.geometry import STRUCTURES, LabelMap
from cardiacreg.results.qc_figure import COLOURS
from cardiacreg.results.qc_views import Drawable, HeartAxes, heart_axes, heart_points
from cardiacreg.results.surface_rays import PIXEL_MM, Shares, View, draw_rays, smooth_shares

_MARGIN_MM = 7.0
_BAR_MM = 20.0
_PANEL_INCHES = 3.0
_TITLE_INCHES = 0.36
_LEGEND_INCHES = 0.32
_INK = "0.25"


class _Look(NamedTuple):
    """Degrees about the long axis from the anterior side towards the LV's; what lies left and right."""

    words: str
    degrees: float
    opened: bool
    sides: tuple[str, str]


LOOKS: dict[str, _Look] = {
    "front": _Look("from the front", 20.0, False, ("RV", "LV")),
    "right": _Look("from the right", -75.0, False, ("inferior", "anterior")),
    "opened": _Look("opened, from the front", 0.0, True, ("RV", "LV")),
}
"""The views: of both ventricles, of the RV's free wall, and of both cavities behind a cut."""


class Scene(NamedTuple):
    """What is drawn: shares of each label map by its title, along the axes of one target."""

    shares: dict[str, Shares]
    axes: HeartAxes
    points: Float


def make_scene(result: Drawable, columns: Mapping[str, LabelMap]) -> Scene:
    """Prepare label maps of one heart to be drawn beside each other.

    Parameters
    ----------
    result : RefineResult
        Of a target of any orientation; tells how the heart lies.
    columns : mapping
        Title to label map, all in the world of the target.

    Returns
    -------
    Scene
    """
    axes = heart_axes(result)
    points = heart_points(result, axes, *columns.values())
    low, high = points.min(axis=0) - _MARGIN_MM, points.max(axis=0) + _MARGIN_MM
    shares = {
        title: smooth_shares(labels, axes.to_world, low, high) for title, labels in columns.items()
    }
    return Scene(shares, axes, points)


def draw_looks(scene: Scene, names: Iterable[str] = LOOKS) -> Figure:
    """Draw every label map of a scene from some sides, a row for each side, all at one scale.

    Parameters
    ----------
    scene : Scene
    names : iterable of str
        Of `LOOKS`.

    Returns
    -------
    matplotlib.figure.Figure
        Apex down. An opened heart is cut along the LV's long axis: walls have their colour where they
        are cut, and cavities show their lining in the colour of the blood.
    """
    looks = [LOOKS[name] for name in names]
    views = [_view(scene, look) for look in looks]
    columns, heights = len(scene.shares), [view.size[1] for view in views]
    inches = _PANEL_INCHES / max(view.size[0] for view in views)
    size = (
        columns * _PANEL_INCHES,
        sum(heights) * inches + len(looks) * _TITLE_INCHES + _LEGEND_INCHES,
    )
    figure = Figure(figsize=size, dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(looks), columns, height_ratios=heights, left=0.004, right=0.996, wspace=0.02,
        top=1.0 - _TITLE_INCHES / size[1], bottom=_LEGEND_INCHES / size[1],
        hspace=_TITLE_INCHES * len(looks) / (sum(heights) * inches),
    )  # fmt: skip
    for row, (look, view) in enumerate(zip(looks, views, strict=True)):
        for column, (title, shares) in enumerate(scene.shares.items()):
            panel = figure.add_subplot(grid[row, column])
            _draw(panel, draw_rays(shares, view, _colours()), look)
            panel.set_title(f"{title}, {look.words}", fontsize=10)
    handles = [Patch(color=COLOURS[label], label=STRUCTURES[label]) for label in sorted(COLOURS)]
    figure.legend(handles=handles, loc="lower center", ncols=4, fontsize=9, frameon=False)
    return figure


def draw_surface_figure(result: Drawable) -> Figure:
    """Draw input and model from the front, from the right and opened, apex down.

    Parameters
    ----------
    result : RefineResult
        Of a target of any orientation.

    Returns
    -------
    matplotlib.figure.Figure
        Six pictures at one scale.

    Examples
    --------
    >>> draw_surface_figure(result).savefig("surface.png")  # doctest: +SKIP
    """
    return draw_looks(make_scene(result, {"input": result.target.labels, "model": result.labels}))


def _colours() -> Float:
    return np.array([(1.0, 1.0, 1.0), *(to_rgb(COLOURS[label]) for label in range(1, 5))])


def _view(scene: Scene, look: _Look) -> View:
    """Look at the heart with its apex down."""
    axes, angle = scene.axes, np.deg2rad(look.degrees)
    towards = np.cos(angle) * axes.anterior - np.sin(angle) * axes.rv
    right = -np.cos(angle) * axes.rv - np.sin(angle) * axes.anterior
    directions = np.array([[*right, 0.0], [0.0, 0.0, axes.to_base], [*towards, 0.0]])
    seen = scene.points @ directions.T
    low, high = seen.min(axis=0) - _MARGIN_MM, seen.max(axis=0) + _MARGIN_MM
    if not look.opened:
        return View(directions, low, high - low)
    level = float(scene.points[:, 2].min() + scene.points[:, 2].max()) / 2
    middle = np.array([*(axes.axis_point + axes.axis_slope * level), level])
    return View(directions, low, high - low, cut=float(middle @ directions[2]))


def _draw(panel: Any, picture: Float, look: _Look) -> None:
    height, width = (n * PIXEL_MM for n in picture.shape[:2])
    panel.imshow(
        picture, origin="lower", interpolation="antialiased", extent=(0.0, width, 0.0, height)
    )
    panel.set_xticks([])
    panel.set_yticks([])
    panel.axis("off")
    panel.plot([2.0, 2.0 + _BAR_MM], [3.0, 3.0], color=_INK, lw=2.2, solid_capstyle="butt")
    panel.text(2.0 + _BAR_MM / 2, 4.5, f"{_BAR_MM:.0f} mm", fontsize=8, ha="center", color=_INK)
    style: dict[str, Any] = {"fontsize": 8, "color": _INK}
    panel.text(1.0, height - 1.0, look.sides[0], va="top", **style)
    panel.text(width - 1.0, height - 1.0, look.sides[1], va="top", ha="right", **style)
    panel.text(width / 2, height - 1.0, "base", va="top", ha="center", **style)
    panel.text(width / 2, 1.0, "apex", va="bottom", ha="center", **style)
