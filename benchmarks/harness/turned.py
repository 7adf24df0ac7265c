"""The same heart lying differently in the scanner: a rotation of world space, with nothing resampled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.cases import Case
from cardiacreg.geometry import LabelMap, Volume


def rotation(degrees: float, seed: int) -> NDArray[np.float64]:
    """Return a rotation by an angle about a random axis through the world's origin, shape (4, 4)."""
    rng = np.random.default_rng([seed, 29])
    axis = rng.normal(size=3)
    x, y, z = axis / np.linalg.norm(axis)
    angle = np.radians(degrees)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    matrix = np.eye(4)
    matrix[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return matrix


def turned(case: Case, degrees: float) -> Case:
    """Return a case whose target and truth lie turned together."""
    turn = rotation(degrees, case.seed)
    labels, image = case.target.labels, case.target.image
    target = replace(
        case.target,
        labels=LabelMap(labels.array, turn @ labels.voxel_to_world),
        image=None if image is None else Volume(image.array, turn @ image.voxel_to_world),
    )
    truth = LabelMap(case.truth.array, turn @ case.truth.voxel_to_world)
    return replace(case, target=target, truth=truth)
