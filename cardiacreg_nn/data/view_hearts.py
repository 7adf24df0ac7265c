"""Whole synthetic hearts to cut long-axis views from: labels and tissues, apex to atria.

Group and time of the cycle are drawn for every heart; the base ends at the valve planes, where straight
lines close long-axis contours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cardiacreg.anatomy.landmarks import derive_landmarks
from cardiacreg.geometry import LabelMap
from cardiacreg.phantoms.anatomy import HeartShape, heart_fields, structure_fractions
from cardiacreg.phantoms.beating import contraction, shape_between
from cardiacreg.phantoms.population import GROUPS, PHASES, sample_shape
from cardiacreg_nn.data.atria import draw_atria, draw_leaflets
from cardiacreg_nn.data.tissue_map import Scene, make_tissue_map
from cardiacreg_nn.data.training_hearts import Source

STEP_MM = 2.0
_SHAPE = (106, 104, 108)
_LOW_MM = (-122.0, -103.0, -128.0)
_ALL_KNOWN_BUT_RV_WALL = (True, True, True, False, True)
_ORDER = ("lv_cavity", "lv_wall", "rv_wall", "rv_cavity")


def view_heart(seed: int) -> Source:
    """Make one synthetic heart at a random time of its cycle, with what surrounds it and lies above it.

    Parameters
    ----------
    seed : int
        Decides person, group and time.

    Returns
    -------
    Source
        Canonical labels and tissues on a lattice of `STEP_MM`, without an image; axes (k, i, j), base
        last, RV towards low i; landmarks in mm along (k, i, j) from the lattice's centre.
    """
    rng = np.random.default_rng([seed, 31])
    group = sorted(GROUPS)[int(rng.integers(len(GROUPS)))]
    amount = float(contraction(np.array(rng.uniform())))
    ed, es = (sample_shape(seed, phase=phase, group=group) for phase in PHASES)
    shape = shape_between(ed, es, amount)
    low = np.array(_LOW_MM) + rng.uniform(-STEP_MM, STEP_MM, 3)
    x, y, z = (start + np.arange(n) * STEP_MM for start, n in zip(low, _SHAPE, strict=True))
    labels, tissues = _drawn(shape, (x, y, z), rng)
    matrix = np.diag([STEP_MM, STEP_MM, STEP_MM, 1.0])
    matrix[:3, 3] = low
    points = derive_landmarks(LabelMap(labels, matrix), base_at_last_slice=True).points_mm
    middle = low + STEP_MM * (np.array(_SHAPE) - 1) / 2
    return Source(
        np.zeros((0, 0, 0), dtype=np.uint8),
        np.ascontiguousarray(np.moveaxis(labels, 2, 0)),
        np.full(3, STEP_MM),
        (points - middle)[:, [2, 0, 1]],
        _ALL_KNOWN_BUT_RV_WALL,
        True,
        (0, _SHAPE[2] - 1),
        name=f"view_heart_{seed:05d}",
        group=group,
        phase=f"{amount:.2f}",
        tissues=np.ascontiguousarray(np.moveaxis(tissues, 2, 0)),
    )


def _drawn(
    shape: HeartShape,
    axes: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Labels and tissues on a lattice."""
    fields = heart_fields(shape, axes)
    fractions = structure_fractions(fields, shape.rv_wall_mm, STEP_MM)
    shares = np.stack([fractions[name] for name in _ORDER])
    winner = np.concatenate([1 - shares.sum(axis=0, keepdims=True), shares]).argmax(axis=0)
    labels = winner.astype(np.uint8)
    tissues = make_tissue_map(shape, fields, labels, axes, rng, above=draw_atria)
    grid = tuple(
        axis.astype(np.float32).reshape([-1 if at == n else 1 for at in range(3)])
        for n, axis in enumerate(axes)
    )
    draw_leaflets(Scene(fields, grid, fields.epicardium, rng), shape, tissues)
    return labels, tissues
