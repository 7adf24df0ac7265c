"""Step 4: the B-spline free-form deformation that maximises label consistency (eq. 4).

Minimises ``1 - C(S, l o T) + w_b * bending(u) + w_s * sum |s|^2`` over control-point displacements and,
when asked, one in-plane shift s per acquired slice. (The paper writes argmin of C, a quantity to be
maximised.) Coarse to fine: each level halves the control-point spacing by exact subdivision. The bending
energy is the mean over the lattice of the squared second derivatives of u, with u and x in mm. No
result folds: a level whose Jacobian determinant falls too low is pulled back towards its start.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from cardiacreg._slabs import check_threads
from cardiacreg.errors import InvalidInputError
from cardiacreg.ffd import FFD
from cardiacreg.geometry import Affine, LabelMap
from cardiacreg.label_consistency import atlas_cells
from cardiacreg.prepared_target import LabelCodes as LabelCodes
from cardiacreg.prepared_target import PreparedTarget as PreparedTarget
from cardiacreg.prepared_target import prepare_target as prepare_target
from cardiacreg.prepared_target import widened
from cardiacreg.registration_levels import LevelRunner, State
from cardiacreg.registration_options import RegistrationOptions as RegistrationOptions

Float = NDArray[np.float64]


class StopReason(Enum):
    """Why a registration ended; the value says what it means."""

    CONVERGED = "the objective stopped improving"
    ITERATION_LIMIT = "the iteration limit was reached; raise `iterations` if the overlap is poor"
    STEP_TOO_SMALL = "no step along the search direction improved the objective any more"
    NO_OVERLAP = "target and atlas do not overlap after the affine; check landmarks and frames"


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """The result of one target-to-atlas registration.

    Parameters
    ----------
    target_to_atlas : FFD
        T, target world mm to atlas world mm.
    consistency_before, consistency_after : float
        Class-weighted label consistency at full sampling under the affine alone and under T.
    slice_shifts_mm : ndarray, shape (n_slices, 2)
        In-plane shift of every target slice along its i and j axes: true position = stored position
        + shift. Zero where not estimated or given.
    minimum_jacobian : float
        Smallest det(I + du/dx) over the domain.
    iterations : tuple of int
        Line searches of each level.
    stop_reason : StopReason
        Of the last level.
    """

    target_to_atlas: FFD
    consistency_before: float
    consistency_after: float
    slice_shifts_mm: Float
    minimum_jacobian: float
    iterations: tuple[int, ...] = ()
    stop_reason: StopReason = StopReason.CONVERGED


def register_labels(
    target: LabelMap,
    atlas: LabelMap,
    target_to_atlas: Affine | None = None,
    *,
    options: RegistrationOptions | None = None,
    slice_shifts_mm: NDArray[np.float64] | None = None,
    unknown_labels: tuple[int, ...] = (),
    threads: int | None = None,
) -> Registration:
    """Deform an atlas onto a target by label consistency.

    Parameters
    ----------
    target, atlas : LabelMap
        Label maps with the same meaning of labels, on any orthogonal lattices.
    target_to_atlas : Affine, optional
        Where to start, target world mm to atlas world mm; the identity when absent.
    options : RegistrationOptions, optional
    slice_shifts_mm : ndarray, shape (n_slices, 2), optional
        In-plane shifts of the target's slices that are already known (start values when
        `options.estimate_shifts`).
    unknown_labels : tuple of int
        Labels that the target does not show although they exist (an RV wall that was never drawn):
        target background matches them in the atlas.
    threads : int, optional
        The result is the same for any number.

    Returns
    -------
    Registration

    Raises
    ------
    InvalidInputError
        If the target or the atlas is empty or the target's lattice is sheared.
    """
    settings = options or RegistrationOptions()
    prepared = prepare_target(target, settings, unknown_labels=unknown_labels)
    return register_prepared(
        prepared,
        atlas,
        target_to_atlas or Affine.identity(),
        slice_shifts_mm=slice_shifts_mm,
        threads=check_threads(threads),
    )


def register_prepared(
    prepared: PreparedTarget,
    atlas: LabelMap,
    target_to_atlas: Affine,
    *,
    slice_shifts_mm: NDArray[np.float64] | None = None,
    start: FFD | None = None,
    threads: int = 1,
) -> Registration:
    """Register one atlas with a target that is already sampled; see `register_labels`.

    Parameters
    ----------
    prepared : PreparedTarget
    atlas : LabelMap
    target_to_atlas : Affine
    slice_shifts_mm : ndarray, shape (n_slices, 2), optional
    start : FFD, optional
        Deformation to start the first level from; used if it lies on that level's lattice.
    threads : int
    """
    if not atlas.array.any():
        raise InvalidInputError("register_labels: the atlas holds no labels.", code="EMPTY_LABELS")
    options = prepared.options
    shifts = _initial_shifts(prepared.labels.shape[2], slice_shifts_mm)
    prepared = widened(prepared, shifts)
    run = LevelRunner(prepared, atlas_cells(atlas, prepared.codes.codes), target_to_atlas, threads)
    state = run.start(options.spacings_mm[0], shifts)
    before = run.consistency(state)
    state = state if start is None else run.warm(state, start)
    if before <= run.background_only:
        return _report(run, state, before, before, (), StopReason.NO_OVERLAP)
    counts, reason = [], "converged"
    for level in range(len(options.spacings_mm)):
        if level:
            state = run.refine(state)
        state, count, reason = run.level(state, level)
        counts.append(count)
    reasons = {r.name.replace("_", " ").lower(): r for r in StopReason}
    return _report(run, state, before, run.consistency(state), tuple(counts), reasons[reason])


def _initial_shifts(n_slices: int, shifts_mm: NDArray[np.float64] | None) -> Float:
    if shifts_mm is None:
        return np.zeros((n_slices, 2))
    shifts = np.array(shifts_mm, dtype=np.float64)
    if shifts.shape != (n_slices, 2) or not np.isfinite(shifts).all():
        raise InvalidInputError(
            f"register_labels: slice_shifts_mm of shape {shifts.shape}; needs ({n_slices}, 2) finite "
            "values, one in-plane shift per target slice.",
            code="BAD_SHAPE",
        )
    return shifts


def _report(
    run: LevelRunner,
    state: State,
    before: float,
    after: float,
    counts: tuple[int, ...],
    reason: StopReason,
) -> Registration:
    minimum = run.minimum_jacobian(state)
    return Registration(run.ffd(state), before, after, state.shifts_mm, minimum, counts, reason)
