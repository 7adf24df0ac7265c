"""The 17 segments of the American Heart Association, placed by the six landmarks.

The long axis runs from the apex to the mitral valve centre. From the lowest point of the cavity to the
height of the valve centre the wall is parted into three equal heights, basal (segments 1 to 6), middle (7
to 12) and apical (13 to 16); below the cavity lies the apex (17). Around the axis the basal and middle
thirds have six sectors of 60 degrees and the apical third four of 90, counted from the middle of the
septum, the bisector of the two RV insertions (Cerqueira et al. 2002).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LANDMARK_NAMES, Landmarks

N_SEGMENTS = 17
SEGMENT_NAMES = (
    "basal anterior", "basal anteroseptal", "basal inferoseptal", "basal inferior",
    "basal inferolateral", "basal anterolateral", "mid anterior", "mid anteroseptal",
    "mid inferoseptal", "mid inferior", "mid inferolateral", "mid anterolateral",
    "apical anterior", "apical septal", "apical inferior", "apical lateral", "apex",
)  # fmt: skip
"""Names of segments 1 to 17."""

_SIX = np.array([2, 1, 6, 5, 4, 3])
"""Segments of the basal third by sectors of 60 degrees from the middle of the septum, anterior first."""
_FOUR = np.array([14, 13, 16, 15])
"""Segments of the apical third by sectors of 90 degrees, the first around the middle of the septum."""


class HeartDirections(NamedTuple):
    """Directions of a heart in world mm.

    Parameters
    ----------
    apex_mm, axis : ndarray, shape (3,)
        Apex, and unit direction from it to the mitral valve centre.
    septal, anterior : ndarray, shape (3,)
        Unit directions across the axis: to the middle of the septum, and to the anterior side.
    base_mm : float
        Height of the mitral valve centre above the apex.
    """

    apex_mm: Float
    axis: Float
    septal: Float
    anterior: Float
    base_mm: float

    def heights_mm(self, points_mm: Float) -> Float:
        """Return heights above the apex along the axis, shape (n,)."""
        return np.asarray((points_mm - self.apex_mm) @ self.axis)


def heart_directions(landmarks: Landmarks) -> HeartDirections:
    """Return the directions of a heart from its six landmarks.

    Parameters
    ----------
    landmarks : Landmarks
        With the six names of the paper.

    Raises
    ------
    InvalidInputError
        If landmarks are missing, or apex and mitral valve centre, or the two insertions, coincide
        (BAD_LANDMARKS).
    """
    missing = [name for name in LANDMARK_NAMES if name not in landmarks.names]
    if missing:
        raise InvalidInputError(
            f"measure: the landmarks lack {', '.join(missing)}; needs all six.",
            code="BAD_LANDMARKS",
        )
    points = landmarks.points_mm[[landmarks.names.index(name) for name in LANDMARK_NAMES]]
    first, turning, second, _, apex, mitral = points
    axis, length = _unit(mitral - apex)
    across = np.eye(3) - np.outer(axis, axis)
    sides = [_unit(across @ (point - apex)) for point in (first, second)]
    septal, bisected = _unit(sides[0][0] + sides[1][0])
    apart, opening = _unit(sides[0][0] - sides[1][0])
    septal = septal if bisected > 1e-3 else _unit(np.cross(axis, apart))[0]
    septal = septal if septal @ (across @ (turning - apex)) >= 0 else -septal
    if min(length, sides[0][1], sides[1][1]) < 1.0 or opening < 1e-3:
        raise InvalidInputError(
            "measure: apex and mitral valve centre, or the RV insertions, coincide; check the landmarks.",
            code="BAD_LANDMARKS",
        )
    anterior, _ = _unit(apart - (apart @ septal) * septal)
    return HeartDirections(apex, axis, septal, anterior, length)


def segments_of(
    points_mm: Float, directions: HeartDirections, cavity_mm: float
) -> NDArray[np.int64]:
    """Return the segment, 1 to 17, of points of the LV wall.

    Parameters
    ----------
    points_mm : ndarray, shape (n, 3)
        World mm.
    directions : HeartDirections
    cavity_mm : float
        Height of the lowest point of the LV cavity above the apex.
    """
    offsets = points_mm - directions.apex_mm
    share = (directions.heights_mm(points_mm) - cavity_mm) / max(
        directions.base_mm - cavity_mm, 1e-6
    )
    degrees = (
        np.degrees(np.arctan2(offsets @ directions.anterior, offsets @ directions.septal)) % 360
    )
    sixth = _SIX[np.minimum(degrees // 60, 5).astype(int)]
    fourth = _FOUR[((degrees + 45) // 90 % 4).astype(int)]
    found = np.where(share >= 2 / 3, sixth, np.where(share >= 1 / 3, sixth + 6, fourth))
    return np.where(share < 0, N_SEGMENTS, found)


def _unit(vector: Float) -> tuple[Float, float]:
    length = float(np.linalg.norm(vector))
    return vector / max(length, 1e-9), length
