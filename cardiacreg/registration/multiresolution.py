"""The levels of one registration: minimisation on a lattice, subdivision, and no folding.

Each level minimises the objective in whitened coordinates (`regularisation.WhitenedDisplacements`),
around the state it starts from; in them L-BFGS needs about half the iterations.
"""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple

import numpy as np

from cardiacreg.algebra import multiply
from cardiacreg.arrays import Float
from cardiacreg.compute.lbfgs import minimise
from cardiacreg.geometry import Affine
from cardiacreg.registration.label_consistency import ConsistencyObjective
from cardiacreg.registration.options import RegistrationOptions
from cardiacreg.registration.prepared_target import PreparedTarget
from cardiacreg.registration.regularisation import BendingEnergy, WhitenedDisplacements
from cardiacreg.registration.target_objective import TargetObjective
from cardiacreg.transforms.atlas_lookup import AtlasLookup
from cardiacreg.transforms.bspline import lattice_over_box, subdivide
from cardiacreg.transforms.ffd import FFD
from cardiacreg.transforms.jacobian import (
    DenseDeterminants,
    FoldingPenalty,
    steepest_slope,
)

_STIFFNESS = 0.003
"""Assumed curvature of the consistency per mm^2 of a uniform displacement; a factor of ten either way
changes little."""
_LOCAL_PULLS, _LOCAL_PULL = 40, 0.9
_PULLS = (1.0, 0.9, 0.8, 0.65, 0.5, 0.35, 0.2, 0.1, 0.0)


class State(NamedTuple):
    """Control points along the target's axes, and the shift of every target slice and view."""

    displacements_mm: Float
    origin_mm: Float
    spacing_mm: Float
    shifts_mm: Float


class MultiresolutionSolver:
    """Runs the levels of one registration; holds what does not change between them."""

    def __init__(
        self,
        prepared: PreparedTarget,
        options: RegistrationOptions,
        cells: AtlasLookup,
        affine: Affine,
        threads: int,
    ) -> None:
        self._prepared = prepared
        self._options = options
        self._affine = affine
        self._cells = cells
        self._axes = prepared.samples.axes_to_world
        strides = sorted({1, *self._options.strides})
        self._objectives = {
            stride: TargetObjective(
                prepared,
                cells,
                multiply(affine.matrix, self._axes),
                stride,
                threads,
                shift_gradient=options.estimate_shifts,
            )
            for stride in strides
        }
        self.n_slices = prepared.labels.shape[2]
        self.folding_limited = False
        self._known: DenseDeterminants | None = None
        self.folding_threshold = options.folding_threshold

    def overlaps(self, state: State) -> bool:
        """Whether any labelled sample of the target meets its own label in the atlas."""
        labelled = self._prepared.codes.of_structures
        objective = ConsistencyObjective(
            self._prepared.samples,
            self._cells,
            multiply(self._affine.matrix, self._axes),
            labelled,
        )
        shifts = state.shifts_mm[self._prepared.samples.slice_index]
        found = objective(state.displacements_mm, state.origin_mm, state.spacing_mm, shifts)
        return found.value > 1e-9

    def start(self, spacing_mm: float, shifts_mm: Float) -> State:
        """Return a state at rest on the first level's lattice."""
        lower, upper = self._prepared.lower_mm, self._prepared.upper_mm
        origin, shape = lattice_over_box(lower, upper, spacing_mm)
        return State(np.zeros((*shape, 3)), origin, np.full(3, spacing_mm), shifts_mm)

    def warm(self, state: State, start: FFD) -> State:
        """Take over another registration's control points if they lie on the same lattice."""
        lattice = self.ffd(state)
        same = start.displacements_mm.shape == state.displacements_mm.shape
        if not same or not np.allclose(start.lattice_to_world, lattice.lattice_to_world, atol=1e-6):
            return state
        local = multiply(start.displacements_mm, self._axes[:3, :3])
        return state._replace(displacements_mm=np.ascontiguousarray(local))

    def refine(self, state: State) -> State:
        """Halve the control-point spacing and drop control points that reach nothing."""
        fine, spacing = subdivide(state.displacements_mm), state.spacing_mm / 2
        first = (
            np.floor((self._prepared.lower_mm - state.origin_mm) / spacing + 1e-9).astype(int) - 1
        )
        last = np.ceil((self._prepared.upper_mm - state.origin_mm) / spacing - 1e-9).astype(int) + 1
        last = np.minimum(np.maximum(last, first + 3), np.array(fine.shape[:3]) - 1)
        cut = fine[first[0] : last[0] + 1, first[1] : last[1] + 1, first[2] : last[2] + 1]
        origin = state.origin_mm + first * spacing
        return State(np.ascontiguousarray(cut), origin, spacing, state.shifts_mm)

    def level(self, state: State, level: int) -> tuple[State, int, str]:
        """Minimise the objective on the state's lattice."""
        problem = _LevelProblem(
            self._prepared, self._options, self._objectives[self._options.strides[level]], state
        )
        found = minimise(
            problem,
            np.zeros(problem.size),
            iterations=self._options.iterations[level],
            first_step=1.0,
            tolerance=self._options.tolerance,
            largest_change=problem.largest_change,
        )
        last = level == len(self._options.spacings_mm) - 1
        return self._unfold(state, problem.state(found.x), last), found.iterations, found.reason

    def _unfold(self, start: State, end: State, last: bool) -> State:
        """Pull the end of a level back towards its start where it folds; if need be as a whole.

        Before a further level it goes back until the folding penalty is silent: a level that starts
        squeezed stays there.
        """
        if self._is_safe(end):
            return end
        self.folding_limited = True
        limit = self._options.minimum_jacobian
        silent = max(limit, self._options.folding_threshold)
        for wanted in (limit,) if last else (silent, limit):
            state = self._unfold_locally(start, end, wanted)
            if state is not None:
                return state
        return self._unfold_whole(start, end)

    def _unfold_locally(self, start: State, end: State, wanted: float) -> State | None:
        """Pull back control points around too low determinants until none is left; None if some stay."""
        first, change = start.displacements_mm, end.displacements_mm - start.displacements_mm
        kept = np.ones((*change.shape[:3], 1))
        determinants = self._determinants(end)
        for _ in range(_LOCAL_PULLS):
            below = determinants.control_points_below(wanted)
            if not below.any():
                return end._replace(displacements_mm=determinants.displacements_mm)
            kept[below] *= _LOCAL_PULL
            determinants.move(first + kept * change, below)
        return None

    def _unfold_whole(self, start: State, end: State) -> State:
        """Pull the whole end of a level back towards its start, and that towards rest."""
        first, change = start.displacements_mm, end.displacements_mm - start.displacements_mm
        towards_start = (first + fraction * change for fraction in _PULLS)
        towards_rest = (fraction * first for fraction in _PULLS[1:])
        for moved in chain(towards_start, towards_rest):
            state = end._replace(displacements_mm=moved)
            if self._is_safe(state):
                break
        return state

    def _is_safe(self, state: State) -> bool:
        """Whether no determinant is below the least that is allowed."""
        d, h, limit = state.displacements_mm, state.spacing_mm, self._options.minimum_jacobian
        if steepest_slope(d, h) < 0.2 and limit <= 0.3:
            return True  # all |du/dx| entries are below 0.2: the determinant is above 0.3
        return self._determinants(state).minimum(enough=limit) >= limit

    def minimum_jacobian(self, state: State) -> float:
        """Return the smallest det(I + du/dx); see `jacobian.minimum_jacobian`."""
        return self._determinants(state).minimum()

    def _determinants(self, state: State) -> DenseDeterminants:
        """Determinants of a state; those of the last one asked for are kept."""
        if self._known is None or self._known.displacements_mm is not state.displacements_mm:
            self._known = DenseDeterminants(state.displacements_mm, state.spacing_mm)
        return self._known

    def consistency(self, state: State) -> float:
        """Return the consistency at full sampling."""
        shifts = state.shifts_mm[self._prepared.shift_index]
        return self._objectives[1](
            state.displacements_mm, state.origin_mm, state.spacing_mm, shifts
        ).value

    def ffd(self, state: State) -> FFD:
        """Return the state as a transform in world mm."""
        local = np.diag([*state.spacing_mm, 1.0])
        local[:3, 3] = state.origin_mm
        world = multiply(state.displacements_mm, self._axes[:3, :3].T)
        return FFD(self._affine, world, multiply(self._axes, local))


