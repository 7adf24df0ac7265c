"""Limited-memory BFGS (Nocedal 1980), its line search backtracking or extending, in a few lines.

SciPy's routine was not used because it sums with BLAS, whose bits depend on its thread count, and
because the registration needs its first step stated in mm.

The search is turned inside out: a kernel says where the function is wanted and is told value and gradient
there (`_advance`). So an iteration over twelve numbers costs a few microseconds besides the function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiacreg.arrays import Float
from cardiacreg.compute.jit import kernel

_BLOCK = 8192
"""Numbers that are summed by themselves in a dot product."""
_MOST_BACKTRACKS, _MOST_EXTENSIONS = 12, 8
_MEMORY = 8
"""Correction pairs kept."""
_EVALUATE, _MEASURE, _DONE = 0, 1, 2
"""What a search waits for: value and gradient at `_TRIAL`; the size of `_DIRECTION`; nothing."""
_CONVERGED, _LIMIT, _SMALL = 0, 1, 2
_REASONS = ("converged", "iteration limit", "step too small")
# Entries of `_Search.counts`.
_WAITS_FOR, _STAGE, _NEXT, _COUNT, _ITERATION, _ITERATIONS, _ATTEMPT, _REASON = range(8)
# What is to be done next: go a step; look further; accept; choose a direction; go downhill; ask for
# a direction's size; end.
_TRY, _EXTEND, _ACCEPT, _CHOOSE, _DOWNHILL, _ASK, _END = range(7)
# What a value told at the trial point is: the start's, one of a line search, one of its extension.
_START, _LINE, _EXTENSION = 0, 1, 2
# Entries of `_Search.numbers`; the last four values follow.
_VALUE, _STEP, _SLOPE, _TOLERANCE, _FIRST_STEP, _FOUND_VALUE, _HISTORY = range(7)
# Rows of `_Search.rows`.
_X, _TRIAL, _DIRECTION, _GRADIENT, _FOUND, _FOUND_GRADIENT = range(6)


class Minimum(NamedTuple):
    """Where a minimisation ended."""

    x: Float
    value: float
    iterations: int
    reason: str
    """``"converged"``, ``"iteration limit"`` or ``"step too small"``."""


class _Search(NamedTuple):
    """A search that is under way: plain arrays, which kernels go on with."""

    counts: NDArray[np.int64]
    numbers: Float
    rows: Float
    changes: Float
    """Of x, one row per correction pair."""
    differences: Float
    """Of the gradient."""
    curvatures: Float

    @property
    def found(self) -> Minimum:
        """Where the search stands."""
        counts = self.counts
        return Minimum(
            self.rows[_X].copy(), float(self.numbers[_VALUE]), int(counts[_ITERATION]),
            _REASONS[counts[_REASON]],
        )  # fmt: skip


def _begin(start: Float, *, iterations: int, first_step: float, tolerance: float) -> _Search:
    """Return a search that waits for value and gradient at its start; see `minimise`."""
    size = start.size
    search = _Search(
        np.zeros(_REASON + 1, dtype=np.int64),
        np.zeros(_HISTORY + 4),
        np.zeros((_FOUND_GRADIENT + 1, size)),
        np.empty((_MEMORY, size)),
        np.empty((_MEMORY, size)),
        np.empty(_MEMORY),
    )
    search.rows[_TRIAL] = start
    search.counts[_ITERATIONS] = iterations
    search.numbers[[_TOLERANCE, _FIRST_STEP]] = tolerance, first_step
    return search


def minimise(
    function: Callable[[Float], tuple[float, Float]],
    start: Float,
    *,
    iterations: int,
    first_step: float,
    tolerance: float,
    largest_change: Callable[[Float], float] | None = None,
) -> Minimum:
    """Minimise a smooth function from its value and gradient.

    Parameters
    ----------
    function : callable
        Maps x, shape (n,), to its value and gradient.
    start : ndarray, shape (n,)
    iterations : int
        Most line searches.
    first_step : float
        Largest change of any component in the first step, as `largest_change` measures it.
    tolerance : float
        Ends when three iterations together lower the value by less than this.
    largest_change : callable, optional
        Measures a direction, shape (n,); the largest component's size when absent.
    """
    measure = largest_change or _largest
    search = _begin(start, iterations=iterations, first_step=first_step, tolerance=tolerance)
    direction = search.rows[_DIRECTION]
    while search.counts[_WAITS_FOR] != _DONE:
        if search.counts[_WAITS_FOR] == _MEASURE:
            _advance(*search, measure(direction), direction)
        else:
            value, gradient = function(search.rows[_TRIAL].copy())
            _advance(*search, value, gradient)
    return search.found


def _largest(direction: Float) -> float:
    return float(np.abs(direction).max(initial=0.0))


# ---------------------------------------------------------------------------------------------- kernels


@kernel
def _advance(counts, numbers, rows, changes, differences, curvatures, told, gradient):
    """Go on with what was waited for: value and gradient at the trial point, or a direction's size.

    Every step stands once, in order, so that the compiler has each of them once.
    """
    doing = _judge(counts, numbers, told)
    if doing == _EXTEND or doing == _CHOOSE:
        numbers[_FOUND_VALUE] = told
        _copy(rows[_TRIAL], rows[_FOUND])
        _copy(gradient, rows[_FOUND_GRADIENT])
    # Too short a step teaches nothing: further while the way down is as steep as at the start.
    if doing == _EXTEND:
        steepness = _sum_of_products(rows[_DIRECTION], rows[_FOUND_GRADIENT])
        doing = _ACCEPT
        if counts[_ATTEMPT] < _MOST_EXTENSIONS and steepness < 0.9 * numbers[_SLOPE]:
            numbers[_STEP] *= 4
            doing = _TRY
    if doing == _ACCEPT:
        _keep_pair(counts, rows, changes, differences, curvatures)
        doing = _CHOOSE
    if doing == _CHOOSE:
        _copy(rows[_FOUND], rows[_X])
        _copy(rows[_FOUND_GRADIENT], rows[_GRADIENT])
        doing = _count_iteration(counts, numbers)
    if doing == _CHOOSE:
        _quasi_newton(counts, changes, differences, curvatures, rows[_GRADIENT], rows[_DIRECTION])
        numbers[_SLOPE] = _sum_of_products(rows[_DIRECTION], rows[_GRADIENT])
        doing = _TRY if counts[_COUNT] else _ASK
        if numbers[_SLOPE] >= 0:
            doing = _DOWNHILL
    if doing == _DOWNHILL:
        _point_downhill(counts, numbers, rows)
        doing = _ASK
    if doing != _END and numbers[_SLOPE] == 0.0:  # no way down
        counts[_REASON] = _CONVERGED
        doing = _END
    if doing == _TRY:
        _add_scaled(rows[_X], numbers[_STEP], rows[_DIRECTION], rows[_TRIAL])
        counts[_WAITS_FOR] = _EVALUATE
    else:
        counts[_WAITS_FOR] = _MEASURE if doing == _ASK else _DONE


@kernel
def _judge(counts, numbers, told):
    """What is to be done next, from a value at the trial point or the size of a direction."""
    if counts[_WAITS_FOR] == _MEASURE:
        numbers[_STEP] = numbers[_FIRST_STEP] / told
        return _TRY
    if counts[_STAGE] == _START:
        return _CHOOSE
    step, slope = numbers[_STEP], numbers[_SLOPE]
    bound = numbers[_VALUE] + 1e-4 * step * slope
    if counts[_STAGE] == _EXTENSION:
        counts[_ATTEMPT] += 1
        return _EXTEND if told <= min(numbers[_FOUND_VALUE], bound) else _ACCEPT
    if told <= bound:
        counts[_STAGE], counts[_ATTEMPT] = _EXTENSION, 0
        return _EXTEND
    curvature, shorter = told - numbers[_VALUE] - step * slope, 0.5
    if curvature > 0:
        shorter = min(0.5, max(0.1, -step * slope / (2 * curvature)))
    numbers[_STEP] = step * shorter
    counts[_ATTEMPT] += 1
    if counts[_ATTEMPT] < _MOST_BACKTRACKS:
        return _TRY
    counts[_REASON] = _SMALL
    return _DOWNHILL if counts[_COUNT] else _END


@kernel
def _count_iteration(counts, numbers):
    """Take over the best value that was found; whether to go on from there."""
    numbers[_VALUE] = numbers[_FOUND_VALUE]
    if counts[_STAGE] != _START:
        counts[_ITERATION] += 1
    # The value of three iterations ago is the oldest of four.
    before = numbers[_HISTORY + (counts[_ITERATION] + 1) % 4]
    numbers[_HISTORY + counts[_ITERATION] % 4] = numbers[_VALUE]
    if counts[_ITERATION] > 2 and before - numbers[_VALUE] < numbers[_TOLERANCE]:
        counts[_REASON] = _CONVERGED
        return _END
    counts[_STAGE], counts[_ATTEMPT], counts[_REASON] = _LINE, 0, _LIMIT
    numbers[_STEP] = 1.0
    return _CHOOSE if counts[_ITERATION] < counts[_ITERATIONS] else _END


@kernel
def _copy(given, out):
    """Copy a row of numbers."""
    for n in range(out.size):
        out[n] = given[n]


@kernel
def _add_scaled(first, weight, second, out):
    """A row of numbers and a multiple of another."""
    for n in range(out.size):
        out[n] = first[n] + weight * second[n]


@kernel
def _point_downhill(counts, numbers, rows):
    """Forget all pairs; the direction is minus the gradient."""
    counts[_NEXT] = counts[_COUNT] = counts[_ATTEMPT] = 0
    _add_scaled(rows[_GRADIENT], -2.0, rows[_GRADIENT], rows[_DIRECTION])
    numbers[_SLOPE] = -_sum_of_products(rows[_GRADIENT], rows[_GRADIENT])


@kernel
def _keep_pair(counts, rows, changes, differences, curvatures):
    """Keep the last changes if their curvature is positive, for the oldest where there is no room."""
    change, difference = changes[counts[_NEXT]], differences[counts[_NEXT]]
    spare, other = rows[_TRIAL], rows[_DIRECTION]
    _add_scaled(rows[_FOUND], -1.0, rows[_X], spare)
    _add_scaled(rows[_FOUND_GRADIENT], -1.0, rows[_GRADIENT], other)
    curvature = _sum_of_products(spare, other)
    if curvature > 1e-12 * _sum_of_products(other, other):
        _copy(spare, change)
        _copy(other, difference)
        curvatures[counts[_NEXT]] = curvature
        counts[_NEXT] = (counts[_NEXT] + 1) % curvatures.size
        counts[_COUNT] = min(counts[_COUNT] + 1, curvatures.size)


@kernel
def _quasi_newton(counts, changes, differences, curvatures, gradient, direction):
    """Minus the approximate inverse Hessian times the gradient."""
    newest_first = np.empty(counts[_COUNT], np.int64)
    for n in range(newest_first.size):
        newest_first[n] = (counts[_NEXT] - 1 - n) % curvatures.size
    _add_scaled(gradient, -2.0, gradient, direction)
    _two_loops(changes, differences, curvatures, newest_first, direction)


@kernel
def _block_product(first, second):
    """Dot product in two partial sums, eight terms at a time, the last first.

    It is the order of NumPy's einsum without wide registers; any other fixed order would serve.
    """
    even, odd = 0.0, 0.0
    eights = first.size - first.size % 8
    for n in range(0, eights, 8):
        for m in range(n + 6, n - 1, -2):
            even += first[m] * second[m]
            odd += first[m + 1] * second[m + 1]
    for m in range(eights, first.size - 1, 2):
        even += first[m] * second[m]
        odd += first[m + 1] * second[m + 1]
    if first.size % 2:
        even += first[-1] * second[-1]
    return even + odd


@kernel
def _sum_of_products(first, second):
    """Dot product, block after block: always the same sums in the same order."""
    total = 0.0
    for start in range(0, first.size, _BLOCK):
        stop = min(start + _BLOCK, first.size)
        total += _block_product(first[start:stop], second[start:stop])
    return total


@kernel
def _add_then_multiply(out, weight, values, second):
    """Add a multiple of a row of numbers to another; return the dot product of that with a third."""
    total = 0.0
    for start in range(0, out.size, _BLOCK):
        stop = min(start + _BLOCK, out.size)
        block, given = out[start:stop], values[start:stop]
        for n in range(block.size):
            block[n] += weight * given[n]
        total += _block_product(second[start:stop], block)
    return total


@kernel
def _two_loops(changes, differences, curvatures, newest_first, out):
    """Turn minus the gradient into the direction: the two-loop recursion of Nocedal 1980."""
    last = newest_first.size - 1
    if last < 0:
        return
    coefficients = np.empty(last + 1)
    product = _sum_of_products(changes[newest_first[0]], out)
    for n in range(last + 1):
        m, following = newest_first[n], newest_first[min(n + 1, last)]
        coefficients[n] = product / curvatures[m]
        product = _add_then_multiply(out, -coefficients[n], differences[m], changes[following])
    m = newest_first[0]
    scale = curvatures[m] / _sum_of_products(differences[m], differences[m])
    for n in range(out.size):
        out[n] *= scale
    product = _sum_of_products(differences[newest_first[last]], out)
    for n in range(last, -1, -1):
        m, following = newest_first[n], newest_first[max(n - 1, 0)]
        change = coefficients[n] - product / curvatures[m]
        product = _add_then_multiply(out, change, changes[m], differences[following])
