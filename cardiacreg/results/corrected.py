"""The acquired stack with every slice moved to where it belongs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LabelMap, Subject, Volume
from cardiacreg.slices import rotation, slice_axis_mm


def corrected_stack(
    target: Subject, slice_shifts_mm: Float, slice_turns_degrees: Float | None = None
) -> Subject:
    """Move every slice of a stack to its true place, on the stack's own lattice.

    Parameters
    ----------
    target : Subject
        The acquired labels and, where there is one, the image on their lattice.
    slice_shifts_mm : ndarray, shape (n_slices, 2)
        Along the stack's i and j axes: true position = stored position + shift.
    slice_turns_degrees : ndarray, shape (n_slices,), optional
        Rotation of every shifted slice, from axis i towards axis j, about the mean in-plane position of
        the labels; none when absent.

    Returns
    -------
    Subject
        Labels by the largest share of a linear interpolation, the image linearly. What a slice did not
        show is background, and the nearest grey level.

    Raises
    ------
    InvalidInputError
        If shifts and slices differ in number (BAD_SHAPE).

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> from cardiacreg.results.corrected import corrected_stack
    >>> heart = make_toy_heart()
    >>> moved = corrected_stack(heart, np.full((heart.labels.shape[2], 2), 2.5))
    >>> bool((moved.labels.array[1:, 1:] == heart.labels.array[:-1, :-1]).all())
    True
    """
    labels, shifts = target.labels, np.asarray(slice_shifts_mm, dtype=np.float64)
    turns = np.zeros(labels.shape[2])
    if slice_turns_degrees is not None and len(slice_turns_degrees):
        turns = np.asarray(slice_turns_degrees, dtype=np.float64)
    if shifts.shape != (labels.shape[2], 2) or turns.shape != (labels.shape[2],):
        raise InvalidInputError(
            f"corrected_stack: shifts of shape {shifts.shape} and turns of shape {turns.shape} for "
            f"{labels.shape[2]} slices; needs those of this stack.",
            code="BAD_SHAPE",
        )
    axis = slice_axis_mm(labels)
    maps = [
        _to_stored(shift, turn, axis, labels.spacing_mm[:2])
        for shift, turn in zip(shifts, turns, strict=True)
    ]
    image = target.image
    return replace(
        target,
        labels=LabelMap(_moved_labels(labels.array, maps), labels.voxel_to_world),
        image=None
        if image is None
        else Volume(_moved(image.array, maps, "nearest"), image.voxel_to_world),
    )


def _to_stored(
    shift_mm: Float, degrees: float, axis_mm: Float, spacing_mm: Float
) -> tuple[Float, Float]:
    """Matrix and offset from a true pixel to the stored one."""
    back = rotation(-degrees)
    offset = axis_mm - shift_mm - back @ axis_mm
    return back * spacing_mm / spacing_mm[:, None], offset / spacing_mm


def _moved(
    array: NDArray[Any], maps: list[tuple[Float, Float]], beyond: str
) -> NDArray[np.float32]:
    moved = np.empty(array.shape, dtype=np.float32)
    for k, (matrix, offset) in enumerate(maps):
        plane = array[:, :, k].astype(np.float32)
        moved[:, :, k] = affine_transform(plane, matrix, offset, order=1, mode=beyond)
    return moved


def _moved_labels(array: NDArray[np.uint8], maps: list[tuple[Float, Float]]) -> NDArray[np.uint8]:
    """Give every pixel the label with the largest share; ties go to the lowest."""
    found = np.zeros(array.shape, dtype=np.uint8)
    shown = [int(value) for value in np.unique(array) if value]
    best = np.ones(array.shape, dtype=np.float32)
    shares = [_moved(array == value, maps, "constant") for value in shown]
    for share in shares:
        best -= share
    for value, share in zip(shown, shares, strict=True):
        found[share > best] = value
        np.maximum(best, share, out=best)
    return found
