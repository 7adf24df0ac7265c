"""From a native stack to the network's lattice and back.

The network sees a box of fixed size and spacing (`NetworkBox`) in which the base is at the last slice. A
`Placement` is the matrix from the voxels of that box to the voxels of the native stack; sampling the
image through it, and the probabilities through its inverse, is all there is to preprocessing and its
inversion. Native slices are kept as they are where their distance is near the box's.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import affine_transform, gaussian_filter

from cardiacreg.arrays import Float

Image = NDArray[np.float32]
_FINEST_SHARE, _COARSEST_SHARE = 0.79, 1.26
_FEWEST_SLICES = 3
_PERCENTILES = (1.0, 99.0)
_ON_EDGE = 1e-9
"""Voxels; what rounding may put beyond the outermost voxel."""


@dataclass(frozen=True, slots=True)
class NetworkBox:
    """The lattice a network works on; the defaults are the paper's high-resolution one.

    Parameters
    ----------
    shape : tuple of three int
        Voxels along (i, j, k); the first two multiples of 16.
    spacing_mm : tuple of three float
        Spacing along (i, j, k) in mm.
    native_slices : bool
        Whether slices whose distance is within a quarter of ``spacing_mm[2]`` are taken as they are
        instead of being resampled.
    """

    shape: tuple[int, int, int] = (192, 192, 80)
    spacing_mm: tuple[float, float, float] = (1.25, 1.25, 2.0)
    native_slices: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "spacing_mm", tuple(float(s) for s in self.spacing_mm))
        if len(self.shape) != 3 or self.shape[0] % 16 or self.shape[1] % 16 or min(self.shape) < 1:
            raise ValueError(f"NetworkBox: shape is {self.shape}; needs (16 a, 16 b, S).")
        if len(self.spacing_mm) != 3 or not min(self.spacing_mm) > 0:
            raise ValueError(
                f"NetworkBox: spacing_mm is {self.spacing_mm}; needs three positive numbers."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for a weight file's card."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def slice_distance_mm(self, native_mm: float) -> float:
        """Return the distance of the box's slices for a stack of some slice distance."""
        share = native_mm / self.spacing_mm[2]
        keep = self.native_slices and _FINEST_SHARE <= share <= _COARSEST_SHARE
        return native_mm if keep else self.spacing_mm[2]


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """Where the network's box lies in a native stack.

    Parameters
    ----------
    to_native : ndarray, shape (4, 4)
        Box voxels (i, j, k) to native voxels (i, j, k).
    native_shape : tuple of three int
    box : NetworkBox
    """

    to_native: Float
    native_shape: tuple[int, int, int]
    box: NetworkBox

    def points_to_native(self, points: ArrayLike) -> Float:
        """Map box voxel positions (..., 3) to native ones."""
        moved: Float = (
            np.asarray(points, dtype=np.float64) @ self.to_native[:3, :3].T + self.to_native[:3, 3]
        )
        return moved

    def points_to_box(self, points: ArrayLike) -> Float:
        """Map native voxel positions (..., 3) to box ones."""
        inverse = np.linalg.inv(self.to_native)
        moved: Float = np.asarray(points, dtype=np.float64) @ inverse[:3, :3].T + inverse[:3, 3]
        return moved

    def over(self, n_slices: int) -> Placement:
        """Return the box as it lies in the plane, centred along another number of slices."""
        to_native, middle = self.to_native.copy(), (self.box.shape[2] - 1) / 2
        offset = (n_slices - 1) / 2 - to_native[2, 2] * middle
        whole = abs(abs(to_native[2, 2]) - 1) < 1e-6
        to_native[2, 3] = np.floor(offset + 0.5) if whole else offset
        return Placement(to_native, (*self.native_shape[:2], n_slices), self.box)

    def turned(self, angle: float) -> Placement:
        """Return the box turned about its centre in the plane, by an angle in radians."""
        height, width, slices = self.box.shape
        middle = (np.array((height, width, slices), dtype=np.float64) - 1) / 2
        cosine, sine = np.cos(angle), np.sin(angle)
        ratio = self.box.spacing_mm[1] / self.box.spacing_mm[0]
        turn = np.array([[cosine, -sine * ratio, 0], [sine / ratio, cosine, 0], [0, 0, 1]])
        to_native = np.eye(4)
        to_native[:3, :3] = self.to_native[:3, :3] @ turn
        to_native[:3, 3] = self.points_to_native(middle) - to_native[:3, :3] @ middle
        return Placement(to_native, self.native_shape, self.box)


