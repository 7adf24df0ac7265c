"""How good a refined heart is: overlap, distances, volumes and slice shifts against the truth.

A shift common to all slices cannot be observed, and a linear trend of the shifts looks like a tilted
heart. Each figure is therefore given three times: raw, after the best common in-plane translation of the
result, and after the best translation and tilt (a shear linear in z).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from cardiacreg.arrays import Float
from cardiacreg.compute.jit import kernel
from cardiacreg.geometry import LV_CAVITY, LV_WALL, N_LABELS, STRUCTURES, LabelMap
from cardiacreg.metrics import overlap
from cardiacreg.phantoms.stack_labels import base_is_last

_FIRST_STEP_VOXELS, _LAST_STEP_VOXELS = 1.6, 0.1
_MARGIN_VOXELS = 8
_KEPT = (
    "dice",
    "hausdorff_mm",
    "hausdorff95_mm",
    "average_surface_distance_mm",
    "hausdorff_slicewise_mm",
    "hausdorff_slicewise_max_mm",
    "n_slices_skipped",
    "true_volume_ml",
    "volume_error_ml",
    "true_mass_g",
    "mass_error_g",
    "n_components",
    "n_holes",
    "missed",
)
REGIONS = ("apex", "mid", "base")
BACKGROUND = "background"
Scores = dict[str, dict[str, Any]]


class Alignment(NamedTuple):
    """A result moved onto the truth, and by how much."""

    labels: LabelMap
    translation_mm: Float
    """Along (i, j): how far the result was moved."""
    tilt_mm: Float
    """Along (i, j): how much further at the upper end of the box around both maps than at its middle."""


def score(result: LabelMap, truth: LabelMap) -> dict[str, Scores]:
    """Return every figure per structure, raw and after translation and tilt; Dice after translation.

    Raw figures have also the Dice of each third of the LV from apex to base, and the staircase score.
    Raw and after translation and tilt the background has a Dice too.
    """
    raw = _figures(result, truth)
    for label, name in STRUCTURES.items():
        raw[name] |= _region_dice(result, truth, label)
        raw[name]["staircase_mm"] = staircase_mm(result, label)
        raw[name]["true_staircase_mm"] = staircase_mm(truth, label)
    tilted = align(result, truth, tilt=True).labels
    return {
        "raw": raw | {BACKGROUND: _background(result, truth)},
        "translation": _dice(align(result, truth, tilt=False).labels, truth),
        "tilt": _figures(tilted, truth) | {BACKGROUND: _background(tilted, truth)},
    }


def dice_only(result: LabelMap, truth: LabelMap) -> dict[str, Scores]:
    """Return the Dice per structure in the layout of `score`."""
    return {
        "raw": _dice(result, truth),
        "translation": _dice(align(result, truth, tilt=False).labels, truth),
        "tilt": _dice(align(result, truth, tilt=True).labels, truth),
    }


def raw_dice(result: LabelMap, truth: LabelMap) -> dict[str, Scores]:
    """Return the raw Dice per structure in the layout of `score`, without any alignment."""
    return {"raw": _dice(result, truth)}


def sizes_and_dice(result: LabelMap, truth: LabelMap) -> dict[str, Scores]:
    """Return Dice in the layout of `score`; raw also pieces, volumes in ml, masses in g, their errors."""
    found = dice_only(result, truth)
    ours, true = overlap.structure_volumes_ml(result), overlap.structure_volumes_ml(truth)
    our_g, true_g = overlap.structure_masses_g(result), overlap.structure_masses_g(truth)
    for name, figures in found["raw"].items():
        label = next(label for label, known in STRUCTURES.items() if known == name)
        figures["n_components"], figures["n_holes"] = overlap.topology_counts(result, label)
        figures["true_volume_ml"] = true[name]
        figures["volume_error_ml"] = _difference(ours[name], true[name])
        if name in true_g:
            figures["true_mass_g"] = true_g[name]
            figures["mass_error_g"] = _difference(our_g[name], true_g[name])
    return found


def _difference(found: float | None, true: float | None) -> float | None:
    return None if found is None or true is None else found - true


def _background(result: LabelMap, truth: LabelMap) -> dict[str, float]:
    """Dice of what is no structure, on the lattice of the truth: for means over five labels."""
    return {"dice": overlap.dice(result, truth, 0)}


def _dice(result: LabelMap, truth: LabelMap) -> Scores:
    return {
        name: {"dice": overlap.dice(result, truth, label)} for label, name in STRUCTURES.items()
    }


def _figures(result: LabelMap, truth: LabelMap) -> Scores:
    found = overlap.compare(result, truth, structures=STRUCTURES)
    return {name: {key: f[key] for key in _KEPT if key in f} for name, f in found.items()}


def _region_dice(result: LabelMap, truth: LabelMap, label: int) -> dict[str, float]:
    """Dice in each third of the true LV, from apex to base."""
    held = np.flatnonzero(np.isin(truth.array, (LV_CAVITY, LV_WALL)).any(axis=(0, 1)))
    thirds = np.array_split(np.arange(held[0], held[-1] + 1), len(REGIONS))
    if not base_is_last(truth):
        thirds = thirds[::-1]
    ours, true = result.array == label, truth.array == label
    found = {}
    for name, slices in zip(REGIONS, thirds, strict=True):
        a, b = ours[:, :, slices], true[:, :, slices]
        total = int(a.sum()) + int(b.sum())
        found[f"dice_{name}"] = 2 * int((a & b).sum()) / total if total else 1.0
    return found


def staircase_mm(labels: LabelMap, label: int) -> float:
    """Return how unevenly a structure's outer outline runs from slice to slice, in mm.

    The root-mean-square second difference along k of the in-plane signed distance to the outline (holes
    filled), over the pixels at the outline, in the middle three fifths of the structure's slices, where
    a heart itself changes slowly. An outline that moves evenly gives little (the truth's own value is
    given beside); one that stands still and then jumps by d every n slices about ``d * sqrt(2 / n)``.
    """
    pixel = tuple(float(step) for step in labels.spacing_mm[:2])
    held = np.flatnonzero((labels.array == label).any(axis=(0, 1)))
    fifth = len(held) // 5
    depths = [
        _depth_mm(ndimage.binary_fill_holes(labels.array[:, :, k] == label), pixel)
        for k in held[fifth : len(held) - fifth]
    ]
    squares = [
        ((before - 2 * here + after)[np.abs(here) <= max(pixel)]) ** 2
        for before, here, after in zip(depths, depths[1:], depths[2:], strict=False)
    ]
    found = np.concatenate(squares) if squares else np.zeros(0)
    return float(np.sqrt(found.mean())) if found.size else 0.0


def _depth_mm(mask: NDArray[np.bool_], pixel_mm: tuple[float, ...]) -> Float:
    if mask.all():  # no outline; as far from one as the plane is wide
        return np.full(mask.shape, float(np.hypot(*np.multiply(mask.shape, pixel_mm))))
    inside = ndimage.distance_transform_edt(mask, sampling=pixel_mm)
    outside = ndimage.distance_transform_edt(~mask, sampling=pixel_mm)
    depth: Float = inside - outside - np.where(mask, 0.5, -0.5) * min(pixel_mm)
    return depth


def align(result: LabelMap, truth: LabelMap, *, tilt: bool) -> Alignment:
    """Move a result in the truth's slice planes so that its mean Dice with the truth is largest.

    The planes of an acquired stack are tilted against these by its planning. At a few degrees the part of
    a slice shift that lies across them is the shift times the angle, a tenth of a millimetre.

    Parameters
    ----------
    result, truth : LabelMap
        On one lattice.
    tilt : bool
        Whether the movement may change linearly along k.
    """
    box = _common_box(result.array, truth.array)
    moving, fixed = np.ascontiguousarray(result.array[box]), np.ascontiguousarray(truth.array[box])
    moved = np.zeros_like(moving)

    def mean_dice(parameters: Float) -> float:
        counts = np.zeros((N_LABELS, 3), dtype=np.int64)
        _shift_and_count(moving, fixed, parameters, moved, counts)
        pairs = [2 * c / (a + b) for a, b, c in counts[1:] if a + b > 0]
        return float(np.mean(pairs)) if pairs else 1.0

    n_free = 4 if tilt else 2
    starts = (np.zeros(4), _centroid_shifts(moving, fixed, tilt))
    found = [_coordinate_search(mean_dice, start, n_free) for start in starts]
    parameters = max(found, key=mean_dice)
    mean_dice(parameters)
    array = np.zeros_like(result.array)
    array[box] = moved
    pixel = truth.spacing_mm[:2]
    return Alignment(
        LabelMap(array, result.voxel_to_world), -parameters[:2] * pixel, -parameters[2:] * pixel
    )


def _common_box(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> tuple[slice, ...]:
    held = np.argwhere((first > 0) | (second > 0))
    low = np.maximum(held.min(axis=0) - _MARGIN_VOXELS, 0)
    high = held.max(axis=0) + _MARGIN_VOXELS + 1
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))


def _centroid_shifts(moving: NDArray[np.uint8], fixed: NDArray[np.uint8], tilt: bool) -> Float:
    """Shift, and its change along k, that brings the slices' centres of the LV together on the whole.

    A second start of the search: at no shift thin walls are not interpolated, which makes a small local
    maximum there.
    """
    found = np.zeros(4)
    heights, differences = [], []
    for k in range(fixed.shape[2]):
        masks = [np.isin(array[:, :, k], (LV_CAVITY, LV_WALL)) for array in (moving, fixed)]
        if all(mask.any() for mask in masks):
            centres = [np.argwhere(mask).mean(axis=0) for mask in masks]
            differences.append(centres[0] - centres[1])
            heights.append(2 * k / max(fixed.shape[2] - 1, 1) - 1)
    if differences:
        found[:2] = np.mean(differences, axis=0)
    if tilt and len(differences) > 2:
        design = np.stack([np.ones(len(heights)), np.array(heights)], axis=1)
        fit = np.linalg.lstsq(design, np.array(differences), rcond=None)[0]
        found[:2], found[2:] = fit
    return found


def _coordinate_search(value: Any, start: Float, n_free: int) -> Float:
    """Maximise over the first `n_free` of four numbers, one at a time, halving the step."""
    parameters, step = start.copy(), _FIRST_STEP_VOXELS
    best = value(parameters)
    while step > _LAST_STEP_VOXELS:
        improved = False
        for axis in range(n_free):
            for sign in (1.0, -1.0):
                candidate = parameters.copy()
                candidate[axis] += sign * step
                found = value(candidate)
                if found > best + 1e-7:
                    parameters, best, improved = candidate, found, True
                    break
        if not improved:
            step /= 2
    return parameters


def shift_errors_mm(
    estimated_mm: Float, true_mm: Float, slices: NDArray[np.int64]
) -> dict[str, float]:
    """Return the error of slice shifts over the given slices, mm.

    Returns
    -------
    dict
        Root mean square per axis: ``raw``, ``mean_removed`` and ``trend_removed`` (mean and linear trend
        along the stack). Median over slices of the error's length in the plane:
        ``median_mean_removed`` and ``median_trend_removed``.
    """
    raw = (estimated_mm - true_mm)[slices]
    centred = raw - raw.mean(axis=0)
    height = (slices - slices.mean())[:, None].astype(float)
    slope = (height * centred).sum(axis=0) / max(float((height**2).sum()), 1.0)
    parts = {"raw": raw, "mean_removed": centred, "trend_removed": centred - height * slope}
    found = {name: float(np.sqrt((part**2).mean())) for name, part in parts.items()}
    for name in ("mean_removed", "trend_removed"):
        found[f"median_{name}"] = float(np.median(np.linalg.norm(parts[name], axis=1)))
    return found


def wilcoxon_p(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the two-sided Wilcoxon signed-rank p-value of paired values; 1 if all pairs are equal."""
    difference = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    if not np.any(difference):
        return 1.0
    return float(stats.wilcoxon(difference).pvalue)


