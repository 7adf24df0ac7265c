# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Joint label counts of two label maps: integers, no rounding questions, no start-up cost."""

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
