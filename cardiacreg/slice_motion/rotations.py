"""In-plane rotations of the acquired slices, an option: found by search, combined over atlases.

A stored position x of a slice with shift s and turn a truly lies at ``c + R(a) (x + s - c)``, c the axis
of all turns along the target's axes. The shifts are estimated first (`slice_motion`); then every slice is
turned about its own centre through a list of angles over each atlas as its stiff deformation shows it,
and the angle with the best label consistency less a prior is kept. The atlases agree on turns as on
shifts, the slices are turned, and both are estimated again. Label consistency has a kink at every voxel
where target and atlas share a lattice, which stops a descent at no turn; a search does not see it.
A turn common to all slices cannot be told from a turned heart; it is kept at zero. Slices that statistics
find unshifted are taken for unturned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from cardiacreg.algebra import multiply
from cardiacreg.arrays import Float
from cardiacreg.compute.threads import ProgressCallable, run_tasks
from cardiacreg.geometry import LabelMap, Volume
from cardiacreg.registration.aligned_atlas import AlignedAtlas
from cardiacreg.registration.options import RegistrationOptions
from cardiacreg.registration.prepared_target import PreparedTarget
from cardiacreg.registration.target_sampling import TargetSamples
from cardiacreg.slice_motion.shifts import SliceMotion, estimate_slice_motion, robust_median
from cardiacreg.slices import rotation, slice_axis_mm
from cardiacreg.transforms.ffd import FFD
from cardiacreg.transforms.ffd_chain import FFDChain
from cardiacreg.transforms.resampling import Lattice, warp_labels

ANGLES_DEGREES = np.arange(-15.0, 15.5, 1.0)
"""The turns that are tried; between them a parabola tells."""
_PRIOR = 2e-5
"""Consistency that a turn must gain, per square degree."""
_ROUNDS = 2
_STEP_MM, _REACH_MM = 1.0, 15.0


class RotatedMotion(NamedTuple):
    """The target's slice shifts and turns, and its labels with every slice turned."""

    motion: SliceMotion
    turns_degrees: Float
    """Shape (n_slices,): from axis i towards axis j, after the shift."""
    turned: LabelMap
    """On the target's lattice: true position = stored position + shift."""


def rotate_labels(target: LabelMap, shifts_mm: Float, degrees: Float) -> LabelMap:
    """Turn every slice to where it belongs; its shift stays to be applied.

    Parameters
    ----------
    target : LabelMap
    shifts_mm : ndarray, shape (n_slices, 2)
    degrees : ndarray, shape (n_slices,)

    Returns
    -------
    LabelMap
        On the same lattice, by nearest label: true position = stored position + shift.
    """
    axis = slice_axis_mm(target)
    array = _turned(target.array, target.spacing_mm, axis, shifts_mm, degrees, order=0)
    return LabelMap(array, target.voxel_to_world)


def rotate_image(image: Volume, axis_mm: Float, shifts_mm: Float, degrees: Float) -> Volume:
    """Turn an image's slices like `rotate_labels`, linearly, about an axis in mm from its first voxel."""
    array = _turned(image.array, image.spacing_mm, axis_mm, shifts_mm, degrees, order=1)
    return Volume(array, image.voxel_to_world)


def _turned(
    array: NDArray[Any],
    spacing_mm: Float,
    axis_mm: Float,
    shifts_mm: Float,
    degrees: Float,
    order: int,
) -> NDArray[Any]:
    turned, spacing = array.copy(), spacing_mm[:2]
    for k in np.flatnonzero(degrees):
        back, away = rotation(-degrees[k]), axis_mm - shifts_mm[k]
        turned[:, :, k] = affine_transform(
            array[:, :, k],
            back * spacing / spacing[:, None],
            offset=(away - multiply(back, away)) / spacing,
            order=order,
            mode="constant" if order == 0 else "nearest",
        )
    return turned


def estimate_shifts_and_rotations(
    target: LabelMap,
    prepare: Callable[[LabelMap], PreparedTarget],
    atlases: Sequence[AlignedAtlas],
    options: RegistrationOptions,
    *,
    statistics: Sequence[AlignedAtlas] = (),
    threads: int = 1,
    progress: ProgressCallable | None = None,
) -> RotatedMotion:
    """Estimate the in-plane shift and turn of every target slice, agreed across atlases.

    Parameters
    ----------
    target : LabelMap
    prepare : callable
        Prepares a label map on the target's lattice.
    atlases, options, statistics
        As for `estimate_slice_motion`.
    threads : int
    progress : callable, optional

    Returns
    -------
    RotatedMotion
        Shifts and turns are zero for slices without labels, and turns have mean zero over the others.
    """

    def estimate(prepared: PreparedTarget) -> SliceMotion:
        return estimate_slice_motion(
            prepared, atlases, options, statistics=statistics, threads=threads, progress=progress
        )

    turns, turned = np.zeros(target.shape[2]), target
    prepared = prepare(target)
    motion = estimate(prepared)
    shifts = motion.shifts_mm
    if not motion.deformations:
        return RotatedMotion(motion, turns, turned)
    for _ in range(_ROUNDS):
        found = _agreed_turns(prepared, atlases, motion.deformations, shifts, turns, threads)
        shifts, turns = _followed(turned, shifts, turns, found, slice_axis_mm(target))
        prepared = prepare(rotate_labels(target, shifts, turns))
        motion = estimate(prepared)
        change = motion.shifts_mm - shifts
        shifts = shifts + np.stack(
            [multiply(rotation(-a), c) for a, c in zip(turns, change, strict=True)]
        )
        turned = rotate_labels(target, shifts, turns)
        prepared = prepare(turned)
    return RotatedMotion(
        SliceMotion(shifts, motion.deformations, motion.view_shifts_mm), turns, turned
    )


