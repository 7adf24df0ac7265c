"""Rays meet a sphere where it is, light what faces them, and keep thin walls whole."""

from __future__ import annotations

import numpy as np
import pytest

from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL, LabelMap
from cardiacreg.results.surface_rays import (
    PIXEL_MM,
    View,
    draw_rays,
    outer_shares,
    smooth_shares,
    sort_structures,
)

RADIUS_MM, SIZE_MM = 24.0, 64.0
COLOURS = np.array([[1, 1, 1], [1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]], dtype=float)


def ball(cavity_mm, wall=LV_WALL, cavity=LV_CAVITY):
    """A ball of wall with a round cavity, voxels of 1 mm, its centre at the middle of the box."""
    axes = np.meshgrid(*[np.arange(SIZE_MM)] * 3, indexing="ij")
    far = np.sqrt(sum((axis - SIZE_MM / 2) ** 2 for axis in axes))
    array = np.where(far < cavity_mm, cavity, np.where(far < RADIUS_MM, wall, 0))
    return LabelMap(array.astype(np.uint8), np.eye(4))


def shares_of(labels):
    return smooth_shares(labels, np.eye(4), np.zeros(3), np.full(3, SIZE_MM))


def view(cut=None):
    return View(np.eye(3), np.zeros(3), np.full(3, SIZE_MM), cut)


def middle(picture):
    return picture[picture.shape[0] // 2, picture.shape[1] // 2]


def test_a_ball_has_its_size_and_is_bright_towards_the_lamps():
    picture = draw_rays(shares_of(ball(10)), view(), COLOURS)
    shown = (picture < 0.9).any(axis=-1)
    assert shown.sum() * PIXEL_MM**2 == pytest.approx(np.pi * RADIUS_MM**2, rel=0.03)
    rows, columns = shown.shape
    upper_left = picture[int(rows * 0.65), int(columns * 0.35), 0]
    lower_left = picture[int(rows * 0.25), int(columns * 0.35), 0]
    assert upper_left > lower_left + 0.1


@pytest.mark.parametrize("wall_mm", [1.5, 2.0, 3.0])
def test_a_thin_wall_hides_the_cavity(wall_mm):
    shares = shares_of(ball(RADIUS_MM - wall_mm, RV_WALL, RV_CAVITY))
    picture = draw_rays(shares, view(), COLOURS)
    inside = np.hypot(*np.indices(picture.shape[:2]) * PIXEL_MM - SIZE_MM / 2) < RADIUS_MM - 2
    assert (picture[inside][:, 1] > 0).mean() == 1


def test_an_opened_ball_shows_its_wall_and_the_lining_of_its_cavity():
    picture = draw_rays(shares_of(ball(14)), view(cut=SIZE_MM / 2), COLOURS)
    assert middle(picture)[1] == 0  # the lining, in the colour of the blood
    wall = picture[picture.shape[0] // 2, int((SIZE_MM / 2 + 19) / PIXEL_MM)]
    assert wall[0] == pytest.approx(wall[1]) and wall[2] == 0


def test_a_cavity_without_wall_is_closed_by_its_lining():
    picture = draw_rays(shares_of(ball(RADIUS_MM)), view(cut=SIZE_MM / 2), COLOURS)
    inside = np.hypot(*np.indices(picture.shape[:2]) * PIXEL_MM - SIZE_MM / 2) < RADIUS_MM - 3
    assert (picture[inside][:, 1:] == 0).all()


def test_structures_are_sorted_as_they_were_drawn():
    shares = shares_of(ball(RADIUS_MM - 2.0, RV_WALL, RV_CAVITY))
    along = np.array([[SIZE_MM / 2 + r, SIZE_MM / 2, SIZE_MM / 2] for r in (0, 20, 23, 28)])
    assert sort_structures(shares, along).tolist() == [RV_CAVITY, RV_CAVITY, RV_WALL, 0]
    left, right, of_left, heart = outer_shares(shares, along)
    assert (left == 0).all() and (of_left == 0).all()
    assert right[1] > 0.5 > right[2] and heart[2] > 0.5 > heart[3]
