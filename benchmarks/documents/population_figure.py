"""Synthetic hearts in rows: mid slice, long-axis cuts and surface; beside real ones where they are.

The picture that holds real anatomies goes to ``bench_output``, outside the project.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LightSource, ListedColormap, to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from benchmarks.harness import machine
from benchmarks.harness.cases import ANATOMIES, DataAbsent, real_anatomy
from cardiacreg.geometry import LV_CAVITY, LabelMap
from cardiacreg.phantoms.hearts import FIRST_EVALUATION_SEED, sample_heart
from cardiacreg.phantoms.population import GROUPS
from cardiacreg.results.qc_figure import COLOURS

FOLDER = machine.ROOT / "docs" / "figures"
_COUNT, _COLUMNS = 10, 4
_EDGE_MM = 4.0


def run(quick: bool) -> dict[str, Any]:
    """Draw ten synthetic hearts and, where they are, ten real ones beside ten more."""
    count = 2 if quick else _COUNT
    drawn = [_draw(_mixed(count), _place("population.png", quick))]
    try:
        real = [(name, real_anatomy(name).labels) for name in ANATOMIES[:count]]
    except DataAbsent as absent:
        print(f"population_figure: without real anatomies, {absent}")
        real = []
    if real:
        path = machine.ROOT / "bench_output" / "population_beside_real.png"
        drawn.append(_draw([*_alike(count), *real], path))
    return {"seeds": [FIRST_EVALUATION_SEED], "figures": [path.name for path in drawn]}


def _place(name: str, quick: bool) -> Path:
    return (machine.ROOT / "bench_output" if quick else FOLDER) / name


def _mixed(count: int) -> list[tuple[str, LabelMap]]:
    """Hearts of all groups in both phases."""
    found = []
    for number in range(count):
        group, phase = list(GROUPS)[number // 2 % len(GROUPS)], ("ED", "ES")[number % 2]
        seed = FIRST_EVALUATION_SEED + number // 2
        heart = sample_heart(seed, group=group, phase=phase, with_image=False)
        found.append((f"{group.replace('_', ' ')}, {phase}", heart.labels))
    return found


def _alike(count: int) -> list[tuple[str, LabelMap]]:
    """End-diastolic hearts, as the real anatomies are."""
    found = []
    for number in range(count):
        group = ("hypertrophic", "healthy")[number % 2]
        seed = FIRST_EVALUATION_SEED + number
        heart = sample_heart(seed, group=group, with_image=False)
        found.append((f"synthetic {seed}", heart.labels))
    return found


def _draw(hearts: list[tuple[str, LabelMap]], path: Path) -> Path:
    per_row = 2 if len(hearts) > 2 else 1
    rows = -(-len(hearts) // per_row)
    figure = Figure(figsize=(7.2 * per_row, 1.9 * rows), dpi=90, facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, _COLUMNS * per_row, squeeze=False)
    for panel in panels.ravel():
        panel.set_axis_off()
    for number, (name, labels) in enumerate(hearts):
        column, row = divmod(number, rows)
        _draw_heart(panels[row, _COLUMNS * column : _COLUMNS * (column + 1)], name, labels)
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.975, wspace=0.02, hspace=0.12)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _draw_heart(panels: Any, name: str, labels: LabelMap) -> None:
    """Mid slice seen from the apex, cut through both ventricles, cut through the LV, surface."""
    array, (dx, dy, dz) = _cropped(labels)
    i, j, k = np.argwhere(array == LV_CAVITY).mean(axis=0).round().astype(int)
    colours = ListedColormap(["white", *(COLOURS[label] for label in sorted(COLOURS))])
    views = ((array[:, :, k].T, "upper", dy / dx), (array[:, j].T, "lower", dz / dx))
    for panel, (picture, origin, aspect) in zip(
        panels, (*views, (array[i].T, "lower", dz / dy)), strict=False
    ):
        panel.imshow(
            picture, origin=origin, aspect=aspect, cmap=colours, vmin=0, vmax=4,
            interpolation="nearest",
        )  # fmt: skip
    panels[3].imshow(_surface(array, (dx, dy, dz)), origin="lower")
    panels[0].set_title(name, fontsize=8, loc="left", pad=2)


def _cropped(labels: LabelMap) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    pad = np.ceil(_EDGE_MM / labels.spacing_mm).astype(int)
    held = np.argwhere(labels.array > 0)
    low, high = held.min(axis=0), held.max(axis=0) + 1
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    return np.pad(labels.array[box], [(n, n) for n in pad]), labels.spacing_mm


def _surface(array: NDArray[np.uint8], spacing_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """The heart seen from the anterior side (low j), lit from above left, one pixel per mm."""
    met = array > 0
    first = met.argmax(axis=1)
    hit = met.any(axis=1)
    structure = np.take_along_axis(array, first[:, None], axis=1)[:, 0]
    depth = np.where(hit, first * spacing_mm[1], array.shape[1] * spacing_mm[1])
    factors = (spacing_mm[0], spacing_mm[2])
    smooth = gaussian_filter(zoom(depth, factors, order=1), 1.2)
    shade = LightSource(azdeg=315, altdeg=50).hillshade(-smooth.T, vert_exag=1.0)
    palette = np.array([to_rgb("white"), *(to_rgb(COLOURS[label]) for label in sorted(COLOURS))])
    colours = palette[zoom(structure, factors, order=0).T]
    inside = zoom(hit, factors, order=0).T[..., None]
    return np.where(inside, colours * (0.3 + 0.7 * shade[..., None]), 1.0)
