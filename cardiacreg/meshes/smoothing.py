"""Better shapes for the worst tetrahedra: their inner nodes move where that helps all around them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cardiacreg.arrays import Float
from cardiacreg.meshes.boundary import boundary_of
from cardiacreg.meshes.quality import scaled_jacobians
from cardiacreg.meshes.stuffing import Stuffed

_POOR = 0.15
_ROUNDS = 3
_MOVES = (0.3, 0.15, 0.05)
"""Of the mean edge around a node."""


def improved(mesh: Stuffed, poor: float = _POOR) -> Stuffed:
    """Return the mesh with inner nodes of poor tetrahedra moved.

    A node goes where the worst tetrahedron around it is best, among places a few steps away; the surface
    and the numbers of nodes stay.

    Parameters
    ----------
    mesh : Stuffed
    poor : float
        Scaled Jacobian below which a tetrahedron is poor.
    """
    nodes, tetrahedra = mesh.nodes.copy(), mesh.tetrahedra
    inner = np.ones(len(nodes), dtype=np.bool_)
    inner[np.unique(boundary_of(tetrahedra))] = False
    starts, around = _incidence(len(nodes), tetrahedra)
    for _ in range(_ROUNDS):
        quality = scaled_jacobians(nodes, tetrahedra)
        worst = np.argsort(quality, kind="stable")
        chosen = tetrahedra[worst[: int((quality < poor).sum())]].ravel()
        for node in dict.fromkeys(chosen[inner[chosen]].tolist()):
            _move(nodes, tetrahedra[around[starts[node] : starts[node + 1]]], node)
    return Stuffed(nodes, tetrahedra)


def _incidence(
    n: int, tetrahedra: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tetrahedra around each node, one after the other, and where each node's begin."""
    order = np.argsort(tetrahedra.ravel(), kind="stable")
    starts = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(np.bincount(tetrahedra.ravel(), minlength=n), out=starts[1:])
    return starts, order // 4


def _move(nodes: Float, star: NDArray[np.int64], node: int) -> None:
    """Try places around a node, and keep the best."""
    corners = nodes[star]
    own = star == node
    size = float(np.linalg.norm(corners - nodes[node], axis=2).max(axis=1).mean())
    for share in _MOVES:
        tried = nodes[node] + share * size * _DIRECTIONS
        places = np.where(own[None, :, :, None], tried[:, None, None], corners[None])
        flat = places.reshape(-1, 3)
        rows = np.arange(len(flat)).reshape(-1, 4)
        found = scaled_jacobians(flat, rows).reshape(len(tried), -1).min(axis=1)
        best = int(np.argmax(found))
        nodes[node] = tried[best]


_DIRECTIONS = np.array(
    [[0.0, 0, 0]]
    + [
        [x, y, z]
        for x in (-1, 0, 1)
        for y in (-1, 0, 1)
        for z in (-1, 0, 1)
        if (x, y, z) != (0, 0, 0)
    ]
)
_DIRECTIONS /= np.maximum(np.linalg.norm(_DIRECTIONS, axis=1), 1)[:, None]
