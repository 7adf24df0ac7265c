"""From the image of a long-axis view to its labels: two-, three- and four-chamber planes.

The network's box is smaller than most images. It is laid over places all over the image, follows the
heart from where the network is surest, and is then looked at under quarter turns and mirrored, which the
network cannot tell from other planes; the probabilities are averaged at the native pixels.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, label

from cardiacreg.anatomy.topology import largest_piece
from cardiacreg.errors import InputWarning, InvalidInputError, check_arguments
from cardiacreg.geometry import (
    LV_CAVITY,
    LV_WALL,
    RV_CAVITY,
    RV_WALL,
    LabelMap,
    Subject,
    Volume,
    apply_matrix,
    nearest_labels,
)
from cardiacreg.io.nifti import read_volume
from cardiacreg.refinement.views import View
from cardiacreg_nn.inference.calibration import calibrated
from cardiacreg_nn.inference.cine_prediction import NEIGHBOURS, read_cine
from cardiacreg_nn.inference.orientation_search import look
from cardiacreg_nn.inference.prediction import (
    check_classes,
    check_contrast,
    describe,
    load_model,
)
from cardiacreg_nn.inference.preprocessing import Image, Placement, place, to_native, turns
from cardiacreg_nn.inference.shipped_weights import VIEW_DEFAULT
from cardiacreg_nn.inference.weights import Model

_APART_MM, _RIM_MM = 80.0, 60.0
"""Between places where the heart is looked for, and from those to the image's edge, at most."""
_CENTRED_MM, _MOST_PASSES = 4.0, 3
_LOOKS_AT_ONCE = 4
_FEWEST_LV_CM2, _FEWEST_CAVITY_CM2 = 8.0, 2.0
_LEAST_SURETY = 0.8
"""Mean probability of the left ventricle over its pixels, chosen on synthetic planes beside the heart."""
_DECIDING = 3
"""So many frames, evenly over the cycle, decide where the heart lies."""


def predict_view(
    image: Any,
    *,
    weights: Model | str | os.PathLike[str] | None = None,
    frame: int | None = None,
    device: str | None = None,
    name: str | None = None,
    check_spacing: bool = True,
) -> Subject:
    """Segment one long-axis view: LV cavity, LV wall and RV cavity.

    Parameters
    ----------
    image : path, nibabel image, SimpleITK image, (array, voxel_to_world) or Volume
        One plane, shape (i, j, 1), or a cine of it, (i, j, 1, frame); a matrix is in RAS+ mm.
    weights : Model, path or str, optional
        Of a network for long-axis views; those that come with the package when absent.
    frame : int, optional
        Which frame of a 4-D image.
    device : str, optional
        ``"cpu"``, ``"cuda"``, ...; a GPU when there is one.
    name : str, optional
        Of the subject; the file's name when absent.
    check_spacing : bool
        As for `cardiacreg.read_volume`.

    Returns
    -------
    Subject
        The image, and canonical labels of its plane, for `cardiacreg.View`; no RV wall, which long-axis
        views do not show clearly, and no landmarks. Metadata with the weights' name, licence and sha256,
        and ``"probabilities"`` of the labels 0 to 4, shape (5, i, j, 1).

    Raises
    ------
    InvalidInputError
        If the image cannot be read (as `cardiacreg.read_volume`), is constant (CONSTANT_IMAGE), has more
        than one plane (SEVERAL_PLANES), the weights cannot be used (as `load_weights`, or
        WEIGHTS_MISMATCH for those of short-axis stacks), or no left ventricle is found (NO_HEART).
    RefinementError
        If memory does not suffice (OUT_OF_MEMORY).
    """
    volume = _plane(image, frame, check_spacing=check_spacing)
    check_contrast(volume, "predict_view")
    model = _view_model(weights, device)
    probabilities = _probabilities(volume, model, _centre([volume], model))
    return _subject(volume, calibrated(probabilities, model.card), model, name or _name(image))


