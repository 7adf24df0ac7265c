"""All frames of a stack together: one decision how it lies, and neighbours in time that agree.

A few frames tell how the heart lies, and where the box goes; every frame is then looked at once, turned
by the angles of `predict`'s views in turn. The probabilities of a frame are averaged with those of its
neighbours in time, weights 1, 2, 1, so that the views of three frames serve each of them. A cine is taken
to be periodic.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cardiacreg.errors import InputWarning, InvalidInputError
from cardiacreg.geometry import LabelMap, Subject, Volume
from cardiacreg.io.nifti import MAX_BYTES, read_vectors, read_volume
from cardiacreg_nn.inference.calibration import calibrated
from cardiacreg_nn.inference.orientation_search import View, best_look, look, view_angles
from cardiacreg_nn.inference.prediction import (
    FEWEST_SLICES,
    Look,
    averaged,
    check_classes,
    checked_volume,
    describe,
    heart_labels,
    load_model,
    parts_of,
    with_landmarks,
)
from cardiacreg_nn.inference.preprocessing import Image, Placement
from cardiacreg_nn.inference.weights import Model

_DECIDING = 3
"""So many frames, evenly over the cycle, decide how the stack lies."""
NEIGHBOURS = (0.25, 0.5, 0.25)
_VIEWS = 3


def predict_cine(
    image: Any,
    *,
    weights: Model | str | os.PathLike[str] | None = None,
    device: str | None = None,
    turn: str = "over",
    name: str | None = None,
    check_spacing: bool = True,
) -> tuple[Subject, ...]:
    """Segment all frames of a short-axis stack together.

    Parameters
    ----------
    image : path, nibabel image or (array, voxel_to_world)
        The 4-D stack, (i, j, k = slice, frame).
    weights, device, turn, name, check_spacing
        As for `predict`.

    Returns
    -------
    tuple of Subject
        One per frame, as `predict` returns it, with its number as ``metadata["frame"]``. The labels of a
        frame in which no heart is found are empty, and it has no landmarks.

    Raises
    ------
    InvalidInputError
        As `predict`; if the image has no frames (NOT_4D); or if no frame shows a heart (NO_HEART).

    Warns
    -----
    InputWarning
        As `predict`; and for frames in which no heart is found.
    """
    array, matrix = read_cine(image, "predict_cine")
    model = weights if isinstance(weights, Model) else load_model(weights, device)
    check_classes(model)
    frames = [_frame(array, matrix, n, check_spacing) for n in range(array.shape[3])]
    found, empty = [], []
    given = str(image) if isinstance(image, str | os.PathLike) else None
    named = name or (Path(given).name if given else "target")
    for number, (volume, looks, probabilities) in enumerate(_seen(frames, model, turn)):
        shares = calibrated(probabilities, model.card)
        try:
            labels = heart_labels(shares, volume, model)
        except InvalidInputError as error:
            if error.code != "NO_HEART":
                raise
            empty.append(number)
            labels = LabelMap(np.zeros(volume.shape, dtype=np.uint8), volume.voxel_to_world)
        metadata = {"network": describe(model), "frame": number, "landmarks": []}
        metadata["probabilities"] = shares.astype(np.float16)
        found.append(Subject(labels, image=volume, name=named, metadata=metadata))
        if number not in empty:
            found[-1] = with_landmarks(found[-1], looks, model)
    _tell_empty(empty, len(frames), model)
    return tuple(found)


def read_cine(image: Any, where: str) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Read a 4-D image; `where` names the caller in errors."""
    if isinstance(image, str | os.PathLike):
        array, matrix, _ = read_vectors(image, max_bytes=MAX_BYTES)
    elif isinstance(image, tuple) and len(image) == 2:
        array, matrix = np.asarray(image[0]), np.asarray(image[1], dtype=np.float64)
    else:
        array, matrix = np.asanyarray(image.dataobj), np.asarray(image.affine, dtype=np.float64)
    if array.ndim != 4:
        raise InvalidInputError(
            f"{where}: the image has shape {array.shape}; needs (i, j, slices, frames). One "
            f"frame by itself is for {where.removesuffix('_cine')}, or cardiacreg segment without "
            "--all-frames.",
            code="NOT_4D",
        )
    return array, matrix


