"""Axes of the heart's own, so that how it is stored does not change a bit of its model.

A target is cropped to its labels and a margin, its axes are put in one order and direction that its
anatomy decides, and the world becomes one along these axes, with its origin at the first voxel.
Everything runs there; the result is brought back to the target's axes and place. Spacings are rounded to
five decimals and landmarks to a millionth of a mm, more than headers in single precision and rotations
change. Padding, cropping, translation, rotation, mirrored and exchanged axes, with the matching matrix,
then give equal bits, up to the rounding of the way back. With an image no slice is left out, and its
outermost pixels are repeated where the margin is wider than it. Without an RV the patient's
right-anterior says where it is, so that such a target keeps the world's directions, and a rotation
changes its model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiacreg.algebra import determinants, invert, multiply
from cardiacreg.anatomy.landmarks import base_by_landmarks, base_is_at_last_slice
from cardiacreg.anatomy.stack_coverage import End
from cardiacreg.arrays import Float
from cardiacreg.geometry import (
    LV_CAVITY,
    LV_WALL,
    RV_CAVITY,
    RV_WALL,
    Affine,
    LabelMap,
    Landmarks,
    Subject,
    Volume,
    apply_matrix,
)
from cardiacreg.registration.view_samples import ViewPlane
from cardiacreg.results.result import RefineResult
from cardiacreg.slices import labelled_box, labelled_slices, stack_axes
from cardiacreg.transforms.ffd import FFD
from cardiacreg.transforms.ffd_chain import FFDChain

_MARGIN_MM = 40.0
_POINT_STEP_MM = 2.0**-20
"""A power of two, so that no decimal number lies half way between two multiples."""
_PER_MM, _BORDER = 1e5, 19 / 30
"""Spacings become multiples of 1e-5 mm, rounded up from this share on: no sixth decimal, third, sixth or
seventh, as quotients of fields of view are, lies close to it."""
_FRACTION_MM, _NEAR_MM = 2.0**-10, 1.5e-6
_EMPTY_SLICES = 1
"""So many at each end are evidence of where the heart ends; more say no more."""


class CanonicalAxes(NamedTuple):
    """How a stored target becomes the canonical one: a window, its axes in another order, some mirrored.

    Parameters
    ----------
    axes : tuple of int
        Stored axes in the order of the canonical ones.
    mirrored : tuple of bool
        Whether the canonical axes run against the stored ones.
    window : tuple of (int, int)
        First and last-plus-one stored voxel along each stored axis; may lie outside.
    spacing_mm : ndarray, shape (3,)
        Of the canonical voxels, rounded.
    canonical_to_world : ndarray, shape (4, 4)
        From the canonical world to the stored one, mm; a rotation where the stored axes are orthogonal.
    turned : bool
        Whether the canonical world lies along the canonical axes; otherwise along the stored world's.
    """

    axes: tuple[int, int, int]
    mirrored: tuple[bool, bool, bool]
    window: tuple[tuple[int, int], ...]
    spacing_mm: Float
    canonical_to_world: Float
    turned: bool = True

    @property
    def world_to_canonical(self) -> Float:
        """From the stored world to the canonical one, mm."""
        return np.asarray(invert(self.canonical_to_world), dtype=np.float64)

    def subject(self, stored: Subject) -> Subject:
        """Return a stored target on the canonical axes."""
        image, landmarks = stored.image, stored.landmarks
        matrix = self._matrix(stored.labels.voxel_to_world)
        return replace(
            stored,
            labels=LabelMap(self._array(stored.labels.array), matrix),
            image=None if image is None else Volume(self._array(image.array, "edge"), matrix),
            landmarks=None if landmarks is None else self.landmarks(landmarks),
        )

    def probabilities(self, stored: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return probabilities of labels, shape (N_LABELS, i, j, k), on the canonical axes; 0 outside."""
        return np.stack([self._array(each) for each in stored])

    def views(self, stored: Sequence[ViewPlane]) -> tuple[ViewPlane, ...]:
        """Return views in the canonical world."""
        moved = []
        for view in stored:
            matrix = multiply(self.world_to_canonical, view.labels.voxel_to_world)
            matrix[:3] = _rounded(matrix[:3], _POINT_STEP_MM)
            image = None if view.image is None else Volume(view.image.array, matrix)
            moved.append(view._replace(labels=LabelMap(view.labels.array, matrix), image=image))
        return tuple(moved)

    def landmarks(self, stored: Landmarks) -> Landmarks:
        """Return landmarks of the stored world in the canonical one."""
        points = _rounded(apply_matrix(self.world_to_canonical, stored.points_mm), _POINT_STEP_MM)
        return Landmarks(points, stored.names, stored.source)

    def slice_normal(self, stored: LabelMap) -> Float:
        """Return the direction of the canonical k axis in the stored world."""
        column = stored.voxel_to_world[:3, 2] / stored.spacing_mm[2]
        return np.asarray(_rounded(column, _POINT_STEP_MM) * self._signs[2])

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
        given = found.target.landmarks
        if given is None or given.source == "labels":
            given = self.landmarks_back(found.landmarks)
        return replace(
            found,
            labels=self.labels_back(found.labels),
            ends=self.ends_back(found.ends, found.landmarks, found.target.labels),
            confidence=self.volume_back(found.confidence),
            landmarks=given,
            transforms=tuple(self.transform_back(each) for each in found.transforms),
            slice_shifts_mm=self.shifts_back(found.slice_shifts_mm, found.target.labels.shape[2]),
            slice_turns_degrees=self._slices_back(
                self._hand * found.slice_turns_degrees, found.target.labels.shape[2]
            ),
        )

    def labels_back(self, canonical: LabelMap) -> LabelMap:
        """Return canonical labels on the stored axes, in the stored world."""
        return LabelMap(*self._grid_back(canonical))

    def volume_back(self, canonical: Volume) -> Volume:
        """Return a canonical image on the stored axes, in the stored world."""
        return Volume(*self._grid_back(canonical))

    def landmarks_back(self, canonical: Landmarks) -> Landmarks:
        """Return canonical landmarks in the stored world."""
        points = apply_matrix(self.canonical_to_world, canonical.points_mm)
        return Landmarks(points, canonical.names, canonical.source)

    def ends_back(
        self, ends: Sequence[End], canonical: Landmarks, stored: LabelMap
    ) -> tuple[End, ...]:
        """Return the ends of a stack with the empty slices that are stored beyond them.

        Parameters
        ----------
        ends : sequence of End
            The apical and the basal one.
        canonical : Landmarks
            They say which end is the apical one.
        stored : LabelMap
        """
        held = labelled_slices(stored.array)
        beyond = int(held[0]), int(stored.shape[2] - 1 - held[-1])
        at_last = base_by_landmarks(stored, self.landmarks_back(canonical))
        counts = beyond if at_last else beyond[::-1]
        return tuple(end.beyond(n) for end, n in zip(ends, counts, strict=True))

    def shifts_back(self, shifts_mm: Float, n_slices: int) -> Float:
        """Return shifts of the canonical slices as those of the stored ones; 0 for those left out."""
        return self._slices_back(self._in_plane_back(shifts_mm), n_slices)

    @overload
    def transform_back(self, canonical: FFD) -> FFD: ...

    @overload
    def transform_back(self, canonical: FFDChain) -> FFDChain: ...

    def transform_back(self, canonical: FFD | FFDChain) -> FFD | FFDChain:
        """Return a transform from the canonical world as one from the stored world.

        The affine takes the way into the canonical world; splines are turned out of it.
        """
        affine = Affine(multiply(canonical.affine.matrix, self.world_to_canonical))
        if isinstance(canonical, FFD):
            return self._spline_back(canonical, affine)
        *first, last = canonical.links
        moved = [self._spline_back(link, link.affine) for link in first]
        return FFDChain((*moved, self._spline_back(last, affine)))

    def _spline_back(self, canonical: FFD, affine: Affine) -> FFD:
        turned = multiply(canonical.displacements_mm, self.canonical_to_world[:3, :3].T)
        return FFD(affine, turned, multiply(self.canonical_to_world, canonical.lattice_to_world))

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
        if self.turned:
            return np.diag([*self.spacing_mm, 1.0])
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
        matrix = multiply(self.canonical_to_world, matrix)
        array = np.flip(grid.array, flipped).transpose(inverse)
        return array, matrix[:, [*inverse, 3]] + 0.0

    def _in_plane_back(self, shifts: Float) -> Float:
        moved = shifts * self._signs[:2]
        return moved if self.axes[0] == 0 else moved[:, ::-1]

    def _slices_back(self, values: Float, n_slices: int) -> Float:
        """Put values per canonical slice where the stored slices are; 0 for those left out."""
        first, _ = self.window[2]
        placed = np.zeros((n_slices, *values.shape[1:]))
        ordered = values[::-1] if self.mirrored[2] else values
        placed[first : first + len(values)] = ordered
        return placed + 0.0


