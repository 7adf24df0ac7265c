"""What bounds a volume mesh: endocardia, epicardium and the base."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
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
    _, first, count = np.unique(
        np.sort(faces, axis=1), axis=0, return_index=True, return_counts=True
    )
    return np.asarray(faces[first[count == 1]], dtype=np.int64)


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
