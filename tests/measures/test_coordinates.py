"""Coordinates of the LV wall on half shells, where they are known."""

from __future__ import annotations

import numpy as np
import pytest

from cardiacreg import LabelMap, sample_heart, wall_coordinates
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LANDMARK_NAMES, LV_CAVITY, LV_WALL, Landmarks
from cardiacreg.measures.segments import heart_directions, segments_of
from cardiacreg.results.saved_model import SavedModel

SPACING_MM = np.array([1.25, 1.25, 2.0])


def half_shell(inner, outer, *, matrix=None):
    """Model of the lower half of an ellipsoid's shell; septum at -x, anterior side at -y."""
    inner, outer = np.broadcast_to(inner, 3), np.broadcast_to(outer, 3)
    half = np.ceil((outer.max() + 8) / SPACING_MM).astype(int)
    axes = [np.arange(-n, n + 1) * step for n, step in zip(half, SPACING_MM, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    array = np.where(np.linalg.norm(points / outer, axis=-1) < 1, LV_WALL, 0)
    array[np.linalg.norm(points / inner, axis=-1) < 1] = LV_CAVITY
    array[points[..., 2] > 0.1] = 0
    lattice = np.diag([*SPACING_MM, 1.0])
    lattice[:3, 3] = -half * SPACING_MM
    places = np.array(
        [[-17, -30, 0], [-70, 0, 0], [-17, 30, 0], [35, 0, 0], [0, 0, -outer[2]], [0, 0, 1.0]]
    )
    turn = np.eye(4) if matrix is None else matrix
    places = places @ turn[:3, :3].T + turn[:3, 3]
    model = SavedModel(LabelMap(array, turn @ lattice), Landmarks(places, LANDMARK_NAMES))
    wall = array == LV_WALL
    return model, wall, points[wall]


@pytest.mark.parametrize(("inner", "outer"), [(25.0, 35.0), (30.0, 36.0)])
def test_half_spheres(inner, outer):
    """Depth is along radii, and the way from apex to base along meridians; both are linear."""
    model, wall, points = half_shell(inner, outer)
    found = wall_coordinates(model)
    radius = np.linalg.norm(points, axis=-1)
    depth = (radius - inner) / (outer - inner)
    polar = np.arccos(-points[:, 2] / radius) / (np.pi / 2)
    error = found.transmural[wall] - depth
    assert abs(error.mean()) < 0.02 and np.abs(error).max() * (outer - inner) < 1.3
    error = found.apex_base[wall] - polar
    assert abs(error.mean()) < 0.01 and np.abs(error).max() < 0.06
    angle = np.degrees(np.arctan2(-points[:, 1], -points[:, 0])) % 360
    off_axis = np.hypot(points[:, 0], points[:, 1]) > 2
    apart = (found.around_degrees[wall] - angle + 180) % 360 - 180
    assert np.abs(apart[off_axis]).max() < 0.1
    for field in found[:3]:
        assert np.isnan(field[~wall]).all() and field.dtype == np.float32


def test_an_ellipsoid_by_arc_length():
    """From apex to base the coordinate follows the arc of the middle surface."""
    model, wall, points = half_shell((22.0, 22.0, 45.0), (31.0, 31.0, 54.0))
    found = wall_coordinates(model).apex_base[wall]
    angle = np.linspace(0, np.pi / 2, 2000)
    arc = np.stack([26.5 * np.sin(angle), -49.5 * np.cos(angle)], axis=1)
    length = np.r_[0, np.cumsum(np.linalg.norm(np.diff(arc, axis=0), axis=1))]
    own = np.arctan2(np.hypot(points[:, 0], points[:, 1]) / 26.5, -points[:, 2] / 49.5)
    expected = np.interp(own, angle, length / length[-1])
    assert abs((found - expected).mean()) < 0.02 and np.abs(found - expected).max() < 0.09


def test_they_turn_with_the_heart():
    matrix = np.array([[0, -1, 0, 5], [-1, 0, 0, -7], [0, 0, -1, 11], [0, 0, 0, 1.0]])
    maps = [
        wall_coordinates(half_shell((20.0, 24.0, 30.0), (28.0, 32.0, 38.0), matrix=each)[0])
        for each in (None, matrix)
    ]
    for first, second in zip(*(each[:2] for each in maps), strict=True):
        np.testing.assert_allclose(first, second, atol=2e-3)


def test_a_heart():
    """Each coordinate covers its range, and the base is where the mitral valve is."""
    heart = sample_heart(10_003, phase="ES", group="pulmonary_hypertension", with_image=False)
    found = wall_coordinates(heart.labels)
    wall = heart.labels.array == LV_WALL
    for field in found[:2]:
        values = field[wall]
        assert np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1
        spread = np.quantile(values, [0.02, 0.25, 0.5, 0.75, 0.98])
        assert (np.diff(spread) > 0.05).all() and spread[0] < 0.2 and spread[-1] > 0.85
    frame = heart_directions(heart.landmarks)
    voxels = np.argwhere(wall)
    points = voxels @ found.voxel_to_world[:3, :3].T + found.voxel_to_world[:3, 3]
    assert np.corrcoef(frame.heights_mm(points), found.apex_base[wall])[0, 1] > 0.97


def test_angles_are_those_of_the_segments():
    model, wall, points = half_shell(25.0, 35.0)
    found = wall_coordinates(model)
    segments = segments_of(points, heart_directions(model.landmarks), 10.0)
    basal = segments <= 6
    sectors = (found.around_degrees[wall][basal] // 60).astype(int)
    np.testing.assert_array_equal(np.array([2, 1, 6, 5, 4, 3])[sectors], segments[basal])


def test_a_model_without_a_wall():
    array = np.zeros((30, 30, 30), dtype=np.uint8)
    array[8:22, 8:22, 8:22] = LV_CAVITY
    places = half_shell(10.0, 14.0)[0].landmarks
    with pytest.raises(InvalidInputError) as raised:
        wall_coordinates(SavedModel(LabelMap(array, np.eye(4)), places))
    assert raised.value.code == "NO_LV_WALL"
