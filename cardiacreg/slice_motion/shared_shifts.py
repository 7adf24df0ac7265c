"""Slice shifts that all frames of a cine share: the frames of a slice are acquired in one breath-hold.

Every frame gives an estimate of the shifts of the slices that it labels, with an inverse covariance
(`shifts.weighed_estimates`): of registered atlases and of the statistics of many. There is one unknown
per slice for the whole cycle, so that the estimates are averaged, each slice weighed by how sure the
frames are of it; `CONFIDENCE_PAST_ED` is how sure a frame is in truth that claims to be as sure as
end-diastole. The errors of two frames are alike (a heart that bends unusually does so in both): the
average is taken for as sure as one frame, no more, and the part of it that says "shifts are small" counts
once.

A frame may be misled about a slice, where its outlines only graze the heart. The variance of a slice that
is farther from the average than `_STRAY_MM` grows by the square of that distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiacreg.algebra import multiply, settled, solve
from cardiacreg.arrays import Float
from cardiacreg.compute.threads import ProgressCallable, run_tasks
from cardiacreg.registration.aligned_atlas import AlignedAtlas
from cardiacreg.registration.ffd_registration import (
    PreparedTarget,
    Registration,
    RegistrationOptions,
    StopReason,
    register_prepared,
)
from cardiacreg.slice_motion.shift_statistics import expected_shifts
from cardiacreg.slice_motion.shifts import robust_median, weighed_estimates
from cardiacreg.slices import labelled_slices

CONFIDENCE_PAST_ED = 0.25
"""On six synthetic hearts (seeds 11000 to 11005) the shifts of one frame err by .49 mm on average, of
end-diastole and end-systole together, weighed alike, by .39 and weighed so by .35."""
_STRAY_MM = 0.8
_ROUNDS = 3


class FrameShifts(NamedTuple):
    """What one frame tells of the shifts of the slices that it labels.

    Parameters
    ----------
    slices : ndarray of int, shape (n,)
    shifts_mm : ndarray, shape (n, 2)
        Along the target's i and j axes, true = stored position + shift.
    precision : ndarray, shape (2 n, 2 n)
        Inverse covariance, along i, then along j, mm^-2.
    """

    slices: NDArray[np.int64]
    shifts_mm: Float
    precision: Float


def frame_shifts(
    prepared: PreparedTarget,
    atlases: Sequence[AlignedAtlas],
    options: RegistrationOptions,
    *,
    statistics: Sequence[AlignedAtlas] = (),
    threads: int = 1,
    progress: ProgressCallable | None = None,
) -> FrameShifts | None:
    """Estimate the shifts of one frame's slices, with their inverse covariance.

    Parameters
    ----------
    prepared, atlases, options, statistics, threads, progress
        As for `shifts.estimate_slice_motion`.

    Returns
    -------
    FrameShifts or None
        None where the statistics say that nothing moved, or no atlas overlaps.
    """
    expected = expected_shifts(prepared, statistics, threads=threads)
    if expected is not None and expected.size_mm == 0:
        return None

    stage = replace(options, estimate_shifts=True)

    def register(pair: AlignedAtlas) -> Registration:
        return register_prepared(prepared, *pair, stage)

    found = run_tasks(register, atlases, threads=threads, step="slice motion", progress=progress)
    overlapping = [r for r in found if r.stop_reason is not StopReason.NO_OVERLAP]
    if not overlapping:
        return None
    slices = labelled_slices(prepared.labels.array)
    shifts = np.stack([r.slice_shifts_mm[slices] for r in overlapping])
    consistencies = np.array([r.consistency_after for r in overlapping])
    n = len(slices)
    told = np.zeros((n, 2)) if expected is None else expected.shifts_mm[slices]
    known = np.zeros((2 * n, 2 * n)) if expected is None else expected.precision
    precision, weighed = weighed_estimates(shifts, consistencies, told, known)
    if expected is None:
        return FrameShifts(slices, robust_median(shifts, consistencies), precision)
    solved: Float = np.asarray(solve(precision, weighed), dtype=np.float64)
    return FrameShifts(slices, solved.reshape(2, n).T, precision)


def shared_shifts(
    frames: Sequence[FrameShifts | None], n_slices: int, confidence: Sequence[float] | None = None
) -> Float:
    """Return the shifts of all slices that the frames agree on.

    Parameters
    ----------
    frames : sequence of FrameShifts or None
        None: the frame shows no motion.
    n_slices : int
    confidence : sequence of float, optional
        Factor on the inverse covariance of every frame; 1 when absent.

    Returns
    -------
    ndarray, shape (n_slices, 2)
        With mean zero over the slices that any frame labels, zero in others; zero everywhere where most
        frames show no motion.
    """
    factors = [1.0] * len(frames) if confidence is None else confidence
    known = [
        each._replace(precision=factor * each.precision)
        for each, factor in zip(frames, factors, strict=True)
        if each is not None
    ]
    found = np.zeros((n_slices, 2))
    if 2 * len(known) < len(frames) or not known:
        return found
    found = _average(known, n_slices)
    for _ in range(_ROUNDS):
        found = _average([_doubted(each, found) for each in known], n_slices)
    labelled = np.unique(np.concatenate([each.slices for each in known]))
    found[labelled] -= found[labelled].mean(axis=0)
    return found


def _average(frames: Sequence[FrameShifts], n_slices: int) -> Float:
    """Mean of the frames' shifts by their inverse covariances; a common shift counts in none."""
    total, told = np.zeros((2 * n_slices, 2 * n_slices)), np.zeros(2 * n_slices)
    for each in frames:
        place = np.concatenate([each.slices, each.slices + n_slices])
        total[np.ix_(place, place)] += each.precision
        told[place] += multiply(each.precision, each.shifts_mm.T.ravel())
    used = np.flatnonzero(np.diag(total) > 0)
    found = np.zeros(2 * n_slices)
    solved = np.linalg.lstsq(total[np.ix_(used, used)], told[used], rcond=1e-9)
    found[used] = settled(solved[0])
    return found.reshape(2, n_slices).T


def _doubted(frame: FrameShifts, shared: Float) -> FrameShifts:
    """Return a frame with more variance for the slices that stray from what the frames share.

    With D of those variances, ``(P^-1 + D^2)^-1 = P - P D (1 + D P D)^-1 D P``.
    """
    away = frame.shifts_mm - shared[frame.slices]
    away = away - np.median(away, axis=0)
    more = np.sqrt(np.maximum((away**2).sum(axis=1) - _STRAY_MM**2, 0.0))
    deviation, precision = np.tile(more, 2), frame.precision
    inner = np.eye(len(precision)) + deviation * precision * deviation[:, None]
    half = deviation[:, None] * precision
    return frame._replace(precision=precision - multiply(half.T, solve(inner, half)))
