"""What bounds a volume mesh: endocardia, epicardium and the base."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from cardiacreg.arrays import Float
from cardiacreg.geometry import apply_matrix
from cardiacreg.measures.segments import HeartDirections
from cardiacreg.meshes.wall_field import WallFields, value_at
from cardiacreg.surfaces.level_fields import LV_ENDO, RV_ENDO

BASE = "BASE"
SURFACES = {LV_ENDO: 1, RV_ENDO: 2, "EPI": 3, BASE: 4}
"""Name of a surface to its number in files."""
_CARRIED_MM = 0.3
"""A cavity's wall that lies so much further out than the cavity itself is the rim of a valve."""
_STEEPEST = 0.6
"""Least cosine between the long axis and the normal of the base."""
_RV_RIM_MM, _LV_RIM_MM = 6.0, 25.0
"""How far the base reaches from the rims of the valves: as far as the wall is thick."""

_SIDES = ([0, 1], [1, 2], [2, 0])
_MOST_ROUNDS = 20

Rows = NDArray[np.int64]


def boundary_of(tetrahedra: Rows) -> Rows:
    """Return the triangles that belong to one tetrahedron only, looking outwards, shape (k, 3).

    Parameters
    ----------
    tetrahedra : ndarray of int, shape (m, 4)
        Of positive volume.
    """
    faces = np.concatenate([tetrahedra[:, each] for each in
                            ([1, 2, 3], [0, 3, 2], [0, 1, 3], [0, 2, 1])])  # fmt: skip
    _, first, count = np.unique(row_keys(faces), return_index=True, return_counts=True)
    return np.asarray(faces[first[count == 1]], dtype=np.int64)


def row_keys(rows: Rows) -> Rows:
    """Return a number for each row of two or three nodes, the same for the same nodes in any order."""
    most, found = int(rows.max(initial=0)) + 1, np.zeros(len(rows), dtype=np.int64)
    for column in np.sort(rows, axis=1).astype(np.int64).T:
        found = found * most + column
    return found


def without_pinches(tetrahedra: Rows) -> Rows:
    """Leave out tetrahedra that touch others at a node or an edge alone: the boundary is a surface then.

    Where tetrahedra around a node or an edge hold together through no face of theirs, the largest group
    stays. Few are lost; most meshes have none.

    Parameters
    ----------
    tetrahedra : ndarray of int, shape (m, 4)
        Of positive volume.
    """
    for _ in range(_MOST_ROUNDS):
        triangles = boundary_of(tetrahedra)
        pinched = [*_pinched_edges(triangles), *_pinched_nodes(triangles)]
        lost = {row for each in pinched for row in _lesser_groups(tetrahedra, each)}
        if not lost:
            break
        tetrahedra = np.delete(tetrahedra, sorted(lost), axis=0)
    return tetrahedra


def _pinched_edges(triangles: Rows) -> Rows:
    """Edges of more than two triangles, shape (n, 2)."""
    pairs = np.concatenate([triangles[:, pair] for pair in _SIDES])
    _, first, count = np.unique(row_keys(pairs), return_index=True, return_counts=True)
    return np.asarray(pairs[first[count > 2]])


def _pinched_nodes(triangles: Rows) -> Rows:
    """Nodes around which triangles go in more than one run, shape (n, 1)."""
    count = len(triangles)
    pairs = np.concatenate([triangles[:, pair] for pair in _SIDES])
    rows = np.tile(np.arange(count), 3)
    corners = np.stack([rows * 3 + np.repeat(pair, count) for pair in np.transpose(_SIDES)], axis=1)
    turned = pairs[:, 0] > pairs[:, 1]
    pairs[turned], corners[turned] = pairs[turned, ::-1], corners[turned, ::-1]
    keys = row_keys(pairs)
    order = np.argsort(keys)
    same = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
    first, second = corners[order[same]].ravel(), corners[order[same + 1]].ravel()
    joined = sparse.coo_array((np.ones(len(first)), (first, second)), shape=(3 * count, 3 * count))
    _, runs = connected_components(joined, directed=False)
    _, first = np.unique(runs, return_index=True)
    nodes, times = np.unique(triangles.ravel()[first], return_counts=True)
    return np.asarray(nodes[times > 1, None])


def _lesser_groups(tetrahedra: Rows, place: NDArray[np.int64]) -> Rows:
    """Rows of tetrahedra around a node or an edge that hold together, but those of the largest group."""
    around = np.flatnonzero(np.isin(tetrahedra, place).sum(axis=1) == len(place))
    own = tetrahedra[around]
    shared = (own[:, None, :, None] == own[None, :, None, :]).any(axis=3).sum(axis=2)
    count, groups = connected_components(shared >= 3, directed=False)
    if count < 2:
        return around[:0]
    return np.asarray(around[groups != np.bincount(groups).argmax()])


def surface_numbers(
    points_mm: Float, triangles: Rows, fields: WallFields, frame: HeartDirections
) -> NDArray[np.int32]:
    """Return the number of the surface, of `SURFACES`, to which each triangle belongs, shape (k,).

    Parameters
    ----------
    points_mm : ndarray, shape (n, 3)
    triangles : ndarray of int, shape (k, 3)
        Looking outwards.
    fields : WallFields
    frame : HeartDirections
    """
    corners = points_mm[triangles]
    centres = corners.mean(axis=1)
    nodes = apply_matrix(np.asarray(np.linalg.inv(fields.voxel_to_world)), centres)
    names = list(fields.cavities)
    away = [-value_at(fields.cavities[name], nodes) for name in names]
    nearest = np.argmin([value_at(fields.outside, nodes), *away], axis=0)
    numbers = np.array([SURFACES["EPI"], *(SURFACES[name] for name in names)])[nearest]
    rim = np.zeros(len(triangles), dtype=np.bool_)
    for n, name in enumerate(names):
        rim |= (nearest == n + 1) & (value_at(fields.carried[name], nodes) > _CARRIED_MM)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1), 1e-12)[:, None]
    upward = (normals @ frame.axis > _STEEPEST) & (numbers == SURFACES["EPI"])
    upward &= frame.heights_mm(centres) > frame.base_mm / 2
    if rim.any():
        far, _ = cKDTree(centres[rim]).query(centres)
        of_left = value_at(fields.left, nodes) > -1.0
        upward &= far < np.where(of_left, _LV_RIM_MM, _RV_RIM_MM)
    return np.where(rim | upward, SURFACES[BASE], numbers).astype(np.int32)
