"""Thickness of the LV wall by segment, how round the cavity is, and how the septum is bowed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from cardiacreg.arrays import Float
from cardiacreg.geometry import LabelMap, apply_matrix
from cardiacreg.measures.laplace import Wall, field_lines
from cardiacreg.measures.segments import N_SEGMENTS, HeartDirections, segments_of
from cardiacreg.measures.septum import Septum, middle_ring, septal_curvature
from cardiacreg.surfaces.level_fields import (
    LV_ENDO,
    LV_EPI,
    RV_ENDO,
    RV_EPI,
    LevelField,
    fine_fields,
    level_set,
    leveled,
)
from cardiacreg.surfaces.triangles import vertex_areas

_STEP_MM = 1.25
_STEEPEST = 0.7
"""Least cosine between the long axis and an outer surface's normal for the rim at the base."""
_OPENING_MM = 0.6
"""Least depth of the endocardium under the epicardium; there is no wall at a valve."""
_LEAST_SHARE = 0.05
"""Of a segment's usual area that must have a thickness."""
_RAY_STEP_MM = 0.1
_LONGEST_RAY_MM = 80.0


class LeftWall(NamedTuple):
    """What is measured of the left ventricle's shape.

    Parameters
    ----------
    thickness_mm : ndarray, shape (17,)
        Mean over the endocardium of each segment; NaN for a segment without wall.
    mean_thickness_mm : float
        Over the whole endocardium that has wall.
    eccentricity : float
        Diameter of the cavity along the septum over that across it, at mid-height; NaN without one.
    points_mm : ndarray, shape (n, 3)
        Of the endocardium, world mm.
    lengths_mm : ndarray, shape (n,)
        Thickness at each of them, NaN where there is no wall.
    septum : Septum
        How the septum is bowed.
    """

    thickness_mm: Float
    mean_thickness_mm: float
    eccentricity: float
    points_mm: Float
    lengths_mm: Float
    septum: Septum


def measure_left_wall(labels: LabelMap, directions: HeartDirections) -> LeftWall | None:
    """Measure the LV's wall and cavity.

    Parameters
    ----------
    labels : LabelMap
        Canonical labels on thin slices.
    directions : HeartDirections
        In the same world.

    Returns
    -------
    LeftWall or None
        None without an LV cavity or wall.
    """
    lattice = lv_wall(labels, directions)
    if lattice is None:
        return None
    found = thickness(lattice, directions)
    segments = segments_of(
        found.middles_mm, directions, float(directions.heights_mm(found.points_mm).min())
    )
    return LeftWall(
        _means(found.lengths_mm, found.areas_mm2, segments),
        found.mean_mm,
        eccentricity_index(lattice.inner, directions, found.points_mm),
        found.points_mm,
        found.lengths_mm,
        septal_curvature(found.points_mm, directions),
    )


class Thickness(NamedTuple):
    """Thickness of a wall at points of its inner surface.

    Parameters
    ----------
    points_mm, middles_mm : ndarray, shape (n, 3)
        Points, and halfway from each to the outer surface, world mm.
    lengths_mm : ndarray, shape (n,)
        NaN where there is no wall.
    areas_mm2 : ndarray, shape (n,)
        Of the surface around each point.
    """

    points_mm: Float
    middles_mm: Float
    lengths_mm: Float
    areas_mm2: Float

    @property
    def mean_mm(self) -> float:
        """Mean over the inner surface where it has wall; NaN without any."""
        return _mean(self.lengths_mm, self.areas_mm2)


def thickness(lattice: WallLattice, directions: HeartDirections) -> Thickness:
    """Measure a wall along the field lines that start on its inner surface.

    Parameters
    ----------
    lattice : WallLattice
    directions : HeartDirections
    """
    inner, outer = lattice.inner, lattice.outer
    vertices, triangles = level_set(inner.field)
    depth = ndimage.map_coordinates(outer.field, vertices.T, order=1)
    lines = field_lines(lattice.wall, vertices)
    upward = _cosine_at(outer, lines.ends, directions)
    has_wall = (depth > _OPENING_MM) & (upward < _STEEPEST)
    lengths = np.where(has_wall, lines.lengths_mm, np.nan)
    points = apply_matrix(inner.voxel_to_world, vertices)
    middles = (points + apply_matrix(inner.voxel_to_world, lines.ends)) / 2
    return Thickness(points, middles, lengths, vertex_areas(points, triangles))


def right_wall_mm(labels: LabelMap, directions: HeartDirections) -> float:
    """Return the mean thickness of the RV's free wall, NaN without an RV cavity or wall.

    Parameters
    ----------
    labels : LabelMap
        Canonical labels on thin slices. The septum belongs to the LV wall: no RV wall lies there.
    directions : HeartDirections
    """
    fields = leveled(fine_fields(labels, (LV_EPI, RV_ENDO, RV_EPI)), _STEP_MM)
    if not {RV_ENDO, RV_EPI} <= set(fields):
        return float("nan")
    return thickness(_lattice(fields[RV_ENDO], fields[RV_EPI], directions), directions).mean_mm


