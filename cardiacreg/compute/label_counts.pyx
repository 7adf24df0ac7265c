# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Joint label counts of a target and an atlas, also through an affine look-up; that look-up alone.

The counts serve atlas selection (NMI), label consistency and Dice alike: integers, no rounding
questions, no warped copy, no start-up cost.
"""

import numpy as np

ctypedef unsigned char uint8


def joint_counts(const uint8[::1] target, const uint8[::1] atlas):
    """Count label pairs of two flat arrays of the same length; returns int64 (256, 256)."""
    counts_array = np.zeros((256, 256), dtype=np.int64)
    cdef long long[:, ::1] counts = counts_array
    cdef Py_ssize_t n
    with nogil:
        for n in range(target.shape[0]):
            counts[target[n], atlas[n]] += 1
    return counts_array


def joint_counts_affine(
    const uint8[::1] target,
    const float[:, ::1] points,
    const uint8[:, :, ::1] atlas,
    const double[:, ::1] matrix,
):
    """Count label pairs of listed target points and the nearest atlas voxel of each.

    Parameters
    ----------
    target : uint8 (n,)
        Labels of the points.
    points : float32 (n, 3)
        Positions of the points in target voxels.
    atlas : uint8 (i, j, k)
        Atlas labels; outside counts as label 0.
    matrix : float64 (3, 4)
        Target voxel to atlas voxel coordinates.

    Returns
    -------
    numpy.ndarray
        int64 (largest target label + 1, 256), target label by atlas label.

    Notes
    -----
    Positions below zero are outside, so that cutting off the fraction rounds down. Two tables are
    filled in turn, because equal neighbours would otherwise wait for each other's count.
    """
    cdef Py_ssize_t n, half, total = target.shape[0]
    rows = int(np.max(target)) + 1 if total else 1
    counts_array = np.zeros((2, rows, 256), dtype=np.int64)
    cdef long long[:, :, ::1] counts = counts_array
    with nogil:
        for n in range(total):
            half = n & 1
            counts[half, target[n], nearest_label(points, n, atlas, matrix)] += 1
    return counts_array.sum(axis=0)


def labels_affine(
    const float[:, ::1] points, const uint8[:, :, ::1] atlas, const double[:, ::1] matrix
):
    """Label of the nearest atlas voxel of listed target points; arguments as above.

    Returns
    -------
    numpy.ndarray
        uint8 (n,); 0 outside the atlas.
    """
    labels_array = np.empty(points.shape[0], dtype=np.uint8)
    cdef uint8[::1] labels = labels_array
    cdef Py_ssize_t n
    with nogil:
        for n in range(points.shape[0]):
            labels[n] = nearest_label(points, n, atlas, matrix)
    return labels_array


cdef inline uint8 nearest_label(
    const float[:, ::1] points,
    Py_ssize_t n,
    const uint8[:, :, ::1] atlas,
    const double[:, ::1] matrix,
) noexcept nogil:
    """Label of the atlas voxel nearest to one point; 0 outside."""
    cdef double x = points[n, 0], y = points[n, 1], z = points[n, 2]
    cdef double u = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z + matrix[0, 3] + 0.5
    cdef double v = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z + matrix[1, 3] + 0.5
    cdef double w = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z + matrix[2, 3] + 0.5
    if u < 0 or v < 0 or w < 0:
        return 0
    if u >= atlas.shape[0] or v >= atlas.shape[1] or w >= atlas.shape[2]:
        return 0
    return atlas[<Py_ssize_t>u, <Py_ssize_t>v, <Py_ssize_t>w]
