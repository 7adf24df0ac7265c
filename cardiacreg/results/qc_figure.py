"""One page to judge a result by: slices with outlines, long-axis cuts before and after, numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL, STRUCTURES, LabelMap
from cardiacreg.results.guards import FAILED_AGREEMENT
from cardiacreg.results.qc_numbers import (
    ALARM_COLOUR,
    draw_findings,
    draw_numbers,
    draw_volumes,
    printable,
)
from cardiacreg.results.qc_views import (
    Box,
    Cut,
    HeartAxes,
    cut_points,
    heart_axes,
    heart_points,
    intensities,
    label_share,
    labels_on_axes,
    long_axis_cuts,
    shown_slices,
    slice_box,
    slice_points,
)
from cardiacreg.results.result import RefineResult
from cardiacreg.slices import labelled_slices

COLOURS = {1: "#d55e00", 2: "#f2b734", 3: "#56b4e9", 4: "#0a5fa8"}
"""Structure to colour: told apart with any kind of colour vision, and by lightness alone."""

_N_SLICES = 6
_LONGEST_NAME = 50
_LONGEST_ASSUMPTIONS = 235
_SIZE_INCHES = (14.0, 8.2)
_PICTURES = {"left": 0.01, "right": 0.775, "top": 0.885, "bottom": 0.22, "hspace": 0.12}
_NOTES = {"left": 0.82, "right": 0.99, "top": 0.885, "bottom": 0.22, "hspace": 0.22}
_STRIP = {"left": 0.012, "right": 0.99, "top": 0.19, "bottom": 0.015, "wspace": 0.08}
_DOTS_PER_INCH = 120
_GREY = "0.35"
WALLS = {LV_WALL: LV_CAVITY, RV_WALL: RV_CAVITY}
"""Which cavity a wall is around."""
_INPUT_COLOUR = "#d0208a"
SIDES = (("RV", "LV"), ("inferior", "anterior"))
_FILL = ListedColormap(["white", *(COLOURS[label] for label in sorted(COLOURS))])
_PALE = ListedColormap(
    ["white", *(tuple(0.45 * np.array(to_rgb(COLOURS[n])) + 0.55) for n in sorted(COLOURS))]
)


def draw_qc_figure(result: RefineResult) -> Figure:
    """Draw input and model side by side.

    Parameters
    ----------
    result : RefineResult
        Of a target of any orientation.

    Returns
    -------
    matplotlib.figure.Figure
        Top: short-axis slices from apex to base, each at its true place, seen from the apex with
        the anterior side up. Below: two cuts along the LV's long axis, input as stored beside the
        model, apex down, in true proportions; the shift of every slice; and how the model came
        about. At the bottom: volumes, agreement and findings.

    Examples
    --------
    >>> draw_qc_figure(result).savefig("qc.png")  # doctest: +SKIP
    """
    figure = Figure(figsize=_SIZE_INCHES, dpi=_DOTS_PER_INCH, facecolor="white")
    FigureCanvasAgg(figure)
    axes = heart_axes(result)
    points = heart_points(result, axes)
    pictures = figure.add_gridspec(2, 1, height_ratios=(1.0, 1.45), **_PICTURES)
    _draw_slices(figure, pictures[0], result, axes, points)
    _draw_cuts(figure, pictures[1], result, axes, points)
    notes = figure.add_gridspec(2, 1, height_ratios=(1.0, 1.9), **_NOTES)
    _draw_shifts(figure.add_subplot(notes[0]), result, axes)
    draw_numbers(figure.add_subplot(notes[1]), result)
    strip = figure.add_gridspec(1, 2, width_ratios=(1.0, 1.3), **_STRIP)
    draw_volumes(figure.add_subplot(strip[0]), result, COLOURS)
    draw_findings(figure.add_subplot(strip[1]), result)
    _draw_heading(figure, result)
    return figure


def png_bytes(figure: Figure) -> bytes:
    """Render a figure as a PNG that is the same for the same content."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_heading(figure: Figure, result: RefineResult) -> None:
    name = printable(result.target.name or "target")
    if len(name) > _LONGEST_NAME:
        name = f"... {name[-_LONGEST_NAME:]}"
    style: dict[str, Any] = {"weight": "bold", "parse_math": False}
    figure.text(0.012, 0.94, name, fontsize=13, **style)
    assumed = printable("; ".join(result.assumptions))
    if len(assumed) > _LONGEST_ASSUMPTIONS:
        assumed = f"{assumed[:_LONGEST_ASSUMPTIONS]} ..."
    figure.text(0.012, 0.92, assumed, fontsize=7.5, color=_GREY, parse_math=False)
    if any(finding.code == FAILED_AGREEMENT for finding in result.findings):
        figure.text(0.012, 0.97, "FAILED REFINEMENT", fontsize=9, color=ALARM_COLOUR, **style)
    handles: list[Any] = [Patch(color=COLOURS[n], label=STRUCTURES[n]) for n in sorted(COLOURS)]
    handles.append(Line2D([], [], color=_INPUT_COLOUR, lw=1.9, label="input where they differ"))
    figure.legend(
        handles=handles,
        loc="upper right",
        ncols=6,
        bbox_to_anchor=(0.995, 0.995),
        fontsize=9,
        frameon=False,
    )


