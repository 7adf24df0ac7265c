"""The door's first step: a target's slices are put along the last axis, across the LV's long axis.

Files of this field have their slices along any axis, and whole-heart volumes are sampled along the body.
A lattice axis within 22 degrees of the LV's long axis is put last, with its matrix, so that no voxel
changes. Where there is none, a fine map is resampled onto a short-axis lattice found from its labels; a
coarse one is refused.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cardiacreg.algebra import determinants, invert, length, multiply
from cardiacreg.anatomy.label_presets import check_anatomy
from cardiacreg.anatomy.long_axis import bare_direction, bare_faces_mm2, long_axis, towards_rv
from cardiacreg.anatomy.slice_order import image_in_order, repeats, slice_order
from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError, kept_warnings, pass_on, warn
from cardiacreg.geometry import LV_CAVITY, LV_WALL, LabelMap, Volume, apply_matrix
from cardiacreg.refinement.canonical_axes import rounded_spacing
from cardiacreg.slices import labelled_box
from cardiacreg.transforms.resampling import Lattice

_THICKER = 1.5
"""A lattice axis is that of the slices where its spacing is so many times the next one."""
_COARSEST_MM = 6.0
_ALONG = np.cos(np.deg2rad(22.0))
_BARE = np.cos(np.deg2rad(15.0))
_ACROSS, _ACROSS_BARE = np.cos(np.deg2rad(45.0)), np.cos(np.deg2rad(35.0))
"""Thick slices are refused from here. Over 200 frames of patients planned by hand (ACDC), the long axis
is up to 44 degrees off, and the bare faces of the cavity up to 8."""
_SPACING_MM = (1.25, 2.0)
_MARGIN = 5


class Placement(NamedTuple):
    """How stored voxels become slices along the last axis.

    Parameters
    ----------
    order : tuple of int
        Stored axes in the order of the new ones.
    lattice : Lattice or None
        What they are resampled onto, where an order is not enough.
    slices : tuple of int or None
        Stored slices in the order of their places, where that is another one.
    to_stored : ndarray, shape (4, 4), or None
        Voxels of the lattice to stored ones.
    """

    order: tuple[int, int, int] = (0, 1, 2)
    lattice: Lattice | None = None
    slices: tuple[int, ...] | None = None
    to_stored: Float | None = None

    def labels(self, stored: LabelMap) -> LabelMap:
        """Return stored labels as slices along the last axis."""
        if self.lattice is not None and self.to_stored is not None:
            return _resampled_labels(stored, self.lattice, self.to_stored)
        moved = stored
        if self.order != (0, 1, 2):
            moved = LabelMap(stored.array.transpose(self.order), self._matrix(stored))
        if self.slices is None:
            return moved
        return LabelMap(np.take(moved.array, self.slices, axis=2), moved.voxel_to_world)

    def image(self, stored: Volume) -> Volume:
        """Return a stored image as slices along the last axis."""
        if self.lattice is not None and self.to_stored is not None:
            sampled = _sampled(stored.array, self.to_stored, self.lattice.shape)
            return Volume(sampled, self.lattice.voxel_to_world)
        moved = stored
        if self.order != (0, 1, 2):
            moved = Volume(stored.array.transpose(self.order), self._matrix(stored))
        return moved if self.slices is None else image_in_order(moved, self.slices)

    def shares(self, stored: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a number per stored voxel, as a label's probability, where that voxel comes to lie."""
        if self.lattice is not None and self.to_stored is not None:
            return _sampled(stored, self.to_stored, self.lattice.shape)
        moved = stored.transpose(self.order)
        return moved if self.slices is None else np.take(moved, self.slices, axis=2)

    def _matrix(self, stored: LabelMap | Volume) -> Float:
        return stored.voxel_to_world[:, [*self.order, 3]]


_ORDERS = (Placement((1, 2, 0)), Placement((2, 0, 1)), Placement())
"""By the axis that becomes the last one; a right-handed matrix stays right-handed."""


