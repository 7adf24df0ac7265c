"""Tiny synthetic hearts in canonical labels, drawn from circles, for tests of checks and files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from cardiacreg import LabelMap

SPACING_MM = (1.5, 1.5, 8.0)


def matrix(spacing_mm=SPACING_MM, origin_mm=(-30.0, -30.0, 10.0)):
    """A matrix with the axes along world and the given spacing and origin."""
    voxel_to_world = np.diag([*spacing_mm, 1.0])
    voxel_to_world[:3, 3] = origin_mm
    return voxel_to_world


def small_heart(shape=(40, 40, 8), *, rv_wall=False, wall_voxels=4.0, voxel_to_world=None):
    """An LV ring with an RV crescent beside it on every slice but the first and the last."""
    i, j = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    from_lv = np.hypot(i - 0.6 * shape[0], j - 0.5 * shape[1])
    from_rv = np.hypot(i - 0.35 * shape[0], j - 0.5 * shape[1])
    plane = np.zeros(shape[:2], dtype=np.uint8)
    if rv_wall:
        plane[from_rv < 11.5] = 3
    plane[from_rv < 10] = 4
    plane[from_lv < 5 + wall_voxels] = 2
    plane[from_lv < 5] = 1
    array = np.zeros(shape, dtype=np.uint8)
    array[:, :, 1:-1] = plane[:, :, None]
    return LabelMap(array, matrix() if voxel_to_world is None else voxel_to_world)


def relabelled(labels, mapping):
    """The same map with other integers, {old: new}."""
    table = np.arange(256, dtype=np.uint8)
    for old, new in mapping.items():
        table[old] = new
    return LabelMap(table[labels.array], labels.voxel_to_world)


def data_folder(name):
    """The folder of a public data set on this machine, or a skip that says how to get it."""
    folder = Path(os.environ.get("CARDIACREG_DATA", "../shared/data")) / name
    if not folder.is_dir():
        pytest.skip(f"no {name} data: set CARDIACREG_DATA to the folder that holds {name}/")
    return folder
