"""Tetrahedra inside a level set, by isosurface stuffing (Labelle and Shewchuk, SIGGRAPH 2007).

Nodes lie on two cubic lattices, one at the middles of the other's cells; the tetrahedra between them are
all alike and good. Where the surface passes close to a node, the node is moved onto it, so that what is
left to cut is never cut close to a node: no tetrahedron becomes flat. The surface is where a field is
zero; its vertices lie on it exactly as linear interpolation between nodes says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cardiacreg.arrays import Float

Rows = NDArray[np.int64]

_NEAR_LONG, _NEAR_SHORT = 0.24999, 0.41189
"""Shares of an edge within which the surface takes the node along: the paper's safe values."""


class Stuffed(NamedTuple):
    """Tetrahedra with nodes in units of the field's own lattice.

    Parameters
    ----------
    nodes : ndarray, shape (n, 3)
    tetrahedra : ndarray of int64, shape (m, 4)
        Of positive volume.
    """

    nodes: Float
    tetrahedra: Rows


class _Lattice(NamedTuple):
    """Both lattices' nodes, one after the other; numbers below `first` are of the first lattice."""

    nodes: Float
    values: Float
    tetrahedra: Rows
    first: int


def stuffed(field: NDArray[np.float32], step: float) -> Stuffed:
    """Fill the inside of a field's zero level with tetrahedra.

    Parameters
    ----------
    field : ndarray, shape (i, j, k)
        Positive inside; negative on the faces of the lattice.
    step : float
        Edge of a cubic cell of the tetrahedra's lattice, in units of the field's lattice.
    """
    lattice = _lattice(field, step)
    nodes, values = _warped(lattice)
    touched = (values[lattice.tetrahedra] > 0).any(axis=1)
    return _cut(nodes, values, lattice.tetrahedra[touched], lattice.first)


def _lattice(field: NDArray[np.float32], step: float) -> _Lattice:
    """Lay both lattices over the field, and the tetrahedra that may meet its inside."""
    shape = tuple(int(np.ceil((n - 1) / step)) + 4 for n in field.shape)
    corners = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(-1, 3)
    places = np.concatenate([corners, corners + 0.5]).astype(np.float64)
    nodes = (places - 1.5) * step
    values = ndimage.map_coordinates(field, nodes.T, order=1, mode="nearest").astype(np.float64)
    inside = (values > 0).reshape(2, *shape).any(axis=0)
    near = ndimage.binary_dilation(inside, np.ones((3, 3, 3)))
    near[[0, -1]] = near[:, [0, -1]] = near[:, :, [0, -1]] = False
    first = np.flatnonzero(near)
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    count = len(corners)
    found = []
    for axis in range(3):
        one, other = strides[(axis + 1) % 3], strides[(axis + 2) % 3]
        around = count + first[:, None] - np.array([0, one, one + other, other])
        ends = np.stack([first, first + strides[axis]], axis=1)
        found += [
            np.column_stack([ends, around[:, [n, (n + 1) % 4]]])
            for n in range(4)
        ]  # fmt: skip
    return _Lattice(nodes, values, np.concatenate(found), count)


def _warped(lattice: _Lattice) -> tuple[Float, Float]:
    """Move nodes onto the surface that passes close by them; their value is then zero.

    Nodes that share no edge are moved together: four classes, the even and odd ones of each lattice.
    """
    nodes, values = lattice.nodes.copy(), lattice.values.copy()
    edges = _crossed(lattice.tetrahedra, values)
    same = (edges[:, 0] < lattice.first) == (edges[:, 1] < lattice.first)
    near = np.where(same, _NEAR_LONG, _NEAR_SHORT)
    length = np.linalg.norm(nodes[edges[:, 0]] - nodes[edges[:, 1]], axis=1)
    step = np.abs(lattice.nodes[1] - lattice.nodes[0]).max()
    cells = np.floor((nodes - nodes[0]) / step + 1e-6).astype(np.int64)
    kind = 2 * (np.arange(len(nodes)) >= lattice.first) + cells.sum(axis=1) % 2
    for each in range(4):
        for here, there in ((0, 1), (1, 0)):
            own, other = edges[:, here], edges[:, there]
            crossed = (values[own] * values[other] < 0) & (kind[own] == each)
            share = np.where(
                crossed, values[own] / np.where(crossed, values[own] - values[other], 1), 1
            )
            chosen = np.flatnonzero(crossed & (share < near))
            # The nearest of a node's crossings is written last.
            chosen = chosen[np.argsort(-(share * length)[chosen], kind="stable")]
            at = nodes[own[chosen]] + share[chosen, None] * (
                nodes[other[chosen]] - nodes[own[chosen]]
            )
            nodes[own[chosen]], values[own[chosen]] = at, 0.0
    return nodes, values


