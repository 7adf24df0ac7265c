"""Points in files of other tools: 3D Slicer's ``.mrk.json`` and ``.fcsv``, VTK's ``.vtk`` and ``.vtp``.

Slicer's files say whether they are in LPS or RAS, by a word or a number. VTK has no place for it; Slicer
writes ``SPACE=LPS`` into the title of a ``.vtk`` or a comment or field of a ``.vtp``. Layouts are facts
about the formats.
"""

from __future__ import annotations

import base64
import binascii
import csv
import io
import re
import zlib
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from cardiacreg.errors import InvalidInputError

_SPACES = {"0": "RAS", "1": "LPS", "RAS": "RAS", "LPS": "LPS"}
_MARKUPS_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)
_FCSV_COLUMNS = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"
_MOST_POINTS = 10_000
_LARGEST = 1e300
_SPACE = re.compile(r"SPACE\s*=\s*(RAS|LPS)")
_VTK_TYPES = {"float": ">f4", "double": ">f8", "Float32": "f4", "Float64": "f8"}
_HEADERS = {"UInt32": "u4", "UInt64": "u8"}


class PointList(NamedTuple):
    """The points of a file."""

    points: NDArray[np.float64]
    """Shape (n, 3), mm, as stored."""
    names: tuple[str, ...]
    """Empty where the file has none."""
    space: str | None
    """RAS or LPS, where the file says."""


def slicer_markups(content: dict[str, Any]) -> PointList:
    """Return the control points of a ``.mrk.json``, of all its lists.

    Parameters
    ----------
    content : dict
        The JSON, which has ``markups``.

    Raises
    ------
    InvalidInputError
        BAD_LANDMARK_FILE, BAD_LANDMARKS, UNKNOWN_SPACE (lists that differ, or IJK) or UNKNOWN_UNIT.
    """
    points, names, spaces = [], [], set()
    lists = content["markups"]
    if not isinstance(lists, list) or not all(isinstance(each, dict) for each in lists):
        raise _bad_file("is no list of Slicer's markups")
    for each in lists:
        controls = each.get("controlPoints")
        if not isinstance(controls, list) or not all(isinstance(c, dict) for c in controls):
            raise _bad_file("is a list of Slicer's markups without controlPoints")
        if not controls:
            continue
        spaces.add(_space(each.get("coordinateSystem")))
        unit = each.get("coordinateUnits", "mm")
        if unit not in ("mm", ["mm"] * 3):
            raise InvalidInputError(f'the unit is {unit!r}; needs "mm".', code="UNKNOWN_UNIT")
        for control in controls:
            points.append(_position(control))
            names.append(str(control.get("label", "")))
    if len(spaces) > 1:
        raise InvalidInputError(
            "the lists of points are in different spaces; save them in one.", code="UNKNOWN_SPACE"
        )
    return PointList(_array(points), tuple(names), spaces.pop() if spaces else None)


def _position(control: dict[str, Any]) -> list[float]:
    value, status = control.get("position"), control.get("positionStatus", "defined")
    numbers = value if isinstance(value, list) else []
    real = all(isinstance(x, int | float) and not isinstance(x, bool) for x in numbers)
    if not real or len(numbers) != 3 or status != "defined":
        raise InvalidInputError(
            f"the point {control.get('label')!r} is {value!r} ({status}); needs three numbers. Place "
            "it in Slicer, or remove it.",
            code="BAD_LANDMARKS",
        )
    return [float(x) if abs(x) < _LARGEST else np.inf for x in numbers]


def _space(value: Any) -> str | None:
    """RAS or LPS of a word or a number; None where there is none."""
    if value is None:
        return None
    found = _SPACES.get(str(value).strip().upper())
    if found is None:
        raise InvalidInputError(
            f"the points are in {value!r}; needs RAS (0) or LPS (1): save them so in Slicer.",
            code="UNKNOWN_SPACE",
        )
    return found


def slicer_fcsv(text: str) -> PointList:
    """Return the points of an ``.fcsv``; raises as `slicer_markups`."""
    head = dict(re.findall(r"^#\s*(\w+)\s*=\s*(.*?)\s*$", text, re.MULTILINE))
    columns = [c.strip() for c in head.get("columns", _FCSV_COLUMNS).split(",")]
    if not {"x", "y", "z"} <= set(columns):
        raise _bad_file(f"is an .fcsv with the columns {columns}, without x, y and z")
    rows = [row for row in csv.reader(_data_lines(text)) if any(cell.strip() for cell in row)]
    places = [columns.index(axis) for axis in "xyz"]
    label = columns.index("label") if "label" in columns else len(columns)
    try:
        points = [[float(row[place]) for place in places] for row in rows]
    except (ValueError, IndexError) as error:
        raise _bad_file(f"is an .fcsv with a line that holds no point ({error})") from error
    names = tuple(_label(row, label, len(columns)) for row in rows)
    return PointList(_array(points), names, _space(head.get("CoordinateSystem")))


