"""Guide points of biv-me: contours and valve points of one phase, and the label maps that they draw.

A text file, separated by tabs, holds points in patient mm as in DICOM (LPS), each with its kind and the
number of its plane; ``SliceInfoFile.txt`` beside it holds the planes. The contours come from masks: a
point is the centre of an outermost pixel, in no particular order, so that the structure's edge runs
half a pixel outside. The right ventricle's outline is parted into septum and free wall, the outer
outline of the LV has no points where the septum has, and long-axis outlines are open at the valves.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from cardiacreg.arrays import Float
from cardiacreg.doors.contours import FEWEST_POINTS
from cardiacreg.doors.image_planes import (
    LPS_TO_RAS,
    ImagePlane,
    heights_mm,
    order_along_normal,
    slice_distance_mm,
)
from cardiacreg.doors.outlines import as_tour, filled
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, LabelMap
from cardiacreg.io.bounded_read import read_everything
from cardiacreg.io.source_name import named_source

PLANES_FILE = "SliceInfoFile.txt"
SHORT, LONG = "SAX", "LAX"
_LARGEST_BYTES = 50_000_000
_OFF_PLANE_MM = 0.05
_MARGIN_PIXELS = 8
_COLUMNS = ("x", "y", "z", "contour type", "frameID")
_FRAME_NAMES = ("frameID", "sliceID")
_TIME = "time frame"
_LEFT_VALVES = ("MITRAL_VALVE", "AORTA_VALVE")
_RIGHT_VALVES = ("TRICUSPID_VALVE", "PULMONARY_VALVE")
_PLANE_WORDS = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}


@dataclass(frozen=True, slots=True, eq=False)
class GuidePoints:
    """The contours and points of one phase.

    Parameters
    ----------
    number : int or None
        The phase, where the file says.
    points_mm : mapping of (plane, kind) to ndarray, shape (n, 3)
        World RAS+ mm; kinds as in the file, ``"SAX_LV_ENDOCARDIAL"`` or ``"MITRAL_VALVE"``.
    planes : mapping of int to ImagePlane
        All planes that were acquired, also those without contours.
    """

    number: int | None
    points_mm: Mapping[tuple[int, str], Float]
    planes: Mapping[int, ImagePlane]

    def of(self, plane: int, *kinds: str) -> Float:
        """Return the points of some kinds in one plane, shape (n, 3)."""
        return _stacked([self.points_mm.get((plane, kind)) for kind in kinds])

    def everywhere(self, kind: str) -> Float:
        """Return the points of a kind in all planes, shape (n, 3)."""
        return _stacked([found for (_, own), found in self.points_mm.items() if own == kind])

    def short_axis_planes(self) -> tuple[int, ...]:
        """Return the numbers of the parallel planes that have short-axis contours or lie among them.

        Raises
        ------
        InvalidInputError
            If no plane has short-axis contours (NO_CONTOURS).
        """
        drawn = self._with_contours(SHORT)
        if not drawn:
            raise InvalidInputError(
                "guide points: no plane has short-axis contours (SAX_...); needs at least two.",
                code="NO_CONTOURS",
            )
        first = self.planes[drawn[0]]
        stack = [number for number, plane in self.planes.items() if plane.is_parallel(first)]
        order = order_along_normal(heights_mm([self.planes[number] for number in stack]))
        return tuple(stack[n] for n in order)

    def short_axis_labels(
        self, *, shape: tuple[int, int] | None = None, edge_pixels: float = 0.5
    ) -> LabelMap:
        """Return the short-axis contours as a label map.

        Parameters
        ----------
        shape : tuple of int, optional
            Pixels along i and j; as many as the points need when absent. Pixel (0, 0) is the images'.
        edge_pixels : float
            How far structures reach beyond the points: 0.5 for points of masks, 0 for drawn contours.

        Returns
        -------
        LabelMap
            Canonical: LV cavity, LV wall, RV cavity; slice k follows the order of the planes. A plane
            without contours is an empty slice.

        Raises
        ------
        InvalidInputError
            NO_CONTOURS, or UNEVEN_SLICES where the planes have gaps or lie at one place.

        Notes
        -----
        The outer outline of the RV is not used: biv-me offsets it from the inner one.
        """
        numbers = self.short_axis_planes()
        if len(numbers) < 2:
            raise InvalidInputError(
                "guide points: one short-axis plane has contours; needs at least two.",
                code="NO_CONTOURS",
            )
        planes = [self.planes[number] for number in numbers]
        heights = heights_mm(planes)
        sign = 1.0 if heights[-1] > 0 else -1.0
        distance = sign * slice_distance_mm(sign * heights)
        size = shape or self._shape(numbers)
        slices = [
            _short_axis_slice(self, number, planes[0], size, edge_pixels) for number in numbers
        ]
        return LabelMap(np.stack(slices, axis=-1), planes[0].voxel_to_world(distance))

    def long_axis_labels(
        self,
        *,
        shape: tuple[int, int] | None = None,
        edge_pixels: float = 0.5,
        thickness_mm: float = 1.0,
    ) -> dict[int, LabelMap]:
        """Return the long-axis contours of every plane as a label map of one slice.

        Parameters
        ----------
        shape : tuple of int, optional
            Pixels along i and j; as many as the points need when absent. Pixel (0, 0) is the image's.
        edge_pixels : float
            As for `short_axis_labels`.
        thickness_mm : float
            Of the slice, which the files do not say; only the matrix depends on it.

        Returns
        -------
        dict of int to LabelMap
            By number of the plane. LV cavity and LV wall are closed by the mitral and aortic points,
            the RV cavity by the tricuspid and pulmonary points.
        """
        return {
            number: LabelMap(
                _long_axis_slice(self, number, shape or self._shape((number,)), edge_pixels)[
                    ..., None
                ],
                self.planes[number].voxel_to_world(thickness_mm),
            )
            for number in self._with_contours(LONG)
        }

    def _with_contours(self, view: str) -> tuple[int, ...]:
        return tuple(sorted({number for number, kind in self.points_mm if kind.startswith(view)}))

    def _shape(self, numbers: tuple[int, ...]) -> tuple[int, int]:
        """Smallest lattice from pixel (0, 0) that holds the points of some planes, and a margin."""
        first = self.planes[numbers[0]]
        held = [each for (number, _), each in self.points_mm.items() if number in numbers]
        last = np.ceil(first.pixels(np.concatenate(held)).max(axis=0)).astype(int) + _MARGIN_PIXELS
        return int(last[0]), int(last[1])


def read_guide_points(
    path: str | os.PathLike[str],
    *,
    planes: str | os.PathLike[str] | Mapping[int, ImagePlane] | None = None,
    frame: int | None = None,
) -> GuidePoints:
    """Read one phase of biv-me's guide points.

    Parameters
    ----------
    path : path-like
        ``GPFile_*.txt``: columns x, y, z, contour type, frameID (or sliceID), weight, time frame.
    planes : path-like or mapping, optional
        The file of planes; ``SliceInfoFile.txt`` beside the points when absent.
    frame : int, optional
        Which time frame, where a file holds the same contour at several. A file of one phase may name
        others for some of its planes, as biv-me does: they all are of the phase that most have.

    Returns
    -------
    GuidePoints

    Raises
    ------
    InvalidInputError
        If a file is missing (FILE_NOT_FOUND) or not of this form (BAD_CONTOUR_FILE), a plane is not in
        the file of planes (UNKNOWN_PLANE), a point lies more than 0.05 mm off its plane, so that points
        and planes are not of one study or space (OFF_PLANE), or several time frames are in the file
        (SEVERAL_FRAMES) or not the one asked for (NO_SUCH_FRAME).

    Examples
    --------
    >>> from cardiacreg import read_guide_points, write_guide_points
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> from pathlib import Path
    >>> Path("contours").mkdir()
    >>> write_guide_points("contours", make_toy_heart().labels)
    >>> points = read_guide_points("contours/GPFile_000.txt")
    >>> points.short_axis_labels().present()
    (1, 2, 4)
    """
    file = Path(path)
    if not isinstance(planes, Mapping):
        planes = read_guide_planes(file.parent / PLANES_FILE if planes is None else planes)
    with named_source(os.fspath(path)):
        number, points = _parsed(_text(file), frame)
        for (plane, kind), each in points.items():
            _check_plane(plane, kind, each, planes)
    return GuidePoints(number, MappingProxyType(points), MappingProxyType(dict(planes)))


def read_guide_planes(path: str | os.PathLike[str]) -> dict[int, ImagePlane]:
    """Read the planes of biv-me's ``SliceInfoFile.txt``, by number.

    Parameters
    ----------
    path : path-like

    Raises
    ------
    InvalidInputError
        FILE_NOT_FOUND, BAD_CONTOUR_FILE, BAD_PLANE, or REPEATED_NAME for a number that occurs twice.
    """
    found: dict[int, ImagePlane] = {}
    with named_source(os.fspath(path)):
        for words in (line.split() for line in _text(Path(path)).splitlines()):
            if not words:
                continue
            number, plane = _plane(words)
            if number in found:
                raise InvalidInputError(
                    f"plane {number} is described twice; needs one line for each plane.",
                    code="REPEATED_NAME",
                )
            found[number] = plane
    return found


def _plane(words: list[str]) -> tuple[int, ImagePlane]:
    try:
        number = int(words[words.index("sliceID:") + 1])
        position, orientation, size = (
            _numbers(words, name, count) for name, count in _PLANE_WORDS.items()
        )
    except (ValueError, IndexError) as error:
        raise _bad_file(
            f"has a line {' '.join(words)[:80]!r} that describes no plane",
            "lines of sliceID:, ImagePositionPatient, ImageOrientationPatient and PixelSpacing with "
            "their numbers",
        ) from error
    return number, ImagePlane.from_dicom(position, orientation, size)


def _numbers(words: list[str], name: str, count: int) -> list[float]:
    first = words.index(name) + 1
    return [float(word) for word in words[first : first + count]]


def _text(file: Path) -> str:
    try:
        return read_everything(file, max_bytes=_LARGEST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _bad_file("is not text", "biv-me's guide points or planes") from error


def _parsed(text: str, frame: int | None) -> tuple[int | None, dict[tuple[int, str], Float]]:
    """Return the phase and its points by plane and kind."""
    try:
        table = csv.DictReader(io.StringIO(text), delimiter="\t")
        names, rows = table.fieldnames or (), list(table)
    except csv.Error as error:
        raise _bad_file(f"is no table ({error})", f"{', '.join(_COLUMNS)}, by tabs") from error
    plane_name = next((name for name in _FRAME_NAMES if name in names), "")
    if not plane_name or not set(_COLUMNS[:4]) <= set(names):
        raise _bad_file(
            f"has the columns {', '.join(names)[:120]}", f"{', '.join(_COLUMNS)}, by tabs"
        )
    found: dict[int | None, dict[tuple[int, str], list[list[float]]]] = {}
    for line, row in enumerate(rows, start=2):
        try:
            point = [float(row[axis]) for axis in "xyz"]
            key = int(float(row[plane_name])), row["contour type"].strip()
            phase = None if row.get(_TIME) in (None, "") else int(float(row[_TIME]))
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise _bad_file(
                f"has no point in line {line}", "three numbers, a kind and a plane"
            ) from error
        if not np.isfinite(point).all():
            raise _bad_file(f"has a point that is not finite in line {line}", "mm")
        found.setdefault(phase, {}).setdefault(key, []).append(point)
    return _one_phase(found, frame)


def _one_phase(
    found: dict[int | None, dict[tuple[int, str], list[list[float]]]], wanted: int | None
) -> tuple[int | None, dict[tuple[int, str], Float]]:
    """Return the phase that was asked for, or all points where no contour is there twice."""
    present = sorted(found, key=lambda number: -sum(map(len, found[number].values())))
    told = ", ".join(str(each) for each in present)
    if not present:
        raise _bad_file("holds no points", "at least one contour")
    if wanted is not None and wanted not in found:
        raise InvalidInputError(
            f"has no time frame {wanted}, only {told}; choose one of them.", code="NO_SUCH_FRAME"
        )
    keys = [key for each in found.values() for key in each]
    if wanted is None and len(set(keys)) < len(keys):
        raise InvalidInputError(
            f"holds contours of {len(present)} time frames ({told}); choose one: "
            f"frame={present[0]}.",
            code="SEVERAL_FRAMES",
        )
    chosen = present if wanted is None else [wanted]
    points = {key: np.array(each) * LPS_TO_RAS for n in chosen for key, each in found[n].items()}
    return chosen[0], points


def _check_plane(number: int, kind: str, points: Float, planes: Mapping[int, ImagePlane]) -> None:
    if number not in planes:
        raise InvalidInputError(
            f"{kind} lies in plane {number}, which the file of planes does not describe (it has "
            f"{', '.join(map(str, planes))}); needs the planes of the same study.",
            code="UNKNOWN_PLANE",
        )
    off = float(planes[number].distances_mm(points).max())
    if off > _OFF_PLANE_MM:
        raise InvalidInputError(
            f"{kind} lies {off:.2f} mm off its plane {number}; points and planes must be of one study "
            "and one space (LPS mm).",
            code="OFF_PLANE",
        )


def _stacked(found: list[Float | None]) -> Float:
    return np.concatenate([np.empty((0, 3)), *[each for each in found if each is not None]])


def _short_axis_slice(
    points: GuidePoints, number: int, lattice: ImagePlane, shape: tuple[int, int], edge: float
) -> NDArray[np.uint8]:
    """Paint one plane: the right ventricle over the left wall, which lacks the septum."""
    outer = points.of(number, "SAX_LV_EPICARDIAL")
    septum = points.of(number, "SAX_RV_SEPTUM")
    painted = (
        (LV_WALL, np.concatenate([outer, septum]) if len(outer) >= FEWEST_POINTS else outer, ()),
        (RV_CAVITY, np.concatenate([septum, points.of(number, "SAX_RV_FREEWALL")]), ()),
        (LV_CAVITY, points.of(number, "SAX_LV_ENDOCARDIAL"), ()),
    )
    return _painted(painted, points.planes[number], lattice, shape, edge)


def _long_axis_slice(
    points: GuidePoints, number: int, shape: tuple[int, int], edge: float
) -> NDArray[np.uint8]:
    """Paint one plane, with straight lines across the valves."""
    outer = points.of(number, "LAX_LV_EPICARDIAL")
    septum = points.of(number, "LAX_RV_SEPTUM")
    left, right = (
        [each for kind in kinds if len(each := points.of(number, kind))]
        for kinds in (_LEFT_VALVES, _RIGHT_VALVES)
    )
    painted = (
        (LV_WALL, np.concatenate([outer, septum]) if len(outer) >= FEWEST_POINTS else outer, left),
        (RV_CAVITY, np.concatenate([septum, points.of(number, "LAX_RV_FREEWALL")]), right),
        (LV_CAVITY, points.of(number, "LAX_LV_ENDOCARDIAL"), left),
    )
    return _painted(painted, points.planes[number], points.planes[number], shape, edge)


def _painted(
    outlines: tuple[tuple[int, Float, list[Float] | tuple[()]], ...],
    plane: ImagePlane,
    lattice: ImagePlane,
    shape: tuple[int, int],
    edge: float,
) -> NDArray[np.uint8]:
    found = np.zeros(shape, dtype=np.uint8)
    offset = lattice.pixels(plane.origin_mm[None])
    for label, drawn, valves in outlines:
        if len(drawn) < FEWEST_POINTS:
            continue
        every = np.concatenate([drawn, *valves])
        outline = plane.pixels(every) + np.where(np.abs(offset) < 1e-3, 0.0, offset)
        found[filled(as_tour(outline, openings=_openings(len(drawn), valves)), shape, edge)] = label
    return found


def _openings(first: int, valves: list[Float] | tuple[()]) -> tuple[tuple[int, int], ...]:
    """Rows of the two points of each valve, which follow the points that were drawn."""
    found = []
    for valve in valves:
        if len(valve) == 2:
            found.append((first, first + 1))
        first += len(valve)
    return tuple(found)


def _bad_file(what: str, needed: str) -> InvalidInputError:
    return InvalidInputError(f"the file {what}; needs {needed}.", code="BAD_CONTOUR_FILE")
