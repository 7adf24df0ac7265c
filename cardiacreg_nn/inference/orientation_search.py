"""Orientation search: where a network's box is placed on a stack, which way round, in how many views.

The image is looked at under several rotations by right angles, because headers of public data do not say
reliably where the base is; the one that the network is surest of is kept, and the box is centred on the
heart found. Where few slices show a heart, it is looked for off the middle of the image, too. Further
views are rotated slightly.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cardiacreg.anatomy.landmarks import base_is_at_last_slice
from cardiacreg.anatomy.topology import largest_piece
from cardiacreg.errors import InvalidInputError, RefinementError
from cardiacreg.geometry import LabelMap, Volume
from cardiacreg_nn.inference.landmark_extraction import (
    FoundLandmark,
    extract_landmarks,
    regressed_landmarks,
)
from cardiacreg_nn.inference.preprocessing import Image, Placement, acquired, place, to_box, turns
from cardiacreg_nn.inference.weights import Model
from cardiacreg_nn.networks.sslln import Prediction

WITHOUT_LANDMARKS = ("fcn2d", "unet2d")
"""Kinds that cannot tell where along the stack a landmark is, or have no head for landmarks."""
_CENTRED_MM = 3.0
_MOST_PASSES = 3
_OFF_MIDDLE_MM = 55.0
"""How far along both axes from the image's middle a heart is looked for where few slices show one."""
_WIDEST_VIEW_DEG = 12.0
_LOOKS_AT_ONCE = 4


class View(NamedTuple):
    """What the network saw in one placement."""

    placement: Placement
    structures: Image  # (classes, S, H, W)
    landmarks: list[FoundLandmark]

    @property
    def confidence(self) -> float:
        """Sum of winning probabilities over what is called heart, times the square of their mean.

        A network that sees a heart the wrong way round leaves out what puzzles it, or doubts. Times the
        landmarks' mean presence; halved where the ventricles found shrink towards the side that is taken
        for the base.
        """
        winner = self.structures.argmax(axis=0)
        best = self.structures.max(axis=0)[winner > 0]
        if best.size == 0:
            return 0.0
        found = LabelMap(np.moveaxis(winner, 0, 2).astype(np.uint8), np.eye(4))
        upright = 1.0 if base_is_at_last_slice(found) else 0.5
        presence = (
            float(np.mean([each.presence for each in self.landmarks])) if self.landmarks else 1.0
        )
        return float(best.sum() * best.mean() ** 2) * upright * presence


def best_look(volume: Volume, model: Model, turn: str) -> View:
    """Return the surest look at a heart, with the box centred on it; `turn` as for `predict`."""
    tried, middle = _turns(turn, model), (np.array(volume.shape) - 1) / 2
    best = _surest_look(volume, model, tried, middle)
    shown = int(_heart(best).any(axis=(1, 2)).sum())
    if 2 * shown >= int(acquired(best.placement).any(axis=(1, 2)).sum()):
        return best
    corners = product((-_OFF_MIDDLE_MM, _OFF_MIDDLE_MM), repeat=2)
    starts = [middle + [*(np.array(each) / volume.spacing_mm[:2]), 0.0] for each in corners]
    others = [_surest_look(volume, model, tried, start) for start in starts]
    return max(best, *others, key=lambda each: each.confidence)


def _surest_look(
    volume: Volume, model: Model, tried: list[NDArray[np.float64]], start: NDArray[np.float64]
) -> View:
    """View from a native voxel position under all rotations, then follow the heart with the surest."""
    looks = []
    for first in range(0, len(tried), _LOOKS_AT_ONCE):
        placements = [
            place(volume.shape, volume.voxel_to_world, model.box, centre=start, turn=each)
            for each in tried[first : first + _LOOKS_AT_ONCE]
        ]
        looks += look(volume, placements, model)
    position = int(np.argmax([each.confidence for each in looks]))
    best, chosen = looks[position], tried[position]
    for _ in range(_MOST_PASSES - 1):
        centre = _heart_centre(best)
        if centre is None:
            break
        spacing = volume.spacing_mm[:2]
        middle = best.placement.points_to_native((np.array(model.box.shape) - 1) / 2)
        if np.linalg.norm((centre - middle)[:2] * spacing) < _CENTRED_MM:
            break
        centre[2] = (volume.shape[2] - 1) / 2
        again = place(volume.shape, volume.voxel_to_world, model.box, centre=centre, turn=chosen)
        (best,) = look(volume, [again], model)
    return best


