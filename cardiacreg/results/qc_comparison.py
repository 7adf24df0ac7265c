"""A model beside the truth that it should be: in short-axis slices and in cuts along the long axis."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from cardiacreg.arrays import Float
from cardiacreg.geometry import STRUCTURES
from cardiacreg.results.qc_figure import (
    COLOURS,
    SIDES,
    annotate_cut,
    draw_image,
    draw_labels,
    outline,
    prepare_panel,
)
from cardiacreg.results.qc_views import (
    Box,
    HeartAxes,
    cut_points,
    intensities,
    label_share,
    labels_in_frame,
    long_axis_cuts,
    shown_slices,
    slice_box,
    slice_points,
)
from cardiacreg.results.result import RefineResult
from cardiacreg.results.surface_figure import Scene
from cardiacreg.results.surface_rays import outer_shares, sort_structures

_N_SLICES = 6
_DOTS_PER_INCH = 120
_WIDTH_INCHES = 12.0
_TITLE_INCHES = 0.32
_LEGEND_INCHES = 0.36
_GAP = 0.04
_CUTS = ("four-chamber cut", "two-chamber cut")
_TRUTH_IN_SLICE, _TRUTH_IN_CUT = "#d0208a", "black"


def draw_slices_with_truth(result: RefineResult, scene: Scene, truth: str) -> Figure:
    """Draw slices from apex to base: above as they were given, below with the model and the truth.

    Parameters
    ----------
    result : RefineResult
        Of a target of any orientation.
    scene : Scene
        Of this result.
    truth : str
        Title of the truth in the scene.

    Returns
    -------
    matplotlib.figure.Figure
        Seen from the apex, anterior side up; each slice below at its place after the estimated shift.
    """
    axes = scene.axes
    slices = shown_slices(result, axes, _N_SLICES)
    box = slice_box(scene.points, axes)
    aspect = (box.top - box.bottom) / (box.right - box.left)
    figure, grid = _page([aspect / len(slices)] * 2, len(slices), _GAP)
    for column, k in enumerate(slices):
        end = {0: " (apex)", len(slices) - 1: " (base)"}.get(column, "")
        above, below = (figure.add_subplot(grid[row, column]) for row in range(2))
        above.set_title(f"slice {k}{end}", fontsize=9)
        _draw_given(above, result, axes, box, k)
        where = _draw_judged(below, result, axes, box, k)
        _draw_truth(below, outer_shares(scene.shares[truth], where), box, _TRUTH_IN_SLICE)
        for panel in (above, below):
            _mark_sides(panel)
    figure.axes[0].set_ylabel("input", fontsize=10)
    figure.axes[1].set_ylabel("model", fontsize=10)
    _scale_bar(figure.axes[1], box)
    _legend(figure, _TRUTH_IN_SLICE)
    return figure


def draw_cuts_with_truth(result: RefineResult, scene: Scene, truth: str) -> Figure:
    """Draw label maps in two cuts along the LV's long axis, the truth's outline over each.

    Parameters
    ----------
    result : RefineResult
        Of a target of any orientation.
    scene : Scene
        Of this result; the first of its label maps is the input, which is drawn voxel by voxel.
    truth : str
        Title of the truth in the scene.

    Returns
    -------
    matplotlib.figure.Figure
        A row for each cut, apex down, in true proportions.
    """
    axes, columns = scene.axes, scene.shares
    cuts = long_axis_cuts(scene.points, axes, (-axes.rv, axes.anterior))
    width = max(cut.box.right - cut.box.left for cut in cuts) * len(columns)
    heights = [(cut.box.top - cut.box.bottom) / width for cut in cuts]
    figure, grid = _page(heights, len(columns), _TITLE_INCHES)
    for row, (cut, sides) in enumerate(zip(cuts, SIDES, strict=True)):
        where = cut_points(cut)
        given = labels_in_frame(result.target.labels, axes.frame, where)
        for column, (title, shares) in enumerate(columns.items()):
            panel = figure.add_subplot(grid[row, column])
            prepare_panel(panel, cut.box)
            draw_labels(panel, sort_structures(shares, where) if column else given, cut.box)
            _draw_truth(panel, outer_shares(columns[truth], where), cut.box, _TRUTH_IN_CUT)
            annotate_cut(panel, cut.box, sides)
            panel.set_title(f"{title}, {_CUTS[row]}", fontsize=9)
    _legend(figure, _TRUTH_IN_CUT)
    return figure


def _page(heights: list[float], columns: int, gap_inches: float) -> tuple[Figure, Any]:
    """Make a page of rows, whose heights are shares of its width."""
    inches = [_WIDTH_INCHES * height for height in heights]
    total = sum(inches) + _TITLE_INCHES + (len(heights) - 1) * gap_inches + _LEGEND_INCHES
    figure = Figure(figsize=(_WIDTH_INCHES, total), dpi=_DOTS_PER_INCH, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(heights), columns, height_ratios=heights, left=0.022, right=0.996, wspace=_GAP,
        top=1.0 - _TITLE_INCHES / total, bottom=_LEGEND_INCHES / total,
        hspace=gap_inches / float(np.mean(inches)),
    )  # fmt: skip
    return figure, grid


def _draw_given(panel: Any, result: RefineResult, axes: HeartAxes, box: Box, k: int) -> None:
    """Draw a slice as it is stored: grey levels and the labels that came with it."""
    target = result.target.labels
    where = slice_points(box, axes, k * float(target.spacing_mm[2]))
    _draw_grey(panel, result, axes, box, where)
    own = labels_in_frame(target, axes.frame, where)
    for label, colour in COLOURS.items():
        outline(panel, (own == label).astype(float), box, colour, 1.3)


def _draw_judged(panel: Any, result: RefineResult, axes: HeartAxes, box: Box, k: int) -> Float:
    """Draw a slice at its true place, with the model's outlines; return its positions."""
    where = slice_points(box, axes, k * float(result.target.labels.spacing_mm[2]))
    shift = np.array([*result.slice_shifts_mm[k], 0.0])
    _draw_grey(panel, result, axes, box, where - shift)
    for label, colour in COLOURS.items():
        outline(panel, label_share(result.labels, label, axes.frame, where), box, colour, 1.8)
    return where


