"""Geometry of one synthetic bi-ventricular heart: named measures in, signed distance fields out.

The heart's coordinates have their origin at the centre of the mitral valve; x runs from the right to
the left ventricle, y from anterior to inferior and z from apex to base, in mm, for a heart whose left
ventricle is `REFERENCE_LENGTH_MM` long. Three surfaces are star-shaped about a centre of their own:
LV endocardium, LV epicardium and the RV body, a blob that overlaps the LV, so that the RV cavity is
what the LV leaves of it. A tube leads from the LV cavity to the aortic valve and carves the crest
of the RV, which is closed by a roof from the tricuspid to the pulmonary plane.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RegularGridInterpolator

from cardiacreg.arrays import Float
from cardiacreg.phantoms.published_measures import (
    CREST_WALL_RATIO,
    INSERTION_FILLET_RATIO,
    LV_AXIAL_STRETCH,
    LV_CENTRE_MM,
    OUTFLOW_BEYOND,
    OUTFLOW_RADIUS_MM,
    OUTFLOW_START_MM,
    OUTFLOW_WALL_MM,
    PULMONARY_OPENING_MM,
    PULMONARY_RADIUS_MM,
    RIM_MM,
    ROOF_ACROSS_MM,
    ROOF_ALONG,
    RV_APEX_OFFSET_MM,
    RV_INFLOW_MM,
    RV_OPENING_DEPTH_MM,
    RV_OUTFLOW_MM,
    RV_RIM_MM,
    RV_WALL_ASYMMETRY,
    TRICUSPID_RADIUS_MM,
)
from cardiacreg.phantoms.radii import N_AZIMUTH, N_POLAR, table_angles


class _Lookup(NamedTuple):
    """Where grid points fall in a radius table: flat number of the cell and place in it."""

    cell: NDArray[np.int32]
    down: NDArray[np.float32]
    across: NDArray[np.float32]


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
    rv_centre_mm, tricuspid_mm, pulmonary_mm, aortic_mm : ndarray, shape (3,), float64
        Positions in the heart's coordinates, before `scale` and `elongation`.
    roof_mm : ndarray, shape (9, 5), float64
        Height of the RV roof over the line between its valves, at `ROOF_ALONG` by `ROOF_ACROSS_MM`.
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
    endocardium_mm: Float
    wall_mm: Float
    rv_body_mm: Float
    rv_centre_mm: Float
    tricuspid_mm: Float
    pulmonary_mm: Float
    aortic_mm: Float
    roof_mm: Float
    mitral_slope: Float

    def inner_radius_mm(self) -> Float:
        """Return the LV endocardial radius table, shape (73, 144)."""
        polar, azimuth = table_angles()
        bulge = np.exp(-((azimuth / np.radians(55.0)) ** 2)) * np.sin(polar) ** 2
        radius: Float = (
            self.endocardium_factor * self.endocardium_mm - self.septal_flattening_mm * bulge
        )
        return np.asarray(np.maximum(radius, 4.0))

    def outer_radius_mm(self) -> Float:
        """Return the LV epicardial radius table, shape (73, 144)."""
        return self.inner_radius_mm() + self.wall_factor * self.wall_mm

    def septal_radius_mm(self) -> float:
        """Return the LV epicardial radius towards the RV at the height of the LV centre."""
        return float(self.outer_radius_mm()[N_POLAR // 2, 0])

    def free_radius_mm(self) -> Float:
        """Return the RV body radius table; `rv_factor` acts on the free side, not on the septal."""
        polar, azimuth = table_angles()
        towards_septum = -np.cos(azimuth) * np.sin(polar)
        free_side = np.clip((0.9 - towards_septum) / 0.7, 0.0, 1.0)
        free_side = free_side * free_side * (3.0 - 2.0 * free_side)
        radius = self.rv_body_mm * (1.0 + (self.rv_factor - 1.0) * free_side)
        lv_apex = LV_CENTRE_MM[2] - LV_AXIAL_STRETCH * self.outer_radius_mm()[0, 0]
        limit = self.rv_centre_mm[2] - lv_apex - RV_APEX_OFFSET_MM - self.rv_wall_mm / self.scale
        shorter = min(limit / self._visible_depth_mm(radius) - 1.0, 0.0)
        return np.asarray(radius * (1.0 + shorter * np.clip(1.5 * np.cos(polar), 0.0, 1.0)))

    def _visible_depth_mm(self, radius: Float) -> float:
        """How far below its centre the RV body reaches outside the LV."""
        polar, azimuth = table_angles()
        in_plane = radius * np.sin(polar)
        offsets = (
            -in_plane * np.cos(azimuth),
            -in_plane * np.sin(azimuth),
            -radius * np.cos(polar),
        )
        points = tuple(
            (o + c).astype(np.float32) for o, c in zip(offsets, self.rv_centre_mm, strict=True)
        )
        places, distance = _polar_lookup(points, LV_CENTRE_MM, LV_AXIAL_STRETCH)
        outside = distance > _interpolate(self.outer_radius_mm(), places)
        return float(np.where(outside, -offsets[2], 1.0).max())


@dataclass(frozen=True, slots=True, eq=False)
class HeartFields:
    """Signed distances in mm, negative inside, on a grid, float32, shape (i, j, k).

    Parameters
    ----------
    endocardium, epicardium, rv_body : ndarray
        Distance to the three star-shaped surfaces.
    outflow : ndarray
        Distance to the tube of the LV outflow.
    rv_wall_ratio : ndarray
        Local thickness of the RV wall over its mean.
    mitral, roof : ndarray
        Height above the mitral plane and above the RV roof.
    pulmonary : ndarray
        Negative in the pulmonary opening, where the RV has no wall on any side.
    valves : ndarray
        Negative in the columns of the tricuspid and pulmonary valves, where the roof has no wall.
    """

    endocardium: NDArray[np.float32]
    epicardium: NDArray[np.float32]
    rv_body: NDArray[np.float32]
    outflow: NDArray[np.float32]
    rv_wall_ratio: NDArray[np.float32]
    mitral: NDArray[np.float32]
    roof: NDArray[np.float32]
    pulmonary: NDArray[np.float32]
    valves: NDArray[np.float32]


def heart_fields(shape: HeartShape, axes_mm: tuple[Float, Float, Float]) -> HeartFields:
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
    places, radius = _polar_lookup(grid, LV_CENTRE_MM, LV_AXIAL_STRETCH)
    inner = radius - _interpolate(shape.inner_radius_mm(), places)
    outer = radius - _interpolate(shape.outer_radius_mm(), places)
    places, radius = _polar_lookup(grid, tuple(shape.rv_centre_mm), 1.0)
    body = radius - _interpolate(shape.free_radius_mm(), places)
    mitral = grid[2] - (shape.mitral_slope[0] * grid[0] + shape.mitral_slope[1] * grid[1])
    roof, valves = _roof(shape, grid)
    pulmonary = _pulmonary_opening(shape, grid)
    vertical = np.float32(shape.scale * shape.elongation)
    anterior = (grid[1] - np.float32(shape.rv_centre_mm[1])) / np.float32(35.0)
    outflow = _outflow(shape, grid) * np.float32(shape.scale)
    epicardium = _distance(outer, axes_mm)
    return HeartFields(
        endocardium=-_smooth_maximum(-_distance(inner, axes_mm), -outflow, RIM_MM),
        epicardium=-_smooth_maximum(-epicardium, np.float32(OUTFLOW_WALL_MM) - outflow, RIM_MM),
        rv_body=-_smooth_maximum(-_distance(body, axes_mm), -_rv_openings(shape, grid), RIM_MM),
        outflow=outflow,
        rv_wall_ratio=1 - np.float32(RV_WALL_ASYMMETRY) * np.clip(anterior, -1, 1),
        mitral=(mitral * vertical).astype(np.float32),
        roof=(roof * vertical).astype(np.float32),
        pulmonary=(pulmonary * np.float32(shape.scale)).astype(np.float32),
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
        share: NDArray[np.float32] = np.float32(0.5) - distance / np.float32(softness_mm)
        return np.clip(share, 0, 1, out=share)

    below_mitral = inside(fields.mitral)
    cavity = inside(fields.endocardium) * below_mitral
    heart = inside(fields.epicardium)
    outside_lv = 1 - heart
    thickness = np.float32(rv_wall_mm) * fields.rv_wall_ratio
    crest = np.float32(OUTFLOW_WALL_MM) + np.float32(CREST_WALL_RATIO) * thickness - fields.outflow
    inner = np.maximum(_smooth_maximum(fields.rv_body, fields.roof, RV_RIM_MM), crest)
    rv_cavity = inside(inner) * outside_lv
    roof_wall = np.clip(fields.valves, 0, thickness)
    side_wall = np.clip(fields.pulmonary, 0, thickness)
    shell = _smooth_maximum(fields.rv_body - side_wall, fields.roof - roof_wall, RV_RIM_MM)
    fillet_mm = INSERTION_FILLET_RATIO * rv_wall_mm
    filled = -_smooth_maximum(-shell, -fields.epicardium, fillet_mm)
    rv_whole = inside(np.where(fields.roof < thickness, filled, shell)) * outside_lv
    return {
        "lv_cavity": cavity,
        "lv_wall": np.maximum(heart * below_mitral - cavity, 0),
        "rv_wall": np.maximum(rv_whole - rv_cavity, 0),
        "rv_cavity": rv_cavity,
    }


def _polar_lookup(
    grid: tuple[NDArray[np.float32], ...], centre_mm: tuple[float, ...], axial_stretch: float
) -> tuple[_Lookup, NDArray[np.float32]]:
    """Return the table places and the radii of all grid points."""
    x, y, z = (axis - np.float32(c) for axis, c in zip(grid, centre_mm, strict=True))
    z = z / np.float32(axial_stretch)
    azimuth = np.arctan2(-y, -x) * np.float32(N_AZIMUTH / (2 * np.pi))
    in_plane = np.sqrt(x * x + y * y)
    radius = np.sqrt(in_plane * in_plane + z * z)
    polar = np.arctan2(in_plane, -z) * np.float32((N_POLAR - 1) / np.pi)
    azimuth = np.where(azimuth < 0, azimuth + np.float32(N_AZIMUTH), azimuth)
    row, column = np.minimum(polar.astype(np.int32), N_POLAR - 2), azimuth.astype(np.int32)
    return _Lookup(row * (N_AZIMUTH + 2) + column, polar - row, azimuth - column), radius


def _interpolate(table: Float, lookup: _Lookup) -> NDArray[np.float32]:
    """Bilinear interpolation in a radius table, closed around the azimuth."""
    width = table.shape[1] + 2
    closed = np.concatenate([table, table[:, :2]], axis=1).astype(np.float32)
    across = np.zeros_like(closed)
    across[:, :-1] = np.diff(closed, axis=1)
    values, change = closed.ravel(), across.ravel()
    upper = values[lookup.cell] + lookup.across * change[lookup.cell]
    below = lookup.cell + width
    lower = values[below] + lookup.across * change[below]
    mixed: NDArray[np.float32] = upper + lookup.down * (lower - upper)
    return mixed


def _distance(
    field: NDArray[np.float32], axes_mm: tuple[Float, Float, Float]
) -> NDArray[np.float32]:
    """First-order distance in mm: the field over the length of its gradient."""
    steps = [np.float32(axis[1] - axis[0]) for axis in axes_mm]
    squared = np.zeros_like(field)
    for axis, step in enumerate(steps):
        slope = np.gradient(field, step, axis=axis)
        squared += slope * slope
    length: NDArray[np.float32] = np.sqrt(np.maximum(squared, np.float32(0.05)))
    return np.asarray(field / length, dtype=np.float32)


def _roof(
    shape: HeartShape, grid: tuple[NDArray[np.float32], ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Height above the roof, and distance to the valve columns, in reference mm."""
    x, y, z = grid
    start, end = shape.tricuspid_mm, shape.pulmonary_mm
    along = (start[1] - y) / (start[1] - end[1])
    held = np.clip(along, ROOF_ALONG[0], ROOF_ALONG[-1])
    across = x - (start[0] + held * (end[0] - start[0]))
    across = np.clip(across, ROOF_ACROSS_MM[0], ROOF_ACROSS_MM[-1])
    rise = RegularGridInterpolator((ROOF_ALONG, ROOF_ACROSS_MM), shape.roof_mm)
    height = start[2] + held * (end[2] - start[2]) + rise(tuple(np.broadcast_arrays(held, across)))
    tricuspid = np.hypot(x - start[0], y - start[1]) - TRICUSPID_RADIUS_MM
    pulmonary = np.hypot(x - end[0], y - end[1]) - PULMONARY_RADIUS_MM
    valves = np.minimum(tricuspid, pulmonary).astype(np.float32)
    return z - height.astype(np.float32), valves


