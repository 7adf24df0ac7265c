import numpy as np
import pytest

from cardiacreg import Affine, LabelMap
from cardiacreg.registration.ffd_registration import RegistrationOptions, prepare_target
from cardiacreg.registration.label_affine import improve_affine
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
