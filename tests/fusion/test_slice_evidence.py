"""What slices say in fusion: where it lies, how it fades, and that doubt leaves the atlases to decide."""

import numpy as np
import pytest

from cardiacreg.fusion.slice_evidence import add_slice_evidence
from cardiacreg.transforms.resampling import Lattice

TARGET = np.diag([2.0, 2.0, 8.0, 1.0])


def lattice():
    matrix = np.diag([1.0, 1.0, 2.0, 1.0])
    matrix[:3, 3] = (-1.0, 3.0, -4.0)
    return Lattice((30, 26, 17), matrix)


def spread(probabilities, shifts=None, weight=1.0):
    votes = np.zeros((*lattice().shape, 5), np.float32)
    votes[..., 0] = 5
    moved = np.zeros((probabilities.shape[3], 2)) if shifts is None else shifts
    add_slice_evidence(votes, lattice(), probabilities, TARGET, moved, weight)
    votes[..., 0] -= 5
    return votes


def smooth_probabilities():
    i, j, k = np.meshgrid(np.arange(12), np.arange(12), np.arange(3), indexing="ij")
    first = (i + 2 * j + 20 * k).astype(np.float32) / 100
    zero = np.zeros_like(first)
    return np.stack([1 - first, first, zero, zero, zero])


def test_evidence_is_linear_between_voxels_and_slices_and_moves_with_them():
    shifts = np.array([[1.0, 0.0], [0.0, -2.0], [0.5, 0.5]])
    found = spread(smooth_probabilities(), shifts, weight=2.0)
    for point in ((10, 7, 3), (12, 3, 6), (5, 9, 9), (8, 8, 2)):
        world = lattice().voxel_to_world @ [*point, 1]
        expected = 0.0
        for k in range(3):
            share = max(0.0, 1 - abs(world[2] / 8 - k))
            at = (world[:2] - shifts[k]) / 2
            expected += share * (at[0] + 2 * at[1] + 20 * k) / 100
        assert found[(*point, 1)] == pytest.approx(2.0 * 5 * expected, rel=1e-4)


def test_nothing_is_said_outside_the_slices_and_it_fades_beyond_the_last_one():
    found = spread(smooth_probabilities())
    total = found.sum(axis=-1)
    assert total[0].max() == 0  # before the first row of pixels
    heights = lattice().voxel_to_world[2, 2] * np.arange(17) + lattice().voxel_to_world[2, 3]
    middle = total[10, 8]
    np.testing.assert_allclose(
        middle, 5 * np.clip(np.minimum(1 + heights / 8, 3 - heights / 8), 0, 1)
    )


def test_a_hesitating_slice_leaves_the_decision_to_the_atlases():
    shape = (12, 12, 3)
    unsure, sure = np.zeros((5, *shape), np.float32), np.zeros((5, *shape), np.float32)
    unsure[1], unsure[2] = 0.55, 0.45
    sure[1] = 1
    for probabilities, wins in ((unsure, 2), (sure, 1)):
        votes = np.zeros((*lattice().shape, 5), np.float32)
        votes[..., 2], votes[..., 1] = 3, 2
        add_slice_evidence(votes, lattice(), probabilities, TARGET, np.zeros((3, 2)))
        assert votes[10, 8, 6].argmax() == wins
