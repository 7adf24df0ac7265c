"""Whether a stack's slices are each there once and in order, by what they show.

From apex to base the LV's area rises once and falls at most once. Over 200 frames of patients (ACDC)
the sum of its changes is at most 1.15 times that of one rise and one fall, and the LV is at most 1.54
times as long as wide. Stacks stored twice, slices stored twice and slices of an interleaved acquisition
in the order in which they were acquired are far from that.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError, warn
from cardiacreg.geometry import LV_CAVITY, LV_WALL, LabelMap, Volume
from cardiacreg.slices import labelled_slices, within_slices

_FEWEST = 4
_ORDERLY, _DISORDERLY = 1.2, 1.4
_CALMER, _SMOOTHER = 0.1, 0.8
"""Slices are put in order where that lowers the unrest by so much, and changes to this share."""
_LONG, _TOO_LONG, _LONGEST = 1.6, 1.85, 2.2
"""Length over width of the LV: with signs of copies, told, and refused."""
_THICK_MM = 4.0
_SWING, _ALTERNATING, _FEWEST_MIXED = 0.2, 0.6, 8
"""Two series are mixed where the area swings by so much at so many of so many slices."""


def slice_order(labels: LabelMap) -> tuple[int, ...] | None:
    """Check that a stack holds one heart, slice by slice, and find the order of its slices.

    Parameters
    ----------
    labels : LabelMap
        Canonical labels, slices along the last axis.

    Returns
    -------
    tuple of int or None
        Stored positions in the order of their places, where the stack is stored odd slices before even
        ones; None where it is in order.

    Raises
    ------
    InvalidInputError
        If slices, or the whole stack, are stored several times (REPEATED_SLICES), or two series are
        mixed (MIXED_SLICES).

    Warns
    -----
    InputWarning
        If slices repeat as after resampling by nearest neighbour, are put in order, or look odd.
    """
    labels = within_slices(labels)
    if len(labelled_slices(labels.array)) < _FEWEST:
        return None
    _check_repeats(labels)
    _check_copied(labels.array)
    order = _order_if_interleaved(labels)
    if order is None:
        _check_one_heart(labels)
        return None
    warn(
        "labels: the slices are stored as an interleaved acquisition, every second one first; they are "
        f"put in order, as stored slices {list(order)}. If that is wrong, check the file's slice order."
    )
    return order


def image_in_order(image: Volume, order: tuple[int, ...]) -> Volume:
    """Return an image with its slices in the labels' order, unless they follow each other as stored.

    Parameters
    ----------
    image : Volume
        On the lattice of the labels.
    order : tuple of int
        As `slice_order` found it.
    """
    moved = Volume(np.take(image.array, order, axis=2), image.voxel_to_world)
    return moved if _roughness(moved.array) < _roughness(image.array) else image


def _roughness(array: NDArray[np.float32]) -> float:
    return float(np.abs(np.diff(array, axis=2)).mean())


def _areas(array: NDArray[np.uint8], wanted: tuple[int, ...] = (LV_CAVITY, LV_WALL)) -> Float:
    """Area of the LV in every slice, of all labels where there is none; pixels."""
    left = np.isin(array, wanted)
    return np.asarray((left if left.any() else array > 0).sum(axis=(0, 1)), dtype=np.float64)


def _unrest(areas: Float) -> float:
    """Sum of changes of the labelled slices' areas; 1 for one rise and one fall."""
    held = np.concatenate([[0.0], areas[areas > 0], [0.0]])
    return float(np.abs(np.diff(held)).sum() / (2 * held.max()))


def _interleaved(n: int, first: int) -> NDArray[np.int64]:
    """Stored position of every place where places first, first + 2, ... are stored before the others."""
    stored = np.concatenate([np.arange(first, n, 2), np.arange(1 - first, n, 2)])
    return np.argsort(stored)


def _order_if_interleaved(labels: LabelMap) -> tuple[int, ...] | None:
    """Return the order in which a stack's slices follow each other, where it is not the stored one."""
    array, areas = labels.array, _areas(labels.array)
    n = array.shape[2]
    if length_over_width(labels) > _LONG:
        return None
    stored, found = _changes(array), []
    for order in (_interleaved(n, first) for first in (0, 1)):
        changes = _changes(array[:, :, order])
        even, odd = (np.nanmean(changes[start::2]) for start in (0, 1))
        calmer = _unrest(areas[order]) <= min(_ORDERLY, _unrest(areas) - _CALMER)
        smoother = np.nanmean(changes) < _SMOOTHER * np.nanmean(stored)
        if calmer and smoother and min(even, odd) > 0.25 * max(even, odd):
            found.append((float(np.nanmean(changes)), tuple(order.tolist())))
    return min(found)[1] if found else None


def _changes(array: NDArray[np.uint8]) -> Float:
    """1 - Dice of all labels between neighbouring slices; NaN where both are empty."""
    held = array > 0
    return np.array([_change(held[:, :, k], held[:, :, k + 1]) for k in range(held.shape[2] - 1)])


