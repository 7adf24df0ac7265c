import numpy as np
import pytest

from cardiacreg.compute import lbfgs
from cardiacreg.compute.lbfgs import minimise


def quadratic(rng, n=12):
    root = rng.normal(size=(n, n))
    matrix, centre = root @ root.T + np.eye(n), rng.normal(size=n)

    def function(x):
        gap = x - centre
        return float(0.5 * gap @ matrix @ gap), matrix @ gap

    return function, centre


def rosenbrock(x):
    a, b = x
    return float((1 - a) ** 2 + 100 * (b - a * a) ** 2), np.array(
        [-2 * (1 - a) - 400 * a * (b - a * a), 200 * (b - a * a)]
    )


@pytest.mark.parametrize("seed", range(3))
def test_finds_the_minimum_of_a_quadratic(seed):
    function, centre = quadratic(np.random.default_rng(seed))
    found = minimise(function, np.zeros(12), iterations=200, first_step=1.0, tolerance=1e-14)
    np.testing.assert_allclose(found.x, centre, atol=1e-5)
    assert found.value == function(found.x)[0]


def test_finds_the_end_of_a_curved_valley():
    found = minimise(
        rosenbrock, np.array([-1.2, 1.0]), iterations=300, first_step=0.1, tolerance=1e-16
    )
    np.testing.assert_allclose(found.x, 1, atol=1e-5)


def test_never_goes_up_and_counts_its_iterations():
    previous = rosenbrock(np.array([-1.2, 1.0]))[0] + 1
    for limit in range(6):
        found = minimise(
            rosenbrock, np.array([-1.2, 1.0]), iterations=limit, first_step=0.1, tolerance=0.0
        )
        assert found.reason == "iteration limit"
        assert found.iterations == limit
        assert found.value < previous
        previous = found.value


def test_first_step_moves_the_fastest_component_by_at_most_what_was_said():
    seen = []

    def function(x):
        seen.append(x)
        return float(x @ x), 2 * x

    minimise(function, np.array([30.0, -40.0]), iterations=1, first_step=0.5, tolerance=0.0)
    np.testing.assert_allclose(seen[1], (30 - 0.375, -40 + 0.5))


def test_converges_when_three_iterations_gain_less_than_the_tolerance():
    function, _ = quadratic(np.random.default_rng(4))
    loose = minimise(function, np.zeros(12), iterations=500, first_step=1.0, tolerance=1e-2)
    tight = minimise(function, np.zeros(12), iterations=500, first_step=1.0, tolerance=1e-10)
    assert loose.reason == tight.reason == "converged"
    assert loose.iterations < tight.iterations
    assert tight.value <= loose.value


def test_stays_at_a_stationary_point():
    found = minimise(
        lambda x: (1.0, 0 * x), np.ones(3), iterations=5, first_step=1.0, tolerance=0.0
    )
    assert (found.iterations, found.reason) == (0, "converged")
    np.testing.assert_array_equal(found.x, 1)


def test_a_wrong_gradient_ends_the_search_where_it_began():
    def uphill(x):
        return float(x @ x), -2 * x

    found = minimise(uphill, np.ones(3), iterations=5, first_step=1.0, tolerance=0.0)
    assert found.reason == "step too small"
    np.testing.assert_array_equal(found.x, 1)


def test_walls_of_nan_are_stepped_back_from():
    def walled(x):
        if x[0] > 2:
            return float("nan"), np.full(1, np.nan)
        return float((x[0] - 1.9) ** 2), 2 * (x - 1.9)

    found = minimise(walled, np.zeros(1), iterations=50, first_step=4.0, tolerance=1e-12)
    assert found.x[0] == pytest.approx(1.9, abs=1e-4)


def test_the_start_is_not_written_to():
    start = np.zeros(12)
    function, _ = quadratic(np.random.default_rng(5))
    minimise(function, start, iterations=5, first_step=1.0, tolerance=0.0)
    assert not start.any()


def test_a_step_that_is_far_too_short_is_extended():
    """Down a long slope from a first step of a micrometre, in a few iterations."""

    def slope(x):
        return float(np.sqrt(1 + (x[0] - 100) ** 2)), np.array(
            [(x[0] - 100) / np.sqrt(1 + (x[0] - 100) ** 2)]
        )

    found = minimise(slope, np.zeros(1), iterations=12, first_step=1e-3, tolerance=0.0)
    assert abs(found.x[0] - 100) < 1


def test_first_step_is_measured_as_asked():
    seen = []

    def function(x):
        seen.append(x.copy())
        return float(((x - 3) ** 2).sum()), 2 * (x - 3)

    minimise(
        function, np.zeros(2), iterations=1, first_step=1.0, tolerance=0.0,
        largest_change=lambda direction: 100 * np.abs(direction).max(),
    )  # fmt: skip
    assert np.abs(seen[1]).max() == 0.01


