import numpy as np
import pytest

from cardiacreg import Affine, LabelMap, landmarks_from_labels
from cardiacreg.geometry import RV_WALL
from cardiacreg.phantoms.long_axis_views import simulate_views
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.registration.ffd_registration import RegistrationOptions, prepare_target
from cardiacreg.registration.label_affine import AffineImprover, improve_affine
from cardiacreg.registration.target_objective import TargetObjective
from cardiacreg.registration.view_samples import ViewPlane
from cardiacreg.transforms.atlas_lookup import build_lookup
from tests.helpers import naive
from tests.helpers.tiny_bank import tiny_atlas, tiny_target

OPTIONS = RegistrationOptions(spacings_mm=(32.0,), strides=(1,), iterations=(5,))


def consistency(target, atlas, affine, stride=41):
    reach = np.ceil(OPTIONS.margin_mm / target.spacing_mm[:2] - 1e-6)
    voxels = naive.counted_voxels(target.array, reach)[::stride]
    samples = naive.slice_samples(target.array, target.voxel_to_world, voxels, np.zeros((8, 2)))
    weights = dict(OPTIONS.class_weights)
    return naive.label_consistency(
        samples, atlas.array, atlas.voxel_to_world, lambda p: naive.move(affine.matrix, p), weights
    )


def disturbed(seed, *, linear=0.08, shift_mm=5.0):
    rng, matrix = np.random.default_rng(seed), np.eye(4)
    matrix[:3, :3] += linear * rng.uniform(-1, 1, size=(3, 3))
    matrix[:3, 3] = shift_mm * rng.uniform(-1, 1, size=3)
    return Affine(matrix)


@pytest.mark.parametrize("seed", range(3))
def test_gains_consistency_from_a_disturbed_start(seed):
    target, atlas, start = tiny_target().labels, tiny_atlas(0).labels, disturbed(seed)
    found = improve_affine(prepare_target(target, OPTIONS), atlas, start, stride=1)
    assert consistency(target, atlas, found) > consistency(target, atlas, start) + 0.02


def test_recovers_a_known_affine_from_a_disturbed_start():
    target = tiny_atlas(1).labels
    moved = Affine(np.array([[0, -1.1, 0, 30], [1, 0, 0, -20], [0, 0.1, 0.9, 5], [0, 0, 0, 1]]))
    atlas = LabelMap(target.array, moved.matrix @ target.voxel_to_world)
    start = moved.compose(disturbed(4, linear=0.04, shift_mm=3.0))
    prepared = prepare_target(target, OPTIONS)
    found = improve_affine(prepared, atlas, start, stride=1, iterations=100)
    points = np.argwhere(target.array)[::50] @ target.voxel_to_world[:3, :3].T
    points = points + target.voxel_to_world[:3, 3]

    def error_mm(affine):
        return np.linalg.norm(affine.apply(points) - moved.apply(points), axis=1).mean()

    assert error_mm(found) < 0.3 * error_mm(start)


def test_without_iterations_the_start_is_returned():
    target, start = tiny_target().labels, disturbed(5)
    found = improve_affine(
        prepare_target(target, OPTIONS), tiny_atlas(0).labels, start, iterations=0
    )
    np.testing.assert_allclose(found.matrix, start.matrix, atol=1e-12)


def test_without_overlap_the_start_is_returned():
    far = Affine(np.array([[1, 0, 0, 900], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]))
    found = improve_affine(prepare_target(tiny_target().labels, OPTIONS), tiny_atlas(0).labels, far)
    np.testing.assert_allclose(found.matrix, far.matrix, atol=1e-9)