def _frame(array: NDArray[Any], matrix: Any, number: int, check_spacing: bool) -> Volume:
    """Return a frame as an image; one that shows nothing is kept, and seen to be empty later."""
    source = (np.asarray(array[..., number], dtype=np.float32), matrix)
    try:
        return checked_volume(source, check_spacing=check_spacing)
    except InvalidInputError as error:
        if error.code != "CONSTANT_IMAGE":
            raise
        return read_volume(source, check_spacing=check_spacing)


def _seen(
    frames: Sequence[Volume], model: Model, turn: str
) -> Iterator[tuple[Volume, list[Look], Image]]:
    """Yield each frame, what was seen in it, and its probabilities averaged with its neighbours'."""
    fitted, placement = _decided(frames, model, turn)
    angles = view_angles(_VIEWS)

    def looks_at(number: int) -> list[Look]:
        own = frames[number % len(frames)]
        angle = angles[number % len(frames) % _VIEWS]
        return [
            Look(slices, stack, _one_look(stack, placement.over(len(slices)).turned(angle), fitted))
            for slices, stack in parts_of(own, model)
        ]

    wanted = {-1: looks_at(-1), 0: looks_at(0)}
    shares = {n: averaged(looks, frames[n]) for n, looks in wanted.items()}
    for number, volume in enumerate(frames):
        wanted[number + 1] = looks_at(number + 1)
        shares[number + 1] = averaged(wanted[number + 1], frames[(number + 1) % len(frames)])
        near = [shares[number + step] for step in (-1, 0, 1)]
        mean = np.tensordot(np.array(NEIGHBOURS, dtype=np.float32), np.stack(near), axes=1)
        yield volume, wanted[number], np.asarray(mean, dtype=np.float32)
        del wanted[number - 1], shares[number - 1]


def _one_look(stack: Volume, placement: Placement, model: Model) -> View:
    (seen,) = look(stack, [placement], model)
    return seen


def _decided(frames: Sequence[Volume], model: Model, turn: str) -> tuple[Model, Placement]:
    """Return the placement that a few frames agree on, by the sum of their confidence in it."""
    numbers = sorted({n * len(frames) // _DECIDING for n in range(_DECIDING)})
    votes: dict[bytes, float] = {}
    seen = []
    for number in numbers:
        parts = parts_of(frames[number], model)
        fitted = _fitted(model, parts[0][1], len(parts))
        found = best_look(parts[len(parts) // 2][1], fitted, turn)
        seen.append(found)
        key = np.rint(1e3 * found.placement.to_native[:3, :3]).tobytes()
        votes[key] = votes.get(key, 0.0) + found.confidence
    best = max(votes, key=lambda key: votes[key])
    alike = [
        each.placement
        for each in seen
        if np.rint(1e3 * each.placement.to_native[:3, :3]).tobytes() == best
    ]
    middle = sorted(alike, key=lambda each: float(each.to_native[0, 3]))[len(alike) // 2]
    return fitted, middle


def _fitted(model: Model, stack: Volume, n_parts: int) -> Model:
    """Return the model with the slice distance of its parts, as `predict` has it."""
    height, width, distance = model.box.spacing_mm
    if n_parts == 1 and stack.spacing_mm[2] >= distance:
        return model
    kept = (height, width, float(stack.spacing_mm[2]))
    return replace(model, box=replace(model.box, spacing_mm=kept))


def _tell_empty(empty: Sequence[int], n_frames: int, model: Model) -> None:
    if len(empty) == n_frames:
        raise InvalidInputError(
            f"predict_cine: {model.name} finds no heart in any of {n_frames} frames; needs a short-axis "
            f"stack of both ventricles with at least {FEWEST_SLICES} slices along the third axis.",
            code="NO_HEART",
        )
    if empty:
        warnings.warn(
            f"predict_cine: no heart was found in {'frame' if len(empty) == 1 else 'frames'} "
            f"{', '.join(map(str, empty))} of {n_frames}.",
            InputWarning,
            stacklevel=3,
        )
