"""One atlas through all frames of a cine: the same atlas points, moved from frame to frame.

Every frame has the atlas's affine, improved on that frame's labels, and a free-form deformation on one
lattice for all frames. The deformation of one frame, registered from coarse to fine, is the start of its
neighbours, and so on around the cycle; only the finest level runs there. Where a whole cycle was given,
affines and control points are then made smooth in time by a periodic low-pass, and fitted a little more
from there: the bending energy and the early stop keep them near it. Frames without labels take their
affine and control points from the labelled frames before and after them, in proportion to time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from cardiacreg.algebra import invert, multiply, settled
from cardiacreg.arrays import Float
from cardiacreg.geometry import Affine, LabelMap
from cardiacreg.registration.ffd_registration import StopReason, register_prepared
from cardiacreg.registration.multiresolution import MultiresolutionSolver, State
from cardiacreg.registration.options import RegistrationOptions
from cardiacreg.registration.prepared_target import PreparedTarget, widen_domain
from cardiacreg.transforms.atlas_lookup import AtlasLookup, build_lookup
from cardiacreg.transforms.ffd import FFD

_LONGEST_STEP = 0.15
"""In cycles; a neighbour farther away is no start."""
_FEWEST_FOR_SMOOTHING = 8
_CUTOFF, _ORDER = 3.5, 6
"""Harmonics of the heart beat that are kept: one at the cut-off loses half of its amplitude."""
_WARM_ITERATIONS, _REFIT_ITERATIONS = 8, 1
"""One step after smoothing: with four, Dice of two synthetic hearts (seeds 11000 and 11001) was
a thousandth lower, and the LV wall's volume half as rough again in time."""


class Cycle(NamedTuple):
    """The frames of a cine as registration sees them, all on one lattice and one domain."""

    prepared: Mapping[int, PreparedTarget]
    """Labelled frames by position."""
    times: tuple[float, ...]
    """Of all frames, in cycles."""
    reference: int
    """Position of the frame that is registered first."""
    shifts_mm: Float
    """Of the slices, then of the views, shape (n_slices + n_views, 2)."""
    options: RegistrationOptions
    """Without compositions: every frame has one deformation on the same lattice."""

    @property
    def labelled(self) -> list[int]:
        """Positions of the frames with labels."""
        return sorted(self.prepared)

    @property
    def is_whole(self) -> bool:
        """Whether labelled frames stand close enough together all around to be smoothed in time."""
        known = self.labelled
        return len(known) >= _FEWEST_FOR_SMOOTHING and max(self._gaps(known)) < _LONGEST_STEP

    def _gaps(self, known: Sequence[int]) -> list[float]:
        times = [self.times[n] for n in known]
        return [(b - a) % 1.0 for a, b in zip(times, [*times[1:], times[0] + 1], strict=True)]

    def distance(self, first: int, second: int) -> float:
        """Return how far apart two frames are, in cycles, either way around."""
        apart = (self.times[first] - self.times[second]) % 1.0
        return min(apart, 1 - apart)


class TrackedFrame(NamedTuple):
    """The deformation of an atlas in one frame."""

    target_to_atlas: FFD
    minimum_jacobian: float


def make_cycle(
    prepared: Mapping[int, PreparedTarget],
    options: RegistrationOptions,
    times: Sequence[float],
    reference: int,
    shifts_mm: Float,
) -> Cycle:
    """Give all frames one domain, so that their control lattices are the same.

    Parameters
    ----------
    prepared : mapping of int to PreparedTarget
        The labelled frames by position.
    options : RegistrationOptions
    times : sequence of float
        Of all frames, in cycles, ascending from 0 and below 1.
    reference : int
        Position of a labelled frame.
    shifts_mm : ndarray, shape (n_slices + n_views, 2)

    Returns
    -------
    Cycle
    """
    wide = [widen_domain(each, shifts_mm) for each in prepared.values()]
    lower = np.min([each.lower_mm for each in wide], axis=0)
    upper = np.max([each.upper_mm for each in wide], axis=0)
    same = {
        position: replace(each, lower_mm=lower, upper_mm=upper)
        for position, each in prepared.items()
    }
    return Cycle(same, tuple(times), reference, shifts_mm, replace(options, compositions=0))


def track_atlas(cycle: Cycle, atlas: LabelMap, affines: Mapping[int, Affine]) -> list[TrackedFrame]:
    """Deform one atlas onto every frame.

    Parameters
    ----------
    cycle : Cycle
    atlas : LabelMap
    affines : mapping of int to Affine
        Target world mm to atlas world mm, of every labelled frame.

    Returns
    -------
    list of TrackedFrame
        One per frame, also of those without labels; none where the atlas does not overlap the reference.
    """
    work = _Tracking(cycle, atlas, affines)
    if not work.spread():
        return []
    if cycle.is_whole:
        work.smooth()
    return work.frames()


