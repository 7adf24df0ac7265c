"""A frame of the heart's own, so that how it is stored does not change a bit of its model.

A target is cropped to its labels and a margin, its axes are put in one order and direction that its
anatomy decides, and the world's origin is moved to its first voxel. Everything runs there; the result is
brought back to the target's axes and place. Padding, cropping, translation, mirrored and exchanged axes,
with the matching matrix, then give equal bits, up to the rounding of the way back. With an image no slice
is left out, and its outermost pixels are repeated where the margin is wider than it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiacreg.anatomy.landmarks import base_is_at_last_slice
from cardiacreg.arrays import Float
from cardiacreg.geometry import (
    LV_CAVITY,
    LV_WALL,
    RV_CAVITY,
    LabelMap,
    Landmarks,
    Subject,
    Volume,
    apply_matrix,
)
from cardiacreg.registration.view_samples import ViewPlane
from cardiacreg.results.result import RefineResult
from cardiacreg.slices import labelled_box, labelled_slices

_MARGIN_MM = 40.0
_EMPTY_SLICES = 1
"""So many at each end are evidence of where the heart ends; more say no more."""


class CanonicalFrame(NamedTuple):
    """How a stored target becomes the canonical one: a window, its axes in another order, some mirrored.

    Parameters
    ----------
    axes : tuple of int
        Stored axes in the order of the canonical ones.
    mirrored : tuple of bool
        Whether the canonical axes run against the stored ones.
    window : tuple of (int, int)
        First and last-plus-one stored voxel along each stored axis; may lie outside.
    origin_mm : ndarray, shape (3,)
        Where the canonical world begins.
    """

    axes: tuple[int, int, int]
    mirrored: tuple[bool, bool, bool]
    window: tuple[tuple[int, int], ...]
    origin_mm: Float

    def subject(self, stored: Subject) -> Subject:
        """Return a stored target in the canonical frame."""
        image, landmarks = stored.image, stored.landmarks
        matrix = self._matrix(stored.labels.voxel_to_world)
        return replace(
            stored,
            labels=LabelMap(self._array(stored.labels.array), matrix),
            image=None if image is None else Volume(self._array(image.array, "edge"), matrix),
            landmarks=None
            if landmarks is None
            else Landmarks(landmarks.points_mm - self.origin_mm, source=landmarks.source),
        )

    def views(self, stored: Sequence[ViewPlane]) -> tuple[ViewPlane, ...]:
        """Return views in the canonical world."""
        moved = []
        for view in stored:
            matrix = view.labels.voxel_to_world.copy()
            matrix[:3, 3] = np.round(matrix[:3, 3] - self.origin_mm, 6)
            moved.append(view._replace(labels=LabelMap(view.labels.array, matrix)))
        return tuple(moved)

    def spacing(self, spacing_mm: ArrayLike) -> Float:
        """Return a model's spacing along the canonical axes."""
        return np.asarray(spacing_mm, dtype=np.float64)[list(self.axes)]

    def result(self, found: RefineResult) -> RefineResult:
        """Return a result with the stored target's axes, slices and place.

        Parameters
        ----------
        found : RefineResult
            All canonical but for its target.
        """
        points = found.landmarks.points_mm + self.origin_mm
        stored = found.target.labels
        held = labelled_slices(stored.array)
        beyond = int(held[0]), int(stored.shape[2] - 1 - held[-1])
        rise = np.linalg.inv(stored.voxel_to_world)[2, :3] @ (points[5] - points[4])
        return replace(
            found,
            labels=LabelMap(*self._grid_back(found.labels)),
            ends=tuple(
                end.beyond(n)
                for end, n in zip(found.ends, beyond if rise > 0 else beyond[::-1], strict=True)
            ),
            confidence=Volume(*self._grid_back(found.confidence)),
            landmarks=Landmarks(points, source=found.landmarks.source),
            slice_shifts_mm=self._slices_back(self._in_plane_back(found.slice_shifts_mm), found),
            slice_turns_degrees=self._slices_back(
                self._hand * found.slice_turns_degrees, found
            ),
        )  # fmt: skip

    @property
    def _signs(self) -> Float:
        return np.where(self.mirrored, -1.0, 1.0)

    @property
    def _hand(self) -> float:
        """-1 where the plane of the slices is mirrored."""
        return float(np.prod(self._signs[:2])) * (1.0 if self.axes[0] == 0 else -1.0)

    def _array(self, stored: NDArray[Any], beyond: Any = "constant") -> NDArray[Any]:
        pads = [
            (max(-a, 0), max(b - n, 0)) for (a, b), n in zip(self.window, stored.shape, strict=True)
        ]
        part = stored[tuple(slice(max(a, 0), b) for a, b in self.window)]
        part = np.pad(part, pads, mode=beyond).transpose(self.axes)
        return np.flip(part, tuple(axis for axis in range(3) if self.mirrored[axis]))

    def _matrix(self, stored: Float) -> Float:
        matrix = np.eye(4)
        matrix[:3, :3] = stored[:3, list(self.axes)] * self._signs + 0.0
        return matrix

    def _grid_back(self, grid: LabelMap | Volume) -> tuple[NDArray[Any], Float]:
        inverse = [self.axes.index(axis) for axis in range(3)]
        flipped = tuple(axis for axis in range(3) if self.mirrored[axis])
        matrix = np.array(grid.voxel_to_world)
        for axis in flipped:
            matrix[:3, 3] += matrix[:3, axis] * (grid.shape[axis] - 1)
            matrix[:3, axis] *= -1
        matrix[:3, 3] += self.origin_mm
        array = np.flip(grid.array, flipped).transpose(inverse)
        return array, matrix[:, [*inverse, 3]] + 0.0

    def _in_plane_back(self, shifts: Float) -> Float:
        moved = shifts * self._signs[:2]
        return moved if self.axes[0] == 0 else moved[:, ::-1]

    def _slices_back(self, values: Float, found: RefineResult) -> Float:
        """Put values per canonical slice where the stored slices are; 0 for those left out."""
        first, _ = self.window[2]
        placed = np.zeros((found.target.labels.shape[2], *values.shape[1:]))
        ordered = values[::-1] if self.mirrored[2] else values
        placed[first : first + len(values)] = ordered
        return placed + 0.0


