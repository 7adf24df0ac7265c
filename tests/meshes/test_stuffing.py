"""Tetrahedra inside level sets: they fit together, keep volumes, and none is flat."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from cardiacreg.meshes.boundary import boundary_of
from cardiacreg.meshes.quality import scaled_jacobians, signed_volumes
from cardiacreg.meshes.smoothing import improved
from cardiacreg.meshes.stuffing import stuffed
from cardiacreg.surfaces.triangles import enclosed_volume


def shell(inner=8.0, outer=13.0, n=34, stretch=1.2):
    """Field of a hollow ellipsoid."""
    places = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), axis=-1) - (n / 2 - 0.3)
    radius = np.linalg.norm(places / np.array([1, 1, stretch]), axis=-1)
    return np.minimum(radius - inner, outer - radius).astype(np.float32)


def noise(seed):
    """A field without any plan, outside at the faces of the lattice."""
    random = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(random.normal(size=(18, 20, 22)), random.uniform(1.5, 3.0))
    field -= np.quantile(field, 0.4)
    field[[0, -1]] = field[:, [0, -1]] = field[:, :, [0, -1]] = -np.abs(field).max()
    return field.astype(np.float32)


@pytest.mark.parametrize("step", [0.9, 1.4, 2.0])
def test_a_shell(step):
    field = shell()
    mesh = stuffed(field, step)
    volumes = signed_volumes(*mesh)
    assert volumes.min() > 0
    expected = 4 / 3 * np.pi * 1.2 * (13**3 - 8**3)
    assert volumes.sum() == pytest.approx(expected, rel=0.01 * step)
    border = boundary_of(mesh.tetrahedra)
    assert enclosed_volume(mesh.nodes, border.astype(np.int32)) == pytest.approx(volumes.sum())
    edges = np.sort(np.concatenate([border[:, [0, 1]], border[:, [1, 2]], border[:, [2, 0]]]), 1)
    _, count = np.unique(edges, axis=0, return_counts=True)
    assert (count == 2).all()
    assert len(np.unique(border)) - len(count) + len(border) == 4
    # Nodes of the border are where the field, linear between nodes, is zero.
    on = ndimage.map_coordinates(field, mesh.nodes[np.unique(border)].T, order=1)
    assert np.abs(on).max() < 0.25 * step


@pytest.mark.parametrize("seed", range(4))
def test_any_field(seed):
    """Neighbours share whole faces, and no tetrahedron is flat, whatever the surface looks like."""
    mesh = stuffed(noise(seed), 0.8)
    faces = np.concatenate([np.delete(mesh.tetrahedra, corner, axis=1) for corner in range(4)])
    _, count = np.unique(np.sort(faces, axis=1), axis=0, return_counts=True)
    assert count.max() == 2
    assert scaled_jacobians(*mesh).min() > 0.08


def test_inner_nodes_are_moved_to_better_places():
    mesh = stuffed(noise(1), 0.8)
    better = improved(mesh)
    border = np.unique(boundary_of(mesh.tetrahedra))
    np.testing.assert_array_equal(better.nodes[border], mesh.nodes[border])
    before, after = scaled_jacobians(*mesh), scaled_jacobians(*better)
    assert after.min() > before.min() and (after < 0.15).sum() < (before < 0.15).sum() / 2


def test_quality_of_known_tetrahedra():
    regular = np.array([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    corner = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    rows = np.array([[0, 1, 2, 3]])
    assert abs(scaled_jacobians(regular, rows)[0]) == pytest.approx(1.0)
    assert scaled_jacobians(corner, rows)[0] == pytest.approx(np.sqrt(2) / 2)
    assert signed_volumes(corner, rows)[0] == pytest.approx(1 / 6)