def _draw_slices(
    figure: Figure, place: Any, result: RefineResult, axes: HeartAxes, points: NDArray[np.float64]
) -> None:
    """Draw the top row: short-axis panels from apex to base."""
    slices = shown_slices(result, axes, _N_SLICES)
    row = place.subgridspec(1, _N_SLICES, wspace=0.04)
    box = slice_box(points, axes)
    for column, k in enumerate(slices):
        panel = figure.add_subplot(row[0, column])
        _draw_slice(panel, result, axes, box, k)
        end = {0: " (apex)", len(slices) - 1: " (base)"}.get(column, "")
        panel.set_title(f"slice {k}{end}", fontsize=9)


def _draw_slice(panel: Any, result: RefineResult, axes: HeartAxes, box: Box, k: int) -> None:
    """Draw one slice at its true place: what was acquired moves, the model stays."""
    target = result.target.labels
    true = slice_points(box, axes, k * float(target.spacing_mm[2]))
    stored = true - np.array([*result.slice_shifts_mm[k], 0.0])
    prepare_panel(panel, box)
    image = result.target.image
    if image is None:
        draw_labels(panel, labels_on_axes(target, axes.to_world, stored), box, _PALE)
    else:
        draw_image(panel, intensities(image, axes.to_world, stored), box)
    own = labels_on_axes(target, axes.to_world, stored)
    given = dict.fromkeys(COLOURS, _INPUT_COLOUR)
    outline_structures(panel, lambda n: (own == n).astype(float), box, given, 1.6)
    outline_structures(
        panel,
        lambda label: label_share(result.labels, label, axes.to_world, true),
        box,
        COLOURS,
        1.3,
    )


def prepare_panel(panel: Any, box: Box) -> None:
    """Show a box in true proportions, without ticks."""
    panel.set_xlim(box.left, box.right)
    panel.set_ylim(box.bottom, box.top)
    panel.set_aspect("equal")
    panel.set_xticks([])
    panel.set_yticks([])
    for spine in panel.spines.values():
        spine.set_color("0.8")


def draw_image(panel: Any, grey: NDArray[np.float64], box: Box) -> None:
    """Draw grey levels, from the darkest to the brightest but for 1 % at both ends."""
    seen = grey[np.isfinite(grey)]
    low, high = np.percentile(seen, (1, 99)) if seen.size else (0.0, 1.0)
    panel.imshow(grey, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), **_placed(box))


def draw_labels(
    panel: Any, labels: NDArray[np.uint8], box: Box, colours: ListedColormap = _FILL
) -> None:
    """Draw structures as areas of their colours."""
    panel.imshow(labels, cmap=colours, vmin=0, vmax=4, **_placed(box))


def _placed(box: Box) -> dict[str, Any]:
    return {"extent": tuple(box), "origin": "lower", "interpolation": "nearest", "aspect": "equal"}


