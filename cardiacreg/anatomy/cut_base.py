"""Whether a stack stops before the base: there the left ventricle still widens, and is too short.

Towards its base the left ventricle stops widening. Where its outermost slice at the base is clearly
wider than the next but one, slices are probably missing, the more so the shorter the stack is for its
width. What tells them apart is ``slope - weight * length / width``: the slope of the ventricle's size,
the square root of its area with the wall, per mm along the stack. Weight and limit come from development
patients; ``python -m benchmarks missing_base`` measures on others.
"""

from __future__ import annotations

import numpy as np

from cardiacreg.geometry import LV_CAVITY, LV_WALL, LabelMap

LENGTH_WEIGHT = 0.85
LARGEST_WIDENING = -0.58
"""34 frames of the 17 development patients of ACDC have -1.23 on average, with a standard deviation of
0.28: one whole stack of a hundred is expected beyond."""
_FEWEST_SLICES = 5
_STEP = 2


def widening_at_base(labels: LabelMap, *, base_at_last_slice: bool) -> float | None:
    """Return how much the LV of a stack still widens at its base, less what its length explains.

    Parameters
    ----------
    labels : LabelMap
        Canonical labels of a stack of slices.
    base_at_last_slice : bool

    Returns
    -------
    float or None
        More than `LARGEST_WIDENING` where slices are missing; None where a slice without labels beyond
        the base says that the ventricles end there, and of too few slices.

    Examples
    --------
    >>> from cardiacreg.anatomy.cut_base import widening_at_base
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> widening_at_base(make_toy_heart().labels, base_at_last_slice=True) is None
    True
    """
    array = labels.array if base_at_last_slice else labels.array[:, :, ::-1]
    if not array[:, :, -1].any():
        return None
    areas = np.isin(array, (LV_CAVITY, LV_WALL)).sum(axis=(0, 1)).astype(np.float64)
    held = np.flatnonzero(areas)
    if len(held) < _FEWEST_SLICES:
        return None
    in_plane_mm, distance_mm = labels.spacing_mm[:2], float(labels.spacing_mm[2])
    sizes_mm = np.sqrt(areas[held[0] : held[-1] + 1] * in_plane_mm.prod())
    slope = (sizes_mm[-1] - sizes_mm[-1 - _STEP]) / (_STEP * distance_mm)
    width_mm = 2 * sizes_mm.max() / np.sqrt(np.pi)
    return float(slope - LENGTH_WEIGHT * len(sizes_mm) * distance_mm / width_mm)
