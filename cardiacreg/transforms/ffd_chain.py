"""Free-form deformations one after the other: a deformation that no single fold-free spline holds.

``T(x) = A(x + w(x))`` with ``x + w(x) = (id + u_1) o ... o (id + u_n)(x)``: the first link given is the
first applied, and the last one carries the affine A. Determinants multiply,
``det(I + dw/dx) = prod det(I + du/dx)``, each at the point that the links before it lead to, so that a
chain of links that do not fold does not fold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cardiacreg.algebra import determinants, multiply
from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import Affine, voxel_grid
from cardiacreg.transforms.ffd import FFD


@dataclass(frozen=True, slots=True, eq=False)
class FFDChain:
    """Several free-form deformations as one transform; serves wherever an `FFD` is applied.

    Parameters
    ----------
    links : tuple of FFD
        At least one; the first is applied first. All but the last have the identity as their affine.

    Raises
    ------
    InvalidInputError
        If there is no link or an affine stands before a spline.
    """

    links: tuple[FFD, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "links", tuple(self.links))
        before = [link.affine.matrix for link in self.links[:-1]]
        if not self.links or not all(np.array_equal(matrix, np.eye(4)) for matrix in before):
            raise InvalidInputError(
                f"FFDChain: {len(self.links)} links, of which all but the last must have the identity as "
                "their affine; put the affine into the last one.",
                code="BAD_CHAIN",
            )

    @property
    def affine(self) -> Affine:
        """A in ``T(x) = A(x + w(x))``."""
        return self.links[-1].affine

    def displacement(self, points_mm: ArrayLike) -> Float:
        """Return w(x) in mm at target world points of shape (..., 3)."""
        points = np.asarray(points_mm, dtype=np.float64)
        moved = points.reshape(-1, 3)
        for link in self.links:
            moved = moved + link.displacement_and_gradient(moved)[0]
        return moved.reshape(points.shape) - points

    def displacement_gradient(self, points_mm: ArrayLike) -> Float:
        """Return dw/dx at target world points of shape (..., 3): shape (..., 3, 3)."""
        points = np.asarray(points_mm, dtype=np.float64)
        moved = points.reshape(-1, 3)
        whole = np.broadcast_to(np.eye(3), (len(moved), 3, 3))
        for link in self.links:
            u, slopes = link.displacement_and_gradient(moved)
            whole = multiply(np.eye(3) + slopes, whole)
            moved = moved + u
        return np.asarray(whole - np.eye(3)).reshape(*points.shape, 3)

    def apply(self, points_mm: ArrayLike) -> Float:
        """Map target world points of shape (..., 3) to atlas world points, mm."""
        points = np.asarray(points_mm, dtype=np.float64)
        return self.affine.apply(points + self.displacement(points))

    def grid_displacement(
        self, shape: tuple[int, int, int], voxel_to_world: Float, slices: slice = slice(None)
    ) -> Float:
        """Return w at the voxel centres of a lattice, shape (i, j, k, 3); see `FFD.grid_displacement`."""
        points = voxel_grid(shape, voxel_to_world)[:, :, slices]
        moved = points + self.links[0].grid_displacement(shape, voxel_to_world, slices)
        if len(self.links) > 1:
            moved = moved + FFDChain(self.links[1:]).displacement(moved)
        return moved - points

    def jacobian_determinant(self, shape: tuple[int, int, int], voxel_to_world: Float) -> Float:
        """Return det(I + dw/dx) at the voxel centres of any lattice, shape (i, j, k).

        The affine's own determinant is left out.
        """
        moved = voxel_grid(shape, voxel_to_world).reshape(-1, 3)
        values = np.ones(len(moved))
        for link in self.links:
            u, slopes = link.displacement_and_gradient(moved)
            values *= determinants(np.eye(3) + slopes)
            moved = moved + u
        return values.reshape(shape)

    def minimum_jacobian(self, shape: tuple[int, int, int], voxel_to_world: Float) -> float:
        """Return the smallest determinant over a lattice (see `jacobian_determinant`)."""
        return float(self.jacobian_determinant(shape, voxel_to_world).min())
