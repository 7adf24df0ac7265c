"""How far slices and views are shifted against each other, from the lines where their planes meet.

A slice and a view show the same heart along the line where they meet. The shift along it that makes both
agree best tells the difference of their shifts along that line, without any atlas: by labels, where both
draw a structure, and by grey levels, where both have images. Every line is one equation of each kind,
``(s - t) . d = delta``, for the slice's shift s, the view's shift t and the line's direction d; true =
stored position + shift.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, map_coordinates

from cardiacreg.algebra import invert, length, multiply, solve
from cardiacreg.arrays import Float
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, Volume, apply_matrix
from cardiacreg.registration.prepared_target import PreparedTarget
from cardiacreg.registration.view_samples import ViewPlane
from cardiacreg.slices import labelled_slices

_REGIONS = ((LV_CAVITY,), (LV_CAVITY, LV_WALL), (RV_CAVITY,))
_STEP_MM, _REACH_MM = 0.25, 8.0
_LEAST_MM = 8.0
"""A structure that a line meets for less is not compared."""
_ERROR_MM = 0.3
"""How a line errs where both planes show the same, and one more for so much of them that differs."""
_LEAST_SINE = 0.5
"""Of the angle between two planes that are compared."""
_HALF_LINE_MM = 120.0
_HALF_GREY_MM, _BLUR_MM = 60.0, 1.0
"""Grey levels are compared so far around the heart, less the reach, smoothed along the line."""
_LEAST_CORRELATION, _LEAST_KNOWN = 0.7, 0.6
_GREY_ERROR_MM, _GREY_UNLIKE = 0.45, 5.0
"""How grey levels err where both planes show the same, and how much more where they differ."""
_SURPRISING = 2.0
_NO_PRIOR_MM = 20.0
"""Shifts are as good as free while lines are compared with each other."""


class Crossings(NamedTuple):
    """The equations of all lines for the shifts of slices and views.

    Parameters
    ----------
    rows : ndarray, shape (m, 2 (n_slices + n_views))
        Coefficients: for each slice and then each view its two in-plane components.
    offsets_mm : ndarray, shape (m,)
    errors_mm : ndarray, shape (m,)
        Standard deviation of each equation.
    """

    rows: Float
    offsets_mm: Float
    errors_mm: Float


def crossings(
    prepared: PreparedTarget, views: Sequence[ViewPlane], image: Volume | None = None
) -> Crossings:
    """Compare every labelled slice with every view, and the views, along the lines where they meet.

    Parameters
    ----------
    prepared : PreparedTarget
    views : sequence of ViewPlane
        The planes that `prepared` holds, in their order.
    image : Volume, optional
        Of the stack, on its lattice.

    Returns
    -------
    Crossings
    """
    n_rows = prepared.labels.shape[2] + len(views)
    slices, seen = _slices(prepared, image), _views(prepared, views)
    pairs = [*product(slices, seen), *combinations(seen, 2)]
    rows, offsets, errors = [], [], []
    for first, second in pairs:
        line = _line(first, second, _near(first, slices))
        if line is None:
            continue
        row = np.zeros((n_rows, 2))
        row[first.row] = multiply(first.axes, line.direction)
        row[second.row] = multiply(-second.axes, line.direction)
        for found in (_offset(first, second, line), _grey_offset(first, second, line)):
            if found is not None:
                rows.append(row.ravel())
                offsets.append(found[0])
                errors.append(found[1])
    return Crossings(np.reshape(rows, (-1, 2 * n_rows)), np.array(offsets), np.array(errors))


class _Plane(NamedTuple):
    """A slice or a view along the target's axes."""

    row: int
    """In the table of shifts."""
    array: NDArray[np.uint8]
    """Labels, shape (i, j)."""
    to_axes: Float
    """Pixels (i, j, 0) to mm along the target's axes."""
    axes: Float
    """In-plane unit vectors, shape (2, 3)."""
    grey: NDArray[np.float32] | None
    """Grey levels of the same pixels."""

    @property
    def normal(self) -> Float:
        """Unit vector across the plane."""
        return np.cross(*self.axes)

    def centre_mm(self) -> Float:
        """Mean position of its labels."""
        held = np.argwhere(self.array > 0).mean(axis=0)
        return np.asarray(multiply(self.to_axes[:3, :2], held) + self.to_axes[:3, 3])

    def profile(self, region: tuple[int, ...], points_mm: Float) -> Float:
        """How much of a region the plane shows at points, 0 to 1, linear between its pixels."""
        mask = np.isin(self.array, region).astype(np.float32)
        return self._sampled(mask, points_mm, 0.0)

    def grey_profile(self, points_mm: Float) -> Float:
        """Grey levels at points, linear between pixels; NaN beyond the image."""
        assert self.grey is not None
        return self._sampled(self.grey, points_mm, np.nan)

    def _sampled(self, values: NDArray[np.float32], points_mm: Float, beyond: float) -> Float:
        to_pixels: Float = invert(self.to_axes).astype(np.float64)
        pixels = apply_matrix(to_pixels, points_mm)[:, :2]
        found = map_coordinates(values, pixels.T, order=1, mode="constant", cval=beyond)
        return np.asarray(found, dtype=np.float64)


