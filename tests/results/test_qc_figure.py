"""The figure shows every heart the same way up, however its scan was stored."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from cardiacreg.anatomy.slice_volumes import StructureVolume
from cardiacreg.anatomy.stack_coverage import ENDS, End
from cardiacreg.geometry import (
    LV_CAVITY,
    LV_WALL,
    RV_CAVITY,
    RV_WALL,
    STRUCTURES,
    LabelMap,
    Landmarks,
    Subject,
    Volume,
    apply_matrix,
)
from cardiacreg.results import surface_figure
from cardiacreg.results.guards import CODES, find_problems
from cardiacreg.results.qc_figure import COLOURS, draw_qc_figure, outline_structures, png_bytes
from cardiacreg.results.qc_views import (
    Box,
    cut_points,
    heart_axes,
    heart_points,
    labels_on_axes,
    long_axis_cuts,
    shown_slices,
    slice_box,
    slice_points,
)
from cardiacreg.results.result import Orientation
from cardiacreg.results.surface_rays import draw_rays

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
    return [labels_on_axes(result.labels, axes.to_world, plane) for plane in planes]


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
    own_points = apply_matrix(np.linalg.inv(axes.to_world), tiny_result.landmarks.points_mm)
    insertions = (own_points[0] - own_points[2])[:2]
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
    before = labels_on_axes(tiny_result.target.labels, axes.to_world, true)
    after = labels_on_axes(tiny_result.target.labels, axes.to_world, true - shift)
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


def worst(result):
    """A result with long words everywhere and every finding there is."""
    volume = StructureVolume(1000.0, 1000.0, 200.0, 300.0, 1500.0, 30.0, 140.0)
    volumes = dict.fromkeys(STRUCTURES.values(), volume)
    agreement = dict(zip(STRUCTURES.values(), (0.2, 0.7, 0.3, 0.8), strict=True))
    return dataclasses.replace(
        result,
        target=dataclasses.replace(result.target, name="W" * 300),
        atlases=tuple(dataclasses.replace(a, name="atlas" * 20) for a in result.atlases) * 4,
        agreement=agreement,
        volumes=volumes,
        warnings=("word " * 60,) * 9,
        structures_from_atlases=tuple(STRUCTURES.values()),
        orientation=Orientation("mirrored-upside-down", 0.4, "by the atlases' fit to 25 frames"),
        ends=tuple(
            End(name, "empty slice", "the outermost slice is wide, more so than any " * 4)
            for name in ENDS
        ),
        findings=find_problems(
            agreement,
            volumes,
            slice_distance_mm=10.0,
            atlas_diversity=0.9,
            orientation_probability=0.4,
        ),
    )


def placed_texts(figure):
    """Every text of a figure with the box that it takes on the page, in pixels."""
    figure.canvas.draw()
    found = [t for t in figure.findobj(Text) if t.get_text().strip() and t.get_visible()]
    return [(text, text.get_window_extent()) for text in found]


@pytest.mark.parametrize("make", [lambda r: r, worst], ids=["usual", "worst"])
def test_no_text_leaves_the_page_or_meets_another(tiny_result, make):
    figure = draw_qc_figure(make(tiny_result))
    texts = placed_texts(figure)
    assert len(texts) > 50
    for number, (text, box) in enumerate(texts):
        assert box.x0 >= 0 and box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
        for other, its_box in texts[:number]:
            wide = min(box.x1, its_box.x1) - max(box.x0, its_box.x0)
            high = min(box.y1, its_box.y1) - max(box.y0, its_box.y0)
            assert wide <= 1 or high <= 3, (text, other)  # lines touch by what letters leave free


def shown_words(result):
    return [text.get_text() for text, _ in placed_texts(draw_qc_figure(result))]


def test_volumes_and_agreement_are_on_the_figure(tiny_result):
    words = shown_words(tiny_result)
    for name, volume in tiny_result.volumes.items():
        row = words.index(name)
        expected = [volume.input_ml, volume.inside_ml, volume.beyond_apex_ml, volume.beyond_base_ml]
        cells = [f"{value:.1f}" for value in (*expected, volume.total_ml)]
        assert words[row + 1 : row + 7] == [*cells, f"{tiny_result.agreement[name]:.3f}"]
    absent = dataclasses.replace(tiny_result.volumes["RV wall"], input_ml=None)
    bare = dataclasses.replace(tiny_result, volumes={"RV wall": absent}, agreement={})
    words = shown_words(bare)
    assert words[words.index("RV wall") + 1] == "–"


def test_what_was_assumed_is_on_the_figure_in_one_line(tiny_result):
    ends = (End("apex", "whole", "given"), End("base", "empty slice", "one was acquired"))
    bare = dataclasses.replace(tiny_result, ends=ends)
    assert "apex: whole (given), base: empty slice (one was acquired)" in shown_words(bare)
    found = Orientation("mirrored", 0.97, "by the atlases' fit to 2 frames")
    (line,) = (
        w for w in shown_words(dataclasses.replace(bare, orientation=found)) if "apex: " in w
    )
    assert line.startswith("the heart is taken as stored mirrored with a probability of 0.97, by ")
    assert line.endswith("; apex: whole (given), base: empty slice (one was acquired)")
    (line,) = (w for w in shown_words(worst(tiny_result)) if w.startswith("the heart is taken"))
    assert line.endswith(" ...") and "\n" not in line


def test_findings_are_on_the_figure_and_a_failure_is_in_its_heading(tiny_result):
    words = shown_words(dataclasses.replace(tiny_result, findings=()))
    assert "findings: none" in words and "FAILED REFINEMENT" not in words
    bad = worst(tiny_result)
    words = shown_words(bad)
    assert [word for word in words if word in CODES] == [f.code for f in bad.findings]
    assert "FAILED REFINEMENT" in words and f"findings ({len(bad.findings)})" in words
    assert bad.findings[0].found in words
    mild = dataclasses.replace(bad, findings=bad.findings[1:3])
    assert "FAILED REFINEMENT" not in shown_words(mild)


def test_drawing_touches_no_global_state():
    check = "import cardiacreg.results.qc_figure, sys; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def outside_pictures(result):
    """What the surface figure shows of the model, True where the heart is."""
    scene = surface_figure.make_scene(result, {"model": result.labels})
    views = [surface_figure._view(scene, look) for look in surface_figure.LOOKS.values()]
    return [(draw_rays(scene.shares["model"], v, np.zeros((5, 3))) < 0.5).any(-1) for v in views]


@pytest.mark.parametrize("name", ["slices base first", "oblique, swapped, base first"])
def test_the_heart_from_outside_does_not_depend_on_how_it_was_stored(tiny_result, name):
    for expected, found in zip(
        outside_pictures(tiny_result), outside_pictures(VARIANTS[name](tiny_result)), strict=True
    ):
        rows, columns = (min(a, b) for a, b in zip(expected.shape, found.shape, strict=True))
        assert np.abs(np.subtract(expected.shape, found.shape)).max() <= 2
        assert (expected[:rows, :columns] != found[:rows, :columns]).mean() < 0.02
        widths = expected.sum(axis=1)[expected.any(axis=1)]
        assert widths[0] < widths.max() / 2


def test_the_surface_figure_is_a_png(tiny_result):
    assert png_bytes(surface_figure.draw_surface_figure(tiny_result)).startswith(PNG_START)


def test_a_line_has_the_colour_of_what_it_bounds():
    """The inner side of the LV wall is the cavity's line, its outer side the wall's, each once."""
    labels = np.zeros((40, 40), np.uint8)
    labels[5:35, 5:35], labels[12:28, 12:28] = LV_WALL, LV_CAVITY
    figure = Figure()
    panel = figure.add_subplot()
    shares = {label: (labels == label).astype(float) for label in COLOURS}
    outline_structures(panel, shares.__getitem__, Box(0, 40, 0, 40), COLOURS, 1.0)
    drawn = [
        (to_hex(lines.get_edgecolor()[0]), path.get_extents().width)
        for lines in panel.collections
        for path in lines.get_paths()
        if len(path.vertices)
    ]
    assert sorted(drawn, key=lambda each: each[1]) == [
        (COLOURS[LV_CAVITY], pytest.approx(16, abs=1)),
        (COLOURS[LV_WALL], pytest.approx(30, abs=1)),
    ]
