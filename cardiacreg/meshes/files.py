"""Files of volume meshes, all complete or none: VTU, XDMF and Gmsh by meshio, openCARP's, ukb-atlas's."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LV_WALL, RV_WALL
from cardiacreg.io.landmark_files import json_text
from cardiacreg.io.output_folder import all_or_nothing, check_output
from cardiacreg.meshes.boundary import SURFACES
from cardiacreg.meshes.patches import boundary_patches, surfaces_of_patches
from cardiacreg.meshes.tetrahedral import VolumeMesh
from cardiacreg.surfaces.files import surface_bytes
from cardiacreg.surfaces.level_fields import RV_ENDO
from cardiacreg.surfaces.triangles import Surface

FORMATS = ("vtu", "xdmf", "msh", "carp", "ukb")
_NEED_NOTHING = {"carp", "ukb"}
"""Formats that need no further package."""
CASES = ("ED", "ES")
REGIONS = {"LV_WALL": LV_WALL, "RV_WALL": RV_WALL}
_STEM = "mesh"
_CARP_PER_MM = 1000.0
"""openCARP's points are in micrometres."""


def write_volume_mesh(
    folder: str | os.PathLike[str],
    mesh: VolumeMesh,
    formats: Sequence[str] = ("vtu",),
    *,
    case: str = "ED",
    overwrite: bool = False,
    inputs: Sequence[Path] = (),
) -> Path:
    """Write a volume mesh into a folder, in every format: all files or none.

    Coordinates are RAS mm, those of openCARP RAS micrometres.

    Parameters
    ----------
    folder : path-like
        Made when missing.
    mesh : VolumeMesh
    formats : sequence of {"vtu", "xdmf", "msh", "carp", "ukb"}
        ``mesh.vtu`` and ``mesh.xdmf`` hold the tetrahedra with ``region``, ``fibre`` and ``sheet``, and
        files ``mesh_surfaces`` beside them the boundary with ``surface``; ``mesh.msh`` (Gmsh 2.2) holds
        both, with named physical groups, without fibres; openCARP has ``mesh.pts``, ``.elem`` and
        ``.lon``, and for each surface ``mesh_LV_ENDO.surf`` and ``.vtx``, and so on. ``ukb`` is the
        boundary alone as the package `ukb-atlas` names it: STL files ``LV_ENDO_ED.stl``, ``RV_SEPTUM``,
        ``RV_FREEWALL``, ``LV_EPI``, ``RV_EPI``, the rims of the valves ``MV``, ``TV`` and ``PV``
        (`meshes.patches` says which it has), and ``surfaces.json``, which its ``mesh`` command reads.
    case : {"ED", "ES"}
        Phase in the names of ``ukb``.
    overwrite : bool
        Replace files of these names.
    inputs : sequence of pathlib.Path
        Files that must not be replaced.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    InvalidInputError
        If a format is unknown (BAD_OPTION) or needs meshio where that is not installed (NO_MESHIO), files
        exist and may not be replaced (OUTPUT_EXISTS), or the folder cannot be written
        (OUTPUT_NOT_WRITABLE).

    Examples
    --------
    >>> from cardiacreg import LabelMap, sample_heart, volume_mesh, write_volume_mesh
    >>> heart = sample_heart(1, group="hypertrophic", spacing_mm=(2, 2, 3), with_image=False).labels
    >>> left = LabelMap(heart.array * (heart.array < 3), heart.voxel_to_world)
    >>> mesh = volume_mesh(left, edge_mm=4)
    >>> folder = write_volume_mesh("mesh", mesh, ["carp"])
    >>> (folder / "mesh.elem").read_text().split()[1]
    'Tt'
    """
    _check_options(formats, case)
    meshio = _meshio() if set(formats) - _NEED_NOTHING else None
    texts = _contents(formats, mesh, case)
    names = [name for each in formats for name in texts.get(each) or _names(each)]
    with all_or_nothing(Path(folder), names, overwrite=overwrite, inputs=inputs) as stage:
        for each in formats:
            if each in texts:
                for name, content in texts[each].items():
                    (stage / name).write_bytes(content)
            elif each == "msh":
                _both(meshio, mesh).write(stage / f"{_STEM}.msh", file_format="gmsh22")
            else:
                _tetrahedra(meshio, mesh).write(stage / f"{_STEM}.{each}")
                _boundary(meshio, mesh).write(stage / f"{_STEM}_surfaces.{each}")
    return Path(folder)


def check_volume_mesh_output(
    folder: Path, formats: Sequence[str], *, case: str, overwrite: bool, inputs: Sequence[Path]
) -> None:
    """Check before long work that a volume mesh can be written.

    Parameters
    ----------
    folder, formats, case, overwrite, inputs
        As for `write_volume_mesh`.

    Raises
    ------
    InvalidInputError
        As `write_volume_mesh`, as far as the names of its files do not depend on the mesh.
    """
    _check_options(formats, case)
    if set(formats) - _NEED_NOTHING:
        _meshio()
    fixed = {"carp": [f"{_STEM}.pts"], "ukb": ["surfaces.json"]}
    names = [name for each in formats for name in fixed.get(each) or _names(each)]
    check_output(folder, names, overwrite=overwrite, inputs=inputs)


