"""The free-form deformation: a cubic B-spline lattice of displacements on top of an affine map.

``T(x) = A(x + u(x))`` maps target world points to atlas world points (mm), with
``u(x) = sum_abc B_a B_b B_c d_abc`` over the 4x4x4 control points around x (Rueckert et al. 1999, the
paper's [29]). Displacements are in world mm; control points outside the lattice count as zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cardiacreg.algebra import invert, multiply
from cardiacreg.arrays import Float, MadeAnew
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import Affine, apply_matrix
from cardiacreg.transforms.bspline import (
    SplineTable as SplineTable,
    bending_matrices as bending_matrices,
    contract_axis as contract_axis,
    lattice_over_box as lattice_over_box,
    spline_at_points,
    spline_table as spline_table,
    subdivide as subdivide,
)
from cardiacreg.transforms.jacobian import jacobian_determinants


@dataclass(frozen=True, slots=True, eq=False)
class FFD(MadeAnew):
    """A B-spline free-form deformation with its affine part: the whole result of a registration.

    Parameters
    ----------
    affine : Affine
        A in ``T(x) = A(x + u(x))``, target world mm to atlas world mm.
    displacements_mm : array_like, shape (na, nb, nc, 3)
        Displacement of each control point in target world mm; at least 4 points per axis.
    lattice_to_world : array_like, shape (4, 4)
        Control-point indices to target world mm; its axes are orthogonal.

    Raises
    ------
    InvalidInputError
        If the lattice has fewer than 4 points along an axis or holds values that are not finite.
    """

    affine: Affine
    displacements_mm: Float
    lattice_to_world: Float

    def __post_init__(self) -> None:
        values = np.array(self.displacements_mm, dtype=np.float64, order="C")
        if values.ndim != 4 or values.shape[3] != 3 or min(values.shape[:3]) < 4:
            raise InvalidInputError(
                f"FFD: displacements of shape {values.shape}; needs (na, nb, nc, 3) with at least 4 "
                "control points along each axis.",
                code="BAD_LATTICE",
            )
        if not np.isfinite(values).all():
            raise InvalidInputError("FFD: displacements hold NaN or infinity.", code="BAD_LATTICE")
        values.setflags(write=False)
        matrix = Affine(self.lattice_to_world).matrix
        object.__setattr__(self, "displacements_mm", values)
        object.__setattr__(self, "lattice_to_world", matrix)

    @property
    def spacing_mm(self) -> Float:
        """Distance between control points along the lattice axes in mm, shape (3,)."""
        return np.asarray(np.linalg.norm(self.lattice_to_world[:3, :3], axis=0))

    def displacement(self, points_mm: ArrayLike) -> Float:
        """Return u(x) in mm at target world points of shape (..., 3)."""
        points = np.asarray(points_mm, dtype=np.float64)
        return self._evaluated(points, (0, 0, 0)).reshape(points.shape)

    def displacement_gradient(self, points_mm: ArrayLike) -> Float:
        """Return du/dx at target world points of shape (..., 3): shape (..., 3, 3), component by axis."""
        points = np.asarray(points_mm, dtype=np.float64)
        slopes = [self._evaluated(points, order) for order in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]
        per_index = np.stack(slopes, axis=-1)
        gradient = multiply(per_index, invert(self.lattice_to_world[:3, :3]))
        return np.asarray(gradient.reshape(*points.shape, 3))

    def _evaluated(self, points: Float, orders: tuple[int, int, int]) -> Float:
        """The spline, or its slope per control point along one lattice axis, at points: (n, 3)."""
        to_lattice = Affine(self.lattice_to_world).inverse()
        positions = to_lattice.apply(points.reshape(-1, 3))
        shape = self.displacements_mm.shape
        tables = [spline_table(positions[:, a], shape[a], derivative=orders[a]) for a in range(3)]
        total = np.zeros((len(positions), 3))
        for a, b, c in np.ndindex(4, 4, 4):
            weight = tables[0].weights[:, a] * tables[1].weights[:, b] * tables[2].weights[:, c]
            index = tuple(t.first + tap for t, tap in zip(tables, (a, b, c), strict=True))
            total += weight[:, None] * self.displacements_mm[index]
        return total

    def displacement_and_gradient(self, points_mm: Float) -> tuple[Float, Float]:
        """Return u and du/dx at once at points of shape (n, 3), faster: shapes (n, 3) and (n, 3, 3)."""
        to_lattice = Affine(self.lattice_to_world).inverse().matrix
        positions = apply_matrix(to_lattice, points_mm)
        values, slopes = spline_at_points(positions, self.displacements_mm)
        return values, multiply(slopes, to_lattice[:3, :3])

    def apply(self, points_mm: ArrayLike) -> Float:
        """Map target world points of shape (..., 3) to atlas world points, mm."""
        points = np.asarray(points_mm, dtype=np.float64)
        return self.affine.apply(points + self.displacement(points))

    def grid_displacement(
        self, shape: tuple[int, int, int], voxel_to_world: Float, slices: slice = slice(None)
    ) -> Float:
        """Return u at the voxel centres of a lattice, shape (i, j, k, 3), world mm.

        Parameters
        ----------
        shape : tuple of int
            Voxels along (i, j, k).
        voxel_to_world : ndarray, shape (4, 4)
            Any lattice; one whose axes are those of the control lattice is much faster.
        slices : slice
            Which k to evaluate.
        """
        rows = self.grid_rows(shape, voxel_to_world, slices)
        if rows is None:
            return self._scattered_displacement(shape, voxel_to_world, slices)
        table, field = rows
        return contract_axis(field, table, 0)

    def grid_rows(
        self, shape: tuple[int, int, int], voxel_to_world: Float, slices: slice = slice(None)
    ) -> tuple[SplineTable, Float] | None:
        """Return u on a lattice but for the sum along i, which is left to who looks up voxels one by one.

        Parameters
        ----------
        shape, voxel_to_world, slices
            As `grid_displacement` takes them.

        Returns
        -------
        SplineTable
            Weights of the lattice's i.
        ndarray, shape (na, j, k, 3)
            Sums over the control points along j and k, world mm.
        None
            Instead of both, if the lattice's axes are not those of the control lattice.
        """
        tables = self._grid_tables(shape, voxel_to_world, slices)
        if tables is None:
            return None
        field = self.displacements_mm
        for axis in (2, 1):
            field = contract_axis(field, tables[axis], axis)
        return tables[0], np.ascontiguousarray(field)

    def jacobian_determinant(self, shape: tuple[int, int, int], voxel_to_world: Float) -> Float:
        """Return det(I + du/dx) at the voxel centres of a lattice aligned with the control lattice.

        The affine's own determinant is left out: 1 means no local change of volume, values at or below
        zero mean folding. On a lattice that is not aligned, the determinant is that of the control
        lattice's own points instead, refined four times.

        Returns
        -------
        ndarray, shape (i, j, k)
        """
        positions = self._grid_positions(shape, voxel_to_world)
        if positions is None:
            shape, voxel_to_world = self._refined_lattice()
            positions = [np.arange(n) / 4 for n in shape]
        local = multiply(self.displacements_mm, self._directions())
        return jacobian_determinants(local, self.spacing_mm, positions)

    def minimum_jacobian(self, shape: tuple[int, int, int], voxel_to_world: Float) -> float:
        """Return the smallest determinant over a lattice (see `jacobian_determinant`)."""
        return float(self.jacobian_determinant(shape, voxel_to_world).min())

    def _directions(self) -> Float:
        return np.asarray(self.lattice_to_world[:3, :3] / self.spacing_mm)

    def _refined_lattice(self) -> tuple[tuple[int, int, int], Float]:
        na, nb, nc = (4 * n - 3 for n in self.displacements_mm.shape[:3])
        return (na, nb, nc), multiply(self.lattice_to_world, np.diag([0.25, 0.25, 0.25, 1.0]))

    def _grid_positions(
        self, shape: tuple[int, int, int], voxel_to_world: Float
    ) -> list[Float] | None:
        to_lattice = multiply(invert(self.lattice_to_world), voxel_to_world)
        off_axis = to_lattice[:3, :3] - np.diag(np.diag(to_lattice[:3, :3]))
        if np.abs(off_axis * np.array(shape)).max() > 1e-6:
            return None
        return [to_lattice[a, a] * np.arange(shape[a]) + to_lattice[a, 3] for a in range(3)]

    def _grid_tables(
        self, shape: tuple[int, int, int], voxel_to_world: Float, slices: slice
    ) -> list[SplineTable] | None:
        positions = self._grid_positions(shape, voxel_to_world)
        if positions is None:
            return None
        positions[2] = positions[2][slices]
        return [spline_table(positions[a], self.displacements_mm.shape[a]) for a in range(3)]

    def _scattered_displacement(
        self, shape: tuple[int, int, int], voxel_to_world: Float, slices: slice
    ) -> Float:
        axes = [np.arange(n, dtype=np.float64) for n in shape]
        axes[2] = axes[2][slices]
        indices = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
        return self.displacement(apply_matrix(voxel_to_world, indices))
