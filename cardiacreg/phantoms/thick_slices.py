"""Thick, oblique, moved slices through a high-resolution heart: their lattice and what they show.

A stack is turned as a whole against the lattice of the heart (tilt), about the mean position of the
labels. A stored in-plane position of a slice truly lies shifted, and turned about that same point, along
the stack's own axes. A pixel is the mean of the heart over the slice's thickness: sums along the heart's
slices up to both faces of thin layers, whose difference is the exact mean where nothing is tilted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from cardiacreg.arrays import Float
from cardiacreg.geometry import LabelMap, Volume
from cardiacreg.slices import rotation

_LAYER_MM = 2.0
"""The thickest layer of a tilted slice."""


class Stack(NamedTuple):
    """Where the slices of a stack lie; mm along the heart's axes from its first voxel, unless said."""

    voxel_to_world: Float
    shape: tuple[int, int, int]
    pixel_mm: Float
    """Shape (2,)."""
    thickness_mm: float
    first_mm: Float
    """Shape (3,): the first voxel's centre along the stack's axes; `pivot_mm` is the same along both."""
    pivot_mm: Float
    """Shape (3,): the mean position of the labels."""
    turn: Float
    """Shape (3, 3): the stack's axes as columns."""


class Motion(NamedTuple):
    """How each slice moved: true = stored position + shift, then turned about the pivot."""

    shifts_mm: Float
    """Shape (n_slices, 2), along the stack's i and j axes."""
    turns_degrees: Float
    """Shape (n_slices,)."""


def tilt_matrix(degrees: Float) -> Float:
    """Return the rotation by one angle about axis i after one about axis j, shape (3, 3)."""
    about_i, about_j = (rotation(float(angle)) for angle in degrees)
    first, second = np.eye(3), np.eye(3)
    first[1:, 1:] = about_i
    second[0::2, 0::2] = about_j.T
    return first @ second


def plan_stack(
    labels: LabelMap,
    *,
    pixel_mm: Float,
    thickness_mm: float,
    tilt_degrees: Float,
    phase_mm: float,
    more_slices: int,
) -> Stack:
    """Lay a stack over a heart.

    Parameters
    ----------
    labels : LabelMap
        The heart; the stack covers its lattice, turned by the tilt, and all its labels.
    pixel_mm : ndarray, shape (2,)
        In-plane size of the stack's voxels.
    thickness_mm : float
        Of a slice, and its distance to the next.
    tilt_degrees : ndarray, shape (2,)
        About the in-plane axes i and j.
    phase_mm : float
        How far beyond the end of the heart's lattice the first slice begins.
    more_slices : int
        Slices to add at either end.

    Returns
    -------
    Stack
        Its axes are the heart's where there is no tilt.
    """
    spacing = labels.spacing_mm
    voxels = np.argwhere(labels.array)
    pivot, turn = voxels.mean(axis=0) * spacing, tilt_matrix(tilt_degrees)
    along = pivot + (voxels * spacing - pivot) @ turn  # the stack's coordinates of every label
    low = np.minimum(0.0, along.min(axis=0))
    high = np.maximum((np.array(labels.shape) - 1) * spacing, along.max(axis=0))
    start = low[2] - 0.5 * spacing[2] - phase_mm
    n_slices = int(np.ceil((high[2] + 0.5 * spacing[2] - start) / thickness_mm)) + 2 * more_slices
    first = np.array([low[0], low[1], start + (0.5 - more_slices) * thickness_mm])
    counts = np.ceil((high - low + spacing)[:2] / pixel_mm - 1e-6).astype(int)
    directions = labels.voxel_to_world[:3, :3] / spacing
    matrix = np.eye(4)
    matrix[:3, :3] = directions @ turn * np.array([*pixel_mm, thickness_mm])
    matrix[:3, 3] = labels.voxel_to_world[:3, 3] + directions @ (pivot + turn @ (first - pivot))
    shape = (int(counts[0]), int(counts[1]), n_slices)
    return Stack(matrix, shape, pixel_mm, thickness_mm, first, pivot, turn)


