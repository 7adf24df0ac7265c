"""Wall thickness against shells of known thickness; segments where they belong."""

from __future__ import annotations

import numpy as np
import pytest

from cardiacreg import LabelMap, sample_heart
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LANDMARK_NAMES, LV_CAVITY, LV_WALL, Landmarks
from cardiacreg.measures.laplace import Wall, field_lines
from cardiacreg.measures.left_wall import measure_left_wall
from cardiacreg.measures.segments import heart_directions, segments_of

SPACING_MM = (1.25, 1.25, 2.0)


def shell(inner, outer, *, base_mm=np.inf, spacing_mm=SPACING_MM, matrix=None):
    """Cavity and wall between two bodies about the origin, open above a height.

    `inner` and `outer` give the level of points, below 1 inside.
    """
    spacing = np.array(spacing_mm)
    half = np.ceil(58 / spacing).astype(int)
    axes = [np.arange(-n, n + 1) * step for n, step in zip(half, spacing, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    array = np.where(outer(points) < 1, LV_WALL, 0)
    array[inner(points) < 1] = LV_CAVITY
    array[points[..., 2] > base_mm] = 0
    lattice = np.diag([*spacing, 1.0])
    lattice[:3, 3] = -half * spacing
    return LabelMap(array, lattice if matrix is None else matrix @ lattice)


def ball(*radii):
    return lambda points: np.linalg.norm(points / np.array(radii), axis=-1)


def landmarks(apex_mm, base_mm, matrix=None):
    """Of a heart whose septum is at -x and whose anterior side is at -y."""
    points = np.array(
        [[-17, -30, 0], [-70, 0, 0], [-17, 30, 0], [35, 0, 0], [0, 0, apex_mm], [0, 0, base_mm]]
    )
    if matrix is not None:
        points = points @ matrix[:3, :3].T + matrix[:3, 3]
    return Landmarks(points, LANDMARK_NAMES)


@pytest.mark.parametrize(("inner", "outer"), [(20, 30), (25, 29), (15, 30), (30, 42)])
def test_concentric_spheres(inner, outer):
    """The potential is known too: its lines are radii."""
    axis = np.arange(-50, 51, 1.25)
    radius = np.linalg.norm(np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1), axis=-1)
    wall = Wall(inner - radius, outer - radius, np.zeros(radius.shape, dtype=bool), 1.25)
    directions = np.random.default_rng(1).normal(size=(500, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    starts = (inner * directions + 50) / 1.25
    lines = field_lines(wall, starts)
    np.testing.assert_allclose(lines.lengths_mm, outer - inner, atol=0.08)
    assert lines.lengths_mm.mean() == pytest.approx(outer - inner, abs=0.02)
    np.testing.assert_allclose(lines.ends * 1.25 - 50, outer * directions, atol=0.7)


@pytest.mark.parametrize(("inner", "thickness"), [(25.0, 6.0), (25.0, 10.0), (18.0, 14.0)])
def test_open_shells_have_their_thickness_in_every_segment(inner, thickness):
    """Half of a hollow sphere as labels on voxels: the wall is as thick up to its rim."""
    outer = inner + thickness
    labels = shell(ball(*[inner] * 3), ball(*[outer] * 3), base_mm=0.1)
    found = measure_left_wall(labels, heart_directions(landmarks(-outer, 1.0)))
    assert found.mean_thickness_mm == pytest.approx(thickness, abs=0.1)
    np.testing.assert_allclose(found.thickness_mm, thickness, atol=0.25)


def test_a_wall_parallel_to_an_ellipsoid():
    """Points whose distance to an ellipsoid is below the thickness; distances by dense points."""
    from scipy.spatial import cKDTree

    radii, thickness = np.array([22.0, 22.0, 45.0]), 9.0
    grid = np.stack(np.meshgrid(np.linspace(0, np.pi, 240), np.linspace(0, 2 * np.pi, 300)), -1)
    polar, around = grid.reshape(-1, 2).T
    dense = radii * np.stack(
        [np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)], axis=1
    )
    tree = cKDTree(dense)

    def outer(points):
        near = ball(*(radii + thickness + 1))(points) < 1  # the rest is outside
        far = np.full(near.shape, 2.0)
        far[near] = tree.query(points[near])[0] / thickness
        return np.where(ball(*radii)(points) < 1, 0.0, far)

    labels = shell(ball(*radii), outer, base_mm=20.1)
    found = measure_left_wall(labels, heart_directions(landmarks(-54.0, 21.0)))
    assert found.mean_thickness_mm == pytest.approx(thickness, abs=0.1)
    np.testing.assert_allclose(found.thickness_mm, thickness, atol=0.3)


def test_a_wall_of_two_thicknesses():
    """A cavity off the centre: thin towards the septum, thick on the far side."""

    def inner(points):
        return ball(20.0, 20.0, 20.0)(points - [-5.0, 0.0, 0.0])

    labels = shell(inner, ball(*[32.0] * 3), base_mm=0.1)
    found = measure_left_wall(labels, heart_directions(landmarks(-32.0, 1.0))).thickness_mm
    septal, lateral = found[[1, 2]].mean(), found[[4, 5]].mean()
    assert septal < 10 < 12 < 14 < lateral
    assert found[0] == pytest.approx(found[3], abs=0.15)  # anterior and inferior are alike


def test_measures_turn_with_the_heart():
    matrix = np.array([[0, -1, 0, 5], [-1, 0, 0, -7], [0, 0, -1, 11], [0, 0, 0, 1.0]])
    inner, outer = ball(20.0, 24.0, 40.0), ball(29.0, 35.0, 50.0)
    found = [
        measure_left_wall(
            shell(inner, outer, base_mm=5.1, matrix=each),
            heart_directions(landmarks(-50.0, 6.0, each)),
        )
        for each in (None, matrix)
    ]
    np.testing.assert_allclose(found[0].thickness_mm, found[1].thickness_mm, atol=1e-3)
    assert found[0].eccentricity == pytest.approx(found[1].eccentricity, abs=1e-3)


@pytest.mark.parametrize(("x", "y"), [(20.0, 20.0), (18.0, 27.0), (30.0, 24.0)])
def test_eccentricity_of_ellipses(x, y):
    """The septum lies at -x, so that y is along it."""
    labels = shell(ball(x, y, 45.0), ball(x + 8, y + 8, 53.0), base_mm=10.1)
    found = measure_left_wall(labels, heart_directions(landmarks(-53.0, 10.0)))
    assert found.eccentricity == pytest.approx(y / x, rel=0.02)


def test_no_wall_no_thickness():
    array = np.zeros((20, 20, 20), dtype=np.uint8)
    array[5:15, 5:15, 5:15] = LV_CAVITY
    labels = LabelMap(array, np.eye(4))
    assert measure_left_wall(labels, heart_directions(landmarks(0, 20))) is None or np.isnan(
        measure_left_wall(labels, heart_directions(landmarks(0, 20))).mean_thickness_mm
    )


# --- segments


def test_segments_by_height_and_angle():
    frame = heart_directions(landmarks(0.0, 90.0))
    np.testing.assert_allclose(frame.septal, [-1, 0, 0], atol=1e-9)
    np.testing.assert_allclose(frame.anterior, [0, -1, 0], atol=1e-9)
    degrees = np.radians([30, 90, 150, 210, 270, 330])  # from the septum, anterior first
    ring = np.stack([-np.cos(degrees), -np.sin(degrees), 0 * degrees], axis=1) * 30
    for height, expected in ((95, [2, 1, 6, 5, 4, 3]), (75, [2, 1, 6, 5, 4, 3]),
                             (45, [8, 7, 12, 11, 10, 9])):  # fmt: skip
        found = segments_of(ring + [0, 0, height], frame, cavity_mm=9.0)
        np.testing.assert_array_equal(found, expected)
    four = np.array([[-30, 0, 20], [0, -30, 20], [30, 0, 20], [0, 30, 20]])
    np.testing.assert_array_equal(segments_of(four, frame, 9.0), [14, 13, 16, 15])
    np.testing.assert_array_equal(segments_of(four - [0, 0, 15], frame, 9.0), [17] * 4)


def test_segments_of_a_synthetic_heart():
    """x runs from RV to LV, y from anterior to inferior."""
    frame = heart_directions(
        sample_heart(10_003, with_image=False, spacing_mm=(2.5, 2.5, 4)).landmarks
    )
    assert frame.septal @ [-1, 0, 0] > 0.95 and frame.anterior @ [0, -1, 0] > 0.95
    assert frame.axis @ [0, 0, 1] > 0.95


def test_the_septum_is_on_the_side_of_the_rv_however_wide_it_is():
    wide = landmarks(0.0, 90.0).points_mm.copy()
    wide[[0, 2], 0] = 10.0  # insertions behind the LV's centre
    frame = heart_directions(Landmarks(wide, LANDMARK_NAMES))
    np.testing.assert_allclose(frame.septal, [-1, 0, 0], atol=1e-9)
    opposite = landmarks(0.0, 90.0).points_mm.copy()
    opposite[[0, 2], 0] = 0.0
    frame = heart_directions(Landmarks(opposite, LANDMARK_NAMES))
    np.testing.assert_allclose(np.abs(frame.septal), [1, 0, 0], atol=1e-9)


def test_unusable_landmarks():
    same = np.tile([[1.0, 2.0, 3.0]], (6, 1))
    for points in (Landmarks(same, LANDMARK_NAMES), Landmarks(same[:3], ("a", "b", "c"))):
        with pytest.raises(InvalidInputError) as raised:
            heart_directions(points)
        assert raised.value.code == "BAD_LANDMARKS"
