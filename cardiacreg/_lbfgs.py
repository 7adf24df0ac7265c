"""Limited-memory BFGS (Nocedal 1980), its line search backtracking or extending, in a few lines.

SciPy's routine was not used because it sums with BLAS, whose bits depend on its thread count, and
because the registration needs its first step stated in mm.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


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
    pairs: deque[tuple[Float, Float, float]] = deque(maxlen=memory)
    history = [value]
    for iteration in range(iterations):
        direction = _direction(gradient, pairs)
        slope = _dot(direction, gradient)
        if slope >= 0:
            pairs.clear()
            direction, slope = -gradient, -_dot(gradient, gradient)
        if not direction.any():
            return Minimum(x, value, iteration, "converged")
        step = 1.0 if pairs else first_step / measure(direction)
        found = _line_search(function, x, value, direction, slope, step)
        if found is None and pairs:
            pairs.clear()
            direction, slope = -gradient, -_dot(gradient, gradient)
            step = first_step / measure(direction)
            found = _line_search(function, x, value, direction, slope, step)
        if found is None:
            return Minimum(x, value, iteration, "step too small")
        new_x, new_value, new_gradient = found
        change, difference = new_x - x, new_gradient - gradient
        curvature = _dot(change, difference)
        if curvature > 1e-12 * _dot(difference, difference):
            pairs.append((change, difference, curvature))
        x, value, gradient = new_x, new_value, new_gradient
        history.append(value)
        if len(history) > 3 and history[-4] - value < tolerance:
            return Minimum(x, value, iteration + 1, "converged")
    return Minimum(x, value, iterations, "iteration limit")


def _direction(gradient: Float, pairs: deque[tuple[Float, Float, float]]) -> Float:
    q = -gradient
    coefficients = []
    for change, difference, curvature in reversed(pairs):
        coefficient = _dot(change, q) / curvature
        coefficients.append(coefficient)
        q = q - coefficient * difference
    if pairs:
        _, difference, curvature = pairs[-1]
        q = q * (curvature / _dot(difference, difference))
    for (change, difference, curvature), coefficient in zip(
        pairs, reversed(coefficients), strict=True
    ):
        q = q + (coefficient - _dot(difference, q) / curvature) * change
    return q


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
    return float(np.einsum("n,n->", first, second))
