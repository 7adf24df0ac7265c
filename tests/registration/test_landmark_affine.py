import numpy as np
import pytest
from hypothesis import given

from cardiacreg import InvalidInputError, Landmarks, fit_landmark_affine
from tests.helpers import naive
from tests.helpers.strategies import affines, light, rotation, seeds


def spread_points(rng, count=6):
    return rng.normal(size=(count, 3)) * 30 + rng.normal(size=3) * 50


@light
@given(affines(), seeds)
def test_any_affine_is_recovered(affine, seed):
    points = spread_points(np.random.default_rng(seed))
    fit = fit_landmark_affine(Landmarks(points), Landmarks(affine.apply(points)))
    assert fit.model == "affine"
    assert fit.residual_mm < 1e-9 * max(1.0, fit.condition)
    np.testing.assert_allclose(fit.target_to_atlas.apply(points), affine.apply(points), atol=1e-7)


@light
@given(seeds)
def test_noisy_points_give_the_least_squares_affine(seed):
    rng = np.random.default_rng(seed)
    target, atlas = spread_points(rng, 8), spread_points(rng, 8)
    fit = fit_landmark_affine(Landmarks(target), Landmarks(atlas))
    expected = naive.least_squares_affine(target, atlas)
    np.testing.assert_allclose(fit.target_to_atlas.matrix[:3], expected, rtol=1e-6, atol=1e-6)
    gap = [
        np.asarray(naive.move([*expected, [0, 0, 0, 1]], p)) - q
        for p, q in zip(target, atlas, strict=True)
    ]
    assert fit.residual_mm == pytest.approx(
        np.sqrt(np.mean(np.sum(np.square(gap), axis=1))), rel=1e-6
    )


@pytest.mark.parametrize("model", ["similarity", "rigid"])
def test_similarity_and_rigid_are_recovered(model):
    rng = np.random.default_rng(4)
    points = spread_points(rng)
    scale = 1.3 if model == "similarity" else 1.0
    turn = rotation(rng)
    fit = fit_landmark_affine(
        Landmarks(points), Landmarks(scale * points @ turn.T + 7), model=model
    )
    assert fit.model == model
    np.testing.assert_allclose(fit.target_to_atlas.matrix[:3, :3], scale * turn, atol=1e-9)
    assert fit.residual_mm < 1e-9


@pytest.mark.parametrize("model", ["similarity", "rigid"])
def test_a_mirror_image_is_never_fitted_by_a_reflection(model):
    points = spread_points(np.random.default_rng(5))
    fit = fit_landmark_affine(Landmarks(points), Landmarks(points * (-1, 1, 1)), model=model)
    assert np.linalg.det(fit.target_to_atlas.matrix[:3, :3]) > 0


@pytest.mark.parametrize("model", ["similarity", "rigid"])
def test_no_small_turn_or_scaling_is_better(model):
    """The closed form is the minimum: nearby maps of the same model fit noisy points worse."""
    rng = np.random.default_rng(6)
    target, atlas = spread_points(rng), spread_points(rng)
    fit = fit_landmark_affine(Landmarks(target), Landmarks(atlas), model=model)
    linear = fit.target_to_atlas.matrix[:3, :3]
    for _ in range(30):
        q, r = np.linalg.qr(np.eye(3) + 1e-3 * rng.normal(size=(3, 3)))
        other = q * np.sign(np.diag(r)) @ linear
        other = other * (1 + 1e-3 * rng.normal()) if model == "similarity" else other
        moved = (target - target.mean(axis=0)) @ other.T + atlas.mean(axis=0)
        assert np.sqrt(((moved - atlas) ** 2).sum(axis=1).mean()) >= fit.residual_mm - 1e-12


@pytest.mark.parametrize("count", [3, 6])
def test_flat_points_give_a_similarity_that_says_so(count):
    points = spread_points(np.random.default_rng(7), count)
    points[:, 2] = 0
    fit = fit_landmark_affine(Landmarks(points), Landmarks(points * 2 + 1))
    assert fit.model == "similarity"
    assert np.isinf(fit.condition)
    np.testing.assert_allclose(fit.target_to_atlas.matrix[:3, :3], 2 * np.eye(3), atol=1e-9)


def test_flat_atlas_points_give_a_similarity_too():
    """12 degrees of freedom would flatten the target into a plane, which no map back can undo."""
    points = spread_points(np.random.default_rng(8))
    fit = fit_landmark_affine(Landmarks(points), Landmarks(points * (1, 1, 0)))
    assert fit.model == "similarity"


def test_condition_is_one_for_a_regular_cross():
    cross = np.concatenate([np.eye(3), -np.eye(3)])
    assert fit_landmark_affine(Landmarks(cross), Landmarks(cross)).condition == pytest.approx(1)


def refused(code, target, atlas, **keywords):
    with pytest.raises(InvalidInputError) as caught:
        fit_landmark_affine(Landmarks(target), Landmarks(atlas), **keywords)
    assert caught.value.code == code


def test_bad_landmarks_are_refused():
    points = spread_points(np.random.default_rng(9))
    line = np.outer(np.arange(6), [1.0, 2.0, 3.0])
    refused("BAD_LANDMARKS", points, points[:5])
    refused("BAD_LANDMARKS", points[:2], points[:2])
    refused("BAD_LANDMARKS", line, points)
    refused("BAD_LANDMARKS", points, line)
    refused("BAD_LANDMARKS", points, np.ones((6, 3)))


def test_an_unknown_model_is_refused():
    points = spread_points(np.random.default_rng(10))
    refused("BAD_OPTION", points, points, model="projective")
