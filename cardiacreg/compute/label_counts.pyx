# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Joint label counts of a target and an atlas, optionally through an affine look-up.

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
    cdef Py_ssize_t n, i, j, k, half
    cdef Py_ssize_t ni = atlas.shape[0], nj = atlas.shape[1], nk = atlas.shape[2]
    cdef Py_ssize_t total = target.shape[0]
    rows = int(np.max(target)) + 1 if total else 1
    counts_array = np.zeros((2, rows, 256), dtype=np.int64)
    cdef long long[:, :, ::1] counts = counts_array
    cdef double x, y, z, u, v, w
    cdef uint8 label
    cdef double m00 = matrix[0, 0], m01 = matrix[0, 1], m02 = matrix[0, 2], m03 = matrix[0, 3]
    cdef double m10 = matrix[1, 0], m11 = matrix[1, 1], m12 = matrix[1, 2], m13 = matrix[1, 3]
    cdef double m20 = matrix[2, 0], m21 = matrix[2, 1], m22 = matrix[2, 2], m23 = matrix[2, 3]
    with nogil:
        for n in range(total):
            x = points[n, 0]
            y = points[n, 1]
            z = points[n, 2]
            u = m00 * x + m01 * y + m02 * z + m03 + 0.5
            v = m10 * x + m11 * y + m12 * z + m13 + 0.5
            w = m20 * x + m21 * y + m22 * z + m23 + 0.5
            label = 0
            if u >= 0 and v >= 0 and w >= 0 and u < ni and v < nj and w < nk:
                i, j, k = <Py_ssize_t>u, <Py_ssize_t>v, <Py_ssize_t>w
                label = atlas[i, j, k]
            half = n & 1
            counts[half, target[n], label] += 1
    return counts_array.sum(axis=0)