# ---------------------------------------------------------------------------------------------- kernels


@kernel
def _shift_and_count(moving, fixed, parameters, moved, counts):
    """Sample each slice at its shifted position (bilinear vote, ties: lowest) and count labels.

    `counts` holds, per label, voxels of the moved map, of the fixed map and of both.
    """
    ni, nj, nk = fixed.shape
    weights = np.zeros(counts.shape[0])
    for k in range(nk):
        height = 2.0 * k / max(nk - 1, 1) - 1.0
        shift_i = parameters[0] + parameters[2] * height
        shift_j = parameters[1] + parameters[3] * height
        whole_i, whole_j = int(np.floor(shift_i)), int(np.floor(shift_j))
        part_i, part_j = shift_i - whole_i, shift_j - whole_j
        for i in range(ni):
            for j in range(nj):
                label = 0
                a, b = i + whole_i, j + whole_j
                if 0 <= a and a + 1 < ni and 0 <= b and b + 1 < nj:
                    p, q = moving[a, b, k], moving[a, b + 1, k]
                    r, s = moving[a + 1, b, k], moving[a + 1, b + 1, k]
                    label = p
                    if not (p == q and p == r and p == s):
                        weights[p] += (1 - part_i) * (1 - part_j)
                        weights[q] += (1 - part_i) * part_j
                        weights[r] += part_i * (1 - part_j)
                        weights[s] += part_i * part_j
                        label = 0
                        for n in range(len(weights)):
                            if weights[n] > weights[label]:
                                label = n
                        weights[:] = 0.0
                moved[i, j, k] = label
                counts[label, 0] += 1
                counts[fixed[i, j, k], 1] += 1
                if label == fixed[i, j, k]:
                    counts[label, 2] += 1
