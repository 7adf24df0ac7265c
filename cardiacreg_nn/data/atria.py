"""What long-axis views show above the valves: atria, great vessels, leaflets, and what lies behind.

A view is told where a ventricle ends by what follows it: blood of the same brightness behind a narrow
ring. Sizes and places differ widely from seed to seed; nothing here is labelled.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cardiacreg.phantoms.anatomy import HeartShape
from cardiacreg_nn.data.tissue_map import NUMBER, Field, Scene

_Point = NDArray[np.float64]
_UP = np.array([0.0, 0.0, 1.0])


def draw_atria(scene: Scene, shape: HeartShape, tissues: NDArray[np.uint8]) -> None:
    """Draw all that lies above the base into a map of tissues, in place.

    Parameters
    ----------
    scene : Scene
    shape : HeartShape
    tissues : ndarray of uint8, shape (i, j, k)
        Positions in `TISSUES`.
    """
    _back(scene, tissues)
    mitral, tricuspid = np.zeros(3), _scaled(shape, shape.tricuspid_mm)
    left, centre = _atrium(scene, mitral, scene.fields.mitral)
    left = np.minimum(left, _veins(scene, centre))
    right, _ = _atrium(scene, tricuspid, scene.fields.roof)
    aorta = _vessel(scene, _scaled(shape, shape.aortic_mm), (9, 17), -15.0)
    trunk = _vessel(scene, _scaled(shape, shape.pulmonary_mm), (8, 15), 0.0)
    aorta = np.minimum(aorta, np.maximum(scene.fields.outflow, -20 - scene.fields.mitral))
    septum = scene.uniform(1.0, 4.0)
    right = np.maximum(right, septum - np.minimum(left, aorta))
    left = np.maximum(left, scene.uniform(1.0, 3.0) - aorta)
    trunk = np.maximum(trunk, scene.uniform(0.5, 3.0) - np.minimum(left, aorta))
    pools = np.minimum(np.minimum(left, right), np.minimum(aorta, trunk))
    tissues[pools < scene.uniform(1.0, 14.0) + 3 * scene.noise(8)] = NUMBER["heart fat"]
    tissues[pools < scene.uniform(0.5, 3.0)] = NUMBER["left muscle"]
    tissues[np.minimum(right, trunk) < 0] = NUMBER["right blood"]
    tissues[np.minimum(left, aorta) < 0] = NUMBER["left blood"]


def draw_leaflets(scene: Scene, shape: HeartShape, tissues: NDArray[np.uint8]) -> None:
    """Draw the leaflets of mitral and tricuspid valve in place: shut, open, or not to be seen.

    Parameters
    ----------
    scene, shape, tissues
        As for `draw_atria`.
    """
    places = ((np.zeros(3), scene.fields.mitral), (_scaled(shape, shape.tricuspid_mm), None))
    for centre, height in places:
        x, y, z = (axis - np.float32(c) for axis, c in zip(scene.grid, centre, strict=True))
        depth = -(z if height is None else height)
        radius, half = np.hypot(x, y), scene.uniform(0.8, 1.6)
        reach, kind = scene.uniform(11, 19), scene.rng.random()
        if kind < 0.4:  # shut, domed into the ventricle
            dome = scene.uniform(-2, 9) * (1 - (radius / reach) ** 2)
            leaflet = (np.abs(depth - dome) < half) & (radius < reach)
        elif kind < 0.75:  # open, a funnel
            length = scene.uniform(8, 22)
            ring = reach * (1 - scene.uniform(0, 0.5) * depth / length)
            leaflet = (np.abs(radius - ring) < half) & (depth > -1) & (depth < length)
        else:
            continue
        blood = np.isin(tissues, (NUMBER["left blood"], NUMBER["right blood"]))
        tissues[leaflet & blood] = NUMBER["left muscle"]


def _scaled(shape: HeartShape, point_mm: _Point) -> _Point:
    return np.asarray(point_mm * shape.scale * np.array([1.0, 1.0, shape.elongation]))


def _atrium(scene: Scene, valve: _Point, height: Field) -> tuple[Field, _Point]:
    """Distance to an egg that sits on a valve, and its centre."""
    size = np.array([scene.uniform(17, 31), scene.uniform(17, 31), scene.uniform(14, 34)])
    lift = scene.uniform(0.5, 0.95) * size[2]
    centre = valve + np.array([scene.uniform(-9, 9), scene.uniform(-9, 9), lift])
    offsets = [
        (axis - np.float32(c)) / np.float32(s)
        for axis, c, s in zip(scene.grid, centre, size, strict=True)
    ]
    lean = scene.uniform(-0.4, 0.4), scene.uniform(-0.4, 0.4)
    x, y = (offsets[n] - np.float32(lean[n]) * offsets[2] for n in range(2))
    egg = (np.sqrt(x * x + y * y + offsets[2] ** 2) - 1) * np.float32(size.min())
    egg = egg + scene.uniform(0.5, 2.5) * scene.noise(9)
    return np.maximum(egg, -height), centre


def _capsule(scene: Scene, start: _Point, end: _Point, radius: float) -> Field:
    """Distance to a tube with round ends."""
    along = end - start
    offsets = [axis - np.float32(s) for axis, s in zip(scene.grid, start, strict=True)]
    share = sum(o * np.float32(d) for o, d in zip(offsets, along / (along @ along), strict=True))
    share = np.clip(np.asarray(share), 0, 1)
    squared = sum((o - share * np.float32(d)) ** 2 for o, d in zip(offsets, along, strict=True))
    return np.asarray(np.sqrt(np.asarray(squared)) - np.float32(radius))


def _vessel(scene: Scene, valve: _Point, radii: tuple[float, float], from_mm: float) -> Field:
    """Distance to an artery that rises from a valve, in two pieces that bend."""
    radius = scene.uniform(*radii)
    first = _towards(scene, _UP, 0.35) * scene.uniform(20, 40)
    second = _towards(scene, _UP, 0.9) * scene.uniform(25, 60)
    knee = valve + first
    lower = _capsule(scene, valve + from_mm * _UP * 0.3, knee, radius)
    return np.minimum(lower, _capsule(scene, knee, knee + second, radius * scene.uniform(0.8, 1.1)))


def _veins(scene: Scene, centre: _Point) -> Field:
    """Distance to veins that enter an atrium from the sides and from behind."""
    found = np.full(scene.fields.mitral.shape, np.inf, dtype=np.float32)
    for _ in range(int(scene.rng.integers(0, 5))):
        direction = _towards(scene, _UP * 0.6, 1.0)
        direction[2] = abs(direction[2]) + 0.1
        end = centre + direction * scene.uniform(35, 65)
        found = np.minimum(found, _capsule(scene, centre, end, scene.uniform(3.5, 8)))
    return np.asarray(np.maximum(found, -scene.fields.mitral))


def _towards(scene: Scene, direction: _Point, spread: float) -> _Point:
    """Return a unit vector about a direction."""
    vector = direction + spread * scene.rng.standard_normal(3)
    return np.asarray(vector / np.linalg.norm(vector))


def _back(scene: Scene, tissues: NDArray[np.uint8]) -> None:
    """Draw vertebrae and muscle far behind the base, and vessels across the lung."""
    x, y, z = scene.grid
    wall = z - scene.uniform(55, 120) + scene.uniform(-0.4, 0.4) * x + scene.uniform(-0.4, 0.4) * y
    wall = wall - 4 * scene.noise(15)
    tissues[wall > 0] = NUMBER["chest muscle"]
    bones = (np.abs(x - scene.uniform(-40, 40)) < scene.uniform(10, 22)) & (wall > 4)
    tissues[bones & (np.sin(y / scene.uniform(4, 8)) > -0.5)] = NUMBER["rib"]
    tissues[wall > scene.uniform(25, 45)] = NUMBER["chest fat"]
    for _ in range(int(scene.rng.integers(0, 4))):
        start = np.array([scene.uniform(-80, 70), scene.uniform(-80, 80), scene.uniform(20, 80)])
        end = start + _towards(scene, np.zeros(3), 1.0) * scene.uniform(20, 80)
        tissues[_capsule(scene, start, end, scene.uniform(3, 9)) < 0] = NUMBER["artery"]
