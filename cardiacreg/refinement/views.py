"""Long-axis views beside a stack: read, checked against it, and told apart plane by plane.

A view is a label map of one plane, or of several parallel ones. Every plane moves by itself, as every
slice does. What the labels of a view do not hold at all is taken as not drawn, so that its
background says nothing against it: most long-axis label sets lack the RV wall. Atria, where a preset or
mapping makes them background, show where the ventricles end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cardiacreg.algebra import length, multiply
from cardiacreg.anatomy.label_presets import canonical_labels
from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError, check_argument
from cardiacreg.geometry import (
    LV_CAVITY,
    LV_WALL,
    STRUCTURES,
    LabelMap,
    Volume,
    apply_matrix,
    same_lattice,
)
from cardiacreg.io.nifti import read_stored_labels, read_volume
from cardiacreg.io.source_name import named_source
from cardiacreg.metrics.agreement import slice_agreement
from cardiacreg.registration.view_samples import MOST_VIEWS, ViewPlane
from cardiacreg.results.result import ViewReport

_FARTHEST_MM = 40.0
"""Between the centre of the stack's LV and that of a view's."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A long-axis view, or any other plane that shows the target's heart.

    Parameters
    ----------
    segmentation : path, nibabel image, (array, voxel_to_world) or LabelMap, optional
        Labels of one plane, shape (i, j, 1), or of parallel planes; in the same world as the stack.
        A view without labels needs an image, and only helps to find the shifts of the slices.
    image : path, nibabel image, (array, voxel_to_world) or Volume, optional
        Of the same planes. Where the stack has an image too, grey levels are compared along the lines
        where slices and views meet.
    preset : str or mapping, optional
        Meaning of its values; that of the stack when absent. A mapping may make atria background:
        ``{1: 1, 2: 2, 3: 4, 4: 0, 5: 0}``.
    frame : int, "ED" or "ES", optional
        Of a 4-D file.
    name : str
        For reports; the file's name when absent.

    Examples
    --------
    >>> from cardiacreg import View
    >>> View("4ch_gt.nii.gz", preset="mms").name
    '4ch_gt.nii.gz'
    """

    segmentation: Any = None
    image: Any = None
    preset: str | Mapping[int, int] | None = None
    frame: int | str | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if self.segmentation is None and self.image is None:
            raise InvalidInputError(
                "View: neither segmentation nor image; needs one of them.", code="EMPTY_VIEW"
            )
        check_argument(self.name, str, "View: name")
        given = self.image if self.segmentation is None else self.segmentation
        if not self.name and isinstance(given, str | os.PathLike):
            object.__setattr__(self, "name", Path(given).name)


def gather_views(
    views: Sequence[Any],
    target: LabelMap,
    preset: str | Mapping[int, int] | None,
    *,
    with_image: bool = True,
) -> tuple[tuple[str, ViewPlane], ...]:
    """Read the views of a target.

    Parameters
    ----------
    views : sequence
        Each a `View`, or what its `segmentation` may be.
    target : LabelMap
        The stack, canonical labels.
    preset : str or mapping, optional
        The stack's, for views without one of their own.
    with_image : bool
        Whether the stack has an image.

    Returns
    -------
    tuple of (str, ViewPlane)
        Name and plane, in order; a view of several planes gives several.

    Raises
    ------
    InvalidInputError
        If a view shows no LV (EMPTY_LABELS), has an image alone and the stack has none (NO_IMAGE), lies
        away from the stack's heart (VIEW_ELSEWHERE), cannot be read, or there are more planes than can be
        used (TOO_MANY_VIEWS).
    """
    found = []
    for name, view in named_views(views):
        with named_source(name):
            if view.segmentation is None and not with_image:
                raise InvalidInputError(
                    "has no labels, and there is no image of the stack to compare its own with; give one "
                    "(image= or --image), or labels of the view.",
                    code="NO_IMAGE",
                )
            labels, image = _read(view, preset)
            found += [
                (own, check_plane(plane, target)) for own, plane in _planes(name, labels, image)
            ]
    check_view_count(len(found))
    return tuple(found)


def named_views(views: Sequence[Any]) -> Iterator[tuple[str, View]]:
    """Yield name and view of whatever was given as views.

    Raises
    ------
    InvalidInputError
        If it is one view by itself (BAD_TYPE).
    """
    if isinstance(views, str | os.PathLike | LabelMap | View):
        raise InvalidInputError(
            "views: one view by itself; needs a sequence of them: put it in a list.",
            code="BAD_TYPE",
        )
    for number, each in enumerate(views):
        view = as_view(each)
        yield view.name or f"view {number + 1}", view


def as_view(given: Any) -> View:
    """Return what was given as a view."""
    return given if isinstance(given, View) else View(given)


def check_view_count(count: int) -> None:
    """Raise if there are more planes than can be used (TOO_MANY_VIEWS)."""
    if count > MOST_VIEWS:
        raise InvalidInputError(
            f"views: {count} planes; needs at most {MOST_VIEWS}: leave some out.",
            code="TOO_MANY_VIEWS",
        )


def _read(
    view: View, preset: str | Mapping[int, int] | None
) -> tuple[LabelMap | None, Volume | None]:
    """Canonical labels and image of a view, on one lattice."""
    labels = image = None
    if view.segmentation is not None:
        stored = read_stored_labels(view.segmentation, frame=view.frame, check_spacing=False)
        labels = canonical_labels(stored.codes, view.preset or preset, values=stored.values)
    if view.image is not None:
        image = read_volume(view.image, frame=view.frame, check_spacing=False)
    if labels is not None and image is not None and not same_lattice(labels, image):
        raise InvalidInputError(
            f"image of shape {image.shape} and labels of shape {labels.shape} on other lattices; needs "
            "both on one.",
            code="LATTICE_MISMATCH",
        )
    return labels, image


def _planes(
    name: str, labels: LabelMap | None, image: Volume | None
) -> Iterator[tuple[str, ViewPlane]]:
    """The planes that count, each a lattice of one slice: those with labels, or all without."""
    if labels is None:
        assert image is not None
        labels = LabelMap(np.zeros(image.shape, dtype=np.uint8), image.voxel_to_world)
        held = np.arange(image.shape[2])
    else:
        held = np.flatnonzero((labels.array > 0).any(axis=(0, 1)))
    if len(held) == 0:
        raise InvalidInputError(
            "all of it is background; needs a segmented heart, so check the file, its "
            "preset and its frame.",
            code="EMPTY_LABELS",
        )
    for k in held:
        matrix = labels.voxel_to_world.copy()
        matrix[:3, 3] += k * matrix[:3, 2]
        own = name if len(held) == 1 else f"{name}, plane {k}"
        grey = None if image is None else Volume(image.array[:, :, [k]], matrix)
        yield own, ViewPlane(LabelMap(labels.array[:, :, [k]], matrix), image=grey)


def check_plane(plane: ViewPlane, target: LabelMap) -> ViewPlane:
    """Return a plane that shows the LV where the stack has it, or has an image that crosses it.

    Parameters
    ----------
    plane : ViewPlane
    target : LabelMap
        The stack.

    Returns
    -------
    ViewPlane
        With what it does not draw.

    Raises
    ------
    InvalidInputError
        As `gather_views`.
    """
    labels, shown = plane.labels, set(plane.labels.present())
    if not shown:
        return _crossing(plane, target)
    if not shown & {LV_CAVITY, LV_WALL}:
        raise InvalidInputError(
            "shows no LV; needs its cavity or wall, so check the meaning of its values. A view of the RV "
            "alone does not count; leave it out.",
            code="EMPTY_LABELS",
        )
    away = _left_centre(labels) - _left_centre(target)
    if length(away) > _FARTHEST_MM:
        place = ", ".join(f"{x:.0f}" for x in away)
        raise _elsewhere(
            f"its LV lies {length(away):.0f} mm from the stack's, at ({place}) mm (RAS)"
        )
    return plane._replace(not_drawn=tuple(n for n in STRUCTURES if n not in shown))


def _crossing(plane: ViewPlane, target: LabelMap) -> ViewPlane:
    """Return a plane without labels that passes near the centre of the stack's LV."""
    matrix = plane.labels.voxel_to_world
    normal = np.cross(matrix[:3, 0], matrix[:3, 1])
    away = multiply(_left_centre(target) - matrix[:3, 3], normal) / length(normal)
    if abs(away) > _FARTHEST_MM:
        raise _elsewhere(f"its plane passes {abs(away):.0f} mm from the stack's LV")
    return plane._replace(not_drawn=tuple(STRUCTURES))


