"""Maps of points that are no free-form deformation of ours, and maps one after the other.

Other tools write splines of order 1 and 2 and chains in which an affine comes before a spline. Both are
kept as they are and evaluated exactly; what one `FFD` can hold becomes one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiacreg.arrays import Float, MadeAnew
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import Affine, as_numbers
from cardiacreg.transforms.ffd import FFD
from cardiacreg.transforms.resampling import PointMap

_ORDERS = (1, 2, 3)
_EDGE = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class BSplineMap(MadeAnew):
    """``T(x) = x + u(x)`` with a uniform B-spline u of order 1, 2 or 3.

    Unlike in an `FFD`, u is zero wherever the lattice does not hold all control points around x, as in
    ITK.

    Parameters
    ----------
    displacements_mm : array_like, shape (na, nb, nc, 3)
        Displacement of each control point in world RAS mm; at least order + 1 points per axis.
    lattice_to_world : array_like, shape (4, 4)
        Control-point indices to world mm.
    order : {1, 2, 3}
        1 is linear between control points.

    Raises
    ------
    InvalidInputError
        If the lattice is too small or not finite, its matrix singular, or the order another
        (BAD_LATTICE).
    """

    displacements_mm: Float
    lattice_to_world: Float
    order: int

    def __post_init__(self) -> None:
        values = np.ascontiguousarray(as_numbers(self.displacements_mm, "BSplineMap"))
        order: object = self.order
        known = isinstance(order, Integral) and order in _ORDERS
        if not known or values.ndim != 4 or min(values.shape[:3]) <= self.order:
            raise InvalidInputError(
                f"BSplineMap: control points of shape {values.shape} for order {self.order}; needs "
                "(na, nb, nc, 3), order + 1 points along each axis, and an order of 1, 2 or 3.",
                code="BAD_LATTICE",
            )
        if values.shape[3] != 3 or not np.isfinite(values).all():
            raise InvalidInputError(
                "BSplineMap: needs three finite numbers per control point.", code="BAD_LATTICE"
            )
        values.setflags(write=False)
        object.__setattr__(self, "displacements_mm", values)
        object.__setattr__(self, "lattice_to_world", Affine(self.lattice_to_world).matrix)

    def displacement(self, points_mm: ArrayLike) -> Float:
        """Return u(x) in mm at world points of shape (..., 3)."""
        points = np.asarray(points_mm, dtype=np.float64)
        positions = Affine(self.lattice_to_world).inverse().apply(points.reshape(-1, 3))
        shape = np.array(self.displacements_mm.shape[:3])
        margin = (self.order - 1) / 2
        inside = (positions >= margin - _EDGE) & (positions <= shape - 1 - margin + _EDGE)
        complete = inside.all(axis=1)
        found = np.zeros(positions.shape)
        found[complete] = self._spline(positions[complete])
        return found.reshape(points.shape)

    def apply(self, points_mm: ArrayLike) -> Float:
        """Map world points of shape (..., 3) in mm."""
        points = np.asarray(points_mm, dtype=np.float64)
        return np.asarray(points + self.displacement(points))

    def _spline(self, positions: Float) -> Float:
        shape = np.array(self.displacements_mm.shape[:3])
        first = np.floor(positions - (self.order - 1) / 2).astype(np.int64)
        first = np.clip(first, 0, shape - 1 - self.order)
        taps = np.arange(self.order + 1)
        weights = _basis(positions[:, :, None] - first[:, :, None] - taps, self.order)
        total = np.zeros(positions.shape)
        for a, b, c in np.ndindex(*(self.order + 1,) * 3):
            weight = weights[:, 0, a] * weights[:, 1, b] * weights[:, 2, c]
            points = self.displacements_mm[first[:, 0] + a, first[:, 1] + b, first[:, 2] + c]
            total += weight[:, None] * points
        return total


def _basis(distance: Float, order: int) -> Float:
    """The centred B-spline of an order at distances from its middle, in control-point spacings."""
    x = np.abs(distance)
    if order == 1:
        return np.asarray(np.maximum(1 - x, 0))
    if order == 2:
        return np.where(x < 0.5, 0.75 - x * x, np.maximum(1.5 - x, 0) ** 2 / 2)
    return np.where(x < 1, 2 / 3 - x * x * (1 - x / 2), np.maximum(2 - x, 0) ** 3 / 6)


@dataclass(frozen=True, slots=True, eq=False)
class TransformChain:
    """Maps of points one after the other, as one map; serves wherever points are mapped.

    Parameters
    ----------
    maps : tuple of Affine, FFD, FFDChain, BSplineMap or DisplacementField
        At least one; the first is applied first.

    Raises
    ------
    InvalidInputError
        If there is none (BAD_CHAIN).
    """

    maps: tuple[PointMap, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "maps", tuple(self.maps))
        if not self.maps:
            raise InvalidInputError("TransformChain: no maps; needs one or more.", code="BAD_CHAIN")
        for each in self.maps:
            if not callable(getattr(each, "apply", None)):
                raise InvalidInputError(
                    f"TransformChain: a {type(each).__name__} maps no points; needs transforms.",
                    code="BAD_TYPE",
                )

    def apply(self, points_mm: ArrayLike) -> Float:
        """Map world points of shape (..., 3) in mm."""
        moved: NDArray[np.float64] = np.asarray(points_mm, dtype=np.float64)
        for each in self.maps:
            moved = each.apply(moved)
        return moved


def composed(maps: Iterable[PointMap]) -> PointMap:
    """Return several maps, the first applied first, as the simplest one that is the same.

    Parameters
    ----------
    maps : iterable of Affine, FFD, FFDChain, BSplineMap or DisplacementField

    Returns
    -------
    Affine
        Of affines alone; the identity where there is nothing.
    FFD
        Of one cubic `BSplineMap` with at most affines after it: the same wherever its lattice is
        complete, and fading out over the control points beyond.
    TransformChain
        Of anything else, exactly, unless one map is left.
    """
    found: list[PointMap] = []
    for each in maps:
        if _is_identity(each):
            continue
        last = found[-1] if found else None
        if isinstance(each, Affine) and isinstance(last, Affine):
            found[-1] = each.compose(last)
        else:
            found.append(each)
    return _as_deformation(found) or (
        found[0]
        if len(found) == 1
        else TransformChain(tuple(found))
        if found
        else Affine.identity()
    )


def _is_identity(transform: PointMap) -> bool:
    return isinstance(transform, Affine) and np.array_equal(transform.matrix, np.eye(4))


def _as_deformation(maps: list[PointMap]) -> FFD | None:
    if not maps or len(maps) > 2:
        return None
    spline, after = maps[0], maps[1] if len(maps) == 2 else Affine.identity()
    if not isinstance(after, Affine) or not isinstance(spline, BSplineMap) or spline.order != 3:
        return None
    return FFD(after, spline.displacements_mm, spline.lattice_to_world)
