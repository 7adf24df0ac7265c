"""Pictures for the documentation: one heart through every method, and quality pages of real frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from benchmarks.harness import machine
from benchmarks.harness.cases import DataAbsent, autofd, degrade
from benchmarks.harness.measuring import refine_quietly
from cardiacreg.geometry import LV_CAVITY, STRUCTURES, LabelMap
from cardiacreg.io.nifti import read_labels
from cardiacreg.metrics import baselines, overlap
from cardiacreg.phantoms.hearts import FIRST_EVALUATION_SEED, sample_heart
from cardiacreg.results.qc_figure import COLOURS, draw_qc_figure, png_bytes

FOLDER = machine.ROOT / "docs" / "figures"
SEED = FIRST_EVALUATION_SEED + 3


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
    heart = sample_heart(SEED, group="pulmonary_hypertension")
    low = degrade(heart, SEED)
    result = refine_quietly(low.subject.labels)
    truth = low.reference
    maps = {
        "acquired slices": baselines.interpolate_nearest(low.subject.labels, truth),
        "shape-based interpolation": baselines.interpolate_shape_based(low.subject.labels, truth),
        "cardiacreg": baselines.interpolate_nearest(result.labels, truth),
        "truth": truth,
    }
    figure = Figure(figsize=(11, 5.6), dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(maps))
    for column, (title, labels) in enumerate(maps.items()):
        _draw_cuts(panels[:, column], labels, truth)
        panels[0, column].set_title(_title(title, labels, truth), fontsize=10)
    panels[0, 0].set_ylabel("through RV and LV")
    panels[1, 0].set_ylabel("through the LV, anterior left")
    handles = [Patch(color=COLOURS[label], label=name) for label, name in STRUCTURES.items()]
    figure.legend(handles=handles, ncols=4, loc="lower center", frameon=False)
    figure.subplots_adjust(0.04, 0.08, 0.99, 0.9, wspace=0.03, hspace=0.05)
    figure.savefig(path)
    return path


def _title(title: str, labels: LabelMap, truth: LabelMap) -> str:
    if labels is truth:
        return title
    mean = np.mean([overlap.dice(labels, truth, label) for label in STRUCTURES])
    return f"{title}\nmean Dice {mean:.3f}"


def _draw_cuts(panels: Any, labels: LabelMap, truth: LabelMap) -> None:
    centre = np.argwhere(truth.array == LV_CAVITY).mean(axis=0).round().astype(int)
    spacing = truth.spacing_mm
    colours = ListedColormap(["white", *(COLOURS[label] for label in sorted(COLOURS))])
    cuts = ((labels.array[:, centre[1]], spacing[0]), (labels.array[centre[0]], spacing[1]))
    for panel, (cut, step) in zip(panels, cuts, strict=True):
        panel.imshow(
            cut.T, origin="lower", aspect=spacing[2] / step, cmap=colours, vmin=0, vmax=4,
            interpolation="nearest",
        )  # fmt: skip
        panel.set_xticks([])
        panel.set_yticks([])


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