def sub_stacks(n_slices: int, distance_mm: float, box: NetworkBox) -> list[range]:
    """Return parts of a stack that a network can look at one by one, all slices together.

    A stack that is finer than the box is taken apart into interleaved ones, of every second, third,
    ... slice, whose slices are about as far apart as the network knows them; a part with more slices
    than the box holds becomes several that overlap.

    Parameters
    ----------
    n_slices : int
    distance_mm : float
        Between neighbouring slices.
    box : NetworkBox

    Returns
    -------
    list of range
        Numbers of slices; the whole stack where the box resamples slices.
    """
    if not box.native_slices:
        return [range(n_slices)]
    steps = np.arange(1, max(n_slices // _FEWEST_SLICES, 1) + 1)
    step = int(steps[np.abs(np.log(steps * distance_mm / box.spacing_mm[2])).argmin()])
    parts = []
    for first in range(step):
        slices = range(first, n_slices, step)
        count = -(-len(slices) // box.shape[2])
        size = min(len(slices), box.shape[2])
        starts = np.rint(np.linspace(0, len(slices) - size, count)).astype(int)
        parts += [slices[start : start + size] for start in starts]
    return parts


def turns(in_plane: bool = True) -> list[Float]:
    """Return proper rotations by right angles that a stack may be stored under.

    Parameters
    ----------
    in_plane : bool
        Whether quarter turns about the slice axis are among them; turning the stack over (half a turn
        about the first axis, base to apex) always is.

    Returns
    -------
    list of ndarray, shape (3, 3)
        Eight, or two.
    """
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    over = np.diag([1.0, -1.0, -1.0])
    rotations = [np.linalg.matrix_power(quarter, n) for n in range(4 if in_plane else 1)]
    return [rotation @ tilt for tilt in (np.eye(3), over) for rotation in rotations]


def place(
    shape: tuple[int, int, int],
    voxel_to_world: ArrayLike,
    box: NetworkBox,
    *,
    centre: ArrayLike | None = None,
    turn: ArrayLike | None = None,
) -> Placement:
    """Lay the network's box over a native stack.

    Parameters
    ----------
    shape : tuple of three int
        Of the stack, (i, j, k).
    voxel_to_world : array_like, shape (4, 4)
        Of the stack; its handedness and spacing matter, its directions do not.
    box : NetworkBox
    centre : array_like, shape (3,), optional
        Native voxel position that becomes the box's centre; the stack's centre when absent.
    turn : array_like, shape (3, 3), optional
        Rotation by right angles from box axes to (right-handed) native axes; none when absent.

    Returns
    -------
    Placement
        Along axes of equal spacing, box voxels fall on native ones exactly.
    """
    matrix = np.asarray(voxel_to_world, dtype=np.float64)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    turn = np.eye(3) if turn is None else np.asarray(turn, dtype=np.float64)
    if np.linalg.det(matrix[:3, :3]) < 0:
        turn = np.diag([1.0, 1.0, -1.0]) @ turn
    distance = box.slice_distance_mm(float(spacing[2]))
    box_mm = np.array([*box.spacing_mm[:2], distance])
    linear = turn * box_mm / spacing[:, None]
    middle = (np.array(shape, dtype=np.float64) - 1) / 2
    wanted = middle if centre is None else np.asarray(centre, dtype=np.float64)
    box_middle = (np.array(box.shape, dtype=np.float64) - 1) / 2
    offset = wanted - linear @ box_middle
    whole = np.abs(np.abs(linear).max(axis=1) - 1) < 1e-6
    offset[whole] = np.floor(offset[whole] + 0.5)
    to_native = np.eye(4)
    to_native[:3, :3], to_native[:3, 3] = linear, offset
    return Placement(to_native, (shape[0], shape[1], shape[2]), box)


def sample_image(array: NDArray[Any], placement: Placement) -> Image:
    """Sample a native image at the box's voxels, linearly, 0 outside; shape (S, H, W), float32."""
    linear, offset = placement.to_native[:3, :3], placement.to_native[:3, 3]
    step = np.abs(linear).max(axis=1)
    blur = 0.5 * np.sqrt(np.maximum(step**2 - 1, 0))
    values = np.asarray(array, dtype=np.float32)
    if blur[:2].max() > 0.3:
        values = gaussian_filter(values, (*blur[:2], 0.0), mode="nearest")
    box = affine_transform(
        values, linear, offset, output_shape=placement.box.shape, order=1, mode="constant"
    )
    return np.ascontiguousarray(np.moveaxis(box, 2, 0))


def sample_labels(array: NDArray[np.uint8], placement: Placement) -> NDArray[np.uint8]:
    """Sample native labels at the box's voxels, nearest, 0 outside; shape (S, H, W), uint8."""
    box = affine_transform(
        array,
        placement.to_native[:3, :3],
        placement.to_native[:3, 3],
        output_shape=placement.box.shape,
        order=0,
        mode="constant",
    )
    return np.ascontiguousarray(np.moveaxis(box, 2, 0))


def acquired(placement: Placement) -> NDArray[np.bool_]:
    """Return which voxels of the box lie in the stack, shape (S, H, W)."""
    linear, offset = placement.to_native[:3, :3], placement.to_native[:3, 3]
    i, j, k = (np.arange(n, dtype=np.float64) for n in placement.box.shape)
    inside = np.ones(placement.box.shape, dtype=bool)
    for axis, size in enumerate(placement.native_shape):
        a, b, c = linear[axis]
        at = (a * i)[:, None, None] + (b * j)[:, None] + c * k + offset[axis]
        inside &= (at >= -_ON_EDGE) & (at <= size - 1 + _ON_EDGE)
    return np.ascontiguousarray(np.moveaxis(inside, 2, 0))


def rescale(box: Image, inside: NDArray[np.bool_]) -> Image:
    """Clip to the 1st and 99th percentile of the acquired voxels and scale to [0, 1]; 0 elsewhere."""
    low, high = np.percentile(box[inside], _PERCENTILES) if inside.any() else (0.0, 0.0)
    scaled = np.clip((box - low) / max(float(high - low), 1e-6), 0, 1)
    return np.where(inside, scaled, 0).astype(np.float32)


def to_box(array: NDArray[Any], placement: Placement) -> Image:
    """Return the network's input of a native image: sampled, clipped and scaled, (S, H, W)."""
    return rescale(sample_image(array, placement), acquired(placement))


def _covered(placement: Placement) -> tuple[slice, slice, slice]:
    """The native voxels that the box may reach."""
    ends = np.array(placement.box.shape) - 1
    corners = placement.points_to_native(np.array(list(np.ndindex(2, 2, 2))) * ends)
    low = np.maximum(np.floor(corners.min(axis=0)), 0).astype(int)
    high = np.minimum(np.ceil(corners.max(axis=0)) + 1, placement.native_shape).astype(int)
    i, j, k = (slice(a, max(a, b)) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    return i, j, k


def to_native(probabilities: Image, placement: Placement) -> Image:
    """Sample class probabilities of the box at the native voxels, linearly.

    Parameters
    ----------
    probabilities : ndarray, shape (classes, S, H, W)
        Class 0 is background.
    placement : Placement

    Returns
    -------
    ndarray, shape (classes, i, j, k), float32
        Native voxels outside the box are background.
    """
    inverse = np.linalg.inv(placement.to_native)
    found = np.zeros((len(probabilities), *placement.native_shape), dtype=np.float32)
    part = _covered(placement)
    first = np.array([side.start for side in part])
    offset = inverse[:3, :3] @ first + inverse[:3, 3]
    for number, field in enumerate(probabilities[1:], start=1):
        found[number][part] = affine_transform(
            np.moveaxis(field, 0, 2),
            inverse[:3, :3],
            offset,
            output_shape=tuple(side.stop - side.start for side in part),
            order=1,
            mode="constant",
        )
    found[0] = 1 - found[1:].sum(axis=0)
    return found
