"""What stored numbers mean as labels: quantised and large values, frames, one-hot channels.

A file may hold labels as scaled 8-bit numbers, as values up to 2221, as one of many frames, or as a
channel per structure. Here they become whole numbers on three axes, coded in a byte each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LabelMap, whole_numbers
from cardiacreg.io.source_name import warn_about_source

Frame = int | str | None
"""A number from 0, "ED" or "ES", or None where there is one only."""

ONE_FRAME = "ONE_FRAME"
"""Code of the error where a frame is asked for and there is only one."""
PHASES = ("ED", "ES")
_MOST_CHANNELS = 16
_SMALLEST_SIDE = 16
_IMAGE_VALUES = 64


class Stored(NamedTuple):
    """Voxels of any number of dimensions and their matrix in mm.

    Parameters
    ----------
    array : ndarray
    matrix : ndarray, shape (4, 4)
    step : float
        Distance between the numbers that the file can hold, 0 where they were not quantised.
    names : mapping
        Value to the name that the file gives it; empty for most files.
    """

    array: NDArray[Any]
    matrix: NDArray[np.float64]
    step: float = 0.0
    names: Mapping[int, str] = {}


@dataclass(frozen=True)
class StoredLabels:
    """A label map as its file has it, whatever the size of its values.

    Parameters
    ----------
    codes : LabelMap
        The values themselves where they fit into a byte, else numbers for them.
    values : mapping
        Number in `codes` to the value in the file, in ascending order, for those that occur.
    frame : int or None
        Which frame it is, where there were several.
    names : mapping
        Value to the name that the file gives it.
    """

    codes: LabelMap
    values: Mapping[int, int]
    frame: int | None = None
    names: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, labels: LabelMap) -> StoredLabels:
        """Return a label map whose numbers are its values."""
        return cls(labels, {value: value for value in labels.present()})


def coded(array: NDArray[Any], step: float) -> tuple[NDArray[np.uint8], dict[int, int]]:
    """Return labels in a byte each, and which value each number stands for.

    Parameters
    ----------
    array : ndarray, shape (i, j, k)
        Numbers as the file has them.
    step : float
        As for `cardiacreg.geometry.whole_numbers`.

    Raises
    ------
    InvalidInputError
        FRACTIONAL_LABELS; UNKNOWN_LABEL for more than 255 values.

    Warns
    -----
    InputWarning
        If values were rounded.
    """
    whole, off = whole_numbers(array, "labels", step=step)
    if off:
        warn_about_source(f"values up to {off:.2g} from whole numbers are rounded to them.")
    if whole.dtype.kind == "b" or (whole.min() >= 0 and whole.max() <= 255):
        codes = np.asarray(whole, dtype=np.uint8)
        counts = np.bincount(codes.ravel(), minlength=256)
        return codes, {int(n): int(n) for n in np.flatnonzero(counts) if n}
    values = np.unique(whole)
    if len(values) > 256 or np.abs(values).max() > 2**31:
        raise InvalidInputError(
            f"holds {len(values)} different values from {values[0]:g} to {values[-1]:g}: an image, not "
            "labels? Check that segmentation and image were not swapped.",
            code="UNKNOWN_LABEL",
        )
    values = values[values != 0].astype(np.int64)
    if len(values) > 255:
        raise InvalidInputError("holds more than 255 labels; needs fewer.", code="UNKNOWN_LABEL")
    codes = np.searchsorted(values, whole).astype(np.uint8) + np.uint8(1)
    codes[whole == 0] = 0
    return codes, {n + 1: int(value) for n, value in enumerate(values)}


def looks_like_an_image(stored: StoredLabels) -> bool:
    """Whether there are more different values than structures in any label map of hearts."""
    return len(stored.values) > _IMAGE_VALUES


# ---- frames and channels


def not_3d(shape: tuple[int, ...]) -> InvalidInputError:
    """Make the error for an image that has not three dimensions."""
    return InvalidInputError(
        f"the image has shape {shape}; needs three dimensions (i, j, k), or four with frame=.",
        code="BAD_SHAPE",
    )


def with_three_or_four_axes(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array without axes of length 1 beyond the fourth, or before the first of four or five."""
    shape = array.shape
    while array.ndim > 4 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim == 5 and array.shape[0] == 1 and min(array.shape[2:4]) >= _SMALLEST_SIDE:
        warn_about_source(
            f"the shape {shape} begins with an axis of length 1, as of a batch; it is left away."
        )
        array = array[0]
    if array.ndim == 4 and array.shape[0] == 1 and min(array.shape[1:3]) >= _SMALLEST_SIDE:
        warn_about_source(
            f"the shape {shape} begins with a channel axis of length 1; it is left away, and the matrix "
            "is taken to place the other three."
        )
        array = array[0]
    if array.ndim not in (3, 4):
        raise not_3d(shape)
    if array.dtype.kind not in "biuf":
        raise InvalidInputError(
            f"the voxels are of type {array.dtype}; needs integers or real numbers.",
            code="BAD_DTYPE",
        )
    return array


