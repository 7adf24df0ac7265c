"""Contours of one patient's cine study, in short and long axis: read, and rasterised in the short axis.

One text file per phase holds points in patient mm (x to the left, y to the back, as in DICOM), each with
its kind and the number of its plane; another file holds the planes. The contours come from masks: a
point is the centre of an outermost pixel of its structure, and every second one is kept, in no
particular order. So the structure's edge runs half a pixel outside the points. The right ventricle's
points are parted into septum and free wall, and the left epicardium has no points where the septum has.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cardiacreg.arrays import Float
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, LabelMap

SHORT_AXIS = (1, 2, 3, 4, 5, 6)
LONG_AXIS = (7, 8, 9, 11)
PHASES = tuple(range(25))
PIXELS = (256, 208)
MARGIN_PIXELS = 2
_TO_RAS = np.array([-1.0, -1.0, 1.0])
_OFF_PLANE_MM = 0.05
_FEWEST_POINTS = 3


@dataclass(frozen=True)
class Plane:
    """An acquired plane: where pixel (0, 0) lies and how far a pixel steps along i and j, RAS mm."""

    origin_mm: Float
    steps_mm: Float

    def pixels(self, points_mm: Float) -> Float:
        """Return the pixel coordinates (i, j) of points, shape (n, 2)."""
        return np.linalg.lstsq(self.steps_mm.T, (points_mm - self.origin_mm).T, rcond=None)[0].T

    def distances_mm(self, points_mm: Float) -> Float:
        """Return how far points lie from the plane."""
        normal = np.cross(*self.steps_mm)
        return np.abs((points_mm - self.origin_mm) @ normal / np.linalg.norm(normal))

    @property
    def pixel_mm(self) -> float:
        """Size of a pixel."""
        return float(np.linalg.norm(self.steps_mm[0]))


@dataclass(frozen=True)
class Phase:
    """The points of one phase, by plane and kind."""

    number: int
    points_mm: dict[tuple[int, str], Float]

    def of(self, plane: int, *kinds: str) -> Float:
        """Return the points of some kinds in one plane, shape (n, 3)."""
        return _stacked([self.points_mm.get((plane, kind)) for kind in kinds])

    def everywhere(self, kind: str) -> Float:
        """Return the points of a kind in all planes, shape (n, 3)."""
        return _stacked([found for (_, own), found in self.points_mm.items() if own == kind])


def _stacked(found: list[Float | None]) -> Float:
    return np.concatenate([np.empty((0, 3)), *[each for each in found if each is not None]])


def read_planes(folder: Path) -> dict[int, Plane]:
    """Read the acquired planes by number."""
    planes = {}
    for line in (folder / "SliceInfoFile.txt").read_text(encoding="utf-8").splitlines():
        words = line.split()
        if not words:
            continue
        origin, turned = _numbers(words, "ImagePositionPatient", 3), _TO_RAS
        along = _numbers(words, "ImageOrientationPatient", 6).reshape(2, 3)
        size = _numbers(words, "PixelSpacing", 2)[::-1]
        number = int(words[words.index("sliceID:") + 1])
        planes[number] = Plane(origin * turned, along * turned * size[:, None])
    return planes


def _numbers(words: list[str], name: str, count: int) -> Float:
    first = words.index(name) + 1
    return np.array(words[first : first + count], dtype=np.float64)


def read_phase(folder: Path, number: int, planes: dict[int, Plane]) -> Phase:
    """Read the points of one phase.

    Raises
    ------
    ValueError
        If a point lies off its plane: points and planes are then not of one frame.
    """
    with (folder / f"GPFile_{number:03d}.txt").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    found: dict[tuple[int, str], list[list[float]]] = {}
    for row in rows:
        point = [float(row[axis]) for axis in "xyz"]
        found.setdefault((int(row["frameID"]), row["contour type"]), []).append(point)
    points = {key: np.array(each) * _TO_RAS for key, each in found.items()}
    for (plane, kind), each in points.items():
        off = float(planes[plane].distances_mm(each).max())
        if off > _OFF_PLANE_MM:
            raise ValueError(f"phase {number}: {kind} lies {off:.2f} mm off its plane {plane}")
    return Phase(number, points)


def short_axis_labels(phase: Phase, planes: dict[int, Plane]) -> LabelMap:
    """Rasterise the short-axis contours of one phase; planes without contours stay, empty."""
    first, second = planes[SHORT_AXIS[0]], planes[SHORT_AXIS[1]]
    matrix = np.eye(4)
    matrix[:3, :2] = first.steps_mm.T
    matrix[:3, 2] = second.origin_mm - first.origin_mm
    matrix[:3, 3] = first.origin_mm
    slices = [_slice(phase, number, planes[number]) for number in SHORT_AXIS]
    return LabelMap(np.stack(slices, axis=-1), matrix)


def _slice(phase: Phase, number: int, plane: Plane) -> NDArray[np.uint8]:
    """Paint the labels of one plane: the right ventricle over the left wall, which lacks the septum."""
    right = plane.pixels(phase.of(number, "SAX_RV_SEPTUM", "SAX_RV_FREEWALL"))
    outer = plane.pixels(phase.of(number, "SAX_LV_EPICARDIAL", "SAX_RV_SEPTUM"))
    inner = plane.pixels(phase.of(number, "SAX_LV_ENDOCARDIAL"))
    found = np.zeros(PIXELS, dtype=np.uint8)
    if len(phase.of(number, "SAX_LV_EPICARDIAL")) >= _FEWEST_POINTS:
        found[filled(as_tour(outer), PIXELS)] = LV_WALL
    if len(right) >= _FEWEST_POINTS:
        found[filled(as_tour(right), PIXELS)] = RV_CAVITY
    if len(inner) >= _FEWEST_POINTS:
        found[filled(as_tour(inner), PIXELS)] = LV_CAVITY
    return found


def as_tour(points: Float) -> Float:
    """Order the points of an outline along a short closed tour.

    From point to nearest point, and then any stretch is reversed that makes the tour shorter: what
    remains does not cross itself. A right ventricle, or a left wall that the valve plane cuts, is a
    crescent, which angles around a centre would not order.
    """
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    order = _uncrossed(_nearest_tour(distances), distances)
    return points[order]


def _nearest_tour(distances: Float) -> NDArray[np.int64]:
    order, left = [0], set(range(1, len(distances)))
    while left:
        order.append(min(left, key=lambda n: (distances[order[-1], n], n)))
        left.remove(order[-1])
    return np.array(order)


def _uncrossed(order: NDArray[np.int64], distances: Float) -> NDArray[np.int64]:
    """Reverse stretches of a closed tour while that makes it shorter (2-opt)."""
    improved = True
    while improved:
        improved = False
        for a in range(len(order) - 1):
            following = np.roll(order, -1)
            now = distances[order[a], following[a]] + distances[order, following]
            gain = now - distances[order[a], order] - distances[following[a], following]
            gain[: a + 2] = 0
            b = int(np.argmax(gain))
            if gain[b] > 1e-9:
                order[a + 1 : b + 1] = order[a + 1 : b + 1][::-1].copy()
                improved = True
    return order


def filled(outline: Float, shape: tuple[int, int], edge: float = 0.5) -> NDArray[np.bool_]:
    """Return the pixels inside a closed outline of pixel centres, or within half a pixel of it."""
    found = np.zeros(shape, dtype=bool)
    low = np.maximum(np.floor(outline.min(axis=0)).astype(int) - MARGIN_PIXELS, 0)
    high = np.minimum(np.ceil(outline.max(axis=0)).astype(int) + MARGIN_PIXELS + 1, shape)
    axes = np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij")
    pixels = np.stack(axes, axis=-1).reshape(-1, 1, 2).astype(float)
    held = _encloses(outline, pixels) | (_edge_distances(outline, pixels) <= edge + 1e-6)
    found[low[0] : high[0], low[1] : high[1]] = held.reshape(axes[0].shape)
    return found


def _encloses(outline: Float, pixels: Float) -> NDArray[np.bool_]:
    """Whether a line from each pixel along j crosses the outline an odd number of times."""
    start, end = outline, np.roll(outline, -1, axis=0)
    i, j = pixels[..., 0], pixels[..., 1]
    crosses = (start[:, 0] > i) != (end[:, 0] > i)
    step = end[:, 0] - start[:, 0]
    share = (i - start[:, 0]) / np.where(step == 0, 1.0, step)
    beyond = start[:, 1] + share * (end[:, 1] - start[:, 1]) > j
    return np.asarray((crosses & beyond).sum(axis=1) % 2 == 1)


def _edge_distances(outline: Float, pixels: Float) -> Float:
    """Distance of each pixel to the nearest edge of the outline, in pixels."""
    along = np.roll(outline, -1, axis=0) - outline
    lengths = np.maximum((along**2).sum(axis=1), 1e-12)
    share = np.clip(((pixels - outline) * along).sum(axis=-1) / lengths, 0, 1)
    nearest = outline + share[..., None] * along
    return np.asarray(np.linalg.norm(pixels - nearest, axis=-1).min(axis=1))