def _near(first: _Plane, slices: Sequence[_Plane]) -> Float:
    """A point near which planes are compared: the centre of a slice's labels, or of all slices'."""
    if first.row < slices[-1].row + 1 and first.array.any():
        return first.centre_mm()
    return np.asarray(np.mean([each.centre_mm() for each in slices], axis=0))


def _slices(prepared: PreparedTarget, image: Volume | None) -> list[_Plane]:
    stack = prepared.labels
    found = []
    for k in labelled_slices(stack.array):
        matrix = np.diag([*stack.spacing_mm, 1.0])
        matrix[2, 3] = k * stack.spacing_mm[2]
        grey = None if image is None else image.array[:, :, k]
        found.append(_Plane(int(k), stack.array[:, :, k], matrix, np.eye(3)[:2], grey))
    return found


def _views(prepared: PreparedTarget, views: Sequence[ViewPlane]) -> list[_Plane]:
    assert prepared.views is not None
    to_axes, n_slices = invert(prepared.samples.axes_to_world), prepared.labels.shape[2]
    return [
        _Plane(
            n_slices + n,
            view.labels.array[:, :, 0],
            multiply(to_axes, view.labels.voxel_to_world),
            axes,
            None if view.image is None else view.image.array[:, :, 0],
        )
        for n, (view, axes) in enumerate(zip(views, prepared.views.axes, strict=True))
    ]


class _Line(NamedTuple):
    """Where two planes meet, along the target's axes."""

    point_mm: Float
    direction: Float


def _line(first: _Plane, second: _Plane, near_mm: Float) -> _Line | None:
    """The line where two planes meet, and its point nearest to a given one."""
    normals = np.stack([first.normal, second.normal])
    direction = np.cross(*normals)
    sine = length(direction)
    if sine < _LEAST_SINE:
        return None
    direction /= sine
    heights = [multiply(plane.normal, plane.to_axes[:3, 3] - near_mm) for plane in (first, second)]
    away = np.array([*heights, 0.0])
    point = near_mm + solve(np.stack([*normals, direction]), away)
    return _Line(point, direction)


def _offset(first: _Plane, second: _Plane, line: _Line) -> tuple[float, float] | None:
    """Shift along a line that makes both planes agree best, and its error; None without enough."""
    places = np.arange(-_HALF_LINE_MM, _HALF_LINE_MM + _STEP_MM / 2, _STEP_MM)
    points = line.point_mm + places[:, None] * line.direction
    one, other = (
        np.stack([plane.profile(region, points) for region in _REGIONS])
        for plane in (first, second)
    )
    shown = np.minimum(one.sum(axis=1), other.sum(axis=1)) * _STEP_MM > _LEAST_MM
    return _best_shift(one[shown], other[shown]) if shown.any() else None