def _draw_grey(panel: Any, result: RefineResult, axes: HeartAxes, box: Box, where: Float) -> None:
    prepare_panel(panel, box)
    if result.target.image is not None:
        draw_image(panel, intensities(result.target.image, axes.frame, where), box)


def _draw_truth(panel: Any, shares: list[Float], box: Box, colour: str) -> None:
    for share in shares:
        outline(panel, share, box, colour, 0.9)


def _mark_sides(panel: Any) -> None:
    style: dict[str, Any] = {
        "fontsize": 7, "ha": "center", "color": "white", "transform": panel.transAxes,
        "bbox": {"facecolor": "0.2", "alpha": 0.6, "lw": 0, "pad": 1.0},
    }  # fmt: skip
    panel.text(0.5, 0.97, "anterior", va="top", **style)
    panel.text(0.5, 0.03, "inferior", va="bottom", **style)


def _scale_bar(panel: Any, box: Box) -> None:
    start, level = box.left + 4.0, box.bottom + 14.0
    panel.plot([start, start + 20.0], [level, level], color="white", lw=2, solid_capstyle="butt")
    panel.text(start, level + 2.0, "20 mm", fontsize=7, color="white", va="bottom")


def _legend(figure: Figure, truth_colour: str) -> None:
    handles: list[Any] = [Patch(color=COLOURS[n], label=STRUCTURES[n]) for n in sorted(COLOURS)]
    handles.append(Line2D([], [], color=truth_colour, lw=1.2, label="truth, outline"))
    figure.legend(handles=handles, loc="lower center", ncols=5, fontsize=9, frameon=False)
