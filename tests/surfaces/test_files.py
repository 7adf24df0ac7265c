"""Files of surfaces: what is written can be read, by us and by others, in the space they name."""

from __future__ import annotations

import importlib
import struct

import numpy as np
import pytest

from cardiacreg import Surface, read_surface, surfaces_of, write_surface
from cardiacreg.errors import InvalidInputError
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.surfaces import files
from cardiacreg.surfaces.files import FORMATS, write_surfaces


@pytest.fixture(scope="module")
def surface():
    return surfaces_of(make_toy_heart().labels, triangles=1500)["LV_ENDO"]


def assert_refused(code, function, *arguments, **more):
    with pytest.raises(InvalidInputError) as raised:
        function(*arguments, **more)
    assert raised.value.code == code


@pytest.mark.parametrize("space", ["RAS", "LPS"])
@pytest.mark.parametrize("ending", FORMATS)
def test_round_trips(surface, tmp_path, ending, space):
    path = tmp_path / f"any.{ending}"
    write_surface(path, surface, space=space)
    found = read_surface(path)
    assert found.name == "LV_ENDO" and found.is_closed()
    assert found.volume_ml() == pytest.approx(surface.volume_ml(), rel=1e-5)
    if ending == "stl":  # which holds corners, not vertices
        np.testing.assert_allclose(
            found.vertices_mm[found.triangles], surface.vertices_mm[surface.triangles], atol=1e-4
        )
    else:
        tolerance = 1e-6 if ending == "obj" else 0
        np.testing.assert_allclose(found.vertices_mm, surface.vertices_mm, atol=tolerance)
        np.testing.assert_array_equal(found.triangles, surface.triangles)


@pytest.mark.parametrize("ending", FORMATS)
def test_the_space_of_a_file_is_not_overruled(surface, tmp_path, ending):
    path = tmp_path / f"any.{ending}"
    write_surface(path, surface, space="LPS")
    assert_refused("UNKNOWN_SPACE", read_surface, path, space="RAS")
    assert b"SPACE" in path.read_bytes()[:400]


def test_a_file_without_a_space_needs_to_be_told_it(tmp_path):
    path = tmp_path / "any.obj"
    path.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1/1 2/2 3/3\n")
    assert_refused("UNKNOWN_SPACE", read_surface, path)
    np.testing.assert_array_equal(read_surface(path, space="LPS").vertices_mm[1], [-1, 0, 0])
    assert_refused("UNKNOWN_SPACE", read_surface, path, space="XYZ")


def test_wrong_names_and_folders(surface, tmp_path):
    assert_refused("BAD_FILE_NAME", write_surface, tmp_path / "any.vtk", surface)
    assert_refused("BAD_FILE_NAME", read_surface, tmp_path / "any")
    assert_refused("NO_FOLDER", write_surface, tmp_path / "absent" / "any.stl", surface)
    assert_refused("FILE_NOT_FOUND", read_surface, tmp_path / "any.stl")
    assert_refused("UNKNOWN_SPACE", write_surface, tmp_path / "any.stl", surface, space="ras")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("cut", [0, 10, 90, 200, -1, -7])
def test_files_cut_short_are_refused(surface, tmp_path, ending, cut):
    path = tmp_path / f"any.{ending}"
    write_surface(path, surface)
    content = path.read_bytes()
    if ending == "obj" and cut == -1:
        return  # a line without its end is whole
    path.write_bytes(content[:cut])
    with pytest.raises(InvalidInputError) as raised:
        read_surface(path, space="RAS")
    assert raised.value.code in ("BAD_SURFACE_FILE", "BAD_SURFACE")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nv 1 1 0\nf 1 2 3 4\n"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n"),
        ("a.obj", b"v 0 0 zero\nf 1 1 1\n"),
        ("a.obj", b"v 0 0 0\nf -1 -1 -1\n"),
        ("a.ply", b"ply\nformat ascii 1.0\nend_header\n"),
        ("a.vtp", b"<VTKFile type='PolyData' byte_order='BigEndian'/>"),
        ("a.stl", b" " * 80 + struct.pack("<I", 4_000_000_000)),
    ],
)
def test_other_contents_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInputError) as raised:
        read_surface(tmp_path / name, space="RAS")
    assert raised.value.code in ("BAD_SURFACE_FILE", "BAD_SURFACE")


