"""Drawings of the pages about concepts, made by code when the site is built.

Each function draws one figure; its name is the name of its file. Outlines of hearts are half ellipses,
except of ``slice_motion``, which shows a synthetic heart and the shifts that `refine` finds for it.
"""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle

_LV, _WALL, _RV, _INPUT, _TRUTH = "#d55e00", "#f2b734", "#0a5fa8", "#d0208a", "0.15"
_GREY = "0.45"
_WIDTH_INCHES = 8.4
_TEXT = {"fontsize": 8.5, "color": "0.2"}


def setup(app: Any) -> dict[str, Any]:
    """Draw when the build begins."""
    app.connect("builder-inited", lambda app: draw_all(Path(app.srcdir) / "_drawings"))
    return {"parallel_read_safe": True}


def draw_all(folder: Path) -> None:
    """Draw what is not there yet, or is older than this file."""
    folder.mkdir(exist_ok=True)
    for draw in DRAWINGS:
        place = folder / f"{draw.__name__}.svg"
        if not place.is_file() or place.stat().st_mtime < Path(__file__).stat().st_mtime:
            draw().savefig(place, bbox_inches="tight", pad_inches=0.04, metadata={"Date": None})


# ---- frames


def frames() -> Figure:
    """A stack in its world, and the direction of transforms."""
    figure, (left, right) = _panels(2, height=3.0)
    for k in range(5):
        corner = np.array([0.25 + 0.1 * k, 0.15 + 0.155 * k])
        _slice_in_perspective(left, corner, zorder=k)
    _arrow(left, (0.25, 0.1), (0.68, 0.1), "i")
    _arrow(left, (0.19, 0.16), (0.31, 0.34), "")
    left.text(0.2, 0.28, "j", fontsize=8.5, color=_INPUT)
    _arrow(left, (0.98, 0.2), (1.38, 0.82), "k, across the slices")
    for tip, word in (
        ((0.16, -0.42), "x: right"),
        ((-0.04, -0.25), "y: front"),
        ((-0.18, -0.06), "z: head"),
    ):
        _arrow(left, (-0.18, -0.42), tip, word, colour=_GREY)
    left.set(xlim=(-0.3, 1.75), ylim=(-0.55, 1.0))
    _lattice(right, (0.0, 0.0), 6, 0.14, "target")
    _lattice(right, (1.45, 0.1), 9, 0.085, "atlas")
    right.annotate(
        "", (1.78, 0.5), (0.5, 0.55),
        arrowprops={"arrowstyle": "-|>", "connectionstyle": "arc3,rad=-0.35", "color": _LV, "lw": 1.6},
    )  # fmt: skip
    right.plot([0.5], [0.55], "o", color=_LV, ms=5)
    right.plot([1.79], [0.49], "o", color=_LV, ms=5)
    right.text(1.14, 0.9, "T(x) = A(x + u(x))", ha="center", color=_LV, fontsize=9.5)
    right.set(xlim=(-0.15, 2.4), ylim=(-0.25, 1.2))
    left.set_title("a stack and its world (RAS, mm)", fontsize=9.5)
    right.set_title("transforms go from the target to the atlas", fontsize=9.5)
    return figure


def _slice_in_perspective(panel: Axes, corner: np.ndarray, zorder: int) -> None:
    across, upward = np.array([0.52, 0.0]), np.array([0.14, 0.2])
    edges = [corner, corner + across, corner + across + upward, corner + upward]
    panel.add_patch(Polygon(edges, fc="white", ec=_GREY, lw=0.8, zorder=2 * zorder))
    turns = np.linspace(0, 2 * np.pi, 60)
    middle = corner + 0.5 * across + 0.5 * upward
    for radius, colour in ((0.3, _WALL), (0.19, _LV)):
        ring = middle + radius * (np.cos(turns)[:, None] * across + np.sin(turns)[:, None] * upward)
        panel.add_patch(Polygon(ring, fc=colour, ec="none", zorder=2 * zorder + 1))


def _lattice(panel: Axes, origin: tuple[float, float], count: int, step: float, name: str) -> None:
    x, y = np.meshgrid(np.arange(count), np.arange(count))
    panel.plot(origin[0] + step * x, origin[1] + step * y, ".", color=_GREY, ms=2.5)
    size = step * (count - 1)
    bowl = _bowl(origin[0] + size / 2, origin[1] + 0.12 * size, 0.3 * size, 0.8 * size)
    panel.plot(*bowl.T, color=_WALL, lw=2)
    panel.text(origin[0] + size / 2, origin[1] - 0.17, name, ha="center", **_TEXT)


# ---- slice motion


