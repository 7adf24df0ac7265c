"""A heart as tetrahedra: volumes, surfaces, files read back by VTK and meshio."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from click.testing import CliRunner

from cardiacreg import (
    FibreAngles,
    InputWarning,
    InvalidInputError,
    LabelMap,
    sample_heart,
    volume_mesh,
    write_labels,
    write_volume_mesh,
)
from cardiacreg.cli.app import main
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_WALL
from cardiacreg.meshes.boundary import SURFACES
from cardiacreg.meshes.files import FORMATS
from cardiacreg.phantoms.toy_heart import make_toy_heart


@pytest.fixture(scope="module")
def heart():
    return sample_heart(1, group="hypertrophic", spacing_mm=(2, 2, 3), with_image=False)


@pytest.fixture(scope="module")
def mesh(heart):
    with pytest.warns(
        InputWarning, match=r"RV wall has 5\d ml .* are thickened; take a smaller edge"
    ):
        return volume_mesh(heart.labels, edge_mm=3)


def test_the_walls_of_a_heart(heart, mesh):
    labels = heart.labels
    counts = np.bincount(labels.array.ravel(), minlength=5) * np.prod(labels.spacing_mm) / 1000
    found = mesh.volumes_ml()
    # Rims and places thinner than one and a half edges are thickened, which is told.
    assert 0.98 * counts[LV_WALL] < found["LV wall"] < 1.05 * counts[LV_WALL]
    assert 0.98 * counts[RV_WALL] < found["RV wall"] < 1.17 * counts[RV_WALL]
    assert mesh.scaled_jacobians().min() > 0.1
    for directions in (mesh.fibres, mesh.sheets):
        np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, atol=1e-9)
    assert set(mesh.surfaces.tolist()) == set(SURFACES.values())


def test_surfaces_lie_where_their_names_say(heart, mesh):
    points = mesh.nodes_mm[mesh.triangles].mean(axis=1)
    to_voxel = np.linalg.inv(heart.labels.voxel_to_world)
    corners = mesh.nodes_mm[mesh.triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1)[:, None]
    outside = points + 3 * normals
    voxels = np.rint(outside @ to_voxel[:3, :3].T + to_voxel[:3, 3]).astype(int)
    beyond = heart.labels.array[tuple(voxels.clip(0, np.array(heart.labels.shape) - 1).T)]
    endo = mesh.surfaces == SURFACES["LV_ENDO"]
    assert (beyond[endo] == LV_CAVITY).mean() > 0.95
    assert (beyond[mesh.surfaces == SURFACES["EPI"]] == 0).mean() > 0.9
    names = heart.landmarks.names
    apex, base = (heart.landmarks.points_mm[names.index(name)] for name in names[4:6])
    heights = (points - apex) @ (base - apex) / np.linalg.norm(base - apex)
    assert np.median(heights[mesh.surfaces == SURFACES["BASE"]]) > np.quantile(heights, 0.9)
    assert mesh.nodes_of("LV_ENDO").tolist() == np.unique(mesh.triangles[endo]).tolist()
    with pytest.raises(InvalidInputError, match="one of LV_ENDO"):
        mesh.nodes_of("MYOCARDIUM")


def test_files_are_read_back(mesh, tmp_path):
    meshio = pytest.importorskip("meshio", reason="needs the extra meshes")
    vtk = pytest.importorskip("vtkmodules.vtkIOXML", reason="needs vtk")
    write_volume_mesh(tmp_path, mesh, FORMATS, case="ES")
    assert {path.stem for path in tmp_path.glob("*.stl")} >= {"LV_ENDO_ES", "MV_ES", "TV_ES"}
    reader = vtk.vtkXMLUnstructuredGridReader()
    reader.SetFileName(str(tmp_path / "mesh.vtu"))
    reader.Update()
    read = reader.GetOutput()
    assert read.GetNumberOfCells() == len(mesh.tetrahedra)
    assert read.GetCellData().GetArray("fibre").GetNumberOfComponents() == 3
    for name in ("mesh.vtu", "mesh.xdmf"):
        found = meshio.read(tmp_path / name)
        np.testing.assert_allclose(found.points, mesh.nodes_mm)
        np.testing.assert_array_equal(found.cell_data["region"][0], mesh.regions)
        np.testing.assert_allclose(found.cell_data["fibre"][0], mesh.fibres)
    found = meshio.read(tmp_path / "mesh.msh")
    assert found.field_data["EPI"].tolist() == [SURFACES["EPI"], 2]
    numbers = found.cell_data_dict["gmsh:physical"]
    np.testing.assert_array_equal(numbers["triangle"], mesh.surfaces)
    np.testing.assert_array_equal(numbers["tetra"], mesh.regions)
    points = np.loadtxt(tmp_path / "mesh.pts", skiprows=1)
    np.testing.assert_allclose(points, mesh.nodes_mm * 1000, atol=1e-3)
    cells = np.loadtxt(tmp_path / "mesh.elem", skiprows=1, usecols=(1, 2, 3, 4, 5), dtype=int)
    np.testing.assert_array_equal(cells, np.column_stack([mesh.tetrahedra, mesh.regions]))
    assert np.loadtxt(tmp_path / "mesh.lon", skiprows=1).shape == (len(mesh.tetrahedra), 6)
    listed = np.loadtxt(tmp_path / "mesh_LV_ENDO.vtx", skiprows=2, dtype=int)
    np.testing.assert_array_equal(listed, mesh.nodes_of("LV_ENDO"))
    with pytest.raises(InvalidInputError) as raised:
        write_volume_mesh(tmp_path, mesh, ["carp"])
    assert raised.value.code == "OUTPUT_EXISTS"


def test_the_left_ventricle_alone(heart):
    array = np.where(heart.labels.array > LV_WALL, 0, heart.labels.array)
    labels = LabelMap(array, heart.labels.voxel_to_world)
    from cardiacreg.results.saved_model import SavedModel

    found = volume_mesh(SavedModel(labels, heart.landmarks), edge_mm=4)
    assert set(found.regions.tolist()) == {LV_WALL}
    assert set(found.surfaces.tolist()) == {1, 3, 4}


def test_a_cavity_without_a_way_out_is_told():
    with pytest.raises(InvalidInputError) as raised:
        volume_mesh(make_toy_heart().labels)
    assert raised.value.code == "CLOSED_CAVITY"


@pytest.mark.parametrize("edge", [0.2, 9.0])
def test_an_edge_out_of_range(heart, edge):
    with pytest.raises(InvalidInputError) as raised:
        volume_mesh(heart.labels, edge_mm=edge)
    assert raised.value.code == "BAD_EDGE"


def test_angles_change_the_fibres(heart, mesh):
    told = []
    with pytest.warns(InputWarning, match="are thickened"):
        found = volume_mesh(
            heart.labels, edge_mm=3, angles=FibreAngles(60.0, -60.0), progress=told.append
        )
    shares = [report.share for report in told]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == pytest.approx(1)
    assert [report.title for report in told[::2]] == [report.title for report in told[1::2]]
    np.testing.assert_array_equal(found.nodes_mm, mesh.nodes_mm)
    assert np.abs((found.fibres * mesh.fibres).sum(axis=1)).mean() < 0.999


def test_the_command(heart, tmp_path):
    write_labels(tmp_path / "heart.nii.gz", heart.labels)
    command = ["mesh", str(tmp_path / "heart.nii.gz"), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(main, [*command, "--format", "carp", "--edge-mm", "4"])
    assert done.exit_code == 0, done.output
    assert "laying fibres" in done.stderr and "LV wall" in done.stdout
    assert (tmp_path / "out" / "mesh.elem").is_file()
    done = CliRunner().invoke(main, [*command, "--format", "abc"])
    assert done.exit_code == 2 and "needs some of vtu" in done.output


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), "NO_MESHIO"),
        (("--format", "carp"), "OUTPUT_EXISTS"),
        (("--format", "ukb"), "OUTPUT_EXISTS"),
    ],
)
def test_what_cannot_be_written_is_told_before_the_work(tmp_path, monkeypatch, words, code):
    from cardiacreg.meshes import tetrahedral

    def never(*arguments, **options):
        raise AssertionError("the work was begun")

    monkeypatch.setattr(tetrahedral, "volume_mesh", never)
    monkeypatch.setitem(sys.modules, "meshio", None)
    write_labels(tmp_path / "labels.nii.gz", make_toy_heart().labels)
    for name in ("mesh.pts", "surfaces.json"):
        (tmp_path / name).write_text("mine")
    command = ["mesh", str(tmp_path / "labels.nii.gz"), "-o", str(tmp_path), *words]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1 and f"error [{code}]" in done.stderr, done.output
    assert (tmp_path / "mesh.pts").read_text() == "mine"
