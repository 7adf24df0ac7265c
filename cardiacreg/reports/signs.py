"""Signs that speak against a result beside its findings: unusual shifts, poor fit, slices amiss.

Limits were chosen on development hearts; `python -m benchmarks quality` measures on others how often good
stacks raise an alarm and which failures do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from cardiacreg.anatomy.cut_base import LARGEST_WIDENING, widening_at_base
from cardiacreg.arrays import Float
from cardiacreg.geometry import LabelMap
from cardiacreg.results.guards import Finding
from cardiacreg.results.result import AtlasReport
from cardiacreg.slices import labelled_slices

SHIFTS_UNUSUAL = "SHIFTS_UNUSUAL"
ATLASES_MISFIT = "ATLASES_MISFIT"
SLICES_ALIKE = "SLICES_ALIKE"
BASE_MISSING = "BASE_MISSING"
LARGEST_SHIFT_MM = 8.0
LEAST_CONSISTENCY = 0.965
"""Mean over the chosen atlases, after their deformation."""
_FEWEST_PIXELS = 60


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
            "slices seem to be missing there: give the whole stack, or say that it is cut (coverage= or "
            "--coverage base=partial)",
        )
