"""Contents of VTP files (VTK XML PolyData) of triangles."""

from __future__ import annotations

import base64
import binascii
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from cardiacreg.arrays import Float
from cardiacreg.surfaces.files_plain import Parsed, bad_file
from cardiacreg.surfaces.triangles import Triangles

_TYPES = {"Float64": "<f8", "Float32": "<f4", "Int64": "<i8", "Int32": "<i4", "UInt8": "u1"}
_HEADS = {"UInt32": "<u4", "UInt64": "<u8"}


def vtp_bytes(vertices: Float, triangles: Triangles, name: str, space: str) -> bytes:
    """Return a VTP file, inline base64; the field arrays SPACE and NAME say where and what it is."""
    root = ElementTree.Element(
        "VTKFile", type="PolyData", version="1.0", byte_order="LittleEndian", header_type="UInt64"
    )
    data = ElementTree.SubElement(root, "PolyData")
    fields = ElementTree.SubElement(data, "FieldData")
    for key, text in (("SPACE", space), ("NAME", name or "surface"), ("UNIT", "mm")):
        _words(fields, key, text)
    piece = ElementTree.SubElement(
        data, "Piece", NumberOfPoints=str(len(vertices)), NumberOfVerts="0", NumberOfLines="0",
        NumberOfStrips="0", NumberOfPolys=str(len(triangles)),
    )  # fmt: skip
    _array(ElementTree.SubElement(piece, "Points"), "Points", "Float64", vertices, components=3)
    polygons = ElementTree.SubElement(piece, "Polys")
    _array(polygons, "connectivity", "Int64", triangles)
    _array(polygons, "offsets", "Int64", 3 * np.arange(1, len(triangles) + 1))
    ElementTree.indent(root)
    return b'<?xml version="1.0"?>\n' + ElementTree.tostring(root)


def _words(parent: ElementTree.Element, name: str, text: str) -> None:
    """Add a text as VTK has it: its bytes as numbers, ended by 0."""
    element = ElementTree.SubElement(
        parent, "DataArray", type="String", Name=name, NumberOfTuples="1", format="ascii"
    )
    element.text = " ".join(str(byte) for byte in (*text.encode(), 0))


def _array(
    parent: ElementTree.Element,
    name: str,
    kind: str,
    values: NDArray[np.generic],
    components: int = 1,
) -> None:
    payload = np.ascontiguousarray(values, dtype=_TYPES[kind]).tobytes()
    size = np.array([len(payload)], dtype="<u8").tobytes()
    element = ElementTree.SubElement(
        parent, "DataArray", type=kind, Name=name, NumberOfComponents=str(components),
        format="binary",
    )  # fmt: skip
    element.text = base64.b64encode(size + payload).decode()


def parse_vtp(content: bytes) -> Parsed:
    """Read one piece of triangles, as text or uncompressed inline base64."""
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise bad_file("no XML") from error
    piece = root.find("PolyData/Piece")
    if piece is None or root.get("byte_order") != "LittleEndian" or root.get("compressor"):
        raise bad_file("no uncompressed little-endian VTP file")
    head = _HEADS.get(root.get("header_type", "UInt32"), "<u4")
    points = _values(piece.find("Points/DataArray"), head)
    polygons = {
        array.get("Name"): _values(array, head) for array in piece.findall("Polys/DataArray")
    }
    if not {"connectivity", "offsets"} <= set(polygons) or len(points) % 3:
        raise bad_file("no points or polygons")
    corners, offsets = polygons["connectivity"], polygons["offsets"]
    if len(corners) != 3 * len(offsets) or (np.diff(offsets, prepend=0) != 3).any():
        raise bad_file("other polygons than triangles")
    try:
        words = {
            array.get("Name"): bytes(
                int(n) for n in (array.text or "").split() if n != "0"
            ).decode()
            for array in root.findall("PolyData/FieldData/DataArray")
            if array.get("type") == "String" and array.get("format") == "ascii"
        }
    except ValueError as error:
        raise bad_file("words that cannot be decoded") from error
    triangles = corners.astype(np.int64).reshape(-1, 3)
    vertices = points.astype(np.float64).reshape(-1, 3)
    space = words.get("SPACE", "")
    return Parsed(
        vertices, triangles, space if space in ("RAS", "LPS") else "", words.get("NAME", "")
    )


def _values(array: ElementTree.Element | None, head: str) -> NDArray[np.generic]:
    kind = None if array is None else _TYPES.get(array.get("type", ""))
    if array is None or kind is None:
        raise bad_file("an array of no number type")
    text = (array.text or "").strip()
    try:
        if array.get("format") == "ascii":
            return np.array(text.split(), dtype=kind)
        payload = base64.b64decode("".join(text.split()), validate=True)
    except (ValueError, binascii.Error) as error:
        raise bad_file("an array that cannot be decoded") from error
    size = np.dtype(head).itemsize
    if array.get("format") != "binary" or len(payload) < size:
        raise bad_file("an array that is not inline")
    promised = int(np.frombuffer(payload, head, 1)[0])
    if promised != len(payload) - size or promised % np.dtype(kind).itemsize:
        raise bad_file("an array cut short")
    return np.frombuffer(payload, kind, offset=size)