def _rv_openings(shape: HeartShape, grid: tuple[NDArray[np.float32], ...]) -> NDArray[np.float32]:
    """Distance in mm to upright columns under both RV valves, which the roof closes."""
    x, y, z = grid
    size = 0.5 * (1.0 + shape.rv_factor)
    columns = []
    for centre, radius in ((shape.tricuspid_mm, RV_INFLOW_MM), (shape.pulmonary_mm, RV_OUTFLOW_MM)):
        side = np.hypot(x - np.float32(centre[0]), y - np.float32(centre[1]))
        below = np.float32(centre[2] - RV_OPENING_DEPTH_MM) - z
        columns.append(np.maximum(side - np.float32(size * radius), below))
    return np.asarray(np.minimum(*columns) * np.float32(shape.scale), dtype=np.float32)


def _pulmonary_opening(
    shape: HeartShape, grid: tuple[NDArray[np.float32], ...]
) -> NDArray[np.float32]:
    """Distance to an ellipsoid around the pulmonary valve, roughly, in reference mm."""
    squared = sum(
        ((axis - np.float32(centre)) / np.float32(half)) ** 2
        for axis, centre, half in zip(grid, shape.pulmonary_mm, PULMONARY_OPENING_MM, strict=True)
    )
    return np.asarray((np.sqrt(squared) - 1) * np.float32(min(PULMONARY_OPENING_MM)))


