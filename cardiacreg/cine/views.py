"""Long-axis views of a whole cycle: every frame of each, on one lattice, with one shift per view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cardiacreg.anatomy.label_presets import canonical_labels
from cardiacreg.cine.frames import GatheredFrames, check_one_lattice, read_series
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import STRUCTURES, LabelMap
from cardiacreg.io.source_name import named_source, warn_about_source
from cardiacreg.refinement.views import View, check_plane, check_view_count, named_views
from cardiacreg.registration.view_samples import ViewPlane


class CineViews(NamedTuple):
    """The planes of all views in every chosen frame.

    Parameters
    ----------
    names : tuple of str
        Of the planes.
    frames : tuple of tuple of ViewPlane
        By position of the frame; a plane without labels in a frame is there, empty.
    """

    names: tuple[str, ...]
    frames: tuple[tuple[ViewPlane, ...], ...]


def gather_cine_views(
    views: Sequence[Any], gathered: GatheredFrames, preset: str | Mapping[int, int] | None
) -> CineViews:
    """Read the views of a cine.

    Parameters
    ----------
    views : sequence
        Each a `View`, or what its segmentation may be: a 4-D series, or a sequence with one source per
        frame, of as many frames as the stack's.
    gathered : GatheredFrames
        The stack's frames.
    preset : str or mapping, optional
        Of the stack, for views without one of their own.

    Returns
    -------
    CineViews

    Raises
    ------
    InvalidInputError
        As `refinement.views.gather_views`; FRAMES_DIFFER for another number of frames than the stack has.
    """
    names: list[str] = []
    planes: list[list[ViewPlane]] = []
    for name, view in named_views(views):
        with named_source(name):
            found = _planes(view, gathered, preset)
        names += [name if len(found) == 1 else f"{name}, plane {n}" for n in range(len(found))]
        planes += found
    check_view_count(len(planes))
    by_frame = tuple(zip(*planes, strict=True)) if planes else ((),) * len(gathered.numbers)
    return CineViews(tuple(names), by_frame)


def _planes(
    view: View, gathered: GatheredFrames, preset: str | Mapping[int, int] | None
) -> list[list[ViewPlane]]:
    """Every plane of a view that shows labels in any frame, in all chosen frames."""
    if view.segmentation is None:
        raise InvalidInputError(
            "no segmentation; the views of a cine need one: leave it out, or refine a single frame, "
            "which compares images too.",
            code="EMPTY_VIEW",
        )
    if view.frame is not None:
        raise InvalidInputError(
            "a frame is named; a cine takes all frames of a view: leave it out.", code="BAD_FRAME"
        )
    if view.image is not None:
        warn_about_source("the image of the view is not used: frames of a cine go by labels.")
    series = read_series(view.segmentation)
    if len(series) != gathered.n_series:
        raise InvalidInputError(
            f"{len(series)} frames for {gathered.n_series} of the stack; needs the same frames of both.",
            code="FRAMES_DIFFER",
        )
    check_one_lattice([each.codes for each in series])
    meaning = view.preset or preset
    frames = [
        canonical_labels(series[n].codes, meaning, values=series[n].values)
        for n in gathered.numbers
    ]
    array = np.stack([each.array for each in frames])
    held = np.flatnonzero(array.any(axis=(0, 1, 2)))
    if len(held) == 0:
        raise InvalidInputError(
            "all of it is background; needs a segmented heart, so check the file and its preset.",
            code="EMPTY_LABELS",
        )
    return [_plane(array[..., k], frames[0], int(k), gathered) for k in held]


def _plane(arrays: Any, like: LabelMap, k: int, gathered: GatheredFrames) -> list[ViewPlane]:
    matrix = like.voxel_to_world.copy()
    matrix[:3, 3] += k * matrix[:3, 2]
    hidden = tuple(label for label in STRUCTURES if not (arrays == label).any())
    fullest = int(np.argmax((arrays > 0).sum(axis=(1, 2))))
    check_plane(
        ViewPlane(LabelMap(arrays[fullest][..., None], matrix)), gathered.labels[gathered.ed]
    )
    return [ViewPlane(LabelMap(each[..., None], matrix), hidden) for each in arrays]
