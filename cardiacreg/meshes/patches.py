"""Patches of a mesh's boundary by the names of the package `ukb-atlas`, each in one piece.

They are open where a valve lies: ``LV_ENDO``, ``RV_SEPTUM``, ``RV_FREEWALL``, ``LV_EPI``, ``RV_EPI`` and
the rims of the valves, which together close the wall. Labels know no valves: ``MV`` is the rim of all
that opens the left ventricle, the aortic valve with it. Where the right ventricle opens in two places,
the anterior rim is ``PV`` and the other ``TV``; where it opens in one, that is ``TV``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from cardiacreg.geometry import LV_WALL
from cardiacreg.meshes.boundary import BASE, SURFACES, row_keys
from cardiacreg.meshes.tetrahedral import VolumeMesh
from cardiacreg.surfaces.level_fields import LV_ENDO, RV_ENDO

PATCHES = ("LV_ENDO", "RV_SEPTUM", "RV_FREEWALL", "LV_EPI", "RV_EPI", "MV", "TV", "PV")
_PARTS = ((0,), (1, 2), (3, 4), (5,), (6,), (7,))
"""Patches that are one surface until their halves are told apart."""
_MOST_ROUNDS = 50
_LEAST_RIM = 0.15
"""Of the area of the RV's rims: a smaller one is no valve."""

Numbers = NDArray[np.int64]


def boundary_patches(mesh: VolumeMesh) -> dict[str, NDArray[np.bool_]]:
    """Return which triangles of a mesh's boundary each patch has.

    Small islands go to the patch around them, and no patch touches itself at a single node, so that
    meshers find simple curves between patches.

    Parameters
    ----------
    mesh : VolumeMesh

    Returns
    -------
    dict of str to ndarray of bool, shape (k,)
        Of `PATCHES`, those that the mesh has; every triangle belongs to one.
    """
    left = _regions_inside(mesh) == LV_WALL
    border = _Border(mesh.triangles.astype(np.int64), len(mesh.nodes_mm))
    numbers = _right_rims(mesh, _first_guess(mesh, left), border)
    whole = np.empty(len(PATCHES), dtype=np.int64)
    for part in _PARTS:
        whole[list(part)] = part[0]
    cleaned = border.cleaned(whole[numbers], np.zeros(len(numbers), dtype=np.int64))
    halves = np.where((cleaned == 1) & ~left, 2, np.where((cleaned == 3) & ~left, 4, cleaned))
    found = border.cleaned(halves, cleaned)
    return {name: found == n for n, name in enumerate(PATCHES) if (found == n).any()}


def _first_guess(mesh: VolumeMesh, left: NDArray[np.bool_]) -> Numbers:
    """Number of each triangle's patch by its surface, the region behind it and the nearer cavity."""
    centres = mesh.nodes_mm[mesh.triangles].mean(axis=1)
    of = {name: mesh.surfaces == number for name, number in SURFACES.items()}
    names = np.where(left, PATCHES.index("LV_EPI"), PATCHES.index("RV_EPI"))
    names[of[LV_ENDO]] = PATCHES.index("LV_ENDO")
    right = np.where(left, PATCHES.index("RV_SEPTUM"), PATCHES.index("RV_FREEWALL"))
    names[of[RV_ENDO]] = right[of[RV_ENDO]]
    rim = np.flatnonzero(of[BASE])
    mitral = np.ones(len(rim), dtype=np.bool_)
    if of[RV_ENDO].any():
        apart = [cKDTree(centres[of[name]]).query(centres[rim])[0] for name in (LV_ENDO, RV_ENDO)]
        mitral = apart[0] <= apart[1]
    names[rim] = np.where(mitral, PATCHES.index("MV"), PATCHES.index("TV"))
    return np.asarray(names, dtype=np.int64)


