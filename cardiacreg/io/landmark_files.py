"""Landmark files: JSON that names its space and unit, 3D Slicer's markups, and VTK points.

A point without a space is a point in one of two worlds (RAS or LPS, turned by half a circle), so files
must say which, or whoever reads them. The six landmarks of the paper are known by their names, in any
order and in any case, and by short forms of them.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cardiacreg.errors import InvalidInputError, check_argument
from cardiacreg.geometry import LANDMARK_NAMES, Landmarks
from cardiacreg.io.atomic_write import write_bytes_atomically
from cardiacreg.io.point_files import (
    PointList,
    fcsv_text,
    legacy_vtk,
    markups_content,
    slicer_fcsv,
    slicer_markups,
    xml_vtk,
)
from cardiacreg.io.regular_file import check_regular_file, unreadable
from cardiacreg.io.source_name import named_source, warn_about_source

_SIGNS = {"RAS": (1.0, 1.0, 1.0), "LPS": (-1.0, -1.0, 1.0)}
_LARGEST_FILE_BYTES = 1_000_000
_FORM = '{"space": "RAS", "unit": "mm", "points": {"name": [x, y, z], ...}}'
_SIX = ", ".join(LANDMARK_NAMES)
_TABLES = {
    ".csv": "a table of points, which does not say their space (those of ANTs are in LPS)",
    ".txt": "plain text, which says neither the names of points nor their space",
    ".tsv": "a table of points, which does not say their space",
}
_OTHER = ("tricusp", "aort", "sept", "papill", "infund", "pulm", "lvot", "rvot")
_MITRAL = ("mv", "mvc", "mva", "mvcentre", "mvcenter", "mvplane", "mvannulus")


def read_landmarks(path: str | os.PathLike[str], *, space: str | None = None) -> Landmarks:
    """Read landmarks from JSON, 3D Slicer's markups or VTK polydata.

    Parameters
    ----------
    path : path-like
        ``.json`` of the form ``{"space": "RAS", "unit": "mm", "points": {"name": [x, y, z], ...}}``,
        Slicer's ``.mrk.json`` or ``.fcsv``, or VTK's ``.vtk`` or ``.vtp``.
    space : {"RAS", "LPS"}, optional
        The space of a VTK file, which need not hold it; where a file does, it must agree with it.

    Returns
    -------
    Landmarks
        World RAS+ mm, in the file's order. The six of the paper are put into their own order when they
        are named so, in whatever case, or by short forms such as ``RVI_ant``, ``MV`` and ``Apex``.

    Raises
    ------
    InvalidInputError
        If the file is missing or not of these forms (BAD_LANDMARK_FILE), the space or the unit is
        unknown (UNKNOWN_SPACE, UNKNOWN_UNIT), a name occurs twice (REPEATED_NAME), some of six names are
        known and others not (UNKNOWN_NAMES), or the points are not finite triples (BAD_LANDMARKS).

    Warns
    -----
    InputWarning
        If six points are not named as the paper's and hardly make a heart in the file's order.

    Examples
    --------
    >>> from cardiacreg import landmarks_from_labels, read_landmarks, write_landmarks
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> write_landmarks("landmarks.json", landmarks_from_labels(make_toy_heart().labels))
    >>> read_landmarks("landmarks.json").points_mm.shape
    (6, 3)
    """
    file = Path(path)
    name = file.name.lower()
    with named_source(os.fspath(path)):
        if file.suffix.lower() in _TABLES:
            check_regular_file(file)
            raise _bad_file(f"is {_TABLES[file.suffix.lower()]}")
        content = _file_content(file)
        if name.endswith(".vtk"):
            return _from_points(legacy_vtk(content), space)
        if name.endswith(".vtp"):
            return _from_points(xml_vtk(content), space)
        text = _decoded(content)
        if name.endswith(".fcsv"):
            return _from_points(slicer_fcsv(text), space)
        parsed = _parsed(text)
        if "markups" in parsed:
            return _from_points(slicer_markups(parsed), space)
        return _from_json(parsed, space)


def write_landmarks(
    path: str | os.PathLike[str], landmarks: Landmarks, *, space: str = "RAS"
) -> None:
    """Write landmarks in mm, complete or not at all.

    Parameters
    ----------
    path : path-like
        Ends with ``.json``, or with ``.mrk.json`` or ``.fcsv`` for 3D Slicer; an existing file is
        replaced in one step.
    landmarks : Landmarks
        What to write; names must be unique.
    space : {"RAS", "LPS"}
        Of the coordinates in the file, which names it.

    Raises
    ------
    InvalidInputError
        If the name ends otherwise (BAD_FILE_NAME), the folder does not exist (NO_FOLDER), the space is
        another (UNKNOWN_SPACE), or two landmarks share a name (BAD_LANDMARKS).

    Examples
    --------
    >>> from cardiacreg import landmarks_from_labels, write_landmarks
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> write_landmarks("points.json", landmarks_from_labels(make_toy_heart().labels))
    """
    check_argument(landmarks, Landmarks, "write_landmarks: landmarks")
    name = Path(path).name.lower()
    if not name.endswith((".json", ".fcsv")):
        raise InvalidInputError(
            f"{path}: needs a name that ends with .json, .mrk.json or .fcsv.", code="BAD_FILE_NAME"
        )
    if len(set(landmarks.names)) < len(landmarks.names):
        raise InvalidInputError(
            f"{path}: the names {landmarks.names} are not unique.", code="BAD_LANDMARKS"
        )
    placed = landmarks.points_mm * _signs(space, "choose one")
    if name.endswith(".fcsv"):
        write_bytes_atomically(path, fcsv_text(placed, landmarks.names, space).encode())
    elif name.endswith(".mrk.json"):
        write_json(path, markups_content(placed, landmarks.names, space))
    else:
        points = dict(zip(landmarks.names, placed.tolist(), strict=True))
        write_json(path, {"space": space, "unit": "mm", "points": points})


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write JSON (UTF-8, indented), complete or not at all.

    Parameters
    ----------
    path : path-like
        An existing file is replaced in one step.
    content : mapping or sequence
        May hold NumPy numbers and arrays and paths. NaN and infinite numbers become null, as JSON
        has no word for them.

    Raises
    ------
    InvalidInputError
        If the folder does not exist (NO_FOLDER).
    TypeError
        If `content` holds anything else.
    """
    write_bytes_atomically(path, (json_text(content) + "\n").encode())


