"""Views of a whole cycle: every frame sees its own, and one shift holds for all."""

import numpy as np
import pytest

from cardiacreg import (
    InputWarning,
    InvalidInputError,
    LabelMap,
    RefineOptions,
    View,
    ViewAcquisition,
    refine_cine,
)
from cardiacreg.cine.frames import gather_cine
from cardiacreg.cine.views import gather_cine_views
from cardiacreg.phantoms.long_axis_views import simulate_view_frames
from cardiacreg.phantoms.toy_heart import make_toy_heart

SIZES = (0.95, 0.85)
OPTIONS = RefineOptions(n_atlases=2, orientation="as-stored")
HOW = ViewAcquisition(thickness_mm=4.0, shift_sd_mm=2.0)


@pytest.fixture(scope="module")
def hearts():
    return [make_toy_heart(size=size) for size in SIZES]


@pytest.fixture(scope="module")
def seen(hearts):
    return simulate_view_frames(hearts, ["four_chamber", "two_chamber"], seed=4, acquisition=HOW)


@pytest.fixture(scope="module")
def series(seen):
    """One view as an array in time, the other as a list of frames."""
    first = [views[0].subject.labels for views in seen]
    array = np.stack([each.array for each in first], axis=-1)
    return [(array, first[0].voxel_to_world), [views[1].subject.labels for views in seen]]


@pytest.fixture(scope="module")
def stack(hearts):
    return [heart.labels for heart in hearts]


def test_views_of_a_beating_heart_keep_their_lattice_and_shift(seen):
    for first, second in zip(*seen, strict=True):
        one, other = first.subject.labels, second.subject.labels
        np.testing.assert_array_equal(one.voxel_to_world, other.voxel_to_world)
        np.testing.assert_array_equal(first.shift_mm, second.shift_mm)
        assert (one.array == 1).sum() > (other.array == 1).sum() > 0


def test_every_frame_gets_its_own_planes(stack, series, seen):
    gathered = gather_cine(stack, "all")
    found = gather_cine_views(series, gathered, None)
    assert found.names == ("view 1", "view 2")
    for planes, views in zip(found.frames, seen, strict=True):
        for plane, view in zip(planes, views, strict=True):
            np.testing.assert_array_equal(plane.labels.array, view.subject.labels.array)
            assert 3 in plane.not_drawn and 1 not in plane.not_drawn


def test_a_frame_without_labels_of_a_view_keeps_its_place(stack, series):
    first, second = series[1]
    empty = LabelMap(0 * second.array, second.voxel_to_world)
    found = gather_cine_views([[first, empty]], gather_cine(stack, "all"), None)
    assert [planes[0].labels.array.any() for planes in found.frames] == [True, False]
    assert found.frames[1][0].not_drawn == found.frames[0][0].not_drawn


def cropped(labels):
    return LabelMap(labels.array[:-1], labels.voxel_to_world)


def test_an_image_of_a_view_is_told_to_be_unused(stack, series):
    view = View(series[1], image="4ch.nii.gz")
    with pytest.warns(InputWarning, match="image of the view is not used"):
        gather_cine_views([view], gather_cine(stack, "all"), None)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (lambda series: [series[1][:1]], "FRAMES_DIFFER"),
        (lambda series: [[series[1][0], cropped(series[1][1])]], "FRAMES_DIFFER"),
        (lambda series: [View(image=series[0])], "EMPTY_VIEW"),
        (lambda series: [View(series[0], frame=0)], "BAD_FRAME"),
        (lambda series: [[LabelMap(0 * e.array, e.voxel_to_world) for e in series[1]]], "EMPTY_LABELS"),
    ],
)  # fmt: skip
def test_what_cannot_be_the_views_of_a_cine_is_refused(stack, series, wrong, code):
    with pytest.raises(InvalidInputError) as caught:
        gather_cine_views(wrong(series), gather_cine(stack, "all"), None)
    assert caught.value.code == code


@pytest.mark.filterwarnings("ignore::cardiacreg.ResultWarning")
def test_a_cine_with_views_agrees_with_them_and_finds_their_shifts(stack, series, seen):
    atlases = [make_toy_heart(size=size) for size in (0.8, 0.9, 1.0)]
    without = refine_cine(stack, atlases=atlases, options=OPTIONS)
    result = refine_cine(stack, atlases=atlases, options=OPTIONS, views=series)
    assert without.views == () and [view.name for view in result.views] == ["view 1", "view 2"]
    for report, view in zip(result.views, seen[0], strict=True):
        assert report.agreement["LV cavity"] > 0.9
        np.testing.assert_allclose(report.shift_mm, view.shift_mm[:2], atol=1.5)
    assert result.minimum_jacobian > 0
    true = 1 - (SIZES[1] / SIZES[0]) ** 3
    error, before = (abs(each.ejection_fractions["LV"] - true) for each in (result, without))
    assert error < 0.04 and error < before
