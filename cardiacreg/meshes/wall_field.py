"""The field whose inside is the muscle of both ventricles, open at the valves.

Endo- and epicardium of a model are closed surfaces that coincide where a valve lies. Between them a film
without thickness would be left there, and wedges around it. Each cavity is therefore carried a little way
up the long axis from where it meets the outside: walls then end at the valves with a face of their own.
Everywhere else a wall is at least as thick as a tetrahedron, so that it has no holes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LabelMap
from cardiacreg.measures.segments import HeartDirections
from cardiacreg.surfaces.level_fields import (
    EPI,
    LV_ENDO,
    LV_EPI,
    RV_ENDO,
    Field,
    fine_fields,
    leveled,
    one_piece,
)

STEP_MM = 1.5
"""Of the lattice of the fields."""
_PAST_RIM_MM, _CARRY_STEP_MM = 3.0, 0.5
_DEEPEST_MM = 3.5
"""How far below the outside the opening begins; deeper inside, fields no longer tell distances."""
_THICKEST_MM = 4.0
"""Most that walls are thickened to; further out the fields no longer tell distances."""
_INWARD = 8.0
"""How fast the opening narrows away from the valve, in mm of depth per mm of wall beside it."""
_SMOOTH_OPENING = 1.0
_LEAST_MM = 0.03
_MOST_FILLED = 0.5


class WallFields(NamedTuple):
    """Fields in mm on one lattice.

    Parameters
    ----------
    wall : ndarray of float32, shape (i, j, k)
        Positive in the muscle.
    outside : ndarray
        Positive inside the epicardium.
    cavities : dict of str to ndarray
        ``LV_ENDO`` and, where there is an RV, ``RV_ENDO``: positive inside the cavity as carried through
        its valve.
    carried : dict of str to ndarray
        By how much that exceeds the cavity's own field.
    left : ndarray
        Positive inside the LV's epicardium.
    voxel_to_world : ndarray, shape (4, 4)
    """

    wall: Field
    outside: Field
    cavities: dict[str, Field]
    carried: dict[str, Field]
    left: Field
    voxel_to_world: Float


def wall_fields(labels: LabelMap, frame: HeartDirections, thinnest_mm: float) -> WallFields:
    """Return the field of the muscle and what bounds it.

    Parameters
    ----------
    labels : LabelMap
        Canonical labels on thin slices.
    frame : HeartDirections
        In the same world.
    thinnest_mm : float
        Least thickness of the walls, 4 at most.

    Raises
    ------
    InvalidInputError
        If the labels have no LV wall around an LV cavity (NO_LV_WALL), or thickened walls close a cavity
        all around (CLOSED_CAVITY).
    """
    fields = leveled(fine_fields(labels), STEP_MM)
    if not {LV_ENDO, LV_EPI, EPI} <= set(fields):
        raise InvalidInputError(
            "volume_mesh: the model has no LV wall around an LV cavity; needs both.",
            code="NO_LV_WALL",
        )
    matrix = fields[EPI].voxel_to_world
    outside = fields[EPI].field
    up = np.linalg.inv(matrix[:3, :3]) @ frame.axis
    thinnest_mm = min(thinnest_mm, _THICKEST_MM)
    own = {name: fields[name].field for name in (LV_ENDO, RV_ENDO) if name in fields}
    cavities = {
        name: _carried_through(field, outside, up, thinnest_mm + _PAST_RIM_MM)
        for name, field in own.items()
    }
    outside = np.maximum.reduce([outside, *(field + thinnest_mm for field in own.values())])
    wall = np.minimum.reduce([outside, *(-field for field in cavities.values())])
    carried = {name: field - own[name] for name, field in cavities.items()}
    wall = _in_one_piece(wall)
    _check_open(wall, cavities)
    return WallFields(wall, outside, cavities, carried, fields[LV_EPI].field, matrix)


def _check_open(wall: Field, cavities: dict[str, Field]) -> None:
    """Raise where a cavity without a way out was taken for a hole in the wall."""
    for name, field in cavities.items():
        inside = field > 0
        if (wall[inside] > 0).mean() > _MOST_FILLED:
            raise InvalidInputError(
                f"volume_mesh: walls close the cavity of {name} all around; needs a model on thin slices "
                "with room beyond its base, or a smaller edge (edge_mm= or --edge-mm).",
                code="CLOSED_CAVITY",
            )


def _carried_through(cavity: Field, outside: Field, up: Float, most_mm: float) -> Field:
    """Carry a cavity up from where it meets the outside."""
    beside = cavity - _INWARD * (outside - cavity)
    opening = ndimage.gaussian_filter(np.minimum(beside, _DEEPEST_MM - outside), _SMOOTH_OPENING)
    found = cavity
    for way_mm in np.arange(_CARRY_STEP_MM, most_mm + 1e-6, _CARRY_STEP_MM):
        moved = ndimage.shift(opening, way_mm * up, order=1, mode="nearest")
        found = np.maximum(found, moved)
    return found


def _in_one_piece(wall: Field) -> Field:
    """Leave the largest piece, and no value too near zero."""
    kept = one_piece(wall > 0)
    size = np.abs(wall).clip(_LEAST_MM)
    return np.asarray(np.where(kept, size, -size), dtype=np.float32)


def value_at(field: Field, nodes: Float) -> NDArray[np.float64]:
    """Return a field's values at points given in its own nodes, shape (n,)."""
    return np.asarray(ndimage.map_coordinates(field, nodes.T, order=1, mode="nearest"), np.float64)
