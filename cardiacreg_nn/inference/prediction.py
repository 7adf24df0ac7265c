"""From a short-axis image to labels and landmarks: the meeting point with `cardiacreg`.

The network looks at the image (`orientation_search`), the probabilities of its views are averaged at the
native voxels, and what is called heart is kept where it hangs together. Landmarks are averaged too, and
completed from the labels.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cardiacreg.anatomy.landmarks import derive_landmarks
from cardiacreg.anatomy.topology import largest_piece
from cardiacreg.errors import InputWarning, InvalidInputError
from cardiacreg.geometry import (
    LANDMARK_NAMES,
    N_LABELS,
    LabelMap,
    Landmarks,
    Subject,
    Volume,
    apply_matrix,
)
from cardiacreg.io.nifti import read_volume
from cardiacreg_nn.inference.calibration import calibrated
from cardiacreg_nn.inference.orientation_search import (
    WITHOUT_LANDMARKS,
    View,
    best_look,
    look,
    views_of,
)
from cardiacreg_nn.inference.preprocessing import Image, sub_stacks, to_native
from cardiacreg_nn.inference.shipped_weights import default_weights, weight_path
from cardiacreg_nn.inference.weights import Model, load_weights
from cardiacreg_nn.networks.sslln import fold_normalisation

FEWEST_SLICES = 3
_FEWEST_HEART_ML = 5.0


def predict(
    image: Any,
    *,
    weights: Model | str | os.PathLike[str] | None = None,
    frame: int | None = None,
    device: str | None = None,
    turn: str = "over",
    views: int = 3,
    name: str | None = None,
    check_spacing: bool = True,
) -> Subject:
    """Segment a short-axis stack and find its six landmarks.

    Parameters
    ----------
    image : path, nibabel image, SimpleITK image, (array, voxel_to_world) or Volume
        The stack on its native lattice (i, j, k = slice); a matrix is in RAS+ mm.
    weights : Model, path or str, optional
        A ``.safetensors`` file with its card, or the name of weights that come with the project, as
        ``"unet2d_synthetic"``; the first that is there of `shipped_weights.DEFAULTS` when absent.
    frame : int, optional
        Which frame of a 4-D image.
    device : str, optional
        ``"cpu"``, ``"cuda"``, ...; a GPU when there is one.
    turn : {"over", "none", "any"}
        Which rotations by right angles are tried: turning the stack over (base first or last), none,
        or quarter turns in the plane as well. Networks without a head for landmarks also see the stack
        mirrored, since headers of public data often have the wrong handedness.
    views : int
        Over how many views, turned by up to 12 degrees in the plane, probabilities and landmarks are
        averaged.
    name : str, optional
        Of the subject; the file's name when absent.
    check_spacing : bool
        As for `cardiacreg.read_volume`.

    Returns
    -------
    Subject
        The image; canonical labels on its lattice; six `Landmarks` in world mm, ``source="network"``,
        or derived from the labels for a network that sees every slice on its own or has no head for
        landmarks;
        metadata with the weights' name, licence and sha256, per landmark its presence (peak
        probability), spread in mm and origin (``"network"`` or ``"labels"``), and ``"probabilities"`` of
        the labels 0 to 4, calibrated where the weights' card says how, shape (5, i, j, k), for
        `cardiacreg.refine`.

    Raises
    ------
    InvalidInputError
        If the image cannot be read or placed (as `cardiacreg.read_volume`), is constant
        (CONSTANT_IMAGE), has fewer than 3 slices (TOO_FEW_SLICES), the weights cannot be used (as
        `load_weights`) or are not installed (NO_WEIGHTS), or no heart is found (NO_HEART).
    RefinementError
        If memory does not suffice (OUT_OF_MEMORY).

    Warns
    -----
    InputWarning
        If landmarks are missing and were completed from the labels, or other weights than the best are
        used because those are not installed.
    """
    volume = checked_volume(image, frame, check_spacing=check_spacing)
    model = weights if isinstance(weights, Model) else load_model(weights, device)
    check_classes(model)
    looks = _looks(volume, model, turn, views)
    probabilities = calibrated(averaged(looks, volume), model.card)
    labels = heart_labels(probabilities, volume, model)
    given = str(image) if isinstance(image, str | os.PathLike) else None
    found = Subject(
        labels,
        image=volume,
        name=name or (Path(given).name if given else "target"),
        metadata={"network": describe(model), "landmarks": [], "probabilities": probabilities},
    )
    return with_landmarks(found, looks, model)


def with_landmarks(found: Subject, looks: Sequence[Look], model: Model) -> Subject:
    """Return a segmented stack with its landmarks, and a report of them in its metadata."""
    from_labels = model.card.get("kind") in WITHOUT_LANDMARKS
    landmarks, report = _landmarks(looks, found.labels, from_labels=from_labels)
    return replace(found, landmarks=landmarks, metadata=found.metadata | {"landmarks": report})


def describe(model: Model) -> dict[str, Any]:
    """Return what every output must say about the weights that made it."""
    keys = ("name", "licence", "citation", "sha256")
    return {key: model.card[key] for key in keys if key in model.card}


def load_model(weights: str | os.PathLike[str] | None = None, device: str | None = None) -> Model:
    """Load weights once per process, ready to predict; the default when none are named."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    path = default_weights() if weights is None else weight_path(weights)
    stamp = path.stat().st_mtime_ns if path.is_file() else 0
    return _loaded(path, stamp, device)