def placement(labels: LabelMap, like: LabelMap | None = None) -> Placement:
    """Find how a target's stored voxels become short-axis slices.

    Parameters
    ----------
    labels : LabelMap
        Canonical labels, as stored.
    like : LabelMap, optional
        Another frame of the same patient that was turned: its axes are taken.

    Returns
    -------
    Placement

    Raises
    ------
    InvalidInputError
        If thick slices do not lie across the LV's long axis (NOT_SHORT_AXIS); and as `slice_order`.

    Warns
    -----
    InputWarning
        If the axes or slices are put in another order, or the map is turned.
    """
    if not (labels.array > 0).any():
        return Placement()
    if like is not None:
        axes = multiply(invert(_directions(labels)), _directions(like))
        return _placement_along(labels, np.asarray(axes, dtype=np.float64))
    stored = _stored_slice_axis(labels)
    found = _ORDERS[stored]
    with kept_warnings() as notes:
        found = found._replace(slices=slice_order(found.labels(labels)))
    if found.slices is None:
        axis = long_axis(labels)
        last = stored if axis is None else _short_axis(labels, axis, stored)
        if last is None:
            return _short_axis_placement(labels)
        found = _ORDERS[last]
    if found.order != (0, 1, 2):
        warn(
            f"labels: the slices lie along axis {found.order[2]}; the axes are taken in the order "
            f"{found.order}, with their matrix. The model's axes, and spacing_mm (--spacing), follow "
            "that order."
        )
    pass_on(notes)
    return found


def _stored_slice_axis(labels: LabelMap) -> int:
    """Return the axis of the thickest voxels; the last one where none stands out."""
    spacing = labels.spacing_mm
    thickest = int(spacing.argmax())
    return thickest if spacing[thickest] >= _THICKER * np.delete(spacing, thickest).max() else 2


def _short_axis(labels: LabelMap, axis: Float, stored: int) -> int | None:
    """Return the lattice axis along the LV's long axis; None where the heart has to be turned."""
    directions = labels.voxel_to_world[:3, :3] / labels.spacing_mm
    along, bare = np.abs(multiply(axis, directions)), bare_faces_mm2(labels).sum(axis=1)
    on_bare = bare / length(bare)
    thickness = labels.spacing_mm[stored] * np.median(repeats(_ORDERS[stored].labels(labels)))
    if thickness > _COARSEST_MM:
        if along[stored] < _ACROSS and on_bare[stored] < _ACROSS_BARE:
            raise _not_short_axis(labels, float(along[stored]), stored)
        return stored
    if along[stored] >= _ALONG or on_bare[stored] >= _BARE:
        return stored
    nearest = int(along.argmax())
    return nearest if along[nearest] >= _ALONG else None


def _not_short_axis(labels: LabelMap, cosine: float, axis: int) -> InvalidInputError:
    return InvalidInputError(
        f"labels: slices of {labels.spacing_mm[axis]:.3g} mm along axis {axis} lie "
        f"{np.rad2deg(np.arccos(min(cosine, 1.0))):.0f} degrees off the LV's long axis; needs "
        f"short-axis slices, within {np.rad2deg(np.arccos(_ACROSS)):.0f} degrees, or a map of at most "
        f"{_COARSEST_MM:g} mm, which is turned. Resample the segmentation, or segment the short-axis "
        "series.",
        code="NOT_SHORT_AXIS",
    )


def _short_axis_placement(labels: LabelMap) -> Placement:
    """Find a short-axis lattice from labels alone: how their world is turned changes no bit."""
    own = _at_home(labels)
    axis = long_axis(own)
    assert axis is not None
    to_left = -towards_rv(own, axis)
    hand = np.sign(determinants(_directions(labels)))
    found = _placement_along(
        labels, np.column_stack([to_left, hand * np.cross(axis, to_left), axis])
    )
    assert found.lattice is not None
    degrees = np.rad2deg(np.arccos(min(1.0, abs(float(axis[2])))))
    spacing = length(found.lattice.voxel_to_world[:3, 0])
    warn(
        f"labels: the heart's long axis lies {degrees:.0f} degrees off the last axis, as in a volume "
        f"along the body; it is turned onto a short-axis lattice of {spacing:.3g} mm found from the "
        "labels. The model has that lattice's axes, in its place in the world; on the input's own "
        "lattice it is labels_input_lattice.nii.gz, in Python result.labels_on_input()."
    )
    return found


