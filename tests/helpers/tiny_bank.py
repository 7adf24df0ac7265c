"""Tiny targets and atlases on which `refine` takes well under a second."""

import numpy as np
import pytest

from cardiacreg import Affine, LabelMap, Subject, Volume
from cardiacreg.fusion.label_fusion import FusionOptions
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.refinement.options import RefineOptions
from cardiacreg.registration.ffd_registration import RegistrationOptions
from cardiacreg.transforms.ffd import FFD
from cardiacreg.transforms.resampling import Lattice, warp_labels

SPACING_MM = (2.5, 2.5, 4.0)
GREY = np.array([30.0, 200.0, 90.0, 100.0, 190.0])
expect_tiny_findings = pytest.mark.filterwarnings(
    r"ignore:\[(LOW_AGREEMENT|VOLUME_DIFFERS|BEYOND_ENDS|ORIENTATION_DOUBTFUL|FEW_SLICES)\] "
    ":cardiacreg.errors.ResultWarning"
)
"""Few atlases on coarse voxels follow a target poorly and pass its ends, and a tiny heart looks the same
in a mirror; that is not what is tested."""


def tiny_options(**changes):
    """Options that are quick on tiny hearts, which lie as stored: they are too symmetric to tell."""
    fusion = FusionOptions(search=(3, 3, 1), patch=(3, 3, 1), bandwidth=200.0)
    quick = {
        "n_atlases": 2,
        "affine_candidates": 2,
        "registration": RegistrationOptions(),
        "fusion": fusion,
        "orientation": "as-stored",
    }
    return RefineOptions(**(quick | changes))


def with_image(labels, seed=0):
    """A subject whose image has one grey value per structure and noise."""
    noise = np.random.default_rng(seed).normal(0, 4, size=labels.shape)
    return Subject(labels, Volume(GREY[labels.array] + noise, labels.voxel_to_world))


def tiny_atlas(seed, *, strength_mm=3.0):
    """The tiny heart after a smooth random deformation, on finer slices, with an image."""
    labels = make_toy_heart().labels
    control = np.diag([30.0, 30.0, 30.0, 1.0])
    control[:3, 3] = labels.voxel_to_world[:3, 3] - 30
    moves = strength_mm * np.random.default_rng(seed).normal(size=(7, 7, 6, 3))
    matrix = np.diag([*SPACING_MM, 1.0])
    matrix[:3, 3] = labels.voxel_to_world[:3, 3] - 1.3
    warped = warp_labels(
        labels, FFD(Affine.identity(), moves, control), Lattice((42, 42, 16), matrix)
    )
    return with_image(warped, seed)


def tiny_atlases(count=3):
    """A bank of tiny hearts."""
    return [tiny_atlas(seed) for seed in range(count)]


def tiny_target(matrix=None):
    """The tiny heart with slices moved by whole voxels, with an image."""
    labels = make_toy_heart().labels
    array = np.array(labels.array)
    for k, offset in enumerate([(0, 0), (1, 0), (-1, 1), (0, -1), (1, 1), (-1, 0), (0, 0), (0, 0)]):
        array[:, :, k] = np.roll(array[:, :, k], offset, axis=(0, 1))
    return with_image(LabelMap(array, labels.voxel_to_world if matrix is None else matrix), 9)
