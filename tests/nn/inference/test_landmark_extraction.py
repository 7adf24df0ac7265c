"""Six points from probabilities: the largest cluster, finer than a voxel, with what speaks for it."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from cardiacreg_nn.inference.landmark_extraction import extract_landmarks, regressed_landmarks


def cloud(centre, shape=(8, 20, 20), width=1.5, classes=3, number=1):
    """Probabilities with a Gaussian cloud of one class."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    squared = ((grid - centre) ** 2).sum(axis=-1)
    found = np.zeros((classes, *shape), dtype=np.float32)
    found[number] = 0.95 * np.exp(-squared / (2 * width**2))
    found[0] = 1 - found[number]
    return found


@settings(max_examples=25, deadline=None)
@given(st.floats(2.5, 4.5), st.floats(5, 14), st.floats(5, 14))
def test_the_centre_is_finer_than_a_voxel(k, i, j):
    first, second = extract_landmarks(cloud((k, i, j)), (1.0, 1.0, 1.0))
    assert np.abs(first.position - (k, i, j)).max() < 0.4 and second.missing
    assert 0.5 < first.presence <= 0.951 and 0 < first.spread_mm < 2.5


def test_the_larger_of_two_clusters_counts():
    both = np.maximum(cloud((3, 5, 5), width=2.0), cloud((3, 15, 15), width=0.8))
    both[0] = 1 - both[1]
    assert extract_landmarks(both, (1, 1, 1))[0].position == pytest.approx([3, 5, 5], abs=0.1)


def test_spread_is_in_mm():
    narrow = extract_landmarks(cloud((3, 9, 9)), (1.0, 1.0, 1.0))[0]
    wide = extract_landmarks(cloud((3, 9, 9)), (2.0, 2.0, 2.0))[0]
    assert wide.spread_mm == pytest.approx(2 * narrow.spread_mm)


def test_a_missing_landmark_says_so():
    found = extract_landmarks(cloud((3, 9, 9), number=2), (1, 1, 1))[0]
    assert found.missing and found.presence == 0 and np.isnan(found.position).all()


def test_regressed_shares_become_voxels():
    (corner, middle) = regressed_landmarks(np.array([[-1, -1, 1], [0, 0, 0]]), (9, 33, 17))
    assert corner.position.tolist() == [0, 0, 16] and middle.position.tolist() == [4, 16, 8]
    assert not corner.missing
