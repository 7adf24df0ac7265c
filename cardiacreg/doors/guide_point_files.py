"""Guide points of biv-me written from short-axis labels, with the file of their planes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cardiacreg.arrays import Float
from cardiacreg.doors.guide_points import PLANES_FILE
from cardiacreg.doors.image_planes import LPS_TO_RAS
from cardiacreg.errors import check_argument
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL, LabelMap, apply_matrix
from cardiacreg.io.output_folder import all_or_nothing
from cardiacreg.slices import labelled_box, stack_axes

_NEAR_PIXELS = 2
_HEAD = ("x", "y", "z", "contour type", "frameID", "weight", "time frame")

Mask = NDArray[np.bool_]


def write_guide_points(
    folder: str | os.PathLike[str],
    labels: LabelMap,
    *,
    time_frame: int = 0,
    overwrite: bool = False,
) -> None:
    """Write short-axis labels as guide points of biv-me.

    Writes ``GPFile_000.txt`` (with the number of the time frame) and ``SliceInfoFile.txt``: the centres
    of the outermost pixels of every structure in every slice, in LPS mm, and the planes from 1 on.

    Parameters
    ----------
    folder : path-like
        Made when missing.
    labels : LabelMap
        Canonical labels on short-axis slices.
    time_frame : int
        Number of the phase.
    overwrite : bool
        Whether files of these names may be replaced.

    Raises
    ------
    InvalidInputError
        If the labels are all background (EMPTY_LABELS), the lattice is sheared (SHEARED_TARGET), or
        files exist (OUTPUT_EXISTS) or cannot be written (OUTPUT_NOT_WRITABLE).

    Examples
    --------
    >>> from cardiacreg import write_guide_points
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> write_guide_points("guidepoints", make_toy_heart().labels)
    """
    check_argument(labels, LabelMap, "write_guide_points: labels")
    check_argument(time_frame, int, "write_guide_points: time_frame")
    labelled_box(labels)
    stack_axes(labels.voxel_to_world, "write_guide_points")
    points = f"GPFile_{time_frame:03d}.txt"
    rows = ["\t".join(_HEAD)]
    for number, kind, each in _contours(labels):
        rows += [
            "\t".join((*(f"{x:.5f}" for x in point), kind, str(number), "1.0", str(time_frame)))
            for point in each * LPS_TO_RAS
        ]
    planes = [_plane_line(labels, k) for k in range(labels.shape[2])]
    names = (PLANES_FILE, points)
    with all_or_nothing(Path(folder), names, overwrite=overwrite) as stage:
        for name, lines in zip(names, (planes, rows), strict=True):
            (stage / name).write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def _contours(labels: LabelMap) -> Iterator[tuple[int, str, Float]]:
    """Yield plane, kind and points (RAS mm) of every contour."""
    for k in range(labels.shape[2]):
        for kind, mask in _outlines(labels.array[:, :, k]).items():
            pixels = np.argwhere(mask).astype(float)
            if len(pixels):
                voxels = np.column_stack([pixels, np.full(len(pixels), k)])
                yield k + 1, kind, apply_matrix(labels.voxel_to_world, voxels)


def _outlines(array: NDArray[np.uint8]) -> dict[str, Mask]:
    """Outermost pixels of the structures of one slice; the septum is the RV's share of the border."""
    left, right = np.isin(array, (LV_CAVITY, LV_WALL)), array == RV_CAVITY
    square = np.ones((2 * _NEAR_PIXELS + 1,) * 2, dtype=bool)
    beside_left, beside_right = (ndimage.binary_dilation(m, square) for m in (left, right))
    found = {
        "SAX_LV_ENDOCARDIAL": _edge(array == LV_CAVITY),
        "SAX_LV_EPICARDIAL": _edge(left) & ~beside_right,
        "SAX_RV_SEPTUM": _edge(right) & beside_left,
        "SAX_RV_FREEWALL": _edge(right) & ~beside_left,
    }
    if (array == RV_WALL).any():
        found["SAX_RV_EPICARDIAL"] = _edge(right | (array == RV_WALL)) & ~beside_left
    return found


def _edge(mask: Mask) -> Mask:
    return np.asarray(mask & ~ndimage.binary_erosion(mask, border_value=0))


def _plane_line(labels: LabelMap, k: int) -> str:
    matrix = labels.voxel_to_world
    size = labels.spacing_mm
    along = (matrix[:3, :2] / size[:2]).T * LPS_TO_RAS
    words = [
        f"slice_{k + 1}", "sliceID: ", str(k + 1),
        "ImagePositionPatient", *_told((matrix[:3, 3] + k * matrix[:3, 2]) * LPS_TO_RAS),
        "ImageOrientationPatient", *_told(along.ravel()),
        "PixelSpacing", *_told(size[[1, 0]]),
    ]  # fmt: skip
    return "\t".join(words)


def _told(numbers: Float) -> list[str]:
    return [f"{number:.9g}" for number in numbers.tolist()]
