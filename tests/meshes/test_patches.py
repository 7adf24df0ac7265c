"""The boundary by the names of ukb-atlas: patches that close the wall, with the rims of the valves."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

from cardiacreg import (
    InputWarning,
    InvalidInputError,
    LabelMap,
    read_surface,
    sample_heart,
    volume_mesh,
    write_volume_mesh,
)
from cardiacreg.geometry import LV_WALL
from cardiacreg.meshes.boundary import without_pinches
from cardiacreg.meshes.patches import PATCHES, boundary_patches
from cardiacreg.results.saved_model import SavedModel
from cardiacreg.surfaces.triangles import Surface


@pytest.fixture(scope="module")
def heart():
    return sample_heart(10_200, group="healthy", spacing_mm=(1.5, 1.5, 2), with_image=False)


@pytest.fixture(scope="module")
def mesh(heart):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        return volume_mesh(heart.labels, edge_mm=2.5)


def loops_of(triangles):
    """Number of border loops; each node of a border has two of its edges."""
    edges = np.concatenate([triangles[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
    found, count = np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)
    border = found[count == 1]
    nodes, ends = np.unique(border, return_counts=True)
    assert (ends == 2).all()
    parent = {int(node): int(node) for node in nodes}

    def root(node):
        while parent[node] != node:
            node = parent[node]
        return node

    for one, other in border.tolist():
        parent[root(one)] = root(other)
    return len({root(node) for node in parent})


def test_what_touches_at_an_edge_or_a_node_alone_is_left_out():
    large = np.array([[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 6]])
    at_an_edge = np.array([[0, 1, 7, 8]])
    at_a_node = np.array([[6, 9, 10, 11]])
    found = without_pinches(np.concatenate([large, at_an_edge, at_a_node]))
    np.testing.assert_array_equal(found, large)
    np.testing.assert_array_equal(without_pinches(large), large)


def test_every_patch_is_one_piece_with_simple_borders(mesh):
    found = boundary_patches(mesh)
    assert list(found) == list(PATCHES)
    assert (np.sum(list(found.values()), axis=0) == 1).all()
    for name, own in found.items():
        loops = loops_of(mesh.triangles[own])
        if name in ("LV_ENDO", "RV_SEPTUM"):
            assert loops == 1, name
        if name in ("MV", "TV", "PV"):
            surface = Surface(mesh.nodes_mm, mesh.triangles[own])
            assert (loops, surface.euler_characteristic()) == (2, 0), name
    rims = found["MV"] | found["TV"] | found["PV"]
    assert (rims == (mesh.surfaces == 4)).mean() > 0.99


def test_rims_lie_where_the_valves_are(heart, mesh):
    """The pulmonary rim is the one towards the anterior RV insertion, above the septum."""
    found = boundary_patches(mesh)
    middle = {n: mesh.nodes_mm[mesh.triangles[own]].mean(axis=(0, 1)) for n, own in found.items()}
    first, _, second, lateral, _, mitral = heart.landmarks.points_mm
    anterior = first - second
    assert (middle["PV"] - middle["TV"]) @ anterior > 20 * np.linalg.norm(anterior)
    assert np.linalg.norm(middle["MV"] - mitral) < 15
    assert np.linalg.norm(middle["TV"] - lateral) > np.linalg.norm(middle["MV"] - lateral)


def test_files_close_the_wall(mesh, tmp_path):
    write_volume_mesh(tmp_path, mesh, ["ukb"], case="ES")
    manifest = json.loads((tmp_path / "surfaces.json").read_text())
    files = manifest["cases"]["ES"]
    assert manifest["volumes"] == {"Wall": ["LV_ENDO", "RV_ENDO", "EPI", "MV", "TV", "PV"]}
    assert files["RV_ENDO"] == ["RV_SEPTUM_ES.stl", "RV_FREEWALL_ES.stl"]
    parts = [read_surface(tmp_path / name) for own in files.values() for name in own]
    corners = np.concatenate([part.vertices_mm[part.triangles] for part in parts])
    nodes, rows = np.unique(corners.reshape(-1, 3), axis=0, return_inverse=True)
    whole = Surface(nodes, rows.reshape(-1, 3))
    assert whole.is_closed()
    assert whole.volume_ml() == pytest.approx(sum(mesh.volumes_ml().values()), rel=1e-3)
    with pytest.raises(InvalidInputError, match="ED or ES"):
        write_volume_mesh(tmp_path, mesh, ["ukb"], case="early")


def test_the_left_ventricle_alone(tmp_path):
    thick = sample_heart(1, group="hypertrophic", spacing_mm=(2, 2, 3), with_image=False)
    array = np.where(thick.labels.array > LV_WALL, 0, thick.labels.array)
    labels = LabelMap(array, thick.labels.voxel_to_world)
    mesh = volume_mesh(SavedModel(labels, thick.landmarks), edge_mm=4)
    assert list(boundary_patches(mesh)) == ["LV_ENDO", "LV_EPI", "MV"]
    write_volume_mesh(tmp_path, mesh, ["ukb"])
    manifest = json.loads((tmp_path / "surfaces.json").read_text())
    assert manifest["geometry"] == "lv"
    assert manifest["cases"]["ED"]["EPI"] == ["LV_EPI_ED.stl"]
