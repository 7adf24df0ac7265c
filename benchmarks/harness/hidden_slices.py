"""Leave slices out: every second labelled slice of a real stack is hidden, and filled from the others.

What is fair. The model is made from the kept slices alone, as a stack of twice the slice distance. Only
hidden slices between two kept ones are scored, so that nobody extrapolates. A hidden slice was itself
shifted by breathing, by an amount that no method can know: Dice is given raw and after the in-plane
translation of each hidden slice that suits the method in question best. Dice is pooled over the hidden
slices of a frame. The hidden slices' manual labels are the truth.

A model has its slices put in place; a hidden slice lies where breathing left it. What is asked for is the
slice as acquired, so the model is moved back at each hidden slice by the shift interpolated between those
estimated for its kept neighbours, as interpolated outlines are moved with the neighbours they come from.
The model without that is measured too. Hiding slices doubles their distance, not their thickness; only
the slices' middle planes enter a refinement, so that the thickness does not matter.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import scoring
from benchmarks.harness.cases import Acquisition
from benchmarks.harness.measuring import BASELINES, refine_quietly
from cardiacreg.anatomy.label_presets import canonical_labels
from cardiacreg.errors import InputWarning
from cardiacreg.geometry import STRUCTURES, LabelMap
from cardiacreg.io.nifti import read_labels
from cardiacreg.metrics import baselines
from cardiacreg.slices import labelled_slices

OURS, IN_PLACE = "cardiacreg", "cardiacreg, not moved back"
FEWEST_KEPT = 3
Counts = NDArray[np.int64]


class TooFewSlices(Exception):
    """Too few slices would remain."""


def canonical(acquisition: Acquisition) -> LabelMap:
    """Read the labels of a frame, without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        return canonical_labels(read_labels(acquisition.labels), acquisition.preset)


def every_second(labels: LabelMap) -> tuple[LabelMap, list[LabelMap]]:
    """Return the stack of every second labelled slice, and the hidden slices between them.

    Returns
    -------
    LabelMap
        From the first labelled slice, with twice the slice distance.
    list of LabelMap
        One slice each, at its place in the world.

    Raises
    ------
    TooFewSlices
        If fewer than three slices would be kept.
    """
    slices = labelled_slices(labels.array)
    kept = np.arange(slices[0], slices[-1] + 1, 2)
    if len(kept) < FEWEST_KEPT:
        raise TooFewSlices(f"{len(kept)} slices would be kept; needs {FEWEST_KEPT}")
    stack = _slices(labels, slice(int(kept[0]), int(kept[-1]) + 1, 2))
    hidden = [_slices(labels, slice(k, k + 1)) for k in range(int(kept[0]) + 1, int(kept[-1]), 2)]
    return stack, [each for each in hidden if each.array.any()]


def _slices(labels: LabelMap, chosen: slice) -> LabelMap:
    matrix = labels.voxel_to_world.copy()
    matrix[:3, 3] += matrix[:3, 2] * chosen.start
    matrix[:3, 2] *= chosen.step or 1
    return LabelMap(labels.array[:, :, chosen], matrix)


def measure(acquisition: Acquisition, others: Sequence[Acquisition] = ()) -> list[dict[str, Any]]:
    """Fill the hidden slices of one frame by every method and score them.

    Every second slice of the patient's other frames is hidden, too.
    """
    stack, hidden = every_second(canonical(acquisition))
    frames = kept_stacks(others)
    start = time.perf_counter()
    result = refine_quietly(stack, frames=frames, threads=1)
    seconds = time.perf_counter() - start
    fill: dict[str, Callable[[LabelMap], LabelMap]] = {
        **{name: partial(make, stack) for name, make in BASELINES.items()},
        IN_PLACE: partial(baselines.interpolate_nearest, result.labels),
        OURS: partial(as_acquired, result.labels, stack, result.slice_shifts_mm),
    }
    records = []
    for method, make in fill.items():
        filled = [make(each) for each in hidden]
        records.append(
            {
                "method": method,
                "slices": len(hidden),
                "kept": int(stack.shape[2]),
                "distance_mm": float(stack.spacing_mm[2]),
                "seconds": seconds if method in (OURS, IN_PLACE) else 0.0,
                "scores": score(filled, hidden),
            }
        )
    return records


def kept_stacks(acquisitions: Sequence[Acquisition]) -> list[LabelMap]:
    """Return the kept slices of frames, without frames of too few slices."""
    found = []
    for each in acquisitions:
        try:
            found.append(every_second(canonical(each))[0])
        except TooFewSlices:
            continue
    return found


def as_acquired(
    model: LabelMap, stack: LabelMap, shifts_mm: NDArray[np.float64], hidden: LabelMap
) -> LabelMap:
    """Return the model at a hidden slice, moved back by the shift of its kept neighbours.

    Parameters
    ----------
    model : LabelMap
        Refined from the stack.
    stack : LabelMap
        The kept slices.
    shifts_mm : ndarray, shape (n_slices, 2)
        True = stored position + shift, along the stack's i and j axes.
    hidden : LabelMap
        One slice between two kept ones.
    """
    slices = np.arange(stack.shape[2])
    height = (np.linalg.inv(stack.voxel_to_world) @ hidden.voxel_to_world[:, 3])[2]
    shift = [float(np.interp(height, slices, shifts_mm[:, axis])) for axis in (0, 1)]
    matrix = hidden.voxel_to_world.copy()
    matrix[:3, 3] += stack.voxel_to_world[:3, :2] / stack.spacing_mm[:2] @ shift
    found = baselines.interpolate_nearest(model, LabelMap(hidden.array, matrix))
    return LabelMap(found.array, hidden.voxel_to_world)


def score_model(
    model: LabelMap, stack: LabelMap, shifts_mm: NDArray[np.float64], hidden: list[LabelMap]
) -> dict[str, Any]:
    """Return the score of a model of the kept slices, moved back at every hidden one."""
    return score([as_acquired(model, stack, shifts_mm, each) for each in hidden], hidden)


def score(filled: list[LabelMap], hidden: list[LabelMap]) -> dict[str, Any]:
    """Return pooled Dice per structure, raw and after each slice's best translation."""
    moved = [scoring.align(a, b, tilt=False).labels for a, b in zip(filled, hidden, strict=True)]
    found: dict[str, Any] = {}
    for alignment, maps in (("raw", filled), ("translation", moved)):
        found[alignment] = {}
        for label, name in STRUCTURES.items():
            counts = sum(
                (_counts(a.array == label, b.array == label) for a, b in zip(maps, hidden, strict=True)),
                np.zeros(2, dtype=np.int64),
            )  # fmt: skip
            if any((each.array == label).any() for each in hidden):
                found[alignment][name] = {"dice": float(counts[0] / counts[1])}
    return found


def _counts(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Counts:
    return np.array([2 * (first & second).sum(), first.sum() + second.sum()], dtype=np.int64)