def outline(panel: Any, share: NDArray[np.float64], box: Box, colour: str, width: float) -> None:
    """Draw the 0.5 level of a share, where there is one."""
    if share.max() <= 0.5 or share.min() >= 0.5:
        return
    panel.contour(
        share, levels=[0.5], colors=[colour], linewidths=width, origin="lower", extent=tuple(box)
    )


def outline_structures(
    panel: Any,
    share_of: Callable[[int], NDArray[np.float64]],
    box: Box,
    colours: Mapping[int, str],
    width: float,
) -> None:
    """Outline cavities, and walls by their outer side, so that a line has the colour of what it bounds.

    Parameters
    ----------
    panel : matplotlib.axes.Axes
    share_of : callable
        Returns the share of a label at every point of the panel.
    box : Box
    colours : mapping
        By label.
    width : float
        Of the lines, in points.
    """
    shares = {label: share_of(label) for label in colours}
    for wall, cavity in WALLS.items():
        if shares[wall].max() > 0.5:
            outline(
                panel, np.minimum(shares[wall] + shares[cavity], 1.0), box, colours[wall], width
            )
    for cavity in WALLS.values():
        outline(panel, shares[cavity], box, colours[cavity], width)


def _draw_cuts(
    figure: Figure, place: Any, result: RefineResult, axes: HeartAxes, points: NDArray[np.float64]
) -> None:
    """Draw both long-axis cuts, each before and after, all at one scale."""
    cuts = long_axis_cuts(points, axes, (-axes.rv, axes.anterior))
    widths = [cut.box.right - cut.box.left for cut in cuts for _ in range(2)]
    row = place.subgridspec(1, 4, width_ratios=widths, wspace=0.05)
    for number, (cut, sides) in enumerate(zip(cuts, SIDES, strict=True)):
        for after, labels in enumerate((result.target.labels, result.labels)):
            panel = figure.add_subplot(row[0, 2 * number + after])
            _draw_cut(panel, labels, axes, cut, sides)
            panel.set_title(("input, as stored", "model")[after], fontsize=10)


def _draw_cut(
    panel: Any, labels: LabelMap, axes: HeartAxes, cut: Cut, sides: tuple[str, str]
) -> None:
    prepare_panel(panel, cut.box)
    draw_labels(panel, labels_on_axes(labels, axes.to_world, cut_points(cut)), cut.box)
    annotate_cut(panel, cut.box, sides)


def annotate_cut(panel: Any, box: Box, sides: tuple[str, str]) -> None:
    """Write a scale bar, the apex and both sides into a cut."""
    start, level = box.left + 3.0, box.bottom + 3.0
    panel.plot([start, start + 20.0], [level, level], color="black", lw=2, solid_capstyle="butt")
    panel.text(start + 10.0, level + 1.5, "20 mm", fontsize=7, ha="center", va="bottom")
    panel.text(0.5, 0.012, "apex", transform=panel.transAxes, fontsize=8, ha="center")
    panel.text(0.02, 0.985, sides[0], transform=panel.transAxes, fontsize=8, va="top")
    panel.text(0.98, 0.985, sides[1], transform=panel.transAxes, fontsize=8, va="top", ha="right")


def _draw_shifts(panel: Any, result: RefineResult, axes: HeartAxes) -> None:
    """Draw the shifts along the panels' directions, the apex at the bottom."""
    slices = labelled_slices(result.target.labels.array)
    shifts = result.slice_shifts_mm[slices]
    order = np.arange(len(slices)) if axes.to_base > 0 else np.arange(len(slices))[::-1]
    panel.axvline(0.0, color="0.6", lw=0.8)
    for direction, name, style in ((axes.right, "right", "s"), (axes.up, "up", "^")):
        panel.plot(shifts @ direction, order, style, ms=4, color=_GREY, label=name,
                   mfc=_GREY if name == "up" else "white")  # fmt: skip
    limit = max(3.0, 1.15 * float(np.abs(shifts).max(initial=0.0)))
    panel.set_xlim(-limit, limit)
    panel.set_yticks(order, [str(k) for k in slices], fontsize=7)
    panel.tick_params(axis="x", labelsize=7)
    panel.set_title("slice shifts (mm)", fontsize=10)
    panel.legend(
        fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.07), ncols=2, frameon=False
    )
