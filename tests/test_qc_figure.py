"""The figure shows every heart the same way up, however its scan was stored."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from cardiacreg import surface_figure
from cardiacreg.geometry import (
    LV_CAVITY,
    LV_WALL,
    RV_CAVITY,
    RV_WALL,
    LabelMap,
    Landmarks,
    Subject,
    Volume,
    apply_matrix,
)
from cardiacreg.qc_figure import draw_qc_figure, png_bytes
from cardiacreg.qc_views import (
    cut_points,
    heart_axes,
    heart_points,
    long_axis_cuts,
    nearest_labels,
    shown_slices,
    slice_box,
    slice_points,
)

PNG_START = b"\x89PNG\r\n\x1a\n"


def stored_otherwise(result, order, flips):
    """The same heart in the same world, its target stored with other in-plane axes or slice order."""
    signs = np.array(flips)
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    size = result.target.labels.shape
    for new, old in enumerate(order):
        turn[old, new] = signs[new]
        turn[old, 3] = 0 if signs[new] > 0 else size[old] - 1
    steps = tuple(slice(None, None, int(sign)) for sign in signs)

    def stored(grid):
        return type(grid)(grid.array.transpose(order)[steps], grid.voxel_to_world @ turn)

    target = result.target
    shifts = result.slice_shifts_mm[:: signs[2]][:, list(order[:2])] * signs[:2]
    return dataclasses.replace(
        result,
        target=Subject(stored(target.labels), stored(target.image), name=target.name),
        slice_shifts_mm=shifts,
    )


def moved(result, world):
    """The same heart, everything moved in the world by a matrix."""

    def grid(each):
        return type(each)(each.array, world @ each.voxel_to_world)

    points = apply_matrix(world, result.landmarks.points_mm)
    return dataclasses.replace(
        result,
        target=Subject(grid(result.target.labels), grid(result.target.image), name="moved"),
        labels=grid(result.labels),
        confidence=grid(result.confidence),
        landmarks=Landmarks(points, source="labels"),
    )


def oblique():
    """A rotation about no axis in particular, and a translation."""
    rotation, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    world = np.eye(4)
    world[:3, :3] = rotation * np.sign(np.linalg.det(rotation))
    world[:3, 3] = (31.0, -120.0, 77.0)
    return world


def cuts_and_slices(result):
    """The labels that the figure shows: two cuts and the slices, the lowest row first."""
    axes = heart_axes(result)
    points = heart_points(result, axes)
    planes = [cut_points(cut) for cut in long_axis_cuts(points, axes, (-axes.rv, axes.anterior))]
    spacing = result.target.labels.spacing_mm[2]
    planes += [
        slice_points(slice_box(points, axes), axes, k * spacing)
        for k in shown_slices(result, axes, 6)
    ]
    return [nearest_labels(result.labels, axes.frame, plane) for plane in planes]


VARIANTS = {
    "slices base first": lambda r: stored_otherwise(r, (0, 1, 2), (1, 1, -1)),
    "rows reversed": lambda r: stored_otherwise(r, (0, 1, 2), (-1, 1, 1)),
    "columns reversed": lambda r: stored_otherwise(r, (0, 1, 2), (1, -1, 1)),
    "all reversed": lambda r: stored_otherwise(r, (0, 1, 2), (-1, -1, -1)),
    "rows and columns swapped": lambda r: stored_otherwise(r, (1, 0, 2), (1, -1, 1)),
    "oblique": lambda r: moved(r, oblique()),
    "oblique, swapped, base first": lambda r: moved(
        stored_otherwise(r, (1, 0, 2), (-1, 1, -1)), oblique()
    ),
    "mirrored world": lambda r: moved(r, np.diag([-1.0, 1.0, 1.0, 1.0])),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_pictures_do_not_depend_on_how_the_scan_was_stored(tiny_result, name):
    for expected, found in zip(
        cuts_and_slices(tiny_result), cuts_and_slices(VARIANTS[name](tiny_result)), strict=True
    ):
        rows, columns = (min(a, b) for a, b in zip(expected.shape, found.shape, strict=True))
        differing = expected[:rows, :columns] != found[:rows, :columns]
        assert np.abs(np.subtract(expected.shape, found.shape)).max() <= 1
        assert differing.mean() < 0.02


def test_the_apex_is_at_the_bottom_and_the_rv_to_the_left(tiny_result):
    four_chamber, two_chamber, *slices = cuts_and_slices(tiny_result)
    for cut in (four_chamber, two_chamber):
        voxel = 4  # pixels of the figure; a row of a single voxel is noise of the vote
        rows = np.flatnonzero((cut > 0).sum(axis=1) > 2 * voxel)
        assert set(np.unique(cut[rows[0]])) <= {0, LV_WALL}
        assert LV_CAVITY in cut[rows[-1] - voxel + 1]
    left = np.argwhere(np.isin(four_chamber, (RV_CAVITY, RV_WALL)))[:, 1].mean()
    assert left < np.argwhere(four_chamber == LV_CAVITY)[:, 1].mean()
    areas = [(labels > 0).sum() for labels in slices]
    assert areas[0] == min(areas)


def test_anterior_is_up_in_slices_and_to_the_right_in_the_second_cut(tiny_result):
    axes = heart_axes(tiny_result)
    frame_points = apply_matrix(np.linalg.inv(axes.frame), tiny_result.landmarks.points_mm)
    insertions = (frame_points[0] - frame_points[2])[:2]
    assert insertions @ axes.anterior > 0 and insertions @ axes.up > 0


def test_cuts_are_in_true_proportions(tiny_result):
    axes = heart_axes(tiny_result)
    cut = long_axis_cuts(heart_points(tiny_result, axes), axes, (-axes.rv,))[0]
    assert np.linalg.norm(cut.across) == pytest.approx(1)
    assert np.linalg.norm(cut.upward) == pytest.approx(1)
    assert cut.across @ cut.upward == pytest.approx(0, abs=1e-12)


def test_shifts_move_the_input_and_not_the_model(tiny_result):
    axes = heart_axes(tiny_result)
    points = heart_points(tiny_result, axes)
    k = shown_slices(tiny_result, axes, 3)[1]
    spacing = tiny_result.target.labels.spacing_mm
    true = slice_points(slice_box(points, axes), axes, k * spacing[2])
    shift = np.array([4 * spacing[0], 0.0, 0.0])
    before = nearest_labels(tiny_result.target.labels, axes.frame, true)
    after = nearest_labels(tiny_result.target.labels, axes.frame, true - shift)
    moved_by = np.argwhere(after > 0).mean(axis=0) - np.argwhere(before > 0).mean(axis=0)
    assert np.linalg.norm(moved_by) * 0.6 == pytest.approx(shift[0], rel=0.1)


def test_the_figure_is_a_png_and_the_same_every_time(tiny_result):
    first, second = (png_bytes(draw_qc_figure(tiny_result)) for _ in range(2))
    assert first.startswith(PNG_START) and first == second


def test_odd_results_are_drawn_too(tiny_result):
    target = tiny_result.target
    cavity = LabelMap(np.where(target.labels.array == 2, 2, 0), target.labels.voxel_to_world)
    flat = Volume(np.zeros(target.labels.shape), target.labels.voxel_to_world)
    odd = dataclasses.replace(
        tiny_result,
        target=Subject(cavity, flat, name="$x_1 心臓 \\alpha" * 9),
        agreement={"LV cavity": None, "LV wall": 1.0, "RV wall": None, "RV cavity": None},
        warnings=("word " * 60,) * 9,
        structures_from_atlases=("LV cavity", "RV wall", "RV cavity"),
    )
    assert png_bytes(draw_qc_figure(odd)).startswith(PNG_START)
    without_image = dataclasses.replace(odd, target=Subject(cavity))
    assert png_bytes(draw_qc_figure(without_image)).startswith(PNG_START)


def test_drawing_touches_no_global_state():
    check = "import cardiacreg.qc_figure, sys; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def outside_pictures(result):
    """What the surface figure shows of the model, True where the heart is."""
    axes = heart_axes(result)
    points = heart_points(result, axes)
    views = [surface_figure._view(points, axes, degrees) for _, degrees in surface_figure._VIEWS]
    return [(surface_figure._picture(result.labels, axes, v) < 1).any(axis=-1) for v in views]


@pytest.mark.parametrize("name", ["slices base first", "oblique, swapped, base first"])
def test_the_heart_from_outside_does_not_depend_on_how_it_was_stored(tiny_result, name):
    for expected, found in zip(
        outside_pictures(tiny_result), outside_pictures(VARIANTS[name](tiny_result)), strict=True
    ):
        rows, columns = (min(a, b) for a, b in zip(expected.shape, found.shape, strict=True))
        assert (expected[:rows, :columns] != found[:rows, :columns]).mean() < 0.02
        widths = expected.sum(axis=1)[expected.any(axis=1)]
        assert widths[0] < widths.max() / 2


def test_the_surface_figure_is_a_png(tiny_result):
    assert png_bytes(surface_figure.draw_surface_figure(tiny_result)).startswith(PNG_START)
