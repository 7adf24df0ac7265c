"""Phantoms sampled along the body: a heart turned in the world, on a lattice along the world's axes."""

from functools import cache

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from cardiacreg import LabelMap, Volume
from cardiacreg.geometry import apply_matrix
from cardiacreg.phantoms.hearts import sample_heart


@cache
def fine_heart(seed=10_022, phase="ED", spacing_mm=2.0):
    """A heart on an isotropic lattice along its short axis, without RV wall, as CT tools give it."""
    heart = sample_heart(seed, group="healthy", phase=phase, spacing_mm=(spacing_mm,) * 3)
    array = np.where(heart.labels.array == 3, 0, heart.labels.array)
    return LabelMap(array, heart.labels.voxel_to_world)


@cache
def few_atlases(count=5):
    """Other hearts to refine with."""
    return [sample_heart(10_030 + n, group="healthy", spacing_mm=(2, 2, 3)) for n in range(count)]


def rotation_matrix(degrees):
    """A world-to-world rotation by Euler angles about x, y and z."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    return matrix


def along_the_body(labels, degrees, spacing_mm=(2.0, 2.0, 2.0), image=False):
    """The heart turned, sampled along the world's axes; its true labels in the world; an image."""
    truth = LabelMap(labels.array, rotation_matrix(degrees) @ labels.voxel_to_world)
    corners = np.array(np.meshgrid(*[(0.0, n - 1.0) for n in labels.shape])).reshape(3, -1).T
    world = apply_matrix(truth.voxel_to_world, corners)
    matrix = np.diag([*spacing_mm, 1.0])
    matrix[:3, 3] = world.min(axis=0) - 6
    shape = tuple(np.ceil((world.max(axis=0) + 6 - matrix[:3, 3]) / spacing_mm).astype(int))
    array = sampled(truth, matrix, shape)
    if not image:
        return LabelMap(array, matrix), truth
    grey = np.array([30.0, 200.0, 90.0, 100.0, 190.0])[array]
    return LabelMap(array, matrix), truth, Volume(grey, matrix)


def sampled(labels, matrix, shape):
    """Labels at the nearest voxel, on another lattice."""
    to_voxel = np.linalg.inv(labels.voxel_to_world) @ matrix
    return ndimage.affine_transform(
        labels.array, to_voxel[:3, :3], to_voxel[:3, 3], output_shape=shape, order=0
    )


def dice_in_world(labels, truth, label=1):
    """Dice of a structure on the truth's lattice."""
    found = sampled(labels, truth.voxel_to_world, truth.shape) == label
    wanted = truth.array == label
    return 2 * (found & wanted).sum() / (found.sum() + wanted.sum())
