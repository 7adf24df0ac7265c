"""Lit pictures of a label map's smooth surfaces, by rays through the shares of its structures.

Labels are brought onto a fine lattice and each structure's share is smoothed over a voxel or two of a
model, far less than a slice of an input, so that slices stay steps. A ray runs along the view until the
heart's share passes one half. An opened heart is cut by a plane through it: what the plane meets is shown
flat, and cavities are empty, so that the rays run on to the surface behind them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cardiacreg.arrays import Float
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL, LabelMap
from cardiacreg.results.qc_views import labels_on_axes

PIXEL_MM = 0.4
_LATTICE_MM = 1.0
_STEP_MM = 1.0
_SMOOTHING_MM = 2.0
_WEIGHT_OF_WALLS = 2.0
"""A thin wall counts more than the cavity under it, of which smoothing brings some to the surface."""
_LEAST_WALL = 0.03
"""Less than this between the half levels of heart and cavity is no wall."""
_COARSE = 6
_NEAR = 0.02
_SOFT_PIXELS = 0.6
_SURFACE, _CUT, _LINING = np.arange(3, dtype=np.uint8)
_LIGHTS = (((-0.45, 0.55, 0.70), 0.62), ((0.75, 0.10, 0.65), 0.22))
"""Directions to the lights along right, up and towards the viewer, and their strengths."""
_AMBIENT = 0.36
_FARTHEST_FADE = 0.28
_FLAT = 0.96
_EDGE_MM = 4.0
"""A step of the depth that counts as an edge, which is drawn darker."""


class Shares(NamedTuple):
    """Smoothed shares of the four structures on a lattice along given axes.

    `array` has shape (5, ...), the heart as a whole first; `low` is its first voxel in mm.
    """

    array: NDArray[np.float32]
    low: Float


class View(NamedTuple):
    """Rows of `directions` are right, up and towards the viewer; `low` and `size` box the heart, mm.

    `cut` is how far towards the viewer the heart is kept; None keeps all of it.
    """

    directions: Float
    low: Float
    size: Float
    cut: float | None = None


def smooth_shares(labels: LabelMap, axes: Float, low: Float, high: Float) -> Shares:
    """Smooth each structure of a label map over a box.

    Parameters
    ----------
    labels : LabelMap
        Anywhere in the world of the axes.
    axes : ndarray, shape (4, 4)
        From mm along the axes to world mm.
    low, high : ndarray, shape (3,)
        The box in mm along the axes.

    Returns
    -------
    Shares
    """
    ticks = (np.arange(a, b, _LATTICE_MM) for a, b in zip(low, high, strict=True))
    points = np.stack(np.meshgrid(*ticks, indexing="ij"), axis=-1)
    found = labels_on_axes(labels, axes, points)
    array = np.empty((5, *found.shape), dtype=np.float32)
    for label in (LV_CAVITY, LV_WALL, RV_WALL, RV_CAVITY):
        mask = (found == label).astype(np.float32)
        ndimage.gaussian_filter(mask, _SMOOTHING_MM / _LATTICE_MM, output=array[label])
    array[0] = array[1:].sum(axis=0)
    return Shares(array, np.asarray(low, dtype=np.float64))


def draw_rays(shares: Shares, view: View, colours: Float) -> Float:
    """Return a picture of shape (rows, columns, 3), the lowest row first, white where nothing is.

    Parameters
    ----------
    shares : Shares
    view : View
    colours : ndarray, shape (5, 3)
        Of each label.
    """
    x, y = (low + np.arange(0.0, size, PIXEL_MM) for low, size in zip(*_across(view), strict=True))
    start = x[None, :, None] * view.directions[0] + y[:, None, None] * view.directions[1]
    hollow = view.cut is not None
    depth, kind = _depths(shares, start, view)
    met = np.isfinite(depth)
    points, kind = start[met] + depth[met][:, None] * view.directions[2], kind[met]
    normals = _normals(shares, points, kind, hollow=hollow) @ view.directions.T
    normals *= np.where(normals[:, 2:] < 0, -1.0, 1.0)
    found = _structures(shares, points, kind, hollow=hollow)
    far = (view.low[2] + view.size[2] - depth[met]) / view.size[2]
    lit = _brightness(normals) * (1.0 - _FARTHEST_FADE * np.clip(far, 0.0, 1.0))
    picture = np.ones((*depth.shape, 3))
    picture[met] = (
        colours[found] * (np.where(kind == _CUT, _FLAT, lit) * _edges(depth)[met])[:, None]
    )
    soft = ndimage.gaussian_filter(picture, (_SOFT_PIXELS, _SOFT_PIXELS, 0.0))
    return np.asarray(np.clip(soft, 0.0, 1.0))


def _across(view: View) -> tuple[Float, Float]:
    return view.low[:2], view.size[:2]


def _at(shares: Shares, which: int, points: Float) -> Float:
    """Sample a share linearly; 0 outside the lattice."""
    voxel = np.moveaxis((points - shares.low) / _LATTICE_MM, -1, 0)
    found = ndimage.map_coordinates(shares.array[which], voxel, order=1, mode="constant")
    return np.asarray(found, dtype=np.float64)


def _cavities(shares: Shares, points: Float) -> Float:
    return _at(shares, LV_CAVITY, points) + _at(shares, RV_CAVITY, points)


def _inside(shares: Shares, points: Float, *, hollow: bool) -> tuple[Float, Float]:
    """How far points are inside what is seen, and inside the heart; below 0 outside."""
    heart = _at(shares, 0, points) - 0.5
    if not hollow:
        return heart, heart
    return np.minimum(heart, 0.5 - _cavities(shares, points)) - _LEAST_WALL, heart


def _depths(shares: Shares, start: Float, view: View) -> tuple[Float, NDArray[np.uint8]]:
    """How far towards the viewer each ray meets the heart, NaN where never; and what it meets there.

    A ray that leaves an empty cavity where no wall is meets its lining.
    """
    hollow, towards = view.cut is not None, view.directions[2]
    top = view.low[2] + view.size[2] if view.cut is None else view.cut
    begin = _beginnings(shares, start, view, top)
    seen, heart = (np.full(start.shape[:2], -0.5) for _ in range(2))
    depth, kind = np.full(start.shape[:2], np.nan), np.full(start.shape[:2], _SURFACE)
    if hollow:
        seen, heart = _inside(shares, start + top * towards, hollow=True)
        depth[seen >= 0], kind[seen >= 0] = top, _CUT
    for level in np.arange(top - _STEP_MM, view.low[2], -_STEP_MM):
        waiting = np.isnan(depth) & (level <= begin)
        now = _inside(shares, start[waiting] + level * towards, hollow=hollow)
        leaves = (heart[waiting] >= 0) & (now[1] < 0) & (now[0] < 0)
        entering, leaving = (
            new / np.where(new == old, 1.0, new - old)
            for new, old in zip(now, (seen[waiting], heart[waiting]), strict=True)
        )
        part = np.where(now[0] >= 0, entering, np.where(leaves, leaving, np.nan))
        depth[waiting] = level + part * _STEP_MM
        kind[waiting] = np.where(leaves, _LINING, _SURFACE)
        seen[waiting], heart[waiting] = now
    return depth, kind


def _beginnings(shares: Shares, start: Float, view: View, top: float) -> Float:
    """From which depth on each ray may meet the heart, by few rays; far away where it never does."""
    few = start[::_COARSE, ::_COARSE]
    first = np.full(few.shape[:2], -np.inf)
    for level in np.arange(top, view.low[2] - _STEP_MM, -2 * _STEP_MM):
        near = _at(shares, 0, few + level * view.directions[2]) > _NEAR
        first = np.maximum(first, np.where(near, level + 2 * _STEP_MM, -np.inf))
    wide = ndimage.maximum_filter(first, 3).repeat(_COARSE, axis=0).repeat(_COARSE, axis=1)
    return np.asarray(wide[: start.shape[0], : start.shape[1]])


def _normals(shares: Shares, points: Float, kind: NDArray[np.uint8], *, hollow: bool) -> Float:
    """Return unit vectors across the surface, by central differences."""
    slope = np.empty_like(points)
    of_heart = kind == _LINING
    for axis, step in enumerate(_LATTICE_MM * np.eye(3)):
        before, after = (_inside(shares, points + sign * step, hollow=hollow) for sign in (-1, 1))
        slope[:, axis] = np.where(of_heart, before[1] - after[1], before[0] - after[0])
    return np.asarray(slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-9))


def _structures(
    shares: Shares, points: Float, kind: NDArray[np.uint8], *, hollow: bool
) -> NDArray[np.intp]:
    """Name what is met: a wall from outside, in an opened heart a cavity's lining or a cut wall."""
    parts = np.stack([_at(shares, label, points) for label in range(1, 5)])
    weights = np.ones(4)
    weights[[LV_WALL - 1, RV_WALL - 1]] = _WEIGHT_OF_WALLS
    found = (weights[:, None] * parts).argmax(axis=0) + 1
    if not hollow:
        return np.asarray(found)
    left, right = parts[LV_CAVITY - 1], parts[RV_CAVITY - 1]
    lines = (kind == _SURFACE) & (left + right > 1.0 - parts.sum(axis=0))
    walls = np.where(parts[LV_WALL - 1] >= parts[RV_WALL - 1], LV_WALL, RV_WALL)
    cavities = np.where(left >= right, LV_CAVITY, RV_CAVITY)
    return np.asarray(np.where(lines | (kind == _LINING), cavities, walls))