def predict_view_cine(
    image: Any,
    *,
    weights: Model | str | os.PathLike[str] | None = None,
    device: str | None = None,
    name: str | None = None,
    check_spacing: bool = True,
) -> tuple[Subject, ...]:
    """Segment all frames of a long-axis view together: one place, and neighbours in time that agree.

    Parameters
    ----------
    image : path, nibabel image or (array, voxel_to_world)
        The cine, shape (i, j, 1, frame), taken to be periodic.
    weights, device, name, check_spacing
        As for `predict_view`.

    Returns
    -------
    tuple of Subject
        One per frame, as `predict_view` returns it, with its number as ``metadata["frame"]``. The labels
        of a frame in which no left ventricle is found are empty.

    Raises
    ------
    InvalidInputError
        As `predict_view`; if the image has no frames (NOT_4D); or if no frame shows a left ventricle
        (NO_HEART).

    Warns
    -----
    InputWarning
        For frames in which no left ventricle is found.
    """
    array, matrix = read_cine(image, "predict_view_cine")
    model, named = _view_model(weights, device), name or _name(image)
    frames = [
        _plane(
            (np.asarray(array[..., n], dtype=np.float32), matrix), None, check_spacing=check_spacing
        )
        for n in range(array.shape[3])
    ]
    found = [
        _frame_subject(volume, calibrated(shares, model.card), model, named, number)
        for number, (volume, shares) in enumerate(
            zip(frames, _over_time(frames, model), strict=True)
        )
    ]
    _tell_empty(
        [n for n, each in enumerate(found) if not each.labels.array.any()], len(found), model
    )
    return tuple(found)


