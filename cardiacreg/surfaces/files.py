"""Files of surfaces: VTP, STL, PLY and OBJ, in RAS or LPS mm, complete or not at all.

Every file names its space where 3D Slicer looks for it (``SPACE=RAS`` or ``SPACE=LPS`` in the header, a
field array in VTP), so that it lies right there in both; other programs show coordinates as they are.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError, check_argument
from cardiacreg.io.atomic_write import write_bytes_atomically
from cardiacreg.io.output_folder import all_or_nothing
from cardiacreg.io.regular_file import check_regular_file, unreadable
from cardiacreg.io.source_name import named_source
from cardiacreg.results.files import MESH_FORMATS
from cardiacreg.surfaces import files_plain, files_vtp
from cardiacreg.surfaces.triangles import Surface

_SIGNS = {"RAS": np.array([1.0, 1.0, 1.0]), "LPS": np.array([-1.0, -1.0, 1.0])}
_WRITERS = {
    "vtp": files_vtp.vtp_bytes,
    "stl": files_plain.stl_bytes,
    "ply": files_plain.ply_bytes,
    "obj": files_plain.obj_bytes,
}
_READERS = {
    "vtp": files_vtp.parse_vtp,
    "stl": files_plain.parse_stl,
    "ply": files_plain.parse_ply,
    "obj": files_plain.parse_obj,
}
FORMATS = MESH_FORMATS
_LARGEST_BYTES = 1 << 30


class _Known(NamedTuple):
    """What a path says about a file."""

    format: str
    name: str


def write_surface(path: str | os.PathLike[str], surface: Surface, *, space: str = "RAS") -> None:
    """Write a surface, complete or not at all.

    Parameters
    ----------
    path : path-like
        Ends with ``.vtp`` (64-bit), ``.stl`` (binary, 32-bit), ``.ply`` (binary, 64-bit) or ``.obj``
        (text); an existing file is replaced in one step.
    surface : Surface
        In world RAS+ mm.
    space : {"RAS", "LPS"}
        Space of the coordinates in the file, which names it.

    Raises
    ------
    InvalidInputError
        If the name ends otherwise (BAD_FILE_NAME), the space is unknown (UNKNOWN_SPACE), or the folder
        does not exist (NO_FOLDER).

    Examples
    --------
    >>> from cardiacreg import surfaces_of, write_surface
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> surfaces = surfaces_of(make_toy_heart().labels, triangles=2000)
    >>> write_surface("endocardium.stl", surfaces["LV_ENDO"], space="LPS")
    """
    known = _known(path)
    check_argument(surface, Surface, "write_surface: surface")
    write_bytes_atomically(path, surface_bytes(surface, known.format, space=space))


def surface_bytes(surface: Surface, ending: str, *, space: str = "RAS") -> bytes:
    """Return the content of a surface's file of one of `FORMATS`."""
    return _WRITERS[ending](surface.vertices_mm * _signs(space), surface.triangles,
                            surface.name, space)  # fmt: skip


def write_surfaces(
    folder: Path,
    surfaces: Mapping[str, Surface],
    formats: Sequence[str] = ("vtp",),
    *,
    space: str = "RAS",
    overwrite: bool = False,
    inputs: Sequence[Path] = (),
) -> None:
    """Write surfaces into a folder by their names, in every format: all files or none.

    Parameters
    ----------
    folder : pathlib.Path
        Made when missing.
    surfaces : mapping of str to Surface
    formats : sequence of str
        Of `FORMATS`.
    space : {"RAS", "LPS"}
    overwrite : bool
        Replace files of these names.
    inputs : sequence of pathlib.Path
        Files that must not be replaced.

    Raises
    ------
    InvalidInputError
        As `write_surface`; if files exist and may not be replaced (OUTPUT_EXISTS), or the folder cannot
        be written (OUTPUT_NOT_WRITABLE).
    """
    contents = file_contents(surfaces, formats, space=space)
    with all_or_nothing(folder, tuple(contents), overwrite=overwrite, inputs=inputs) as stage:
        for name, content in contents.items():
            (stage / name).write_bytes(content)


def file_contents(
    surfaces: Mapping[str, Surface], formats: Sequence[str], *, space: str = "RAS"
) -> dict[str, bytes]:
    """Return the content of every surface's file, by file name."""
    return {
        f"{name}.{ending}": surface_bytes(surface, ending, space=space)
        for ending in formats
        for name, surface in surfaces.items()
    }


def read_surface(path: str | os.PathLike[str], *, space: str | None = None) -> Surface:
    """Read a surface of triangles from a VTP, STL, PLY or OBJ file.

    Parameters
    ----------
    path : path-like
        ``.vtp`` (text or uncompressed inline base64), ``.stl`` (binary), ``.ply`` (binary, little
        endian) or ``.obj``.
    space : {"RAS", "LPS"}, optional
        Space of the file; needed where the file does not name it.

    Returns
    -------
    Surface
        In world RAS+ mm. Corners of an STL file that have the same coordinates are one vertex.

    Raises
    ------
    InvalidInputError
        If the file is missing (FILE_NOT_FOUND), too large or not of its form (BAD_SURFACE_FILE,
        TOO_LARGE), or its space is unknown or another than the one given (UNKNOWN_SPACE).

    Examples
    --------
    >>> from cardiacreg import read_surface, surfaces_of, write_surface
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> surface = surfaces_of(make_toy_heart().labels, triangles=2000)["LV_ENDO"]
    >>> write_surface("endocardium.vtp", surface)
    >>> abs(read_surface("endocardium.vtp").volume_ml() - surface.volume_ml()) < 1e-6
    True
    """
    file = Path(path)
    with named_source(os.fspath(path)):
        known = _known(file)
        found = _READERS[known.format](_content(file))
        signs = _signs(_space(found.space, space))
        triangles = found.triangles.astype(np.int32)
        return Surface(found.vertices * signs, triangles, found.name or known.name)


def _known(path: str | os.PathLike[str]) -> _Known:
    file = Path(path)
    ending = file.suffix.lower().removeprefix(".")
    if ending not in FORMATS:
        raise InvalidInputError(
            f"{path}: needs a name that ends with {', '.join('.' + each for each in FORMATS)}.",
            code="BAD_FILE_NAME",
        )
    return _Known(ending, file.stem)


def _signs(space: str) -> Float:
    check_argument(space, str, "space")
    if space not in _SIGNS:
        raise InvalidInputError(f"space is {space!r}; needs RAS or LPS.", code="UNKNOWN_SPACE")
    return _SIGNS[space]


def _space(in_file: str, given: str | None) -> str:
    check_argument(given, (str, type(None)), "space")
    if not in_file and given is None:
        raise InvalidInputError(
            "the file does not name its space; pass space='RAS' or space='LPS'.",
            code="UNKNOWN_SPACE",
        )
    if in_file and given is not None and in_file != given:
        raise InvalidInputError(
            f"the file says that its space is {in_file}, not {given}; leave space out.",
            code="UNKNOWN_SPACE",
        )
    return in_file or str(given)


def _content(file: Path) -> bytes:
    size = check_regular_file(file).st_size
    if size > _LARGEST_BYTES:
        raise InvalidInputError(
            f"the file has {size} bytes; at most {_LARGEST_BYTES} are read.", code="TOO_LARGE"
        )
    try:
        return file.read_bytes()
    except OSError as error:
        raise unreadable(error.strerror or str(error)) from error