@lru_cache(maxsize=4)
def _loaded(path: Path, stamp: int, device: str) -> Model:
    model = load_weights(path, device=device)
    return replace(model, network=fold_normalisation(model.network))


def checked_volume(image: Any, frame: int | None = None, *, check_spacing: bool = True) -> Volume:
    """Read an image and check that it can be a short-axis stack."""
    volume = read_volume(image, frame=frame, check_spacing=check_spacing)
    if volume.shape[2] < FEWEST_SLICES:
        raise InvalidInputError(
            f"predict: the image has {volume.shape[2]} slices along its last axis (shape "
            f"{volume.shape}); needs at least {FEWEST_SLICES}. If the slices lie along another axis, "
            "move it to the end.",
            code="TOO_FEW_SLICES",
        )
    check_contrast(volume, "predict")
    return volume


def check_contrast(volume: Volume, where: str) -> None:
    """Refuse an image that shows nothing; `where` names the caller."""
    low, high = np.percentile(volume.array, (1, 99))
    if not high > low:
        raise InvalidInputError(
            f"{where}: the image is constant ({float(low):g} from the 1st to the 99th percentile); "
            "needs a picture. Was the right file or frame given?",
            code="CONSTANT_IMAGE",
        )


def check_classes(model: Model, *, of_views: bool = False) -> None:
    """Refuse weights of other classes and landmarks than ours, or of the other kind of image."""
    config: Any = model.network.config
    if (config.slices == 1) != of_views:
        kinds = ("short-axis stacks (predict)", "single long-axis views (predict_view)")
        raise InvalidInputError(
            f"{model.path or model.name}: the weights are of a network for {kinds[not of_views]}; needs "
            f"those of one for {kinds[of_views]}.",
            code="WEIGHTS_MISMATCH",
        )
    if (config.structures, config.landmarks) != (N_LABELS, len(LANDMARK_NAMES)):
        raise InvalidInputError(
            f"{model.path or model.name}: the weights predict {config.structures} structures and "
            f"{config.landmarks} landmarks; needs {N_LABELS} (background, LV cavity, LV wall, RV wall, "
            f"RV cavity) and {len(LANDMARK_NAMES)}.",
            code="WEIGHTS_MISMATCH",
        )


class Look(NamedTuple):
    """A view of some slices of a stack."""

    slices: range
    stack: Volume
    """Of those slices alone."""
    view: View


def _looks(volume: Volume, model: Model, turn: str, views: int) -> list[Look]:
    """Look at every part of the stack, each as the part in the middle is seen most surely."""
    parts, stacks = zip(*parts_of(volume, model), strict=True)
    height, width, distance = model.box.spacing_mm
    if len(parts) > 1 or volume.spacing_mm[2] < distance:
        kept = (height, width, float(stacks[0].spacing_mm[2]))
        model = replace(model, box=replace(model.box, spacing_mm=kept))
    middle = (volume.shape[2] - 1) / 2
    first = min(range(len(parts)), key=lambda n: abs((parts[n][0] + parts[n][-1]) / 2 - middle))
    best = best_look(stacks[first], model, turn)
    looks = []
    for number, (slices, stack) in enumerate(zip(parts, stacks, strict=True)):
        seen = best
        if number != first:
            (seen,) = look(stack, [best.placement.over(len(slices))], model)
        looks += [Look(slices, stack, each) for each in views_of(seen, stack, model, views)]
    return looks


def parts_of(volume: Volume, model: Model) -> list[tuple[range, Volume]]:
    """Return the parts of a stack that are looked at one by one, see `sub_stacks`."""
    parts = sub_stacks(volume.shape[2], float(volume.spacing_mm[2]), model.box)
    return [(slices, _part(volume, slices)) for slices in parts]


def _part(volume: Volume, slices: range) -> Volume:
    if slices == range(volume.shape[2]):
        return volume
    matrix = np.array(volume.voxel_to_world)
    matrix[:3, 3] += matrix[:3, 2] * slices[0]
    matrix[:3, 2] *= slices.step
    return Volume(volume.array[:, :, slices], matrix)