def _label(row: list[str], at: int, n_columns: int) -> str:
    """A row's label; one with commas that nothing quotes takes the cells that the row has too many."""
    surplus = max(0, len(row) - n_columns)
    return ",".join(row[at : at + 1 + surplus]).strip()


def _data_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.lstrip().startswith("#")]


def legacy_vtk(content: bytes) -> PointList:
    """Return the points of a legacy ``.vtk``, ASCII or binary; raises as `slicer_markups`."""
    lines = content.split(b"\n", 3)
    form = lines[2].strip().upper() if len(lines) == 4 else b""
    at = re.search(rb"^POINTS[ \t]+(\d{1,9})[ \t]+(\w+)[ \t\r]*\n", content, re.MULTILINE)
    if not content.startswith(b"# vtk") or form not in (b"ASCII", b"BINARY") or at is None:
        raise _bad_file("is not legacy VTK polydata, ASCII or binary, with POINTS")
    count, kind = int(at[1]), at[2].decode()
    if form == b"ASCII":
        numbers = _decimal(content[at.end() :].split(None, 3 * count)[: 3 * count])
    elif kind in _VTK_TYPES:
        numbers = _binary(content[at.end() :], _VTK_TYPES[kind], 3 * count)
    else:
        raise _bad_file(f"holds binary points of type {kind}, not float or double")
    space = _SPACE.search(lines[1].decode("latin-1"))
    return PointList(_triples(numbers, count), (), space[1] if space else None)


def _decimal(words: list[bytes] | list[str]) -> NDArray[np.float64]:
    try:
        return np.array([float(word) for word in words])
    except ValueError as error:
        raise _bad_file("does not hold the numbers it announces") from error


