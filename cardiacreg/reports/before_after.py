"""Input and model in short-axis slices and in long-axis cuts; beside a truth where there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from cardiacreg.arrays import Float
from cardiacreg.geometry import STRUCTURES, LabelMap
from cardiacreg.reports.directions import Directions
from cardiacreg.results.qc_figure import (
    COLOURS,
    SIDES,
    annotate_cut,
    draw_image,
    draw_labels,
    outline,
    outline_structures,
    prepare_panel,
)
from cardiacreg.results.qc_views import (
    Box,
    Cut,
    Drawable,
    HeartAxes,
    cut_points,
    intensities,
    label_share,
    labels_on_axes,
    long_axis_cuts,
    shown_slices,
    slice_box,
    slice_points,
)
from cardiacreg.results.surface_figure import Scene
from cardiacreg.results.surface_rays import outer_shares, sort_structures
from cardiacreg.slices import labelled_slices

MOST_SLICES = 12
CUT_NAMES = ("four-chamber cut", "two-chamber cut")
_PER_ROW = 6
_DOTS_PER_INCH = 120
_WIDTH_INCHES = 12.0
_MOST_PANEL_INCHES = 3.2
_TITLE_INCHES = 0.32
_LEGEND_INCHES = 0.36
_GAP = 0.04
_IN_SLICE, _IN_CUT = "#d0208a", "black"
"""Colour of the outlines that a model is compared with."""
_LINE = 1.5
_HATCH = "////"
_FACE = "0.35"


def draw_slices(
    result: Drawable,
    scene: Scene,
    directions: Directions,
    *,
    truth: str | None = None,
    most: int = MOST_SLICES,
) -> Figure:
    """Draw slices from apex to base: above as they were given, below with the model.

    Parameters
    ----------
    result : Drawable
        Of a target of any orientation.
    scene : Scene
        Of this result.
    directions : Directions
        Of this result.
    truth : str, optional
        Title of the truth in the scene, to outline in place of the input.
    most : int
        So many slices at most, evenly spread.

    Returns
    -------
    matplotlib.figure.Figure
        Seen from the apex, anterior side up; each slice below at its place after the estimated shift.
    """
    axes = scene.axes
    slices = shown_slices(result, axes, most)
    columns = _columns(len(slices))
    blocks = [slices[first : first + columns] for first in range(0, len(slices), columns)]
    box = slice_box(scene.points, axes)
    aspect = (box.top - box.bottom) / (box.right - box.left)
    width = min(_WIDTH_INCHES, columns * _MOST_PANEL_INCHES)
    heights = [2 * aspect / columns] * len(blocks)
    figure, grid = page(heights, 1, width, gap_inches=_TITLE_INCHES)
    for number, block in enumerate(blocks):
        pair = grid[number, 0].subgridspec(2, columns, wspace=_GAP, hspace=_GAP)
        for column, k in enumerate(block):
            above, below = (figure.add_subplot(pair[row, column]) for row in range(2))
            end = {slices[0]: " (apex)", slices[-1]: " (base)"}.get(k, "")
            above.set_title(f"slice {k}{end}", fontsize=9)
            _draw_given(above, result, axes, box, k)
            _draw_judged(below, result, scene, box, k, truth)
            for panel in (above, below):
                _mark_sides(panel, axes, directions)
            if column == 0:
                above.set_ylabel("as acquired", fontsize=10)
                below.set_ylabel("with the model", fontsize=10)
                draw_scale_bar(below, box, dark=result.target.image is None)
    words = "truth, outline" if truth else "input where they differ"
    legend(figure, Line2D([], [], color=_IN_SLICE, lw=1.6, label=words))
    return figure


def _columns(count: int) -> int:
    """How many slices to put side by side, so that rows are about equally full."""
    rows = -(-count // _PER_ROW)
    return max(1, -(-count // rows))


def draw_cuts(
    result: Drawable,
    scene: Scene,
    directions: Directions,
    columns: Mapping[str, LabelMap | str],
    *,
    truth: str | None = None,
) -> Figure:
    """Draw label maps in two cuts along the LV's long axis.

    Parameters
    ----------
    result : Drawable
        Of a target of any orientation.
    scene : Scene
        Of this result; what it holds is drawn smoothly.
    directions : Directions
        Of this result.
    columns : mapping
        Title to a label map, drawn voxel by voxel, or to the title of a map of the scene.
    truth : str, optional
        Title of the truth in the scene, whose outline is drawn over each.

    Returns
    -------
    matplotlib.figure.Figure
        A row for each cut, apex down, in true proportions. The model is hatched where it lies beyond
        the labelled slices.
    """
    axes = scene.axes
    cuts = long_axis_cuts(scene.points, axes, (-axes.rv, axes.anterior))
    panel_mm = max(cut.box.right - cut.box.left for cut in cuts)
    width = min(_WIDTH_INCHES, len(columns) * 4.0)
    heights = [(cut.box.top - cut.box.bottom) / (panel_mm * len(columns)) for cut in cuts]
    figure, grid = page(heights, len(columns), width, gap_inches=_TITLE_INCHES)
    for row, (cut, sides) in enumerate(zip(cuts, SIDES, strict=True)):
        where = cut_points(cut)
        for column, (title, shown) in enumerate(columns.items()):
            panel = figure.add_subplot(grid[row, column])
            prepare_panel(panel, cut.box)
            _draw_map(panel, result, scene, cut, where, shown)
            _draw_truth(panel, scene, truth, where, cut.box, _IN_CUT)
            annotate_cut(panel, cut.box, sides)
            _mark_patient(panel, cut, directions)
            panel.set_title(f"{title}, {CUT_NAMES[row]}", fontsize=9)
    more: list[Any] = [
        Patch(facecolor="white", edgecolor="black", hatch=_HATCH, label="beyond the labelled slices"),
        Line2D([], [], color=_FACE, lw=0.8, ls="--", label="first and last labelled face"),
    ]  # fmt: skip
    if truth:
        more.append(Line2D([], [], color=_IN_CUT, lw=1.2, label="truth, outline"))
    legend(figure, *more)
    return figure


def _draw_map(
    panel: Any, result: Drawable, scene: Scene, cut: Cut, where: Float, shown: LabelMap | str
) -> None:
    """Draw one label map in a cut; a model or truth is hatched where no slice shows it."""
    axes = scene.axes
    if isinstance(shown, str):
        found = sort_structures(scene.shares[shown], where)
        draw_labels(panel, found, cut.box)
        unobserved = beyond_slices(result, axes, where, found)
        if unobserved.any():
            panel.contourf(unobserved.astype(float), levels=[0.5, 1.5], colors="none",
                           hatches=[_HATCH], origin="lower", extent=tuple(cut.box))  # fmt: skip
    else:
        draw_labels(panel, labels_on_axes(shown, axes.to_world, where), cut.box)
    for level in _faces(result, cut):
        panel.axhline(level, color=_FACE, lw=0.8, ls="--")


def beyond_slices(
    result: Drawable, axes: HeartAxes, where: Float, labels: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    """Return which points no slice shows: each structure ends at the outer faces of its own slices.

    Parameters
    ----------
    result : Drawable
    axes : HeartAxes
    where : ndarray, shape (..., 3)
        Along the target's axes.
    labels : ndarray, shape (...)
        What the model has there.

    Returns
    -------
    ndarray
        False on the background. A structure that the input does not show ends where any does.
    """
    target = result.target.labels
    height = where[..., 2] / float(target.spacing_mm[2])
    beyond = np.zeros(labels.shape, dtype=bool)
    for label in COLOURS:
        own = np.flatnonzero((target.array == label).any(axis=(0, 1)))
        slices = own if len(own) else labelled_slices(target.array)
        outside = (height < slices[0] - 0.5) | (height > slices[-1] + 0.5)
        beyond |= (labels == label) & outside
    return beyond


def _faces(result: Drawable, cut: Cut) -> Sequence[float]:
    """Heights in a cut of the outer faces of the first and the last labelled slice."""
    target = result.target.labels
    slices = labelled_slices(target.array)
    ends = (np.array([slices[0] - 0.5, slices[-1] + 0.5]) * target.spacing_mm[2]).tolist()
    return [float((end - cut.origin[2]) / cut.upward[2]) for end in ends]


def page(
    heights: list[float], columns: int, width_inches: float, *, gap_inches: float
) -> tuple[Figure, Any]:
    """Make a page of rows, whose heights are shares of its width."""
    inches = [width_inches * height for height in heights]
    total = sum(inches) + _TITLE_INCHES + (len(heights) - 1) * gap_inches + _LEGEND_INCHES
    figure = Figure(figsize=(width_inches, total), dpi=_DOTS_PER_INCH, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(heights), columns, height_ratios=heights, left=0.27 / width_inches, right=0.996,
        wspace=_GAP, top=1.0 - _TITLE_INCHES / total, bottom=_LEGEND_INCHES / total,
        hspace=gap_inches / float(np.mean(inches)),
    )  # fmt: skip
    return figure, grid


def _draw_given(panel: Any, result: Drawable, axes: HeartAxes, box: Box, k: int) -> None:
    """Draw a slice as it is stored: grey levels and the labels that came with it."""
    target = result.target.labels
    where = slice_points(box, axes, k * float(target.spacing_mm[2]))
    own = labels_on_axes(target, axes.to_world, where)
    prepare_panel(panel, box)
    if result.target.image is None:
        draw_labels(panel, own, box)
        return
    draw_image(panel, intensities(result.target.image, axes.to_world, where), box)
    outline_structures(panel, lambda label: (own == label).astype(float), box, COLOURS, 1.3)


def _draw_judged(
    panel: Any, result: Drawable, scene: Scene, box: Box, k: int, truth: str | None
) -> None:
    """Draw a slice at its true place: the model's outlines over the input's, or under a truth's."""
    axes, target = scene.axes, result.target
    where = slice_points(box, axes, k * float(target.labels.spacing_mm[2]))
    stored = where - np.array([*result.slice_shifts_mm[k], 0.0])
    prepare_panel(panel, box)
    if target.image is not None:
        draw_image(panel, intensities(target.image, axes.to_world, stored), box)
    if truth is None:
        given = dict.fromkeys(COLOURS, _IN_SLICE)
        outline_structures(
            panel, lambda n: label_share(target.labels, n, axes.to_world, stored), box, given, _LINE
        )
    outline_structures(
        panel, lambda n: label_share(result.labels, n, axes.to_world, where), box, COLOURS, _LINE
    )
    _draw_truth(panel, scene, truth, where, box, _IN_SLICE)