def _over_time(frames: Sequence[Volume], model: Model) -> list[Image]:
    """Probabilities of all frames, each averaged with its neighbours'."""
    deciding = sorted({n * len(frames) // _DECIDING for n in range(_DECIDING)})
    centre = _centre([frames[n] for n in deciding], model)
    own = [_probabilities(frame, model, centre) for frame in frames]
    weights = np.array(NEIGHBOURS, dtype=np.float32)
    return [
        np.tensordot(weights, np.stack([own[n - 1], own[n], own[(n + 1) % len(own)]]), axes=1)
        for n in range(len(own))
    ]


def _frame_subject(
    volume: Volume, probabilities: Image, model: Model, name: str, number: int
) -> Subject:
    """Return a frame of a cine; with empty labels where no left ventricle is found."""
    try:
        subject = _subject(volume, probabilities, model, name)
    except InvalidInputError as error:
        if error.code != "NO_HEART":
            raise
        empty = LabelMap(np.zeros(volume.shape, dtype=np.uint8), volume.voxel_to_world)
        metadata = {"network": describe(model), "probabilities": probabilities}
        subject = Subject(empty, image=volume, name=name, metadata=metadata)
    return replace(subject, metadata=subject.metadata | {"frame": number})


def _tell_empty(empty: Sequence[int], n_frames: int, model: Model) -> None:
    if len(empty) == n_frames:
        raise InvalidInputError(
            f"predict_view_cine: {model.name} finds no left ventricle in any of {n_frames} frames; needs "
            "a long-axis view of the LV.",
            code="NO_HEART",
        )
    if empty:
        warnings.warn(
            "predict_view_cine: no left ventricle was found in "
            f"{'frame' if len(empty) == 1 else 'frames'} {', '.join(map(str, empty))} of {n_frames}.",
            InputWarning,
            stacklevel=3,
        )


def as_view(seen: Subject | Sequence[Subject]) -> View:
    """Return what a refinement takes of a view that the network segmented: the left ventricle.

    Of the right one the network often draws a part, which would make a model's too small: what a view
    does not label it leaves open.

    Parameters
    ----------
    seen : Subject or sequence of Subject
        From `predict_view`, for `cardiacreg.refine`; or from `predict_view_cine`, all frames, for
        `cardiacreg.refine_cine`.

    Returns
    -------
    cardiacreg.View
        With the image of a single frame.

    Raises
    ------
    InvalidInputError
        If it is neither a subject nor a sequence of them (BAD_TYPE), or holds none (EMPTY_VIEW).

    Examples
    --------
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> from cardiacreg_nn.inference.view_prediction import as_view
    >>> as_view(make_toy_heart()).segmentation.present()
    (1, 2)
    """
    if isinstance(seen, Subject):
        return View(_left_ventricle(seen.labels), image=seen.image, name=seen.name or "")
    check_arguments(seen, Subject, "as_view: seen")
    frames = list(seen)
    if not frames:
        raise InvalidInputError("as_view: seen holds no frame; needs one.", code="EMPTY_VIEW")
    return View([_left_ventricle(each.labels) for each in frames], name=frames[0].name or "")


def _left_ventricle(labels: LabelMap) -> LabelMap:
    array = np.where(np.isin(labels.array, (LV_CAVITY, LV_WALL)), labels.array, 0)
    return LabelMap(array.astype(np.uint8), labels.voxel_to_world)


def agreement_with_stack(view: LabelMap, stack: LabelMap) -> float | None:
    """Return how far a view and a stack agree where the left ventricle is.

    Parameters
    ----------
    view : LabelMap
        Labels of one plane.
    stack : LabelMap
        Short-axis labels in the same world.

    Returns
    -------
    float or None
        Dice of the whole LV, cavity and wall, over the view's pixels between the first and the last
        slice with labels; None where no pixel lies there.

    Examples
    --------
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> from cardiacreg_nn.inference.view_prediction import agreement_with_stack
    >>> stack = make_toy_heart().labels
    >>> agreement_with_stack(stack, stack)
    1.0
    """
    to_stack = np.linalg.inv(stack.voxel_to_world) @ view.voxel_to_world
    axes = (np.arange(n, dtype=np.float64) for n in view.shape)
    at = apply_matrix(to_stack, np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1))
    held = np.flatnonzero(stack.array.any(axis=(0, 1)))
    if not len(held):
        return None
    inside = (at[..., 2] >= held[0] - 0.5) & (at[..., 2] <= held[-1] + 0.5)
    ours, theirs = (
        np.isin(labels[inside], (LV_CAVITY, LV_WALL))
        for labels in (view.array, nearest_labels(stack, at))
    )
    size = int(ours.sum() + theirs.sum())
    return 2 * int((ours & theirs).sum()) / size if size else None


def _name(image: Any) -> str:
    return Path(str(image)).name if isinstance(image, str | os.PathLike) else "view"


def _plane(image: Any, frame: int | None, *, check_spacing: bool) -> Volume:
    volume = read_volume(image, frame=frame, check_spacing=check_spacing)
    if volume.shape[2] != 1:
        raise InvalidInputError(
            f"predict_view: the image has {volume.shape[2]} planes along its third axis (shape "
            f"{volume.shape}); needs one, (i, j, 1). A cine has its frames along the fourth axis; a "
            "short-axis stack is for predict.",
            code="SEVERAL_PLANES",
        )
    return volume


def _view_model(weights: Model | str | os.PathLike[str] | None, device: str | None) -> Model:
    model = weights if isinstance(weights, Model) else load_model(weights or VIEW_DEFAULT, device)
    check_classes(model, of_views=True)
    return model


def _centre(frames: Sequence[Volume], model: Model) -> NDArray[np.float64]:
    """Native position of the heart, the median over some frames; of the image where none is seen."""
    seen = []
    for frame in frames:
        start = _surest_place(frame, model)
        found = None if start is None else _followed(frame, model, start)
        seen += [] if found is None else [found]
    middle = (np.array(frames[0].shape, dtype=np.float64) - 1) / 2
    return np.asarray(np.median(seen, axis=0)) if seen else middle


def _surest_place(volume: Volume, model: Model) -> NDArray[np.float64] | None:
    """Where the left ventricle is seen most surely, of places all over the image."""
    middle = (np.array(volume.shape, dtype=np.float64) - 1) / 2
    half_mm = np.maximum(middle[:2] * volume.spacing_mm[:2] - _RIM_MM, 0)
    steps = [
        np.linspace(-half, half, int(np.ceil(2 * half / _APART_MM)) + 1) if half else np.zeros(1)
        for half in half_mm
    ]
    places = [
        place(
            volume.shape,
            volume.voxel_to_world,
            model.box,
            centre=middle + [first / volume.spacing_mm[0], second / volume.spacing_mm[1], 0.0],
        )
        for first in steps[0]
        for second in steps[1]
    ]
    best, most = None, 0.0
    for placement, shares in zip(places, _looked_at(volume, places, model), strict=True):
        surety = _surety(shares)
        if surety > most:
            best, most = _heart_centre(shares, placement), surety
    return best


def _surety(shares: Image) -> float:
    """Sum of the probabilities of the left ventricle's largest piece, times the square of their mean."""
    left = shares[LV_CAVITY] + shares[LV_WALL]
    own = left[largest_piece(left > 0.5)]
    return float(own.sum() * own.mean() ** 2) if own.size else 0.0


def _heart_centre(shares: Image, placement: Placement) -> NDArray[np.float64] | None:
    """Native position of the middle of the largest piece of heart."""
    where = np.argwhere(largest_piece(1 - shares[0] > 0.5))
    if not len(where):
        return None
    middle = (where.min(axis=0) + where.max(axis=0)) / 2
    native = placement.points_to_native(middle[[1, 2, 0]])
    native[2] = 0.0
    return native


def _followed(
    volume: Volume, model: Model, start: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Lay the box over the heart that is seen, until it stays."""
    centre = start
    for _ in range(_MOST_PASSES):
        placement = place(volume.shape, volume.voxel_to_world, model.box, centre=centre)
        (shares,) = _looked_at(volume, [placement], model)
        again = _heart_centre(shares, placement)
        if again is None:
            return None
        moved = np.linalg.norm((again - centre)[:2] * volume.spacing_mm[:2])
        centre = again
        if moved < _CENTRED_MM:
            break
    return centre


def _probabilities(volume: Volume, model: Model, centre: NDArray[np.float64]) -> Image:
    """Mean probabilities at the native pixels over quarter turns, as it is and mirrored."""
    mirror = np.diag([1.0, -1.0, 1.0])
    placements = [
        place(volume.shape, volume.voxel_to_world, model.box, centre=centre, turn=turn)
        for each in turns()[:4]
        for turn in (each, each @ mirror)
    ]
    looks = _looked_at(volume, placements, model)
    total = sum(to_native(shares, p) for shares, p in zip(looks, placements, strict=True))
    return np.asarray(total / np.float32(len(placements)), dtype=np.float32)


def _looked_at(volume: Volume, placements: Sequence[Placement], model: Model) -> list[Image]:
    """Probabilities in the boxes of some placements; the RV wall counts as background."""
    found = []
    for first in range(0, len(placements), _LOOKS_AT_ONCE):
        for seen in look(volume, placements[first : first + _LOOKS_AT_ONCE], model):
            shares = seen.structures
            shares[0] += shares[RV_WALL]
            shares[RV_WALL] = 0
            found.append(shares)
    return found


def _keep_heart(array: NDArray[np.uint8]) -> None:
    """Set all but the largest piece of the heart, and of each cavity, to background.

    A thin apex may part the LV wall in two: every piece that touches the LV cavity is kept.
    """
    cavities = [array == value for value in (LV_CAVITY, RV_CAVITY)]
    for mask in (array > 0, *cavities):
        array[mask & ~largest_piece(mask, corners=True)] = 0
    pieces, _ = label(array == LV_WALL, np.ones((3, 3, 3)))
    near = binary_dilation(array == LV_CAVITY, np.ones((3, 3, 1)))
    array[(array == LV_WALL) & ~np.isin(pieces, np.unique(pieces[near & (pieces > 0)]))] = 0


def _subject(volume: Volume, probabilities: Image, model: Model, name: str) -> Subject:
    """Return the most probable labels where they hang together; raise if there is no left ventricle."""
    array = probabilities.argmax(axis=0).astype(np.uint8)
    _keep_heart(array)
    pixel_cm2 = float(np.prod(volume.spacing_mm[:2])) / 100
    held = np.isin(array, (LV_CAVITY, LV_WALL))
    left, cavity = (float(mask.sum()) * pixel_cm2 for mask in (held, array == LV_CAVITY))
    of_left = probabilities[LV_CAVITY] + probabilities[LV_WALL]
    surety = float(of_left[held].mean()) if held.any() else 0.0
    if left < _FEWEST_LV_CM2 or cavity < _FEWEST_CAVITY_CM2 or surety < _LEAST_SURETY:
        raise InvalidInputError(
            f"{name}: {model.name} finds {left:.1f} cm2 of left ventricle, {cavity:.1f} cm2 of cavity in "
            f"it, with a mean probability of {surety:.2f}; needs a long-axis view of the LV, at least "
            f"{_FEWEST_LV_CM2:g} cm2, {_FEWEST_CAVITY_CM2:g} cm2 and {_LEAST_SURETY}. Leave this view "
            "away.",
            code="NO_HEART",
        )
    return Subject(
        LabelMap(array, volume.voxel_to_world),
        image=volume,
        name=name,
        metadata={"network": describe(model), "probabilities": probabilities},
    )
