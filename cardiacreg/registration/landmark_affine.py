"""Step 1: the least-squares affine between corresponding landmarks (paper, section II-C).

Minimises ``sum_n |M p_n + t - q_n|^2`` over the 12 numbers of (M, t) in closed form, where p are the
target's and q the atlas's points, so that the map goes from target to atlas. Four or more points that
do not lie in one plane are needed for 12 degrees of freedom; fewer or flatter sets give a similarity
(Umeyama 1991) or a rigid map instead, and the result says which.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cardiacreg.algebra import determinants, multiply, settled, solve
from cardiacreg.errors import InvalidInputError
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
    p, q = target.points_mm, atlas.points_mm
    if p.shape != q.shape:
        raise InvalidInputError(
            f"fit_landmark_affine: {len(p)} target points for {len(q)} atlas points; "
            "needs the same landmarks in the same order on both.",
            code="BAD_LANDMARKS",
        )
    condition = _check_spread(p, "target")
    flattest = max(condition, _check_spread(q, "atlas"))
    used = _possible_model(model, len(p), flattest)
    matrix = _affine_matrix(p, q) if used == "affine" else _procrustes_matrix(p, q, used)
    residual = multiply(p, matrix[:3, :3].T) + matrix[:3, 3] - q
    rms = float(np.sqrt((residual**2).sum(axis=1).mean()))
    return LandmarkFit(Affine(matrix), used, rms, condition)


def _check_spread(points: NDArray[np.float64], which: str) -> float:
    if len(points) < 3:
        raise InvalidInputError(
            f"fit_landmark_affine: {len(points)} {which} points; needs at least 3 (4 not in one "
            "plane for 12 degrees of freedom).",
            code="BAD_LANDMARKS",
        )
    spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    if spread[1] < 1e-3 * max(spread[0], 1e-12):
        raise InvalidInputError(
            f"fit_landmark_affine: the {which} points lie on one line (spread {spread} mm); "
            "check the landmarks, or leave them out to have them derived from the labels.",
            code="BAD_LANDMARKS",
        )
    smallest = spread[2] if len(spread) > 2 else 0.0
    return float(spread[0] / smallest) if smallest > 1e-9 * spread[0] else float("inf")


def _possible_model(model: str, n_points: int, condition: float) -> str:
    if model not in ("affine", "similarity", "rigid"):
        raise InvalidInputError(
            f"fit_landmark_affine: model {model!r}; needs 'affine', 'similarity' or 'rigid'.",
            code="BAD_OPTION",
        )
    if model == "affine" and (n_points < 4 or condition > _LARGEST_CONDITION):
        return "similarity"
    return model


def _affine_matrix(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    centre_p, centre_q = p.mean(axis=0), q.mean(axis=0)
    away = p - centre_p
    linear = solve(multiply(away.T, away), multiply(away.T, q - centre_q))
    matrix = np.eye(4)
    matrix[:3, :3] = linear.T
    matrix[:3, 3] = centre_q - multiply(linear.T, centre_p)
    return matrix


def _procrustes_matrix(
    p: NDArray[np.float64], q: NDArray[np.float64], model: str
) -> NDArray[np.float64]:
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
