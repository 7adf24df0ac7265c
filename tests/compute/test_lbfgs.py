import numpy as np
import pytest

from cardiacreg.compute.lbfgs import _Pairs, minimise


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
    """From y's / y'y, with each of three pairs: H <- (1 - s y' / y's) H (1 - y s' / y's) + s s' / y's."""
    rng, memory = np.random.default_rng(size + steps), 3
    pairs, kept = _Pairs(memory, size), []
    for _ in range(steps):
        change = rng.normal(size=size)
        difference = change + 0.1 * rng.normal(size=size)
        pairs.add(change, difference)
        kept.append((change, difference))
    kept = [(s, y) for s, y in kept if s @ y > 1e-12 * (y @ y)][-memory:]
    scale = kept[-1][0] @ kept[-1][1] / (kept[-1][1] @ kept[-1][1]) if kept else 1.0

    def applied(vector, known):
        if not known:
            return scale * vector
        s, y = known[-1]
        inner = applied(vector - y * (s @ vector) / (y @ s), known[:-1])
        return inner - s * (y @ inner) / (y @ s) + s * (s @ vector) / (y @ s)

    gradient = rng.normal(size=size)
    np.testing.assert_allclose(pairs.direction(gradient), -applied(gradient, kept), rtol=1e-8)