def averaged(looks: Sequence[Look], volume: Volume) -> Image:
    """Probabilities of all labels at the native voxels, shape (N_LABELS, i, j, k)."""
    total = np.zeros((N_LABELS, *volume.shape), dtype=np.float32)
    for slices, _, view in looks:
        total[..., slices] += to_native(view.structures, view.placement)
    return np.asarray(total / total.sum(axis=0), dtype=np.float32)


def heart_labels(probabilities: Image, volume: Volume, model: Model) -> LabelMap:
    """Return the most probable labels where they hang together; raise if there is no heart."""
    array = probabilities.argmax(axis=0).astype(np.uint8)
    keep_largest_pieces(array)
    labels = LabelMap(array, volume.voxel_to_world)
    ml = (array > 0).sum() * float(np.prod(volume.spacing_mm)) / 1000
    held = int(array.any(axis=(0, 1)).sum())
    if ml < _FEWEST_HEART_ML or held < FEWEST_SLICES:
        raise InvalidInputError(
            f"predict: {model.name} finds {ml:.1f} ml of heart in {held} slices of an image of shape "
            f"{volume.shape}; needs a short-axis stack of both ventricles, slices along the last axis. "
            "turn='any' also tries quarter turns.",
            code="NO_HEART",
        )
    return labels


def keep_largest_pieces(array: NDArray[np.uint8]) -> None:
    """Set all but the largest piece of the heart, and then of each structure, to background."""
    for mask in (array > 0, *(array == label for label in range(1, N_LABELS))):
        array[mask & ~largest_piece(mask, corners=True)] = 0


def _landmarks(
    looks: Sequence[Look], labels: LabelMap, *, from_labels: bool = False
) -> tuple[Landmarks | None, list[dict[str, Any]]]:
    """Return the network's landmarks, completed by those derived from the labels, and a report.

    Where `from_labels`, they are all derived.
    """
    if from_labels:
        return _landmarks_of_labels(labels)
    names, views = np.array(LANDMARK_NAMES), np.stack([_points_mm(each) for each in looks])
    seen: NDArray[np.bool_] = np.asarray(np.isfinite(views).all(axis=2), dtype=bool)
    missing: NDArray[np.bool_] = np.asarray(~seen.any(axis=0), dtype=bool)
    points = np.nansum(views, axis=0) / np.maximum(seen.sum(axis=0), 1)[:, None]
    if missing.any():
        derived = _derived(labels, looks[0].view, list(names[missing]))
        if derived is None:
            return None, []
        points[missing] = derived[missing]
    report = [
        _entry(number, [each.view for each in looks], bool(missing[number]))
        for number in range(len(names))
    ]
    return Landmarks(points, source="labels" if missing.all() else "network"), report


def _landmarks_of_labels(labels: LabelMap) -> tuple[Landmarks | None, list[dict[str, Any]]]:
    try:
        landmarks = derive_landmarks(labels)
    except InvalidInputError as error:
        warnings.warn(
            f"predict: the subject has no landmarks, since the labels do not tell them: {error}",
            InputWarning,
            stacklevel=4,
        )
        return None, []
    return landmarks, [{"name": name, "origin": "labels"} for name in LANDMARK_NAMES]


def _points_mm(found: Look) -> NDArray[np.float64]:
    """World positions of the landmarks of one look, NaN where missing."""
    points = np.full((len(LANDMARK_NAMES), 3), np.nan)
    for number, each in enumerate(found.view.landmarks):
        if not each.missing:
            native = found.view.placement.points_to_native(each.position[[1, 2, 0]])
            points[number] = apply_matrix(found.stack.voxel_to_world, native)
    return points


def _entry(number: int, looks: Sequence[View], missing: bool) -> dict[str, Any]:
    """What is reported of one landmark; presence counts views without it as 0."""
    entry: dict[str, Any] = {"name": LANDMARK_NAMES[number]}
    if missing:
        return entry | {"origin": "labels"}
    own = [each.landmarks[number] for each in looks]
    spreads = [each.spread_mm for each in own if np.isfinite(each.spread_mm)]
    entry |= {"origin": "network", "presence": round(float(np.mean([e.presence for e in own])), 4)}
    return entry | ({"spread_mm": round(float(np.mean(spreads)), 2)} if spreads else {})


def _derived(labels: LabelMap, found: View, names: list[str]) -> NDArray[np.float64] | None:
    """Derive landmarks from the labels; the placement says where the base is."""
    up = found.placement.to_native[2, 2] > 0
    try:
        points = derive_landmarks(labels, base_at_last_slice=bool(up)).points_mm
    except InvalidInputError:
        warnings.warn(
            f"predict: the landmarks {', '.join(names)} were not found, and cannot be derived from "
            "the labels either; the subject has no landmarks.",
            InputWarning,
            stacklevel=4,
        )
        return None
    warnings.warn(
        f"predict: the network did not find {', '.join(names)}; completed from the labels.",
        InputWarning,
        stacklevel=4,
    )
    return points
