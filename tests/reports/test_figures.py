"""Pictures of a report: nothing runs off them, and what no slice shows is hatched."""

import dataclasses

import numpy as np
import pytest
from matplotlib.text import Text

from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL, LabelMap
from cardiacreg.reports.before_after import beyond_slices, draw_cuts, draw_slices
from cardiacreg.reports.directions import directions_of
from cardiacreg.reports.page import as_svg
from cardiacreg.reports.shifts_figure import draw_shifts
from cardiacreg.results import surface_figure
from cardiacreg.results.qc_views import heart_axes

LABELS = (LV_CAVITY, LV_WALL, RV_WALL, RV_CAVITY)


@pytest.fixture(scope="module")
def scene(tiny_result):
    columns = {"input": tiny_result.target.labels, "model": tiny_result.labels}
    return surface_figure.make_scene(tiny_result, columns | {"truth": tiny_result.labels})


@pytest.fixture(scope="module")
def directions(tiny_result, scene):
    return directions_of(tiny_result, scene.axes)


def words_of(figure):
    """Texts of a figure, each of them inside it."""
    figure.canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    for text in texts:
        box = text.get_window_extent()
        assert box.x0 >= -1 and box.y0 >= -1, text
        assert box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1, text
    return {text.get_text() for text in texts}


@pytest.mark.parametrize(
    ("truth", "words"), [(None, "input where they differ"), ("truth", "truth, outline")]
)
def test_slices(tiny_result, scene, directions, truth, words):
    figure = draw_slices(tiny_result, scene, directions, truth=truth)
    found = words_of(figure)
    assert {"as acquired", "with the model", "anterior", "inferior", "20 mm", words} <= found
    shown = (tiny_result.target.labels.array > 0).any(axis=(0, 1)).sum()
    assert len(figure.axes) == 2 * shown


def test_few_slices_make_one_row(tiny_result, scene, directions):
    figure = draw_slices(tiny_result, scene, directions, most=3)
    assert len(figure.axes) == 6
    assert len({round(panel.get_position().y0, 3) for panel in figure.axes}) == 2


def test_cuts(tiny_result, scene, directions):
    columns = {"input, as stored": tiny_result.target.labels, "model": "model"}
    found = words_of(draw_cuts(tiny_result, scene, directions, columns))
    assert {"model, four-chamber cut", "input, as stored, two-chamber cut"} <= found
    assert {"RV", "apex", "base", "20 mm", "beyond the labelled slices"} <= found


def test_what_no_slice_shows_is_beyond(tiny_result):
    """Each structure ends with its own slices, whichever end of the stack is the base."""
    axes = heart_axes(tiny_result)
    target = tiny_result.target.labels
    array = np.array(target.array)
    shown = np.flatnonzero((array == RV_CAVITY).any(axis=(0, 1)))
    array[:, :, shown[-1]][array[:, :, shown[-1]] == RV_CAVITY] = 0
    cut = dataclasses.replace(
        tiny_result,
        target=dataclasses.replace(
            tiny_result.target, labels=LabelMap(array, target.voxel_to_world)
        ),
    )
    heights = np.arange(-1.0, array.shape[2] + 1.0, 0.25)
    where = np.zeros((len(heights), 3))
    where[:, 2] = heights * target.spacing_mm[2]
    for label in LABELS:
        own = np.flatnonzero((array == label).any(axis=(0, 1)))
        found = beyond_slices(cut, axes, where, np.full(len(heights), label, dtype=np.uint8))
        expected = (heights < own[0] - 0.5) | (heights > own[-1] + 0.5)
        np.testing.assert_array_equal(found, expected)
    background = beyond_slices(cut, axes, where, np.zeros(len(heights), dtype=np.uint8))
    assert not background.any()


def test_shifts_are_written_beside_their_slices(tiny_result, scene, directions):
    shifts = np.zeros_like(tiny_result.slice_shifts_mm)
    shifts[3] = 4.0 * np.asarray(scene.axes.anterior)
    moved = dataclasses.replace(tiny_result, slice_shifts_mm=shifts)
    figure = draw_shifts(moved, scene.axes, directions)
    words_of(figure)
    written = [
        sorted(t.get_text() for t in panel.texts if t.get_text().startswith(("+", "-")))
        for panel in figure.axes
    ]
    assert "+4.0" in written[1] and "+4.0" not in written[0]


def test_the_same_lines_make_the_same_picture(tiny_result, scene, directions):
    first, again = (
        as_svg(draw_shifts(tiny_result, scene.axes, directions), "shifts") for _ in range(2)
    )
    assert first == again and first.source.startswith("data:image/svg+xml;base64,")