def test_large_files_are_refused(surface, tmp_path, monkeypatch):
    write_surface(tmp_path / "a.ply", surface)
    monkeypatch.setattr(files, "_LARGEST_BYTES", 1000)
    assert_refused("TOO_LARGE", read_surface, tmp_path / "a.ply")


def test_many_surfaces_are_written_together(surface, tmp_path):
    both = {"A": surface, "B": surface}
    write_surfaces(tmp_path / "new", both, ("stl", "obj"), space="LPS")
    assert {p.name for p in (tmp_path / "new").iterdir()} == {"A.stl", "B.stl", "A.obj", "B.obj"}
    assert_refused("OUTPUT_EXISTS", write_surfaces, tmp_path / "new", both, ("vtp", "obj"))
    assert not (tmp_path / "new" / "A.vtp").exists()


@pytest.mark.parametrize("ending", FORMATS)
def test_meshio_reads_them(surface, tmp_path, ending):
    meshio = pytest.importorskip("meshio")
    if ending == "vtp":
        pytest.skip("meshio reads no VTP")
    write_surface(tmp_path / f"a.{ending}", surface)
    found = meshio.read(tmp_path / f"a.{ending}")
    corners = found.points[found.cells_dict["triangle"]]
    np.testing.assert_allclose(corners, surface.vertices_mm[surface.triangles], atol=1e-4)


@pytest.mark.parametrize("ending", ["stl", "ply", "obj"])
def test_trimesh_reads_them(surface, tmp_path, ending):
    trimesh = pytest.importorskip("trimesh")
    write_surface(tmp_path / f"a.{ending}", surface)
    found = trimesh.load_mesh(tmp_path / f"a.{ending}")
    assert found.is_watertight
    assert found.volume / 1000 == pytest.approx(surface.volume_ml(), rel=1e-4)


@pytest.mark.parametrize("ending", FORMATS)
def test_vtk_reads_them(surface, tmp_path, ending):
    pytest.importorskip("vtkmodules")
    write_surface(tmp_path / f"a.{ending}", surface, space="LPS")
    module, reader = {
        "vtp": ("IOXML", "vtkXMLPolyDataReader"),
        "stl": ("IOGeometry", "vtkSTLReader"),
        "ply": ("IOPLY", "vtkPLYReader"),
        "obj": ("IOGeometry", "vtkOBJReader"),
    }[ending]
    read = getattr(importlib.import_module(f"vtkmodules.vtk{module}"), reader)()
    read.SetFileName(str(tmp_path / f"a.{ending}"))
    read.Update()
    mass = importlib.import_module("vtkmodules.vtkFiltersCore").vtkMassProperties()
    mass.SetInputData(read.GetOutput())
    assert mass.GetVolume() / 1000 == pytest.approx(surface.volume_ml(), rel=1e-4)
    if ending == "vtp":
        assert read.GetOutput().GetFieldData().GetAbstractArray("SPACE").GetValue(0) == "LPS"


def test_surfaces_are_checked():
    assert_refused("BAD_SURFACE", Surface, [[0, 0, 0]], [[0, 0, 1]])
    assert_refused("BAD_SURFACE", Surface, [[0, 0, np.nan]], [[0, 0, 0]])
    assert_refused("BAD_SURFACE", Surface, [[0, 0]], [[0, 0, 0]])
    assert_refused("BAD_SURFACE", Surface, [[0, 0, 0]], [[0.0, 0.0, 0.0]])


def test_open_and_turned_surfaces_are_not_closed(surface):
    assert not Surface(surface.vertices_mm, surface.triangles[1:]).is_closed()
    turned = np.array(surface.triangles)
    turned[0] = turned[0, ::-1]
    assert not Surface(surface.vertices_mm, turned).is_closed()
    doubled = np.concatenate([surface.triangles, surface.triangles])
    assert not Surface(surface.vertices_mm, doubled).is_closed()
    assert not Surface(surface.vertices_mm, surface.triangles[:0]).is_closed()
