"""Products and solutions in a fixed order: right, and equal bits whatever the libraries do."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from cardiacreg.algebra import (
    determinants,
    exponential,
    invert,
    length,
    multiply,
    settled,
    solve,
)

NUMBERS = st.floats(-1e3, 1e3, width=32)

OTHER_LIBRARIES = (
    {"OPENBLAS_NUM_THREADS": "2"},
    {"OPENBLAS_CORETYPE": "Haswell"},
    {"OPENBLAS_CORETYPE": "Nehalem"},
    {"NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"},
    {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX512F"},
)
"""What makes NumPy, its BLAS and the C library compute as on other processors."""

DIGEST = """
import hashlib
import numpy as np
from cardiacreg.algebra import determinants, exponential, invert, length, multiply, settled, solve
random = np.random.default_rng(0)
wide, square = random.normal(size=(60, 31)), random.normal(size=(31, 31))
points, turn = random.normal(size=(4000, 3)), random.normal(size=(3, 3))
found = [
    multiply(wide.T, wide, square), invert(square), solve(square, wide[0]), multiply(points, turn),
    determinants(random.normal(size=(50, 3, 3))), exponential(-40 * random.random(500)),
    length(wide[0]), settled(np.linalg.svd(square)[1]), settled(np.arctan2(*points.T[:2])),
]
print(hashlib.sha256(b"".join(np.ascontiguousarray(each).tobytes() for each in found)).hexdigest())
"""


def digest_with(environment):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DIGEST],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"} | environment,
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


def test_other_libraries_and_processors_change_no_bit():
    expected = digest_with({})
    assert len(expected) == 65
    for environment in OTHER_LIBRARIES:
        assert digest_with(environment) == expected, environment


@given(arrays(np.float64, (5, 4), elements=NUMBERS), arrays(np.float64, (4, 3), elements=NUMBERS))
def test_products_are_those_of_matrices_and_vectors(first, second):
    close = {"rtol": 1e-12, "atol": 1e-6}
    np.testing.assert_allclose(multiply(first, second), first @ second, **close)
    np.testing.assert_allclose(multiply(first[0], second), first[0] @ second, **close)
    np.testing.assert_allclose(multiply(first, second[:, 0]), first @ second[:, 0], **close)
    np.testing.assert_allclose(multiply(first[0], first[1]), first[0] @ first[1], **close)
    np.testing.assert_allclose(
        multiply(first, second, second.T), first @ second @ second.T, rtol=1e-12, atol=1e-2
    )


def test_a_product_is_summed_in_the_order_of_the_inner_index():
    row, column = np.array([[1e16, 1.0, -1e16]]), np.ones((3, 1))
    assert multiply(row, column)[0, 0] == 0.0
    assert multiply(row[:, [0, 2, 1]], column)[0, 0] == 1.0


def test_many_points_and_few_give_the_same_bits():
    random = np.random.default_rng(1)
    points, matrix = random.normal(size=(5000, 3)), random.normal(size=(3, 3))
    few = np.concatenate([multiply(part, matrix) for part in np.split(points, 50)])
    np.testing.assert_array_equal(multiply(points, matrix), few)


def test_stacks_of_matrices_multiply():
    random = np.random.default_rng(2)
    first, second = random.normal(size=(7, 3, 3)), random.normal(size=(7, 3, 3))
    np.testing.assert_allclose(multiply(first, second), first @ second, rtol=1e-12, atol=1e-12)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        multiply(np.ones((2, 3)), np.ones((2, 3)))


@pytest.mark.parametrize("size", [1, 3, 4, 40])
def test_solutions_and_inverses(size):
    random = np.random.default_rng(size)
    matrix, right = random.normal(size=(size, size)), random.normal(size=(size, 2))
    np.testing.assert_allclose(multiply(matrix, solve(matrix, right)), right, atol=1e-9)
    np.testing.assert_allclose(multiply(matrix, solve(matrix, right[:, 0])), right[:, 0], atol=1e-9)
    np.testing.assert_allclose(multiply(invert(matrix), matrix), np.eye(size), atol=1e-9)


def test_the_last_row_of_an_affine_stays_exact():
    matrix = np.eye(4)
    matrix[:3] = np.random.default_rng(3).normal(size=(3, 4))
    np.testing.assert_array_equal(invert(matrix)[3], [0, 0, 0, 1])


def test_a_singular_matrix_is_refused():
    with pytest.raises(np.linalg.LinAlgError):
        invert(np.ones((3, 3)))


def test_determinants_and_lengths():
    matrices = np.random.default_rng(4).normal(size=(6, 3, 3))
    np.testing.assert_allclose(determinants(matrices), np.linalg.det(matrices), atol=1e-12)
    assert length([3.0, 4.0]) == 5.0


@given(st.floats(-700, 700))
def test_the_exponential_is_right_to_the_last_digits(value):
    np.testing.assert_allclose(exponential(value), np.exp(value), rtol=4e-16)


def test_settled_numbers_forget_their_last_bits():
    values = np.random.default_rng(5).normal(size=100)
    np.testing.assert_array_equal(settled(values * (1 + 1e-15)), settled(values))
    assert np.abs(settled(values) - values).max() <= 2.0**-21


def test_a_product_over_nothing_is_zero():
    np.testing.assert_array_equal(multiply(np.zeros((2, 0), bool), np.zeros(0, int)), [0, 0])
    assert multiply(np.zeros((0, 3)), np.eye(3)).shape == (0, 3)
