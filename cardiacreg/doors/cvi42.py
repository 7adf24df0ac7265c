"""Contours of Circle cvi42, from workspaces exported as XML (``.cvi42wsx``).

Elements carry keys (``Hash:key``). Under ``ImageStates`` there is one element for every image that was
looked at, whose key is its SOP instance UID; its ``Contours`` hold one element for every contour, named
as ``saendocardialContour``, with ``Points`` (``Point:x`` along a row, ``Point:y`` along a column) in
parts of a pixel, of which ``SubpixelResolution`` go into one. Whole numbers of pixels are taken for
their centres. Contours lie in images, so that the DICOM study is needed to place them. The form is as
public readers have it (ukbb_cardiac); there is no public specification.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from cardiacreg.arrays import Float
from cardiacreg.doors.contours import FEWEST_POINTS, Contour, labels_from_contours
from cardiacreg.doors.dicom_cine import CineStack
from cardiacreg.errors import InvalidInputError, warn
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, LabelMap, apply_matrix
from cardiacreg.io.bounded_read import read_everything
from cardiacreg.io.source_name import named_source

_LARGEST_BYTES = 500_000_000
_KEY = "{http://www.circlecvi.com/cvi42/Workspace/Hash/}key"
_PAINTED: tuple[tuple[str, int], ...] = (
    ("saepicardialContour", LV_WALL),
    ("sarvendocardialContour", RV_CAVITY),
    ("saendocardialContour", LV_CAVITY),
)
"""Contours of the short axis in the order of painting."""

Cvi42Contours = Mapping[str, Mapping[str, Float]]
"""SOP instance UID to name of the contour to pixels (column, row), shape (n, 2)."""


class FrameLabels(NamedTuple):
    """The labels of one frame of a stack."""

    frame: int
    labels: LabelMap


def read_cvi42(path: str | os.PathLike[str]) -> dict[str, dict[str, Float]]:
    """Read the contours of a cvi42 workspace that was exported as XML.

    Parameters
    ----------
    path : path-like
        ``.cvi42wsx`` or ``.xml``; the binary ``.cvi42ws`` is not readable.

    Returns
    -------
    dict
        SOP instance UID to name of the contour to pixels (column, row), shape (n, 2).

    Raises
    ------
    InvalidInputError
        FILE_NOT_FOUND, TOO_LARGE, or BAD_CONTOUR_FILE if the file is no such XML or has no contours.

    Examples
    --------
    >>> from pathlib import Path
    >>> from cardiacreg import read_cvi42
    >>> hash_ = "http://www.circlecvi.com/cvi42/Workspace/Hash/"
    >>> points = "<p><x>{}</x><y>{}</y></p>"
    >>> triangle = "".join(points.format(x, y) for x, y in ((40, 40), (80, 40), (40, 80)))
    >>> text = f'<a xmlns:h="{hash_}"><b h:key="ImageStates"><b h:key="1.2.3"><b h:key="Contours">'
    >>> text += f'<b h:key="saendocardialContour"><b h:key="Points">{triangle}</b>'
    >>> text += '<b h:key="SubpixelResolution">4</b></b></b></b></b></a>'
    >>> _ = Path("drawn.cvi42wsx").write_text(text)
    >>> read_cvi42("drawn.cvi42wsx")["1.2.3"]["saendocardialContour"].tolist()
    [[10.0, 10.0], [20.0, 10.0], [10.0, 20.0]]
    """
    with named_source(os.fspath(path)):
        root = _root(read_everything(path, max_bytes=_LARGEST_BYTES))
        found: dict[str, dict[str, Float]] = {}
        for states in root.iter():
            if states.get(_KEY) != "ImageStates":
                continue
            for image in states:
                contours = _contours(image)
                if contours:
                    found[str(image.get(_KEY))] = contours
        if not found:
            raise _bad_file("holds no contours")
        return found


def labels_from_cvi42(contours: Cvi42Contours, stack: CineStack) -> list[FrameLabels]:
    """Return the short-axis contours of cvi42 as canonical label maps, for every frame that has any.

    Parameters
    ----------
    contours : mapping
        As `read_cvi42` returns them.
    stack : CineStack
        The short-axis stack of the study, as `read_dicom_cine` returns it.

    Returns
    -------
    list of FrameLabels
        LV cavity, LV wall and RV cavity on the lattice of the stack, in order of frames.

    Raises
    ------
    InvalidInputError
        OTHER_STUDY if no contour is of an image of the stack.

    Warns
    -----
    InputWarning
        If short-axis contours are of images outside the stack.

    Examples
    --------
    >>> from cardiacreg import labels_from_cvi42, read_dicom_cine, write_dicom_cine
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> write_dicom_cine("contoured", [make_toy_heart().image] * 2)
    >>> (stack,) = read_dicom_cine("contoured")
    >>> square = {"saendocardialContour": [(10, 10), (20, 10), (20, 20), (10, 20)]}
    >>> (found,) = labels_from_cvi42({stack.images[3][1].uid: square}, stack)
    >>> found.frame, int(found.labels.array[:, :, 3].sum())
    (1, 121)
    """
    places = {
        image.uid: (t, k) for k, own in enumerate(stack.images) for t, image in enumerate(own)
    }
    drawn: dict[int, list[Contour]] = {}
    outside = 0
    for uid, own in contours.items():
        painted = [(own[name], label) for name, label in _PAINTED if name in own]
        if painted and uid not in places:
            outside += 1
        elif painted:
            frame, k = places[uid]
            drawn.setdefault(frame, []).extend(_placed(p, k, label, stack) for p, label in painted)
    if not drawn:
        raise InvalidInputError(
            f"{stack.name}: none of {len(contours)} images with contours is one of the stack; needs the "
            "DICOM study that was contoured.",
            code="OTHER_STUDY",
        )
    if outside:
        warn(
            f"{stack.name}: {outside} images with short-axis contours are not of this stack; left out."
        )
    i, j, k, _ = stack.array.shape
    return [
        FrameLabels(t, labels_from_contours(drawn[t], (i, j, k), stack.voxel_to_world))
        for t in sorted(drawn)
    ]


def _placed(pixels: Float, k: int, label: int, stack: CineStack) -> Contour:
    voxels = np.column_stack([pixels, np.full(len(pixels), float(k))])
    return Contour(apply_matrix(stack.voxel_to_world, voxels), label)


def _root(content: bytes) -> ElementTree.Element:
    if re.search(rb"<!(?:DOCTYPE|ENTITY)", content[:4096]):
        raise _bad_file("declares a document type, which a workspace does not")
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # the latter of its encoding
        raise _bad_file(f"is not XML ({error})") from error


def _contours(image: ElementTree.Element) -> dict[str, Float]:
    """Return the contours of one image by name."""
    found = {}
    for group in image:
        if group.get(_KEY) != "Contours":
            continue
        for contour in group:
            points = _points(contour)
            if len(points) >= FEWEST_POINTS:
                found[str(contour.get(_KEY))] = points
    return found


def _points(contour: ElementTree.Element) -> NDArray[np.float64]:
    parts = {str(part.get(_KEY)): part for part in contour}
    points = parts.get("Points")
    resolution = parts.get("SubpixelResolution")
    if points is None:
        return np.empty((0, 2))
    try:
        within = 1.0 if resolution is None else float(resolution.text or "1")
        found = [[_coordinate(point, axis) for axis in "xy"] for point in points]
    except (TypeError, ValueError) as error:
        raise _bad_file(
            f"has a contour {contour.get(_KEY)} with a point that is no number"
        ) from error
    array = np.array(found, dtype=np.float64).reshape(-1, 2)
    if not np.isfinite(array).all() or not within > 0:
        raise _bad_file(f"has a contour {contour.get(_KEY)} with points that are not finite")
    return array / within


def _coordinate(point: ElementTree.Element, axis: str) -> float:
    """Return the text of ``Point:x`` or ``Point:y``, in whatever namespace."""
    return float(next((e.text or "" for e in point if e.tag.rpartition("}")[2] == axis), ""))


def _bad_file(what: str) -> InvalidInputError:
    return InvalidInputError(
        f"the file {what}; needs a workspace of cvi42 exported as XML (.cvi42wsx).",
        code="BAD_CONTOUR_FILE",
    )
