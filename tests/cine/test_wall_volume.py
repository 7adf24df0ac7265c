"""Walls of a whole cycle are drawn towards one volume, and cavities keep every voxel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from cardiacreg.cine.wall_volume import FusedWall, drawn_together, even_walls, wall_rim
from cardiacreg.fusion.label_fusion import fusion_from_votes, share_of_labels
from cardiacreg.geometry import LV_CAVITY, LV_WALL, N_LABELS, RV_CAVITY, RV_WALL
from cardiacreg.refinement.steps import Voted

SHAPE = (40, 40, 8)
CENTRE = (18.13, 20.29)


def voted(outer: float) -> Voted:
    """Five atlases' votes for a tube whose outside lies at a radius, beside an RV with a wall."""
    i, j, _ = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    radius = np.hypot(i - CENTRE[0], j - CENTRE[1])
    votes = np.zeros((*SHAPE, N_LABELS), dtype=np.float32)
    inside, within = _soft(7.0 - radius), _soft(outer - radius)
    right = _soft(i - 27.0) * _soft(8.0 - np.abs(j - CENTRE[1])) * (1 - within)
    far = _soft(i - 36.0) * right
    votes[..., LV_CAVITY] = 5 * inside
    votes[..., LV_WALL] = 5 * (within - inside)
    votes[..., RV_CAVITY], votes[..., RV_WALL] = 5 * (right - far), 5 * far
    votes[..., 0] = 5 * (1 - within - right)
    fusion = fusion_from_votes(votes, np.arange(N_LABELS, dtype=np.uint8), np.eye(4))
    return Voted(fusion, votes, votes)


def _soft(depth):
    return np.clip(depth / 3 + 0.5, 0, 1)


def walls(frames) -> list[int]:
    return [int((each.labels.array == LV_WALL).sum()) for each in frames]


@pytest.fixture(scope="module")
def cycle():
    return [voted(outer) for outer in (11.0, 11.04, 10.96, 11.0, 11.03, 10.95, 13.0)]


@pytest.fixture(scope="module")
def evened(cycle):
    return even_walls([FusedWall(each.fusion, wall_rim(each)) for each in cycle])


def test_small_deviations_mostly_go_and_large_ones_stay(cycle, evened):
    before, after = walls(each.fusion for each in cycle), walls(evened)
    middle = np.median(before)
    assert np.ptp(before[:-1]) > 0.02 * middle
    assert np.ptp(after[:-1]) < 0.4 * np.ptp(before[:-1])
    assert after[-1] == pytest.approx(before[-1], rel=0.015)
    np.testing.assert_allclose(after, drawn_together(before), atol=0.5)


def test_cavities_keep_every_voxel(cycle, evened):
    for before, after in zip(cycle, evened, strict=True):
        for label in (LV_CAVITY, RV_CAVITY):
            np.testing.assert_array_equal(
                before.fusion.labels.array == label, after.labels.array == label
            )


def test_only_the_outside_of_the_wall_changes(cycle, evened):
    for before, after in zip(cycle, evened, strict=True):
        i, j, _ = np.nonzero(before.fusion.labels.array != after.labels.array)
        assert (np.hypot(i - CENTRE[0], j - CENTRE[1]) > 9).all()


def test_the_confidence_is_the_share_of_the_new_label(cycle, evened):
    for before, after in zip(cycle, evened, strict=True):
        expected = share_of_labels(before.votes, after.labels)
        np.testing.assert_allclose(after.confidence.array, expected.array, atol=1e-6)


@given(st.lists(st.floats(1.0, 1000.0), min_size=1, max_size=30))
def test_no_volume_changes_by_more_than_its_bound_and_none_passes_another(volumes):
    found, middle = drawn_together(volumes), np.median(volumes)
    assert (np.abs(found - volumes) <= 0.0151 * middle).all()
    assert (np.abs(found - middle) <= np.abs(volumes - middle) + 1e-9).all()
    order = np.argsort(volumes, kind="stable")
    assert (np.diff(found[order]) >= -1e-9 * middle).all()


def test_without_a_wall_nothing_changes():
    assert drawn_together([0, 0, 0]).tolist() == [0, 0, 0]
