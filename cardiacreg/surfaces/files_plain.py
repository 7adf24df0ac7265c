"""Contents of STL (binary), PLY (binary) and OBJ (text) files of triangles."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError
from cardiacreg.surfaces.triangles import Triangles

_STL = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_FACE = np.dtype([("count", "u1"), ("corners", "<i4", 3)])
_STL_HEAD = 80
_PLY_HEAD = (
    "ply\nformat binary_little_endian 1.0\ncomment cardiacreg {name}\ncomment SPACE={space} unit=mm\n"
    "element vertex {vertices}\nproperty double x\nproperty double y\nproperty double z\n"
    "element face {triangles}\nproperty list uchar int vertex_indices\nend_header\n"
)
_PLY_TYPES = {"double": "<f8", "float64": "<f8", "float": "<f4", "float32": "<f4"}


class Parsed(NamedTuple):
    """What a file holds: coordinates as they are, and its own words on space and name, or none."""

    vertices: Float
    triangles: NDArray[np.int64]
    space: str = ""
    name: str = ""


def bad_file(why: str) -> InvalidInputError:
    """Make the error for a file that is not of its form."""
    return InvalidInputError(
        f"not a surface of triangles that can be read ({why}); convert it with ParaView or meshio.",
        code="BAD_SURFACE_FILE",
    )


def words_in(head: str) -> tuple[str, str]:
    """Return space and name as a header of ours says them, empty where it does not."""
    space = re.search(r"SPACE=(RAS|LPS)", head)
    name = re.search(r"cardiacreg (\w+)", head)
    return space[1] if space else "", name[1] if name else ""


def stl_bytes(vertices: Float, triangles: Triangles, name: str, space: str) -> bytes:
    """Return a binary STL file; its header names the space."""
    words = " ".join(name.split())[:40]
    head = f"cardiacreg {words} SPACE={space} unit=mm".encode("ascii", "replace")
    corners = vertices[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    records = np.zeros(len(triangles), dtype=_STL)
    records["normal"] = normals / np.maximum(np.linalg.norm(normals, axis=1)[:, None], 1e-12)
    records["corners"] = corners
    count = np.array([len(triangles)], dtype="<u4").tobytes()
    return head.ljust(_STL_HEAD, b" ") + count + records.tobytes()


def parse_stl(content: bytes) -> Parsed:
    """Read a binary STL file; corners with the same coordinates are one vertex."""
    if len(content) < _STL_HEAD + 4:
        raise bad_file("shorter than the header of a binary STL file")
    count = int(np.frombuffer(content, "<u4", 1, _STL_HEAD)[0])
    if len(content) != _STL_HEAD + 4 + count * _STL.itemsize:
        raise bad_file(f"{len(content)} bytes do not hold {count} triangles of a binary STL file")
    records = np.frombuffer(content, _STL, count, _STL_HEAD + 4)
    corners = records["corners"].reshape(-1, 3)
    if not np.isfinite(corners).all():
        raise bad_file("a corner of a binary STL file is not a number")
    vertices, rows = np.unique(corners, axis=0, return_inverse=True)
    head = content[:_STL_HEAD].decode("ascii", "replace")
    return Parsed(
        vertices.astype(np.float64), rows.reshape(-1, 3).astype(np.int64), *words_in(head)
    )


def ply_bytes(vertices: Float, triangles: Triangles, name: str, space: str) -> bytes:
    """Return a binary PLY file; a comment names the space."""
    words = " ".join(name.split()) or "surface"
    head = _PLY_HEAD.format(
        name=words, space=space, vertices=len(vertices), triangles=len(triangles)
    )
    faces = np.zeros(len(triangles), dtype=_FACE)
    faces["count"], faces["corners"] = 3, triangles
    body = vertices.astype("<f8").tobytes() + faces.tobytes()
    return head.encode("ascii", "replace") + body


def parse_ply(content: bytes) -> Parsed:
    """Read a binary little-endian PLY file of vertices with x, y, z alone and of triangles."""
    head, end, body = content.partition(b"end_header\n")
    text = head.decode("ascii", "replace")
    sizes = dict(re.findall(r"^element (vertex|face) (\d+)$", text, re.M))
    types = re.findall(r"^property (\w+) [xyz]$", text, re.M)
    others = re.findall(r"^property (?!list)\w+ (?![xyz]$)\w+$", text, re.M)
    if not end or "format binary_little_endian" not in text or set(sizes) != {"vertex", "face"}:
        raise bad_file("no header of a binary little-endian PLY file")
    if len(types) != 3 or len(set(types)) != 1 or types[0] not in _PLY_TYPES or others:
        raise bad_file("vertices of a PLY file with other properties than x, y and z")
    n_vertices, n_faces = int(sizes["vertex"]), int(sizes["face"])
    point = np.dtype((_PLY_TYPES[types[0]], 3))
    if len(body) != n_vertices * point.itemsize + n_faces * _FACE.itemsize:
        raise bad_file("a PLY file of other faces than triangles, or cut short")
    vertices = np.frombuffer(body, point, n_vertices).reshape(-1, 3)
    faces = np.frombuffer(body, _FACE, n_faces, n_vertices * point.itemsize)
    if (faces["count"] != 3).any():
        raise bad_file("a PLY file of other faces than triangles")
    return Parsed(vertices.astype(np.float64), faces["corners"].astype(np.int64), *words_in(text))


def obj_bytes(vertices: Float, triangles: Triangles, name: str, space: str) -> bytes:
    """Return an OBJ file; a comment names the space."""
    words = " ".join(name.split()) or "surface"
    lines = [f"# cardiacreg {words}", f"# SPACE={space} unit=mm", f"o {words}"]
    lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in vertices.tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (triangles + 1).tolist()]
    return ("\n".join(lines) + "\n").encode()


def parse_obj(content: bytes) -> Parsed:
    """Read the vertices and triangles of an OBJ file."""
    text = content.decode("utf-8", "replace")
    try:
        vertices = [
            [float(word) for word in line.split()[1:4]]
            for line in text.splitlines()
            if line.startswith("v ")
        ]
        faces = [
            [int(word.split("/")[0]) for word in line.split()[1:]]
            for line in text.splitlines()
            if line.startswith("f ")
        ]
    except ValueError as error:
        raise bad_file("an OBJ file with words in place of numbers") from error
    if not faces or any(len(face) != 3 for face in faces) or any(len(v) != 3 for v in vertices):
        raise bad_file("an OBJ file of other faces than triangles")
    if min(map(min, faces)) < 1 or max(map(max, faces)) > len(vertices):
        raise bad_file(
            "an OBJ file with relative vertex numbers, or of vertices that are not there"
        )
    triangles = np.array(faces, dtype=np.int64)
    return Parsed(np.array(vertices, dtype=np.float64), triangles - 1, *words_in(text[:400]))
