# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Joint label counts of a target and an atlas, optionally through an affine look-up.

The counts serve atlas selection (NMI), label consistency and Dice alike: integers, no rounding
questions, no warped copy, no start-up cost.
"""

import numpy as np

from libc.math cimport floor

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
        int64 (256, 256), target label by atlas label.
    """
    counts_array = np.zeros((256, 256), dtype=np.int64)
    cdef long long[:, ::1] counts = counts_array
    cdef Py_ssize_t n, i, j, k
    cdef Py_ssize_t ni = atlas.shape[0], nj = atlas.shape[1], nk = atlas.shape[2]
    cdef double x, y, z
    cdef uint8 label
    cdef double m00 = matrix[0, 0], m01 = matrix[0, 1], m02 = matrix[0, 2], m03 = matrix[0, 3]
    cdef double m10 = matrix[1, 0], m11 = matrix[1, 1], m12 = matrix[1, 2], m13 = matrix[1, 3]
    cdef double m20 = matrix[2, 0], m21 = matrix[2, 1], m22 = matrix[2, 2], m23 = matrix[2, 3]
    with nogil:
        for n in range(target.shape[0]):
            x = points[n, 0]
            y = points[n, 1]
            z = points[n, 2]
            i = <Py_ssize_t>floor(m00 * x + m01 * y + m02 * z + m03 + 0.5)
            j = <Py_ssize_t>floor(m10 * x + m11 * y + m12 * z + m13 + 0.5)
            k = <Py_ssize_t>floor(m20 * x + m21 * y + m22 * z + m23 + 0.5)
            label = 0
            if 0 <= i < ni and 0 <= j < nj and 0 <= k < nk:
                label = atlas[i, j, k]
            counts[target[n], label] += 1
    return counts_array
