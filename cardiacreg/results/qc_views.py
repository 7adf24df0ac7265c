"""Display geometry of a result: axes of the heart, its slices and long-axis cuts.

Everything is computed along the target's axes: mm along its i, j and k. There short-axis slices
lie flat whatever the scan's orientation, and only the sign of the axes' determinant tells a
left-handed lattice from a right-handed one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cardiacreg.arrays import Float
from cardiacreg.geometry import (
    LV_CAVITY,
    LV_WALL,
    RV_CAVITY,
    RV_WALL,
    LabelMap,
    Landmarks,
    Subject,
    Volume,
    apply_matrix,
    nearest_labels,
)
from cardiacreg.slices import labelled_slices, stack_axes

STEP_MM = 0.6
MARGIN_MM = 8.0
_ANTERIOR, _TURNING, _INFERIOR, _LATERAL, _APEX, _BASE = range(6)


class Drawable(Protocol):
    """What figures need of a result: the model, its target, and how the slices of both lie."""

    @property
    def labels(self) -> LabelMap:
        """The model."""

    @property
    def target(self) -> Subject:
        """The acquired labels and image."""

    @property
    def landmarks(self) -> Landmarks:
        """The six of the target."""

    @property
    def slice_shifts_mm(self) -> NDArray[np.float64]:
        """Shift of every slice, shape (n_slices, 2): true position = stored position + shift."""


class HeartAxes(NamedTuple):
    """Directions of a heart along its target's axes.

    `to_base` is +1 where k grows from apex to base; `right` and `up` are the in-plane axes of a
    short-axis panel seen from the apex; `rv` and `anterior` are anatomical unit vectors in plane;
    `axis_point` and `axis_slope` give the LV's long axis as point + slope * k_mm.
    """

    to_world: Float
    to_base: float
    right: Float
    up: Float
    rv: Float
    anterior: Float
    axis_point: Float
    axis_slope: Float


class Box(NamedTuple):
    """A rectangle to show, in mm along the display axes."""

    left: float
    right: float
    bottom: float
    top: float


class Cut(NamedTuple):
    """A plane to show: origin and two orthonormal directions along the target's axes, and its box."""

    origin: Float
    across: Float
    upward: Float
    box: Box


def heart_axes(result: Drawable) -> HeartAxes:
    """Find how to turn a result so that the apex is at the bottom and the RV to the left."""
    axes = stack_axes(result.target.labels.voxel_to_world, "qc figure")
    points = apply_matrix(_between(axes, np.eye(4)), result.landmarks.points_mm)
    rise = points[_BASE] - points[_APEX]
    to_base = 1.0 if rise[2] >= 0 else -1.0
    rv = _rv_direction(result, axes, points)
    anterior = _anterior_direction(axes, points, rv, to_base)
    right = max(_signed_axes(), key=lambda axis: float(axis @ -rv))
    sideways = np.array([-right[1], right[0]])
    up = sideways if sideways @ anterior >= 0 else -sideways
    slope = rise[:2] / rise[2] if abs(rise[2]) > 1.0 else np.zeros(2)
    axis_point = points[_APEX, :2] - slope * points[_APEX, 2]
    return HeartAxes(axes, to_base, right, up, rv, anterior, axis_point, slope)


def _anterior_direction(axes: Float, points: Float, rv: Float, to_base: float) -> Float:
    """Find the in-plane side on which the anterior insertion lies, even under a mirrored header."""
    handedness = float(np.sign(np.linalg.det(axes[:3, :3])))
    anterior = handedness * to_base * np.array([-rv[1], rv[0]])
    offset = float((points[_ANTERIOR, :2] - points[_INFERIOR, :2]) @ anterior)
    return -anterior if offset < -1.0 else anterior


def _between(to: Float, start: Float) -> Float:
    """Return the matrix from one lattice or set of axes to another that shares its world."""
    return np.asarray(np.linalg.inv(to) @ start, dtype=np.float64)


def _signed_axes() -> list[Float]:
    return [sign * axis for axis in np.eye(2) for sign in (1.0, -1.0)]


def _rv_direction(result: Drawable, axes: Float, points: Float) -> Float:
    """Find the in-plane unit vector from the LV's to the RV's centre."""
    left = _centre(result.labels, (LV_CAVITY, LV_WALL), axes)
    right = _centre(result.labels, (RV_CAVITY, RV_WALL), axes)
    if left is None or right is None:
        left, right = points[_LATERAL], points[_TURNING]
    offset = (right - left)[:2]
    length = float(np.linalg.norm(offset))
    return np.asarray(offset / length) if length > 1e-6 else np.array([-1.0, 0.0])


def _centre(labels: LabelMap, wanted: tuple[int, ...], axes: Float) -> Float | None:
    where = np.argwhere(np.isin(labels.array, wanted))
    if not len(where):
        return None
    return apply_matrix(_between(axes, labels.voxel_to_world), where.mean(axis=0))


