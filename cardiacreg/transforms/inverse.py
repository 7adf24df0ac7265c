"""The inverse of a deformation at given points, by damped Newton steps, with a report.

``T(x) = A(x + u(x)) = y`` is solved for x: with z the inverse affine of y, the step is
``(I + du/dx)^-1 (z - x - u(x))``, halved while it does not bring a point closer. Where the deformation
does not fold there is exactly one solution; where it does, or a point starts too far away, the report
says that the point did not converge.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import Affine, as_numbers
from cardiacreg.transforms.ffd import FFD
from cardiacreg.transforms.ffd_chain import FFDChain


class Inverse(NamedTuple):
    """Points found by `invert_points`, and how well they were found."""

    points_mm: Float
    """x with T(x) near y, shape (..., 3)."""
    residual_mm: Float
    """Distance in mm, before the affine, between x + u(x) and where it should be, shape (...)."""
    converged: NDArray[np.bool_]
    """Whether the residual is within the tolerance, shape (...)."""
    iterations: int
    """Newton steps made."""


def invert_points(
    transform: FFD | FFDChain | Affine,
    points_mm: ArrayLike,
    *,
    tolerance_mm: float = 1e-3,
    iterations: int = 50,
) -> Inverse:
    """Return the points that a transform maps to given points.

    Parameters
    ----------
    transform : FFD, FFDChain or Affine
        Target world mm to atlas world mm. A chain is inverted link by link, the last one first.
    points_mm : array_like, shape (..., 3)
        Atlas world points: landmarks, or the vertices of a mesh.
    tolerance_mm : float
        Largest residual of a point that counts as found.
    iterations : int
        Most Newton steps.

    Returns
    -------
    Inverse

    Raises
    ------
    InvalidInputError
        If the points are not finite triples (BAD_SHAPE), or the transform is another (BAD_TYPE).

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg import FFD, Affine, invert_points
    >>> lattice = np.diag([20.0, 20.0, 20.0, 1.0])
    >>> lattice[:3, 3] = -40.0
    >>> bent = np.zeros((6, 6, 6, 3))
    >>> bent[3, 3, 3] = (3.0, 0.0, 0.0)  # one control point, moved by 3 mm
    >>> transform = FFD(Affine(np.eye(4)), bent, lattice)
    >>> inverse = invert_points(transform, [[10.0, 5.0, 0.0]])
    >>> bool(np.allclose(transform.apply(inverse.points_mm), [[10.0, 5.0, 0.0]], atol=0.01))
    True
    """
    if not isinstance(transform, Affine | FFD | FFDChain):
        raise InvalidInputError(
            f"invert_points: a {type(transform).__name__}; needs an Affine, FFD or FFDChain. Invert the "
            "members of a chain one by one, the last one first.",
            code="BAD_TYPE",
        )
    points = as_numbers(points_mm, "invert_points")
    if points.shape[-1:] != (3,) or not np.isfinite(points).all():
        raise InvalidInputError(
            f"invert_points: points of shape {points.shape}; needs finite (..., 3).",
            code="BAD_SHAPE",
        )
    affine = transform if isinstance(transform, Affine) else transform.affine
    wanted = affine.inverse().apply(points.reshape(-1, 3))
    if isinstance(transform, Affine):
        residual = np.zeros(points.shape[:-1])
        return Inverse(wanted.reshape(points.shape), residual, residual == 0, 0)
    links = transform.links if isinstance(transform, FFDChain) else (transform,)
    found, steps = wanted, 0
    for link in reversed(links):
        found, gap, more = _newton(link, found, tolerance_mm / len(links), iterations)
        steps += more
    if len(links) > 1:
        gap = np.linalg.norm(wanted - found - transform.displacement(found), axis=1)
    residual = gap.reshape(points.shape[:-1])
    return Inverse(found.reshape(points.shape), residual, residual <= tolerance_mm, steps)


def _newton(ffd: FFD, wanted: Float, tolerance: float, iterations: int) -> tuple[Float, Float, int]:
    at = _Places.of(ffd, wanted, wanted.copy())
    steps = 0
    while steps < iterations:
        # One digit beyond the tolerance costs one more step and spares later doubts.
        open_points = np.flatnonzero(at.gap > 0.1 * tolerance)
        if len(open_points) == 0:
            break
        steps += 1
        step = _newton_step(np.eye(3) + at.slopes[open_points], at.missing[open_points])
        if not _move_closer(ffd, wanted, open_points, step, at):
            break
    return at.x, at.gap, steps


def _newton_step(slopes: Float, missing: Float) -> Float:
    """Solve 3x3 systems by Cramer's rule; where one is nearly singular, go straight."""
    a, b, c = (np.ascontiguousarray(slopes[:, :, axis]) for axis in range(3))
    cofactors = np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)], axis=1)
    determinants = (a * cofactors[:, 0]).sum(axis=1)
    singular = np.abs(determinants) < 1e-3
    step = np.einsum("nij,nj->ni", cofactors, missing)
    step /= np.where(singular, 1.0, determinants)[:, None]
    step[singular] = missing[singular]
    return np.asarray(step, dtype=np.float64)


class _Places(NamedTuple):
    """Points on their way, and what is known there."""

    x: Float
    missing: Float
    """From x + u(x) to where it should be."""
    gap: Float
    """Length of that."""
    slopes: Float
    """du/dx."""

    @classmethod
    def of(cls, ffd: FFD, wanted: Float, x: Float) -> _Places:
        values, slopes = ffd.displacement_and_gradient(x)
        missing = wanted - x - values
        return cls(x, missing, np.asarray(np.linalg.norm(missing, axis=1)), slopes)


def _move_closer(
    ffd: FFD, wanted: Float, points: NDArray[np.int64], step: Float, at: _Places
) -> bool:
    """Take each point's step, halved until it helps; returns whether any point came closer."""
    moved = False
    for halving in range(6):
        trial = _Places.of(ffd, wanted[points], at.x[points] + 0.5**halving * step)
        closer = trial.gap < at.gap[points]
        chosen = points[closer]
        for held, new in zip(at, trial, strict=True):
            held[chosen] = new[closer]
        moved = moved or bool(closer.any())
        points, step = points[~closer], step[~closer]
        if len(points) == 0:
            break
    return moved
