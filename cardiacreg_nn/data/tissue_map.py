"""Tissue maps of synthetic hearts and what surrounds them, from which training images are synthesised.

The heart is that of `cardiacreg.phantoms.anatomy`. What surrounds it differs from seed to seed: chest
wall in layers, diaphragm with liver and stomach below it, lung with vessels, fat of uneven thickness
on the heart, atria and great vessels above its base, trabeculae and papillary muscles within. Nothing
here has a brightness; `cardiacreg_nn.data.augmentation` draws one per tissue and image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL
from cardiacreg.phantoms.anatomy import HeartFields, HeartShape

TISSUES = (
    "lung",
    "left blood",
    "right blood",
    "left muscle",
    "right muscle",
    "heart fat",
    "lung vessel",
    "liver",
    "stomach",
    "bowel",
    "chest muscle",
    "chest fat",
    "rib",
    "artery",
)
"""Numbers of the map are positions in this tuple."""
Field = NDArray[np.float32]
_Axes = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
NUMBER = {name: number for number, name in enumerate(TISSUES)}
_LABELLED = {
    LV_CAVITY: "left blood",
    LV_WALL: "left muscle",
    RV_WALL: "right muscle",
    RV_CAVITY: "right blood",
}


class Scene(NamedTuple):
    """What the parts of a map are drawn from.

    Parameters
    ----------
    fields : HeartFields
    grid : tuple of three ndarrays
        World coordinates along x, y and z, mm, to be broadcast.
    distance : ndarray
        From the heart's outer surface, mm.
    rng : numpy.random.Generator
    """

    fields: HeartFields
    grid: tuple[Field, ...]
    distance: Field
    rng: np.random.Generator

    def uniform(self, low: float, high: float) -> float:
        """Draw a number."""
        return float(np.float32(self.rng.uniform(low, high)))

    def noise(self, correlation_voxels: float) -> Field:
        """Smooth noise of about unit variance."""
        size = self.fields.endocardium.shape
        coarse = self.rng.standard_normal([int(n / correlation_voxels) + 3 for n in size])
        factor = [n / (c - 1) for n, c in zip(size, coarse.shape, strict=True)]
        smooth = zoom(coarse.astype(np.float32), factor, order=1)
        smooth = smooth[tuple(slice(n) for n in size)]
        return np.asarray(smooth / smooth.std(), dtype=np.float32)


def make_tissue_map(
    shape: HeartShape,
    fields: HeartFields,
    labels: NDArray[np.uint8],
    axes_mm: _Axes,
    rng: np.random.Generator,
    *,
    above: Callable[[Scene, HeartShape, NDArray[np.uint8]], None] | None = None,
) -> NDArray[np.uint8]:
    """Draw a tissue for every voxel.

    Parameters
    ----------
    shape : HeartShape
    fields : HeartFields
        Of the shape, on the grid of `axes_mm`, mm.
    labels : ndarray of uint8, shape (i, j, k)
        Canonical labels on the same grid.
    axes_mm : tuple of three ndarrays
        World coordinates along x (RV to LV), y (anterior to inferior) and z (apex to base), mm.
    rng : numpy.random.Generator
    above : callable, optional
        Draws what lies above the base in place, of scene, shape and map; balls and tubes when absent,
        enough for stacks that end there.

    Returns
    -------
    ndarray of uint8, shape (i, j, k)
        Positions in `TISSUES`.
    """
    grid = tuple(
        axis.astype(np.float32).reshape([-1 if axis_of == n else 1 for axis_of in range(3)])
        for n, axis in enumerate(axes_mm)
    )
    outer = np.minimum(fields.epicardium, fields.rv_body - np.float32(shape.rv_wall_mm))
    scene = Scene(fields, grid, outer, rng)
    tissues = np.zeros(fields.endocardium.shape, dtype=np.uint8)
    _abdomen(scene, tissues)
    _chest(scene, tissues)
    _lung_vessels(scene, tissues)
    _heart_fat(scene, tissues)
    (above or _base)(scene, shape, tissues)
    _heart(scene, labels, tissues)
    return tissues


def whole_slices(labels: NDArray[np.uint8], fields: HeartFields) -> NDArray[np.uint8]:
    """Label the base as people label stacks: a slice shows the ventricles whole or not at all.

    Parameters
    ----------
    labels : ndarray of uint8, shape (i, j, k)
        Canonical labels that end at the tilted valve planes.
    fields : HeartFields
        Of the same heart, on the same grid.

    Returns
    -------
    ndarray of uint8, shape (i, j, k)
        Background above the last slice with half of the LV cavity below the mitral plane; up to there
        all that lies within the LV and in the RV body is labelled.
    """
    inner, outer = fields.endocardium < 0, fields.epicardium < 0
    size = inner.sum(axis=(0, 1))
    below = (inner & (fields.mitral < 0)).sum(axis=(0, 1))
    whole = labels.copy()
    whole[(fields.rv_body < 0) & ~outer & (labels == 0)] = RV_CAVITY
    whole[outer] = LV_WALL
    whole[inner] = LV_CAVITY
    top = np.flatnonzero((size > 0) & (2 * below >= size)).max()
    whole[:, :, top + 1 :] = 0
    return whole


def _plane(scene: Scene, azimuth_deg: float, distance_mm: float, tilt: float) -> Field:
    """How far beyond a plane whose normal lies at an azimuth (0 to the LV's side, 90 inferior), mm."""
    x, y, z = scene.grid
    angle = np.radians(azimuth_deg)
    along = np.float32(np.cos(angle)) * (x + 15) + np.float32(np.sin(angle)) * y
    return np.asarray(along - np.float32(distance_mm) - np.float32(tilt) * (z + 45))


def _abdomen(scene: Scene, tissues: NDArray[np.uint8]) -> None:
    """Liver towards the right and stomach or bowel towards the left, under a domed diaphragm."""
    x, _, z = scene.grid
    dome = _plane(scene, scene.uniform(65, 120), scene.uniform(22, 52), scene.uniform(0.1, 0.5))
    dome -= 4 * scene.noise(18) + (x / 60) ** 2 * scene.uniform(-10, 10)
    below = dome > 0
    border = x - scene.uniform(-20, 40) + 6 * scene.noise(14) + z * scene.uniform(-0.5, 0.5)
    tissues[below] = NUMBER["liver"]
    tissues[below & (border > 0)] = NUMBER["stomach"]
    blobs = scene.noise(scene.uniform(5, 12)) > scene.uniform(0.6, 1.4)
    tissues[below & blobs & (dome > 4)] = NUMBER["bowel"]
    rim = below & (dome < scene.uniform(0, 4))
    tissues[rim] = NUMBER["heart fat"]


def _chest(scene: Scene, tissues: NDArray[np.uint8]) -> None:
    """Ribs and muscle, then fat, then air, on the right and anterior side."""
    wall = _plane(
        scene, scene.uniform(170, 250), scene.uniform(26, 56), scene.uniform(-0.6, 0.1)
    ) - 3 * scene.noise(20)
    inner, muscle = scene.uniform(-8, 8), scene.uniform(5, 18)
    fat = scene.uniform(6, 70)
    tissues[wall > -inner] = NUMBER["chest fat"]
    tissues[wall > 0] = NUMBER["chest muscle"]
    ribs = np.sin(scene.grid[2] / scene.uniform(4, 9) + scene.noise(20)) > 0.3
    tissues[(wall > 2) & (wall < muscle - 2) & ribs] = NUMBER["rib"]
    tissues[wall > muscle] = NUMBER["chest fat"]
    streaks = (scene.noise(4) > 1.5) & (wall > muscle)
    tissues[streaks] = NUMBER["chest muscle"]
    tissues[wall > muscle + fat] = NUMBER["lung"]


def _lung_vessels(scene: Scene, tissues: NDArray[np.uint8]) -> None:
    """Bright spots in the lung, and a descending aorta behind the heart."""
    x, y, z = scene.grid
    bright = scene.noise(2.5) > scene.uniform(2.0, 3.2)
    tissues[bright & (tissues == 0) & (scene.distance > 6)] = NUMBER["lung vessel"]
    side, depth = scene.uniform(5, 70), scene.uniform(45, 75)
    centre = np.hypot(x - side - z * scene.uniform(-0.3, 0.3), y - depth)
    tissues[np.broadcast_to(centre < scene.uniform(7, 13), tissues.shape)] = NUMBER["artery"]


def _heart_fat(scene: Scene, tissues: NDArray[np.uint8]) -> None:
    """Fat on the heart: thick over the RV and near the base, nearly none over the lateral wall."""
    x, _, z = scene.grid
    mean, towards_right = scene.uniform(-1, 4), scene.uniform(0, 0.12)
    thickness = mean - towards_right * (x - 10) + scene.uniform(0, 0.08) * (z + 50)
    thickness = thickness + scene.uniform(1, 4) * scene.noise(9)
    thickness = np.clip(thickness, 0, 16)
    pericardium = thickness + np.clip(scene.uniform(-1.5, 2.5), 0, 2.5)
    tissues[scene.distance < pericardium] = NUMBER["chest muscle"]
    tissues[scene.distance < thickness] = NUMBER["heart fat"]


def _base(scene: Scene, shape: HeartShape, tissues: NDArray[np.uint8]) -> None:
    """Atria above the valves, in thin walls of muscle, and aorta and pulmonary trunk."""
    fields, (x, y, z) = scene.fields, scene.grid
    size = np.float32(shape.scale)

    def ball(centre: NDArray[np.float64], radius: float, lift: float) -> Field:
        offsets = (x - size * centre[0], y - size * centre[1], z - size * (centre[2] + lift))
        return np.asarray(
            np.sqrt(sum(o * o for o in offsets)) - np.float32(radius) + 2 * scene.noise(10)
        )

    wall = scene.uniform(1, 4)
    left = ball(np.array([4.0, 8.0, 0.0]), scene.uniform(20, 34), 18)
    left = np.maximum(left, 1 - fields.mitral)
    right = np.maximum(ball(shape.tricuspid_mm, scene.uniform(18, 34), 20), 1 - fields.roof)
    trunk = np.maximum(fields.valves - scene.uniform(0, 4), 1 - fields.roof)
    trunk = np.maximum(trunk, fields.rv_body - 6)
    aorta = np.maximum(fields.outflow - scene.uniform(0, 3), -20 - fields.mitral)
    tissues[np.minimum(np.minimum(left, right), np.minimum(trunk, aorta)) < wall] = NUMBER[
        "left muscle" if scene.rng.random() < 0.6 else "heart fat"
    ]
    tissues[np.minimum(right, trunk) < 0] = NUMBER["right blood"]
    tissues[np.minimum(left, aorta) < 0] = NUMBER["left blood"]


def _heart(scene: Scene, labels: NDArray[np.uint8], tissues: NDArray[np.uint8]) -> None:
    """Walls and cavities as labelled, then papillary muscles and trabeculae within the cavities."""
    for label, name in _LABELLED.items():
        tissues[labels == label] = NUMBER[name]
    fields, grid = scene.fields, scene.grid
    web = scene.noise(scene.uniform(2.0, 3.5))
    reach = scene.uniform(2, 10)
    near_left = (fields.endocardium > -reach) & (web > scene.uniform(0.3, 1.7))
    tissues[(labels == LV_CAVITY) & near_left] = NUMBER["left muscle"]
    near_right = web > scene.uniform(0.7, 2.0)
    tissues[(labels == RV_CAVITY) & near_right] = NUMBER["right muscle"]
    azimuth = np.arctan2(-grid[1], -grid[0])
    low = np.float32(grid[2].min())
    for centre in (-2.3, 2.5):
        turn = np.abs(np.angle(np.exp(1j * (azimuth - centre - scene.uniform(-0.4, 0.4)))))
        deep = np.abs(fields.endocardium + scene.uniform(4, 10)) < scene.uniform(1.5, 4.5)
        high = np.abs(grid[2] / low - scene.uniform(0.35, 0.6)) < scene.uniform(0.1, 0.3)
        tissues[(labels == LV_CAVITY) & (turn < scene.uniform(0.15, 0.5)) & deep & high] = NUMBER[
            "left muscle"
        ]
