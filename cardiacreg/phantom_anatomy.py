"""Geometry of one synthetic bi-ventricular heart: named measures in, signed distance fields out.

The heart frame has its origin at the centre of the mitral valve; x runs from the right to the left
ventricle, y from anterior to inferior and z from apex to base, in mm, for a heart whose left ventricle
is `REFERENCE_LENGTH_MM` long. Three closed surfaces are star-shaped about a centre of their own: LV
endocardium, LV epicardium and the RV body, a blob that overlaps the LV, so that the RV cavity is what
the LV leaves of it. The RV is closed by a roof that runs from the tricuspid to the pulmonary plane.

The profiles below are means and standard deviations, rounded, of measures taken from 20 adult
end-diastolic anatomies (the healthy cohort of Rodero et al., PLOS Comput Biol 17(4):e1008851, 2021),
each scaled to the reference length. A radius profile is a sum of real spherical harmonics, by degree
l = 0, 1, ... and within a degree by order m = -l..l (m < 0: sine, towards anterior; m > 0: cosine,
towards the septum for the LV and the free wall for the RV).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import map_coordinates
from scipy.special import gammaln, lpmv

REFERENCE_LENGTH_MM = 90.0
LV_CENTRE_MM = (0.0, 0.0, -36.0)
LV_AXIAL_STRETCH = 2.0
VARIATION_DEGREE = 3

# Radius of the LV epicardium, the LV wall (epicardium minus endocardium) and the RV body in mm, about
# their centres; along z the LV radii count in units of LV_AXIAL_STRETCH mm.
LV_EPICARDIUM_MM = (
    *(32.7,),
    *(-1.5, -2.8, 1.9),
    *(0.4, -0.3, -0.6, 0.1, -0.8),
    *(-0.1, 0.0, 0.4, -0.1, -0.7, 0.0, 0.2),
    *(0.0, 0.1, 0.2, 0.3, 0.6, 0.2, 0.3, 0.1, 0.0),
    *(0.0, 0.0, -0.1, -0.2, -0.1, -0.4, 0.1, -0.1, -0.1, -0.1, 0.0),
)
LV_EPICARDIUM_SD_MM = (
    *(1.1,),
    *(0.7, 0.2, 0.5),
    *(0.3, 0.4, 0.8, 0.3, 0.4),
    *(0.1, 0.2, 0.4, 0.3, 0.3, 0.2, 0.1),
)
LV_WALL_MM = (
    *(7.8,),
    *(0.2, -0.6, -0.3),
    *(0.2, 0.3, -1.8, -0.2, 0.1),
    *(-0.1, -0.3, -0.1, -0.1, 0.3, 0.0, 0.1),
    *(0.1, 0.0, 0.0, -0.1, 0.5, -0.3, 0.0, 0.0, -0.1),
    *(0.0, 0.0, 0.2, 0.0, 0.0, -0.5, 0.0, 0.0, -0.1, 0.0, 0.0),
)
LV_WALL_SD_MM = (
    *(0.9,),
    *(0.4, 0.3, 0.3),
    *(0.2, 0.2, 0.5, 0.4, 0.2),
    *(0.2, 0.2, 0.2, 0.2, 0.3, 0.1, 0.1),
)
RV_BODY_MM = (
    *(33.8,),
    *(0.8, -0.9, 0.6),
    *(-0.7, 0.8, 1.4, 2.8, -3.7),
    *(1.2, -0.1, 1.3, 0.4, 1.0, 1.4, -1.8),
    *(0.6, -0.3, 1.0, -0.4, 0.4, 1.2, 0.2, -0.2, -0.8),
    *(0.1, -0.1, 0.5, -0.4, 0.4, -1.1, 0.2, 0.4, 0.2, -0.8, -0.1),
    *(0.1, 0.1, 0.2, -0.1, 0.3, 0.1, 0.0, -0.2, 0.3, 0.1, 0.1, -0.4, 0.1),
)
RV_BODY_SD_MM = (
    *(1.3,),
    *(0.6, 0.5, 0.4),
    *(1.0, 0.5, 0.8, 1.1, 0.9),
    *(0.5, 0.2, 0.5, 0.3, 0.3, 0.4, 0.5),
)
# Positions relative to the mitral centre, mm: RV centre, tricuspid and pulmonary valve centres.
RV_CENTRE_MM, RV_CENTRE_SD_MM = (-40.4, -2.5, -36.1), (2.0, 1.7, 4.4)
TRICUSPID_MM, TRICUSPID_SD_MM = (-43.2, 14.7, -9.4), (2.2, 1.5, 4.8)
PULMONARY_MM, PULMONARY_SD_MM = (-31.1, -42.1, -9.5), (2.4, 2.9, 6.5)
# Height of the RV roof over the straight line from the tricuspid (0) to the pulmonary centre (1).
ROOF_POSITIONS = (-0.40, -0.15, 0.10, 0.35, 0.55, 0.75, 0.90, 1.10)
ROOF_MM = (-1.5, -0.4, 0.1, 1.9, -6.1, -3.1, 4.9, -5.0)
ROOF_SD_MM = (2.9, 0.8, 1.4, 1.9, 2.0, 1.7, 1.1, 2.4)
# Its rise per mm along x, off that line, at four places on it.
ROOF_SLOPE_POSITIONS = (-0.40, 0.10, 0.55, 0.90)
ROOF_SLOPE, ROOF_SLOPE_SD = (-0.06, 0.10, -0.18, -0.11), (0.25, 0.10, 0.12, 0.15)
# Height of the lowest RV cavity over the LV's epicardial apex; opening radii of the two RV valves.
RV_APEX_OFFSET_MM, RV_APEX_OFFSET_SD_MM = 7.0, 2.6
TRICUSPID_RADIUS_MM, PULMONARY_RADIUS_MM = 17.0, 12.0
_RIM_MM = 5.0

_N_POLAR, _N_AZIMUTH = 73, 144
_FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class HeartShape:
    """The measures of one heart, for the reference length; `scale` then sets its size.

    Parameters
    ----------
    scale : float
        Isotropic size; 1 is a left ventricle of `REFERENCE_LENGTH_MM`.
    elongation : float
        Further factor along the long axis; below 1 at end-systole, when the base descends.
    endocardium_factor, wall_factor, rv_factor, rv_wall_mm : float
        Radial factors of LV cavity, LV wall and RV free side; RV wall thickness in mm, as it is.
    septal_flattening_mm : float
        Depth by which the septum is pushed towards the LV.
    endocardium_mm, wall_mm, rv_body_mm : ndarray, shape (73, 144), float64
        Radii by polar angle (0 at the apex) and azimuth (0 towards septum or RV free wall).
    rv_centre_mm, tricuspid_mm, pulmonary_mm : ndarray, shape (3,), float64
        Positions in the heart frame, before `scale` and `elongation`.
    rv_apex_offset_mm : float
        Least height of the RV cavity over the LV apex, before `scale`.
    roof_mm, roof_slope : ndarray, shape (8,) and (4,), float64
        Height of the RV roof at `ROOF_POSITIONS`, slope at `ROOF_SLOPE_POSITIONS`.
    mitral_slope : ndarray, shape (2,), float64
        Rise of the mitral plane per mm along x and y.
    """

    scale: float
    elongation: float
    endocardium_factor: float
    wall_factor: float
    rv_factor: float
    rv_wall_mm: float
    septal_flattening_mm: float
    endocardium_mm: _FloatArray
    wall_mm: _FloatArray
    rv_body_mm: _FloatArray
    rv_centre_mm: _FloatArray
    tricuspid_mm: _FloatArray
    pulmonary_mm: _FloatArray
    rv_apex_offset_mm: float
    roof_mm: _FloatArray
    roof_slope: _FloatArray
    mitral_slope: _FloatArray

    def inner_radius_mm(self) -> _FloatArray:
        """Return the LV endocardial radius table, shape (73, 144)."""
        polar, azimuth = _table_angles()
        bulge = np.exp(-((azimuth / np.radians(55.0)) ** 2)) * np.sin(polar) ** 2
        radius: _FloatArray = (
            self.endocardium_factor * self.endocardium_mm - self.septal_flattening_mm * bulge
        )
        return np.asarray(np.maximum(radius, 4.0))

    def outer_radius_mm(self) -> _FloatArray:
        """Return the LV epicardial radius table, shape (73, 144)."""
        return self.inner_radius_mm() + self.wall_factor * self.wall_mm

    def septal_radius_mm(self) -> float:
        """Return the LV epicardial radius towards the RV at the height of the LV centre."""
        return float(self.outer_radius_mm()[_N_POLAR // 2, 0])

    def free_radius_mm(self) -> _FloatArray:
        """Return the RV body radius table; `rv_factor` acts on the free side, not on the septal."""
        polar, azimuth = _table_angles()
        towards_septum = -np.cos(azimuth) * np.sin(polar)
        free_side = np.clip((0.9 - towards_septum) / 0.7, 0.0, 1.0)
        free_side = free_side * free_side * (3.0 - 2.0 * free_side)
        radius = self.rv_body_mm * (1.0 + (self.rv_factor - 1.0) * free_side)
        lv_apex = LV_CENTRE_MM[2] - LV_AXIAL_STRETCH * self.outer_radius_mm()[0, 0]
        deepest = self.rv_centre_mm[2] - lv_apex - self.rv_apex_offset_mm
        depth = np.maximum(radius * np.cos(polar), 1.0)
        return np.asarray(radius * _smooth_minimum(depth, deepest, 6.0) / depth)


@dataclass(frozen=True, slots=True, eq=False)
class HeartFields:
    """Signed distances in mm, negative inside, on a grid, float32, shape (i, j, k).

    Parameters
    ----------
    endocardium, epicardium, rv_body : ndarray
        Distance to the three star-shaped surfaces.
    mitral, roof : ndarray
        Height above the mitral plane and above the RV roof.
    valves : ndarray
        Negative in the columns of the tricuspid and pulmonary valves, where the roof has no wall.
    """

    endocardium: NDArray[np.float32]
    epicardium: NDArray[np.float32]
    rv_body: NDArray[np.float32]
    mitral: NDArray[np.float32]
    roof: NDArray[np.float32]
    valves: NDArray[np.float32]


def heart_fields(
    shape: HeartShape, axes_mm: tuple[_FloatArray, _FloatArray, _FloatArray]
) -> HeartFields:
    """Evaluate the distance fields of a heart on the grid spanned by three axes.

    Parameters
    ----------
    shape : HeartShape
        The measures.
    axes_mm : tuple of three ndarrays
        World coordinates of the grid along x, y and z in mm, origin at the mitral centre.

    Returns
    -------
    HeartFields
        First-order signed distances in mm.
    """
    x, y, z = (a.astype(np.float32) / np.float32(shape.scale) for a in axes_mm)
    z = z / np.float32(shape.elongation)
    grid = (x[:, None, None], y[None, :, None], z[None, None, :])
    rows, radius = _polar_lookup(grid, LV_CENTRE_MM, LV_AXIAL_STRETCH)
    inner = radius - _interpolate(shape.inner_radius_mm(), rows)
    outer = radius - _interpolate(shape.outer_radius_mm(), rows)
    rows, radius = _polar_lookup(grid, tuple(shape.rv_centre_mm), 1.0)
    body = radius - _interpolate(shape.free_radius_mm(), rows)
    mitral = grid[2] - (shape.mitral_slope[0] * grid[0] + shape.mitral_slope[1] * grid[1])
    roof, valves = _roof(shape, grid)
    vertical = np.float32(shape.scale * shape.elongation)
    return HeartFields(
        endocardium=_distance(inner, axes_mm),
        epicardium=_distance(outer, axes_mm),
        rv_body=_distance(body, axes_mm),
        mitral=(mitral * vertical).astype(np.float32),
        roof=(roof * vertical).astype(np.float32),
        valves=(valves * np.float32(shape.scale)).astype(np.float32),
    )


def structure_fractions(
    fields: HeartFields, rv_wall_mm: float, softness_mm: float
) -> dict[str, NDArray[np.float32]]:
    """Return the share of every voxel that each structure fills.

    Parameters
    ----------
    fields : HeartFields
        Signed distances of one heart.
    rv_wall_mm : float
        Thickness of the RV free wall.
    softness_mm : float
        Width over which a border is spread; a voxel's size gives partial volume.

    Returns
    -------
    dict of str to ndarray of float32, shape (i, j, k)
        ``lv_cavity``, ``lv_wall``, ``rv_wall`` and ``rv_cavity``, each from 0 to 1.
    """

    def inside(distance: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.clip(np.float32(0.5) - distance / np.float32(softness_mm), 0, 1)

    below_mitral = inside(fields.mitral)
    cavity = inside(fields.endocardium) * below_mitral
    heart = inside(fields.epicardium)
    outside_lv = 1 - heart
    thickness = np.float32(rv_wall_mm)
    rv_cavity = inside(_smooth_maximum(fields.rv_body, fields.roof, _RIM_MM)) * outside_lv
    roof_wall = np.clip(fields.valves, 0, thickness)
    shell = _smooth_maximum(fields.rv_body - thickness, fields.roof - roof_wall, _RIM_MM)
    rv_whole = inside(shell) * outside_lv
    return {
        "lv_cavity": cavity,
        "lv_wall": np.maximum(heart * below_mitral - cavity, 0),
        "rv_wall": np.maximum(rv_whole - rv_cavity, 0),
        "rv_cavity": rv_cavity,
    }


def radius_table(profile_mm: _FloatArray) -> _FloatArray:
    """Return the radii (73, 144) by polar angle and azimuth of a profile of spherical harmonics."""
    basis = _harmonics()[:, : len(profile_mm)]
    return np.asarray((basis @ profile_mm).reshape(_N_POLAR, _N_AZIMUTH))


@lru_cache(maxsize=1)
def _table_angles() -> tuple[_FloatArray, _FloatArray]:
    polar = np.linspace(0.0, np.pi, _N_POLAR)
    azimuth = np.arange(_N_AZIMUTH) * (2.0 * np.pi / _N_AZIMUTH)
    azimuth = np.where(azimuth > np.pi, azimuth - 2.0 * np.pi, azimuth)
    return polar[:, None] + 0.0 * azimuth, azimuth[None, :] + 0.0 * polar[:, None]


@lru_cache(maxsize=1)
def _harmonics() -> _FloatArray:
    """Real spherical harmonics up to degree 6 over the table, each of unit mean square."""
    polar, azimuth = (angle.ravel() for angle in _table_angles())
    columns = []
    for degree in range(7):
        for order in range(-degree, degree + 1):
            m = abs(order)
            norm = (2 * degree + 1) * np.exp(gammaln(degree - m + 1) - gammaln(degree + m + 1))
            wave = np.sin(m * azimuth) if order < 0 else np.cos(m * azimuth)
            column = np.sqrt(norm * (2.0 if m else 1.0)) * lpmv(m, degree, np.cos(polar)) * wave
            columns.append(column)
    return np.stack(columns, axis=1)


def _polar_lookup(
    grid: tuple[NDArray[np.float32], ...], centre_mm: tuple[float, ...], axial_stretch: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return table rows and columns, shape (2, i, j, k), and radii of all grid points."""
    x, y, z = (axis - np.float32(c) for axis, c in zip(grid, centre_mm, strict=True))
    z = z / np.float32(axial_stretch)
    azimuth = np.arctan2(-y, -x) * np.float32(_N_AZIMUTH / (2 * np.pi))
    in_plane = np.sqrt(x * x + y * y)
    radius = np.sqrt(in_plane * in_plane + z * z)
    polar = np.arctan2(in_plane, -z) * np.float32((_N_POLAR - 1) / np.pi)
    azimuth = np.where(azimuth < 0, azimuth + np.float32(_N_AZIMUTH), azimuth)
    return np.stack([polar, np.broadcast_to(azimuth, polar.shape)]), radius


