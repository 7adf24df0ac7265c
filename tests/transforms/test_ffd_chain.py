import dataclasses

import numpy as np
import pytest

from cardiacreg import Affine, InvalidInputError, LabelMap
from cardiacreg.registration.composition import consistency_under
from cardiacreg.registration.ffd_registration import (
    RegistrationOptions,
    StopReason,
    prepare_target,
    register_labels,
)
from cardiacreg.transforms.atlas_lookup import build_lookup
from cardiacreg.transforms.displacement_field import dense_displacement, jacobian_map
from cardiacreg.transforms.ffd import FFD
from cardiacreg.transforms.ffd_chain import FFDChain
from cardiacreg.transforms.inverse import invert_points
from cardiacreg.transforms.resampling import Lattice, warp_labels
from tests.helpers import naive
from tests.helpers.strategies import ball, oblique_matrix, well_conditioned_matrix

RNG_SEED = 5


def link(seed, affine=None, size_mm=2.0):
    rng = np.random.default_rng(seed)
    matrix = oblique_matrix(rng, (12.0, 10.0, 14.0))
    moves = size_mm * rng.normal(size=(6, 5, 6, 3))
    return FFD(affine or Affine.identity(), moves, matrix)


def chain(size_mm=2.0):
    affine = Affine(well_conditioned_matrix(np.random.default_rng(RNG_SEED)))
    return FFDChain((link(1, size_mm=size_mm), link(2, size_mm=size_mm), link(3, affine, size_mm)))


def points(n=40):
    """World points in and around the lattice of the first link."""
    inside = np.random.default_rng(0).uniform(-2, 7, size=(n, 3))
    return Affine(link(1).lattice_to_world).apply(inside)


class TestTransform:
    def test_applies_the_first_link_first(self):
        links = chain().links
        for point in points(15):
            moved = point
            for one in links:
                moved = moved + naive.displacement(
                    one.displacements_mm, one.lattice_to_world, moved
                )
            expected = naive.move(links[-1].affine.matrix, moved)
            np.testing.assert_allclose(chain().apply(point), expected, atol=1e-9)

    def test_gradient_is_exact(self):
        transform, x, step = chain(), points(), 1e-5
        found = transform.displacement_gradient(x)
        for axis in range(3):
            move = step * np.eye(3)[axis]
            slope = (transform.displacement(x + move) - transform.displacement(x - move)) / step / 2
            np.testing.assert_allclose(found[..., axis], slope, atol=1e-6)

    def test_determinants_multiply(self):
        transform = chain()
        grid = Lattice((4, 5, 3), oblique_matrix(np.random.default_rng(1), (6.0, 6.0, 6.0)))
        x = Affine(grid.voxel_to_world).apply(np.moveaxis(np.indices(grid.shape), 0, -1))
        expected = np.linalg.det(np.eye(3) + transform.displacement_gradient(x))
        found = transform.jacobian_determinant(*grid)
        np.testing.assert_allclose(found, expected, rtol=1e-9)
        np.testing.assert_allclose(jacobian_map(transform, grid).array, expected, rtol=1e-5)
        assert transform.minimum_jacobian(*grid) == pytest.approx(expected.min())

    def test_a_chain_of_one_is_that_one(self):
        only = chain().links[-1]
        np.testing.assert_allclose(
            FFDChain((only,)).apply(points()), only.apply(points()), atol=1e-9
        )

    def test_goes_into_a_dense_field_like_any_transform(self):
        grid = Lattice((5, 4, 3), np.diag([3.0, 3.0, 5.0, 1.0]))
        links = chain().links
        np.testing.assert_allclose(
            dense_displacement(chain(), grid).displacements_mm,
            dense_displacement(list(links), grid).displacements_mm,
            atol=1e-4,
        )

    def test_is_inverted_with_a_report(self):
        transform, x = chain(size_mm=0.8), points()
        found = invert_points(transform, transform.apply(x))
        assert found.converged.all()
        assert found.residual_mm.max() < 0.01
        np.testing.assert_allclose(found.points_mm, x, atol=0.01)

    def test_far_points_move_by_the_affine_alone(self):
        far = np.array([1e6, -1e6, 1e6])
        np.testing.assert_allclose(chain().apply(far), chain().affine.apply(far))

    def test_refuses_an_affine_before_a_spline_and_no_links(self):
        with pytest.raises(InvalidInputError, match="FFDChain"):
            FFDChain((chain().links[-1], link(1)))
        with pytest.raises(InvalidInputError, match="FFDChain"):
            FFDChain(())