def _check_options(formats: Sequence[str], case: str) -> None:
    unknown = [each for each in formats if each not in FORMATS]
    if unknown:
        raise InvalidInputError(
            f"write_volume_mesh: got the format {', '.join(map(str, unknown))}; needs some of "
            f"{', '.join(FORMATS)} (formats= or --format).",
            code="BAD_OPTION",
        )
    if case not in CASES:
        raise InvalidInputError(
            f"write_volume_mesh: got the case {case!r}; needs ED or ES (case= or --case).",
            code="BAD_OPTION",
        )


def _meshio() -> Any:
    try:
        import meshio
    except ImportError as error:
        raise InvalidInputError(
            "write_volume_mesh: VTU, XDMF and Gmsh files need meshio; install it (pip install "
            "'cardiacreg[meshes]'), or take the formats carp and ukb.",
            code="NO_MESHIO",
        ) from error
    return meshio


def _shown(mesh: VolumeMesh) -> list[str]:
    """Names of the surfaces that the mesh has."""
    return [name for name, number in SURFACES.items() if (mesh.surfaces == number).any()]


def _contents(formats: Sequence[str], mesh: VolumeMesh, case: str) -> dict[str, dict[str, bytes]]:
    """Return the files of the formats that need no library, by name; the last marks them as complete."""
    found = {}
    if "carp" in formats:
        found["carp"] = {name: text.encode("ascii") for name, text in _carp_files(mesh).items()}
    if "ukb" in formats:
        found["ukb"] = _ukb_files(mesh, case)
    return found


def _names(ending: str) -> list[str]:
    """Files of a format that meshio writes; the last marks it as complete."""
    if ending == "msh":
        return [f"{_STEM}.msh"]
    data = [f"{_STEM}_surfaces.h5", f"{_STEM}.h5"] if ending == "xdmf" else []
    return [*data, f"{_STEM}_surfaces.{ending}", f"{_STEM}.{ending}"]


def _tetrahedra(meshio: Any, mesh: VolumeMesh) -> Any:
    data = {"region": [mesh.regions], "fibre": [mesh.fibres], "sheet": [mesh.sheets]}
    return meshio.Mesh(mesh.nodes_mm, [("tetra", mesh.tetrahedra)], cell_data=data)


def _boundary(meshio: Any, mesh: VolumeMesh) -> Any:
    used, rows = np.unique(mesh.triangles, return_inverse=True)
    triangles = rows.reshape(-1, 3).astype(np.int32)
    data = {"surface": [mesh.surfaces]}
    return meshio.Mesh(mesh.nodes_mm[used], [("triangle", triangles)], cell_data=data)


def _both(meshio: Any, mesh: VolumeMesh) -> Any:
    """Tetrahedra and boundary in one mesh, with the names of regions and surfaces."""
    cells = [("triangle", mesh.triangles), ("tetra", mesh.tetrahedra)]
    groups = [mesh.surfaces, mesh.regions]
    data = {"gmsh:physical": groups, "gmsh:geometrical": groups}
    named = {name: np.array([number, 2]) for name, number in SURFACES.items()}
    named |= {name: np.array([number, 3]) for name, number in REGIONS.items()}
    return meshio.Mesh(mesh.nodes_mm, cells, cell_data=data, field_data=named)


def _carp_files(mesh: VolumeMesh) -> dict[str, str]:
    cells = np.column_stack([mesh.tetrahedra, mesh.regions])
    found = {}
    for name in _shown(mesh):
        own = mesh.triangles[mesh.surfaces == SURFACES[name]]
        nodes = mesh.nodes_of(name)[:, None]
        found[f"{_STEM}_{name}.surf"] = _table(own, "Tr %d %d %d", f"{len(own)}")
        found[f"{_STEM}_{name}.vtx"] = _table(nodes, "%d", f"{len(nodes)}\nextra")
    directions = np.column_stack([mesh.fibres, mesh.sheets])
    return found | {
        f"{_STEM}.lon": _table(directions, "%.6f", "2"),
        f"{_STEM}.elem": _table(cells, "Tt %d %d %d %d %d", f"{len(cells)}"),
        f"{_STEM}.pts": _table(mesh.nodes_mm * _CARP_PER_MM, "%.3f", f"{len(mesh.nodes_mm)}"),
    }


def _ukb_files(mesh: VolumeMesh, case: str) -> dict[str, bytes]:
    """STL files of the patches, and which of them make up which surface, as `ukb-atlas surf` writes."""
    patches = boundary_patches(mesh)
    found = {}
    for name, own in patches.items():
        used, rows = np.unique(mesh.triangles[own], return_inverse=True)
        patch = Surface(mesh.nodes_mm[used], rows.reshape(-1, 3).astype(np.int32), name)
        found[f"{name}_{case}.stl"] = surface_bytes(patch, "stl")
    surfaces = surfaces_of_patches(tuple(patches))
    files = {name: [f"{each}_{case}.stl" for each in own] for name, own in surfaces.items()}
    manifest = {
        "geometry": "biv" if RV_ENDO in surfaces else "lv",
        "volumes": {"Wall": list(surfaces)},
        "cases": {case: files},
    }
    return found | {"surfaces.json": json_text(manifest).encode()}


def _table(rows: Float | np.ndarray, form: str, head: str) -> str:
    text = io.StringIO()
    np.savetxt(text, rows, fmt=form, header=head, comments="")
    return text.getvalue()