def _right_rims(mesh: VolumeMesh, numbers: Numbers, border: _Border) -> Numbers:
    """Tell the pulmonary from the tricuspid rim, where there are two."""
    rims, pieces = numbers == PATCHES.index("TV"), border.pieces(numbers)
    if not rims.any():
        return numbers
    corners = mesh.nodes_mm[mesh.triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.bincount(pieces[rims], np.linalg.norm(normals[rims], axis=1))
    large = np.flatnonzero(areas > _LEAST_RIM * areas.sum())
    if len(large) != 2:
        return numbers
    centres = corners.mean(axis=1)
    middle = {name: centres[mesh.surfaces == SURFACES[name]].mean(axis=0) for name in SURFACES}
    upward = centres[numbers == PATCHES.index("MV")].mean(axis=0) - middle[LV_ENDO]
    anterior = np.cross(upward, middle[RV_ENDO] - middle[LV_ENDO])
    heights = [float(centres[pieces == piece].mean(axis=0) @ anterior) for piece in large]
    pulmonary = pieces == large[int(np.argmax(heights))]
    return np.where(pulmonary, PATCHES.index("PV"), numbers)


def _regions_inside(mesh: VolumeMesh) -> NDArray[np.int32]:
    """Region of the tetrahedron behind each triangle of the boundary."""
    tetrahedra = mesh.tetrahedra.astype(np.int64)
    faces = np.concatenate([tetrahedra[:, each] for each in
                            ([1, 2, 3], [0, 3, 2], [0, 1, 3], [0, 2, 1])])  # fmt: skip
    keys = row_keys(np.concatenate([faces, mesh.triangles.astype(np.int64)]))
    inside, outside = keys[: len(faces)], keys[len(faces) :]
    order = np.argsort(inside)
    return np.tile(mesh.regions, 4)[order[np.searchsorted(inside[order], outside)]]


class _Border:
    """Which triangles are neighbours, over an edge and around a node."""

    def __init__(self, triangles: Numbers, n_nodes: int) -> None:
        self._triangles = triangles
        edges = np.concatenate([triangles[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
        keys = row_keys(edges)
        own = np.tile(np.arange(len(triangles)), 3)
        order = np.argsort(keys, kind="stable")
        same = np.flatnonzero(keys[order][1:] == keys[order][:-1])
        self._pairs = np.stack([own[order[same]], own[order[same + 1]]])
        self._n_nodes = n_nodes

    def cleaned(self, numbers: Numbers, within: Numbers) -> Numbers:
        """Leave each patch in one piece; a triangle changes only to patches of its own `within`."""
        for _ in range(_MOST_ROUNDS):
            before = numbers
            numbers = self._without_islands(numbers, within)
            numbers = self._without_pinches(numbers, within)
            if (numbers == before).all():
                break
        return numbers

    def pieces(self, numbers: Numbers) -> Numbers:
        first, second = self._pairs[:, numbers[self._pairs[0]] == numbers[self._pairs[1]]]
        count = len(numbers)
        joined = sparse.coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
        return np.asarray(connected_components(joined, directed=False)[1], dtype=np.int64)

    def _without_islands(self, numbers: Numbers, within: Numbers) -> Numbers:
        """Give what lies outside a patch's largest piece to the patch that most neighbours have."""
        pieces = self.pieces(numbers)
        sizes = np.bincount(pieces)
        largest = np.zeros(int(numbers.max()) + 1, dtype=np.int64)
        np.maximum.at(largest, numbers, sizes[pieces])
        stray = sizes[pieces] < largest[numbers]
        votes = np.zeros((len(sizes), len(largest)), dtype=np.int64)
        for one, other in (self._pairs, self._pairs[::-1]):
            counted = stray[one] & ~stray[other] & (within[one] == within[other])
            np.add.at(votes, (pieces[one[counted]], numbers[other[counted]]), 1)
        told = stray & (votes.max(axis=1) > 0)[pieces]
        return np.where(told, votes.argmax(axis=1)[pieces], numbers)

    def _without_pinches(self, numbers: Numbers, within: Numbers) -> Numbers:
        """Give all triangles around a node where a patch meets itself to the most common one there.

        Patches that go round a node in one run each are parted by as many edges as there are patches.
        """
        one, other = self._pairs
        differ = np.flatnonzero(numbers[one] != numbers[other])
        ends = self._shared(one[differ], other[differ])
        crossing = np.bincount(ends.ravel(), minlength=self._n_nodes)
        around = np.zeros((self._n_nodes, int(numbers.max()) + 1), dtype=np.int64)
        np.add.at(around, (self._triangles.ravel(), np.repeat(numbers, 3)), 1)
        pinched = np.flatnonzero(crossing > np.maximum((around > 0).sum(axis=1), 2))
        changed = numbers.copy()
        for node in pinched:
            fan = np.flatnonzero((self._triangles == node).any(axis=1))
            for part in np.unique(within[fan]):
                own = fan[within[fan] == part]
                changed[own] = np.bincount(numbers[own]).argmax()
        return changed

    def _shared(self, one: Numbers, other: Numbers) -> Numbers:
        """Nodes that neighbours share, shape (n, 2)."""
        mine, theirs = self._triangles[one], self._triangles[other]
        common = (mine[:, :, None] == theirs[:, None, :]).any(axis=2)
        return np.asarray(mine[common].reshape(-1, 2))


def surfaces_of_patches(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the surfaces of ukb-atlas and the patches that each is made of."""
    parts = {
        "LV_ENDO": ["LV_ENDO"],
        "RV_ENDO": ["RV_SEPTUM", "RV_FREEWALL"],
        "EPI": ["LV_EPI", "RV_EPI"],
        "MV": ["MV"],
        "TV": ["TV"],
        "PV": ["PV"],
    }
    found = {name: [each for each in own if each in names] for name, own in parts.items()}
    return {name: own for name, own in found.items() if own}
