"""Step 4: the B-spline free-form deformation that maximises label consistency (eq. 4).

Minimises ``1 - C(S, l o T) + w_b * bending(u) + w_s * sum |s|^2`` over control-point displacements and,
when asked, one in-plane shift s per acquired slice. (The paper writes argmin of C, a quantity to be
maximised.) Coarse to fine: each level halves the control-point spacing by exact subdivision. The bending
energy is the mean over the lattice of the squared second derivatives of u, with u and x in mm. No
result folds: a level whose Jacobian determinant falls too low is pulled back towards its start.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiacreg._lbfgs import minimise
from cardiacreg._slabs import check_threads
from cardiacreg.errors import InvalidInputError
from cardiacreg.ffd import FFD, lattice_over_box, subdivide
from cardiacreg.geometry import RV_WALL, Affine, LabelMap
from cardiacreg.label_consistency import (
    AtlasCells,
    ConsistencyObjective,
    TargetSamples,
    atlas_cells,
    labelled_slices,
    sample_target,
)
from cardiacreg.regularisation import BendingEnergy, FoldingPenalty

Float = NDArray[np.float64]
_REACH_MM = (15.0, 15.0, 30.0)


class StopReason(Enum):
    """Why a registration ended; the value says what it means."""

    CONVERGED = "the objective stopped improving"
    ITERATION_LIMIT = "the iteration limit was reached; raise `iterations` if the overlap is poor"
    STEP_TOO_SMALL = "no step along the search direction improved the objective any more"
    NO_OVERLAP = "target and atlas do not overlap after the affine; check landmarks and frames"


@dataclass(frozen=True, slots=True)
class RegistrationOptions:
    """How `register_labels` works.

    Parameters
    ----------
    spacings_mm : tuple of float
        Control-point spacing of each level, each half the one before.
    strides : tuple of int
        In-plane sampling stride of each level.
    iterations : tuple of int
        Most line searches of each level.
    bending_weight : float
        Weight of the mean squared second derivative, mm^2.
    stretch_weight : float
        Weight of the mean squared first derivative relative to the bending energy, mm^-2.
    estimate_shifts : bool
        Estimate one in-plane shift per acquired slice together with the deformation.
    shift_weight : float
        Weight of the sum of squared shifts, per mm^2.
    class_weights : tuple of (int, float)
        Weight of target labels in the consistency; 1 where not named.
    margin_mm : float
        In-plane reach of background around the labels that counts.
    slice_samples : int
        Samples through each slice's thickness (1: its central plane).
    background_slices : bool
        Treat slices without labels as background instead of unknown.
    tolerance : float
        A level ends when three iterations together gain less than this.
    folding_weight : float
        Weight of the penalty on strong local shrinking.
    folding_threshold : float
        Determinant of I + du/dx below which that penalty acts.
    minimum_jacobian : float
        Smallest determinant of I + du/dx that a level may leave behind.
    """

    spacings_mm: tuple[float, ...] = (64.0, 32.0, 16.0)
    strides: tuple[int, ...] = (2, 2, 1)
    iterations: tuple[int, ...] = (30, 30, 30)
    bending_weight: float = 3.0
    stretch_weight: float = 0.03
    estimate_shifts: bool = False
    shift_weight: float = 5e-5
    class_weights: tuple[tuple[int, float], ...] = ((RV_WALL, 2.0),)
    margin_mm: float = 12.0
    slice_samples: int = 1
    background_slices: bool = False
    tolerance: float = 1e-5
    folding_weight: float = 10.0
    folding_threshold: float = 0.3
    minimum_jacobian: float = 0.05

    def __post_init__(self) -> None:
        if not len(self.spacings_mm) == len(self.strides) == len(self.iterations) > 0:
            raise InvalidInputError(
                f"RegistrationOptions: {len(self.spacings_mm)} spacings, {len(self.strides)} strides, "
                f"{len(self.iterations)} iteration limits; needs one of each per level.",
                code="BAD_OPTION",
            )
        _check_numbers(self)
        spacings = np.array(self.spacings_mm)
        halved = np.allclose(spacings[:-1], 2 * spacings[1:])
        if not halved or min(self.spacings_mm) <= 0 or min(self.strides) < 1:
            raise InvalidInputError(
                f"RegistrationOptions: spacings {self.spacings_mm} mm, strides {self.strides}; each "
                "spacing must be half the one before and each stride at least 1.",
                code="BAD_OPTION",
            )


def _check_numbers(options: RegistrationOptions) -> None:
    names = ("bending_weight", "stretch_weight", "shift_weight", "folding_weight", "margin_mm")
    bad = {n: getattr(options, n) for n in names if not 0 <= getattr(options, n) < float("inf")}
    if min(options.iterations) < 0:
        bad["iterations"] = options.iterations
    if options.slice_samples < 1:
        bad["slice_samples"] = options.slice_samples
    if bad:
        raise InvalidInputError(
            f"RegistrationOptions: {bad}; weights, margin and iterations must not be negative and "
            "slice_samples at least 1.",
            code="BAD_OPTION",
        )


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


class LabelCodes(NamedTuple):
    """Compact codes of labels, and which target code matches which atlas code how strongly."""

    codes: NDArray[np.uint8]
    score: Float


@dataclass(frozen=True, slots=True, eq=False)
class PreparedTarget:
    """A target sampled once for many atlases; see `prepare_target`."""

    labels: LabelMap
    samples: TargetSamples
    codes: LabelCodes
    lower_mm: Float
    upper_mm: Float
    options: RegistrationOptions = field(default_factory=RegistrationOptions)


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


def prepare_target(
    target: LabelMap,
    options: RegistrationOptions,
    *,
    unknown_labels: tuple[int, ...] = (),
    domain_mm: tuple[Float, Float] | None = None,
) -> PreparedTarget:
    """Sample a target for registration with many atlases.

    Parameters
    ----------
    target : LabelMap
    options : RegistrationOptions
    unknown_labels : tuple of int
        See `register_labels`.
    domain_mm : pair of ndarray, optional
        Lower and upper corner, in the target's axis-aligned mm frame, of the box the control lattice
        must cover; the labels' box and 30 mm around it when absent.
    """
    if len(labelled_slices(target.array)) == 0:
        raise InvalidInputError(
            "register_labels: the target holds no labels; check the preset and the frame.",
            code="EMPTY_LABELS",
        )
    codes = _label_codes(target, options, unknown_labels)
    thickness = target.spacing_mm[2]
    n = options.slice_samples
    offsets = tuple(float(o) for o in ((np.arange(n) + 0.5) / n - 0.5) * thickness)
    samples = sample_target(
        target,
        codes.codes,
        margin_mm=options.margin_mm,
        slice_offsets_mm=offsets,
        all_slices=options.background_slices,
    )
    lower, upper = _domain(samples, domain_mm)
    return PreparedTarget(target, samples, codes, lower, upper, options)


def _label_codes(
    target: LabelMap, options: RegistrationOptions, unknown_labels: tuple[int, ...]
) -> LabelCodes:
    labels = sorted({0, *target.present(), *unknown_labels})
    codes = np.full(256, len(labels), dtype=np.uint8)
    codes[labels] = np.arange(len(labels))
    weights = dict(options.class_weights)
    score = np.zeros((len(labels) + 1, len(labels) + 1))
    for code, label in enumerate(labels):
        score[code, code] = weights.get(label, 1.0)
    for label in unknown_labels:
        score[0, codes[label]] = score[0, 0]
    return LabelCodes(codes, score)


def _domain(samples: TargetSamples, domain_mm: tuple[Float, Float] | None) -> tuple[Float, Float]:
    lower = np.array([p.min() for p in samples.position_mm]) - _REACH_MM
    upper = np.array([p.max() for p in samples.position_mm]) + _REACH_MM
    if domain_mm is None:
        return lower, upper
    lower[2], upper[2] = samples.position_mm[2].min(), samples.position_mm[2].max()
    return np.minimum(lower, domain_mm[0]), np.maximum(upper, domain_mm[1])


def _reaching(prepared: PreparedTarget, shifts_mm: Float) -> PreparedTarget:
    """Widen the domain for given shifts beyond its reach: splines must be complete at every sample."""
    beyond = np.append(np.maximum(np.abs(shifts_mm).max(axis=0) - _REACH_MM[:2], 0.0), 0.0)
    if not beyond.any():
        return prepared
    lower, upper = prepared.lower_mm - beyond, prepared.upper_mm + beyond
    return replace(prepared, lower_mm=lower, upper_mm=upper)


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
    prepared = _reaching(prepared, shifts)
    run = _LevelRunner(prepared, atlas_cells(atlas, prepared.codes.codes), target_to_atlas, threads)
    state = run.start(options.spacings_mm[0], shifts)
    before = run.consistency(state)
    state = state if start is None else run.warm(state, start)
    if before <= run.background_only:
        return run.report(state, before, before, (), StopReason.NO_OVERLAP)
    counts, reason = [], "converged"
    for level in range(len(options.spacings_mm)):
        if level:
            state = run.refine(state)
        state, count, reason = run.level(state, level)
        counts.append(count)
    reasons = {r.name.replace("_", " ").lower(): r for r in StopReason}
    return run.report(state, before, run.consistency(state), tuple(counts), reasons[reason])


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


class _State(NamedTuple):
    """Control points in the target's frame, and the shift of every target slice."""

    displacements_mm: Float
    origin_mm: Float
    spacing_mm: Float
    shifts_mm: Float


