"""Directions of muscle fibres by rules, after Bayer et al., Ann Biomed Eng 40:2243 (2012).

Four harmonic potentials tell where a point lies: from each endocardium and from the epicardium to the
other surfaces, and from apex to base. Their gradients give the wall's own directions; fibres turn through
the wall between given angles, and where surfaces meet, orientations are blended as rotations.

In one thing this differs from the paper. There the endocardial orientation keeps its angle on the way to
the epicardium while the epicardial one turns, so that their blend turns with the square of the depth, and
jumps where endo- and epicardial angles lie more than 90 degrees apart. Here the three potentials, whose
sum is 1, weigh the angles: they change evenly with the potential through every wall, the septum too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cardiacreg.arrays import Float
from cardiacreg.errors import check_option_kinds
from cardiacreg.measures.segments import HeartDirections
from cardiacreg.meshes.boundary import BASE, SURFACES
from cardiacreg.meshes.potentials import Elements
from cardiacreg.surfaces.level_fields import LV_ENDO, RV_ENDO

Rows = NDArray[np.int64]

_APEX_MM = 3.0
"""Radius about the epicardial apex within which the potential from apex to base is zero."""
_FLAT_PER_MM = 1e-9
"""A slope below which the potential from apex to base gives no direction; the long axis does."""


@dataclass(frozen=True, slots=True)
class FibreAngles:
    """Angles of fibres and sheets, those of Bayer et al. (2012) by default.

    Parameters
    ----------
    endo_degrees, epi_degrees : float
        Of the fibres from the circumferential direction towards the base, as seen from outside.
    sheet_endo_degrees, sheet_epi_degrees : float
        Of the sheets from the transmural direction, about the fibre.
    """

    endo_degrees: float = 40.0
    epi_degrees: float = -50.0
    sheet_endo_degrees: float = -65.0
    sheet_epi_degrees: float = 25.0

    def __post_init__(self) -> None:
        check_option_kinds(self)


class Fibres(NamedTuple):
    """Unit directions of every tetrahedron, shape (m, 3), at right angles."""

    fibres: Float
    sheets: Float


def rule_based_fibres(
    nodes_mm: Float,
    tetrahedra: Rows,
    triangles: Rows,
    surfaces: NDArray[np.int32],
    frame: HeartDirections,
    angles: FibreAngles | None = None,
) -> Fibres:
    """Lay fibres through a volume mesh.

    Parameters
    ----------
    nodes_mm : ndarray, shape (n, 3)
    tetrahedra : ndarray of int, shape (m, 4)
    triangles : ndarray of int, shape (k, 3)
        Its boundary.
    surfaces : ndarray of int, shape (k,)
        Their numbers in `SURFACES`.
    frame : HeartDirections
        Its axis tells the apex.
    angles : FibreAngles, optional

    Raises
    ------
    RefinementError
        If a potential is not found (NO_POTENTIAL).
    """
    angles = angles or FibreAngles()
    elements = Elements(nodes_mm, tetrahedra)
    on = {name: np.unique(triangles[surfaces == number]) for name, number in SURFACES.items()}
    heights = frame.heights_mm(nodes_mm)
    low = on["EPI"][np.argmin(heights[on["EPI"]])]
    apex = on["EPI"][np.linalg.norm(nodes_mm[on["EPI"]] - nodes_mm[low], axis=1) < _APEX_MM]
    upward = elements.gradients(elements.potential(zero=[apex], one=[on[BASE]]))
    upward[np.linalg.norm(upward, axis=1) < _FLAT_PER_MM] = frame.axis
    left, right, outer = on[LV_ENDO], on[RV_ENDO], on["EPI"]
    outside = elements.potential(zero=[left, right], one=[outer])
    depth = elements.means(outside)
    from_outside = _axes(upward, elements.gradients(outside))
    epicardial = _turned(from_outside, 1 - depth, depth, angles)
    if not len(right):
        return _directions(epicardial)
    from_left = elements.potential(zero=[right, outer], one=[left])
    from_right = elements.potential(zero=[left, outer], one=[right])
    near_left, near_right = elements.means(from_left), elements.means(from_right)
    share = near_right / np.maximum(near_left + near_right, 1e-9)
    # Both look from left to right, so that what is outwards for the right ventricle is against them.
    across = near_left - near_right
    of_left = _turned(_axes(upward, -elements.gradients(from_left)), across, depth, angles)
    of_right = _turned(_axes(upward, elements.gradients(from_right)), across, -depth, angles)
    endocardial = _blended(of_left, of_right, share)
    return _directions(_blended(endocardial, epicardial, depth))


def _axes(upward: Float, outward: Float) -> Rotation:
    """Circumferential, longitudinal and transmural directions, as rotations from x, y and z."""
    longitudinal = upward / np.maximum(np.linalg.norm(upward, axis=1), 1e-12)[:, None]
    across = outward - (outward * longitudinal).sum(axis=1)[:, None] * longitudinal
    size = np.linalg.norm(across, axis=1)
    # Where a potential is flat, any direction across does: its weight is next to nothing.
    plain = np.cross(longitudinal, np.eye(3)[np.argmin(np.abs(longitudinal), axis=1)])
    flat = size <= 1e-9 * max(float(size.max()), 1e-30)
    across = np.where(flat[:, None], plain, across)
    across /= np.maximum(np.linalg.norm(across, axis=1), 1e-30)[:, None]
    around = np.cross(longitudinal, across)
    return Rotation.from_matrix(np.stack([around, longitudinal, across], axis=2))


def _turned(axes: Rotation, endo: Float, epi: Float, angles: FibreAngles) -> Rotation:
    """Turn by the angles of endo- and epicardium in given parts."""
    alpha = angles.endo_degrees * endo + angles.epi_degrees * epi
    beta = angles.sheet_endo_degrees * endo + angles.sheet_epi_degrees * epi
    none = np.zeros_like(alpha)
    about_wall = Rotation.from_rotvec(np.stack([none, none, np.radians(alpha)], axis=1))
    return (
        axes * about_wall * Rotation.from_rotvec(np.stack([np.radians(-beta), none, none], axis=1))
    )


def _blended(first: Rotation, second: Rotation, share: Float) -> Rotation:
    """Blend two orientations whose directions have no sign: the nearest of four half turns counts."""
    one, other = first.as_quat(), second.as_quat()
    turned = [(first * Rotation.from_rotvec(np.pi * axis)).as_quat() for axis in np.eye(3)]
    tried = np.stack([one, *turned])
    likeness = (tried * other).sum(axis=2)
    best = np.argmax(np.abs(likeness), axis=0)
    rows = np.arange(len(best))
    start = tried[best, rows] * np.sign(likeness[best, rows] + 1e-300)[:, None]
    angle = np.arccos(np.clip((start * other).sum(axis=1), -1, 1))
    sine = np.maximum(np.sin(angle), 1e-9)
    near = angle < 1e-6
    weights = [np.where(near, 1 - share, np.sin((1 - share) * angle) / sine),
               np.where(near, share, np.sin(share * angle) / sine)]  # fmt: skip
    return Rotation.from_quat(weights[0][:, None] * start + weights[1][:, None] * other)


def _directions(found: Rotation) -> Fibres:
    matrix = found.as_matrix()
    return Fibres(np.ascontiguousarray(matrix[:, :, 0]), np.ascontiguousarray(matrix[:, :, 2]))
