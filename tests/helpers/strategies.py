"""Hypothesis strategies and seeded makers of small label maps, transforms and lattices."""

import numpy as np
from hypothesis import settings, strategies as st

from cardiacreg import Affine, LabelMap

light = settings(deadline=None, max_examples=20, derandomize=True)
few = settings(deadline=None, max_examples=6, derandomize=True)

seeds = st.integers(0, 2**32 - 1)
spacings_mm = st.tuples(*[st.floats(0.5, 10.0)] * 3)


def rotation(rng):
    """A random proper rotation."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else q @ np.diag([1.0, 1.0, -1.0])


def oblique_matrix(rng, spacing_mm=(1.5, 2.0, 4.0), *, left_handed=False, centre_of=None):
    """voxel_to_world with turned orthogonal axes, either handedness and any origin.

    With `centre_of`, a shape, the middle of the lattice lies near the world's origin.
    """
    axes = rotation(rng) * np.asarray(spacing_mm)
    if left_handed:
        axes[:, 0] *= -1
    matrix = np.eye(4)
    matrix[:3, :3] = axes
    matrix[:3, 3] = rng.uniform(-80, 80, size=3)
    if centre_of is not None:
        matrix[:3, 3] = rng.uniform(-2, 2, size=3) - axes @ (np.array(centre_of) - 1) / 2
    return matrix


def well_conditioned_matrix(rng, *, strength=0.2, reach_mm=5.0):
    """A world-to-world affine near a rotation."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(rng) @ (np.eye(3) + strength * rng.uniform(-1, 1, size=(3, 3)))
    matrix[:3, 3] = rng.uniform(-reach_mm, reach_mm, size=3)
    return matrix


def random_labels(rng, shape=(6, 5, 4), labels=(0, 1, 2, 4)):
    """Labels drawn voxel by voxel, each of `labels` at least once."""
    array = rng.choice(np.array(labels, dtype=np.uint8), size=shape)
    flat = array.reshape(-1)
    flat[rng.permutation(flat.size)[: len(labels)]] = labels
    return array


def blobs(rng, shape=(12, 11, 8), labels=(1, 2, 3, 4)):
    """Smooth label regions: each voxel takes the label of the nearest of a few random centres."""
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    centres = rng.uniform(0.2, 0.8, size=(2 * len(labels), 3)) * np.array(shape)
    distance = np.linalg.norm(grid[..., None, :] - centres, axis=-1)
    array = np.tile(np.array(labels, dtype=np.uint8), 2)[distance.argmin(axis=-1)]
    array[distance.min(axis=-1) > 0.3 * min(shape)] = 0
    return array


@st.composite
def label_maps(draw, labels=(0, 1, 2, 4)):
    """Small label maps on oblique lattices of either handedness."""
    rng = np.random.default_rng(draw(seeds))
    shape = draw(st.tuples(*[st.integers(2, 6)] * 3))
    matrix = oblique_matrix(
        rng, draw(spacings_mm), left_handed=draw(st.booleans()), centre_of=shape
    )
    return LabelMap(random_labels(rng, shape, labels), matrix)


@st.composite
def affines(draw):
    """Invertible world-to-world maps that are not extreme."""
    return Affine(well_conditioned_matrix(np.random.default_rng(draw(seeds))))


@st.composite
def lattices(draw):
    """(coefficients, lattice_to_world) of small spline lattices."""
    rng = np.random.default_rng(draw(seeds))
    shape = draw(st.tuples(*[st.integers(4, 7)] * 3))
    matrix = oblique_matrix(rng, draw(st.tuples(*[st.floats(5.0, 40.0)] * 3)))
    return rng.normal(size=(*shape, 3)), matrix


def ball(cavity_mm, size, spacing_mm, offset_mm=0.0, outer_mm=38.0):
    """A ball with a cavity."""
    away = (np.arange(size) - (size - 1) / 2) * spacing_mm + offset_mm
    radius = np.sqrt(sum(a**2 for a in np.meshgrid(away, away, away)))
    array = np.where(radius < cavity_mm, 1, np.where(radius < outer_mm, 2, 0)).astype(np.uint8)
    matrix = np.diag([spacing_mm] * 3 + [1.0])
    matrix[:3, 3] = away[0]
    return LabelMap(array, matrix)
