"""Planes of two-dimensional images in space, as DICOM describes them, and stacks of parallel ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError

LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
_PARALLEL = float(np.cos(np.radians(1.0)))
UNEVEN_SHARE = 0.05
"""Of the distance of slices; what differs by more is a gap or a duplicate."""


@dataclass(frozen=True, slots=True, eq=False)
class ImagePlane:
    """Where an image lies: its first pixel, and how far a pixel steps along i and j.

    Parameters
    ----------
    origin_mm : array_like, shape (3,)
        Centre of pixel (0, 0), world RAS+ mm.
    steps_mm : array_like, shape (2, 3)
        From a pixel to the next along i (the columns of DICOM) and along j (its rows).

    Raises
    ------
    InvalidInputError
        If the numbers are not finite or the steps lie along one line (BAD_PLANE).

    Examples
    --------
    >>> from cardiacreg.doors import ImagePlane
    >>> plane = ImagePlane.from_dicom((10, 20, 30), (1, 0, 0, 0, 1, 0), (1.5, 1.5))
    >>> plane.pixels([[-13.0, -20.0, 30.0]]).round(6).tolist()
    [[2.0, 0.0]]
    """

    origin_mm: Float
    steps_mm: Float

    def __post_init__(self) -> None:
        origin, steps = (np.array(given, dtype=float) for given in (self.origin_mm, self.steps_mm))
        if (
            origin.shape != (3,)
            or steps.shape != (2, 3)
            or not np.isfinite([*origin, *steps.flat]).all()
        ):
            raise _bad_plane(f"a place {origin.tolist()} and steps {steps.tolist()}")
        if np.linalg.norm(np.cross(*steps)) < 1e-9:
            raise _bad_plane(f"steps {steps.tolist()} along one line")
        for name, array in (("origin_mm", origin), ("steps_mm", steps)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @classmethod
    def from_dicom(
        cls, position_mm: ArrayLike, orientation: ArrayLike, pixel_spacing_mm: ArrayLike
    ) -> ImagePlane:
        """Make a plane of DICOM's ImagePositionPatient, ImageOrientationPatient and PixelSpacing.

        Parameters
        ----------
        position_mm : array_like, shape (3,)
            LPS mm.
        orientation : array_like, shape (6,)
            Directions of a row and of a column, LPS.
        pixel_spacing_mm : array_like, shape (2,)
            Between rows, then between columns.

        Raises
        ------
        InvalidInputError
            BAD_PLANE.
        """
        along, size = (
            np.asarray(orientation, dtype=float),
            np.asarray(pixel_spacing_mm, dtype=float),
        )
        if along.shape != (6,) or size.shape != (2,):
            raise _bad_plane(f"{along.size} directions and {size.size} sizes")
        steps = along.reshape(2, 3) * LPS_TO_RAS * size[::-1, None]
        return cls(np.asarray(position_mm, dtype=float) * LPS_TO_RAS, steps)

    @property
    def normal(self) -> Float:
        """Unit vector across the plane, from i to j by the right hand."""
        normal = np.cross(*self.steps_mm)
        return np.asarray(normal / np.linalg.norm(normal))

    @property
    def pixel_mm(self) -> float:
        """Size of a pixel along i."""
        return float(np.linalg.norm(self.steps_mm[0]))

    def pixels(self, points_mm: ArrayLike) -> Float:
        """Return pixel coordinates (i, j) of points, shape (n, 2), along the plane's normal."""
        apart = np.asarray(points_mm, dtype=float) - self.origin_mm
        return np.asarray(np.linalg.lstsq(self.steps_mm.T, apart.T, rcond=None)[0].T)

    def distances_mm(self, points_mm: ArrayLike) -> Float:
        """Return how far points lie from the plane."""
        return np.asarray(
            np.abs((np.asarray(points_mm, dtype=float) - self.origin_mm) @ self.normal)
        )

    def is_parallel(self, other: ImagePlane) -> bool:
        """Return whether the pixels of both run along the same directions, within a degree."""
        turns = [
            float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))
            for a, b in zip(self.steps_mm, other.steps_mm, strict=True)
        ]
        return min(turns) >= _PARALLEL

    def voxel_to_world(self, distance_mm: float) -> Float:
        """Return the matrix of a lattice over the plane, whose slices follow along the normal."""
        matrix = np.eye(4)
        matrix[:3, :2] = self.steps_mm.T
        matrix[:3, 2] = self.normal * distance_mm
        matrix[:3, 3] = self.origin_mm
        return matrix


def heights_mm(planes: Sequence[ImagePlane]) -> Float:
    """Return where parallel planes lie along the normal of the first one."""
    origins = np.array([plane.origin_mm for plane in planes])
    return np.asarray((origins - planes[0].origin_mm) @ planes[0].normal)


def slice_distance_mm(heights: Float) -> float:
    """Return the distance of evenly spaced slices in order.

    Raises
    ------
    InvalidInputError
        UNEVEN_SLICES, with what was found: gaps, duplicates or mixed distances.
    """
    steps = np.diff(heights)
    distance = usual_step(steps)
    found = unevenness(steps)
    if found:
        raise InvalidInputError(
            f"the slices are not evenly spaced: {found}; a stack needs one distance. Leave out what "
            "does not belong to it, or add what is missing.",
            code="UNEVEN_SLICES",
        )
    return distance


def usual_step(steps: Float) -> float:
    """Return the distance that most of some steps have, within 5 %."""
    close = np.abs(steps[:, None] - steps) <= UNEVEN_SHARE * np.abs(steps[:, None])
    return float(np.median(steps[close[int(np.argmax(close.sum(axis=1)))]]))


def unevenness(steps: Float) -> str:
    """Return in words where the distances between slices differ from the usual one; empty if nowhere."""
    steps = np.asarray(steps, dtype=float)
    usual = usual_step(steps)
    slack = max(UNEVEN_SHARE * abs(usual), 1e-3)
    told = []
    for number, step in enumerate(steps.tolist()):
        between = f"between slices {number + 1} and {number + 2}"
        missing = round(step / usual) - 1 if usual > slack else 0
        if abs(step - usual) <= slack:
            continue
        if abs(step) <= slack:
            told.append(f"slices {number + 1} and {number + 2} lie at the same place")
        elif missing > 0 and abs(step - (missing + 1) * usual) <= slack:
            slices = "a slice is" if missing == 1 else f"{missing} slices are"
            told.append(f"{slices} missing {between} ({step:.1f} mm, else {usual:.1f} mm)")
        else:
            told.append(f"{step:.1f} mm {between}, else {usual:.1f} mm")
    return "; ".join(told)


def order_along_normal(heights: Float) -> NDArray[np.int64]:
    """Return the order of slices by position, in the direction in which most were given."""
    order = np.argsort(heights, kind="stable")
    if len(heights) > 1 and np.corrcoef(np.arange(len(heights)), heights)[0, 1] < 0:
        order = order[::-1]
    return order


def _bad_plane(found: str) -> InvalidInputError:
    return InvalidInputError(
        f"a plane has {found}; needs its first pixel's place (3 numbers in mm), two directions that "
        "differ and two sizes of a pixel.",
        code="BAD_PLANE",
    )
