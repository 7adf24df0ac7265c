"""Surfaces of a model: right volumes, closed, nested, outward, smooth, of any lattice."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.spatial import cKDTree

from cardiacreg import LabelMap, sample_heart, surfaces_of
from cardiacreg.errors import InputWarning, InvalidInputError
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.results.files import MESH_NAMES
from cardiacreg.surfaces.level_fields import STRUCTURES_INSIDE, fine_fields, leveled, one_piece


def ellipsoids(inner_mm, outer_mm, spacing_mm=(1.25, 1.25, 2.0), labels=(LV_CAVITY, LV_WALL)):
    """A shell of two ellipsoids with one centre, on anisotropic voxels."""
    spacing = np.array(spacing_mm)
    half = np.ceil((np.array(outer_mm) + 4) / spacing).astype(int)
    axes = [np.arange(-n, n + 1) * step for n, step in zip(half, spacing, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    array = np.zeros(x.shape, dtype=np.uint8)
    for radii, label in ((outer_mm, labels[1]), (inner_mm, labels[0])):
        inside = (x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2 < 1
        array[inside] = label
    matrix = np.diag([*spacing, 1.0])
    matrix[:3, 3] = -half * spacing
    return LabelMap(array, matrix)


def volume_ml(radii):
    return 4 / 3 * np.pi * float(np.prod(radii)) / 1000


@pytest.fixture(scope="module")
def heart():
    return sample_heart(10_003, with_image=False).labels


@pytest.fixture(scope="module")
def heart_surfaces(heart):
    return surfaces_of(heart)


@pytest.mark.parametrize("radii", [(25.0, 25.0, 25.0), (20.0, 26.0, 40.0), (12.0, 12.0, 12.0)])
def test_ellipsoids_have_their_volume_area_and_place(radii):
    outer = tuple(r + 8 for r in radii)
    found = surfaces_of(ellipsoids(radii, outer))
    assert list(found) == ["LV_ENDO", "LV_EPI", "EPI"]
    for name, size in (("LV_ENDO", radii), ("LV_EPI", outer), ("EPI", outer)):
        surface = found[name]
        assert surface.is_closed() and surface.euler_characteristic() == 2
        assert surface.volume_ml() == pytest.approx(volume_ml(size), rel=0.01)
        off_mm = np.abs(np.linalg.norm(surface.vertices_mm / size, axis=1) - 1) * min(size)
        assert off_mm.mean() < 0.2 and off_mm.max() < 0.9  # of voxels of 1.25 x 1.25 x 2 mm
        assert len(surface.triangles) <= 20_000
    p = 1.6075  # Knud Thomsen's formula, within 1.1 %
    a, b, c = (r**p for r in radii)
    area = 4 * np.pi * ((a * b + a * c + b * c) / 3) ** (1 / p)
    assert found["LV_ENDO"].area_mm2() == pytest.approx(area, rel=0.015)


def test_a_sphere_has_no_staircase():
    """Normals of triangles point away from the centre; those of voxels' faces are 40 degrees off."""
    surface = surfaces_of(ellipsoids((24.0,) * 3, (32.0,) * 3))["LV_ENDO"]
    corners = surface.vertices_mm[surface.triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1)[:, None]
    outward = corners.mean(axis=1)
    cosines = (normals * outward).sum(axis=1) / np.linalg.norm(outward, axis=1)
    degrees = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    assert cosines.min() > 0 and np.quantile(degrees, 0.95) < 8 and degrees.mean() < 4


def test_hearts_keep_their_volumes_and_walls(heart, heart_surfaces):
    ml = np.bincount(heart.array.ravel(), minlength=5) * float(np.prod(heart.spacing_mm)) / 1000
    assert tuple(heart_surfaces) == tuple(STRUCTURES_INSIDE) == MESH_NAMES
    volumes = {name: surface.volume_ml() for name, surface in heart_surfaces.items()}
    for name, labels in STRUCTURES_INSIDE.items():
        assert volumes[name] == pytest.approx(ml[list(labels)].sum(), rel=0.005)
    wall = volumes["RV_EPI"] - volumes["RV_ENDO"]
    assert wall == pytest.approx(ml[RV_WALL], rel=0.02)
    assert volumes["LV_EPI"] - volumes["LV_ENDO"] == pytest.approx(ml[LV_WALL], rel=0.005)


def test_hearts_have_closed_surfaces_within_the_budget(heart_surfaces):
    for surface in heart_surfaces.values():
        assert surface.is_closed() and surface.euler_characteristic() == 2
        assert len(surface.triangles) <= 20_000
    assert len(heart_surfaces["EPI"].triangles) > 15_000


