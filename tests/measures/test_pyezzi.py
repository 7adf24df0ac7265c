"""Thickness and depth against pyezzi, which solves the same equations on voxels."""

from __future__ import annotations

import numpy as np
import pytest

from cardiacreg import sample_heart, wall_coordinates
from cardiacreg.geometry import LV_CAVITY, LV_WALL
from cardiacreg.measures.left_wall import measure_left_wall
from cardiacreg.measures.segments import heart_directions, segments_of

pyezzi = pytest.importorskip("pyezzi.thickness", reason="needs pyezzi")
MIDDLE = range(7, 13)
"""Segments away from the base, whose rim pyezzi does not know, and from the apex."""


@pytest.fixture(scope="module")
def heart():
    return sample_heart(10_003, with_image=False, spacing_mm=(1.25, 1.25, 1.25))


@pytest.fixture(scope="module")
def solved(heart):
    cavity = heart.labels.array == LV_CAVITY
    whole = cavity | (heart.labels.array == LV_WALL)
    solver = pyezzi.ThicknessSolver(pyezzi.Domain(cavity, whole, (1.25, 1.25, 1.25)))
    solver.solve_thickness()
    return solver


def test_thickness_of_middle_segments(heart, solved):
    """Voxels round pyezzi's lengths by up to one, so that they agree within that."""
    frame = heart_directions(heart.landmarks)
    found = measure_left_wall(heart.labels, frame)
    voxels = np.argwhere(heart.labels.array == LV_WALL)
    matrix = heart.labels.voxel_to_world
    points = voxels @ matrix[:3, :3].T + matrix[:3, 3]
    lowest = float(frame.heights_mm(found.points_mm).min())
    segments = segments_of(points, frame, lowest)
    theirs = solved.result[tuple(voxels.T)]
    means = np.array([np.nanmean(theirs[segments == number]) for number in MIDDLE])
    ours = found.thickness_mm[[number - 1 for number in MIDDLE]]
    assert np.abs(ours - means).max() < 1.0
    assert np.corrcoef(ours, means)[0, 1] > 0.9


def test_depth_inside_the_wall(heart, solved):
    """The share of the way through the wall, against the shares of pyezzi's two lengths."""
    found = wall_coordinates(heart.labels).transmural
    wall = np.isfinite(found)
    theirs = (solved.L0 / np.maximum(solved.L0 + solved.L1, 1e-6))[wall]
    apart = found[wall] - theirs
    assert np.corrcoef(found[wall], theirs)[0, 1] > 0.95
    assert abs(np.median(apart)) < 0.05 and np.quantile(np.abs(apart), 0.9) < 0.2
