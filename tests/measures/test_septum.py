"""Curvature of the septum on cavities whose sections are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import least_squares

from cardiacreg import LabelMap
from cardiacreg.geometry import LANDMARK_NAMES, LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL, Landmarks
from cardiacreg.measures.left_wall import measure_left_wall, right_wall_mm
from cardiacreg.measures.segments import heart_directions
from cardiacreg.measures.septum import septal_curvature

SPACING_MM = np.array([1.25, 1.25, 2.0])
BASE_MM = 10.1


def points_and_matrix(half_mm=62):
    half = np.ceil(half_mm / SPACING_MM).astype(int)
    axes = [np.arange(-n, n + 1) * step for n, step in zip(half, SPACING_MM, strict=True)]
    matrix = np.diag([*SPACING_MM, 1.0])
    matrix[:3, 3] = -half * SPACING_MM
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1), matrix


def frame(apex_mm, base_mm=BASE_MM):
    """The septum is at -x, the anterior side at -y."""
    places = [
        [-17, -30, 0],
        [-70, 0, 0],
        [-17, 30, 0],
        [35, 0, 0],
        [0, 0, apex_mm],
        [0, 0, base_mm],
    ]
    return heart_directions(Landmarks(places, LANDMARK_NAMES))


def septum_of(x, y, z, *, cut=None):
    """Of an ellipsoid's cavity, without what `cut` says, in a wall of 9 mm."""
    points, matrix = points_and_matrix()
    array = np.where(np.linalg.norm(points / (x + 9, y + 9, z + 9), axis=-1) < 1, LV_WALL, 0)
    inside = np.linalg.norm(points / (x, y, z), axis=-1) < 1
    if cut is not None:
        inside &= ~cut(points)
    array[inside] = LV_CAVITY
    array[points[..., 2] > BASE_MM] = 0
    return measure_left_wall(LabelMap(array, matrix), frame(-z - 9.0)).septum


def section(radii, apex_mm):
    """Radii of an ellipsoid's section halfway between its lowest point and the base."""
    height = (apex_mm + BASE_MM) / 2
    return np.array(radii[:2]) * np.sqrt(1 - (height / radii[2]) ** 2)


@pytest.mark.parametrize("radius", [16.0, 28.0])
def test_round_cavities(radius):
    found = septum_of(radius, radius, 45.0)
    expected = section((radius, radius, 45.0), -45.0)[0]
    assert found.curvature_per_cm == pytest.approx(10 / expected, rel=0.03)
    assert found.curvature_ratio == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize(("x", "y"), [(18.0, 26.0), (27.0, 21.0)])
def test_elliptic_cavities(x, y):
    """Against the circle of least geometric distance to 90 degrees of the ellipse."""
    a, b = section((x, y, 45.0), -45.0)
    around = np.linspace(0, 2 * np.pi, 20_000)
    ring = np.stack([a * np.cos(around), b * np.sin(around)], axis=1)
    arc = ring[np.abs(np.degrees(np.arctan2(ring[:, 1], ring[:, 0]))) <= 45]
    along = np.r_[0, np.cumsum(np.linalg.norm(np.diff(arc[np.argsort(arc[:, 1])], axis=0), axis=1))]
    arc = arc[np.argsort(arc[:, 1])][np.searchsorted(along, np.linspace(0, along[-1], 400)[:-1])]
    circle = least_squares(
        lambda c: np.hypot(arc[:, 0] - c[0], arc[:, 1] - c[1]) - c[2], [0.0, 0.0, b]
    ).x
    found = septum_of(x, y, 45.0)
    assert found.curvature_per_cm == pytest.approx(10 / circle[2], rel=0.05)
    assert found.curvature_ratio == pytest.approx(1.0, abs=0.04)


def test_a_flat_septum():
    found = septum_of(25.0, 25.0, 45.0, cut=lambda points: points[..., 0] < -9.0)
    assert abs(found.curvature_per_cm) < 0.03 and abs(found.curvature_ratio) < 0.08


@pytest.mark.parametrize("radius", [25.0, 40.0])
def test_a_septum_that_bows_into_the_lv(radius):
    """A cylinder of the RV presses into the cavity to 6 mm from its middle."""

    def pressed(points):
        return np.hypot(points[..., 0] + 6 + radius, points[..., 1]) < radius

    found = septum_of(25.0, 25.0, 45.0, cut=pressed)
    assert found.curvature_per_cm == pytest.approx(-10 / radius, rel=0.12)
    assert found.curvature_ratio < -0.4


def test_nothing_to_measure():
    none = septal_curvature(np.zeros((0, 3)), frame(-50.0))
    few = septal_curvature(np.array([[0.0, 0, -20], [1, 0, -20]]), frame(-50.0))
    assert np.isnan([*none, *few]).all()


# --- the wall of the right ventricle


@pytest.mark.parametrize("thickness", [3.0, 4.5])
def test_right_wall_of_a_hollow_half_sphere(thickness):
    points, matrix = points_and_matrix(45)
    radius = np.linalg.norm(points, axis=-1)
    array = np.select([radius < 30, radius < 30 + thickness], [RV_CAVITY, RV_WALL], 0)
    array[points[..., 2] > 0.1] = 0
    found = right_wall_mm(LabelMap(array, matrix), frame(-40.0, 1.0))
    assert found == pytest.approx(thickness, abs=0.15)


def test_right_wall_without_one():
    points, matrix = points_and_matrix(30)
    array = np.where(np.linalg.norm(points, axis=-1) < 20, LV_CAVITY, 0)
    assert np.isnan(right_wall_mm(LabelMap(array, matrix), frame(-40.0, 1.0)))