def majority_labels(labels: LabelMap, stack: Stack, motion: Motion) -> NDArray[np.uint8]:
    """Return the label with the largest share of every voxel of a stack; background is one of them.

    Parameters
    ----------
    labels : LabelMap
        The heart; background beyond the ends of its lattice.
    stack : Stack
        Laid over it.
    motion : Motion
        Of every slice.

    Returns
    -------
    ndarray, shape (i, j, n_slices), uint8
    """
    values = labels.present()
    sums = [_sums_along_slices(labels.array == value) for value in values]
    found = np.zeros(stack.shape, dtype=np.uint8)
    for k in range(stack.shape[2]):
        layers = _layers(stack, motion, k, labels.spacing_mm)
        best = np.ones(stack.shape[:2])
        shares = [_mean(each, layers) for each in sums]
        for share in shares:
            best -= share
        for value, share in zip(values, shares, strict=True):
            higher = share > best
            found[:, :, k][higher] = value
            best = np.where(higher, share, best)
    return found


def mean_image(image: Volume, stack: Stack, motion: Motion) -> NDArray[np.float32]:
    """Return the mean of an image over every voxel of a stack.

    Parameters
    ----------
    image : Volume
        On the lattice that the stack is laid over; beyond its edge it goes on as there.
    stack, motion
        As for `majority_labels`.

    Returns
    -------
    ndarray, shape (i, j, n_slices), float32
    """
    layers = [_layers(stack, motion, k, image.spacing_mm) for k in range(stack.shape[2])]
    lowest = min(float(each[:, 2].min()) for each in layers)
    highest = max(float(each[:, 3].max()) for each in layers)
    beyond = int(np.ceil(max(-lowest, highest - image.shape[2], 0.0)))
    wide = np.pad(image.array, ((0, 0), (0, 0), (beyond, beyond)), mode="edge")
    sums = _sums_along_slices(wide)
    found = np.empty(stack.shape, dtype=np.float32)
    for k, each in enumerate(layers):
        each[:, 2:] += beyond
        found[:, :, k] = _mean(sums, each)
    return found


def _sums_along_slices(array: NDArray[np.generic]) -> Float:
    """Sum of all slices below each face between slices, shape (i, j, n_slices + 1)."""
    sums = np.zeros((*array.shape[:2], array.shape[2] + 1))
    np.cumsum(array, axis=2, out=sums[:, :, 1:], dtype=np.float64)
    return sums


def _layers(stack: Stack, motion: Motion, k: int, spacing_mm: Float) -> Float:
    """Where the thin layers of a slice truly lie, shape (n_layers, 4, i, j).

    In voxels of the heart: i and j of each pixel, and its lower and its upper face, both counted in
    slices from the lower face of the first one.
    """
    tilted = not np.array_equal(stack.turn, np.eye(3))
    count = int(np.ceil(stack.thickness_mm / _LAYER_MM)) if tilted else 1
    layer_mm = stack.thickness_mm / count
    stored = np.meshgrid(
        *(first + pixel * np.arange(n) for first, pixel, n in zip(
            stack.first_mm, stack.pixel_mm, stack.shape, strict=False)),
        indexing="ij",
    )  # fmt: skip
    flat = np.stack(stored, axis=-1) + motion.shifts_mm[k] - stack.pivot_mm[:2]
    flat = flat @ rotation(float(motion.turns_degrees[k])).T
    middle = stack.first_mm[2] + stack.thickness_mm * k - stack.pivot_mm[2]
    heights = middle + layer_mm * (np.arange(count) - 0.5 * (count - 1))
    placed = np.empty((count, 4, *stack.shape[:2]))
    half = 0.5 * layer_mm / stack.turn[2, 2]
    for layer, height in enumerate(heights):
        at = stack.pivot_mm + flat @ stack.turn[:, :2].T + height * stack.turn[:, 2]
        placed[layer, :2] = np.moveaxis(at[..., :2] / spacing_mm[:2], -1, 0)
        placed[layer, 2] = (at[..., 2] - half) / spacing_mm[2] + 0.5
        placed[layer, 3] = (at[..., 2] + half) / spacing_mm[2] + 0.5
    return placed


def _mean(sums: Float, layers: Float) -> Float:
    """Mean over the layers between their faces; shape (i, j)."""
    total = np.zeros(layers.shape[2:])
    for i, j, low, high in layers:
        for sign, face in ((-1.0, low), (1.0, high)):
            total += sign * map_coordinates(sums, (i, j, face), order=1, mode="nearest")
    thickness = float((layers[:, 3] - layers[:, 2])[:, 0, 0].sum())
    return np.asarray(total / thickness)
