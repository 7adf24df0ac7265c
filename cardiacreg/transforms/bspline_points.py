"""A spline and its slopes at scattered points, where no lattice allows separable evaluation."""

from __future__ import annotations

import numpy as np

from cardiacreg.arrays import Float
from cardiacreg.compute.jit import kernel


def spline_at_points(positions: Float, coefficients: Float) -> tuple[Float, Float]:
    """Return a cubic B-spline of vectors, and its slopes, at scattered positions.

    Parameters
    ----------
    positions : ndarray, shape (n, 3)
        In control-point indices.
    coefficients : ndarray, shape (na, nb, nc, 3)
        Control points beyond the lattice count as zero.

    Returns
    -------
    values : ndarray, shape (n, 3)
    slopes : ndarray, shape (n, 3, 3)
        Component by axis, per control point.
    """
    values, slopes = np.zeros((len(positions), 3)), np.zeros((len(positions), 3, 3))
    _spline_at_points(
        np.ascontiguousarray(positions, dtype=np.float64),
        np.array(coefficients, dtype=np.float64, order="C"),
        values,
        slopes,
    )
    return values, slopes


# ---------------------------------------------------------------------------------------------- kernels


@kernel
def _spline_at_points(positions, coefficients, values, slopes):
    """Spline and its slopes per control point at scattered positions in control-point indices."""
    weight, slope = np.empty((3, 4)), np.empty((3, 4))
    first = np.empty(3, np.int64)
    for n in range(positions.shape[0]):
        near = True
        for axis in range(3):
            p = positions[n, axis]
            near = near and -2.0 < p < coefficients.shape[axis] + 1.0
            if near:
                lower = np.floor(p)
                t = p - lower
                s = 1.0 - t
                first[axis] = int(lower) - 1
                weight[axis, 0], weight[axis, 3] = s * s * s / 6, t * t * t / 6
                weight[axis, 1] = 2 / 3 - t * t * (1 - t / 2)
                weight[axis, 2] = 2 / 3 - s * s * (1 - s / 2)
                slope[axis, 0], slope[axis, 3] = -s * s / 2, t * t / 2
                slope[axis, 1], slope[axis, 2] = t * (1.5 * t - 2), s * (2 - 1.5 * s)
        if near:
            _add_taps(coefficients, first, weight, slope, values[n], slopes[n])


@kernel
def _add_taps(coefficients, first, weight, slope, value, gradient):
    """The up to 64 control points around one position; those outside the lattice count as zero."""
    na, nb, nc = coefficients.shape[:3]
    for a in range(max(0, -first[0]), min(4, na - first[0])):
        for b in range(max(0, -first[1]), min(4, nb - first[1])):
            both, da = weight[0, a] * weight[1, b], slope[0, a] * weight[1, b]
            db = weight[0, a] * slope[1, b]
            for c in range(max(0, -first[2]), min(4, nc - first[2])):
                point = coefficients[first[0] + a, first[1] + b, first[2] + c]
                for d in range(3):
                    value[d] += both * weight[2, c] * point[d]
                    gradient[d, 0] += da * weight[2, c] * point[d]
                    gradient[d, 1] += db * weight[2, c] * point[d]
                    gradient[d, 2] += both * slope[2, c] * point[d]
