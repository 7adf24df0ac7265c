"""Pictures for the documentation: one heart through every method, and quality pages of real frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from benchmarks.harness import machine
from benchmarks.harness.cases import DataAbsent, autofd, degrade
from benchmarks.harness.measuring import refine_quietly
from cardiacreg.geometry import STRUCTURES, LabelMap
from cardiacreg.io.nifti import read_labels
from cardiacreg.phantoms.hearts import FIRST_EVALUATION_SEED, sample_heart
from cardiacreg.results import qc_figure, qc_views, surface_figure
from cardiacreg.results.qc_figure import COLOURS, draw_qc_figure, png_bytes
from cardiacreg.results.result import RefineResult

FOLDER = machine.ROOT / "docs" / "figures"
SEED = FIRST_EVALUATION_SEED + 3
_VIEW_DEGREES = 40.0
_OPACITY = 0.55
_COLUMNS = ("short-axis slice", "through both ventricles", "through the left ventricle", "surface")
_ROWS = ("segmented slices", "model")


def run(quick: bool) -> dict[str, Any]:
    """Draw the figures; pages with patients' images go to ``bench_output``, outside the project."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    drawn = [_overview(FOLDER / "overview.png")]
    if not quick:
        try:
            drawn.append(_contact_sheet(machine.ROOT / "bench_output" / "real_frames.png"))
        except DataAbsent as absent:
            print(f"figures: without real frames, {absent}")
    return {"seeds": [SEED], "figures": [path.name for path in drawn]}


def _overview(path: Path) -> Path:
    """Draw what was acquired above what is made of it: a slice, two long-axis cuts, the surface."""
    low = degrade(sample_heart(SEED, group="dilated"), SEED)
    result = refine_quietly(low.subject.labels, image=low.subject.image)
    axes = qc_views.heart_axes(result)
    points = qc_views.heart_points(result, axes)
    cuts = qc_views.long_axis_cuts(points, axes, (-axes.rv, axes.anterior))
    view = surface_figure._view(points, axes, _VIEW_DEGREES)
    box = qc_views.slice_box(points, axes)
    widths = [each.right - each.left for each in (box, cuts[0].box, cuts[1].box)]
    figure = Figure(figsize=(11.5, 5.6), dpi=130, facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 4, width_ratios=[*widths, 0.95 * float(view.size[0])])
    for row, labels in zip(panels, (result.target.labels, result.labels), strict=True):
        _draw_slice(row[0], result, labels, axes, box)
        for panel, cut in zip(row[1:3], cuts, strict=True):
            _draw_cut(panel, result, labels, axes, cut)
        surface_figure._draw(row[3], surface_figure._picture(labels, axes, view))
    for panel, cut in zip(panels[1, 1:3], cuts, strict=True):
        _draw_truth(panel, low.reference, axes, cut)
    for row, words in zip(panels, _ROWS, strict=True):
        row[0].set_ylabel(words, fontsize=11)
    handles: list[Any] = [
        Patch(color=COLOURS[label], label=name) for label, name in STRUCTURES.items()
    ]
    handles.append(Line2D([], [], color="0.5", lw=1.2, ls="dashed", label="true outline"))
    figure.legend(handles=handles, ncols=5, loc="lower center", frameon=False, fontsize=10)
    figure.subplots_adjust(0.03, 0.06, 0.995, 0.945, wspace=0.03, hspace=0.02)
    for panel, title in zip(panels[0], _COLUMNS, strict=True):
        place = panel.get_position()
        figure.text((place.x0 + place.x1) / 2, 0.965, title, fontsize=10, ha="center")
    figure.savefig(path, metadata={"Software": None})
    return path


def _draw_slice(panel: Any, result: RefineResult, labels: LabelMap, axes: Any, box: Any) -> None:
    """Draw the middle slice with its image; the model is drawn where the slice truly lies."""
    k = qc_views.shown_slices(result, axes, 3)[1]
    true = qc_views.slice_points(box, axes, k * float(result.target.labels.spacing_mm[2]))
    shift = np.array([*result.slice_shifts_mm[k], 0.0])
    qc_figure._prepare_panel(panel, box)
    grey = qc_views.intensities(result.target.image, axes.to_world, true - shift)
    qc_figure._show_image(panel, grey, box)
    place = true - shift if labels is result.target.labels else true
    _draw_labels(panel, _shares(result, labels, axes, place), box)


def _draw_cut(panel: Any, result: RefineResult, labels: LabelMap, axes: Any, cut: Any) -> None:
    """Draw a cut along the long axis; every slice of the image is as thick as it was acquired."""
    points = qc_views.cut_points(cut)
    step = float(result.target.labels.spacing_mm[2])
    sliced = points.copy()
    sliced[..., 2] = np.clip(
        np.rint(points[..., 2] / step), 0, result.target.labels.shape[2] - 1
    ) * step  # fmt: skip
    qc_figure._prepare_panel(panel, cut.box)
    grey = qc_views.intensities(result.target.image, axes.to_world, sliced)
    qc_figure._show_image(panel, grey, cut.box)
    _draw_labels(panel, _shares(result, labels, axes, points), cut.box)


def _draw_labels(panel: Any, shares: dict[int, Any], box: Any) -> None:
    """Lay labels over an image, their colours half transparent and their outlines full."""
    for label, share in shares.items():
        tint = np.zeros((*share.shape, 4))
        tint[..., :3], tint[..., 3] = to_rgb(COLOURS[label]), _OPACITY * (share > 0.5)
        panel.imshow(tint, **qc_figure._placed(box))
        qc_figure._outline(panel, share, box, COLOURS[label], 1.4)


def _shares(result: RefineResult, labels: LabelMap, axes: Any, points: Any) -> dict[int, Any]:
    """Return where the labels are: voxels of the segmentation as they are, the model's interpolated."""
    if labels is result.target.labels:
        found = qc_views.labels_on_axes(labels, axes.to_world, points)
        return {label: (found == label).astype(float) for label in COLOURS}
    return {label: qc_views.label_share(labels, label, axes.to_world, points) for label in COLOURS}


def _draw_truth(panel: Any, truth: LabelMap, axes: Any, cut: Any) -> None:
    """Draw the outline of the true heart, dashed."""
    points = qc_views.cut_points(cut)
    share = sum(qc_views.label_share(truth, label, axes.to_world, points) for label in COLOURS)
    panel.contour(
        share, levels=[0.5], colors=["white"], linewidths=1.2, linestyles="dashed",
        origin="lower", extent=tuple(cut.box),
    )  # fmt: skip


def _contact_sheet(path: Path) -> Path:
    frames = autofd()[:4]
    pages = [
        _page(refine_quietly(read_labels(each.labels), image=each.image, preset=each.preset))
        for each in frames
    ]
    figure = Figure(figsize=(18, 9), dpi=80, facecolor="white")
    FigureCanvasAgg(figure)
    for panel, page, each in zip(figure.subplots(2, 2).ravel(), pages, frames, strict=True):
        panel.imshow(page)
        panel.set_axis_off()
        panel.set_title(each.name, fontsize=11)
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.965, wspace=0.01, hspace=0.06)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _page(result: Any) -> NDArray[Any]:
    from io import BytesIO

    from matplotlib.image import imread

    return np.asarray(imread(BytesIO(png_bytes(draw_qc_figure(result)))))
