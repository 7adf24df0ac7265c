"""Harmonic potentials on tetrahedra, by linear finite elements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import cg

from cardiacreg.arrays import Float
from cardiacreg.errors import RefinementError

Rows = NDArray[np.int64]

_TOLERANCE = 1e-7
_MOST_ITERATIONS = 5000


class Elements:
    """Linear elements of a mesh.

    Parameters
    ----------
    nodes : ndarray, shape (n, 3)
    tetrahedra : ndarray of int, shape (m, 4)
    """

    def __init__(self, nodes: Float, tetrahedra: Rows) -> None:
        self._count, self._tetrahedra = len(nodes), tetrahedra
        corners = nodes[tetrahedra]
        edges = np.stack([corners[:, n] - corners[:, 0] for n in (1, 2, 3)], axis=1)
        self._volumes = np.abs(np.linalg.det(edges)) / 6
        slopes = np.linalg.inv(edges).transpose(0, 2, 1)
        self._slopes = np.concatenate([-slopes.sum(axis=1, keepdims=True), slopes], axis=1)
        parts = np.einsum("eia,eja,e->eij", self._slopes, self._slopes, self._volumes)
        rows = np.repeat(tetrahedra, 4, axis=1).ravel()
        columns = np.tile(tetrahedra, (1, 4)).ravel()
        shape = (self._count, self._count)
        self._stiffness = sparse.coo_array((parts.ravel(), (rows, columns)), shape=shape).tocsr()

    def potential(self, *, zero: Sequence[Rows], one: Sequence[Rows]) -> Float:
        """Return the harmonic potential that is 0 and 1 at given nodes, shape (n,).

        Nothing flows across what else bounds the mesh. A node in both is given 1.

        Parameters
        ----------
        zero, one : sequence of ndarray of int
            Numbers of nodes.

        Raises
        ------
        RefinementError
            If it is not found (NO_POTENTIAL).
        """
        found = np.full(self._count, np.nan)
        for value, sets in ((0.0, zero), (1.0, one)):
            for nodes in sets:
                found[nodes] = value
        free = np.isnan(found)
        system = self._stiffness[free]
        given = -(system[:, ~free] @ found[~free])
        system = system[:, free]
        scale = sparse.diags_array(1 / system.diagonal())
        start = np.full(int(free.sum()), 0.5)
        solved, failed = cg(
            system, given, start, rtol=_TOLERANCE, M=scale, maxiter=_MOST_ITERATIONS
        )
        if failed:
            raise RefinementError(
                "volume mesh: a potential between its surfaces was not found; look at the surfaces of "
                "the model (cardiacreg surfaces), or try another edge (edge_mm= or --edge-mm).",
                code="NO_POTENTIAL",
            )
        found[free] = solved
        return found

    def gradients(self, potential: Float) -> Float:
        """Return the gradient in every tetrahedron, averaged around its nodes, shape (m, 3)."""
        plain = np.einsum("eia,ei->ea", self._slopes, potential[self._tetrahedra])
        weights = np.repeat(self._volumes, 4)
        rows = self._tetrahedra.ravel()
        total = np.bincount(rows, weights, minlength=self._count)
        mean = np.stack(
            [
                np.bincount(rows, weights * np.repeat(plain[:, axis], 4), minlength=self._count)
                for axis in range(3)
            ],
            axis=1,
        ) / np.maximum(total, 1e-300)[:, None]  # fmt: skip
        return np.asarray(mean[self._tetrahedra].mean(axis=1))

    def means(self, potential: Float) -> Float:
        """Return a potential in the middle of every tetrahedron, shape (m,)."""
        return np.asarray(potential[self._tetrahedra].mean(axis=1))