def wide():
    """Voxels that lie nowhere on those of the target; so wide that composing gains much anywhere."""
    return ball(30.0, 34, 2.83, 0.41)


OPTIONS = RegistrationOptions.dense(8.0)


def register(n, threads=1, target=None, atlas=None):
    options = dataclasses.replace(OPTIONS, compositions=n)
    return register_labels(
        target or ball(8.0, 32, 3.0), atlas or wide(), options=options, threads=threads
    )


def cavity_dice(found):
    target = ball(8.0, 32, 3.0)
    warped = warp_labels(wide(), found.target_to_atlas, target)
    own, other = target.array == 1, warped.array == 1
    return 2 * (own & other).sum() / (own.sum() + other.sum())


@pytest.fixture(scope="module")
def single():
    return register(0)


@pytest.fixture(scope="module")
def composed():
    return register(1)


class TestComposition:
    def test_reaches_what_one_deformation_cannot_without_folding(self, single, composed):
        assert single.folding_limited
        assert isinstance(single.target_to_atlas, FFD)
        assert len(composed.target_to_atlas.links) == 2
        assert composed.consistency_after > single.consistency_after + 0.003
        assert cavity_dice(composed) > cavity_dice(single) + 0.2
        assert 0 < composed.minimum_jacobian < single.minimum_jacobian

    def test_reports_the_whole_map(self, single, composed):
        target, first = ball(8.0, 32, 3.0), composed.target_to_atlas.links[0]
        ijk = np.argwhere(target.array == 1)
        x = Affine(target.voxel_to_world).apply(ijk)
        values = np.linalg.det(np.eye(3) + composed.target_to_atlas.displacement_gradient(x))
        assert values.min() >= composed.minimum_jacobian - 0.02
        assert composed.iterations[: len(single.iterations)] == single.iterations
        assert composed.consistency_before == single.consistency_before
        np.testing.assert_array_equal(first.affine.matrix, np.eye(4))

    def test_consistency_under_a_transform_is_that_of_the_registration(self):
        options = dataclasses.replace(OPTIONS, estimate_shifts=True, class_weights=((2, 3.0),))
        target, atlas = ball(8.0, 32, 3.0), wide()
        found = register_labels(target, atlas, options=options)
        prepared = prepare_target(target, options)
        cells = build_lookup(atlas, prepared.codes.codes)
        same = consistency_under(prepared, cells, found.target_to_atlas, found.slice_shifts_mm)
        assert found.slice_shifts_mm.any()
        assert same == pytest.approx(found.consistency_after, abs=1e-12)

    def test_nothing_is_composed_where_nothing_held_back(self):
        options = dataclasses.replace(OPTIONS, compositions=3, bending_weight=3.0)
        found = register_labels(ball(8.0, 32, 3.0), ball(9.0, 34, 2.83, 0.41), options=options)
        assert not found.folding_limited
        assert isinstance(found.target_to_atlas, FFD)

    def test_far_apart_ends_at_once(self):
        away = wide()
        moved = np.array(away.voxel_to_world)
        moved[0, 3] += 900
        found = register(2, atlas=LabelMap(away.array, moved))
        assert found.stop_reason is StopReason.NO_OVERLAP
        assert isinstance(found.target_to_atlas, FFD)

    @pytest.mark.parametrize("threads", [2, 7])
    def test_bits_do_not_depend_on_threads(self, composed, threads, monkeypatch):
        monkeypatch.setattr("cardiacreg.registration.label_consistency._VOXELS_WORTH_THREADS", 1)
        found = register(1, threads=threads)
        pairs = zip(found.target_to_atlas.links, composed.target_to_atlas.links, strict=True)
        for one, other in pairs:
            np.testing.assert_array_equal(one.displacements_mm, other.displacements_mm)
        assert found.consistency_after == composed.consistency_after

    @pytest.mark.parametrize("number", [-1, 17])
    def test_an_impossible_number_is_refused(self, number):
        with pytest.raises(InvalidInputError, match="compositions"):
            RegistrationOptions(compositions=number)
