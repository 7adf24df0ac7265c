"""Shifts of slices and of views together: with views no shift is a matter of convention.

Short-axis slices alone do not show a shift common to all of them, nor a lean of the stack: a moved or a
leaning heart looks the same. A view shows both. Slices and views have one prior, independent shifts of
`PRIOR_MM` along each axis, and three sources tell of them, each with an inverse covariance:

* atlases registered with slices and views together: their median, with half of the covariance between
  atlases and an error of each shift's own;
* the statistics of many atlases (`shift_statistics`), of which what they say of the common shift and of
  the lean is left out: the atlases were laid over these very slices;
* the lines where slices and views meet (`crossings`), by labels and by grey levels, without atlases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiacreg.algebra import exponential, invert, multiply, solve
from cardiacreg.arrays import Float
from cardiacreg.compute.threads import ProgressCallable, run_tasks
from cardiacreg.geometry import Volume
from cardiacreg.registration.aligned_atlas import AlignedAtlas
from cardiacreg.registration.ffd_registration import (
    PreparedTarget,
    Registration,
    RegistrationOptions,
    StopReason,
    register_prepared,
)
from cardiacreg.registration.view_samples import ViewPlane
from cardiacreg.slice_motion.crossings import crossings, information, settled
from cardiacreg.slice_motion.shift_statistics import ExpectedShifts, expected_shifts
from cardiacreg.slice_motion.shifts import SliceMotion, weighted_median
from cardiacreg.slices import labelled_slices

PRIOR_MM = 1.5
_SLICE_ERROR_MM, _VIEW_ERROR_MM = 1.0, 0.5
"""How registered shifts err: as much as atlases differ, and so much more each alone; lines are surer.
Chosen on six hearts that no benchmark counts (random000 to random002, seeds 20000 to 20002)."""
_CONSISTENCY_SCALE = 0.005


def estimate_motion_with_views(
    prepared: PreparedTarget,
    views: Sequence[ViewPlane],
    atlases: Sequence[AlignedAtlas],
    options: RegistrationOptions,
    *,
    image: Volume | None = None,
    statistics: Sequence[AlignedAtlas] = (),
    threads: int = 1,
    progress: ProgressCallable | None = None,
) -> SliceMotion:
    """Estimate the in-plane shifts of every target slice and view.

    Parameters
    ----------
    prepared : PreparedTarget
        Prepared with the views.
    views : sequence of ViewPlane
        The planes that `prepared` holds, in their order.
    image : Volume, optional
        Of the stack, on its lattice; compared with the images of views.
    atlases, options, statistics, threads, progress
        As for `shifts.estimate_slice_motion`.

    Returns
    -------
    SliceMotion
        Shifts of slices without labels are zero; of the others, the common part is as the views show it.
    """
    n_slices = prepared.labels.shape[2]
    rows, total, told = _before_atlases(prepared, views, image)
    start = _solved(total, told, rows.all, n_slices + len(views))

    stage = replace(options, estimate_shifts=True)

    def register(pair: AlignedAtlas) -> Registration:
        return register_prepared(
            prepared,
            *pair,
            stage,
            slice_shifts_mm=start[:n_slices],
            view_shifts_mm=start[n_slices:],
        )

    found = run_tasks(register, atlases, threads=threads, step="slice motion", progress=progress)
    expected = expected_shifts(prepared, statistics, threads=threads)
    if expected is not None and expected.size_mm > 0:
        _add_statistics(total, told, expected, rows)
    overlapping = [r for r in found if r.stop_reason is not StopReason.NO_OVERLAP]
    if overlapping:
        _add_registered(total, told, overlapping, rows)
    shifts = _solved(total, told, rows.all, n_slices + len(views))
    deformations = tuple(r.target_to_atlas for r in found)
    return SliceMotion(shifts[:n_slices], deformations, shifts[n_slices:])


def shifts_at_crossings(
    prepared: PreparedTarget, views: Sequence[ViewPlane], image: Volume | None = None
) -> Float:
    """Return the shifts that the lines between slices and views make most likely, without atlases.

    Parameters
    ----------
    prepared : PreparedTarget
        Prepared with the views.
    views : sequence of ViewPlane
    image : Volume, optional
        Of the stack, on its lattice.

    Returns
    -------
    ndarray, shape (n_slices + n_views, 2)
    """
    rows, total, told = _before_atlases(prepared, views, image)
    return _solved(total, told, rows.all, prepared.labels.shape[2] + len(views))


def _before_atlases(
    prepared: PreparedTarget, views: Sequence[ViewPlane], image: Volume | None
) -> tuple[_Rows, Float, Float]:
    """The unknown shifts, their inverse covariance by prior and lines, and it times them."""
    slices = labelled_slices(prepared.labels.array)
    beyond = prepared.labels.shape[2] + np.arange(len(views))
    rows = _Rows(slices, beyond, np.array([view.labels.array.any() for view in views]))
    total, told = information(settled(crossings(prepared, views, image)), rows.all)
    return rows, total + np.eye(len(total)) / PRIOR_MM**2, told


def _solved(total: Float, told: Float, kept: NDArray[np.int64], n_rows: int) -> Float:
    shifts = np.zeros((n_rows, 2))
    shifts[kept] = solve(total, told).reshape(2, -1).T
    return shifts


class _Rows(NamedTuple):
    """The unknown shifts: rows of the table of slices and views."""

    slices: NDArray[np.int64]
    views: NDArray[np.int64]
    drawn: NDArray[np.bool_]
    """Which views have labels; registrations see no others."""

    @property
    def all(self) -> NDArray[np.int64]:
        return np.concatenate([self.slices, self.views])

    @property
    def registered(self) -> NDArray[np.int64]:
        """Those that registrations tell of, by their place among all."""
        return np.concatenate(
            [np.arange(len(self.slices)), len(self.slices) + np.flatnonzero(self.drawn)]
        )

    def common(self) -> Float:
        """A shift of all slices and a lean of the stack, along both axes, shape (2 n_slices, 4)."""
        height = (self.slices - self.slices.mean()) / len(self.slices)
        return np.kron(np.eye(2), np.column_stack([np.ones(len(height)), height]))

    def components(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """First and second components of some unknowns among those of all."""
        return np.concatenate([places, len(self.all) + places])


def _add_registered(total: Float, told: Float, found: Sequence[Registration], rows: _Rows) -> None:
    """Add what registered atlases say; without labelled views nothing of shift and lean of the stack."""
    places = rows.registered
    shifts = np.stack([r.shifts_mm[rows.all[places]].T.ravel() for r in found])
    consistencies = np.array([r.consistency_after for r in found])
    weights = exponential((consistencies - consistencies.max()) / _CONSISTENCY_SCALE)
    median: Float = np.asarray(weighted_median(shifts, weights), dtype=np.float64)
    strays = shifts - median
    spread = multiply(strays.T, strays) / len(strays)
    own = np.where(places < len(rows.slices), _SLICE_ERROR_MM, _VIEW_ERROR_MM)
    precision: Float = invert(spread + np.diag(np.tile(own, 2) ** 2)).astype(np.float64)
    if not rows.drawn.any():
        precision = _without(precision, rows.common())
    _add(total, told, precision, median, rows.components(places))


def _add_statistics(total: Float, told: Float, expected: ExpectedShifts, rows: _Rows) -> None:
    """Add what statistics say of slices beyond a common shift and a lean."""
    n = len(rows.slices)
    precision = expected.precision - np.eye(2 * n) / expected.size_mm**2
    precision = _without(precision, rows.common())
    shifts = expected.shifts_mm[rows.slices].T.ravel()
    _add(total, told, precision, shifts, rows.components(np.arange(n)))


def _without(precision: Float, free: Float) -> Float:
    """Return an inverse covariance that says nothing along the columns of `free`."""
    known = multiply(precision, free)
    return np.asarray(precision - multiply(known, solve(multiply(free.T, known), known.T)))


def _add(
    total: Float, told: Float, precision: Float, shifts: Float, own: NDArray[np.int64]
) -> None:
    total[np.ix_(own, own)] += precision
    told[own] += multiply(precision, shifts)