def _elsewhere(what: str) -> InvalidInputError:
    return InvalidInputError(
        f"{what}; needs a view of the same heart in the same world: check the file's matrix, and that "
        "both are of one patient and examination.",
        code="VIEW_ELSEWHERE",
    )


def _left_centre(labels: LabelMap) -> Float:
    """Mean position of the LV, world mm."""
    held = np.argwhere(np.isin(labels.array, (LV_CAVITY, LV_WALL))).astype(float)
    return np.asarray(apply_matrix(labels.voxel_to_world, held.mean(axis=0)[None])[0])


def sources_of(views: Sequence[Any]) -> list[Any]:
    """Return what views were given as: files or arrays of labels and images."""
    pairs = [(v.segmentation, v.image) if isinstance(v, View) else (v,) for v in views]
    return [each for pair in pairs for each in pair if each is not None]


def view_reports(
    names: Sequence[str], views: Sequence[ViewPlane], shifts_mm: Float, model: LabelMap
) -> tuple[ViewReport, ...]:
    """Compare the views with the model cut by their planes.

    Parameters
    ----------
    names : sequence of str
    views : sequence of ViewPlane
        In the model's world.
    shifts_mm : ndarray, shape (n_views, 2)
    model : LabelMap

    Returns
    -------
    tuple of ViewReport
    """
    return tuple(
        ViewReport(
            name,
            (float(shift[0]), float(shift[1])),
            slice_agreement(view.labels, model, shift[None]),
        )
        for name, view, shift in zip(names, views, shifts_mm, strict=True)
    )
