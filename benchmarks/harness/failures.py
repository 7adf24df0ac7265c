"""What goes wrong with inputs in practice, done to a good stack on purpose."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, LabelMap, Subject, Volume
from cardiacreg.slices import labelled_slices

_LOST_SLICES = 3
_NOISY_SHARE = 0.2
_MOVED_MM = 15.0


def _with(stack: Subject, array: np.ndarray) -> Subject:
    labels = LabelMap(array.astype(np.uint8), stack.labels.voxel_to_world)
    return Subject(labels, stack.image, name=stack.name)


def wrong_preset(stack: Subject, rng: np.random.Generator, other: Subject) -> Subject:
    """Read values of ACDC as those of M&Ms: both cavities trade places."""
    trade = np.arange(256, dtype=np.uint8)
    trade[[LV_CAVITY, RV_CAVITY]] = RV_CAVITY, LV_CAVITY
    array = np.array(stack.labels.array)
    array[array == 3] = 0
    return _with(stack, trade[array])


def swapped_slices(stack: Subject, rng: np.random.Generator, other: Subject) -> Subject:
    """Exchange a slice near the apex with one near the base."""
    array = np.array(stack.labels.array)
    slices = labelled_slices(array)
    first, second = slices[len(slices) // 4], slices[-1 - len(slices) // 4]
    array[:, :, [first, second]] = array[:, :, [second, first]]
    image = stack.image
    if image is not None:
        grey = np.array(image.array)
        grey[:, :, [first, second]] = grey[:, :, [second, first]]
        image = Volume(grey, image.voxel_to_world)
    return Subject(_with(stack, array).labels, image, name=stack.name)


def duplicated_slice(stack: Subject, rng: np.random.Generator, other: Subject) -> Subject:
    """Put a copy of a slice in place of the next one but one."""
    array = np.array(stack.labels.array)
    slices = labelled_slices(array)
    middle = len(slices) // 2
    array[:, :, slices[middle + 2]] = array[:, :, slices[middle]]
    return _with(stack, array)


def missing_base(stack: Subject, rng: np.random.Generator, other: Subject) -> Subject:
    """Acquire three slices less at the base."""
    return _cropped(stack, base=True)


def missing_apex(stack: Subject, rng: np.random.Generator, other: Subject) -> Subject:
    """Acquire three slices less at the apex."""
    return _cropped(stack, base=False)


def _cropped(stack: Subject, *, base: bool) -> Subject:
    array = stack.labels.array
    slices = labelled_slices(array)
    areas = [(array[:, :, k] > 0).sum() for k in slices]
    base_last = np.mean(areas[-3:]) >= np.mean(areas[:3])
    keep = slice(0, slices[-_LOST_SLICES]) if base == base_last else (
        slice(int(slices[_LOST_SLICES]), None))  # fmt: skip
    matrix = stack.labels.voxel_to_world.copy()
    matrix[:3, 3] += matrix[:3, 2] * (keep.start or 0)
    labels = LabelMap(array[:, :, keep], matrix)
    image = None if stack.image is None else Volume(stack.image.array[:, :, keep], matrix)
    return Subject(labels, image, name=stack.name)


def mirrored_stack(stack: Subject, rng: np.random.Generator, other: Subject) -> Subject:
    """Store the columns of every slice the other way round under the same matrix."""
    image = stack.image
    labels = LabelMap(stack.labels.array[::-1], stack.labels.voxel_to_world)
    mirrored = None if image is None else Volume(image.array[::-1], image.voxel_to_world)
    return Subject(labels, mirrored, name=stack.name)


def noisy_labels(stack: Subject, rng: np.random.Generator, other: Subject) -> Subject:
    """Give a fifth of the voxels in and near the heart a random label."""
    array = np.array(stack.labels.array)
    near = ndimage.binary_dilation(array > 0, np.ones((9, 9, 1)))
    noisy = near & (rng.random(array.shape) < _NOISY_SHARE)
    array[noisy] = rng.choice(np.unique(stack.labels.array), size=int(noisy.sum()))
    return _with(stack, array)


def image_of_another(stack: Subject, rng: np.random.Generator, other: Subject) -> Subject:
    """Take the image of another patient, on the lattice of this one."""
    if stack.image is None or other.image is None:
        raise ValueError("needs images")
    grey, shape = other.image.array, stack.labels.shape
    padded = np.full(shape, float(np.median(grey)), dtype=np.float32)
    common = tuple(slice(0, min(a, b)) for a, b in zip(shape, grey.shape, strict=True))
    padded[common] = grey[common]
    return Subject(stack.labels, Volume(padded, stack.labels.voxel_to_world), name=stack.name)


def corrupted_segmentation(stack: Subject, rng: np.random.Generator, other: Subject) -> Subject:
    """In a third of the slices, move the labels by 15 mm or lose half of the LV."""
    array = np.array(stack.labels.array)
    slices = labelled_slices(array)[1:-1]
    for number, k in enumerate(rng.choice(slices, size=max(2, len(slices) // 3), replace=False)):
        plane = array[:, :, k].copy()
        if number % 2:
            step = round(_MOVED_MM / float(stack.labels.spacing_mm[0]))
            array[:, :, k] = np.roll(plane, step, axis=0)
            continue
        where = np.argwhere(np.isin(plane, (LV_CAVITY, LV_WALL)))
        half = where[:, 1] > np.median(where[:, 1]) if len(where) else where
        lost = where[half] if len(where) else where
        array[lost[:, 0], lost[:, 1], k] = 0
    return _with(stack, array)


FAILURES: dict[str, Callable[[Subject, np.random.Generator, Subject], Subject]] = {
    "wrong preset": wrong_preset,
    "swapped slices": swapped_slices,
    "duplicated slice": duplicated_slice,
    "missing base": missing_base,
    "missing apex": missing_apex,
    "mirrored stack": mirrored_stack,
    "noisy labels": noisy_labels,
    "image of another patient": image_of_another,
    "corrupted segmentation": corrupted_segmentation,
}
