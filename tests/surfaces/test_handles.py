"""Handles are cut and tunnels filled where little has to change, and only there."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from cardiacreg import sample_heart, surfaces_of
from cardiacreg.surfaces.handles import handle_count, without_handles
from cardiacreg.surfaces.level_fields import STRUCTURES_INSIDE, one_piece


def ball(shape=(30, 30, 30), centre=(14, 14, 14), radius=10.0):
    axes = np.indices(shape)
    return sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)) <= radius**2


def repaired(inside, may_go=True, may_come=True):
    allowed = [np.full(inside.shape, each) for each in (may_go, may_come)]
    depth = distance_transform_edt(inside) + distance_transform_edt(~inside) - 0.5
    return without_handles(inside, depth, *allowed)


@pytest.fixture
def bridged():
    """Two balls that touch in their middle, and a thin bridge between them: one handle."""
    both = ball((40, 20, 20), (11, 9, 9), 8) | ball((40, 20, 20), (28, 9, 9), 8)
    both[18:22, 8:11, 8:11] = True
    both[11:29, 15, 9] = True
    return both


def test_handles_are_counted(bridged):
    assert handle_count(ball()) == 0
    assert handle_count(bridged) == 1
    tunnel = ball()
    tunnel[14, 14] = tunnel[10, 14] = False
    assert handle_count(tunnel) == 2


def test_a_thin_bridge_is_cut(bridged):
    found = repaired(bridged, may_come=False)
    assert handle_count(found) == 0 and not (found & ~bridged).any()
    gone = np.argwhere(bridged & ~found)
    assert 0 < len(gone) < 20 and (gone[:, 1] >= 14).all()


def test_a_thin_tunnel_is_filled():
    tunnel = ball()
    tunnel[14, 14] = False
    found = repaired(tunnel, may_go=False)
    assert handle_count(found) == 0 and (found[tunnel]).all()
    assert 0 < (found ^ tunnel).sum() <= 21


def test_the_smaller_change_is_preferred():
    tunnel = ball()
    tunnel[14, 14] = False
    assert (repaired(tunnel) ^ tunnel).sum() <= 21


def test_what_may_not_change_stays(bridged):
    assert repaired(bridged, may_go=False, may_come=False) is bridged


def test_a_wide_ring_is_anatomy():
    i, j, k = np.indices((42, 42, 14))
    ring = (np.hypot(i - 21, j - 21) - 13) ** 2 + (k - 7) ** 2 <= 30
    assert handle_count(ring) == 1 and (repaired(ring) == ring).all()


@pytest.mark.parametrize(
    ("seed", "group", "phase"), [(10_010, "dilated", "ED"), (10_015, "hypertrophic", "ES")]
)
def test_hearts_whose_labels_have_tunnels_have_closed_surfaces_without_handles(seed, group, phase):
    labels = sample_heart(seed, group=group, phase=phase, with_image=False).labels
    for name, surface in surfaces_of(labels).items():
        assert surface.is_closed() and surface.euler_characteristic() == 2, name
        held = one_piece(np.isin(labels.array, STRUCTURES_INSIDE[name])).sum()
        ml = held * float(np.prod(labels.spacing_mm)) / 1000
        assert surface.volume_ml() == pytest.approx(ml, rel=5e-3), name