def json_text(content: Mapping[str, Any] | Sequence[Any]) -> str:
    """Return the JSON that `write_json` writes; bytes of names that are no UTF-8 are escaped."""
    text = json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _plain(value: Any) -> Any:
    """Return a value in terms of what JSON knows."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _file_content(file: Path) -> bytes:
    check_regular_file(file)
    try:
        with file.open("rb") as stream:
            content = stream.read(_LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise unreadable(error.strerror or str(error)) from error
    if len(content) > _LARGEST_FILE_BYTES:
        raise _bad_file(f"is larger than {_LARGEST_FILE_BYTES} bytes, too large for landmarks")
    return content


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _bad_file("is not text") from error


def _parsed(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text, object_pairs_hook=without_repeated_keys)
    except InvalidInputError:
        raise
    except (ValueError, RecursionError) as error:
        raise _bad_file(f"is not JSON ({error})") from error
    known = isinstance(content, dict) and (
        "markups" in content or isinstance(content.get("points"), dict)
    )
    if not known:
        raise _bad_file("holds no points by name")
    return dict(content)


def without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of JSON; one that says two things of the same name is refused.

    Parameters
    ----------
    pairs : list of (str, value)
        As `json` hands them to an ``object_pairs_hook``.

    Returns
    -------
    dict

    Raises
    ------
    InvalidInputError
        If a name occurs more than once (REPEATED_NAME).
    """
    counts = Counter(name for name, _ in pairs)
    repeated = [name for name, count in counts.items() if count > 1]
    if repeated:
        raise InvalidInputError(
            f"the file says {' and '.join(map(repr, repeated))} more than once, and which one is meant "
            "cannot be told; keep one of each.",
            code="REPEATED_NAME",
        )
    return dict(pairs)


def _from_json(content: dict[str, Any], space: str | None) -> Landmarks:
    signs = _signs(content.get("space"), "add it to the file")
    if space is not None and space != content["space"]:
        raise InvalidInputError(
            f"the file says space {content['space']!r} and the call {space!r}; leave the argument "
            "away, or correct the file.",
            code="UNKNOWN_SPACE",
        )
    if content.get("unit", "mm") != "mm":
        raise InvalidInputError(
            f'the unit is {content["unit"]!r}; needs "mm".', code="UNKNOWN_UNIT"
        )
    points = content["points"]
    rows = [_triple(name, points[name]) for name in points]
    if not rows:
        raise _bad_file("holds no points")
    return _ordered(np.array(rows) * signs, tuple(points))


def _from_points(found: PointList, space: str | None) -> Landmarks:
    """Points of other tools; one point may be named twice there, unless it is a landmark."""
    if found.space is not None and space not in (None, found.space):
        raise InvalidInputError(
            f"the file says space {found.space!r} and the call {space!r}; leave the argument away, or "
            "correct the file.",
            code="UNKNOWN_SPACE",
        )
    signs = _signs(found.space or space, "pass space='LPS' or 'RAS' to cardiacreg.read_landmarks")
    points = found.points * signs
    if found.names:
        return _ordered(points, found.names)
    return _told(Landmarks(points))


