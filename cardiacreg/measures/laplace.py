"""Thickness of a wall along the field lines of Laplace's equation.

A potential is 0 on the inner surface, 1 on the outer one and harmonic between them; its field lines meet
both surfaces at right angles and never cross. The thickness at a point of the inner surface is the length
of its line (Jones, Buchbinder and Aharon 2000; Yezzi and Prince 2003 compute the same length without
lines). Both surfaces are zero levels of fields on a lattice and pass between its nodes: the equation uses
the true distances to them (Gibou et al. 2002), so that a thickness is not rounded to voxels. Where the
wall ends at the base nothing flows across its rim.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.linalg import cg

from cardiacreg.arrays import Float
from cardiacreg.errors import RefinementError

Mask = NDArray[np.bool_]

_STEP = 0.4
"""Of a line, in lattice steps."""
_LONGEST_MM = 60.0
_NEAREST = 0.02
"""Least distance between a node and a surface that the equation knows, in lattice steps."""
_TOLERANCE = 1e-6


class Wall(NamedTuple):
    """A wall between two zero levels on a lattice of cubes.

    Parameters
    ----------
    inner, outer : ndarray, shape (i, j, k)
        Positive inside the inner and the outer surface; the wall is where `outer` alone is.
    rim : ndarray of bool, shape (i, j, k)
        Nodes outside the wall that lie past its rim, where no surface is.
    step_mm : float
    """

    inner: Float
    outer: Float
    rim: Mask
    step_mm: float

    @property
    def inside(self) -> Mask:
        """Nodes of the wall."""
        return (self.inner < 0) & (self.outer > 0)


class Lines(NamedTuple):
    """Field lines that start on the inner surface.

    Parameters
    ----------
    lengths_mm : ndarray, shape (n,)
        NaN for lines that do not reach the outer surface.
    ends : ndarray, shape (n, 3)
        Where they end, in nodes.
    """

    lengths_mm: Float
    ends: Float


class Potential(NamedTuple):
    """A harmonic potential at the nodes of a wall, in the order of `numpy.argwhere`.

    Parameters
    ----------
    potential, slope : ndarray, shape (n,)
        The slope is its steepest rise per lattice step.
    """

    potential: Float
    slope: Float


class _Neighbours(NamedTuple):
    """What lies beside every node of the wall, shape (n, 6): -i, +i, -j, +j, -k, +k.

    `row` is the neighbour's number, or -1; `distance` is that to it or to the surface before it, in
    steps; `value` is the surface's potential, NaN where there is no surface but the rim.
    """

    row: NDArray[np.int64]
    distance: Float
    value: Float


def field_lines(wall: Wall, starts: Float) -> Lines:
    """Follow the field lines from points of the inner surface to the outer one.

    Parameters
    ----------
    wall : Wall
    starts : ndarray, shape (n, 3)
        On the inner surface, in nodes.

    Raises
    ------
    RefinementError
        If the equation cannot be solved (NO_POTENTIAL).
    """
    inside = _away_from_faces(wall.inside)
    if not inside.any():
        return Lines(np.full(len(starts), np.nan), starts.copy())
    return _follow(_field(wall, inside), wall, starts)


def lines_between(wall: Wall, starts: Float) -> tuple[Lines, Lines]:
    """Follow the field lines from points of the wall to the inner surface, and to the outer one.

    Parameters
    ----------
    wall : Wall
    starts : ndarray, shape (n, 3)
        In the wall, in nodes.

    Raises
    ------
    RefinementError
        As `field_lines`.
    """
    inside = _away_from_faces(wall.inside)
    if not inside.any():
        none = Lines(np.full(len(starts), np.nan), starts.copy())
        return none, none
    field = _field(wall, inside)
    turned = Wall(-wall.outer, -wall.inner, wall.rim, wall.step_mm)
    return _follow(-field, turned, starts), _follow(field, wall, starts)


def potential_between(wall: Wall, start: Mask) -> Potential:
    """Return the potential that is 0 at some nodes of a wall and 1 at its rim, and crosses no surface.

    Parameters
    ----------
    wall : Wall
    start : ndarray of bool, shape (i, j, k)

    Returns
    -------
    Potential
        At the nodes of the wall that are not among `start`; NaN where they touch neither.

    Raises
    ------
    RefinementError
        As `field_lines`.
    """
    kept = wall.inside & ~start
    inside = _away_from_faces(kept)
    value, distance = np.full((int(inside.sum()), 6), np.nan), np.ones((int(inside.sum()), 6))
    beside = _numbered(inside)
    outer = wall.outer[inside]
    for side, there in enumerate(_sides(inside)):
        value[start[there], side] = 0.0
        at_rim = wall.rim[there] & (beside[:, side] < 0)
        value[at_rim, side] = 1.0
        share = outer / np.maximum(outer - wall.outer[there], 1e-9)
        distance[at_rim, side] = np.clip(share[at_rim], _NEAREST, 1.0)
    neighbours = _Neighbours(beside, distance, value)
    potential = _potential(neighbours)
    slope = np.linalg.norm(_gradient(neighbours, potential), axis=1)
    found = np.full((2, *inside.shape), np.nan)
    found[:, inside] = potential, slope
    return Potential(*found[:, kept])


def _away_from_faces(mask: Mask) -> Mask:
    """Leave out nodes on the faces of the lattice, which have no neighbour on one side."""
    inside = mask.copy()
    inside[[0, -1]] = inside[:, [0, -1]] = inside[:, :, [0, -1]] = False
    return inside


def _field(wall: Wall, inside: Mask) -> Float:
    beside = _neighbours(wall, inside)
    return _directions(inside, _gradient(beside, _potential(beside)))


def _numbered(inside: Mask) -> NDArray[np.int64]:
    """Numbers of the neighbours of every node, -1 outside, shape (n, 6)."""
    number = np.full(inside.shape, -1, dtype=np.int64)
    number[inside] = np.arange(int(inside.sum()))
    return np.stack([number[there] for there in _sides(inside)], axis=1)


def _sides(inside: Mask) -> Iterator[tuple[NDArray[np.int64], ...]]:
    """Indices of the nodes beside those inside: -i, +i, -j, +j, -k, +k."""
    where = np.nonzero(inside)
    for side in range(6):
        beside = list(where)
        beside[side // 2] = where[side // 2] + (1 if side % 2 else -1)
        yield tuple(beside)


def _neighbours(wall: Wall, inside: Mask) -> _Neighbours:
    row = _numbered(inside)
    distance, value = np.ones(row.shape), np.full(row.shape, np.nan)
    inner, outer = wall.inner[inside], wall.outer[inside]
    for side, there in enumerate(_sides(inside)):
        for own, field, potential in ((inner, wall.inner, 0.0), (outer, wall.outer, 1.0)):
            other = field[there]
            crossed = (row[:, side] < 0) & (own * other < 0)
            if potential == 1.0:
                crossed &= ~wall.rim[there] & np.isnan(value[:, side])
            share = np.abs(own) / np.maximum(np.abs(own) + np.abs(other), 1e-9)
            distance[crossed, side] = np.maximum(share[crossed], _NEAREST)
            value[crossed, side] = potential
    return _Neighbours(row, distance, value)


def _potential(beside: _Neighbours) -> Float:
    """Solve Laplace's equation for the nodes of the wall."""
    n = len(beside.row)
    inner, surface = beside.row >= 0, ~np.isnan(beside.value)
    conductance = np.where(inner | surface, 1 / beside.distance, 0.0)
    given = np.where(surface, conductance * np.nan_to_num(beside.value), 0.0).sum(axis=1)
    diagonal = np.maximum(conductance.sum(axis=1), 1e-9)
    rows, sides = np.nonzero(inner)
    between = sparse.coo_array(
        (-conductance[rows, sides], (rows, beside.row[rows, sides])), shape=(n, n)
    )
    system = (between + sparse.diags_array(diagonal)).tocsr()
    scale = sparse.diags_array(1 / diagonal)
    found, failed = cg(system, given, np.full(n, 0.5), rtol=_TOLERANCE, M=scale, maxiter=5000)
    if failed:
        raise RefinementError(
            "wall thickness: the potential between the surfaces was not found; check the labels of the "
            "LV wall.",
            code="NO_POTENTIAL",
        )
    return np.asarray(found)