def _directions(labels: LabelMap) -> Float:
    return np.asarray(labels.voxel_to_world[:3, :3] / labels.spacing_mm)


def _at_home(labels: LabelMap) -> LabelMap:
    """Return the labelled box in a world along its axes, from its first voxel on."""
    spacing = rounded_spacing(labels.spacing_mm)
    return LabelMap(labels.array[labelled_box(labels)], np.diag([*spacing, 1.0]))


def _placement_along(labels: LabelMap, axes: Float) -> Placement:
    """Return an isotropic lattice along unit vectors, in mm along the stored axes, with a margin."""
    own = _at_home(labels)
    spacing = float(np.clip(own.spacing_mm.min(), *_SPACING_MM))
    along = multiply(np.argwhere(own.array > 0) * own.spacing_mm, invert(axes).T) / spacing
    first = np.floor(along.min(axis=0)) - _MARGIN
    shape = (np.ceil(along.max(axis=0)) - first).astype(int) + 1 + _MARGIN
    to_own, from_box = np.eye(4), np.eye(4)
    to_own[:3, :3] = axes * spacing
    to_own[:3, 3] = multiply(axes, first * spacing)
    from_box[:3, 3] = [side.start for side in labelled_box(labels)]
    to_stored = multiply(from_box, np.diag([*(1 / own.spacing_mm), 1.0]), to_own)
    home = np.eye(4)
    home[:3, :3] = _directions(labels)
    home[:3, 3] = apply_matrix(labels.voxel_to_world, from_box[:3, 3])
    lattice = Lattice((int(shape[0]), int(shape[1]), int(shape[2])), multiply(home, to_own))
    return Placement(lattice=lattice, to_stored=to_stored)


def _resampled_labels(stored: LabelMap, lattice: Lattice, to_stored: Float) -> LabelMap:
    """Linear weights of every label; the largest wins, the smaller label where two are equal."""
    box = labelled_box(stored)
    to_part = np.array(to_stored)
    to_part[:3, 3] -= [side.start - 1 for side in box]
    part = np.pad(stored.array[box], 1)
    best = np.zeros(lattice.shape, dtype=np.float32)
    found = np.zeros(lattice.shape, dtype=np.uint8)
    for value in (0, *stored.present()):
        weight = _sampled((part == value).astype(np.float32), to_part, lattice.shape)
        won = weight > best
        found[won], best[won] = value, weight[won]
    return LabelMap(found, lattice.voxel_to_world)


def _sampled(
    array: NDArray[np.float32], to_array: Float, shape: tuple[int, int, int]
) -> NDArray[np.float32]:
    sampled: NDArray[np.float32] = ndimage.affine_transform(
        array, to_array[:3, :3], to_array[:3, 3], output_shape=shape, order=1,
        mode="constant", cval=0.0,
    )  # fmt: skip
    return sampled


def _is_a_heart(labels: LabelMap) -> bool:
    """Whether labels make sense: values of another preset make none, in whatever order their axes are."""
    with kept_warnings():
        try:
            check_anatomy(labels)
        except InvalidInputError:
            return False
    return True


def axes_hint(labels: LabelMap) -> str:
    """Say that an array's axes seem to be in another order than its matrix; empty where they do not.

    Parameters
    ----------
    labels : LabelMap
        Canonical labels whose anatomy makes no sense.
    """
    thickest = _stored_slice_axis(labels)
    if not {LV_CAVITY, LV_WALL} <= set(labels.present()):
        return ""
    bare = bare_direction(LabelMap(labels.array, np.eye(4)))
    likely = thickest if bare is None else int(np.abs(bare).argmax())
    if likely == thickest or np.ptp(labels.spacing_mm) < 1e-3:
        return ""
    exchanged = np.ascontiguousarray(np.swapaxes(labels.array, likely, thickest))
    if not _is_a_heart(LabelMap(exchanged, labels.voxel_to_world)):
        return ""
    return (
        f" The heart seems to have its slices along axis {likely}, and the matrix along axis {thickest}, "
        "as where an array of SimpleITK's GetArrayFromImage is saved with the matrix of the image: "
        "exchange the array's axes, array.transpose(2, 1, 0), and save it again."
    )