class WallLattice(NamedTuple):
    """A wall between two surfaces on a lattice of cubes."""

    inner: LevelField
    outer: LevelField
    wall: Wall
    voxel_to_world: Float


def lv_wall(labels: LabelMap, directions: HeartDirections) -> WallLattice | None:
    """Return the LV wall of canonical labels, None without an LV cavity or wall."""
    fields = leveled(fine_fields(labels, (LV_ENDO, LV_EPI)), _STEP_MM)
    if not {LV_ENDO, LV_EPI} <= set(fields):
        return None
    return _lattice(fields[LV_ENDO], fields[LV_EPI], directions)


def _lattice(inner: LevelField, outer: LevelField, directions: HeartDirections) -> WallLattice:
    """Tell the rim at the base, where the wall ends, from the epicardium."""
    field = outer.field.astype(np.float64)
    near = (field <= 0) & ndimage.binary_dilation(field > 0)
    rim = np.zeros(field.shape, dtype=np.bool_)
    nodes = np.argwhere(near).astype(np.float64)
    rim[near] = _cosine_at(outer, nodes, directions) >= _STEEPEST
    wall = Wall(inner.field.astype(np.float64), field, rim, _STEP_MM)
    return WallLattice(inner, outer, wall, inner.voxel_to_world)


def _cosine_at(outer: LevelField, nodes: Float, directions: HeartDirections) -> Float:
    """Cosine between the way out of the epicardium and the long axis, in the upper half; else -1."""
    gradient = [
        ndimage.map_coordinates(each, nodes.T, order=1, mode="nearest")
        for each in np.gradient(outer.field.astype(np.float64))
    ]
    outward = -np.stack(gradient, axis=1) @ np.linalg.inv(outer.voxel_to_world[:3, :3])
    outward /= np.maximum(np.linalg.norm(outward, axis=1), 1e-9)[:, None]
    heights = directions.heights_mm(apply_matrix(outer.voxel_to_world, nodes))
    return np.asarray(np.where(heights > directions.base_mm / 2, outward @ directions.axis, -1.0))


def _means(lengths: Float, areas: Float, segments: np.ndarray) -> Float:
    found = np.full(N_SEGMENTS, np.nan)
    usual = areas.sum() / N_SEGMENTS
    for number in range(1, N_SEGMENTS + 1):
        own = (segments == number) & ~np.isnan(lengths)
        least = 0.0 if number == N_SEGMENTS else _LEAST_SHARE * usual
        if areas[own].sum() > least:
            found[number - 1] = _mean(lengths[own], areas[own])
    return found


def _mean(lengths: Float, areas: Float) -> float:
    known = ~np.isnan(lengths)
    return float(np.average(lengths[known], weights=areas[known])) if known.any() else np.nan


def eccentricity_index(cavity: LevelField, directions: HeartDirections, points_mm: Float) -> float:
    """Return the diameter of the cavity along the septum over that across it (Ryan et al. 1985).

    Parameters
    ----------
    cavity : LevelField
        Positive inside the LV cavity.
    directions : HeartDirections
    points_mm : ndarray, shape (n, 3)
        Of the endocardium: the diameters cross its middle, halfway up the cavity.

    Returns
    -------
    float
        1 for a round cavity, above 1 for a flattened septum; NaN if the middle lies outside.
    """
    ring = middle_ring(points_mm, directions)
    if ring is None:
        return float("nan")
    septal, anterior = ring.middle_mm
    middle = (
        directions.apex_mm
        + ring.height_mm * directions.axis
        + septal * directions.septal
        + anterior * directions.anterior
    )
    across, parallel = (
        _reach(cavity, middle, side) + _reach(cavity, middle, -side)
        for side in (directions.septal, directions.anterior)
    )
    return parallel / across if min(across, parallel) > 0 else float("nan")


def _reach(cavity: LevelField, start_mm: Float, direction: Float) -> float:
    """How far it is from a point to the cavity's border, mm; 0 outside."""
    distances = np.arange(0, _LONGEST_RAY_MM, _RAY_STEP_MM)
    points = start_mm + distances[:, None] * direction
    to_nodes = np.asarray(np.linalg.inv(cavity.voxel_to_world), dtype=np.float64)
    nodes = apply_matrix(to_nodes, points)
    values = ndimage.map_coordinates(cavity.field, nodes.T, order=1, mode="constant", cval=-1.0)
    return float(distances[int(np.argmax(values <= 0))])