def _crossed(tetrahedra: Rows, values: Float) -> Rows:
    """Edges between a node inside and one outside, each once, in order of their numbers."""
    pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    edges = np.concatenate([tetrahedra[:, pair] for pair in map(list, pairs)])
    edges = np.sort(edges[values[edges[:, 0]] * values[edges[:, 1]] < 0], axis=1)
    keys = np.unique(edges[:, 0] * len(values) + edges[:, 1])
    return np.stack([keys // len(values), keys % len(values)], axis=1)


def _cut(nodes: Float, values: Float, tetrahedra: Rows, first: int) -> Stuffed:
    """Keep what lies inside: whole tetrahedra, or what the surface leaves of them."""
    signs = np.sign(values).astype(np.int64)
    order = np.lexsort((tetrahedra, -signs[tetrahedra]))
    tetrahedra = np.take_along_axis(tetrahedra, order, axis=1)
    counts = [(signs[tetrahedra] == sign).sum(axis=1) for sign in (1, 0, -1)]
    cutter = _Cutter(nodes, values, first)
    whole = tetrahedra[counts[2] == 0]
    parts = [whole]
    for inside, on, way in ((1, 2, cutter.one), (1, 1, cutter.one), (1, 0, cutter.one),
                            (2, 1, cutter.pyramid), (2, 0, cutter.wedge),
                            (3, 0, cutter.prism)):  # fmt: skip
        chosen = (counts[0] == inside) & (counts[1] == on) & (counts[2] > 0)
        parts += way(tetrahedra[chosen])
    return _oriented(nodes, cutter, np.concatenate(parts))


def _oriented(nodes: Float, cutter: _Cutter, tetrahedra: Rows) -> Stuffed:
    """Turn the crossings' keys into numbers of nodes, drop what is not used, and orient."""
    used, numbers = np.unique(tetrahedra, return_inverse=True)
    numbers = numbers.reshape(-1, 4).astype(np.int64)
    places = cutter.places(used)
    a, b, c, d = (places[numbers[:, corner]] for corner in range(4))
    turned = np.einsum("ij,ij->i", np.cross(b - a, c - a), d - a) < 0
    numbers[turned, 2], numbers[turned, 3] = numbers[turned, 3], numbers[turned, 2].copy()
    return Stuffed(places, numbers)


class _Cutter:
    """How the surface cuts tetrahedra; a crossing of the edge (a, b) is called (a + 1) n + b."""

    def __init__(self, nodes: Float, values: Float, first: int) -> None:
        self.nodes, self.values, self.first = nodes, values, first

    def places(self, keys: Rows) -> Float:
        """Return where nodes and crossings lie."""
        n = len(self.nodes)
        places = np.empty((len(keys), 3))
        plain = keys < n
        places[plain] = self.nodes[keys[plain]]
        one, other = keys[~plain] // n - 1, keys[~plain] % n
        share = self.values[one] / (self.values[one] - self.values[other])
        places[~plain] = self.nodes[one] + share[:, None] * (self.nodes[other] - self.nodes[one])
        return places

    def _at(self, one: Rows, other: Rows) -> Rows:
        """Key of the crossing between two nodes, or the second one where it lies on the surface."""
        key = (np.minimum(one, other) + 1) * len(self.nodes) + np.maximum(one, other)
        return np.where(self.values[other] == 0, other, key)

    def _long(self, one: Rows, other: Rows) -> NDArray[np.bool_]:
        """Whether an edge joins two nodes of one lattice."""
        return np.asarray((one < self.first) == (other < self.first))

    def one(self, found: Rows) -> Sequence[Rows]:
        """One node inside: a smaller tetrahedron."""
        a = found[:, 0]
        return [np.column_stack([a, *(self._at(a, found[:, n]) for n in (1, 2, 3))])]

    def pyramid(self, found: Rows) -> Sequence[Rows]:
        """Two inside, one on the surface, one outside."""
        a, b, on, out = found.T
        second = self._long(a, out)
        a, b = np.where(second, b, a), np.where(second, a, b)
        near_a, near_b = self._at(a, out), self._at(b, out)
        return [np.column_stack([a, b, near_b, on]), np.column_stack([a, near_b, near_a, on])]

    def wedge(self, found: Rows) -> Sequence[Rows]:
        """Two inside, two outside."""
        a, b, m, n = found.T
        across = self._long(a, b)
        swapped = ~across & self._long(a, n)
        m, n = np.where(swapped, n, m), np.where(swapped, m, n)
        am, an, bm, bn = self._at(a, m), self._at(a, n), self._at(b, m), self._at(b, n)
        along = [np.column_stack(each)[across] for each in
                 ((a, b, bm, bn), (a, bm, bn, an), (a, bm, an, am))]  # fmt: skip
        beside = [np.column_stack(each)[~across] for each in
                  ((a, b, am, bn), (a, am, an, bn), (b, bm, bn, am))]  # fmt: skip
        return [*along, *beside]

    def prism(self, found: Rows) -> Sequence[Rows]:
        """Three inside, one outside."""
        a, b, c, out = found.T
        for _ in range(2):
            # The node at the long edge comes last; the order of the two others stays.
            moved = self._long(a, out)
            a, b, c = np.where(moved, b, a), np.where(moved, c, b), np.where(moved, a, c)
            moved = self._long(b, out)
            b, c = np.where(moved, c, b), np.where(moved, b, c)
        at_a, at_b, at_c = self._at(a, out), self._at(b, out), self._at(c, out)
        return [np.column_stack(each) for each in
                ((a, b, c, at_c), (a, b, at_b, at_c), (a, at_a, at_b, at_c))]  # fmt: skip