def _ordered(points: NDArray[np.float64], names: tuple[str, ...]) -> Landmarks:
    """The six landmarks in the order of the paper, where the names are theirs; else as they are."""
    known = [landmark_of(name) for name in names]
    counts = Counter(n for n in known if n is not None)
    if len(names) == len(LANDMARK_NAMES) == len(counts):
        order = [known.index(n) for n in range(len(known))]
        return Landmarks(points[order], LANDMARK_NAMES)
    if len(names) == len(LANDMARK_NAMES) and counts:
        strange = [n for n, k in zip(names, known, strict=True) if k is None or counts[k] > 1]
        raise InvalidInputError(
            f"of six names, {strange} are not known or mean the same landmark, so that the order "
            f"cannot be told; needs {_SIX}.",
            code="UNKNOWN_NAMES",
        )
    return _told(Landmarks(points, names))


def _told(landmarks: Landmarks) -> Landmarks:
    """Warn where six points whose names do not tell their order can hardly be a heart's in this one.

    Of the 34 hearts of 17 ACDC patients all pass as they are, and in 0.3 % of all other orders: above
    all in the one that turns the heart upside down without mirroring it.
    """
    points = landmarks.points_mm
    if len(points) == len(LANDMARK_NAMES) and not _is_heart(points):
        warn_about_source(
            "six points whose names do not tell which is which, and in the order "
            f"{'; '.join(LANDMARK_NAMES)} they hardly make a heart. Name them, or check their order; "
            "right only if the scan is stored mirrored."
        )
    return landmarks


def _is_heart(points: NDArray[np.float64]) -> bool:
    """Whether six points lie as those of a heart in RAS: right ventricle, axis and hand."""
    apex, mitral = points[4:]
    long_axis = mitral - apex
    length = float(np.linalg.norm(long_axis))
    if length == 0:
        return False
    heights = (points[:4] - apex) @ long_axis / length
    away = points[:4] - apex - np.outer(heights, long_axis / length)
    far, septum = np.linalg.norm(away, axis=1), (away[0] + away[2]) / 2
    hand = np.linalg.det(np.stack([long_axis, points[1] - points[3], points[0] - points[2]]))
    between = heights.min() > 0 and heights.max() < length > np.linalg.norm(points[0] - points[2])
    sides = away[3] @ septum < 0 < away[1] @ septum and far[1] > max(far[0], far[2])
    return bool(between and sides and hand > 0)


def landmark_of(name: str) -> int | None:
    """Return which of the six landmarks a name means, from 0, in any case and many short forms.

    Parameters
    ----------
    name : str

    Returns
    -------
    int or None
        None where it means none of them.
    """
    letters = _letters(name)
    for number, known in enumerate(LANDMARK_NAMES):
        if letters == _letters(known):
            return number
    if any(word in letters for word in _OTHER):
        return None
    front, back = "ant" in letters, "inf" in letters or "post" in letters
    side = any(word in letters for word in ("lat", "free", "turn"))
    if front or back or side:
        return _around_the_middle(letters, front, back, side)
    if "mitral" in letters or letters in _MITRAL:
        return LANDMARK_NAMES.index("mitral valve centre")
    apex = "apex" in letters or "apical" in letters
    return LANDMARK_NAMES.index("apex") if apex and "rv" not in letters else None


def _letters(name: str) -> str:
    return "".join(re.findall(r"[^\W\d_]+", name.casefold()))


def _around_the_middle(letters: str, front: bool, back: bool, side: bool) -> int | None:
    """Which of the first four a name means that says anterior, inferior or lateral."""
    right, left = "rv" in letters, "lv" in letters
    if front + back + side != 1 or "mitral" in letters or right and left:
        return None
    if side:
        return 1 if right else 3 if left else None
    return None if left or not (right or "ins" in letters) else 0 if front else 2


def _triple(name: str, value: Any) -> list[float]:
    numbers = isinstance(value, list) and all(
        isinstance(x, int | float) and not isinstance(x, bool) for x in value
    )
    if not numbers or len(value) != 3:
        raise InvalidInputError(
            f"the point {name!r} is {value!r}; needs three numbers [x, y, z] in mm.",
            code="BAD_LANDMARKS",
        )
    return [float(x) if abs(x) < 1e300 else float("inf") for x in value]


def _signs(space: Any, advice: str) -> NDArray[np.float64]:
    known = _SIGNS.get(space) if isinstance(space, str) else None
    if known is None:
        shown = "not stated" if space is None else repr(space)
        raise InvalidInputError(
            f'the space of the points is {shown}; needs "RAS" or "LPS": {advice}.',
            code="UNKNOWN_SPACE",
        )
    return np.array(known)


def _bad_file(what: str) -> InvalidInputError:
    return InvalidInputError(
        f"the file {what}; needs {_FORM}, with the names {_SIX}, or Slicer's .mrk.json or .fcsv.",
        code="BAD_LANDMARK_FILE",
    )
