"""Step 4: the B-spline free-form deformation that maximises label consistency (eq. 4).

Minimises ``1 - C(S, l o T) + w_b * bending(u) + w_s * sum |s|^2`` over control-point displacements and,
when asked, one in-plane shift s per acquired slice. (The paper writes argmin of C, a quantity to be
maximised.) Coarse to fine: each level halves the control-point spacing by exact subdivision. The bending
energy is the mean over the lattice of the squared second derivatives of u, with u and x in mm. No
result folds: where a level's Jacobian determinant falls too low, the control points around are pulled
back towards its start.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cardiacreg.arrays import Float
from cardiacreg.compute.threads import check_threads
from cardiacreg.errors import InvalidInputError, check_argument
from cardiacreg.geometry import Affine, LabelMap
from cardiacreg.registration.composition import (
    consistency_under,
    frozen_atlas,
    minimum_of_chain,
    prepend_link,
)
from cardiacreg.registration.multiresolution import MultiresolutionSolver, State
from cardiacreg.registration.options import RegistrationOptions as RegistrationOptions
from cardiacreg.registration.prepared_target import (
    LabelCodes as LabelCodes,
    PreparedTarget as PreparedTarget,
    check_lattice,
    prepare_target as prepare_target,
    widen_domain,
)
from cardiacreg.transforms.atlas_lookup import build_lookup
from cardiacreg.transforms.ffd import FFD
from cardiacreg.transforms.ffd_chain import FFDChain

_LEAST_GAIN = 1e-3
"""Consistency that a composed deformation must gain to be kept."""
_DENSE_STEP_MM, _DENSE_RATIO = 4.0, 2.5
"""Largest distance of slices, in mm and relative to the larger in-plane spacing, of a dense map."""


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
    target_to_atlas : FFD or FFDChain
        T, target world mm to atlas world mm; a chain where deformations were composed.
    consistency_before, consistency_after : float
        Class-weighted label consistency at full sampling under the affine alone and under T.
    slice_shifts_mm : ndarray, shape (n_slices, 2)
        In-plane shift of every target slice along its i and j axes: true position = stored position
        + shift. Zero where not estimated or given.
    minimum_jacobian : float
        Smallest det(I + du/dx) over the domain, of the whole map.
    iterations : tuple of int
        Line searches of each level.
    stop_reason : StopReason
        Of the last level.
    folding_limited : bool
        Whether the guard against folding held the last deformation back: its determinant fell below
        `RegistrationOptions.folding_threshold`, or a level was pulled back.
    view_shifts_mm : ndarray, shape (n_views, 2)
        In-plane shift of every view along its own axes.
    """

    target_to_atlas: FFD | FFDChain
    consistency_before: float
    consistency_after: float
    slice_shifts_mm: Float
    minimum_jacobian: float
    iterations: tuple[int, ...] = ()
    stop_reason: StopReason = StopReason.CONVERGED
    folding_limited: bool = False
    view_shifts_mm: Float = field(default_factory=lambda: np.zeros((0, 2)))

    @property
    def shifts_mm(self) -> Float:
        """Shifts of all slices, then of all views."""
        return np.concatenate([self.slice_shifts_mm, self.view_shifts_mm])


def register_labels(
    target: Any,
    atlas: Any,
    target_to_atlas: Affine | None = None,
    *,
    options: RegistrationOptions | None = None,
    slice_shifts_mm: NDArray[np.float64] | None = None,
    unknown_labels: tuple[int, ...] = (),
    threads: int | None = None,
) -> Registration:
    """Deform an atlas onto a target by label consistency.

    How closely depends on `options`. Without them, a dense target (slices at most 4 mm apart, and at most
    2.5 times as far as its pixels) is registered with `RegistrationOptions.dense`, in which empty slices
    are background, and a thick stack with ``RegistrationOptions()``, in which they are unknown.

    Parameters
    ----------
    target, atlas : LabelMap, path or whatever `read_labels` reads
        Label maps with the same meaning of labels, on any orthogonal lattices.
    target_to_atlas : Affine, optional
        Where to start, target world mm to atlas world mm; the identity when absent.
    options : RegistrationOptions, optional
        By default what suits the target, as said above.
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
        If the target or the atlas is empty or the target's lattice is sheared, or one is neither a
        label map nor readable as one.

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg import Affine, RegistrationOptions, register_labels
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> options = RegistrationOptions.dense(16.0)
    >>> target, atlas = make_toy_heart().labels, make_toy_heart(size=0.9).labels
    >>> found = register_labels(target, atlas, target_to_atlas=Affine(np.eye(4)), options=options)
    >>> found.consistency_after > found.consistency_before, found.minimum_jacobian > 0
    (True, True)
    """
    check_argument(options, (RegistrationOptions, type(None)), "register_labels: options")
    check_argument(target_to_atlas, (Affine, type(None)), "register_labels: target_to_atlas")
    labels, moving = _label_map(target), _label_map(atlas)
    settings = options or options_for(labels)
    prepared = prepare_target(labels, settings, unknown_labels=unknown_labels)
    return register_prepared(
        prepared,
        moving,
        target_to_atlas or Affine.identity(),
        settings,
        slice_shifts_mm=slice_shifts_mm,
        threads=check_threads(threads),
    )


