"""Landmark files: JSON that names its space and unit, and legacy VTK points.

A point without a space is a point in one of two worlds (RAS or LPS, turned by half a circle), so
JSON files must say which, and VTK files, which cannot, need to be told.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LANDMARK_NAMES, Landmarks
from cardiacreg.io.atomic_write import write_bytes_atomically
from cardiacreg.io.regular_file import check_regular_file, unreadable
from cardiacreg.io.source_name import named_source

_SIGNS = {"RAS": (1.0, 1.0, 1.0), "LPS": (-1.0, -1.0, 1.0)}
_LARGEST_FILE_BYTES = 1_000_000
_FORM = '{"space": "RAS", "unit": "mm", "points": {"name": [x, y, z], ...}}'


def read_landmarks(path: str | os.PathLike[str], *, space: str | None = None) -> Landmarks:
    """Read landmarks from a JSON or a legacy ASCII VTK polydata file.

    Parameters
    ----------
    path : path-like
        ``.vtk``, or ``.json`` of the form
        ``{"space": "RAS", "unit": "mm", "points": {"name": [x, y, z], ...}}``.
    space : {"RAS", "LPS"}, optional
        The space of a ``.vtk`` file, which does not hold it; a JSON file must agree with it.

    Returns
    -------
    Landmarks
        World RAS+ mm, in the file's order; the six of the paper are put into their own order when
        they are named so.

    Raises
    ------
    InvalidInputError
        If the file is missing or not of this form (BAD_LANDMARK_FILE), the space or the unit is
        unknown (UNKNOWN_SPACE, UNKNOWN_UNIT), a name occurs twice (REPEATED_NAME), or the points are
        not finite triples (BAD_LANDMARKS).

    Examples
    --------
    >>> from cardiacreg import landmarks_from_labels, read_landmarks, write_landmarks
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> write_landmarks("landmarks.json", landmarks_from_labels(make_toy_heart().labels))
    >>> read_landmarks("landmarks.json").points_mm.shape
    (6, 3)
    """
    file = Path(path)
    with named_source(os.fspath(path)):
        text = _file_text(file)
        if file.suffix.lower() == ".vtk":
            return Landmarks(
                _vtk_points(text) * _signs(space, ".vtk files do not hold it: pass space=")
            )
        return _from_json(_parsed(text), space)


def write_landmarks(path: str | os.PathLike[str], landmarks: Landmarks) -> None:
    """Write landmarks as JSON in RAS mm, complete or not at all.

    Parameters
    ----------
    path : path-like
        Ends with ``.json``; an existing file is replaced in one step.
    landmarks : Landmarks
        What to write; names must be unique.

    Raises
    ------
    InvalidInputError
        If the name ends otherwise (BAD_FILE_NAME), the folder does not exist (NO_FOLDER), or two
        landmarks share a name (BAD_LANDMARKS).

    Examples
    --------
    >>> from cardiacreg import landmarks_from_labels, write_landmarks
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> write_landmarks("points.json", landmarks_from_labels(make_toy_heart().labels))
    """
    if Path(path).suffix.lower() != ".json":
        raise InvalidInputError(f"{path}: needs a name that ends with .json.", code="BAD_FILE_NAME")
    if len(set(landmarks.names)) < len(landmarks.names):
        raise InvalidInputError(
            f"{path}: the names {landmarks.names} are not unique.", code="BAD_LANDMARKS"
        )
    points = dict(zip(landmarks.names, landmarks.points_mm.tolist(), strict=True))
    write_json(path, {"space": "RAS", "unit": "mm", "points": points})


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
    """Return the JSON that `write_json` writes."""
    return json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False)


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


def _file_text(file: Path) -> str:
    check_regular_file(file)
    try:
        with file.open("rb") as stream:
            content = stream.read(_LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise unreadable(error.strerror or str(error)) from error
    if len(content) > _LARGEST_FILE_BYTES:
        raise _bad_file(f"is larger than {_LARGEST_FILE_BYTES} bytes, too large for landmarks")
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
    if not isinstance(content, dict) or not isinstance(content.get("points"), dict):
        raise _bad_file("holds no points by name")
    return content


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
    names = tuple(points)
    if set(names) == set(LANDMARK_NAMES):
        names = LANDMARK_NAMES
    rows = [_triple(name, points[name]) for name in names]
    if not rows:
        raise _bad_file("holds no points")
    return Landmarks(np.array(rows) * signs, names)


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
    if not isinstance(space, str) or space not in _SIGNS:
        raise InvalidInputError(
            f'the space of the points is {space!r}; needs "RAS" or "LPS": {advice}.',
            code="UNKNOWN_SPACE",
        )
    return np.array(_SIGNS[space])


def _vtk_points(text: str) -> NDArray[np.float64]:
    words = text.split()
    if "ASCII" not in words[:40] or "POINTS" not in words:
        raise _bad_file("is not ASCII legacy VTK polydata with POINTS")
    start = words.index("POINTS")
    try:
        count = int(words[start + 1])
        numbers = np.array(words[start + 3 : start + 3 + 3 * count], dtype=np.float64)
        return numbers.reshape(count, 3)
    except (IndexError, ValueError) as error:
        raise _bad_file("does not hold the POINTS it announces") from error


def _bad_file(what: str) -> InvalidInputError:
    return InvalidInputError(f"the file {what}; needs {_FORM}.", code="BAD_LANDMARK_FILE")
