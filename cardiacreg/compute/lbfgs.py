"""Limited-memory BFGS (Nocedal 1980), its line search backtracking or extending, in a few lines.

SciPy's routine was not used because it sums with BLAS, whose bits depend on its thread count, and
because the registration needs its first step stated in mm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from cardiacreg.arrays import Float
from cardiacreg.compute.jit import kernel

_BLOCK = 8192
"""Numbers that are summed by themselves in a dot product."""


class Minimum(NamedTuple):
    """Where a minimisation ended."""

    x: Float
    value: float
    iterations: int
    reason: str
    """``"converged"``, ``"iteration limit"`` or ``"step too small"``."""


def minimise(
    function: Callable[[Float], tuple[float, Float]],
    start: Float,
    *,
    iterations: int,
    first_step: float,
    tolerance: float,
    memory: int = 8,
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
    memory : int
        Correction pairs kept.
    largest_change : callable, optional
        Measures a direction, shape (n,); the largest component's size when absent.
    """
    measure = largest_change or _largest
    x, (value, gradient) = start, function(start)
    pairs = _Pairs(memory, x.size)
    history = [value]
    for iteration in range(iterations):
        direction = pairs.direction(gradient)
        slope = _dot(direction, gradient)
        if slope >= 0:
            pairs.clear()
            direction, slope = -gradient, -_dot(gradient, gradient)
        if not direction.any():
            return Minimum(x, value, iteration, "converged")
        step = 1.0 if pairs.count else first_step / measure(direction)
        found = _line_search(function, x, value, direction, slope, step)
        if found is None and pairs.count:
            pairs.clear()
            direction, slope = -gradient, -_dot(gradient, gradient)
            step = first_step / measure(direction)
            found = _line_search(function, x, value, direction, slope, step)
        if found is None:
            return Minimum(x, value, iteration, "step too small")
        new_x, new_value, new_gradient = found
        pairs.add(new_x - x, new_gradient - gradient)
        x, value, gradient = new_x, new_value, new_gradient
        history.append(value)
        if len(history) > 3 and history[-4] - value < tolerance:
            return Minimum(x, value, iteration + 1, "converged")
    return Minimum(x, value, iterations, "iteration limit")


class _Pairs:
    """The last changes of x and of its gradient, and the quasi-Newton direction they give."""

    def __init__(self, memory: int, size: int) -> None:
        self._changes, self._differences = np.empty((memory, size)), np.empty((memory, size))
        self._curvatures = np.empty(memory)
        self._next = self.count = 0

    def clear(self) -> None:
        """Forget all."""
        self._next = self.count = 0

    def add(self, change: Float, difference: Float) -> None:
        """Keep a pair of positive curvature, for the oldest where there is no room."""
        curvature = _dot(change, difference)
        if curvature > 1e-12 * _dot(difference, difference):
            self._changes[self._next], self._differences[self._next] = change, difference
            self._curvatures[self._next] = curvature
            self._next = (self._next + 1) % len(self._curvatures)
            self.count = min(self.count + 1, len(self._curvatures))

    def direction(self, gradient: Float) -> Float:
        """Return minus the approximate inverse Hessian times the gradient."""
        newest_first = (self._next - 1 - np.arange(self.count)) % len(self._curvatures)
        out = -gradient
        _two_loops(self._changes, self._differences, self._curvatures, newest_first, out)
        return out


def _line_search(
    function: Callable[[Float], tuple[float, Float]],
    x: Float,
    value: float,
    direction: Float,
    slope: float,
    step: float,
) -> tuple[Float, float, Float] | None:
    for _ in range(12):
        new_x = x + step * direction
        new_value, gradient = function(new_x)
        if new_value <= value + 1e-4 * step * slope:
            return _extended(
                function, x, value, direction, slope, step, (new_x, new_value, gradient)
            )
        curvature = new_value - value - step * slope
        step *= min(0.5, max(0.1, -step * slope / (2 * curvature))) if curvature > 0 else 0.5
    return None


def _extended(
    function: Callable[[Float], tuple[float, Float]],
    x: Float,
    value: float,
    direction: Float,
    slope: float,
    step: float,
    found: tuple[Float, float, Float],
) -> tuple[Float, float, Float]:
    """Go further while the way down is as steep as at the start: too short a step teaches nothing."""
    for _ in range(8):
        if _dot(direction, found[2]) >= 0.9 * slope:
            return found
        step *= 4
        new_x = x + step * direction
        new_value, gradient = function(new_x)
        if not new_value <= min(found[1], value + 1e-4 * step * slope):
            return found
        found = new_x, new_value, gradient
    return found


def _largest(direction: Float) -> float:
    return float(np.abs(direction).max(initial=0.0))


def _dot(first: Float, second: Float) -> float:
    return float(_sum_of_products(first, second))


# ---------------------------------------------------------------------------------------------- kernels


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
