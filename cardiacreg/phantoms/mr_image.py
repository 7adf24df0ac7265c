"""An MR-like image of a synthetic heart: blood, muscle, fat, lung, liver and chest wall.

Intensities imitate a balanced steady-state free precession cine: signal by tissue with partial
volume, papillary muscles and trabeculae inside the cavities (which the labels count as cavity), a
smooth coil sensitivity and Rician noise. Only the heart is anatomical; its surroundings are plain
regions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cardiacreg.phantoms.anatomy import HeartFields

BLOOD, MUSCLE, FAT, LUNG, LIVER, CHEST = 205.0, 80.0, 170.0, 14.0, 105.0, 125.0
_PAPILLARY_AZIMUTHS = (-2.3, 2.5)
_Field = NDArray[np.float32]


def render_image(
    fields: HeartFields,
    fractions: dict[str, _Field],
    axes_mm: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    rng: np.random.Generator,
) -> _Field:
    """Render an image of a heart and what surrounds it.

    Parameters
    ----------
    fields : HeartFields
        Signed distances in mm on the grid of `axes_mm`.
    fractions : dict of str to ndarray
        Share of each structure per voxel, as from `structure_fractions`.
    axes_mm : tuple of three ndarrays
        World coordinates along x, y and z in mm, origin at the mitral centre.
    rng : numpy.random.Generator
        Source of texture, bias and noise.

    Returns
    -------
    ndarray of float32, shape (i, j, k)
        Intensities, mostly from 0 to 255.
    """
    grid = tuple(
        axis.astype(np.float32).reshape([-1 if axis_of == n else 1 for axis_of in range(3)])
        for n, axis in enumerate(axes_mm)
    )
    contrast = np.float32(rng.uniform(0.85, 1.1))
    blood = np.float32(BLOOD) * contrast
    cavity = fractions["lv_cavity"] + fractions["rv_cavity"]
    muscle = fractions["lv_wall"] + fractions["rv_wall"]
    lumen_muscle = cavity * _inner_muscle(fields, grid, rng)
    outside = np.clip(1 - cavity - muscle, 0, 1)
    signal = blood * (cavity - lumen_muscle) + np.float32(MUSCLE) * (muscle + lumen_muscle)
    signal += outside * _surroundings(fields, grid, blood, rng)
    signal = gaussian_filter(signal, (0.35, 0.35, 0.2))
    signal *= _bias(grid, rng)
    return _rician(signal, np.float32(rng.uniform(4.0, 10.0)), rng)


def _soft(distance: _Field, width_mm: float) -> _Field:
    """1 well inside a surface, 0 well outside, linear over a width."""
    share: _Field = np.float32(0.5) - distance / np.float32(width_mm)
    return np.asarray(np.clip(share, 0, 1))


def _texture(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> _Field:
    """Smooth noise of unit variance."""
    noise = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma)
    return np.asarray(noise / noise.std(), dtype=np.float32)


def _inner_muscle(
    fields: HeartFields, grid: tuple[_Field, ...], rng: np.random.Generator
) -> _Field:
    """Share of papillary muscle and trabeculae among the cavity's voxels."""
    shape = fields.endocardium.shape
    azimuth = np.arctan2(-grid[1], -grid[0])
    low = float(grid[2].min())
    height = np.clip(1 - np.abs((grid[2] - 0.6 * low) / (0.28 * low)), 0, 1)
    depth = np.clip(1 - np.abs(fields.endocardium + 7.0) / 5.0, 0, 1)
    papillary = np.zeros(shape, dtype=np.float32)
    for centre in _PAPILLARY_AZIMUTHS:
        turn = np.angle(np.exp(1j * (azimuth - centre))).astype(np.float32)
        papillary = np.maximum(papillary, np.clip(1 - np.abs(turn) / np.float32(0.45), 0, 1))
    papillary = np.clip(4.0 * papillary * depth * height - 0.3, 0, 1)
    web = np.clip(_texture(shape, 1.3, rng) - 0.8, 0, 1)
    near_rv = _soft(-fields.rv_body - 7.0, 6.0) * (fields.epicardium > 0)
    near_lv = _soft(-fields.endocardium - 4.0, 3.0) * (fields.endocardium < 0)
    muscle = papillary + web * np.maximum(near_rv, near_lv)
    return np.asarray(np.clip(muscle, 0, 0.9), dtype=np.float32)


def _surroundings(
    fields: HeartFields, grid: tuple[_Field, ...], blood: np.float32, rng: np.random.Generator
) -> _Field:
    """Signal outside the ventricles: lung, liver, chest wall, epicardial fat, atria and vessels."""
    x, y, z = grid
    wave = 3.0 * _texture(fields.roof.shape, 6.0, rng)
    low = float(z.min())
    liver = _soft(-(y - 18.0 - 0.45 * (z - 0.6 * low) * -1.0 - 0.3 * x) + 20.0 + wave, 4.0)
    chest = _soft(y + 48.0 + 0.25 * x + wave, 4.0)
    signal = np.float32(LUNG) * (1 + 0.3 * _texture(fields.roof.shape, 1.0, rng))
    signal = signal + (np.float32(LIVER) - signal) * liver
    signal = signal + (np.float32(CHEST) - signal) * chest
    distance = np.minimum(fields.epicardium, fields.rv_body)
    thickness = np.clip(3.0 + wave + 0.04 * z, 0.5, 9.0)
    signal = signal + (np.float32(FAT) - signal) * _soft(distance - thickness, 2.0)
    atrium = _soft(np.maximum(fields.endocardium + 1.0, -fields.mitral), 1.5)
    vessels = _soft(np.maximum(np.maximum(fields.rv_body, -fields.roof), fields.valves), 1.5)
    pool = np.maximum(atrium, vessels)
    return np.asarray(signal + (blood - signal) * pool, dtype=np.float32)


def _bias(grid: tuple[_Field, ...], rng: np.random.Generator) -> _Field:
    """Return a smooth factor about 1: a random slope and curvature over 100 mm."""
    factor = np.ones((1, 1, 1), dtype=np.float32)
    for axis in grid:
        slope, bend = rng.uniform(-0.15, 0.15), rng.uniform(-0.1, 0.1)
        scaled = axis / np.float32(100.0)
        factor = factor * (1 + np.float32(slope) * scaled + np.float32(bend) * scaled * scaled)
    return np.asarray(factor, dtype=np.float32)


def _rician(signal: _Field, sigma: np.float32, rng: np.random.Generator) -> _Field:
    """Magnitude of the signal with complex normal noise."""
    real = signal + sigma * rng.standard_normal(signal.shape, dtype=np.float32)
    imaginary = sigma * rng.standard_normal(signal.shape, dtype=np.float32)
    return np.asarray(np.hypot(real, imaginary), dtype=np.float32)