def _followed(
    turned: LabelMap, shifts_mm: Float, turns: Float, further: Float, axis_mm: Float
) -> tuple[Float, Float]:
    """Shifts and turns about the axis after further turns of every slice about its own centre."""
    shifts = shifts_mm.copy()
    for k in np.flatnonzero(further):
        rows, columns = np.nonzero(turned.array[:, :, k])
        centre = np.array([rows.mean(), columns.mean()]) * turned.spacing_mm[:2] + shifts_mm[k]
        gone = centre - axis_mm - multiply(rotation(further[k]), centre - axis_mm)
        shifts[k] += multiply(rotation(-turns[k] - further[k]), gone)
    return shifts, turns + further


def _agreed_turns(
    prepared: PreparedTarget,
    atlases: Sequence[AlignedAtlas],
    deformations: Sequence[FFD | FFDChain],
    shifts_mm: Float,
    turns: Float,
    threads: int,
) -> Float:
    """Further turn of every slice about its own centre: to the whole turn that the atlases agree on."""
    search = _Search(prepared, shifts_mm, turns)

    def find(number: int) -> Float:
        return search.best(atlases[number][0], deformations[number])

    found = run_tasks(find, range(len(atlases)), threads=threads)
    further = np.zeros(len(turns))
    whole = np.stack(found) + turns[search.slices]
    agreed = robust_median(whole[..., None], np.ones(len(found)))[:, 0]
    further[search.slices] = agreed - turns[search.slices]
    return further


class _Search:
    """The points of every slice through all angles, and what an atlas says to them."""

    def __init__(self, prepared: PreparedTarget, shifts_mm: Float, turns: Float) -> None:
        samples, self._codes = prepared.samples, prepared.codes
        self.slices, first = np.unique(samples.slice_index, return_index=True)
        self._turns = turns[self.slices]
        x, y, _ = samples.position_mm
        lower = np.array([x[0], y[0]]) - _REACH_MM
        upper = np.array([x[-1], y[-1]]) + _REACH_MM
        counts = np.ceil((upper - lower) / _STEP_MM).astype(int) + 1
        self._shape = (int(counts[0]), int(counts[1]))
        local = np.diag([_STEP_MM, _STEP_MM, prepared.labels.spacing_mm[2], 1.0])
        local[:2, 3] = lower
        self._lattice = Lattice(
            (*self._shape, prepared.labels.shape[2]), multiply(samples.axes_to_world, local)
        )
        self._points = [
            self._turned_points(samples, int(s), shifts_mm[k], lower)
            for s, k in zip(first, self.slices, strict=True)
        ]

    def _turned_points(
        self, samples: TargetSamples, s: int, shift_mm: Float, lower_mm: Float
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Label codes of a slice's points, and where each lies on the lattice under every angle."""
        labels, spans = samples.labels[s], samples.spans[s]
        columns = np.arange(labels.shape[1])
        i, j = np.nonzero((columns >= spans[:, :1]) & (columns < spans[:, 1:]))
        points = np.stack([samples.position_mm[0][i], samples.position_mm[1][j]], axis=-1)
        points = points + shift_mm
        centre = points[labels[i, j] > 0].mean(axis=0)
        turned = (
            np.stack([multiply(points - centre, rotation(a).T) for a in ANGLES_DEGREES]) + centre
        )
        index = np.rint((turned - lower_mm) / _STEP_MM).astype(np.int64)
        index = np.clip(index, 0, np.array(self._shape) - 1)
        return labels[i, j], index[..., 0] * self._shape[1] + index[..., 1]

    def best(self, atlas: LabelMap, deformation: FFD | FFDChain) -> Float:
        """Best further turn of every slice, in degrees."""
        warped = self._codes.codes[warp_labels(atlas, deformation, self._lattice).array]
        angles = np.zeros(len(self.slices))
        score = self._codes.score
        for n, (labels, places) in enumerate(self._points):
            plane = warped[:, :, self.slices[n]].ravel()
            total = score.max(axis=1)[labels].sum()
            matched = score[labels[None], plane[places]].sum(axis=1) / total
            gain = matched - _PRIOR * (self._turns[n] + ANGLES_DEGREES) ** 2
            angles[n] = _peak(gain)
        return angles


def _peak(values: Float) -> float:
    """Angle of the largest value, between the angles tried by the parabola through three."""
    top = int(np.argmax(values))
    if not 0 < top < len(values) - 1:
        return float(ANGLES_DEGREES[top])
    before, here, after = values[top - 1 : top + 2]
    bend = before - 2 * here + after
    part = 0.5 * (before - after) / bend if bend < 0 else 0.0
    return float(ANGLES_DEGREES[top] + part * (ANGLES_DEGREES[1] - ANGLES_DEGREES[0]))