def _best_shift(first: Float, second: Float) -> tuple[float, float]:
    """Shift of the second against the first set of profiles, and its error."""
    most = round(_REACH_MM / _STEP_MM)
    shifts = np.arange(-most, most + 1)
    costs = np.array([((first - np.roll(second, -n, axis=1)) ** 2).sum() for n in shifts])
    best = int(np.argmin(costs))
    part = 0.0
    if 0 < best < len(shifts) - 1:
        before, here, after = costs[best - 1 : best + 2]
        bend = before - 2 * here + after
        part = 0.5 * (before - after) / bend if bend > 0 else 0.0
    edges = 2 * len(first)
    differs_mm = float(costs[best]) * _STEP_MM / edges
    error = np.sqrt((_ERROR_MM**2 + differs_mm**2) * 2 / edges)
    return float((shifts[best] + part) * _STEP_MM), float(error)


def _grey_offset(first: _Plane, second: _Plane, line: _Line) -> tuple[float, float] | None:
    """Shift along a line with the highest correlation of grey levels; None without a clear one."""
    if first.grey is None or second.grey is None:
        return None
    places = np.arange(-_HALF_GREY_MM, _HALF_GREY_MM + _STEP_MM / 2, _STEP_MM)
    points = line.point_mm + places[:, None] * line.direction
    one, other = (
        gaussian_filter1d(plane.grey_profile(points), _BLUR_MM / _STEP_MM)
        for plane in (first, second)
    )
    most = round(_REACH_MM / _STEP_MM)
    shifts = np.arange(-most, most + 1)
    likeness = np.array([_correlation(one, np.roll(other, -n), most) for n in shifts])
    best = int(np.argmax(likeness))
    if not 0 < best < len(shifts) - 1 or likeness[best] < _LEAST_CORRELATION:
        return None
    before, here, after = likeness[best - 1 : best + 2]
    bend = before - 2 * here + after
    part = 0.5 * (before - after) / bend if bend < 0 else 0.0
    error = _GREY_ERROR_MM * (1 + _GREY_UNLIKE * (1 - here))
    return float((shifts[best] + part) * _STEP_MM), float(error)


def _correlation(one: Float, other: Float, margin: int) -> float:
    """Correlation of two profiles where both are known, without their margins; -1 without enough."""
    one, other = one[margin:-margin], other[margin:-margin]
    known = np.isfinite(one) & np.isfinite(other)
    if known.mean() < _LEAST_KNOWN:
        return -1.0
    first, second = one[known] - one[known].mean(), other[known] - other[known].mean()
    size = float(np.sqrt(multiply(first, first) * multiply(second, second)))
    return float(multiply(first, second)) / size if size > 0 else -1.0


def settled(found: Crossings, rounds: int = 3) -> Crossings:
    """Give less weight to lines that the others contradict.

    Parameters
    ----------
    found : Crossings
    rounds : int

    Returns
    -------
    Crossings
        With larger errors where a line is farther from what all lines together say than `_SURPRISING` of
        its errors.
    """
    prior = np.eye(found.rows.shape[1]) / _NO_PRIOR_MM**2
    errors = found.errors_mm
    for _ in range(rounds if len(errors) else 0):
        scaled = found.rows / errors[:, None]
        shifts = solve(
            multiply(scaled.T, scaled) + prior, multiply(scaled.T, found.offsets_mm / errors)
        )
        away = np.abs(multiply(found.rows, shifts) - found.offsets_mm) / found.errors_mm
        errors = found.errors_mm * np.maximum(1.0, away / _SURPRISING)
    return found._replace(errors_mm=errors)


def information(found: Crossings, kept: NDArray[np.int64]) -> tuple[Float, Float]:
    """Return the inverse covariance of the kept shifts, along both axes in turn, and it times them.

    Parameters
    ----------
    found : Crossings
    kept : ndarray of int, shape (n,)
        Rows of the table of shifts that are unknown; the others are zero.

    Returns
    -------
    precision : ndarray, shape (2 n, 2 n)
        First all first components, then all second ones.
    weighed : ndarray, shape (2 n,)
    """
    columns = np.concatenate([2 * kept, 2 * kept + 1])
    scaled = found.rows[:, columns] / found.errors_mm[:, None]
    return multiply(scaled.T, scaled), multiply(scaled.T, found.offsets_mm / found.errors_mm)
