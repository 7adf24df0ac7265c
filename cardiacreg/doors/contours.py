"""Closed contours in space as label maps, slice by slice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiacreg.arrays import Float
from cardiacreg.doors.outlines import filled
from cardiacreg.errors import InvalidInputError, check_argument, check_arguments
from cardiacreg.geometry import Affine, LabelMap, apply_matrix, as_numbers
from cardiacreg.transforms.resampling import Lattice

FEWEST_POINTS = 3
_MOST_VOXELS = 2**31
_MOST_OFF_SLICE = 0.25
"""In slices: a contour that lies farther from the middle of every slice belongs to none."""


class Contour(NamedTuple):
    """A closed contour of a structure.

    Parameters
    ----------
    points_mm : array_like, shape (n, 3)
        In order, world RAS+ mm; the last point is joined with the first.
    label : int
        What its inside becomes, 1 to 255.
    """

    points_mm: ArrayLike
    label: int


def labels_from_contours(
    contours: Sequence[Contour | tuple[ArrayLike, int]],
    shape: tuple[int, int, int],
    voxel_to_world: ArrayLike,
    *,
    edge_pixels: float = 0.0,
) -> LabelMap:
    """Return the label map of closed contours, each inside one slice of a lattice.

    Parameters
    ----------
    contours : sequence of Contour or (points_mm, label)
        Painted in this order, later ones over earlier ones: the outline of LV wall and cavity together
        first, that of the cavity after it.
    shape : tuple of int
        Voxels along (i, j, k); contours lie in planes of constant k.
    voxel_to_world : array_like, shape (4, 4)
        To RAS+ mm.
    edge_pixels : float
        How far the structure reaches beyond the contour: 0 for a contour along its edge, 0.5 for one
        through the centres of its outermost pixels.

    Returns
    -------
    LabelMap
        Pixels are labelled whose centres lie inside. Slices without contours are empty.

    Raises
    ------
    InvalidInputError
        If a contour has fewer than three points (BAD_CONTOUR), does not lie in a slice of the lattice
        (OFF_SLICE), or its label is not 1 to 255 (UNKNOWN_LABEL).

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg import labels_from_contours
    >>> square = [(2, 2, 8), (2, 7, 8), (7, 7, 8), (7, 2, 8)]
    >>> labels = labels_from_contours([(square, 1)], (10, 10, 3), np.diag([1.0, 1.0, 8.0, 1.0]))
    >>> labels.array.sum(axis=(0, 1)).tolist()
    [0, 36, 0]
    """
    lattice = Lattice(shape, Affine(as_numbers(voxel_to_world, "labels_from_contours")).matrix)
    check_argument(edge_pixels, Real, "labels_from_contours: edge_pixels")
    if math.prod(lattice.shape) > _MOST_VOXELS:
        raise InvalidInputError(
            f"labels_from_contours: shape {shape}; needs at most {_MOST_VOXELS} voxels.",
            code="TOO_LARGE",
        )
    to_voxels = np.asarray(np.linalg.inv(lattice.voxel_to_world), dtype=np.float64)
    found = np.zeros(shape, dtype=np.uint8)
    check_arguments(contours, Sequence, "labels_from_contours: contours")
    for number, contour in enumerate(contours):
        points, label = _both(contour, number)
        outline = _in_voxels(points, to_voxels, number)
        place = _slice_of(outline[:, 2], shape[2], number)
        _paint(found[:, :, place], outline[:, :2], _checked_label(label, number), edge_pixels)
    return LabelMap(found, lattice.voxel_to_world)


def _both(contour: Sequence[Any], number: int) -> tuple[Any, Any]:
    if len(contour) != 2:
        raise InvalidInputError(
            f"contour {number}: {len(contour)} values; needs its points and its label.",
            code="BAD_CONTOUR",
        )
    return contour[0], contour[1]


def _paint(array: NDArray[np.uint8], outline: Float, label: int, edge_pixels: float) -> None:
    array[filled(outline, (array.shape[0], array.shape[1]), edge_pixels)] = label


def _in_voxels(points: Any, to_voxels: Float, number: int) -> Float:
    given = as_numbers(points, f"contour {number}")
    bad = given.ndim != 2 or given.shape[1:] != (3,) or not np.isfinite(given).all()
    if bad or len(given) < FEWEST_POINTS:
        raise InvalidInputError(
            f"contour {number}: has shape {given.shape}; needs at least {FEWEST_POINTS} finite points "
            "(n, 3) in world RAS+ mm.",
            code="BAD_CONTOUR",
        )
    return apply_matrix(to_voxels, given)


def _slice_of(heights: Float, n_slices: int, number: int) -> int:
    place = int(np.rint(np.median(heights)))
    off = float(np.abs(heights - place).max())
    if off > _MOST_OFF_SLICE or not 0 <= place < n_slices:
        raise InvalidInputError(
            f"contour {number}: lies at slice {heights.min():.2f} to {heights.max():.2f} of "
            f"0 to {n_slices - 1}; needs to lie in one slice of the lattice. Check that contours and "
            "lattice are of one space (RAS, LPS) and of one study.",
            code="OFF_SLICE",
        )
    return place


def _checked_label(label: object, number: int) -> int:
    value = float(label) if isinstance(label, Real) else 0.0
    if not (1 <= value <= 255 and value.is_integer()):
        raise InvalidInputError(
            f"contour {number}: has the label {label}; needs a whole number from 1 to 255.",
            code="UNKNOWN_LABEL",
        )
    return int(value)
