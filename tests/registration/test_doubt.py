"""Doubtful voxels in the objective: against a slow sum, and certain ones change no bit."""

import numpy as np
import pytest

from cardiacreg import RegistrationOptions
from cardiacreg.registration.prepared_target import prepare_target
from cardiacreg.registration.target_objective import TargetObjective
from cardiacreg.slices import DOUBT_LEVELS, EmptyPlane
from cardiacreg.transforms.atlas_lookup import build_lookup
from cardiacreg.transforms.ffd import lattice_over_box
from tests.registration.test_label_consistency import (
    small_atlas,
    small_target,
    well_conditioned_matrix,
)

OPTIONS = RegistrationOptions(margin_mm=3.0)
PLANES = (EmptyPlane(4.8, 4, (1, 2), 0.5),)


def consistency(target, atlas, affine, doubt, seed=0):
    prepared = prepare_target(target, OPTIONS, empty_planes=PLANES, doubt=doubt)
    samples, codes = prepared.samples, prepared.codes
    objective = TargetObjective(
        prepared, build_lookup(atlas, codes.codes), affine @ samples.axes_to_world, 1
    )
    spacing = np.array([14.0, 11.0, 17.0])
    lower, upper = ([f(p) + d for p in samples.position_mm] for f, d in ((np.min, -6), (np.max, 6)))
    origin, lattice = lattice_over_box(lower, upper, spacing)
    moves = np.random.default_rng(seed).normal(size=(*lattice, 3))
    shifts = np.zeros((len(samples.labels), 2))
    return objective(moves, origin, spacing, shifts), prepared


@pytest.mark.parametrize("seed", range(3))
def test_a_voxel_counts_as_much_as_it_is_certain(seed):
    """The sum is linear in the weights: that of half of the voxels plus that of the others."""
    rng = np.random.default_rng(seed)
    target, atlas, affine = small_target(rng), small_atlas(rng), well_conditioned_matrix(rng)
    chosen = rng.random(target.shape) < 0.5
    level = 12
    parts = []
    for levels in (0, level):
        doubt = np.where(chosen, levels, 0).astype(np.uint8)
        found, prepared = consistency(target, atlas, affine, doubt)
        total = prepared.codes.score.max(axis=1)[prepared.samples.counted()].sum()
        parts.append((found.value * total, found.displacement_gradient * total, total))
    whole, less = parts
    doubt = np.where(chosen, 0, level).astype(np.uint8)
    found, prepared = consistency(target, atlas, affine, doubt)
    total = prepared.codes.score.max(axis=1)[prepared.samples.counted()].sum()
    other = (found.value * total, found.displacement_gradient * total, total)
    kept = 1 - level / DOUBT_LEVELS
    planes = consistency_of_planes(target, atlas, affine)
    for one, two, both, plane in zip(less, other, whole, planes, strict=True):
        np.testing.assert_allclose(
            one + two, (1 + kept) * both + (1 - kept) * plane, rtol=1e-9, atol=1e-9
        )


def consistency_of_planes(target, atlas, affine):
    """What the planes beyond the ends add, which no doubt concerns: all voxels at two levels tell it."""
    sums = []
    for level in (8, 12):
        doubt = np.full(target.shape, level, np.uint8)
        found, prepared = consistency(target, atlas, affine, doubt)
        total = prepared.codes.score.max(axis=1)[prepared.samples.counted()].sum()
        sums.append((found.value * total, found.displacement_gradient * total, total))
    return [2 * second - first for first, second in zip(*sums, strict=True)]


def test_certain_voxels_change_no_bit(seed=1):
    rng = np.random.default_rng(seed)
    target, atlas, affine = small_target(rng), small_atlas(rng), well_conditioned_matrix(rng)
    plain, _ = consistency(target, atlas, affine, None)
    certain, _ = consistency(target, atlas, affine, np.zeros(target.shape, np.uint8))
    assert plain.value == certain.value
    np.testing.assert_array_equal(plain.displacement_gradient, certain.displacement_gradient)


def test_background_does_not_overlap_however_doubtful():
    rng = np.random.default_rng(0)
    target = small_target(rng)
    prepared = prepare_target(
        target, OPTIONS, empty_planes=PLANES, doubt=np.full(target.shape, 3, np.uint8)
    )
    codes = prepared.codes
    labelled = codes.of_structures
    background = [0, codes.first_doubtful + 2]
    assert codes.score[background].any(axis=1).all()
    assert not labelled[background].any()
    assert labelled[codes.first_doubtful + DOUBT_LEVELS - 1 :].any(axis=1).all()
