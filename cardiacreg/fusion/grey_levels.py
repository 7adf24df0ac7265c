"""Bring a target image and warped atlas images to one scale of grey levels, 0 to 255 in whole numbers.

The scale is set inside the heart: the union of the atlases' structures, dilated by four voxels (steps
through faces). ``"percentiles"`` maps each image's own 1st and 99th percentile to 0 and 255;
``"quantiles"`` bends each atlas piecewise linearly so that its 1st, 10th, 20th, ..., 90th and 99th
percentile become those of the target; ``"none"`` takes values as grey levels as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cardiacreg.compute.jit import kernel
from cardiacreg.compute.threads import run_tasks

HARMONISATIONS = ("percentiles", "quantiles", "none")
GREY_LEVELS = 255.0
HEART_MARGIN_VOXELS = 4
_LOW_HIGH = (1.0, 99.0)
_QUANTILES = (1.0, *range(10, 100, 10), 99.0)


def grey_levels(
    target: NDArray[np.float32],
    atlases: Sequence[NDArray[np.float32]],
    labelled: NDArray[np.bool_],
    *,
    harmonisation: str = "percentiles",
    window: tuple[slice, slice, slice] = (slice(None),) * 3,
    threads: int = 1,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return grey levels of a target and of atlases in a window of their lattice.

    Parameters
    ----------
    target : ndarray of float32, shape (i, j, k)
    atlases : sequence of ndarray of float32, shape (i, j, k)
    labelled : ndarray of bool, shape (i, j, k)
        Where any atlas has a structure.
    harmonisation : {"percentiles", "quantiles", "none"}
    window : tuple of slice
        What is returned; the scale is set by the whole heart.
    threads : int

    Returns
    -------
    target : ndarray of uint8
    atlases : ndarray of uint8, shape (n, ...)
    """
    out = np.empty((1 + len(atlases), *target[window].shape), dtype=np.uint8)
    images = (target, *atlases)
    heart, box = _heart(labelled)
    levels = _LOW_HIGH if harmonisation == "percentiles" else _QUANTILES
    own = _percentiles(target, heart, box, levels)

    def convert(number: int) -> None:
        values: NDArray[np.floating[Any]] = np.ascontiguousarray(images[number][window])
        if harmonisation == "none":
            out[number] = np.rint(np.clip(values, 0.0, GREY_LEVELS))
            return
        found = _percentiles(images[number], heart, box, levels) if number else own
        if len(found) > 2:
            values, found = np.interp(values, found, own), own
        width = max(float(found[-1] - found[0]), 1e-6)
        _scale_kernel(values.ravel(), found[0], width, out[number].ravel())

    run_tasks(convert, range(len(images)), threads=threads)
    return out[0], out[1:]


def _percentiles(
    image: NDArray[np.float32],
    heart: NDArray[np.bool_],
    box: tuple[slice, ...],
    levels: tuple[float, ...],
) -> NDArray[np.float64]:
    """Percentiles inside the heart, linear between the two ranks around each, as NumPy's in float64."""
    values = image[box][heart]
    place = (len(values) - 1) * (np.array(levels) / 100)
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, len(values) - 1)
    ordered = np.partition(values, np.unique([below, above])).astype(np.float64)
    return np.asarray(ordered[below] + (ordered[above] - ordered[below]) * (place - below))


def _heart(labelled: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], tuple[slice, ...]]:
    """Dilate the labelled voxels; return the box around them and the mask in it."""
    if not labelled.any():
        return np.ones(labelled.shape, dtype=bool), (slice(None),) * 3
    box = box_around(labelled, (HEART_MARGIN_VOXELS,) * 3)
    mask = labelled[box].copy()
    for _ in range(HEART_MARGIN_VOXELS):
        before = mask.copy()
        for axis in range(3):
            out, found = np.moveaxis(mask, axis, 0), np.moveaxis(before, axis, 0)
            out[1:] |= found[:-1]
            out[:-1] |= found[1:]
    return mask, box


def box_around(mask: NDArray[np.bool_], margin: Sequence[int]) -> tuple[slice, ...]:
    """Return the smallest box around the true voxels of a mask, grown by a margin inside the lattice.

    Parameters
    ----------
    mask : ndarray of bool, shape (i, j, k)
        At least one voxel is true.
    margin : sequence of int
    """
    flat: NDArray[np.bool_] = np.asarray(mask.any(axis=2))
    lines = [np.asarray(a) for a in (flat.any(axis=1), flat.any(axis=0), mask.any(axis=(0, 1)))]
    ends = [(int(np.argmax(line)), len(line) - int(np.argmax(line[::-1]))) for line in lines]
    return tuple(
        slice(max(0, start - grow), min(size, stop + grow))
        for (start, stop), grow, size in zip(ends, margin, mask.shape, strict=True)
    )


# ---------------------------------------------------------------------------------------------- kernels


@kernel
def _scale_kernel(values, origin, width, out):
    """Grey levels of values: a width from the origin is the whole scale."""
    for v in range(np.uint64(len(values))):
        level = (np.float64(values[v]) - origin) / width * GREY_LEVELS
        out[v] = np.uint8(np.rint(min(max(level, 0.0), GREY_LEVELS)))