class _LevelRunner:
    """Runs the levels of one registration; holds what does not change between them."""

    def __init__(
        self, prepared: PreparedTarget, cells: AtlasCells, affine: Affine, threads: int
    ) -> None:
        self._prepared = prepared
        self._options = prepared.options
        self._affine = affine
        self._frame = prepared.samples.frame_to_world
        strides = sorted({1, *self._options.strides})
        self._samples = {stride: prepared.samples.every(stride) for stride in strides}
        self._objectives = {
            stride: ConsistencyObjective(
                samples, cells, affine.matrix @ self._frame, prepared.codes.score, threads
            )
            for stride, samples in self._samples.items()
        }
        self.background_only = self._background_consistency()

    def _background_consistency(self) -> float:
        """Consistency of an atlas without labels: no overlap is no better than that."""
        samples, score = self._samples[1], self._prepared.codes.score
        columns = np.arange(samples.labels.shape[2])
        inside = (columns >= samples.spans[..., :1]) & (columns < samples.spans[..., 1:])
        labels = samples.labels[inside]
        return float(score[labels, 0].sum() / score.max(axis=1)[labels].sum()) + 1e-9

    def start(self, spacing_mm: float, shifts_mm: Float) -> _State:
        lower, upper = self._prepared.lower_mm, self._prepared.upper_mm
        origin, shape = lattice_over_box(lower, upper, spacing_mm)
        return _State(np.zeros((*shape, 3)), origin, np.full(3, spacing_mm), shifts_mm)

    def warm(self, state: _State, start: FFD) -> _State:
        """Take over another registration's control points if they lie on the same lattice."""
        lattice = self.ffd(state)
        same = start.displacements_mm.shape == state.displacements_mm.shape
        if not same or not np.allclose(start.lattice_to_world, lattice.lattice_to_world, atol=1e-6):
            return state
        local = start.displacements_mm @ self._frame[:3, :3]
        return state._replace(displacements_mm=np.ascontiguousarray(local))

    def refine(self, state: _State) -> _State:
        """Halve the control-point spacing and drop control points that reach nothing."""
        fine, spacing = subdivide(state.displacements_mm), state.spacing_mm / 2
        first = (
            np.floor((self._prepared.lower_mm - state.origin_mm) / spacing + 1e-9).astype(int) - 1
        )
        last = np.ceil((self._prepared.upper_mm - state.origin_mm) / spacing - 1e-9).astype(int) + 1
        last = np.minimum(np.maximum(last, first + 3), np.array(fine.shape[:3]) - 1)
        cut = fine[first[0] : last[0] + 1, first[1] : last[1] + 1, first[2] : last[2] + 1]
        origin = state.origin_mm + first * spacing
        return _State(np.ascontiguousarray(cut), origin, spacing, state.shifts_mm)

    def level(self, state: _State, level: int) -> tuple[_State, int, str]:
        options = self._options
        shape, slices = state.displacements_mm.shape, self._prepared.samples.slice_index
        objective = self._objectives[options.strides[level]]
        bending = BendingEnergy(shape, state.spacing_mm, options.stretch_weight)
        folding = FoldingPenalty(shape, state.spacing_mm, options.folding_threshold)
        n_control, n_slices = state.displacements_mm.size, len(state.shifts_mm)

        def function(x: Float) -> tuple[float, Float]:
            displacements = x[:n_control].reshape(shape)
            shifts = x[n_control:].reshape(-1, 2) if options.estimate_shifts else state.shifts_mm
            c = objective(displacements, state.origin_mm, state.spacing_mm, shifts[slices])
            energy, energy_gradient = bending(displacements)
            fold, fold_gradient = folding(displacements)
            value = 1 - c.value + options.bending_weight * energy + options.folding_weight * fold
            gradient = options.bending_weight * energy_gradient - c.displacement_gradient
            gradient += options.folding_weight * fold_gradient
            if not options.estimate_shifts:
                return value, gradient.ravel()
            shift_gradient = 2 * options.shift_weight * shifts
            for n, index in enumerate(slices):
                shift_gradient[index] -= c.shift_gradient[n]
            value += options.shift_weight * float((shifts**2).sum())
            return value, np.concatenate([gradient.ravel(), shift_gradient.ravel()])

        start = state.displacements_mm.ravel()
        if options.estimate_shifts:
            start = np.concatenate([start, state.shifts_mm.ravel()])
        found = minimise(
            function,
            start,
            iterations=options.iterations[level],
            first_step=1.0,
            tolerance=options.tolerance,
        )
        shifts = (
            found.x[n_control:].reshape(n_slices, 2) if options.estimate_shifts else state.shifts_mm
        )
        new = state._replace(displacements_mm=found.x[:n_control].reshape(shape), shifts_mm=shifts)
        return self._unfold(state, new), found.iterations, found.reason

    def _unfold(self, start: _State, end: _State) -> _State:
        """Pull the end of a level back towards its start until it does not fold."""
        for fraction in (1.0, 0.9, 0.8, 0.65, 0.5, 0.35, 0.2, 0.1, 0.0):
            moved = start.displacements_mm + fraction * (
                end.displacements_mm - start.displacements_mm
            )
            state = end._replace(displacements_mm=moved)
            if self._minimum_jacobian(state) >= self._options.minimum_jacobian:
                break
        return state

    def _minimum_jacobian(self, state: _State) -> float:
        d, h = state.displacements_mm, state.spacing_mm
        slopes = [np.abs(np.diff(d, axis=axis)).max() / h[axis] for axis in range(3)]
        if max(slopes) < 0.2 and self._options.minimum_jacobian <= 0.3:
            return 0.3  # all |du/dx| entries are below 0.2: the determinant is above 0.3
        return self.ffd(state).minimum_jacobian(*self._check_grid(state))

    def _check_grid(self, state: _State) -> tuple[tuple[int, int, int], Float]:
        na, nb, nc = (4 * (n - 3) + 1 for n in state.displacements_mm.shape[:3])
        local = np.diag([*(state.spacing_mm / 4), 1.0])
        local[:3, 3] = state.origin_mm + state.spacing_mm
        return (na, nb, nc), self._frame @ local

    def consistency(self, state: _State) -> float:
        shifts = state.shifts_mm[self._prepared.samples.slice_index]
        return self._objectives[1](
            state.displacements_mm, state.origin_mm, state.spacing_mm, shifts
        ).value

    def ffd(self, state: _State) -> FFD:
        local = np.diag([*state.spacing_mm, 1.0])
        local[:3, 3] = state.origin_mm
        world = state.displacements_mm @ self._frame[:3, :3].T
        return FFD(self._affine, world, self._frame @ local)

    def report(
        self,
        state: _State,
        before: float,
        after: float,
        counts: tuple[int, ...],
        reason: StopReason,
    ) -> Registration:
        ffd = self.ffd(state)
        minimum = ffd.minimum_jacobian(*self._check_grid(state))
        return Registration(ffd, before, after, state.shifts_mm, minimum, counts, reason)
