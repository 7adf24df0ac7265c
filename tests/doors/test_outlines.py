"""Outlines in pixels: order of their points, and what lies inside."""

import numpy as np
import pytest

from cardiacreg.doors.outlines import as_tour, filled


class TestOutlines:
    def test_a_square_through_pixel_centres_holds_them(self):
        corners = np.array([[2.0, 3.0], [2.0, 8.0], [7.0, 8.0], [7.0, 3.0]])
        found = filled(corners, (12, 12))
        expected = np.zeros((12, 12), dtype=bool)
        expected[2:8, 3:9] = True
        assert (found == expected).all()

    def test_an_outline_at_the_border_is_cut(self):
        corners = np.array([[-3.0, -3.0], [-3.0, 4.0], [4.0, 4.0], [4.0, -3.0]])
        assert filled(corners, (6, 6)).sum() == 25

    def test_every_second_pixel_of_an_edge_gives_the_mask_back(self):
        i, j = np.meshgrid(np.arange(50), np.arange(50), indexing="ij")
        mask = np.hypot((i - 25) / 1.3, j - 22) <= 14
        inner = mask[1:-1, :-2] & mask[1:-1, 2:] & mask[:-2, 1:-1] & mask[2:, 1:-1]
        edge = np.argwhere(mask & ~np.pad(inner, 1)).astype(float)
        edge = edge[np.argsort(np.arctan2(*(edge - (25, 22)).T))][::2]
        shuffled = edge[np.random.default_rng(1).permutation(len(edge))]
        found = filled(as_tour(shuffled), mask.shape)
        assert (found ^ mask).sum() < 0.02 * mask.sum()

    def test_a_crescent_is_walked_around(self):
        angles = np.linspace(0.8, 2 * np.pi - 0.8, 40)
        both = [r * np.stack([np.cos(angles), np.sin(angles)], axis=-1) for r in (20.0, 12.0)]
        outline = np.concatenate([both[0], both[1][::-1]]) + 30
        shuffled = outline[np.random.default_rng(2).permutation(len(outline))]
        found = filled(as_tour(shuffled), (60, 60), edge=0.0)
        area = (20**2 - 12**2) * (np.pi - 0.8)
        assert found.sum() == pytest.approx(area, rel=0.04)
        assert not found[30, 30]

    def test_the_two_points_of_a_valve_are_joined_and_the_outline_goes_around(self):
        """A deep cup whose opening is wider than the cup's narrow stem."""
        left = [(5.0, y) for y in range(0, 40, 2)]
        right = [(35.0, y) for y in range(0, 40, 2)]
        bottom = [(x, 40.0) for x in range(5, 36, 2)]
        points = np.array(left + right + bottom)
        shuffled = points[np.random.default_rng(3).permutation(len(points))]
        rows = [int(np.flatnonzero((shuffled == p).all(axis=1))[0]) for p in ((5, 0), (35, 0))]
        found = filled(as_tour(shuffled, openings=(tuple(rows),)), (41, 45), edge=0.0)
        assert found.sum() == 31 * 41

    def test_an_outline_outside_the_image_is_nothing(self):
        corners = np.array([[20.0, 20.0], [20.0, 25.0], [25.0, 25.0]])
        assert not filled(corners, (6, 6)).any()