def _gradient(beside: _Neighbours, potential: Float) -> Float:
    """Slope of the potential along each axis, from both neighbours at their true distances."""
    own = potential[:, None]
    around = np.where(beside.row >= 0, potential[beside.row], beside.value)
    around = np.where(np.isnan(around), own, around)
    slope = (around - own) / beside.distance
    before, after = beside.distance[:, 0::2], beside.distance[:, 1::2]
    return np.asarray(
        (slope[:, 1::2] * before - slope[:, 0::2] * after) / (before + after), dtype=np.float64
    )


def _directions(inside: Mask, gradient: Float) -> Float:
    """Unit directions of the field on the lattice, shape (3, i, j, k), also two nodes past the wall."""
    field = np.zeros((3, *inside.shape))
    length = np.linalg.norm(gradient, axis=1)
    field[:, inside] = (gradient / np.maximum(length, 1e-12)[:, None]).T
    known = inside.copy()
    for _ in range(2):
        weight = ndimage.uniform_filter(known.astype(np.float64), 3)
        mean = np.stack([ndimage.uniform_filter(each, 3) for each in field])
        new = ~known & (weight > 1e-6)
        mean = mean[:, new]
        field[:, new] = mean / np.maximum(np.linalg.norm(mean, axis=0), 1e-12)
        known |= new
    return field


def _follow(field: Float, wall: Wall, starts: Float) -> Lines:
    """Walk along the directions by midpoint steps until the outer surface is crossed."""
    points, lengths = starts.copy(), np.full(len(starts), np.nan)
    going = np.arange(len(starts))
    before = _at(wall.outer, points)
    ending = before <= 0
    lengths[going[ending]] = 0.0
    going, before = going[~ending], before[~ending]
    walked = 0.0
    while len(going) and walked * wall.step_mm < _LONGEST_MM:
        here = points[going]
        halfway = here + 0.5 * _STEP * _direction(field, here)
        move = _STEP * _direction(field, halfway)
        now = _at(wall.outer, here + move)
        out = now <= 0
        share = np.where(out, before / np.maximum(before - now, 1e-12), 1.0)
        points[going] = here + share[:, None] * move
        lengths[going[out]] = (walked + _STEP * share[out]) * wall.step_mm
        walked += _STEP
        going, before = going[~out], now[~out]
    return Lines(lengths, points)


def _direction(field: Float, points: Float) -> Float:
    found = np.stack([_at(each, points) for each in field], axis=1)
    return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1), 1e-6)[:, None])


def _at(field: Any, points: Float) -> Float:
    return np.asarray(ndimage.map_coordinates(field, points.T, order=1, mode="nearest"))
