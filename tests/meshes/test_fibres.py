"""Fibres in a half shell between confocal ellipsoids, where potentials and directions are known.

Between prolate spheroids of equal foci the potential is a function of the spheroidal coordinate mu alone:
log(tanh(mu / 2)), between its values at both surfaces.
"""

from __future__ import annotations

import numpy as np
import pytest

from cardiacreg.measures.segments import HeartDirections
from cardiacreg.meshes.boundary import SURFACES, boundary_of
from cardiacreg.meshes.fibres import FibreAngles, rule_based_fibres
from cardiacreg.meshes.potentials import Elements
from cardiacreg.meshes.stuffing import stuffed

FOCUS_MM, INNER, OUTER = 30.0, 0.55, 0.95
STEP_MM = 2.5


def spheroidal(points):
    """Coordinates mu and theta of points about the long axis z."""
    across, along = np.hypot(points[..., 0], points[..., 1]), points[..., 2]
    far, near = np.hypot(across, along + FOCUS_MM), np.hypot(across, along - FOCUS_MM)
    mu = np.arccosh(np.maximum((far + near) / (2 * FOCUS_MM), 1.0))
    return mu, np.arccos(np.clip((far - near) / (2 * FOCUS_MM), -1, 1))


@pytest.fixture(scope="module")
def half_shell():
    """Mesh of the lower half, apex down, its surfaces, and where the tetrahedra's middles lie."""
    axes = [np.arange(-n, n + 1) * STEP_MM for n in (15, 15, 20)]
    places = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    mu, _ = spheroidal(places)
    wall = np.minimum(mu - INNER, OUTER - mu) * 33.0
    field = np.minimum(wall, -places[..., 2] + 0.1).astype(np.float32)
    mesh = stuffed(field, 1.0)
    nodes = mesh.nodes * STEP_MM + [axis[0] for axis in axes]
    border = boundary_of(mesh.tetrahedra)
    centres = nodes[border].mean(axis=1)
    mu, _ = spheroidal(centres)
    surfaces = np.where(mu < (INNER + OUTER) / 2, SURFACES["LV_ENDO"], SURFACES["EPI"])
    surfaces = np.where(centres[:, 2] > -0.3, SURFACES["BASE"], surfaces).astype(np.int32)
    low = np.array([0.0, 0.0, -FOCUS_MM * np.cosh(OUTER)])
    frame = HeartDirections(low, *np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]]), -low[2])
    return nodes, mesh.tetrahedra, border, surfaces, frame


def known_depth(points):
    mu, _ = spheroidal(points)
    height = np.log(np.tanh(np.array([INNER, OUTER]) / 2))
    return (np.log(np.tanh(mu / 2)) - height[0]) / (height[1] - height[0])


def test_the_potential_through_the_wall(half_shell):
    nodes, tetrahedra, border, surfaces, _ = half_shell
    on = {name: np.unique(border[surfaces == number]) for name, number in SURFACES.items()}
    elements = Elements(nodes, tetrahedra)
    found = elements.means(elements.potential(zero=[on["LV_ENDO"]], one=[on["EPI"]]))
    apart = found - known_depth(nodes[tetrahedra].mean(axis=1))
    assert abs(apart.mean()) < 0.02 and np.quantile(np.abs(apart), 0.95) < 0.06


def directions_at(points):
    """Ways around, up and out of the spheroidal coordinates: of rising mu, and of falling theta."""
    mu, theta = spheroidal(points)
    turn = np.arctan2(points[:, 1], points[:, 0])
    around = np.stack([-np.sin(turn), np.cos(turn), np.zeros_like(turn)], axis=1)
    outward = np.stack([np.cosh(mu) * np.sin(theta) * np.cos(turn),
                        np.cosh(mu) * np.sin(theta) * np.sin(turn),
                        np.sinh(mu) * np.cos(theta)], axis=1)  # fmt: skip
    outward /= np.linalg.norm(outward, axis=1)[:, None]
    return around, np.cross(outward, around), outward


def degrees_between(found, expected):
    """Angles between directions without a sign."""
    return np.degrees(np.arccos(np.clip(np.abs((found * expected).sum(axis=1)), 0, 1)))


def known_fibres(points, endo, epi):
    """Fibres whose helix angle changes evenly with the potential."""
    around, upward, _ = directions_at(points)
    depth = known_depth(points)
    helix = np.radians(endo * (1 - depth) + epi * depth)[:, None]
    return np.cos(helix) * around + np.sin(helix) * upward


def test_fibres_turn_through_the_wall(half_shell):
    """Circumferential, longitudinal and transmural directions are those of the coordinates."""
    nodes, tetrahedra, border, surfaces, frame = half_shell
    angles = FibreAngles(60.0, -60.0, 0.0, 0.0)
    found = rule_based_fibres(nodes, tetrahedra, border, surfaces, frame, angles)
    points = nodes[tetrahedra].mean(axis=1)
    apical = spheroidal(points)[1] > np.radians(160)
    off = degrees_between(found.fibres, known_fibres(points, 60.0, -60.0))
    assert np.median(off[~apical]) < 4 and np.quantile(off[~apical], 0.95) < 12
    off = degrees_between(found.sheets, directions_at(points)[2])
    assert np.median(off[~apical]) < 5 and np.quantile(off[~apical], 0.95) < 15
    np.testing.assert_allclose((found.fibres * found.sheets).sum(axis=1), 0, atol=1e-12)


@pytest.mark.parametrize(
    ("inside", "outside"),
    [("LV_ENDO", "RV_ENDO"), ("RV_ENDO", "EPI")],
    ids=["a septum on one side", "a wall of the other ventricle on one side"],
)
@pytest.mark.parametrize(("endo", "epi"), [(40.0, -50.0), (60.0, -60.0)])
def test_fibres_turn_evenly_in_every_wall(half_shell, inside, outside, endo, epi):
    """The shell is the LV's free wall on one side, and on the other a septum or the RV's free wall.

    Angles more than 90 degrees apart turn as evenly as others.
    """
    nodes, tetrahedra, border, surfaces, frame = half_shell
    other_side = nodes[border].mean(axis=1)[:, 0] > 0
    tagged = surfaces.copy()
    for found, wanted in (("LV_ENDO", inside), ("EPI", outside)):
        tagged[other_side & (surfaces == SURFACES[found])] = SURFACES[wanted]
    angles = FibreAngles(endo, epi, 0.0, 0.0)
    fibres = rule_based_fibres(nodes, tetrahedra, border, tagged, frame, angles).fibres
    points = nodes[tetrahedra].mean(axis=1)
    inner = (spheroidal(points)[1] < np.radians(150)) & (points[:, 2] < -3)
    far = inner & (np.abs(np.arctan2(points[:, 1], np.abs(points[:, 0]))) < np.radians(45))
    for side, last in (
        (points[:, 0] < 0, epi),
        (points[:, 0] > 0, epi if outside == "EPI" else -endo),
    ):
        own = far & side
        off = degrees_between(fibres[own], known_fibres(points[own], endo, last))
        assert own.sum() > 1000
        assert np.median(off) < 5 and np.quantile(off, 0.95) < 13, (np.median(off), last)