@pytest.mark.parametrize("size", [1, 2, 7, 8, 20, 8192, 8200])
@pytest.mark.parametrize("steps", [0, 1, 3, 11])
def test_direction_is_that_of_the_updated_inverse_hessian(size, steps):
    """From y's / y'y, with each of eight pairs: H <- (1 - s y' / y's) H (1 - y s' / y's) + s s' / y's."""
    rng = np.random.default_rng(size + steps)
    search, kept = begun(np.zeros(size)), []
    stored = (search.changes, search.differences, search.curvatures)
    for _ in range(steps):
        change = rng.normal(size=size)
        difference = change + 0.1 * rng.normal(size=size)
        search.rows[lbfgs._FOUND], search.rows[lbfgs._FOUND_GRADIENT] = change, difference
        lbfgs._keep_pair(search.counts, search.rows, *stored)
        kept.append((change, difference))
    kept = [(s, y) for s, y in kept if s @ y > 1e-12 * (y @ y)][-len(search.curvatures) :]
    scale = kept[-1][0] @ kept[-1][1] / (kept[-1][1] @ kept[-1][1]) if kept else 1.0

    def applied(vector, known):
        if not known:
            return scale * vector
        s, y = known[-1]
        inner = applied(vector - y * (s @ vector) / (y @ s), known[:-1])
        return inner - s * (y @ inner) / (y @ s) + s * (s @ vector) / (y @ s)

    gradient, direction = rng.normal(size=size), np.empty(size)
    lbfgs._quasi_newton(search.counts, *stored, gradient, direction)
    np.testing.assert_allclose(direction, -applied(gradient, kept), rtol=1e-8, atol=1e-12)


def begun(start):
    return lbfgs._begin(start, iterations=5, first_step=1.0, tolerance=0.0)


def two_loops(pairs, gradient):
    """Minus the approximate inverse Hessian times the gradient, by its textbook recursion."""
    out, coefficients = -gradient, []
    for s, y in reversed(pairs):
        coefficients.append((s @ out) / (s @ y))
        out = out - coefficients[-1] * y
    if pairs:
        s, y = pairs[-1]
        out = out * ((s @ y) / (y @ y))
    for (s, y), coefficient in zip(pairs, reversed(coefficients), strict=True):
        out = out + (coefficient - (y @ out) / (s @ y)) * s
    return out


def line_search(function, x, value, gradient, direction, step):
    """Point, value and gradient of the step that is taken, backtracking or extending; None for none."""
    slope = direction @ gradient
    for _ in range(12):
        new = function(x + step * direction)
        if new[0] <= value + 1e-4 * step * slope:
            break
        curvature = new[0] - value - step * slope
        step *= min(0.5, max(0.1, -step * slope / (2 * curvature))) if curvature > 0 else 0.5
    else:
        return None
    found = (x + step * direction, *new)
    for _ in range(8):
        if direction @ found[2] >= 0.9 * slope:
            break
        step *= 4
        new = function(x + step * direction)
        if not new[0] <= min(found[1], value + 1e-4 * step * slope):
            break
        found = (x + step * direction, *new)
    return found


def plain_loop(function, start, iterations, first_step, tolerance):
    """The same method as a plain loop with lists, without state: what the search must do."""
    x, (value, gradient) = start, function(start)
    pairs, history = [], [value]
    for iteration in range(iterations):
        direction = two_loops(pairs, gradient)
        if direction @ gradient >= 0:
            pairs, direction = [], -gradient
        if not direction.any():
            return x, value, iteration, "converged"
        step = 1.0 if pairs else first_step / np.abs(direction).max()
        found = line_search(function, x, value, gradient, direction, step)
        if found is None and pairs:
            pairs, step = [], first_step / np.abs(gradient).max()
            found = line_search(function, x, value, gradient, -gradient, step)
        if found is None:
            return x, value, iteration, "step too small"
        s, y = found[0] - x, found[2] - gradient
        if s @ y > 1e-12 * (y @ y):
            pairs = [*pairs, (s, y)][-8:]
        x, value, gradient = found
        history.append(value)
        if len(history) > 3 and history[-4] - value < tolerance:
            return x, value, iteration + 1, "converged"
    return x, value, iterations, "iteration limit"


def absolute(x):
    return float(np.abs(x).sum()), np.sign(x)


def walled(x):
    if x[0] > 2:
        return float("nan"), np.full(x.size, np.nan)
    return float(((x - 1.9) ** 2).sum()), 2 * (x - 1.9)


def uphill(x):
    return float(x @ x), -2 * x


@pytest.mark.parametrize("function", [rosenbrock, absolute, walled, uphill])
@pytest.mark.parametrize("first_step", [1e-3, 0.1, 4.0])
@pytest.mark.parametrize("tolerance", [0.0, 1e-3])
def test_takes_the_steps_of_a_plain_loop(function, first_step, tolerance):
    """Up to how rounding adds up over a few iterations, with walls, kinks and wrong gradients."""
    start = np.array([-1.2, 1.0])
    for iterations in (0, 1, 2, 3, 4, 6, 9):
        found = minimise(
            function, start, iterations=iterations, first_step=first_step, tolerance=tolerance
        )
        x, value, count, reason = plain_loop(function, start, iterations, first_step, tolerance)
        assert (found.iterations, found.reason) == (count, reason)
        np.testing.assert_allclose(found.x, x, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(found.value, value, rtol=1e-7, atol=1e-12)