class _Tracking:
    """The affine and the control points of one atlas in every labelled frame."""

    def __init__(self, cycle: Cycle, atlas: LabelMap, affines: Mapping[int, Affine]) -> None:
        self._cycle, self._atlas = cycle, atlas
        self._affines = dict(affines)
        self._states: dict[int, State] = {}
        self._done: dict[int, TrackedFrame] = {}
        self._cells: dict[bytes, AtlasLookup] = {}  # the atlas by the codes of a frame's labels

    def spread(self) -> bool:
        """Register the reference, and go on from neighbour to neighbour, both ways around the cycle.

        Returns whether the atlas overlaps the reference.
        """
        cycle = self._cycle
        if not self._register(cycle.reference):
            return False
        order = sorted(cycle.labelled, key=lambda n: cycle.distance(n, cycle.reference))
        for position in order[1:]:
            near = min(self._states, key=lambda n: cycle.distance(n, position))
            if cycle.distance(near, position) <= _LONGEST_STEP:
                self._fit(position, self._states[near], _WARM_ITERATIONS)
            else:
                self._register(position)
        return True

    def smooth(self) -> None:
        """Make affines and control points smooth in time, and fit them again from there."""
        labelled = self._cycle.labelled
        times = np.array([self._cycle.times[n] for n in labelled])
        matrices = low_pass(np.stack([self._affines[n].matrix for n in labelled]), times)
        moved = low_pass(np.stack([self._states[n].displacements_mm for n in labelled]), times)
        for row, position in enumerate(labelled):
            self._affines[position] = Affine(matrices[row])
            start = self._states[position]._replace(
                displacements_mm=np.ascontiguousarray(moved[row])
            )
            solver = self._fit(position, start, _REFIT_ITERATIONS)
            self._done[position] = _described(solver, self._states[position])

    def frames(self) -> list[TrackedFrame]:
        """Return all frames; those without labels between their neighbours."""
        return [self._frame(n) for n in range(len(self._cycle.times))]

    def _frame(self, position: int) -> TrackedFrame:
        known = self._cycle.labelled
        if position in self._done:
            return self._done[position]
        if position in self._states:
            solver = self._solver(self._cycle.prepared[position], self._affines[position])
            return _described(solver, self._states[position])
        time = self._cycle.times[position]
        before = max(known, key=lambda n: -((time - self._cycle.times[n]) % 1.0))
        after = max(known, key=lambda n: -((self._cycle.times[n] - time) % 1.0))
        gone = (time - self._cycle.times[before]) % 1.0
        share = gone / (gone + (self._cycle.times[after] - time) % 1.0)
        first, last = self._states[before], self._states[after]
        state = first._replace(
            displacements_mm=(1 - share) * first.displacements_mm + share * last.displacements_mm
        )
        matrix = (1 - share) * self._affines[before].matrix + share * self._affines[after].matrix
        return _described(self._solver(self._cycle.prepared[before], Affine(matrix)), state)

    def _register(self, position: int) -> bool:
        """Register a frame from its affine, coarse to fine; return whether the atlas overlaps it."""
        prepared, shifts = self._cycle.prepared[position], self._cycle.shifts_mm
        n_slices = prepared.labels.shape[2]
        found = register_prepared(
            prepared,
            self._atlas,
            self._affines[position],
            self._cycle.options,
            slice_shifts_mm=shifts[:n_slices],
            view_shifts_mm=shifts[n_slices:],
        )
        transform = found.target_to_atlas
        assert isinstance(transform, FFD)
        axes = prepared.samples.axes_to_world
        lattice = multiply(invert(axes), transform.lattice_to_world)
        local = np.ascontiguousarray(multiply(transform.displacements_mm, axes[:3, :3]))
        self._states[position] = State(
            local, lattice[:3, 3].copy(), np.diag(lattice)[:3].copy(), shifts
        )
        return found.stop_reason is not StopReason.NO_OVERLAP

    def _fit(self, position: int, start: State, iterations: int) -> MultiresolutionSolver:
        """Fit the finest level of one frame from a start."""
        options = self._cycle.options
        finest = replace(
            options,
            spacings_mm=options.spacings_mm[-1:],
            strides=options.strides[-1:],
            iterations=(iterations,),
        )
        solver = self._solver(self._cycle.prepared[position], self._affines[position], finest)
        self._states[position] = solver.level(start, 0)[0]
        return solver

    def _solver(
        self, prepared: PreparedTarget, affine: Affine, options: RegistrationOptions | None = None
    ) -> MultiresolutionSolver:
        codes = prepared.codes.codes
        cells = self._cells.get(codes.tobytes())
        if cells is None:
            cells = self._cells[codes.tobytes()] = build_lookup(self._atlas, codes)
        return MultiresolutionSolver(prepared, options or self._cycle.options, cells, affine, 1)


def _described(solver: MultiresolutionSolver, state: State) -> TrackedFrame:
    """Return a state as a transform; the solver remembers determinants that it has looked at."""
    return TrackedFrame(solver.ffd(state), solver.minimum_jacobian(state))


def low_pass(values: Float, times: Float) -> Float:
    """Make a periodic series smooth in time.

    Parameters
    ----------
    values : ndarray, shape (n, ...)
    times : ndarray, shape (n,)
        In cycles, ascending; they need not be evenly spaced.

    Returns
    -------
    ndarray, shape (n, ...)
        The series on the harmonics of the cycle, each fitted by least squares and then weakened: a
        half at harmonic `_CUTOFF`, hardly below it, nearly gone above.

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg.cine.tracking import low_pass
    >>> times = np.arange(20) / 20
    >>> slow, fast = np.cos(2 * np.pi * times), 0.1 * np.cos(2 * np.pi * 9 * times)
    >>> bool(abs(low_pass(slow + fast, times) - slow).max() < 0.01)
    True
    """
    n = len(times)
    highest = (n - 1) // 2
    orders = np.arange(1, highest + 1)
    angles = 2 * np.pi * times[:, None] * orders
    basis = np.concatenate([np.ones((n, 1)), np.cos(angles), np.sin(angles)], axis=1)
    kept = 1 / (1 + (orders / _CUTOFF) ** _ORDER)
    weights = np.concatenate([[1.0], kept, kept])
    matrix = settled(multiply(basis * weights, np.linalg.pinv(basis)), 2.0**-36)
    return np.asarray(multiply(matrix, values.reshape(n, -1)).reshape(values.shape))