def _draw_truth(
    panel: Any, scene: Scene, truth: str | None, where: Float, box: Box, colour: str
) -> None:
    if truth is not None:
        for share in outer_shares(scene.shares[truth], where):
            outline(panel, share, box, colour, 0.9)


def _mark_sides(panel: Any, axes: HeartAxes, directions: Directions) -> None:
    style: dict[str, Any] = {
        "fontsize": 7, "color": "white", "transform": panel.transAxes,
        "bbox": {"facecolor": "0.2", "alpha": 0.6, "lw": 0, "pad": 1.0},
    }  # fmt: skip
    up, right = np.array([*axes.up, 0.0]), np.array([*axes.right, 0.0])
    panel.text(0.5, 0.97, _with("anterior", directions.letters(up)), va="top", ha="center", **style)
    panel.text(
        0.5, 0.03, _with("inferior", directions.letters(-up)), va="bottom", ha="center", **style
    )
    for place, direction, side in ((0.02, -right, "left"), (0.98, right, "right")):
        letters = directions.letters(direction)
        if letters:
            panel.text(place, 0.5, letters, va="center", ha=side, **style)


def _with(word: str, letters: str) -> str:
    return f"{word} ({letters})" if letters else word


def _mark_patient(panel: Any, cut: Cut, directions: Directions) -> None:
    """Write base, and the patient's directions at the four sides, where they are known."""
    style: dict[str, Any] = {"fontsize": 8, "transform": panel.transAxes}
    up = directions.letters(cut.upward)
    panel.text(0.5, 0.985, _with("base", up), va="top", ha="center", **style)
    for place, direction, side in ((0.01, -cut.across, "left"), (0.99, cut.across, "right")):
        panel.text(place, 0.5, directions.letters(direction), va="center", ha=side, **style)


def draw_scale_bar(panel: Any, box: Box, *, dark: bool) -> None:
    """Draw 20 mm into a corner; dark on white."""
    colour = "black" if dark else "white"
    start, level = box.left + 4.0, box.bottom + 14.0
    panel.plot([start, start + 20.0], [level, level], color=colour, lw=2, solid_capstyle="butt")
    panel.text(start, level + 2.0, "20 mm", fontsize=7, color=colour, va="bottom")


def legend(figure: Figure, *more: Any) -> None:
    """Name the structures' colours, and what else is given, below a figure."""
    handles: list[Any] = [Patch(color=COLOURS[n], label=STRUCTURES[n]) for n in sorted(COLOURS)]
    figure.legend(
        handles=[*handles, *more], loc="lower center", frameon=False, fontsize=8.5,
        ncols=max(2, int(figure.get_figwidth() / 1.65)), columnspacing=1.2, handletextpad=0.5,
    )  # fmt: skip
