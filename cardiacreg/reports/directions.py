"""Letters of the patient's directions (R, L, A, P, S, I), where the file's matrix can be believed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cardiacreg.arrays import Float
from cardiacreg.geometry import apply_matrix
from cardiacreg.results.qc_views import Drawable, HeartAxes
from cardiacreg.results.result import Orientation

LETTERS = (("R", "L"), ("A", "P"), ("S", "I"))
"""Of the positive and the negative end of each world axis."""
_LEAST_SHARE = 0.38
"""Of a unit vector: a smaller component has no letter, so that there are two letters at most."""
_APEX_OF_PEOPLE = np.array([-1.0, 1.0, -1.0]) / np.sqrt(3.0)
"""From base to apex: left, forward and down."""
_RV_OF_PEOPLE = np.array([1.0, 1.0, 0.0]) / np.sqrt(2.0)
"""From the LV to the RV: right and forward."""
_LEAST_COSINE = 0.4


class Directions(NamedTuple):
    """How the views of a heart lie in the patient.

    `believed` is False where the file's matrix puts apex or RV elsewhere than people have them, or where
    the heart is mirrored against it; then there are no letters, and `reason` says why.
    """

    world: Float
    believed: bool
    reason: str

    def letters(self, direction: Float) -> str:
        """Return the letters of a direction of the target's frame; empty where there are none."""
        if not self.believed:
            return ""
        return letters_of(self.world @ np.asarray(direction, dtype=np.float64))


def letters_of(direction: Float) -> str:
    """Return the letters of a direction in world RAS.

    Parameters
    ----------
    direction : ndarray, shape (3,)

    Returns
    -------
    str
        One or two letters, the nearer axis first.

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg.reports.directions import letters_of
    >>> letters_of(np.array([-0.9, 0.5, 0.1])), letters_of(np.array([0.0, 0.0, -1.0]))
    ('LA', 'I')
    """
    unit = direction / np.linalg.norm(direction)
    order = sorted(range(3), key=lambda axis: -abs(unit[axis]))
    kept = [axis for axis in order if abs(unit[axis]) >= _LEAST_SHARE][:2]
    return "".join(LETTERS[axis][0 if unit[axis] > 0 else 1] for axis in kept)


def directions_of(
    result: Drawable, axes: HeartAxes, orientation: Orientation | None = None
) -> Directions:
    """Tell whether the matrix of a target says how the heart lies in the patient.

    Parameters
    ----------
    result : Drawable
    axes : HeartAxes
        Of this result.
    orientation : Orientation, optional
        How the heart was taken to lie in its file.

    Returns
    -------
    Directions
    """
    world = axes.to_world[:3, :3]
    base, apex = _ends(result, axes)
    pointing = (apex - base) / np.linalg.norm(apex - base)
    rv = world @ np.array([*axes.rv, 0.0])
    if orientation is not None and orientation.name != "as-stored":
        reason = f"the heart lies {orientation.name} against the file's matrix"
        return Directions(world, False, reason)
    if min(float(pointing @ _APEX_OF_PEOPLE), float(rv @ _RV_OF_PEOPLE)) < _LEAST_COSINE:
        return Directions(
            world, False,
            f"by the file's matrix the apex would point to {letters_of(pointing)} and the RV lie to "
            f"{letters_of(rv)} of the LV, which is not how hearts lie",
        )  # fmt: skip
    return Directions(world, True, "")


def _ends(result: Drawable, axes: HeartAxes) -> tuple[Float, Float]:
    """The LV's long axis in world mm, where it meets the stack's basal and apical end."""
    top = (result.target.labels.shape[2] - 1) * float(result.target.labels.spacing_mm[2])
    heights = (top, 0.0) if axes.to_base > 0 else (0.0, top)
    points = [np.array([*(axes.axis_point + axes.axis_slope * k_mm), k_mm]) for k_mm in heights]
    base, apex = apply_matrix(axes.to_world, np.array(points))
    return base, apex
