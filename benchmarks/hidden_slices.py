"""Leave slices out: every second labelled slice of a real stack is hidden, and filled from the others.

What is fair. The model is made from the kept slices alone, as a stack of twice the slice distance. Only
hidden slices between two kept ones are scored, so that nobody extrapolates. A hidden slice was itself
shifted by breathing, by an amount that no method can know: Dice is given raw and after the in-plane
translation of each hidden slice that suits the method in question best. Dice is pooled over the hidden
slices of a frame. The hidden slices' manual labels are the truth.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import baselines, scoring
from benchmarks.cases import Acquisition
from benchmarks.measuring import BASELINES, refine_quietly
from cardiacreg.errors import InputWarning
from cardiacreg.geometry import STRUCTURES, LabelMap
from cardiacreg.label_consistency import labelled_slices
from cardiacreg.label_presets import canonical_labels
from cardiacreg.nifti import read_labels

OURS = "cardiacreg"
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


def measure(acquisition: Acquisition) -> list[dict[str, Any]]:
    """Fill the hidden slices of one frame by every method and score them."""
    stack, hidden = every_second(canonical(acquisition))
    start = time.perf_counter()
    model = refine_quietly(stack, threads=1).labels
    seconds = time.perf_counter() - start
    records = []
    for method in (*BASELINES, OURS):
        filled = [
            baselines.nearest_neighbour(model, each)
            if method == OURS
            else BASELINES[method](stack, each)
            for each in hidden
        ]
        records.append(
            {
                "method": method,
                "slices": len(hidden),
                "kept": int(stack.shape[2]),
                "distance_mm": float(stack.spacing_mm[2]),
                "seconds": seconds if method == OURS else 0.0,
                "scores": score(filled, hidden),
            }
        )
    return records


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