def _turns(turn: str, model: Model) -> list[NDArray[np.float64]]:
    """Rotations to try, each also mirrored (a wrong handedness of the header) but for landmarks."""
    choices = {"none": [np.eye(3)], "over": turns(in_plane=False), "any": turns()}
    if turn not in choices:
        raise InvalidInputError(
            f"predict: turn is {turn!r}; needs one of {', '.join(choices)}.", code="BAD_OPTION"
        )
    if turn == "none" or model.card.get("kind") not in WITHOUT_LANDMARKS:
        return choices[turn]
    mirror = np.diag([1.0, -1.0, 1.0])
    return [*choices[turn], *(each @ mirror for each in choices[turn])]


def views_of(best: View, volume: Volume, model: Model, views: int) -> list[View]:
    """Return the best look and further ones, turned about its centre in the plane."""
    if views < 1:
        raise InvalidInputError(f"predict: views is {views}; needs at least 1.", code="BAD_OPTION")
    if views == 1:
        return [best]
    turned = [best.placement.turned(angle) for angle in view_angles(views) if abs(angle) > 1e-6]
    others = look(volume, turned, model)
    return [*others, best] if views % 2 else others


def view_angles(views: int) -> list[float]:
    """Return the angles of so many views in the plane, in radians."""
    return [float(a) for a in np.radians(np.linspace(-_WIDEST_VIEW_DEG, _WIDEST_VIEW_DEG, views))]


def _heart_centre(found: View) -> NDArray[np.float64] | None:
    """Native voxel position of the centre of the largest piece of what is called heart."""
    where = np.argwhere(_heart(found))
    if not len(where):
        return None
    middle = (where.min(axis=0) + where.max(axis=0)) / 2
    return found.placement.points_to_native(middle[[1, 2, 0]])


def _heart(found: View) -> NDArray[np.bool_]:
    return largest_piece(found.structures.argmax(axis=0) > 0)


def look(volume: Volume, placements: Sequence[Placement], model: Model) -> list[View]:
    """Run the network once on several placements.

    Parameters
    ----------
    volume : Volume
    placements : sequence of Placement
    model : Model

    Returns
    -------
    list
        Per placement the structure probabilities (classes, S, H, W) and the landmarks.
    """
    boxes = np.stack([to_box(volume.array, each) for each in placements])
    device = next(iter(model.network.parameters())).device
    try:
        with torch.inference_mode():
            found: Prediction = model.network(torch.from_numpy(boxes).to(device))
            structures = found.structures.float().softmax(1).cpu().numpy()
            points = _landmark_arrays(found.landmarks)
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        if not _is_memory(error):
            raise
        raise RefinementError(
            f"predict: memory does not suffice for {len(boxes)} boxes of {model.box.shape} on "
            f"{device}; use device='cpu', or turn='none'.",
            code="OUT_OF_MEMORY",
        ) from error
    looks = []
    for number, placement in enumerate(placements):
        own = None if points is None else points[number]
        looks.append(View(placement, structures[number], _extract(own, volume, placement)))
    return looks


def _landmark_arrays(found: torch.Tensor | None) -> NDArray[np.float32] | None:
    """Return probabilities (N, landmarks + 1, S, H, W) or coordinates (N, landmarks, 3)."""
    if found is None:
        return None
    found = found.float().softmax(1) if found.ndim == 5 else found.float()
    return found.cpu().numpy()


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return "out of memory" in text or "not enough memory" in text or "can't allocate" in text


def _extract(
    points: NDArray[np.float32] | None, volume: Volume, placement: Placement
) -> list[FoundLandmark]:
    if points is None:
        return []
    if points.ndim == 2:
        height, width, slices = placement.box.shape
        return regressed_landmarks(points, (slices, height, width))
    scaled = volume.spacing_mm[:, None] * placement.to_native[:3, :3]
    return extract_landmarks(points, np.linalg.norm(scaled, axis=0)[[2, 0, 1]])
