"""A surface of triangles in world mm, and what can be measured of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiacreg.arrays import Float, MadeAnew
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import as_numbers

Triangles = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Surface(MadeAnew):
    """A surface of triangles.

    Parameters
    ----------
    vertices_mm : array_like, shape (n, 3)
        World RAS+ mm, float64, finite.
    triangles : array_like, shape (m, 3)
        Rows of `vertices_mm`, int32; counter-clockwise as seen from outside.
    name : str
        What it bounds: one of ``LV_ENDO``, ``LV_EPI``, ``RV_ENDO``, ``RV_EPI``, ``EPI``, or any other.

    Raises
    ------
    InvalidInputError
        If the shapes are others, a vertex is not finite, or a triangle names a vertex that is not
        there (BAD_SURFACE).

    Examples
    --------
    >>> from cardiacreg import Surface
    >>> corners = [[0, 0, 0], [10, 0, 0], [0, 10, 0], [0, 0, 10]]
    >>> tetrahedron = Surface(corners, [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], "tetrahedron")
    >>> tetrahedron.is_closed(), round(tetrahedron.volume_ml(), 4)
    (True, 0.1667)
    """

    vertices_mm: Float
    triangles: Triangles
    name: str = ""

    def __post_init__(self) -> None:
        vertices, triangles = _vertices(self.vertices_mm), _triangles(self.triangles)
        if triangles.size and not 0 <= triangles.min() <= triangles.max() < len(vertices):
            raise _bad(f"triangles name vertices from {triangles.min()} to {triangles.max()} "
                       f"of {len(vertices)}")  # fmt: skip
        for field, array in (("vertices_mm", vertices), ("triangles", triangles)):
            array.setflags(write=False)
            object.__setattr__(self, field, array)

    def volume_ml(self) -> float:
        """Return the enclosed volume in ml; negative where triangles look inwards."""
        return enclosed_volume(self.vertices_mm, self.triangles) / 1000

    def area_mm2(self) -> float:
        """Return the area in square mm."""
        return total_area(self.vertices_mm, self.triangles)

    def is_closed(self) -> bool:
        """Return whether every edge is shared by two triangles that run along it in opposite ways.

        A closed surface has no border, no edge of three triangles, and one side is outside everywhere.
        """
        edges = _directed_edges(self.triangles)
        forward, backward = (_edge_numbers(pair, len(self.vertices_mm)) for pair in edges)
        once = np.unique(forward)
        return len(once) == len(forward) > 0 and bool((once == np.unique(backward)).all())

    def euler_characteristic(self) -> int:
        """Return vertices minus edges plus triangles: 2 for a surface like a sphere, 0 like a ring."""
        (forward, _) = _directed_edges(self.triangles)
        edges = np.unique(_edge_numbers(np.sort(forward, axis=1), len(self.vertices_mm)))
        return len(np.unique(self.triangles)) - len(edges) + len(self.triangles)


def enclosed_volume(vertices: Float, triangles: Triangles) -> float:
    """Return the volume inside a closed surface, in cubes of the vertices' unit."""
    a, b, c = (vertices[triangles[:, corner]] for corner in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c))) / 6


def total_area(vertices: Float, triangles: Triangles) -> float:
    """Return the area of a surface, in squares of the vertices' unit."""
    a, b, c = (vertices[triangles[:, corner]] for corner in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()) / 2


def vertex_areas(vertices: Float, triangles: Triangles) -> Float:
    """Return the share of the area that each vertex stands for, shape (n,)."""
    a, b, c = (vertices[triangles[:, corner]] for corner in range(3))
    thirds = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 6
    shares = np.bincount(triangles.ravel(), np.repeat(thirds, 3), minlength=len(vertices))
    return shares.astype(np.float64)


def _directed_edges(triangles: Triangles) -> tuple[Triangles, Triangles]:
    forward = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    return forward, forward[:, ::-1]


def _edge_numbers(edges: Triangles, n_vertices: int) -> NDArray[np.int64]:
    return np.asarray(edges[:, 0].astype(np.int64) * n_vertices + edges[:, 1])


def _vertices(values: ArrayLike) -> Float:
    vertices = as_numbers(values, "Surface: vertices_mm")
    if vertices.ndim != 2 or vertices.shape[1] != 3 or not np.isfinite(vertices).all():
        raise _bad(f"vertices of shape {vertices.shape}, or not finite")
    return vertices


def _triangles(values: ArrayLike) -> Triangles:
    try:
        given = np.asarray(values)
    except ValueError:  # rows of different lengths
        given = np.asarray(None)
    if given.ndim != 2 or given.shape[1] != 3 or given.dtype.kind not in "iu":
        raise _bad(f"triangles of shape {given.shape} and dtype {given.dtype}")
    return np.array(given, dtype=np.int32)


def _bad(found: str) -> InvalidInputError:
    return InvalidInputError(
        f"Surface: got {found}; needs finite vertices (n, 3) in mm and triangles (m, 3) of their rows.",
        code="BAD_SURFACE",
    )