class _LevelProblem:
    """One level's objective as a function of whitened displacements and scaled slice shifts."""

    def __init__(
        self,
        prepared: PreparedTarget,
        options: RegistrationOptions,
        objective: TargetObjective,
        start: State,
    ) -> None:
        shape, spacing = start.displacements_mm.shape, start.spacing_mm
        self._options, self._start, self._objective = options, start, objective
        self._slices = prepared.shift_index
        self._bending = BendingEnergy(shape, spacing, options.stretch_weight)
        self._folding = FoldingPenalty(shape, spacing, options.folding_threshold)
        self._whitened = WhitenedDisplacements(
            shape, spacing, options.bending_weight, options.stretch_weight, _STIFFNESS
        )
        self._n_control = start.displacements_mm.size
        self.size = self._n_control + (start.shifts_mm.size if options.estimate_shifts else 0)
        stiffness = _STIFFNESS / max(1, len(np.unique(self._slices)))
        self._shift_scale = 1 / np.sqrt(2 * (options.shift_weight + stiffness))

    def __call__(self, x: Float) -> tuple[float, Float]:
        """Return value and gradient."""
        state, options = self.state(x), self._options
        shifts = state.shifts_mm
        c = self._objective(
            state.displacements_mm, state.origin_mm, state.spacing_mm, shifts[self._slices]
        )
        energy, energy_gradient = self._bending(state.displacements_mm)
        fold, fold_gradient = self._folding(state.displacements_mm)
        value = 1 - c.value + options.bending_weight * energy + options.folding_weight * fold
        gradient = options.bending_weight * energy_gradient
        gradient -= c.displacement_gradient
        if fold:
            gradient += options.folding_weight * fold_gradient
        whitened = self._whitened.gradient(gradient).ravel()
        if not options.estimate_shifts:
            return value, whitened
        shift_gradient = 2 * options.shift_weight * shifts
        np.subtract.at(shift_gradient, self._slices, c.shift_gradient)
        value += options.shift_weight * float((shifts**2).sum())
        return value, np.concatenate([whitened, self._shift_scale * shift_gradient.ravel()])

    def state(self, x: Float) -> State:
        """Return the state that coordinates stand for; zero is the start."""
        moved, shifted = self._changes(x)
        start = self._start
        return start._replace(
            displacements_mm=start.displacements_mm + moved,
            shifts_mm=start.shifts_mm + shifted
            if self._options.estimate_shifts
            else start.shifts_mm,
        )

    def largest_change(self, direction: Float) -> float:
        """Return the largest change in mm of any control point's component or shift."""
        moved, shifted = self._changes(direction)
        return float(max(np.abs(moved).max(), np.abs(shifted).max(initial=0.0)))

    def _changes(self, x: Float) -> tuple[Float, Float]:
        moved = self._whitened.displacements(x[: self._n_control])
        return moved, self._shift_scale * x[self._n_control :].reshape(-1, 2)
