"""Where a heart ends along a stack: what labelled, empty and absent slices say about it.

Three kinds of positions differ. A slice with labels shows the heart. A slice that was acquired and left
empty shows that the ventricles ended before it, unless the LV would be shorter than any heart's: then
slices were left out of the segmentation. Beyond the stack nothing was acquired; clinical stacks are
planned to cover both ventricles (Kramer et al., J Cardiovasc Magn Reson 22:17, 2020). So the next slice
is taken to have been empty too, unless the outermost labelled slice shows a stack that was cut.

Each ventricle ends by itself, also inside slices that still show the other one. It ends somewhere between
its outermost labelled slice and the next one; where, the atlases decide, with a weak preference for
the nearer part: atlases alone end near the far side of the interval (`docs/design.md`). An RV that ends
where the LV does needs none.

A basal slice that shows little of the LV, as one that a tilted valve's plane crosses does, is easily
missed: an atlas that ends before it gains nothing by coming a little nearer. Planes between it and its
neighbour lead there: what both slices show is between them, too.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cardiacreg.arrays import Float
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL, LabelMap
from cardiacreg.slices import EmptyPlane, SharedPlane, labelled_slices

COVERAGES = ("auto", "whole", "partial")
ENDS = ("apex", "base")
EMPTY = "empty slice"
_REACH_MM, _MOST_PLANES = 10.0, 10
"""Planes where a ventricle has ended reach so far beyond its labels; one slice at least, ten at most."""
_LEFT, _RIGHT = (LV_CAVITY, LV_WALL), (RV_CAVITY, RV_WALL)
_PREFERENCES_MM = {_LEFT: 2.5, _RIGHT: 1.0}
_PREFERENCE = 0.12
"""So far before the next slice, but in the farther half of the interval, a ventricle's end is disfavoured
with this weight, an RV's only inside slices that still show the LV; chosen on the volumes of the
development patients of `benchmarks.accuracy.volumes`."""
_PARTLY_SHOWN, _BETWEEN = 0.6, (1 / 3, 2 / 3)
"""A basal slice with less than this share of its neighbour's LV area has planes at these parts of the way
to it; chosen on synthetic hearts and random shapes that no table counts."""
_CUT_AREA, _CUT_DISTANCE = 0.42, 2.0
"""An apex was cut where the outermost slice has this share of the LV's largest area and areas reach zero
more than so many slices further on; `benchmarks.accuracy.real` counts the patients taken for cut."""
_SHORTEST = 0.78
"""Length over width of the LV below which a base was cut; the embedded atlases have 0.92 or more."""
_FAR_TOO_SHORT = 0.6
"""The same for empty slices beyond a cut end to count as left out of the segmentation."""


class End(NamedTuple):
    """What is assumed about one end of a stack.

    Parameters
    ----------
    name : {"apex", "base"}
    coverage : {"empty slice", "whole", "partial"}
        A slice was acquired there and left empty; none was, and the heart is taken to end before the next
        one; or the stack is cut there, and nothing is known beyond its labels.
    reason : str
        What the assumption rests on.
    """

    name: str
    coverage: str
    reason: str

    def beyond(self, n_slices: int) -> End:
        """Return the same end with so many empty slices as its reason, where they are."""
        slices = "1 slice" if n_slices == 1 else f"{n_slices} slices"
        reason = f"{slices} without labels beyond them"
        return self._replace(reason=reason) if self.coverage == EMPTY else self

    def __str__(self) -> str:
        return f"{self.name}: {self.coverage} ({self.reason})"


class Coverage(NamedTuple):
    """Both ends of a stack, and the planes where its ventricles have ended."""

    ends: tuple[End, End]
    """Apex, then base."""
    planes: tuple[EmptyPlane, ...]
    shared: tuple[SharedPlane, ...] = ()
    """Planes between a basal slice that shows little of the LV and its neighbour."""


def stack_coverage(
    labels: LabelMap, coverage: tuple[str, str], *, base_at_last_slice: bool
) -> Coverage:
    """Tell where the ventricles of a stack have ended.

    Parameters
    ----------
    labels : LabelMap
        Canonical labels, slices along k.
    coverage : pair of {"auto", "whole", "partial"}
        What is known of the apical and of the basal end.
    base_at_last_slice : bool
        Whether the base lies towards large k.

    Returns
    -------
    Coverage

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg.geometry import LabelMap
    >>> from cardiacreg.anatomy.stack_coverage import stack_coverage
    >>> array = np.zeros((9, 9, 5))
    >>> array[3:6, 3:6, 1:4] = 1
    >>> stack = LabelMap(array, np.diag([1.0, 1.0, 10.0, 1.0]))
    >>> found = stack_coverage(stack, ("whole", "partial"), base_at_last_slice=True)
    >>> [end.coverage for end in found.ends], [plane.position for plane in found.planes]
    (['empty slice', 'partial'], [0.0, 0.25])
    """
    areas = _left_areas_mm2(labels, base_at_last_slice)
    ends = tuple(
        _end(labels, name, word, areas, base_at_last_slice)
        for name, word in zip(ENDS, coverage, strict=True)
    )
    sides = (-1, 1) if base_at_last_slice else (1, -1)
    known = [side for side, end in zip(sides, ends, strict=True) if end.coverage != "partial"]
    shared = _shared_planes(labels, sides[1]) if sides[1] in known else ()
    return Coverage((ends[0], ends[1]), _planes(labels, known), shared)


def _left_areas_mm2(labels: LabelMap, base_at_last_slice: bool) -> Float:
    """Area of the LV, wall and cavity, in its slices from apex to base."""
    area = np.isin(labels.array, _LEFT).sum(axis=(0, 1)) * labels.spacing_mm[:2].prod()
    area = area[area > 0].astype(np.float64)
    return np.asarray(area if base_at_last_slice else area[::-1])


def _end(labels: LabelMap, name: str, word: str, areas_mm2: Float, base_at_last_slice: bool) -> End:
    if word == "partial":
        return End(name, "partial", "given")
    held = labelled_slices(labels.array)
    at_last = base_at_last_slice == (name == "base")
    beyond = labels.shape[2] - 1 - held[-1] if at_last else held[0]
    cut = _cut_apex if name == "apex" else _cut_base
    reason = cut(areas_mm2, float(labels.spacing_mm[2]))
    if beyond > 0 and not (reason and word == "auto" and _is_too_short(labels, areas_mm2)):
        return End(name, EMPTY, "").beyond(int(beyond))
    if word == "whole":
        return End(name, "whole", "given")
    if reason:
        return End(name, "partial", reason)
    return End(name, "whole", "clinical stacks are planned to cover the ventricles")


def _is_too_short(labels: LabelMap, areas_mm2: Float) -> bool:
    """Whether empty slices must have been left out of the segmentation: so short is no LV."""
    return len(areas_mm2) * float(labels.spacing_mm[2]) < _FAR_TOO_SHORT * _width_mm(areas_mm2)


def _cut_apex(areas_mm2: Float, distance_mm: float) -> str | None:
    """Say why an apex must have been cut: the outermost slice is large, and areas hardly fall."""
    if len(areas_mm2) < 3:
        return None
    share = float(areas_mm2[0] / areas_mm2.max())
    fall = float(areas_mm2[2] - areas_mm2[0]) / 2
    slices_to_zero = float(areas_mm2[0]) / fall if fall > 0 else np.inf
    if share < _CUT_AREA or slices_to_zero < _CUT_DISTANCE:
        return None
    return f"the outermost slice has {share:.0%} of the LV's largest area"


def _cut_base(areas_mm2: Float, distance_mm: float) -> str | None:
    """Say why a base must have been cut: the LV is shorter for its width than any heart."""
    width_mm = _width_mm(areas_mm2)
    length_mm = len(areas_mm2) * distance_mm
    if not width_mm or length_mm >= _SHORTEST * width_mm or _cut_apex(areas_mm2, distance_mm):
        return None
    return f"the LV is {length_mm:.0f} mm long and {width_mm:.0f} mm wide, shorter than any heart"


def _width_mm(areas_mm2: Float) -> float:
    return float(np.sqrt(4 * np.sort(areas_mm2)[-2:].mean() / np.pi)) if len(areas_mm2) else 0.0


def _planes(labels: LabelMap, sides: list[int]) -> tuple[EmptyPlane, ...]:
    """Planes beyond each ventricle's outermost slice on the given sides (-1: low k, 1: high k)."""
    distance_mm = float(labels.spacing_mm[2])
    count = min(max(1, int(np.ceil(_REACH_MM / distance_mm - 1e-6))), _MOST_PLANES)
    planes = []
    for structures, before_mm in _PREFERENCES_MM.items():
        held = np.flatnonzero(np.isin(labels.array, structures).any(axis=(0, 1)))
        for side in sides if len(held) else ():
            last = int(held[0] if side < 0 else held[-1])
            steps = [(float(step), 1.0) for step in range(1, count + 1)]
            if structures == _LEFT or _shows_left(labels, last + side):
                steps.append((max(0.5, 1 - before_mm / distance_mm), _PREFERENCE))
            planes += [EmptyPlane(last + side * s, last, structures, w) for s, w in steps]
    return tuple(sorted(planes, key=lambda plane: (plane.structures, plane.position)))


def _shows_left(labels: LabelMap, k: int) -> bool:
    """Whether there is such a slice, and the LV in it."""
    return 0 <= k < labels.shape[2] and bool(np.isin(labels.array[:, :, k], _LEFT).any())


def _shared_planes(labels: LabelMap, side: int) -> tuple[SharedPlane, ...]:
    """Planes between the LV's outermost slice on a side and its neighbour, where it shows little."""
    area = np.isin(labels.array, _LEFT).sum(axis=(0, 1))
    held = np.flatnonzero(area)
    if len(held) < 2:
        return ()
    outer = int(held[0] if side < 0 else held[-1])
    inner = outer - side
    if area[outer] >= _PARTLY_SHOWN * area[inner]:
        return ()
    return tuple(SharedPlane(outer - side * part, outer, inner, _LEFT) for part in _BETWEEN)