def one_frame(array: NDArray[Any], frame: Frame) -> tuple[NDArray[Any], int | None]:
    """Return the one 3-D frame of an image that is there or asked for, and its number among several.

    Parameters
    ----------
    array : ndarray
        With three or four axes.
    frame : int or None
        Phases are for labels: where a heart is large is not seen in intensities.

    Raises
    ------
    InvalidInputError
        FRAME_NEEDED, BAD_FRAME or ONE_FRAME.
    """
    _check_kind(frame)
    frames = array[..., None] if array.ndim == 3 else array
    n_frames = frames.shape[3]
    if n_frames == 1:
        check_only_frame(frame, array.shape)
        return frames[..., 0], None
    if frame is None:
        raise InvalidInputError(
            f"the image has {n_frames} frames (shape {array.shape}); choose one with frame=0 to "
            f"frame={n_frames - 1} (in most cine series frame=0 is end diastole)."
            f"{_axis_hint(array.shape)}",
            code="FRAME_NEEDED",
        )
    if isinstance(frame, str):
        raise InvalidInputError(
            f"frame={frame} is found from labels of several frames, and there are none; give its number, "
            f"frame=0 to frame={n_frames - 1}.",
            code="BAD_FRAME",
        )
    _check_number(frame, n_frames)
    return frames[..., frame], frame


def _check_kind(frame: Frame) -> None:
    """Refuse what is neither a number of a frame nor the name of a phase."""
    whole = isinstance(frame, int | np.integer) and not isinstance(frame, bool)
    if not (whole or frame is None or isinstance(frame, str)):
        raise InvalidInputError(
            f"frame={frame!r}, a {type(frame).__name__}; needs a whole number from 0, 'ED' or 'ES'.",
            code="BAD_FRAME",
        )


def _check_number(frame: int, n_frames: int) -> None:
    if not 0 <= frame < n_frames:
        raise InvalidInputError(
            f"frame={frame} of {n_frames}; needs 0 to {n_frames - 1}.", code="BAD_FRAME"
        )


def _axis_hint(shape: tuple[int, ...]) -> str:
    first, *others = shape
    if first < min(others[:2]) and min(others[:2]) >= 2 * first and first <= 64:
        return (
            f" If the first axis ({first}) holds frames or channels and not voxels, move it to the end "
            "first."
        )
    return ""


def check_only_frame(frame: Frame, shape: tuple[int, ...]) -> None:
    """Refuse to be asked for another frame than the one there is."""
    _check_kind(frame)
    if frame not in (None, 0):
        raise InvalidInputError(
            f"frame={frame}, and the image has one frame (shape {shape}); leave the frame away, or give "
            "the 4-D file.",
            code=ONE_FRAME,
        )


def one_label_frame(array: NDArray[Any], frame: Frame) -> tuple[NDArray[Any], int | None]:
    """Return the one 3-D label map that is there or asked for, and its number among several frames.

    Parameters
    ----------
    array : ndarray
        With three axes or more. Channels of zeros and ones that exclude each other are decoded.
    frame : int, "ED", "ES" or None
        ED is the frame with most labelled voxels, ES that with fewest, among those with labels.

    Raises
    ------
    InvalidInputError
        FRAME_NEEDED, BAD_FRAME, ONE_FRAME, BAD_SHAPE, BAD_DTYPE; FRACTIONAL_LABELS for
        probabilities; EMPTY_LABELS for a frame without labels among others with.

    Warns
    -----
    InputWarning
        If channels were decoded, or a phase was found from the labels.
    """
    _check_kind(frame)
    if (
        array.ndim == 5
        and array.shape[3] == 1
        and (found := _decoded(array[:, :, :, 0])) is not None
    ):
        check_only_frame(frame, array.shape)
        return found, None
    array = with_three_or_four_axes(array)
    if array.ndim == 3 or array.shape[3] == 1:
        return one_frame(array, frame)
    if (found := _decoded(array)) is not None:
        check_only_frame(frame, array.shape)
        return found, None
    labelled = [n for n in range(array.shape[3]) if array[..., n].any()]
    number = _chosen(frame, labelled, array)
    return array[..., number], number


