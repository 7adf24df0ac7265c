"""Tables of radii by polar angle (0 at the apex) and azimuth: mean profiles and random deviations."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.special import gammaln, lpmv

from cardiacreg.arrays import Float
from cardiacreg.phantoms.published_measures import VARIATION_ANGLES, VARIATION_LENGTH_DEGREES

N_POLAR, N_AZIMUTH = 73, 144


def radius_table(profile_mm: Float) -> Float:
    """Return the radii (73, 144) by polar angle and azimuth of a profile of spherical harmonics."""
    basis = _harmonics()[:, : len(profile_mm)]
    return np.asarray((basis @ profile_mm).reshape(N_POLAR, N_AZIMUTH))


def random_deviation(
    rng: np.random.Generator, deviation_mm: tuple[tuple[float, ...], ...]
) -> Float:
    """Return a smooth random change of radii (73, 144).

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the draws.
    deviation_mm : tuple of tuples
        Standard deviations by polar angle (`VARIATION_ANGLES`) and order, 0 to 3.

    Returns
    -------
    ndarray, shape (73, 144), float64
        Sum of waves around the axis, whose amplitudes change smoothly from apex to base.
    """
    sizes = np.array(deviation_mm)
    knots = np.array(VARIATION_ANGLES)
    lag = (knots[:, None] - knots) / VARIATION_LENGTH_DEGREES
    root = np.linalg.cholesky(np.exp(-0.5 * lag * lag) + 1e-6 * np.eye(len(knots)))
    polar, azimuth = table_angles()
    angles = np.clip(np.degrees(polar[:, 0]), knots[0], knots[-1])
    total = np.zeros(polar.shape)
    for order in range(sizes.shape[1]):
        for wave in (np.cos(order * azimuth), np.sin(order * azimuth))[: 1 + (order > 0)]:
            draw = root @ np.clip(rng.standard_normal(len(knots)), -2.2, 2.2)
            amplitude = PchipInterpolator(knots, sizes[:, order] * draw)(angles)
            total += amplitude[:, None] * wave
    return total


@lru_cache(maxsize=1)
def table_angles() -> tuple[Float, Float]:
    """Return polar angle and azimuth (-pi to pi) of every table entry, each (73, 144)."""
    polar = np.linspace(0.0, np.pi, N_POLAR)
    azimuth = np.arange(N_AZIMUTH) * (2.0 * np.pi / N_AZIMUTH)
    azimuth = np.where(azimuth > np.pi, azimuth - 2.0 * np.pi, azimuth)
    return polar[:, None] + 0.0 * azimuth, azimuth[None, :] + 0.0 * polar[:, None]


@lru_cache(maxsize=1)
def _harmonics() -> Float:
    """Real spherical harmonics up to degree 8 over the table, each of unit mean square."""
    polar, azimuth = (angle.ravel() for angle in table_angles())
    columns = []
    for degree in range(9):
        for order in range(-degree, degree + 1):
            m = abs(order)
            norm = (2 * degree + 1) * np.exp(gammaln(degree - m + 1) - gammaln(degree + m + 1))
            wave = np.sin(m * azimuth) if order < 0 else np.cos(m * azimuth)
            column = np.sqrt(norm * (2.0 if m else 1.0)) * lpmv(m, degree, np.cos(polar)) * wave
            columns.append(column)
    return np.stack(columns, axis=1)