def _label_map(source: Any) -> LabelMap:
    if isinstance(source, LabelMap):
        return source
    from cardiacreg.io.nifti import read_labels

    return read_labels(source)


def options_for(target: LabelMap) -> RegistrationOptions:
    """Return the options that `register_labels` uses by default.

    Parameters
    ----------
    target : LabelMap

    Returns
    -------
    RegistrationOptions
        Those of dense maps where the target's slices lie as close as its pixels, or nearly so.
    """
    first, second, between = target.spacing_mm
    dense = between <= min(_DENSE_STEP_MM, _DENSE_RATIO * max(first, second))
    return RegistrationOptions.dense() if dense else RegistrationOptions()


def register_prepared(
    prepared: PreparedTarget,
    atlas: LabelMap,
    target_to_atlas: Affine,
    options: RegistrationOptions,
    *,
    slice_shifts_mm: NDArray[np.float64] | None = None,
    view_shifts_mm: NDArray[np.float64] | None = None,
    start: FFD | FFDChain | None = None,
    threads: int = 1,
) -> Registration:
    """Register one atlas with a target that is already sampled; see `register_labels`.

    Parameters
    ----------
    prepared : PreparedTarget
    atlas : LabelMap
    target_to_atlas : Affine
    options : RegistrationOptions
        With the `sampling` that the target was prepared with.
    slice_shifts_mm : ndarray, shape (n_slices, 2), optional
    view_shifts_mm : ndarray, shape (n_views, 2), optional
    start : FFD or FFDChain, optional
        Deformation to start the first level from; used if it lies on that level's lattice.
    threads : int
    """
    if not atlas.array.any():
        raise InvalidInputError("register_labels: the atlas holds no labels.", code="EMPTY_LABELS")
    if options.sampling != prepared.sampling:
        raise ValueError("register_prepared: the target was sampled with other options.")
    check_lattice(prepared, options)
    shifts = _initial_shifts(prepared.labels.shape[2], slice_shifts_mm)
    if prepared.views is not None:
        known = np.zeros((prepared.n_views, 2)) if view_shifts_mm is None else view_shifts_mm
        shifts = np.concatenate([shifts, known])
    prepared = widen_domain(prepared, shifts)
    first = start if isinstance(start, FFD) else None
    found = _register_once(prepared, options, atlas, target_to_atlas, shifts, first, threads)
    for _ in range(options.compositions):
        if not found.folding_limited:
            break
        further = _composed(prepared, options, atlas, found, threads)
        if further is None:
            break
        found = further
    return found


def _composed(
    prepared: PreparedTarget,
    options: RegistrationOptions,
    atlas: LabelMap,
    found: Registration,
    threads: int,
) -> Registration | None:
    """Register on top of a frozen map; None where that gains nothing."""
    frozen = frozen_atlas(prepared, atlas, found.target_to_atlas, threads)
    if not frozen.array.any():
        return None
    rest = Affine.identity()
    further = _register_once(prepared, options, frozen, rest, found.shifts_mm, None, threads)
    assert isinstance(further.target_to_atlas, FFD)
    chain = prepend_link(found.target_to_atlas, further.target_to_atlas)
    cells = build_lookup(atlas, prepared.codes.codes)
    after = consistency_under(prepared, cells, chain, further.shifts_mm)
    if after < found.consistency_after + _LEAST_GAIN:
        return None
    minimum = minimum_of_chain(chain)
    if minimum <= 0:
        return None
    return replace(
        further,
        target_to_atlas=chain,
        consistency_before=found.consistency_before,
        consistency_after=after,
        minimum_jacobian=minimum,
        iterations=found.iterations + further.iterations,
    )


def _register_once(
    prepared: PreparedTarget,
    options: RegistrationOptions,
    atlas: LabelMap,
    target_to_atlas: Affine,
    shifts: Float,
    start: FFD | None,
    threads: int,
) -> Registration:
    cells = build_lookup(atlas, prepared.codes.codes)
    run = MultiresolutionSolver(prepared, options, cells, target_to_atlas, threads)
    state = run.start(options.spacings_mm[0], shifts)
    before, overlaps = run.consistency(state), run.overlaps(state)
    state = state if start is None else run.warm(state, start)
    if not overlaps:
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
    run: MultiresolutionSolver,
    state: State,
    before: float,
    after: float,
    counts: tuple[int, ...],
    reason: StopReason,
) -> Registration:
    minimum = run.minimum_jacobian(state)
    held = run.folding_limited or minimum < run.folding_threshold
    n_slices = run.n_slices
    return Registration(
        run.ffd(state), before, after, state.shifts_mm[:n_slices], minimum, counts, reason, held,
        state.shifts_mm[n_slices:],
    )  # fmt: skip