def frames_of_series(array: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the frames of a label series; those without labels among others with are as good as they."""
    if array.ndim < 4 or array.shape[3] == 1:
        return [one_label_frame(array, None)[0]]
    return [_frame_of_series(array, number) for number in range(array.shape[3])]


def _frame_of_series(array: NDArray[Any], number: int) -> NDArray[Any]:
    try:
        return one_label_frame(array, number)[0]
    except InvalidInputError as problem:
        if problem.code != "EMPTY_LABELS":
            raise
        return np.asarray(array[..., number])


def _chosen(frame: Frame, labelled: list[int], array: NDArray[Any]) -> int:
    """Return the number of a frame that is meant by a number, a phase or nothing."""
    n_frames = array.shape[3]
    if isinstance(frame, str):
        return _frame_of_phase(frame, labelled, array)
    if frame is None:
        which = _listed(labelled, n_frames)
        raise InvalidInputError(
            f"the labels have {n_frames} frames (shape {array.shape}); {which}"
            f"{_axis_hint(array.shape)}",
            code="FRAME_NEEDED",
        )
    _check_number(frame, n_frames)
    if labelled and frame not in labelled:
        raise InvalidInputError(
            f"frame={frame} holds no labels; {_listed(labelled, n_frames)}", code="EMPTY_LABELS"
        )
    return frame


def _listed(labelled: list[int], n_frames: int) -> str:
    if not labelled:
        return "none of them holds labels: check the file."
    if len(labelled) == n_frames:
        return (
            f"choose one with frame=0 to frame={n_frames - 1}, or the largest or smallest heart with "
            "frame='ED' or frame='ES'."
        )
    shown = ", ".join(map(str, labelled[:12])) + (", ..." if len(labelled) > 12 else "")
    if len(labelled) == 1:
        return f"only frame {shown} holds labels: choose it with frame={shown}."
    phases = ", or the largest or smallest heart with frame='ED' or frame='ES'"
    return f"frames {shown} hold labels: choose one, as frame={labelled[0]}{phases}."


def _frame_of_phase(phase: str, labelled: list[int], array: NDArray[Any]) -> int:
    name = phase.upper()
    if name not in PHASES:
        raise InvalidInputError(f"frame={phase!r}; needs a number, 'ED' or 'ES'.", code="BAD_FRAME")
    if len(labelled) < 2:
        raise InvalidInputError(
            f"frame={name!r} needs two frames with labels to tell the phases apart; "
            f"{_listed(labelled, array.shape[3])}",
            code="BAD_FRAME",
        )
    sizes = [int(np.count_nonzero(array[..., n])) for n in labelled]
    best = int(np.argmax(sizes) if name == "ED" else np.argmin(sizes))
    warn_about_source(
        f"{name} is taken to be frame {labelled[best]}, the {'largest' if name == 'ED' else 'smallest'} "
        f"of the {len(labelled)} labelled hearts."
    )
    return labelled[best]


def _decoded(array: NDArray[Any]) -> NDArray[np.uint8] | None:
    """Return the labels of one-hot channels, last or first; None where there are none."""
    for axis in (3, 0):
        n_channels = array.shape[axis]
        sides = np.delete(array.shape, axis)[:2]
        if not 2 <= n_channels <= _MOST_CHANNELS or n_channels > sides.min():
            continue
        channels = np.moveaxis(array, axis, 3)
        kind = _kind_of_channels(channels)
        where = "last" if axis == 3 else "first"
        if kind == "probabilities":
            raise InvalidInputError(
                f"the {where} axis holds {n_channels} probabilities that add up to 1; needs labels: "
                f"take the argmax along that axis (numpy.argmax(array, axis={axis})) and save that.",
                code="FRACTIONAL_LABELS",
            )
        if kind in ("one-hot", "without background"):
            return _argmax(channels, where, background=kind == "one-hot")
    return None


def _kind_of_channels(channels: NDArray[Any]) -> str | None:
    top = channels.max()
    if channels.min() < 0 or not 0 < top < np.inf:
        return None
    total = channels.sum(axis=3, dtype=np.float64) / float(top)
    if channels.dtype.kind == "f" and 0.5 < top <= 1.001 and np.abs(total * top - 1).max() < 1e-2:
        binary = ((channels == 0) | (channels == top)).all()
        return "one-hot" if binary else "probabilities"
    if not ((channels == 0) | (channels == top)).all():
        return None
    used = int(channels.any(axis=(0, 1, 2)).sum())
    if (total == 1).all():
        return "one-hot" if used > 1 else None
    return "without background" if used > 1 and (total <= 1).all() else None


def _argmax(channels: NDArray[Any], where: str, *, background: bool) -> NDArray[np.uint8]:
    first = 0 if background else 1
    found = np.argmax(channels, axis=3).astype(np.uint8) + np.uint8(first)
    found[~channels.any(axis=3)] = 0
    warn_about_source(
        f"the {where} axis holds {channels.shape[3]} channels of zeros and ones that exclude each other; "
        f"they are decoded: channel 0 is label {first}, and so on"
        + (", and the matrix is taken to place the other axes." if where == "first" else ".")
    )
    return np.ascontiguousarray(found)
