import numpy as np
import pytest

from cardiacreg import InvalidInputError, ViewAcquisition, sample_heart, simulate_views
from cardiacreg.geometry import apply_matrix, nearest_labels
from cardiacreg.phantoms.long_axis_views import VIEW_DEGREES, plan_views

STILL = ViewAcquisition(
    shift_sd_mm=0.0, angle_sd_degrees=0.0, offset_sd_mm=0.0, thickness_mm=1.0, draw_rv_wall=True
)


@pytest.fixture(scope="module")
def heart():
    return sample_heart(10_000, spacing_mm=(2.0, 2.0, 2.0))


def world_of(labels):
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in labels.shape), indexing="ij"), -1)
    return apply_matrix(labels.voxel_to_world, grid.reshape(-1, 3).astype(float))


@pytest.mark.parametrize("name", VIEW_DEGREES)
def test_a_thin_still_view_shows_the_heart_where_it_lies(heart, name):
    (view,) = simulate_views(heart, [name], seed=1, acquisition=STILL)
    labels = view.subject.labels
    to_voxel = np.linalg.inv(heart.labels.voxel_to_world)
    nearest = nearest_labels(heart.labels, apply_matrix(to_voxel, world_of(labels)))
    same = nearest.reshape(labels.shape) == labels.array
    assert same[labels.array > 0].mean() > 0.9 and same.mean() > 0.97
    assert (view.shift_mm == 0).all()


def test_all_views_hold_the_axis_and_the_four_chamber_view_the_centre_of_the_rv(heart):
    planned = plan_views(heart.labels)
    assert set(planned) == set(VIEW_DEGREES)
    right = np.argwhere(heart.labels.array == 4).mean(axis=0)
    centre = apply_matrix(heart.labels.voxel_to_world, right[None])[0]
    distances = {}
    for name, axes in planned.items():
        assert axes.first @ axes.second == pytest.approx(0, abs=1e-12)
        normal = np.cross(axes.first, axes.second)
        distances[name] = abs((centre - axes.through_mm) @ normal)
    assert distances["four_chamber"] < 4 < 20 < distances["two_chamber"]


def test_a_shift_is_the_way_from_where_a_view_is_stored_to_where_it_was(heart):
    how = ViewAcquisition(shift_sd_mm=6.0, angle_sd_degrees=0.0, offset_sd_mm=0.0, thickness_mm=1.0)
    (view,) = simulate_views(heart, ["two_chamber"], seed=2, acquisition=how)
    labels = view.subject.labels
    axes = labels.voxel_to_world[:3, :3] / labels.spacing_mm
    true = world_of(labels) + axes @ view.shift_mm
    to_voxel = np.linalg.inv(heart.labels.voxel_to_world)
    array = np.where(heart.labels.array == 3, 0, heart.labels.array)
    seen = nearest_labels(
        type(labels)(array, heart.labels.voxel_to_world), apply_matrix(to_voxel, true)
    ).reshape(labels.shape)
    stored = labels.array > 0
    assert np.abs(view.shift_mm[:2]).max() > 2 and view.shift_mm[2] == 0
    assert (seen == labels.array)[stored].mean() > 0.9


def test_a_view_does_not_depend_on_the_others_and_leaves_the_rv_wall_out(heart):
    alone = simulate_views(heart, ["three_chamber"], seed=5)[0]
    together = simulate_views(heart, seed=5)[2]
    np.testing.assert_array_equal(alone.subject.labels.array, together.subject.labels.array)
    np.testing.assert_array_equal(alone.subject.image.array, together.subject.image.array)
    assert 3 not in alone.subject.labels.present()


def test_an_image_shows_the_blood_brighter_than_the_wall(heart):
    (view,) = simulate_views(heart, ["four_chamber"], seed=6)
    image, labels = view.subject.image.array, view.subject.labels.array
    assert np.median(image[labels == 1]) > 1.3 * np.median(image[labels == 2])


def test_unknown_names_and_impossible_options_are_refused(heart):
    with pytest.raises(InvalidInputError, match="five_chamber"):
        simulate_views(heart, ["five_chamber"], seed=1)
    for wrong in ({"thickness_mm": 0.0}, {"shift_sd_mm": -1.0}):
        with pytest.raises(InvalidInputError, match="standard deviation"):
            ViewAcquisition(**wrong)
