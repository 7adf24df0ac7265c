import numpy as np
from hypothesis import given, strategies as st

from cardiacreg.compute.label_counts import joint_counts_affine, labels_affine


def _case(seed):
    rng = np.random.default_rng(seed)
    atlas = rng.integers(0, 5, (6, 5, 4), dtype=np.uint8)
    matrix = np.eye(4)
    matrix[:3] += rng.normal(scale=0.2, size=(3, 4))
    points = rng.uniform(-2, 7, (200, 3)).astype(np.float32)
    return atlas, matrix, points, rng.integers(0, 3, 200).astype(np.uint8)


@given(st.integers(0, 10_000))
def test_labels_at_points_are_those_of_the_nearest_voxels(seed):
    atlas, matrix, points, _ = _case(seed)
    expected = []
    for point in points.astype(np.float64):
        i, j, k = np.floor(matrix[:3, :3] @ point + matrix[:3, 3] + 0.5).astype(int)
        inside = all(0 <= n < size for n, size in zip((i, j, k), atlas.shape, strict=True))
        expected.append(atlas[i, j, k] if inside else 0)
    found = labels_affine(points, atlas, np.ascontiguousarray(matrix[:3]))
    np.testing.assert_array_equal(found, expected)


@given(st.integers(0, 10_000))
def test_counts_are_those_of_the_labels_at_the_points(seed):
    atlas, matrix, points, own = _case(seed)
    rows = np.ascontiguousarray(matrix[:3])
    counts = joint_counts_affine(own, points, atlas, rows)
    found = labels_affine(points, atlas, rows)
    for label in range(counts.shape[0]):
        expected = np.bincount(found[own == label], minlength=256)
        np.testing.assert_array_equal(counts[label], expected)