def _binary(content: bytes, kind: str, count: int) -> NDArray[np.float64]:
    size = np.dtype(kind).itemsize
    found = np.frombuffer(content[: min(len(content) // size, count) * size], kind)
    with np.errstate(invalid="ignore"):  # any bits may stand in a damaged file
        return found.astype(np.float64)


def _triples(numbers: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    if len(numbers) != 3 * count:
        raise _bad_file("does not hold the POINTS it announces")
    return _array(numbers.reshape(-1, 3))


def xml_vtk(content: bytes) -> PointList:
    """Return the points of a ``.vtp``: text, or base64, plain or compressed by zlib.

    Raises
    ------
    InvalidInputError
        As `slicer_markups`.
    """
    if re.search(rb"<!(DOCTYPE|ENTITY)", content, re.IGNORECASE):
        raise _bad_file("declares XML entities, which VTK does not write")
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError) as error:
        raise _bad_file(
            f"is not XML ({error}); if its data are raw, save it with DataMode ASCII"
        ) from error
    arrays = root.findall("./PolyData/Piece/Points/DataArray")
    if root.tag != "VTKFile" or len(arrays) != 1:
        raise _bad_file(f"holds {len(arrays)} arrays of points, not one VTK piece of PolyData")
    space = _SPACE.search(content.decode("latin-1")) or _SPACE.search(_space_field(root))
    numbers = _array_numbers(root, arrays[0])
    return PointList(_triples(numbers, len(numbers) // 3), (), space[1] if space else None)


def _space_field(root: ElementTree.Element) -> str:
    """Slicer's field SPACE, stored as numbers of characters."""
    for array in root.findall("./PolyData/FieldData/Array[@Name='SPACE']"):
        words = (array.text or "").split()
        if words and all(word.isdecimal() and int(word) < 128 for word in words):
            return "SPACE=" + "".join(chr(int(word)) for word in words).strip("\0")
    return ""


def _array_numbers(root: ElementTree.Element, array: ElementTree.Element) -> NDArray[np.float64]:
    form, kind = array.get("format", "ascii"), _VTK_TYPES.get(array.get("type", ""))
    if form == "ascii":
        return _decimal((array.text or "").split())
    appended = root.find("AppendedData")
    if form == "appended" and appended is not None and appended.get("encoding") == "base64":
        whole = (appended.text or "").strip().removeprefix("_")
        offset = array.get("offset", "0")
        text = whole[int(offset) if offset.isdecimal() else 0 :]
    elif form == "binary":
        text = (array.text or "").strip()
    else:
        raise _bad_file(f"holds points of format {form!r} that are not base64; save it as ASCII")
    if kind is None:
        raise _bad_file(f"holds points of type {array.get('type')!r}, not Float32 or Float64")
    order = ">" if root.get("byte_order") == "BigEndian" else "<"
    header = np.dtype(order + _HEADERS.get(root.get("header_type", "UInt32"), "u4"))
    try:
        data = _decoded(text, header, root.get("compressor"))
    except (binascii.Error, zlib.error, ValueError, IndexError) as error:
        raise _bad_file(f"holds damaged base64 data ({error})") from error
    return _binary(data, order + kind, len(data))


def _decoded(text: str, header: np.dtype[Any], compressor: str | None) -> bytes:
    """The bytes behind VTK's header: a length, or counts and lengths of compressed blocks."""
    if compressor is None:
        return _plain_block(text, header)
    if compressor != "vtkZLibDataCompressor":
        raise _bad_file(f"is compressed by {compressor}; save it as ASCII")
    size = header.itemsize
    n_blocks = int(np.frombuffer(_bytes(text, 3 * size), header, 3)[0])
    if n_blocks > _MOST_POINTS:
        raise ValueError(f"{n_blocks} blocks")
    head = (3 + n_blocks) * size
    lengths = np.frombuffer(_bytes(text, head), header, 3 + n_blocks)
    start = -(-head // 3) * 4
    data, at, found = _bytes(text[start:], int(lengths[3:].sum())), 0, b""
    for length in lengths[3:].tolist():
        found += zlib.decompressobj().decompress(data[at : at + length], 24 * _MOST_POINTS)
        at += length
    return found


def _plain_block(text: str, header: np.dtype[Any]) -> bytes:
    size = header.itemsize
    length = int(np.frombuffer(_bytes(text, size), header, 1)[0])
    return _bytes(text, size + length)[size:]


def _bytes(text: str, count: int) -> bytes:
    """The first bytes of base64 text, of which there must be enough."""
    found = base64.b64decode(text[: -(-count // 3) * 4])[:count]
    if len(found) < count:
        raise ValueError(f"{len(found)} bytes of {count}")
    return found


def _array(points: Any) -> NDArray[np.float64]:
    if not 0 < len(points) <= _MOST_POINTS:
        raise _bad_file(f"holds {len(points)} points")
    return np.array(points, dtype=np.float64)


def _bad_file(what: str) -> InvalidInputError:
    return InvalidInputError(f"the file {what}.", code="BAD_LANDMARK_FILE")


def markups_content(
    points: NDArray[np.float64], names: tuple[str, ...], space: str
) -> dict[str, Any]:
    """Return the JSON of a list of points of 3D Slicer, ``.mrk.json``.

    Parameters
    ----------
    points : ndarray, shape (n, 3)
        mm, in the space.
    names : tuple of str
    space : {"RAS", "LPS"}
    """
    controls = [
        {
            "id": str(number + 1),
            "label": name,
            "position": point,
            "orientation": [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0],
            "selected": True,
            "locked": False,
            "visibility": True,
            "positionStatus": "defined",
        }
        for number, (name, point) in enumerate(zip(names, points.tolist(), strict=True))
    ]
    return {
        "@schema": _MARKUPS_SCHEMA,
        "markups": [
            {
                "type": "Fiducial",
                "coordinateSystem": space,
                "coordinateUnits": "mm",
                "controlPoints": controls,
            }
        ],
    }


def fcsv_text(points: NDArray[np.float64], names: tuple[str, ...], space: str) -> str:
    """Return the text of an ``.fcsv`` of 3D Slicer; as `markups_content`."""
    number = {"RAS": 0, "LPS": 1}[space]
    text = io.StringIO()
    text.write(
        "# Markups fiducial file version = 4.11\n"
        f"# CoordinateSystem = {number}\n# columns = {_FCSV_COLUMNS}\n"
    )
    writer = csv.writer(text, lineterminator="\n")
    for n, (name, point) in enumerate(zip(names, points.tolist(), strict=True), start=1):
        writer.writerow([n, *map(repr, point), 0, 0, 0, 1, 1, 1, 0, name, "", ""])
    return text.getvalue()