def _change(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """1 - Dice; NaN where both are empty."""
    total = int(first.sum()) + int(second.sum())
    return 1 - 2 * int((first & second).sum()) / total if total else np.nan


def repeats(labels: LabelMap) -> NDArray[np.int64]:
    """Return how often each labelled slice is there in a row, exactly alike."""
    array = labels.array
    held = labelled_slices(array)
    new = [
        n
        for n, k in enumerate(held)
        if n == 0 or held[n - 1] < k - 1 or (array[:, :, k] != array[:, :, k - 1]).any()
    ]
    return np.diff([*new, len(held)])


def _check_repeats(labels: LabelMap) -> None:
    spacing, runs = float(labels.spacing_mm[2]), repeats(labels)
    if len(runs) < 3:
        return
    if (runs[1:-1] >= 2).all() and runs.sum() >= 2 * len(runs) - 2:
        times = f"{runs.max()} times" if runs.min() == runs.max() else "several times"
        length = length_over_width(labels)
        if length > _LONG:
            raise InvalidInputError(
                f"labels: every slice is there {times}, one after the other, and the LV is {length:.1f} "
                "times as long as wide; needs every slice once. Take one of each "
                f"(array[:, :, ::{runs.max()}]), with the right distance between slices.",
                code="REPEATED_SLICES",
            )
        warn(
            f"labels: every slice is there {times}, {spacing:g} mm apart, as after resampling by nearest "
            "neighbour; give the segmentation as it was made. If the slices are copies instead, the "
            "model is too long: keep one of each."
        )
    elif spacing >= _THICK_MM and (runs > 1).any():
        held = labelled_slices(labels.array)
        copied = held[np.cumsum(runs)[runs > 1] - runs[runs > 1]].tolist()
        warn(
            f"labels: slices {copied} are followed by exact copies of themselves; were their outlines "
            "copied, or are slices stored twice? Check the file, since the model follows every slice."
        )


def _check_copied(array: NDArray[np.uint8]) -> None:
    """Raise where one half of the labelled slices is an exact copy of the other, or its mirror image."""
    held = array[:, :, labelled_slices(array)]
    half = held.shape[2] // 2
    first, second = held[:, :, :half], held[:, :, -half:]
    copied = held.shape[2] == 2 * half and (first == second).all()
    if (copied or (first == second[:, :, ::-1]).all()) and (held != held[:, :, :1]).any():
        raise InvalidInputError(
            f"labels: of {held.shape[2]} labelled slices one half repeats the other, "
            f"{'in the same order' if copied else 'backwards'}; needs every slice once. Give one half.",
            code="REPEATED_SLICES",
        )


def length_over_width(labels: LabelMap) -> float:
    """Return the LV's length along the stack over its width in the two largest slices."""
    areas = _areas(labels.array)
    width_mm = np.sqrt(4 * np.sort(areas)[-2:].mean() * labels.spacing_mm[:2].prod() / np.pi)
    return float((areas > 0).sum() * labels.spacing_mm[2] / width_mm)


class AlongStack(TypedDict, total=False):
    """How much of the LV a stack shows, as `results.guards.find_problems` takes it."""

    lv_slices: int
    lv_length_over_width: float


def left_ventricle_along(labels: LabelMap) -> AlongStack:
    """Return in how many slices the LV is, and its length over its width; nothing without an LV."""
    slices = int(np.isin(labels.array, (LV_CAVITY, LV_WALL)).any(axis=(0, 1)).sum())
    if not slices:
        return {}
    return {"lv_slices": slices, "lv_length_over_width": length_over_width(labels)}


def _check_one_heart(labels: LabelMap) -> None:
    """Raise where a stack holds two hearts, one after the other or slice by slice."""
    areas, cavities = _areas(labels.array), _areas(labels.array, (LV_CAVITY,))
    length = length_over_width(labels)
    unrest = _unrest(areas)
    if max(_unrest(cavities), unrest) > _DISORDERLY:
        _refuse_alternating(areas, cavities)
    if unrest > (_ORDERLY if length > _LONG else _DISORDERLY):
        _refuse_one_after_the_other(areas)
        warn(
            "labels: the LV's area does not rise and fall once along the stack "
            f"({_shown(areas[areas > 0])} % of the largest); check that the slices are in order and that "
            "none is badly segmented."
        )
    if length > _LONGEST:
        raise InvalidInputError(
            f"labels: the LV is {length:.1f} times as long as wide, and no heart is; needs each slice of "
            f"one frame once, with the right distance ({labels.spacing_mm[2]:g} mm is stored). Look for "
            "slices or whole stacks that are stored twice, and check the header.",
            code="REPEATED_SLICES",
        )
    if length > _TOO_LONG:
        warn(
            f"labels: the LV is {length:.1f} times as long as wide, more than in most hearts; check the "
            "distance between slices, and that none is stored twice."
        )


def _refuse_alternating(*profiles: Float) -> None:
    for areas in profiles:
        held = areas[areas > 0]
        steps = np.diff(held) / areas.max()
        small = np.minimum(np.abs(steps[:-1]), np.abs(steps[1:]))
        turns = int(((steps[:-1] * steps[1:] < 0) & (small > _SWING)).sum())
        if len(held) >= _FEWEST_MIXED and turns >= _ALTERNATING * (len(held) - 2):
            raise InvalidInputError(
                f"labels: the LV's area goes up and down from slice to slice ({_shown(held)} % of the "
                "largest); needs the slices of one frame of one series, in order. Separate the two, or "
                "sort the slices by their position.",
                code="MIXED_SLICES",
            )


def _refuse_one_after_the_other(areas: Float) -> None:
    held = np.flatnonzero(areas)
    for cut in range(3, len(held) - 2):
        parts = areas[held[:cut]], areas[held[cut:]]
        smaller = min(part.max() for part in parts)
        if max(map(_unrest, parts)) <= _ORDERLY and smaller >= 0.5 * areas.max():
            raise InvalidInputError(
                f"labels: the stack seems to hold two hearts, in slices {held[0]} to {held[cut - 1]} and "
                f"{held[cut]} to {held[-1]}: the LV's area goes {_shown(areas[held])} % of the largest; "
                f"needs one. Give one part (array[:, :, {held[cut]}:] or array[:, :, :{held[cut]}]).",
                code="REPEATED_SLICES",
            )


def _shown(areas: Float) -> str:
    return ", ".join(f"{100 * each:.0f}" for each in areas / areas.max())
