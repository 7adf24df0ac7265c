"""Surfaces of an atlas carried to other hearts: vertices correspond, and lie on the model."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from cardiacreg import (
    FFD,
    Affine,
    LabelMap,
    Surface,
    carried_surface,
    sample_heart,
    surfaces_of,
    warp_labels,
)
from cardiacreg.errors import InputWarning, InvalidInputError
from cardiacreg.surfaces.level_fields import STRUCTURES_INSIDE

NAMES = tuple(STRUCTURES_INSIDE)


@pytest.fixture(scope="module")
def atlas():
    return sample_heart(10_003, with_image=False).labels


@pytest.fixture(scope="module")
def surfaces(atlas):
    return surfaces_of(atlas, triangles=6000)


def bent(atlas, *, mirror=False, moved_mm=4.0):
    """Target to atlas: a change of size, a turn, and a smooth spline."""
    centre = (
        atlas.voxel_to_world[:3, :3] @ (np.array(atlas.shape) / 2) + atlas.voxel_to_world[:3, 3]
    )
    matrix = np.eye(4)
    angle = 0.3
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, :3] *= (1.1, 0.95, 1.05)
    if mirror:
        matrix[0] *= -1
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre
    lattice = np.diag([30.0, 30.0, 30.0, 1.0])
    lattice[:3, 3] = centre - 135.0
    controls = np.random.default_rng(0).uniform(-moved_mm, moved_mm, (10, 10, 10, 3))
    return FFD(Affine(matrix), controls, lattice)


def test_vertices_go_where_the_transform_comes_from(surfaces, atlas):
    transform = bent(atlas)
    for name in NAMES:
        found = carried_surface(surfaces[name], transform)
        np.testing.assert_allclose(
            transform.apply(found.vertices_mm), surfaces[name].vertices_mm, atol=5e-3
        )
        assert (found.triangles == surfaces[name].triangles).all() and found.name == name
        assert found.is_closed() and found.euler_characteristic() == 2


def test_a_carried_surface_bounds_the_warped_labels(surfaces, atlas):
    transform = bent(atlas)
    warped = warp_labels(atlas, transform, atlas)
    own = surfaces_of(warped, triangles=6000)
    for name in NAMES:
        found = carried_surface(surfaces[name], transform)
        assert found.volume_ml() == pytest.approx(own[name].volume_ml(), rel=0.02)


def test_a_mirroring_transform_still_looks_outwards(surfaces, atlas):
    found = carried_surface(surfaces["LV_EPI"], bent(atlas, mirror=True))
    assert found.volume_ml() > 0 and found.is_closed()


@pytest.mark.parametrize("name", ["LV_ENDO", "RV_EPI"])
def test_vertices_are_moved_onto_a_model_and_keep_their_neighbours(surfaces, atlas, name):
    """The model is the warped atlas; the transform that is given lacks most of the deformation."""
    right, wrong = bent(atlas, moved_mm=8.0), bent(atlas, moved_mm=1.0)
    model = warp_labels(atlas, right, atlas)
    own = surfaces_of(model)[name]
    off = carried_surface(surfaces[name], wrong)
    found = carried_surface(surfaces[name], wrong, onto=model)
    assert found.volume_ml() == pytest.approx(own.volume_ml(), rel=0.02)
    assert (found.triangles == off.triangles).all()
    tree = cKDTree(own.vertices_mm[own.triangles].mean(axis=1))
    before, after = (tree.query(each.vertices_mm)[0].mean() for each in (off, found))
    assert after < 0.6 < before
    edges = [
        np.linalg.norm(np.diff(each.vertices_mm[each.triangles[:, :2]], axis=1)[:, 0], axis=1)
        for each in (off, found)
    ]
    assert np.quantile(edges[1] / edges[0], 0.01) > 0.5  # neighbours stay apart


def test_frames_of_a_beat_have_corresponding_vertices(surfaces, atlas):
    """A heart that shrinks by a tenth: every vertex moves towards the centre."""
    sizes = (1.0, 0.95, 0.9)
    frames = [
        carried_surface(surfaces["LV_ENDO"], Affine(np.diag([1 / s, 1 / s, 1 / s, 1.0])))
        for s in sizes
    ]
    for size, frame in zip(sizes, frames, strict=True):
        np.testing.assert_allclose(frame.vertices_mm, size * frames[0].vertices_mm, atol=1e-9)


def test_what_cannot_be_carried_is_refused(surfaces, atlas):
    folding = bent(atlas, moved_mm=60.0)
    with pytest.raises(InvalidInputError) as raised:
        carried_surface(surfaces["LV_ENDO"], folding)
    assert raised.value.code == "NO_INVERSE"
    named = Surface(surfaces["LV_ENDO"].vertices_mm, surfaces["LV_ENDO"].triangles, "aorta")
    with pytest.raises(InvalidInputError) as raised:
        carried_surface(named, Affine.identity(), onto=atlas)
    assert raised.value.code == "UNKNOWN_STRUCTURE"
    left_alone = LabelMap(np.where(atlas.array <= 2, atlas.array, 0), atlas.voxel_to_world)
    with pytest.raises(InvalidInputError) as raised:
        carried_surface(surfaces["RV_ENDO"], Affine.identity(), onto=left_alone)
    assert raised.value.code == "UNKNOWN_STRUCTURE"


def test_a_transform_of_another_heart_is_told(surfaces, atlas):
    away = np.eye(4)
    away[0, 3] = 80.0
    with pytest.warns(InputWarning, match="do not reach the model's surface"):
        carried_surface(surfaces["LV_ENDO"], Affine(away), onto=atlas)