def slice_motion() -> Figure:
    """A synthetic heart along its long axis: true, as stored, and after the shifts that were found."""
    truth, stored, stack, shifts = _scanned_heart()
    figure, panels = _panels(3, height=3.6)
    titles = ("the heart and its slices", "as stored", "after the shifts that were found")
    for panel, title in zip(panels, titles, strict=True):
        panel.set_title(title, fontsize=9.5)
        for label, colour in ((1, _LV), (2, _WALL), (4, _RV)):
            panel.contour(*truth[0], truth[1] == label, levels=[0.5], colors=colour, linewidths=1.1)
    for k, z_mm in enumerate(stack):
        panels[0].axhline(z_mm, color=_GREY, lw=0.7, ls=":")
        for panel, shift_mm in ((panels[1], 0.0), (panels[2], shifts[k])):
            _cut_slice(panel, stored[0] + shift_mm, stored[1][:, k], z_mm)
    heart_mm = [places[truth[1] > 0] for places in truth[0]]
    for panel in panels:
        panel.set(xlim=(heart_mm[0].min() - 9, heart_mm[0].max() + 9))
        panel.set(ylim=(heart_mm[1].min() - 7, heart_mm[1].max() + 7))
    return figure


def _scanned_heart() -> tuple[Any, Any, np.ndarray, np.ndarray]:
    """A heart cut by the plane i-k through its middle, its slices there, and the shifts found along i."""
    import cardiacreg

    spacing_mm = (2.0, 2.0, 2.5)
    heart = cardiacreg.sample_heart(10_003, spacing_mm=spacing_mm, with_image=False)
    scan = cardiacreg.simulate_low_resolution(heart, seed=7, shift_sd_mm=3.5, lost_apical_slices=0)
    atlases = [
        cardiacreg.sample_heart(n, spacing_mm=spacing_mm, with_image=False) for n in range(12)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cardiacreg.InputWarning)
        warnings.simplefilter("ignore", cardiacreg.ResultWarning)
        labels = scan.subject.labels
        options = cardiacreg.RefineOptions(orientation="as-stored", n_motion_atlases=12)
        found = cardiacreg.refine(labels, atlases=atlases, options=options, spacing_mm=spacing_mm)
    j = int(np.argwhere(labels.array == 1)[:, 1].mean())
    offset = labels.voxel_to_world[:3, 3] - scan.reference.voxel_to_world[:3, 3]
    fine_mm, thick_mm = np.array(scan.reference.spacing_mm), np.array(labels.spacing_mm)
    j_fine = int(round((j * thick_mm[1] + offset[1]) / fine_mm[1]))
    reference = scan.reference.array[:, j_fine, :]
    x_mm = fine_mm[0] * np.arange(reference.shape[0])
    z_mm = fine_mm[2] * np.arange(reference.shape[1])
    truth = (np.meshgrid(x_mm, z_mm), reference.T)
    across_mm = offset[0] + thick_mm[0] * np.arange(labels.shape[0])
    along_mm = offset[2] + thick_mm[2] * np.arange(labels.shape[2])
    return truth, (across_mm, labels.array[:, j, :]), along_mm, found.slice_shifts_mm[:, 0]


def _cut_slice(panel: Axes, x_mm: np.ndarray, labels: np.ndarray, z_mm: float) -> None:
    """One slice seen from its edge: a bar for every run of a structure."""
    for label, colour in ((1, _LV), (2, _WALL), (4, _RV)):
        for run in _runs(labels == label):
            start, stop = x_mm[run[0]], x_mm[run[-1]]
            panel.add_patch(
                Rectangle((start, z_mm - 3.4), stop - start, 6.8, color=colour, alpha=0.5, lw=0)
            )


def _runs(inside: np.ndarray) -> Iterable[np.ndarray]:
    places = np.flatnonzero(inside)
    return (run for run in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if len(run))


# ---- ends


def ends() -> Figure:
    """Where a ventricle may end, in a stack that covers it and in one that was cut."""
    figure, panels = _panels(2, height=3.6)
    covered, cut = range(-1, 9), range(0, 6)
    for panel, slices in zip(panels, (covered, cut), strict=True):
        panel.plot(*_bowl(0.0, 0.0, 3.3, 7.0).T, color=_WALL, lw=2)
        panel.plot(*_bowl(0.0, 1.0, 2.0, 6.0).T, color=_LV, lw=2)
        for k in slices:
            shown = 0 <= k <= 6
            look = (
                {"color": _INPUT, "lw": 1.6} if shown else {"color": _GREY, "lw": 1.0, "ls": "--"}
            )
            panel.plot([-4.3, 4.3], [k + 0.35] * 2, **look)
    for low in (-0.65, 6.35):
        panels[0].add_patch(Rectangle((-4.3, low), 8.6, 1.0, fc="#0a5fa8", alpha=0.13, lw=0))
    panels[0].text(4.5, 6.85, "the base ends here", va="center", **_TEXT)
    panels[0].text(4.5, -0.15, "the apex ends here", va="center", **_TEXT)
    panels[0].text(4.5, 8.0, "empty slices", va="center", **_TEXT)
    panels[0].text(4.5, 3.35, "labelled slices", va="center", fontsize=8.5, color=_INPUT)
    panels[1].annotate(
        "", (5.0, 8.6), (5.0, 5.35), arrowprops={"arrowstyle": "-|>", "color": _GREY}
    )
    panels[1].text(5.3, 7.0, "cut here:\nonly atlases tell", va="center", **_TEXT)
    panels[1].text(4.5, 3.35, "labelled slices", va="center", fontsize=8.5, color=_INPUT)
    panels[0].set_title("the stack covers the ventricle", fontsize=9.5)
    panels[1].set_title("the stack was cut", fontsize=9.5)
    for panel in panels:
        panel.set(xlim=(-4.6, 10.2), ylim=(-1.2, 9.2))
    return figure