def find_canonical_axes(
    stored: Subject, *, all_slices: bool = False, like: CanonicalAxes | None = None
) -> CanonicalAxes:
    """Find the canonical axes of a target.

    Parameters
    ----------
    stored : Subject
        Slices along the last axis.
    all_slices : bool
        Whether to keep all slices without labels; one at each end when absent.
    like : CanonicalAxes, optional
        Those of another frame, stored alike, whose axes are taken.

    Returns
    -------
    CanonicalAxes
    """
    labels = stored.labels
    spacing = rounded_spacing(labels.spacing_mm)
    axes, mirrored = _axes(labels, spacing) if like is None else (like.axes, like.mirrored)
    turned = _shows_both(labels) if like is None else like.turned
    window = _window(stored, spacing, all_slices or stored.image is not None)
    first = np.empty(3)
    for axis, backwards in zip(axes, mirrored, strict=True):
        first[axis] = window[axis][1] - 1 if backwards else window[axis][0]
    to_world = np.eye(4)
    to_world[:3, 3] = apply_matrix(labels.voxel_to_world, first)
    directions = stack_axes(labels.voxel_to_world, "refine")[:3, list(axes)]
    if turned:
        to_world[:3, :3] = directions * np.where(mirrored, -1.0, 1.0)
    return CanonicalAxes(axes, mirrored, window, spacing[list(axes)], to_world, turned)


