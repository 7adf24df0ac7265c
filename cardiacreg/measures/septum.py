"""How the septum is bowed: its curvature halfway up the LV cavity, beside that of the free wall.

In a short-axis plane halfway between the lowest point of the cavity and the mitral valve a circle is
fitted to the septal quarter of the endocardium, between the RV insertions, and another one to the
quarter opposite. The curvature is one over the radius, positive where the septum is convex towards the
RV, as in health, and negative where it bows into the LV (Roeleveld et al., Radiology 234:710, 2005).
Their ratio does not depend on the heart's size (Dellegrottaglie et al., Radiology 243:63, 2007).
Circles are fitted by Pratt's algebraic method (1987), which has straight lines as a limit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import linalg

from cardiacreg.arrays import Float
from cardiacreg.measures.segments import HeartDirections

_BAND_MM = 2.5
"""Half the height of the ring of endocardium that counts as one plane."""
_FEWEST_POINTS = 8
_HALF_DEGREES = 45.0


class Septum(NamedTuple):
    """How the septum is bowed.

    Parameters
    ----------
    curvature_per_cm : float
        Of the septal endocardium, 1/cm; negative where it bows into the LV, NaN where it was not found.
    curvature_ratio : float
        Over the curvature of the free wall opposite it; 1 for a round cavity.
    """

    curvature_per_cm: float
    curvature_ratio: float


class Ring(NamedTuple):
    """The endocardium halfway up the cavity.

    Parameters
    ----------
    height_mm : float
        Above the apex.
    offsets_mm : ndarray, shape (n, 2)
        Of its points along the septal and the anterior direction, from the apex.
    """

    height_mm: float
    offsets_mm: Float

    @property
    def middle_mm(self) -> Float:
        """Halfway between the farthest points along either direction, shape (2,)."""
        return np.asarray((self.offsets_mm.min(axis=0) + self.offsets_mm.max(axis=0)) / 2)


def middle_ring(points_mm: Float, directions: HeartDirections) -> Ring | None:
    """Return the endocardium halfway up the cavity, None where there are too few points.

    Parameters
    ----------
    points_mm : ndarray, shape (n, 3)
        Of the endocardium.
    directions : HeartDirections
    """
    if not len(points_mm):
        return None
    heights = directions.heights_mm(points_mm)
    level = (float(heights.min()) + directions.base_mm) / 2
    ring = points_mm[np.abs(heights - level) < _BAND_MM] - directions.apex_mm
    if len(ring) < _FEWEST_POINTS:
        return None
    return Ring(level, ring @ np.stack([directions.septal, directions.anterior], axis=1))


def septal_curvature(points_mm: Float, directions: HeartDirections) -> Septum:
    """Return the curvature of the septum, and its ratio to that of the free wall.

    Parameters
    ----------
    points_mm : ndarray, shape (n, 3)
        Of the LV endocardium, world mm.
    directions : HeartDirections

    Returns
    -------
    Septum

    Examples
    --------
    A round cavity of 25 mm radius:

    >>> import numpy as np
    >>> from cardiacreg.geometry import LANDMARK_NAMES, Landmarks
    >>> from cardiacreg.measures.segments import heart_directions
    >>> from cardiacreg.measures.septum import septal_curvature
    >>> places = [[-20, -30, 0], [-60, 0, 0], [-20, 30, 0], [30, 0, 0], [0, 0, -40], [0, 0, 0]]
    >>> around = np.radians(np.arange(360))
    >>> ring = np.stack([25 * np.cos(around), 25 * np.sin(around), 0 * around], axis=1)
    >>> points = np.concatenate([ring - [0, 0, height] for height in (19.0, 20.0, 21.0, 40.0)])
    >>> found = septal_curvature(points, heart_directions(Landmarks(places, LANDMARK_NAMES)))
    >>> round(found.curvature_per_cm, 3), round(found.curvature_ratio, 3)
    (0.4, 1.0)
    """
    ring = middle_ring(points_mm, directions)
    if ring is None:
        return Septum(float("nan"), float("nan"))
    offsets = ring.offsets_mm - ring.middle_mm
    degrees = np.degrees(np.arctan2(offsets[:, 1], offsets[:, 0]))
    septal = _curvature_per_mm(offsets[np.abs(degrees) <= _HALF_DEGREES])
    free = _curvature_per_mm(-offsets[np.abs(degrees) >= 180 - _HALF_DEGREES])
    ratio = septal / free if free > 0 else float("nan")
    return Septum(10 * septal, ratio)


def _curvature_per_mm(points: Float) -> float:
    """Curvature of the circle through points, shape (n, 2); positive where its centre is at smaller x.

    The circle is a (x^2 + y^2) + b x + c y + d = 0 with b^2 + c^2 - 4 a d = 1, of curvature 2 |a|.
    """
    if len(points) < _FEWEST_POINTS:
        return float("nan")
    middle = points.mean(axis=0)
    scale = float(np.sqrt(((points - middle) ** 2).sum(axis=1).mean()))
    x, y = ((points - middle) / max(scale, 1e-9)).T
    rows = np.stack([x**2 + y**2, x, y, np.ones(len(x))], axis=1)
    norm = np.zeros((4, 4))
    norm[1, 1] = norm[2, 2] = 1.0
    norm[0, 3] = norm[3, 0] = -2.0
    values, vectors = linalg.eig(rows.T @ rows / len(x), norm)
    real = np.real(np.where(np.isfinite(values), values, np.inf))
    best = np.real(vectors[:, int(np.argmin(np.where(real > -1e-12, real, np.inf)))])
    length = float(best @ norm @ best)
    if length <= 0:
        return float("nan")
    a, b = best[:2] / np.sqrt(length)
    return float(2 * a * np.sign(b) / scale) if b else float("nan")
