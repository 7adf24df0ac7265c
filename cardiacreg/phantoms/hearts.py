"""Synthetic bi-ventricular hearts: labels, an MR-like image and landmarks, exactly by seed.

The geometry and its measures are in `cardiacreg.phantoms.anatomy`, the groups and their calibration
in `cardiacreg.phantoms.population`, the image in `cardiacreg.phantoms.mr_image`.

Seeds below `FIRST_EVALUATION_SEED` belong to the default atlas bank; hearts for evaluation or tests
that the bank must not contain take seeds from there on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, distance_transform_edt, label as connected_components

from cardiacreg.algebra import settled
from cardiacreg.anatomy.landmarks import derive_landmarks
from cardiacreg.anatomy.volumes import voxel_ml
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import (
    LV_CAVITY,
    LV_WALL,
    RV_CAVITY,
    RV_WALL,
    LabelMap,
    Subject,
    Volume,
    as_numbers,
)
from cardiacreg.phantoms.anatomy import HeartShape, heart_fields, structure_fractions
from cardiacreg.phantoms.mr_image import render_image
from cardiacreg.phantoms.population import (
    GROUPS,
    MUSCLE_DENSITY_G_PER_ML,
    PHASES,
    coarse_axes,
    sample_shape,
)

__all__ = [
    "FIRST_EVALUATION_SEED",
    "GROUPS",
    "PHASES",
    "HeartSpecification",
    "measures",
    "population",
    "sample_heart",
]

FIRST_EVALUATION_SEED = 10_000
SPACING_MM = (1.25, 1.25, 2.0)
MARGIN_MM = 12.0
_PINHOLE_VOXELS = 12
_PLACE_STEP_MM = 2.0**-4
"""Hearts are drawn in single precision; where they lie must not depend on its last bits."""
_STRUCTURES = {
    "lv_cavity": LV_CAVITY,
    "lv_wall": LV_WALL,
    "rv_wall": RV_WALL,
    "rv_cavity": RV_CAVITY,
}


@dataclass(frozen=True, slots=True)
class HeartSpecification:
    """What identifies one synthetic heart: seed, group and phase."""

    seed: int
    group: str = "healthy"
    phase: str = "ED"

    @property
    def name(self) -> str:
        """Return a readable identifier."""
        return f"{self.group}_{self.phase}_{self.seed:05d}"


def sample_heart(
    seed: int,
    *,
    phase: str = "ED",
    group: str = "healthy",
    spacing_mm: Sequence[float] = SPACING_MM,
    with_image: bool = True,
) -> Subject:
    """Make one synthetic heart.

    Parameters
    ----------
    seed : int
        Non-negative; the same seed and group are the same person in both phases, bit for bit.
    phase : {"ED", "ES"}
        End-diastole or end-systole.
    group : {"healthy", "pulmonary_hypertension", "dilated", "hypertrophic"}
        Population whose volumes, masses and shape the heart is drawn from.
    spacing_mm : sequence of three floats
        Voxel size along (i, j, k).
    with_image : bool
        Whether to render the MR-like image too.

    Returns
    -------
    Subject
        Labels (uint8) and image (float32) on one grid, about 12 mm wider than the heart, in world
        mm with the origin at the mitral centre, x from RV to LV, y from anterior to inferior and z
        from apex to base; six landmarks; metadata with seed, group, phase and the `measures`.

    Raises
    ------
    InvalidInputError
        If the seed is negative, the group or phase unknown, or a spacing not positive.

    Examples
    --------
    >>> from cardiacreg import sample_heart
    >>> heart = sample_heart(7, group="dilated", spacing_mm=(4.0, 4.0, 6.0), with_image=False)
    >>> heart.name, heart.labels.present()
    ('dilated_ED_00007', (1, 2, 3, 4))
    """
    steps = as_numbers(spacing_mm, "sample_heart: spacing_mm")
    if steps.shape != (3,) or not (steps > 0).all():
        raise InvalidInputError(
            f"sample_heart: spacing_mm is {spacing_mm!r}; needs three positive numbers.",
            code="BAD_SPACING",
        )
    shape = sample_shape(seed, phase=phase, group=group)
    axes = _axes_around(shape, steps)
    fields = heart_fields(shape, axes)
    fractions = structure_fractions(fields, shape.rv_wall_mm, float(steps[:2].mean()))
    voxel_to_world = np.diag([*steps, 1.0])
    voxel_to_world[:3, 3] = settled([axis[0] for axis in axes], _PLACE_STEP_MM)
    labels = LabelMap(_labels(fractions), voxel_to_world)
    image = None
    if with_image:
        rng = np.random.default_rng([seed, sorted(GROUPS).index(group), 1 + PHASES.index(phase)])
        image = Volume(render_image(fields, fractions, axes, rng), voxel_to_world)
    identity = {"seed": int(seed), "group": group, "phase": phase}
    return Subject(
        labels,
        image=image,
        landmarks=derive_landmarks(labels),
        name=HeartSpecification(seed, group, phase).name,
        metadata=identity | {"rv_wall_mm": round(shape.rv_wall_mm, 2)} | measures(labels),
    )


def population(
    specifications: Sequence[HeartSpecification], *, with_image: bool = True
) -> Iterator[Subject]:
    """Yield the heart of each specification, made when it is asked for."""
    for item in specifications:
        yield sample_heart(item.seed, phase=item.phase, group=item.group, with_image=with_image)


def measures(labels: LabelMap) -> dict[str, float]:
    """Measure volumes in ml and masses in g of canonical labels.

    Parameters
    ----------
    labels : LabelMap
        Canonical labels.

    Returns
    -------
    dict of str to float
        ``lv_volume_ml``, ``lv_mass_g``, ``rv_volume_ml`` and ``rv_mass_g``; muscle at 1.05 g/ml.
    """
    volumes = np.bincount(labels.array.ravel(), minlength=5) * voxel_ml(labels)
    return {
        "lv_volume_ml": round(float(volumes[LV_CAVITY]), 2),
        "lv_mass_g": round(float(volumes[LV_WALL]) * MUSCLE_DENSITY_G_PER_ML, 2),
        "rv_volume_ml": round(float(volumes[RV_CAVITY]), 2),
        "rv_mass_g": round(float(volumes[RV_WALL]) * MUSCLE_DENSITY_G_PER_ML, 2),
    }


def _axes_around(
    shape: HeartShape, spacing_mm: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Axes of the fine grid: the heart's extent plus a margin."""
    coarse = coarse_axes(shape)
    shares = structure_fractions(heart_fields(shape, coarse), shape.rv_wall_mm, 4.0)
    heart = np.sum(list(shares.values()), axis=0) > 0.25
    axes = []
    for number, axis in enumerate(coarse):
        others = tuple(other for other in range(3) if other != number)
        held = np.flatnonzero(heart.any(axis=others))
        start, stop = axis[held[0]] - MARGIN_MM, axis[held[-1]] + MARGIN_MM
        axes.append(np.arange(start, stop, spacing_mm[number]))
    return axes[0], axes[1], axes[2]


