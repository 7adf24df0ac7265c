"""In-plane motion of the acquired slices: estimated in the registration, combined over atlases.

Breath-holds shift slices against each other. Each selected atlas is registered on a stiff lattice with
one free in-plane shift per slice. The shifts belong to the target, so their median over atlases is taken
and fixed for the deformations that follow. Atlases of another shape compensate by shifts; therefore each
has the weight ``exp((C - max C) / 0.005)`` in the median, for its label consistency C. A shift common to
all slices cannot be distinguished from a moved heart; it is kept at zero.

Atlases never agree exactly, not even about slices that did not move. Shifts no larger than the spread
between atlases are therefore taken for noise and set to zero; larger ones stay as they are.

Statistics of many atlases give a second estimate, without deformation (`shift_statistics`): they
expect w, with inverse covariance P. The errors of the registered shifts g have the covariance
``K = 0.5 (covariance between atlases) + (0.4 mm)^2 I``, except for the part common to all slices, which g
does not determine. The most likely shifts are ``(P + K^-1)^-1 (P w + K^-1 g)``. Where the statistics say
that nothing moved, nothing is estimated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiacreg.algebra import exponential, invert, multiply, solve
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
from cardiacreg.slices import labelled_slices
from cardiacreg.transforms.ffd import FFD
from cardiacreg.transforms.ffd_chain import FFDChain

_CONSISTENCY_SCALE = 0.005
"""By how much less consistency an atlas weighs a factor of e less."""
_SHARE_OF_SPREAD, _OWN_ERROR_MM = 0.5, 0.4
"""How registered shifts err: with so much of the covariance between atlases, and so much alone."""
_MEDIAN_OF_SQUARES = 0.455
"""Median of the square of a standard normal number."""


class SliceMotion(NamedTuple):
    """The target's slice shifts, and the stiff deformations they were estimated with."""

    shifts_mm: NDArray[np.float64]
    """Shape (n_slices, 2): mm along the target's i and j axes, true = stored position + shift."""
    deformations: tuple[FFD | FFDChain, ...]
    """One per atlas, a start for its registration; none where statistics say that nothing moved."""
    view_shifts_mm: NDArray[np.float64]
    """Shape (n_views, 2): mm along each view's own axes."""


def no_view_shifts(count: int = 0) -> NDArray[np.float64]:
    """Return the shifts of views that stay where they are, shape (count, 2)."""
    return np.zeros((count, 2))


def estimate_slice_motion(
    prepared: PreparedTarget,
    atlases: Sequence[AlignedAtlas],
    options: RegistrationOptions,
    *,
    statistics: Sequence[AlignedAtlas] = (),
    threads: int = 1,
    progress: ProgressCallable | None = None,
) -> SliceMotion:
    """Estimate the in-plane shift of every target slice, agreed across atlases.

    Parameters
    ----------
    prepared : PreparedTarget
    atlases : sequence of AlignedAtlas
        Labels of each atlas and its affine, target world mm to atlas world mm.
    options : RegistrationOptions
        Of the stiff registrations; these estimate shifts, whatever it says.
    statistics : sequence of AlignedAtlas
        Atlases whose statistics tell the shifts a second time, many more than are registered; with fewer
        than `shift_statistics.FEWEST_ATLASES` the registered shifts stand alone.
    threads : int
    progress : callable, optional

    Returns
    -------
    SliceMotion
        Shifts have mean zero over the acquired slices and are zero for slices without labels.
        Atlases that do not overlap have no say.
    """
    expected = expected_shifts(prepared, statistics, threads=threads)
    if expected is not None and expected.size_mm == 0:
        return SliceMotion(expected.shifts_mm, (), no_view_shifts())

    stage = replace(options, estimate_shifts=True)

    def register(pair: AlignedAtlas) -> Registration:
        return register_prepared(prepared, *pair, stage)

    found = run_tasks(register, atlases, threads=threads, step="slice motion", progress=progress)
    deformations = tuple(r.target_to_atlas for r in found)
    overlapping = [r for r in found if r.stop_reason is not StopReason.NO_OVERLAP]
    agreed = np.zeros((prepared.labels.shape[2], 2))
    if overlapping:
        slices = labelled_slices(prepared.labels.array)
        shifts = np.stack([r.slice_shifts_mm[slices] for r in overlapping])
        consistencies = np.array([r.consistency_after for r in overlapping])
        if expected is None:
            agreed[slices] = robust_median(shifts, consistencies)
        else:
            told = expected.shifts_mm[slices]
            agreed[slices] = fuse_estimates(shifts, consistencies, told, expected.precision)
    return SliceMotion(agreed, deformations, no_view_shifts())