def _rounded(values: Float, step: float) -> Float:
    return np.asarray(np.rint(values / step) * step + 0.0, dtype=np.float64)


def rounded_spacing(spacing_mm: Float) -> Float:
    """Return a spacing without the noise of a rotation or of a header in single precision.

    Multiples of 1/1024 mm, which are common, come first; the others become decimals, as single precision
    holds them: what an unrotated header says is kept.

    Parameters
    ----------
    spacing_mm : ndarray, shape (3,)

    Returns
    -------
    ndarray, shape (3,)
    """
    fraction = np.rint(spacing_mm / _FRACTION_MM) * _FRACTION_MM
    decimal = np.floor(spacing_mm * _PER_MM + (1 - _BORDER)) / _PER_MM
    found = np.where(np.abs(spacing_mm - fraction) < _NEAR_MM, fraction, decimal)
    return np.asarray(found.astype(np.float32), dtype=np.float64)


def _shows_both(labels: LabelMap) -> bool:
    """Whether labels say on which side of the LV the RV lies."""
    left, right = (
        np.isin(labels.array, wanted).any(axis=(0, 1))
        for wanted in ((LV_CAVITY, LV_WALL), (RV_CAVITY, RV_WALL))
    )
    return bool((left & right).any() and (labels.array == RV_CAVITY).any())


def _axes(
    labels: LabelMap, spacing_mm: Float
) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Let k run from apex to base, i from RV to LV, and j so that the hand is right."""
    linear = labels.voxel_to_world[:3, :3]
    left, right = (
        np.argwhere(np.isin(labels.array, wanted)).reshape(-1, 3)
        for wanted in ((LV_CAVITY, LV_WALL), (RV_CAVITY,))
    )
    if len(left) and len(right):
        towards = ((left.mean(axis=0) - right.mean(axis=0)) * spacing_mm)[:2]
    else:
        towards = linear[0, :2]
    i = int(np.abs(towards[1]) > np.abs(towards[0]))
    axes = (i, 1 - i, 2)
    signs = np.array([-1.0 if towards[i] < 0 else 1.0, 1.0, 1.0])
    signs[2] = 1.0 if base_is_at_last_slice(labels) else -1.0
    signs[1] = 1.0 if determinants(linear[:, list(axes)] * signs) > 0 else -1.0
    return axes, (bool(signs[0] < 0), bool(signs[1] < 0), bool(signs[2] < 0))


def _window(stored: Subject, spacing_mm: Float, all_slices: bool) -> tuple[tuple[int, int], ...]:
    labels = stored.labels
    box, n_slices = labelled_box(labels), labels.shape[2]
    window = []
    for side, spacing in zip(box[:2], spacing_mm[:2], strict=True):
        margin = int(np.ceil(_MARGIN_MM / spacing - 1e-6))
        window.append((side.start - margin, side.stop + margin))
    first, last = box[2].start - _EMPTY_SLICES, box[2].stop + _EMPTY_SLICES
    window.append((0, n_slices) if all_slices else (max(first, 0), min(last, n_slices)))
    return tuple(window)
