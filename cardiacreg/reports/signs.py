"""Signs that speak against a result beside its findings: unusual shifts, poor fit, slices amiss.

Limits were chosen on development hearts; `python -m benchmarks quality` measures on others how often good
stacks raise an alarm and which failures do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from cardiacreg.anatomy.cut_base import LARGEST_WIDENING, widening_at_base
from cardiacreg.anatomy.slice_volumes import StructureVolume
from cardiacreg.arrays import Float
from cardiacreg.geometry import LabelMap
from cardiacreg.results.guards import (
    GUARDED,
    LEAST_AGREEMENT,
    MOST_ATLAS_DIVERSITY,
    MOST_SHARE_BEYOND,
    MOST_VOLUME_DIFFERENCE,
    Finding,
)
from cardiacreg.results.result import AtlasReport
from cardiacreg.slices import labelled_slices

SHIFTS_UNUSUAL = "SHIFTS_UNUSUAL"
ATLASES_MISFIT = "ATLASES_MISFIT"
SLICES_ALIKE = "SLICES_ALIKE"
BASE_MISSING = "BASE_MISSING"
LARGEST_SHIFT_MM = 8.0
LEAST_CONSISTENCY = 0.965
"""Mean over the chosen atlases, after their deformation."""
LIMITS = {
    "disagreement": 1.0 - LEAST_AGREEMENT,
    "volume_change": MOST_VOLUME_DIFFERENCE,
    "share_beyond": MOST_SHARE_BEYOND,
    "largest_shift_mm": LARGEST_SHIFT_MM,
    "inconsistency_after": 1.0 - LEAST_CONSISTENCY,
    "atlas_diversity": MOST_ATLAS_DIVERSITY,
}
"""What each of `measured_signs` may be in a result that is accepted."""
_FEWEST_PIXELS = 60


def measured_signs(
    agreement: Mapping[str, float | None],
    volumes: Mapping[str, StructureVolume],
    slice_shifts_mm: Float,
    atlases: Sequence[AtlasReport],
    atlas_diversity: float | None,
) -> dict[str, float]:
    """Return numbers that are the larger the worse a result is, by the names of `LIMITS`.

    Parameters
    ----------
    agreement, volumes, slice_shifts_mm, atlases, atlas_diversity
        As in `RefineResult`.
    """
    known = [v for name, v in volumes.items() if name in GUARDED and v.input_ml]
    dice = [d for name, d in agreement.items() if name in GUARDED and d is not None]
    fits = [each.consistency_after for each in atlases]
    change = [abs(v.total_ml / (v.input_ml or 1.0) - 1) for v in known]
    beyond = [(v.beyond_apex_ml + v.beyond_base_ml) / max(v.total_ml, 1e-9) for v in known]
    return {
        "disagreement": 1.0 - min(dice, default=1.0),
        "volume_change": max(change, default=0.0),
        "share_beyond": max(beyond, default=0.0),
        "largest_shift_mm": float(np.linalg.norm(slice_shifts_mm, axis=1).max(initial=0.0)),
        "inconsistency_after": 1.0 - float(np.mean(fits)) if fits else 0.0,
        "atlas_diversity": atlas_diversity or 0.0,
    }


def quality_score(measured: Mapping[str, float], word: str = "accept") -> float:
    """Return how far a result is from what asks for a look, 1 the best.

    Parameters
    ----------
    measured : mapping
        See `measured_signs`; other names do not count.
    word : {"accept", "look", "reject"}
        The verdict, which also rests on what has no number.

    Returns
    -------
    float
        1 less half of the worst sign's share of its limit: above 0.5 for what is accepted, at most 0.5
        where a look is asked for, 0 where it is rejected or a sign is twice its limit.

    Examples
    --------
    >>> from cardiacreg.reports.signs import quality_score
    >>> quality_score({"volume_change": 0.02}), quality_score({"volume_change": 0.02}, "look")
    (0.9, 0.5)
    """
    worst = max((measured.get(name, 0.0) / limit for name, limit in LIMITS.items()), default=0.0)
    score = 0.0 if word == "reject" else max(1.0 - worst / 2, 0.0)
    return min(score, 0.5) if word == "look" else score


def unusual_signs(
    slice_shifts_mm: Float,
    atlases: Sequence[AtlasReport],
    target: LabelMap | None = None,
    *,
    base_at_last_slice: bool = True,
) -> tuple[Finding, ...]:
    """Return what good results do not show.

    Parameters
    ----------
    slice_shifts_mm : ndarray, shape (n_slices, 2)
    atlases : sequence of AtlasReport
        The chosen ones; none where they are not known.
    target : LabelMap, optional
        The labels that were refined, where they are known.
    base_at_last_slice : bool
        Of the target.

    Returns
    -------
    tuple of Finding

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg.reports.signs import unusual_signs
    >>> [sign.code for sign in unusual_signs(np.array([[0.0, 0.0], [9.0, 1.0]]), ())]
    ['SHIFTS_UNUSUAL']
    """
    return (
        *_large_shifts(slice_shifts_mm),
        *_misfit([each.consistency_after for each in atlases]),
        *([] if target is None else _alike(target)),
        *([] if target is None else _cut_base(target, base_at_last_slice)),
    )


def _large_shifts(slice_shifts_mm: Float) -> Iterable[Finding]:
    lengths = np.linalg.norm(slice_shifts_mm, axis=1)
    far = np.flatnonzero(lengths > LARGEST_SHIFT_MM)
    if len(far):
        shown = ", ".join(f"slice {k} by {lengths[k]:.1f} mm" for k in far)
        yield Finding(
            SHIFTS_UNUSUAL,
            f"slices were moved farther than {LARGEST_SHIFT_MM:g} mm: {shown}; check the labels of these "
            "slices, and whether they belong to this patient and this place",
        )


def _misfit(consistencies: Sequence[float]) -> Iterable[Finding]:
    if not consistencies:
        return
    mean = float(np.mean(consistencies))
    if mean < LEAST_CONSISTENCY:
        yield Finding(
            ATLASES_MISFIT,
            f"the deformed atlases agree with the input by {mean:.3f} only, {LEAST_CONSISTENCY:g} and "
            "more is usual; check the order of the slices and their labels",
        )


def _alike(target: LabelMap) -> Iterable[Finding]:
    """Report slices with the very same labels, which no two slices of a heart have."""
    planes = [
        (int(k), plane)
        for k in labelled_slices(target.array)
        if (plane := target.array[:, :, k]).astype(bool).sum() >= _FEWEST_PIXELS
    ]
    seen: dict[bytes, int] = {}
    pairs = []
    for k, plane in planes:
        first = seen.setdefault(np.ascontiguousarray(plane).tobytes(), k)
        if first != k:
            pairs.append(f"{first} and {k}")
    if pairs:
        yield Finding(
            SLICES_ALIKE,
            f"slices {', '.join(pairs)} have the very same labels; check whether a slice was copied",
        )


def _cut_base(target: LabelMap, base_at_last_slice: bool) -> Iterable[Finding]:
    """Report a stack whose LV still widens where it ends."""
    widening = widening_at_base(target, base_at_last_slice=base_at_last_slice)
    if widening is not None and widening > LARGEST_WIDENING:
        yield Finding(
            BASE_MISSING,
            "the LV still widens in the outermost slice towards the base, and is short for its width; "
            "slices seem to be missing there: give the whole stack, or say that its base is cut, "
            "base=partial (coverage= or --coverage)",
        )