# ---- what can be known


def what_can_be_known() -> Figure:
    """Four errors of a stack, and who sees them."""
    figure, panels = _panels(4, height=3.3)
    heights = np.arange(7)
    wiggle = np.array([0.5, -0.6, 0.3, 0.8, -0.5, -0.2, 0.5])
    cases = (
        ("single slices", wiggle, "slices show it"),
        ("all slices alike", np.full(7, 1.3), "slices do not show it;\na long-axis view does"),
        ("a drift", 0.42 * (heights - 3), "hardly: it looks like a\ntilt; a view shows it"),
        ("a structure not drawn", np.zeros(7), "atlases alone;\na likely one, not this one"),
    )
    for panel, (title, shifts, told) in zip(panels, cases, strict=True):
        panel.plot(*_bowl(0.0, 0.0, 3.0, 7.0).T, color=_TRUTH, lw=1.0, ls=":")
        for k, shift in zip(heights, shifts, strict=True):
            half = 3.0 * np.sqrt(1 - (1 - (k + 0.35) / 7.0) ** 2)
            panel.plot(
                [shift - half, shift + half], [k + 0.35] * 2, color=_LV, lw=4, solid_capstyle="butt"
            )
        if title.startswith("a structure"):
            panel.plot(*_bowl(-3.4, 1.6, 1.9, 5.4).T, color=_RV, lw=1.4, ls="--")
        panel.set_title(title, fontsize=9.5)
        panel.text(0, -1.0, told, ha="center", va="top", **_TEXT)
        panel.set(xlim=(-5.6, 5.2), ylim=(-2.6, 7.6))
    return figure


# ---- raw and aligned


def raw_and_aligned() -> Figure:
    """The same model against the truth before and after the movement that fits best."""
    figure, panels = _panels(2, height=3.5)
    truth = _bowl(0.0, 0.0, 3.0, 7.0)
    shape = _bowl(0.05, 0.1, 2.95, 6.9)
    for panel, title, outline in (
        (panels[0], "raw", _moved(shape, shift=0.9, degrees=7.0)),
        (panels[1], "after translation and tilt", shape),
    ):
        panel.add_patch(Polygon(truth, fc="0.9", ec=_TRUTH, lw=1.2))
        panel.add_patch(Polygon(outline, fc="none", ec=_LV, lw=2))
        panel.set_title(title, fontsize=9.5)
        panel.text(
            0, -0.9, f"Dice {_dice(truth, outline):.3f}", ha="center", fontsize=10, color="0.2"
        )
        panel.set(xlim=(-6.0, 6.0), ylim=(-1.5, 7.8))
    panels[0].text(-3.4, 1.2, "truth", ha="right", **_TEXT)
    panels[0].text(4.2, 1.6, "model", color=_LV, fontsize=8.5)
    return figure


def _moved(points: np.ndarray, *, shift: float, degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = points.mean(axis=0)
    return (points - middle) @ turn.T + middle + np.array([shift, 0.0])


def _dice(first: np.ndarray, second: np.ndarray) -> float:
    """Overlap of two closed outlines, counted on fine pixels."""
    from matplotlib.path import Path as Outline

    x, y = np.meshgrid(np.arange(-6, 6, 0.02), np.arange(-1, 8, 0.02))
    pixels = np.column_stack([x.ravel(), y.ravel()])
    one, other = (Outline(each).contains_points(pixels) for each in (first, second))
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


# ---- shared


def _bowl(middle: float, low: float, half_width: float, depth: float) -> np.ndarray:
    """Half an ellipse that is closed by a line at its top: a ventricle along its long axis."""
    angles = np.linspace(np.pi, 2 * np.pi, 120)
    around = np.column_stack(
        [middle + half_width * np.cos(angles), low + depth * (1 + np.sin(angles))]
    )
    return np.vstack([around, around[:1]])


def _panels(count: int, *, height: float) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")
    panels = figure.subplots(1, count)
    for panel in panels:
        panel.set_aspect("equal")
        panel.set_axis_off()
    return figure, panels


def _arrow(
    panel: Axes, start: Sequence[float], tip: Sequence[float], word: str, colour: str = _INPUT
) -> None:
    panel.annotate("", tip, start, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.3})
    panel.text(tip[0] + 0.04, tip[1], word, va="center", fontsize=8.5, color=colour)


DRAWINGS = (frames, slice_motion, ends, what_can_be_known, raw_and_aligned)