def _outflow(shape: HeartShape, grid: tuple[NDArray[np.float32], ...]) -> NDArray[np.float32]:
    """Distance to the tube of the LV outflow in reference mm."""
    start = np.array(OUTFLOW_START_MM)
    along = (shape.aortic_mm - start) * OUTFLOW_BEYOND
    offsets = [axis - np.float32(s) for axis, s in zip(grid, start, strict=True)]
    position = sum(o * np.float32(d) for o, d in zip(offsets, along / (along @ along), strict=True))
    position = np.clip(position, 0, 1)
    squared = sum((o - position * np.float32(d)) ** 2 for o, d in zip(offsets, along, strict=True))
    radius = OUTFLOW_RADIUS_MM * 0.5 * (1.0 + shape.endocardium_factor)
    return np.asarray(np.sqrt(squared) - np.float32(radius), dtype=np.float32)


def _smooth_maximum(
    a: NDArray[np.float32], b: NDArray[np.float32], width: float
) -> NDArray[np.float32]:
    """Maximum of two fields, rounded where they differ by less than a width."""
    overlap = np.maximum(np.float32(width) - np.abs(a - b), 0) / np.float32(width)
    rounded: NDArray[np.float32] = np.maximum(a, b) + overlap * overlap * np.float32(width / 4)
    return rounded