def canonical_frame(
    stored: Subject, *, all_slices: bool = False, like: CanonicalFrame | None = None
) -> CanonicalFrame:
    """Find the canonical frame of a target.

    Parameters
    ----------
    stored : Subject
        Slices along the last axis.
    all_slices : bool
        Whether to keep all slices without labels; one at each end when absent.
    like : CanonicalFrame, optional
        Another frame's, stored alike, whose axes are taken.

    Returns
    -------
    CanonicalFrame
    """
    labels = stored.labels
    axes, mirrored = _axes(labels) if like is None else (like.axes, like.mirrored)
    window = _window(stored, all_slices or stored.image is not None)
    first = np.empty(3)
    for axis, backwards in zip(axes, mirrored, strict=True):
        first[axis] = window[axis][1] - 1 if backwards else window[axis][0]
    return CanonicalFrame(axes, mirrored, window, apply_matrix(labels.voxel_to_world, first))


def _axes(labels: LabelMap) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Let k run from apex to base, i from RV to LV, and j so that the hand is right."""
    linear = labels.voxel_to_world[:3, :3]
    left, right = (
        np.argwhere(np.isin(labels.array, wanted)).reshape(-1, 3)
        for wanted in ((LV_CAVITY, LV_WALL), (RV_CAVITY,))
    )
    if len(left) and len(right):
        towards = ((left.mean(axis=0) - right.mean(axis=0)) * labels.spacing_mm)[:2]
    else:
        towards = linear[0, :2]
    i = int(np.abs(towards[1]) > np.abs(towards[0]))
    axes = (i, 1 - i, 2)
    signs = np.array([-1.0 if towards[i] < 0 else 1.0, 1.0, 1.0])
    signs[2] = 1.0 if base_is_at_last_slice(labels) else -1.0
    signs[1] = 1.0 if np.linalg.det(linear[:, list(axes)] * signs) > 0 else -1.0
    return axes, (bool(signs[0] < 0), bool(signs[1] < 0), bool(signs[2] < 0))


def _window(stored: Subject, all_slices: bool) -> tuple[tuple[int, int], ...]:
    labels = stored.labels
    box, n_slices = labelled_box(labels), labels.shape[2]
    window = []
    for side, spacing in zip(box[:2], labels.spacing_mm[:2], strict=True):
        margin = int(np.ceil(_MARGIN_MM / spacing - 1e-6))
        window.append((side.start - margin, side.stop + margin))
    first, last = box[2].start - _EMPTY_SLICES, box[2].stop + _EMPTY_SLICES
    window.append((0, n_slices) if all_slices else (max(first, 0), min(last, n_slices)))
    return tuple(window)