def robust_median(
    shifts_mm: NDArray[np.float64], consistencies: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the weighted median over atlases without its mean, times ``max(0, 1 - (spread / size)^2)``.

    `shifts_mm` has shape (n_atlases, n_slices, m). Size is the mean square of the median, spread the
    robust variance between atlases, which weigh by their `consistencies`.
    """
    median, strays = _median_and_strays(shifts_mm, consistencies)
    size = float((median**2).mean())
    spread = float(np.median(strays**2, axis=0).mean()) / _MEDIAN_OF_SQUARES
    return median * max(0.0, 1 - (spread / size) ** 2) if size > 0 else median


def fuse_estimates(
    shifts_mm: NDArray[np.float64],
    consistencies: NDArray[np.float64],
    expected_mm: NDArray[np.float64],
    precision: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the most likely shifts, shape (n_slices, 2), with mean zero.

    `shifts_mm` of shape (n_atlases, n_slices, 2) were registered; statistics tell `expected_mm` of shape
    (n_slices, 2), with an inverse covariance along i, then along j, in mm^-2.
    """
    total, told = weighed_estimates(shifts_mm, consistencies, expected_mm, precision)
    found = solve(total, told).reshape(2, -1).T
    return np.asarray(found - found.mean(axis=0))


def weighed_estimates(
    shifts_mm: NDArray[np.float64],
    consistencies: NDArray[np.float64],
    expected_mm: NDArray[np.float64],
    precision: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the inverse covariance of the fused shifts, along i, then along j, and it times the shifts.

    Arguments are those of `fuse_estimates`. Such sums of several estimates may be added.
    """
    median, strays = _median_and_strays(shifts_mm, consistencies)
    n = len(median)
    total, told = precision.copy(), multiply(precision, expected_mm.T.ravel())
    for axis in range(2):
        spread = multiply(strays[..., axis].T, strays[..., axis]) / len(strays)
        inverse = invert(_SHARE_OF_SPREAD * spread + _OWN_ERROR_MM**2 * np.eye(n))
        shared = inverse.sum(axis=0)
        inverse -= np.outer(shared, shared) / shared.sum()
        own = slice(axis * n, (axis + 1) * n)
        total[own, own] += inverse
        told[own] += multiply(inverse, median[:, axis])
    return total, told


def _median_and_strays(
    shifts_mm: NDArray[np.float64], consistencies: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the weighted median over atlases without its mean, and how far every atlas is from it."""
    centred = shifts_mm - shifts_mm.mean(axis=1, keepdims=True)
    weights = exponential((consistencies - consistencies.max()) / _CONSISTENCY_SCALE)
    median = weighted_median(centred, weights)
    median -= median.mean(axis=0)
    return median, centred - median


def weighted_median(
    values: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Median along the first axis, interpolated; the usual one where all weights are equal."""
    order = np.argsort(values, axis=0, kind="stable")
    ordered = np.take_along_axis(values, order, axis=0).reshape(len(values), -1)
    shares = (weights / weights.sum())[order].reshape(len(values), -1)
    middles = np.cumsum(shares, axis=0) - shares / 2
    columns = zip(middles.T, ordered.T, strict=True)
    return np.array([np.interp(0.5, m, v) for m, v in columns]).reshape(values.shape[1:])
