"""How good tetrahedra are."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from cardiacreg.arrays import Float


def signed_volumes(nodes: Float, tetrahedra: NDArray[np.int64]) -> Float:
    """Return the volume of every tetrahedron, in cubes of the nodes' unit, shape (m,).

    Parameters
    ----------
    nodes : ndarray, shape (n, 3)
    tetrahedra : ndarray of int, shape (m, 4)
    """
    a, b, c, d = (nodes[tetrahedra[:, corner]] for corner in range(4))
    return np.asarray(np.einsum("ij,ij->i", np.cross(b - a, c - a), d - a) / 6)


def scaled_jacobians(nodes: Float, tetrahedra: NDArray[np.int64]) -> Float:
    """Return the scaled Jacobian of every tetrahedron: 1 for a regular one, 0 for a flat one, shape (m,).

    Six times the volume over the largest product of the three edges that meet at a corner, times the
    square root of two (Knupp et al., The Verdict Geometric Quality Library, 2006).

    Parameters
    ----------
    nodes : ndarray, shape (n, 3)
    tetrahedra : ndarray of int, shape (m, 4)
    """
    lengths = {}
    for one, other in combinations(range(4), 2):
        edge = nodes[tetrahedra[:, one]] - nodes[tetrahedra[:, other]]
        lengths[one, other] = lengths[other, one] = np.linalg.norm(edge, axis=1)
    products = [
        np.prod([lengths[corner, other] for other in range(4) if other != corner], axis=0)
        for corner in range(4)
    ]
    largest = np.maximum(np.max(products, axis=0), 1e-300)
    return np.asarray(np.sqrt(2) * 6 * signed_volumes(nodes, tetrahedra) / largest)