def test_no_surface_crosses_another(heart):
    fields = {name: level.field for name, level in leveled(fine_fields(heart), step_mm=2.4).items()}
    for inner, outer in (
        ("LV_ENDO", "LV_EPI"), ("RV_ENDO", "RV_EPI"), ("LV_EPI", "EPI"), ("RV_EPI", "EPI")
    ):  # fmt: skip
        assert (fields[inner] <= fields[outer]).all()
    for right in ("RV_ENDO", "RV_EPI"):
        assert not ((fields["LV_EPI"] > 0) & (fields[right] > 0)).any()


def test_surfaces_follow_the_lattice_into_the_world(heart, heart_surfaces):
    """A mirrored and turned matrix moves the surface, which stays outward."""
    matrix = np.array([[0, -1, 0, 5], [-1, 0, 0, -7], [0, 0, 1, 11], [0, 0, 0, 1.0]])
    matrix[:3, :3] *= -1
    moved = surfaces_of(LabelMap(heart.array, matrix @ heart.voxel_to_world))["LV_ENDO"]
    here = heart_surfaces["LV_ENDO"]
    assert moved.volume_ml() == pytest.approx(here.volume_ml(), rel=1e-9)
    expected = here.vertices_mm @ matrix[:3, :3].T + matrix[:3, 3]
    np.testing.assert_allclose(moved.vertices_mm, expected, atol=1e-6)


def test_fewer_triangles_are_coarser_but_keep_the_volume(heart, heart_surfaces):
    coarse = surfaces_of(heart, triangles=3000, structures=["RV_ENDO", "EPI"])
    assert list(coarse) == ["RV_ENDO", "EPI"]
    assert 2000 < len(coarse["EPI"].triangles) <= 3000
    fine = heart_surfaces["RV_ENDO"]
    assert coarse["RV_ENDO"].volume_ml() == pytest.approx(fine.volume_ml(), rel=0.005)
    assert cKDTree(fine.vertices_mm).query(coarse["RV_ENDO"].vertices_mm)[0].max() < 3.0


def test_a_model_without_a_right_ventricle():
    labels = make_toy_heart().labels
    array = np.where(np.isin(labels.array, (RV_CAVITY, RV_WALL)), 0, labels.array)
    found = surfaces_of(LabelMap(array, labels.voxel_to_world), triangles=2000)
    assert list(found) == ["LV_ENDO", "LV_EPI", "EPI"]


def test_pieces_apart_are_left_out_and_told():
    labels = ellipsoids((16.0,) * 3, (24.0,) * 3)
    array = np.array(labels.array)
    array[:5, :5, :5] = LV_CAVITY
    with pytest.warns(InputWarning, match="LV_ENDO encloses lies apart"):
        found = surfaces_of(LabelMap(array, labels.voxel_to_world), structures=["LV_ENDO"])
    assert found["LV_ENDO"].euler_characteristic() == 2
    assert found["LV_ENDO"].volume_ml() == pytest.approx(volume_ml((16.0,) * 3), rel=0.01)


def test_one_piece_fills_holes():
    mask = np.zeros((9, 9, 9), dtype=bool)
    mask[1:6, 1:6, 1:6] = True
    mask[3, 3, 3] = False
    mask[8, 8, 8] = True
    kept = one_piece(mask)
    assert kept.sum() == 125 and not kept[8, 8, 8]


def test_tiny_structures_do_not_fail():
    array = np.zeros((12, 12, 12), dtype=np.uint8)
    array[4:8, 4:8, 4:8] = LV_WALL
    array[5:7, 5:7, 5:7] = LV_CAVITY
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = surfaces_of(LabelMap(array, np.diag([1.5, 1.5, 1.5, 1.0])))
    assert all(surface.is_closed() for surface in found.values())


def test_a_result_and_its_folder_give_the_same(tiny_result, tmp_path, monkeypatch):
    from cardiacreg.results import qc_figure

    monkeypatch.setattr(qc_figure, "draw_qc_figure", lambda result: None)
    monkeypatch.setattr(qc_figure, "png_bytes", lambda figure: b"picture")
    folder = tiny_result.save(tmp_path / "out")
    first, second = (surfaces_of(each, triangles=1500)["EPI"] for each in (tiny_result, folder))
    np.testing.assert_allclose(first.vertices_mm, second.vertices_mm, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"structures": ["LV_MID"]}, "UNKNOWN_STRUCTURE"),
        ({"triangles": 20}, "BAD_TRIANGLES"),
        ({"triangles": float("nan")}, "BAD_TRIANGLES"),
    ],
)
def test_wrong_arguments(arguments, code):
    with pytest.raises(InvalidInputError) as raised:
        surfaces_of(make_toy_heart().labels, **arguments)
    assert raised.value.code == code


def test_no_labels():
    with pytest.raises(InvalidInputError) as raised:
        surfaces_of(LabelMap(np.zeros((4, 4, 4)), np.eye(4)))
    assert raised.value.code == "EMPTY_LABELS"
