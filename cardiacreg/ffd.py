"""The free-form deformation: a cubic B-spline lattice of displacements on top of an affine map.

``T(x) = A(x + u(x))`` maps target world points to atlas world points (mm), with
``u(x) = sum_abc B_a B_b B_c d_abc`` over the 4x4x4 control points around x (Rueckert et al. 1999, the
paper's [29]). Displacements are in world mm; control points outside the lattice count as zero. All
interpolation weights are built here, in NumPy, and shared with the other steps as data: per axis, the
index of the first of four control points and their four weights (`SplineTable`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiacreg._jit import kernel
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import Affine, apply_matrix

Float = NDArray[np.float64]


class SplineTable(NamedTuple):
    """Cubic B-spline weights of n positions along one axis of a lattice."""

    first: NDArray[np.int64]
    """Index of the first of the four control points, shape (n,)."""
    weights: Float
    """Weights of the four control points, shape (n, 4)."""


def spline_table(positions: ArrayLike, n_control: int, *, derivative: int = 0) -> SplineTable:
    """Return the four cubic B-spline weights of each position along one axis.

    Parameters
    ----------
    positions : array_like, shape (n,)
        Positions in control-point indices (0 is the first control point).
    n_control : int
        Control points along the axis, at least 4.
    derivative : {0, 1, 2}
        Order of the derivative with respect to the position, per control-point spacing.

    Returns
    -------
    SplineTable
        Control points beyond either end weigh zero.
    """
    position = np.asarray(positions, dtype=np.float64)
    base = np.floor(position)
    weights = _cubic_weights(position - base, derivative)
    wanted = base.astype(np.int64) - 1
    first = np.clip(wanted, 0, n_control - 4)
    return SplineTable(first, _shift_weights(weights, first - wanted))


def _cubic_weights(t: Float, derivative: int) -> Float:
    if derivative == 0:
        columns = (
            (1 - t) ** 3 / 6,
            (3 * t**3 - 6 * t**2 + 4) / 6,
            (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
            t**3 / 6,
        )
    elif derivative == 1:
        columns = (
            -((1 - t) ** 2) / 2,
            (3 * t**2 - 4 * t) / 2,
            (-3 * t**2 + 2 * t + 1) / 2,
            t**2 / 2,
        )
    else:
        columns = (1 - t, 3 * t - 2, 1 - 3 * t, t)
    return np.stack(columns, axis=-1)


def _shift_weights(weights: Float, offset: NDArray[np.int64]) -> Float:
    if not offset.any():
        return np.ascontiguousarray(weights)
    moved = np.zeros_like(weights)
    source = np.arange(4) + offset[:, None]
    valid = (source >= 0) & (source < 4)
    moved[valid] = np.take_along_axis(weights, np.clip(source, 0, 3), axis=1)[valid]
    return moved


def contract_axis(coefficients: Float, table: SplineTable, axis: int) -> Float:
    """Replace a lattice axis by positions: the four-term weighted sum of control points along it."""
    moved = np.moveaxis(coefficients, axis, 0)
    shape = (-1,) + (1,) * (moved.ndim - 1)
    total = table.weights[:, 0].reshape(shape) * moved[table.first]
    for tap in range(1, 4):
        total += table.weights[:, tap].reshape(shape) * moved[table.first + tap]
    return np.moveaxis(total, 0, axis)


@dataclass(frozen=True, slots=True, eq=False)
class FFD:
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
        to_lattice = Affine(self.lattice_to_world).inverse()
        positions = to_lattice.apply(points.reshape(-1, 3))
        tables = [spline_table(positions[:, a], self.displacements_mm.shape[a]) for a in range(3)]
        total = np.zeros((len(positions), 3))
        for a, b, c in np.ndindex(4, 4, 4):
            weight = tables[0].weights[:, a] * tables[1].weights[:, b] * tables[2].weights[:, c]
            index = tuple(t.first + tap for t, tap in zip(tables, (a, b, c), strict=True))
            total += weight[:, None] * self.displacements_mm[index]
        return total.reshape(points.shape)

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
        tables = self._grid_tables(shape, voxel_to_world, slices)
        if tables is None:
            return self._scattered_displacement(shape, voxel_to_world, slices)
        field = self.displacements_mm
        for axis in (2, 1, 0):
            field = contract_axis(field, tables[axis], axis)
        return field

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
        local = self.displacements_mm @ self._directions()
        out = np.empty(shape)
        i, j, k = (self._jacobian_table(along, axis) for axis, along in enumerate(positions))
        _jacobian_kernel(local, i, j, k, out)
        return out

    def minimum_jacobian(self, shape: tuple[int, int, int], voxel_to_world: Float) -> float:
        """Return the smallest determinant over a lattice (see `jacobian_determinant`)."""
        return float(self.jacobian_determinant(shape, voxel_to_world).min())

    def _directions(self) -> Float:
        return np.asarray(self.lattice_to_world[:3, :3] / self.spacing_mm)

    def _refined_lattice(self) -> tuple[tuple[int, int, int], Float]:
        na, nb, nc = (4 * n - 3 for n in self.displacements_mm.shape[:3])
        return (na, nb, nc), self.lattice_to_world @ np.diag([0.25, 0.25, 0.25, 1.0])

    def _grid_positions(
        self, shape: tuple[int, int, int], voxel_to_world: Float
    ) -> list[Float] | None:
        to_lattice = np.linalg.inv(self.lattice_to_world) @ voxel_to_world
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

    def _jacobian_table(self, positions: Float, axis: int) -> Float:
        """Weights of value and slope (per mm) along an axis, shape (n, 9): the last is the index."""
        value = spline_table(positions, self.displacements_mm.shape[axis])
        slope = spline_table(positions, self.displacements_mm.shape[axis], derivative=1)
        return np.column_stack([value.weights, slope.weights / self.spacing_mm[axis], value.first])

    def _scattered_displacement(
        self, shape: tuple[int, int, int], voxel_to_world: Float, slices: slice
    ) -> Float:
        axes = [np.arange(n, dtype=np.float64) for n in shape]
        axes[2] = axes[2][slices]
        indices = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
        return self.displacement(apply_matrix(voxel_to_world, indices))


def lattice_over_box(
    lower_mm: ArrayLike, upper_mm: ArrayLike, spacing_mm: ArrayLike
) -> tuple[Float, tuple[int, int, int]]:
    """Return the origin (mm) and shape of a control lattice whose splines are complete on a box.

    Parameters
    ----------
    lower_mm, upper_mm : array_like, shape (3,)
        Corners of the box in a frame whose axes are the lattice's.
    spacing_mm : array_like, shape (3,) or scalar
        Distance between control points.
    """
    lower = np.asarray(lower_mm, dtype=np.float64)
    spacing = np.broadcast_to(np.asarray(spacing_mm, dtype=np.float64), 3)
    cells = np.maximum(1, np.ceil((np.asarray(upper_mm) - lower) / spacing - 1e-9)).astype(int)
    slack = (cells * spacing - (np.asarray(upper_mm) - lower)) / 2
    return lower - slack - spacing, (int(cells[0]) + 3, int(cells[1]) + 3, int(cells[2]) + 3)


def subdivide(coefficients: Float) -> Float:
    """Return the coefficients of the same spline on a lattice of half the spacing, same first point.

    Exact wherever all four control points of the coarse lattice exist (Lane and Riesenfeld 1980):
    ``(c[n-1] + 6 c[n] + c[n+1]) / 8`` on old points, ``(c[n] + c[n+1]) / 2`` between them.

    Parameters
    ----------
    coefficients : ndarray, shape (na, nb, nc, m)

    Returns
    -------
    ndarray, shape (2 na - 1, 2 nb - 1, 2 nc - 1, m)
    """
    fine = coefficients
    for axis in range(3):
        coarse = np.moveaxis(fine, axis, 0)
        padded = np.concatenate([0 * coarse[:1], coarse, 0 * coarse[:1]])
        doubled = np.empty((2 * len(coarse) - 1, *coarse.shape[1:]))
        doubled[::2] = (padded[:-2] + 6 * padded[1:-1] + padded[2:]) / 8
        doubled[1::2] = (coarse[:-1] + coarse[1:]) / 2
        fine = np.moveaxis(doubled, 0, axis)
    return np.ascontiguousarray(fine)


def bending_matrices(n_control: int, spacing_mm: float) -> Float:
    """Return the Gram matrices of a spline axis: integrals of products of equal derivatives.

    ``G_d[a, b]`` is the integral over the lattice's complete part of the d-th derivatives of basis
    functions a and b, in mm, for d = 0, 1, 2; exact by four-point Gauss quadrature per cell. The bending
    energy of the paper's [29] is a sum of Kronecker products of these.

    Returns
    -------
    ndarray, shape (3, n_control, n_control)
    """
    nodes, node_weights = np.polynomial.legendre.leggauss(4)
    cells = np.arange(1, n_control - 2, dtype=np.float64)
    positions = (cells[:, None] + (nodes + 1) / 2).ravel()
    weights = np.tile(node_weights / 2, len(cells)) * spacing_mm
    grams = np.zeros((3, n_control, n_control))
    for order in range(3):
        table = spline_table(positions, n_control, derivative=order)
        basis = np.zeros((len(positions), n_control))
        np.put_along_axis(basis, table.first[:, None] + np.arange(4), table.weights, axis=1)
        basis /= spacing_mm**order
        grams[order] = np.einsum("na,n,nb->ab", basis, weights, basis)
    return grams


# ---------------------------------------------------------------------------------------------- kernels


@kernel
def _contract_value_and_slope(values, table, value, slope):
    """Spline and its slope along the leading axis at one position."""
    f = int(table[8])
    for b in range(values.shape[1]):
        for c in range(values.shape[2]):
            v0, v1 = values[f, b, c], values[f + 1, b, c]
            v2, v3 = values[f + 2, b, c], values[f + 3, b, c]
            value[b, c] = table[0] * v0 + table[1] * v1 + table[2] * v2 + table[3] * v3
            slope[b, c] = table[4] * v0 + table[5] * v1 + table[6] * v2 + table[7] * v3


@kernel
def _jacobian_kernel(displacements, table_i, table_j, table_k, out):
    """Determinant of I + du/dx on the product of three lists of positions, lattice-aligned axes."""
    na, nb, nc = displacements.shape[:3]
    flat = displacements.reshape(na, nb, nc * 3)
    plane, plane_i = np.empty((nb, nc * 3)), np.empty((nb, nc * 3))
    row, row_i = np.empty((nc, 3)), np.empty((nc, 3))
    row_j, unused = np.empty((nc, 3)), np.empty((nc, 3))
    jacobian = np.empty((3, 3))
    for i in range(table_i.shape[0]):
        _contract_value_and_slope(flat, table_i[i], plane, plane_i)
        for j in range(table_j.shape[0]):
            _contract_value_and_slope(plane.reshape(nb, nc, 3), table_j[j], row, row_j)
            _contract_value_and_slope(plane_i.reshape(nb, nc, 3), table_j[j], row_i, unused)
            for k in range(table_k.shape[0]):
                out[i, j, k] = _determinant(row_i, row_j, row, table_k[k], jacobian)


@kernel
def _determinant(row_i, row_j, row, table, jacobian):
    """Determinant of I + du/dx at one point from rows of control points along k."""
    f = int(table[8])
    for c in range(3):
        jacobian[c, 0], jacobian[c, 1], jacobian[c, 2] = 0.0, 0.0, 0.0
        for t in range(4):
            jacobian[c, 0] += table[t] * row_i[f + t, c]
            jacobian[c, 1] += table[t] * row_j[f + t, c]
            jacobian[c, 2] += table[4 + t] * row[f + t, c]
        jacobian[c, c] += 1.0
    return (
        jacobian[0, 0] * (jacobian[1, 1] * jacobian[2, 2] - jacobian[1, 2] * jacobian[2, 1])
        - jacobian[0, 1] * (jacobian[1, 0] * jacobian[2, 2] - jacobian[1, 2] * jacobian[2, 0])
        + jacobian[0, 2] * (jacobian[1, 0] * jacobian[2, 1] - jacobian[1, 1] * jacobian[2, 0])
    )