def _interpolate(table: _FloatArray, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    closed = np.concatenate([table, table[:, :2]], axis=1).astype(np.float32)
    values: NDArray[np.float32] = map_coordinates(closed, rows, order=1, mode="nearest")
    return values


def _distance(
    field: NDArray[np.float32], axes_mm: tuple[_FloatArray, _FloatArray, _FloatArray]
) -> NDArray[np.float32]:
    """First-order distance in mm: the field over the length of its gradient."""
    steps = [np.float32(axis[1] - axis[0]) for axis in axes_mm]
    squared = np.zeros_like(field)
    for axis, step in enumerate(steps):
        slope = np.gradient(field, step, axis=axis)
        squared += slope * slope
    return field / np.sqrt(np.maximum(squared, np.float32(0.05)))


def _roof(
    shape: HeartShape, grid: tuple[NDArray[np.float32], ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Height above the roof, and distance to the valve columns, in reference mm."""
    x, y, z = grid
    start, end = shape.tricuspid_mm, shape.pulmonary_mm
    along = (start[1] - y) / (start[1] - end[1])
    held = np.clip(along, ROOF_POSITIONS[0], ROOF_POSITIONS[-1])
    rise = PchipInterpolator(ROOF_POSITIONS, shape.roof_mm)(held)
    slope = np.interp(held, ROOF_SLOPE_POSITIONS, shape.roof_slope)
    off_line = np.clip(x - (start[0] + held * (end[0] - start[0])), -30.0, 30.0)
    height = start[2] + held * (end[2] - start[2]) + rise + slope * off_line
    tricuspid = np.hypot(x - start[0], y - start[1]) - TRICUSPID_RADIUS_MM
    pulmonary = np.hypot(x - end[0], y - end[1]) - PULMONARY_RADIUS_MM
    return z - height.astype(np.float32), np.minimum(tricuspid, pulmonary)


def _smooth_minimum(a: _FloatArray, b: float, width: float) -> _FloatArray:
    """Minimum of two, rounded where they differ by less than a width."""
    overlap = np.maximum(width - np.abs(a - b), 0.0) / width
    return np.asarray(np.minimum(a, b) - overlap * overlap * (width / 4.0))


def _smooth_maximum(
    a: NDArray[np.float32], b: NDArray[np.float32], width: float
) -> NDArray[np.float32]:
    """Maximum of two fields, rounded where they differ by less than a width."""
    overlap = np.maximum(np.float32(width) - np.abs(a - b), 0) / np.float32(width)
    rounded: NDArray[np.float32] = np.maximum(a, b) + overlap * overlap * np.float32(width / 4)
    return rounded
