"""Step 1: the least-squares affine between corresponding landmarks (paper, section II-C).

Minimises ``sum_n |M p_n + t - q_n|^2`` over the 12 numbers of (M, t) in closed form, where p are the
target's and q the atlas's points, so that the map goes from target to atlas. Four or more points that
do not lie in one plane are needed for 12 degrees of freedom; fewer or flatter sets give a similarity
(Umeyama 1991) or a rigid map instead, and the result says which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cardiacreg.algebra import determinants, multiply, settled, solve
from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError, check_argument
from cardiacreg.geometry import Affine, Landmarks

_LARGEST_CONDITION = 50.0
_ROTATION_STEP = 2.0**-36


@dataclass(frozen=True, slots=True, eq=False)
class LandmarkFit:
    """A landmark affine and how good it is.

    Parameters
    ----------
    target_to_atlas : Affine
        Maps target world points (mm) to atlas world points (mm).
    model : str
        ``"affine"`` (12 degrees of freedom), ``"similarity"`` (7) or ``"rigid"`` (6).
    residual_mm : float
        Root-mean-square distance of the mapped target points from the atlas points.
    condition : float
        Largest over smallest spread of the target points (1 for a sphere, infinite for a plane).
    """

    target_to_atlas: Affine
    model: str
    residual_mm: float
    condition: float


def fit_landmark_affine(
    target: Landmarks, atlas: Landmarks, *, model: str = "affine"
) -> LandmarkFit:
    """Fit the least-squares map from target landmarks to atlas landmarks.

    Parameters
    ----------
    target, atlas : Landmarks
        The same number (at least 3) of corresponding points, world mm.
    model : {"affine", "similarity", "rigid"}
        The richest model wanted; the data may force a poorer one.

    Returns
    -------
    LandmarkFit
        The map, the model really used, its residual in mm and the condition of the target points.

    Raises
    ------
    InvalidInputError
        If the counts differ, fewer than 3 points are given, or the points lie on one line.

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg import Landmarks, fit_landmark_affine
    >>> points = np.random.default_rng(0).normal(size=(6, 3)) * 30
    >>> fit = fit_landmark_affine(Landmarks(points), Landmarks(points * 1.1 + 5))
    >>> bool(np.allclose(fit.target_to_atlas.matrix[:3, 3], 5))
    True
    """
    check_argument(target, Landmarks, "fit_landmark_affine: target")
    check_argument(atlas, Landmarks, "fit_landmark_affine: atlas")
    found = fit_landmark_affines(target, [atlas], model=model)[0]
    if isinstance(found, InvalidInputError):
        raise found
    return found


def fit_landmark_affines(
    target: Landmarks, atlases: Sequence[Landmarks], *, model: str = "affine"
) -> list[LandmarkFit | InvalidInputError]:
    """Fit the map to each of many atlases; see `fit_landmark_affine`.

    Returns
    -------
    list of LandmarkFit or InvalidInputError
        One per atlas; why it cannot be fitted instead, where it cannot.

    Raises
    ------
    InvalidInputError
        If the target's points lie on one line or are fewer than 3, or the model is unknown.
    """
    _check_model(model)
    p, found = target.points_mm, dict[int, LandmarkFit | InvalidInputError]()
    alike = {n: a.points_mm for n, a in enumerate(atlases) if a.points_mm.shape == p.shape}
    for n in set(range(len(atlases))) - set(alike):
        found[n] = InvalidInputError(
            f"fit_landmark_affine: {len(p)} target points for {len(atlases[n].points_mm)} atlas "
            "points; needs the same landmarks in the same order on both.",
            code="BAD_LANDMARKS",
        )
    if not alike:
        return [found[n] for n in range(len(atlases))]
    _check_count(p)
    condition, wanted = _condition(_spread(p), "target"), dict[int, str]()
    for n, spread in zip(alike, _spread(np.stack(list(alike.values()))), strict=True):
        try:
            flattest = max(condition, _condition(spread, "atlas"))
            wanted[n] = _possible_model(model, len(p), flattest)
        except InvalidInputError as problem:
            found[n] = problem
    for used in dict.fromkeys(wanted.values()):
        members = [n for n, name in wanted.items() if name == used]
        matrices, residuals = _fit_alike(p, np.stack([alike[n] for n in members]), used)
        for n, matrix, rms in zip(members, matrices, residuals.tolist(), strict=True):
            found[n] = LandmarkFit(Affine(matrix), used, rms, condition)
    return [found[n] for n in range(len(atlases))]


def _fit_alike(p: Float, q: Float, model: str) -> tuple[Float, Float]:
    """Matrices to sets of points, shape (n, points, 3), by one model, and their residuals, mm."""
    if model == "affine":
        matrices = _affine_matrices(p, q)
    else:
        matrices = np.stack([_procrustes_matrix(p, each, model) for each in q])
    moved = multiply(p, matrices[:, :3, :3].swapaxes(1, 2)) + matrices[:, None, :3, 3]
    return matrices, np.sqrt(((moved - q) ** 2).sum(axis=2).mean(axis=1))


def _spread(points: Float) -> Float:
    """Singular values of points around their centre, largest first; of many sets at once."""
    return np.asarray(np.linalg.svd(points - points.mean(axis=-2, keepdims=True), compute_uv=False))


def _check_model(model: str) -> None:
    if not isinstance(model, str) or model not in ("affine", "similarity", "rigid"):
        raise InvalidInputError(
            f"fit_landmark_affine: model {model!r}; needs 'affine', 'similarity' or 'rigid'.",
            code="BAD_OPTION",
        )


def _check_count(points: Float) -> None:
    if len(points) < 3:
        raise InvalidInputError(
            f"fit_landmark_affine: {len(points)} target points; needs at least 3 (4 not in one "
            "plane for 12 degrees of freedom).",
            code="BAD_LANDMARKS",
        )


def _condition(spread: Float, which: str) -> float:
    """Largest over smallest spread; refuses points on one line."""
    if spread[1] < 1e-3 * max(spread[0], 1e-12):
        raise InvalidInputError(
            f"fit_landmark_affine: the {which} points lie on one line (spread {spread} mm); "
            "check the landmarks, or leave them out to have them derived from the labels.",
            code="BAD_LANDMARKS",
        )
    smallest = spread[2] if len(spread) > 2 else 0.0
    return float(spread[0] / smallest) if smallest > 1e-9 * spread[0] else float("inf")


def _possible_model(model: str, n_points: int, condition: float) -> str:
    if model == "affine" and (n_points < 4 or condition > _LARGEST_CONDITION):
        return "similarity"
    return model


def _affine_matrices(p: Float, q: Float) -> Float:
    """Least-squares affines to sets of points, shape (n, points, 3): one elimination for all."""
    centre_p, centres = p.mean(axis=0), q.mean(axis=1)
    away = p - centre_p
    moments = multiply(away.T, q - centres[:, None])
    found = solve(multiply(away.T, away), moments.swapaxes(0, 1).reshape(3, -1))
    linear = found.reshape(3, -1, 3).transpose(1, 2, 0)
    matrices = np.tile(np.eye(4), (len(q), 1, 1))
    matrices[:, :3, :3] = linear
    matrices[:, :3, 3] = centres - multiply(linear, centre_p)
    return matrices


def _procrustes_matrix(p: Float, q: Float, model: str) -> Float:
    centre_p, centre_q = p.mean(axis=0), q.mean(axis=0)
    u, values, vt = np.linalg.svd(multiply((q - centre_q).T, p - centre_p))
    sign = np.ones(3)
    sign[2] = np.sign(determinants(multiply(u, vt)))
    rotation = settled(multiply(u, np.diag(sign), vt), _ROTATION_STEP)
    size = (values * sign).sum() / ((p - centre_p) ** 2).sum()
    scale = float(settled(size, _ROTATION_STEP)) if model == "similarity" else 1.0
    matrix = np.eye(4)
    matrix[:3, :3] = scale * rotation
    matrix[:3, 3] = centre_q - multiply(scale * rotation, centre_p)
    return matrix