def voxelwise(prepared, atlas, shifts):
    """The objective on a lattice of one cell, on which splines are affine: value and twelve slopes."""
    spacing = prepared.upper_mm - prepared.lower_mm
    origin, centre = prepared.lower_mm - spacing, (prepared.lower_mm + prepared.upper_mm) / 2
    ticks = [origin[a] + spacing[a] * np.arange(4) for a in range(3)]
    points = (np.stack(np.meshgrid(*ticks, indexing="ij"), axis=-1) - centre) / spacing
    basis = np.concatenate([points, np.ones((4, 4, 4, 1))], axis=-1)
    cells = build_lookup(atlas, prepared.codes.codes)
    objective = TargetObjective(prepared, cells, prepared.samples.axes_to_world, 2)

    def function(correction):
        moved = np.ascontiguousarray(basis @ correction)
        found = objective(moved, origin, spacing, shifts[prepared.shift_index])
        return found.value, np.einsum("abcn,abcd->nd", basis, found.displacement_gradient)

    return function


@pytest.mark.parametrize("with_views", [False, True])
def test_points_score_as_the_deformation_does(with_views):
    """Value and gradient of listed points, slices and views, moved by shifts, against the splines'."""
    heart, rng = tiny_target().labels, np.random.default_rng(8)
    views = simulate_views(make_toy_heart(), seed=8)[:2] if with_views else []
    planes = [ViewPlane(view.subject.labels, (RV_WALL,)) for view in views]
    prepared = prepare_target(heart, OPTIONS, views=planes)
    shifts = rng.normal(size=(heart.shape[2] + len(views), 2))
    improver = AffineImprover(prepared, shifts_mm=shifts, stride=2)
    expected = voxelwise(prepared, tiny_atlas(0).labels, shifts)
    axes = prepared.samples.axes_to_world
    objective = improver.objective(tiny_atlas(0).labels, axes, np.zeros((13, 13)))
    for _ in range(3):
        correction = rng.normal(scale=3, size=(4, 3))
        found, gradient = objective(correction.ravel())
        value, slopes = expected(correction)
        assert 0 < value < 1
        np.testing.assert_allclose(1 - found, value, rtol=1e-12)
        np.testing.assert_allclose(-gradient.reshape(4, 3), slopes, rtol=1e-9, atol=1e-12)


def test_landmarks_pull_by_their_mean_squared_distance():
    """The quadratic of a correction is what the moved landmarks say."""
    target, start, rng = tiny_target().labels, disturbed(6), np.random.default_rng(6)
    prepared = prepare_target(target, OPTIONS)
    improver, axes = AffineImprover(prepared), prepared.samples.axes_to_world
    pair = landmarks_from_labels(target), landmarks_from_labels(tiny_atlas(0).labels)
    found = improver._landmark_term(pair, 0.02, start.matrix @ axes)
    extent = prepared.upper_mm - prepared.lower_mm
    centre = (prepared.lower_mm + prepared.upper_mm) / 2
    local = (pair[0].points_mm - axes[:3, 3]) @ axes[:3, :3]

    def value(x):
        moved = local + np.column_stack([(local - centre) / extent, np.ones(6)]) @ x.reshape(4, 3)
        apart = start.apply(moved @ axes[:3, :3].T + axes[:3, 3]) - pair[1].points_mm
        return 0.02 * (apart**2).sum(axis=1).mean()

    for _ in range(3):
        x = rng.normal(scale=4, size=12)
        y = np.append(x, 1.0)
        np.testing.assert_allclose(y @ found @ y, value(x), rtol=1e-9)
        np.testing.assert_allclose(found, found.T, rtol=1e-12)


def test_gradient_is_the_slope_of_the_objective_with_landmarks():
    target, rng = tiny_target().labels, np.random.default_rng(7)
    improver = AffineImprover(prepare_target(target, OPTIONS))
    anchor = rng.normal(scale=1e-4, size=(13, 13))
    to_atlas = disturbed(7).matrix @ prepare_target(target, OPTIONS).samples.axes_to_world
    objective = improver.objective(tiny_atlas(0).labels, to_atlas, anchor + anchor.T)
    x, way = rng.normal(scale=2, size=(2, 12))
    slope = (objective(x + 1e-5 * way)[0] - objective(x - 1e-5 * way)[0]) / 2e-5
    np.testing.assert_allclose(objective(x)[1] @ way, slope, rtol=1e-4)