def _labels(fractions: dict[str, NDArray[np.float32]]) -> NDArray[np.uint8]:
    """Return the structure with the largest share per voxel: one piece each, no pinholes."""
    shares = np.stack([fractions[name] for name in _STRUCTURES])
    background = 1 - shares.sum(axis=0, keepdims=True)
    winner = np.argmax(np.concatenate([background, shares]), axis=0)
    labels: NDArray[np.uint8] = np.array([0, *_STRUCTURES.values()], dtype=np.uint8)[winner]
    for value in _STRUCTURES.values():
        _drop_islands(labels, value)
    _fill_pinholes(labels)
    return labels


def _drop_islands(labels: NDArray[np.uint8], value: int) -> None:
    """Set all but the largest 6-connected piece of a structure to background, in place."""
    pieces, count = connected_components(labels == value)
    if count > 1:
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        labels[(pieces > 0) & (pieces != sizes.argmax())] = 0


def _fill_pinholes(labels: NDArray[np.uint8]) -> None:
    """Give small gaps that a slice's structures enclose the label beside them, in place."""
    in_plane = np.zeros((3, 3, 3), dtype=bool)
    in_plane[:, 1, 1] = in_plane[1, :, 1] = True
    holes = binary_fill_holes(labels > 0, in_plane) & (labels == 0)
    pieces, _ = connected_components(holes, in_plane)
    small = (pieces > 0) & (np.bincount(pieces.ravel())[pieces] <= _PINHOLE_VOXELS)
    if small.any():
        nearest = distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
        labels[small] = labels[tuple(nearest)][small]