def sort_structures(shares: Shares, points: Float) -> NDArray[np.uint8]:
    """Name the structure at each point: a cavity where its share passes one half, else the wall around.

    Thin walls stay whole, which the largest share would break.

    Parameters
    ----------
    shares : Shares
    points : ndarray, shape (..., 3)
        In mm along the axes.

    Returns
    -------
    ndarray
        Labels, 0 outside the heart.
    """
    left, left_wall, right_wall, right = (_at(shares, label, points) for label in range(1, 5))
    of_left = left + left_wall >= right + right_wall
    walls = np.where(of_left, LV_WALL, RV_WALL)
    cavities = np.where(left >= right, LV_CAVITY, RV_CAVITY)
    found = np.where(left + right > 0.5, cavities, walls)
    return np.where(left + left_wall + right_wall + right > 0.5, found, 0).astype(np.uint8)


def outer_shares(shares: Shares, points: Float) -> list[Float]:
    """Return what to draw outlines of, each at its 0.5 level: both cavities, the LV, the heart."""
    left, left_wall = (_at(shares, label, points) for label in (LV_CAVITY, LV_WALL))
    right = _at(shares, RV_CAVITY, points)
    return [left, right, left + left_wall, _at(shares, 0, points)]


def _brightness(normals: Float) -> Float:
    """Light by two lamps; normals along right, up and towards the viewer."""
    lit = np.full(len(normals), _AMBIENT)
    for direction, strength in _LIGHTS:
        lit += strength * np.clip(normals @ (np.array(direction) / np.linalg.norm(direction)), 0, 1)
    return lit


def _edges(depth: Float) -> Float:
    """Darken where one part of the heart hides another."""
    known = np.where(np.isfinite(depth), depth, np.nanmin(depth, initial=0.0))
    step = ndimage.maximum_filter(known, 3) - known
    return np.asarray(1.0 - 0.45 * np.clip(step / _EDGE_MM - 0.4, 0.0, 1.0))