def shown_slices(result: Drawable, axes: HeartAxes, count: int) -> list[int]:
    """Choose up to `count` labelled slices, evenly spread from apex to base."""
    slices = labelled_slices(result.target.labels.array)
    ordered = slices if axes.to_base > 0 else slices[::-1]
    chosen = np.unique(np.rint(np.linspace(0, len(ordered) - 1, count)).astype(int))
    return [int(ordered[n]) for n in chosen]


def heart_points(result: Drawable, axes: HeartAxes, *others: LabelMap) -> Float:
    """Return where the hearts of model, input and others end, along the target's axes, shape (n, 3)."""
    maps = (result.labels, result.target.labels, *others)
    return np.concatenate([_surface_points(labels, axes.to_world) for labels in maps])


def _surface_points(labels: LabelMap, axes: Float) -> Float:
    mask = labels.array > 0
    where = np.argwhere(mask & ~ndimage.binary_erosion(mask))
    return apply_matrix(_between(axes, labels.voxel_to_world), where.astype(np.float64))


def slice_box(points: Float, axes: HeartAxes) -> Box:
    """Return the rectangle that holds the heart in every short-axis panel."""
    return _box_around(points[:, :2] @ axes.right, points[:, :2] @ axes.up)


def _box_around(across: Float, upward: Float) -> Box:
    return Box(
        float(across.min()) - MARGIN_MM,
        float(across.max()) + MARGIN_MM,
        float(upward.min()) - MARGIN_MM,
        float(upward.max()) + MARGIN_MM,
    )


def long_axis_cut(points: Float, axes: HeartAxes, across: Float) -> Cut:
    """Return the plane through the LV's long axis that contains an in-plane direction.

    Slices appear as horizontal lines in it, the base at the top.
    """
    normal = np.array([-across[1], across[0]])
    tilt = float(axes.axis_slope @ normal)
    upward = axes.to_base * np.array([*(tilt * normal), 1.0]) / np.hypot(tilt, 1.0)
    middle = float(points[:, 2].min() + points[:, 2].max()) / 2
    origin = np.array([*(axes.axis_point + axes.axis_slope * middle), middle])
    direction = np.array([*across, 0.0])
    offsets = points - origin
    near = np.abs(offsets @ np.array([*normal, -tilt])) < 15.0
    kept = offsets[near] if near.any() else offsets
    return Cut(origin, direction, upward, _box_around(kept @ direction, kept @ upward))


def long_axis_cuts(points: Float, axes: HeartAxes, directions: Iterable[Float]) -> list[Cut]:
    """Return one cut per in-plane direction, all of the same height."""
    cuts = [long_axis_cut(points, axes, direction) for direction in directions]
    bottom, top = min(cut.box.bottom for cut in cuts), max(cut.box.top for cut in cuts)
    return [cut._replace(box=cut.box._replace(bottom=bottom, top=top)) for cut in cuts]


def slice_points(box: Box, axes: HeartAxes, k_mm: float) -> Float:
    """Return the positions of a short-axis panel's pixels, shape (rows, columns, 3)."""
    x, y = _pixels(box)
    plane = x[None, :, None] * axes.right + y[:, None, None] * axes.up
    return np.concatenate([plane, np.full((*plane.shape[:2], 1), k_mm)], axis=-1)


def cut_points(cut: Cut) -> Float:
    """Return the positions of a cut's pixels, shape (rows, columns, 3)."""
    x, y = _pixels(cut.box)
    offsets: Float = x[None, :, None] * cut.across + y[:, None, None] * cut.upward
    return cut.origin + offsets


def _pixels(box: Box) -> tuple[Float, Float]:
    """Pixel centres along both display axes."""
    return _centres(box.left, box.right), _centres(box.bottom, box.top)


def _centres(start: float, stop: float) -> Float:
    count = max(2, int(np.ceil((stop - start) / STEP_MM)))
    return start + (np.arange(count) + 0.5) * (stop - start) / count


def labels_on_axes(labels: LabelMap, axes: Float, points: Float) -> NDArray[np.uint8]:
    """Look up the label of the nearest voxel at points along given axes; 0 outside the lattice."""
    return nearest_labels(labels, apply_matrix(_between(labels.voxel_to_world, axes), points))


def label_share(labels: LabelMap, label: int, axes: Float, points: Float) -> Float:
    """Return the trilinear share of a label at each point; its 0.5 level is the outline."""
    voxel = apply_matrix(_between(labels.voxel_to_world, axes), points)
    mask = (labels.array == label).astype(np.float32)
    share = ndimage.map_coordinates(mask, np.moveaxis(voxel, -1, 0), order=1, mode="constant")
    return np.asarray(share, dtype=np.float64)


def intensities(image: Volume, axes: Float, points: Float) -> Float:
    """Sample an image linearly; NaN outside the lattice."""
    voxel = apply_matrix(_between(image.voxel_to_world, axes), points)
    inside = ((voxel >= -0.5) & (voxel <= np.array(image.shape) - 0.5)).all(axis=-1)
    found = ndimage.map_coordinates(image.array, np.moveaxis(voxel, -1, 0), order=1, mode="nearest")
    return np.where(inside, found, np.nan)
