"""Coordinates of the LV wall against those of cardiac-coords, where somebody has installed it.

It is no dependency, not even of the tests: its licence, CeCILL 2.1, asks of others what ours does not.
"""

from __future__ import annotations

import numpy as np
import pytest

from cardiacreg import sample_heart, wall_coordinates
from cardiacreg.geometry import LV_CAVITY, LV_WALL
from cardiacreg.measures.segments import heart_directions

theirs = pytest.importorskip("cardiac_coords.api", reason="needs cardiac-coords")
EDGE_MM = 1.5


def test_coordinates_agree():
    heart = sample_heart(10_003, with_image=False, spacing_mm=(EDGE_MM,) * 3)
    frame, to_voxel = heart_directions(heart.landmarks), np.linalg.inv(heart.labels.voxel_to_world)
    centre_mm = frame.apex_mm + 0.6 * frame.base_mm * frame.axis
    cavity, wall = (heart.labels.array == label for label in (LV_CAVITY, LV_WALL))
    centre = EDGE_MM * (to_voxel @ [*centre_mm, 1])[:3]
    septal, axis = (EDGE_MM * to_voxel[:3, :3] @ side for side in (frame.septal, frame.axis))
    expected = theirs.CardiacCoordinates(
        endo=cavity.copy(), epi=cavity | wall, apex_direction=-axis, center=centre,
        theta_zero_point=centre + 50 * septal, spacing=(EDGE_MM,) * 3,
    )  # fmt: skip
    found = wall_coordinates(heart.labels)
    # Theirs is the potential, ours the share of the way; their height is the polar angle.
    assert np.corrcoef(expected.rho[wall], found.transmural[wall])[0, 1] > 0.97
    assert np.corrcoef(expected.phi[wall], found.apex_base[wall])[0, 1] > 0.97
    apart = (-np.degrees(expected.theta[wall]) - found.around_degrees[wall] + 180) % 360 - 180
    assert np.abs(apart).max() < 0.1
