"""The nouns of the library: volumes, label maps, landmarks, subjects and the affine transform.

World is RAS+ millimetres (NIfTI); arrays are (i, j, k) with k the slice axis; every transform maps
*target* world points to *atlas* world points. Images are float32, labels uint8, geometry float64. All
objects are frozen, hold read-only arrays, are validated once when made and are compared by identity.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiacreg.algebra import invert, multiply
from cardiacreg.arrays import MadeAnew
from cardiacreg.errors import InvalidInputError, check_argument, warn

LV_CAVITY, LV_WALL, RV_WALL, RV_CAVITY = 1, 2, 3, 4
STRUCTURES: dict[int, str] = {
    LV_CAVITY: "LV cavity",
    LV_WALL: "LV wall",
    RV_WALL: "RV wall",
    RV_CAVITY: "RV cavity",
}
STRUCTURE_COLOURS = {
    LV_CAVITY: (213, 94, 0),
    LV_WALL: (242, 183, 52),
    RV_WALL: (86, 180, 233),
    RV_CAVITY: (10, 95, 168),
}
"""Red, green and blue, 0 to 255; those of the figures."""
N_LABELS = 5
LANDMARK_NAMES: tuple[str, ...] = (
    "RV insertion, anterior",
    "RV lateral-wall turning point",
    "RV insertion, inferior",
    "LV lateral-wall mid-point",
    "apex",
    "mitral valve centre",
)
_LAST_ROW = (0.0, 0.0, 0.0, 1.0)
_LAST_ROW_TOLERANCES = (1e-6, 1e-6, 1e-6, 1.1e-5)


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    array.setflags(write=False)
    return array


def as_numbers(values: ArrayLike, where: str) -> NDArray[np.float64]:
    """Return a copy of real numbers as float64, or refuse what is none.

    Parameters
    ----------
    values : array_like
    where : str
        What the message begins with.
    """
    whole = unmasked(values, where)
    try:
        given = np.asarray(whole)
        if given.dtype.kind in "biufO":
            return np.array(given, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        pass
    raise InvalidInputError(
        f"{where}: got {type(values).__name__} that is no array of real numbers; needs one.",
        code="BAD_TYPE",
    )


def _matrix(voxel_to_world: ArrayLike, where: str) -> NDArray[np.float64]:
    matrix = as_numbers(voxel_to_world, where)
    if matrix.shape != (4, 4):
        raise InvalidInputError(
            f"{where}: got a matrix of shape {matrix.shape}; needs a 4x4 homogeneous matrix.",
            code="BAD_MATRIX",
        )
    rows = matrix.tolist()
    if not all(math.isfinite(entry) for row in rows for entry in row):
        raise InvalidInputError(
            f"{where}: the matrix holds NaN or infinite values; check the file's header.",
            code="BAD_MATRIX",
        )
    last = zip(rows[3], _LAST_ROW, _LAST_ROW_TOLERANCES, strict=True)
    if any(abs(entry - wanted) > tolerance for entry, wanted, tolerance in last):
        raise InvalidInputError(
            f"{where}: the last row is {matrix[3]}; needs (0, 0, 0, 1).", code="BAD_MATRIX"
        )
    scale, volume = _shape_of_columns(rows)
    if not volume >= 1e-6:
        raise InvalidInputError(
            f"{where}: the matrix is singular (column lengths {scale}); "
            "the voxel spacing is unknown, set the header's affine.",
            code="SINGULAR_MATRIX",
        )
    return _read_only(matrix)


def _shape_of_columns(rows: list[list[float]]) -> tuple[list[float], float]:
    """Lengths of a matrix's three columns, and the volume that they span as unit vectors.

    In Python's floating-point numbers: every affine is checked, and arrays of nine are slow.
    """
    lengths = [math.hypot(*column) for column in list(zip(*rows[:3], strict=True))[:3]]
    if min(lengths) < 1e-6:
        return lengths, 0.0
    units = [[entry / size for entry, size in zip(row, lengths, strict=False)] for row in rows[:3]]
    (a, b, c), (d, e, f), (g, h, i) = units
    return lengths, abs(a * (e * i - f * h) + b * (f * g - d * i) + c * (d * h - e * g))


def unmasked(values: Any, where: str) -> Any:
    """Return what was given, or refuse it where a mask hides values: NumPy would drop the mask silently.

    Parameters
    ----------
    values : array_like
    where : str
        What the message begins with.

    Raises
    ------
    InvalidInputError
        If values are masked (MASKED_ARRAY).
    """
    hidden = int(np.sum(values.mask)) if isinstance(values, np.ma.MaskedArray) else 0
    if hidden:
        raise InvalidInputError(
            f"{where}: {hidden} values are masked, and what they stand for is not known; fill them "
            "first, for instance with array.filled(0) where they are background.",
            code="MASKED_ARRAY",
        )
    return values


def _as_array(values: ArrayLike, where: str) -> NDArray[Any]:
    whole = unmasked(values, where)
    try:
        return np.asarray(whole)
    except ValueError:  # rows of different lengths
        return np.asarray(None)


def _grid_array(array: ArrayLike, dtype: Any, where: str) -> NDArray[Any]:
    values = _as_array(array, where)
    if values.ndim != 3 or 0 in values.shape:
        raise InvalidInputError(
            f"{where}: got an array of shape {values.shape}; needs a non-empty 3-D array (i, j, k).",
            code="BAD_SHAPE",
        )
    if values.dtype.kind not in "biuf":
        raise InvalidInputError(
            f"{where}: got an array of {values.dtype}; needs real numbers. Take the real part or the "
            "magnitude of complex ones.",
            code="BAD_DTYPE",
        )
    if values.dtype == dtype and values.flags.c_contiguous and _never_changes(values):
        return values
    return _read_only(np.array(values, dtype=dtype, order="C"))


def _never_changes(array: NDArray[Any]) -> bool:
    """Whether nobody can write to an array: not through itself, and not through what it is a view of."""
    base: Any = array
    while isinstance(base, np.ndarray):
        if base.flags.writeable:
            return False
        base = base.base
    if base is None:
        return True
    try:
        return memoryview(base).readonly
    except TypeError:
        return False


def _spacing_mm(voxel_to_world: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm(voxel_to_world[:3, :3], axis=0))


@dataclass(frozen=True, slots=True, eq=False)
class Volume(MadeAnew):
    """An intensity image on a lattice.

    Parameters
    ----------
    array : array_like, shape (i, j, k)
        Intensities; copied to float32, unless nobody can change them. NaN, infinite and masked values
        are refused.
    voxel_to_world : array_like, shape (4, 4)
        Voxel indices to RAS+ millimetres, float64.

    Raises
    ------
    InvalidInputError
        If the array is not 3-D, is empty or not finite, or the matrix is singular.
    """

    array: NDArray[np.float32]
    voxel_to_world: NDArray[np.float64]

    def __post_init__(self) -> None:
        values = _grid_array(self.array, np.float32, "Volume")
        if not np.isfinite(values).all():
            raise InvalidInputError(
                f"Volume: {int((~np.isfinite(values)).sum())} voxels are NaN or infinite; "
                "replace them (for instance with numpy.nan_to_num) before use.",
                code="NOT_FINITE",
            )
        object.__setattr__(self, "array", values)
        object.__setattr__(self, "voxel_to_world", _matrix(self.voxel_to_world, "Volume"))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along (i, j, k)."""
        return self.array.shape

    @property
    def spacing_mm(self) -> NDArray[np.float64]:
        """Distance between voxel centres along (i, j, k) in mm, shape (3,)."""
        return _spacing_mm(self.voxel_to_world)


@dataclass(frozen=True, slots=True, eq=False)
class LabelMap(MadeAnew):
    """A map of categories on a lattice; label integers carry no order and no magnitude.

    Parameters
    ----------
    array : array_like, shape (i, j, k)
        Labels 0 to 255; integers, or floats that hold integers; copied to uint8, unless nobody can
        change them. Masked values are refused. Floats within 1 % of integers are rounded, with a
        warning.
    voxel_to_world : array_like, shape (4, 4)
        Voxel indices to RAS+ millimetres, float64.

    Raises
    ------
    InvalidInputError
        If the array is not 3-D, is empty, holds values that are not integers from 0 to 255, or the
        matrix is singular.
    """

    array: NDArray[np.uint8]
    voxel_to_world: NDArray[np.float64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "array", _label_array(self.array))
        object.__setattr__(self, "voxel_to_world", _matrix(self.voxel_to_world, "LabelMap"))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along (i, j, k)."""
        return self.array.shape

    @property
    def spacing_mm(self) -> NDArray[np.float64]:
        """Distance between voxel centres along (i, j, k) in mm, shape (3,)."""
        return _spacing_mm(self.voxel_to_world)

    def present(self) -> tuple[int, ...]:
        """Return the labels above 0 that occur, in ascending order."""
        counts = np.bincount(self.array.ravel(), minlength=256)
        return tuple(int(label) for label in np.flatnonzero(counts) if label)


def _label_array(array: ArrayLike) -> NDArray[np.uint8]:
    values = _as_array(array, "LabelMap")
    if values.dtype == np.uint8 or values.dtype == bool or values.size == 0:
        return _grid_array(values, np.uint8, "LabelMap")
    if values.dtype.kind not in "iuf":
        raise InvalidInputError(
            f"LabelMap: got dtype {values.dtype}; needs integer labels.", code="BAD_DTYPE"
        )
    values, off = whole_numbers(values, "LabelMap")
    if off:
        warn(f"LabelMap: values up to {off:.2g} from whole numbers are rounded to them.")
    if values.min() < 0 or values.max() > 255:
        raise InvalidInputError(
            f"LabelMap: labels run from {values.min():g} to {values.max():g}; needs 0 to 255. Where a "
            "preset or a mapping {their label: canonical label} says what larger values mean, "
            "cardiacreg.read_segmentation reads them; where these are intensities, this is an image.",
            code="UNKNOWN_LABEL",
        )
    return _grid_array(values.astype(np.uint8), np.uint8, "LabelMap")


def whole_numbers(
    values: NDArray[Any], where: str, *, step: float = 0.0
) -> tuple[NDArray[Any], float]:
    """Return the integers that numbers stand for, and how far off they were where that is worth a word.

    Parameters
    ----------
    values : ndarray
        Integers or floats.
    where : str
        What the messages begin with.
    step : float
        Distance between the numbers that can be stored, where they were quantised: what is within
        half of it (up to 0.25) is exact.

    Returns
    -------
    whole : ndarray
        Integers, as floats where they were floats.
    off : float
        The largest distance from an integer, 0 where all are exact.

    Raises
    ------
    InvalidInputError
        If a value is not finite, or more than 1 % or 0.1 from an integer (FRACTIONAL_LABELS).
    """
    if values.dtype.kind in "iub":
        return values, 0.0
    whole = np.rint(values)
    off = np.abs(values - whole)
    finite = bool(np.isfinite(values).all())
    float32 = 1e-6 * max(1.0, float(np.abs(values).max())) if finite else 0.0
    if finite and off.max() <= min(step / 2 * (1 + 1e-3), 0.25) + float32:
        return whole, 0.0
    if not finite or (off > np.clip(0.01 * np.abs(values), 0.01, 0.1)).any():
        raise InvalidInputError(
            f"{where}: the values are not integers ({_shown_fractions(values)}); an interpolated "
            "label map, or an image? Resample labels with nearest neighbour, or round them if that is "
            "what they mean.",
            code="FRACTIONAL_LABELS",
        )
    return whole, float(off.max())


def _shown_fractions(values: NDArray[Any]) -> str:
    bad = values[~(np.abs(values - np.rint(values)) <= 1e-6)]
    first = np.unique(bad[np.isfinite(bad)][:1000])[:3]
    return ", ".join(f"{value:.4g}" for value in first) or "NaN or infinite"


@dataclass(frozen=True, slots=True, eq=False)
class Landmarks(MadeAnew):
    """Corresponding points in a fixed order.

    Parameters
    ----------
    points_mm : array_like, shape (n, 3)
        World RAS+ millimetres, float64, finite.
    names : tuple of str, optional
        One name per point; the six of the paper (`LANDMARK_NAMES`) when there are six.
    source : str
        Where they come from: ``"given"``, ``"labels"`` (derived by `landmarks_from_labels`), ...
        Label-derived points of a target are matched with label-derived points of the atlases.

    Raises
    ------
    InvalidInputError
        If the points are not an (n, 3) array of finite numbers, or names do not match them.
    """

    points_mm: NDArray[np.float64]
    names: tuple[str, ...] = ()
    source: str = "given"

    def __post_init__(self) -> None:
        points = as_numbers(self.points_mm, "Landmarks")
        if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0:
            raise InvalidInputError(
                f"Landmarks: got shape {points.shape}; needs (n, 3) points in world RAS+ mm.",
                code="BAD_LANDMARKS",
            )
        if not np.isfinite(points).all():
            bad = np.flatnonzero(~np.isfinite(points).all(axis=1)).tolist()
            raise InvalidInputError(
                f"Landmarks: points {bad} are NaN or infinite; leave landmarks out altogether to "
                "have them derived from the segmentation.",
                code="BAD_LANDMARKS",
            )
        default = (
            LANDMARK_NAMES if len(points) == 6 else tuple(f"point {n}" for n in range(len(points)))
        )
        names = tuple(self.names) or default
        if len(names) != len(points):
            raise InvalidInputError(
                f"Landmarks: {len(names)} names for {len(points)} points.", code="BAD_LANDMARKS"
            )
        object.__setattr__(self, "points_mm", _read_only(points))
        object.__setattr__(self, "names", names)

    @classmethod
    def from_voxels(
        cls, points_voxel: ArrayLike, voxel_to_world: ArrayLike, names: Iterable[str] = ()
    ) -> Landmarks:
        """Make landmarks from voxel indices (n, 3) and the matrix of their lattice."""
        matrix = _matrix(voxel_to_world, "Landmarks.from_voxels")
        return cls(apply_matrix(matrix, np.asarray(points_voxel, dtype=np.float64)), tuple(names))


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """One heart: a target and an atlas are the same type, and a bank is any sequence of these.

    Parameters
    ----------
    labels : LabelMap
        Canonical labels (1 LV cavity, 2 LV wall, 3 RV wall, 4 RV cavity).
    image : Volume, optional
        On the lattice of `labels` or any other; both are placed by their matrices.
    landmarks : Landmarks, optional
        The six points of the paper; derived from `labels` where needed when absent.
    name : str, optional
        Shown in reports.
    metadata : dict, optional
        Free information (phase, diagnosis, age, ...).
    """

    labels: LabelMap
    image: Volume | None = None
    landmarks: Landmarks | None = None
    name: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_argument(self.labels, LabelMap, "Subject: labels")
        check_argument(self.image, (Volume, type(None)), "Subject: image")
        check_argument(self.landmarks, (Landmarks, type(None)), "Subject: landmarks")
        check_argument(self.name, (str, type(None)), "Subject: name")
        check_argument(self.metadata, Mapping, "Subject: metadata")


@dataclass(frozen=True, slots=True, eq=False)
class Affine(MadeAnew):
    """A world-to-world affine map; in the pipeline always target to atlas.

    Parameters
    ----------
    matrix : array_like, shape (4, 4)
        Homogeneous matrix in mm, float64.

    Raises
    ------
    InvalidInputError
        If the matrix is not a finite, invertible homogeneous matrix.
    """

    matrix: NDArray[np.float64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "matrix", _matrix(self.matrix, "Affine"))

    @classmethod
    def identity(cls) -> Affine:
        """Return the map that leaves every point where it is."""
        return cls(np.eye(4))

    def apply(self, points_mm: ArrayLike) -> NDArray[np.float64]:
        """Map points of shape (..., 3) in mm."""
        return apply_matrix(self.matrix, np.asarray(points_mm, dtype=np.float64))

    def inverse(self) -> Affine:
        """Return the inverse map."""
        return Affine(np.asarray(invert(self.matrix), dtype=np.float64))

    def compose(self, first: Affine) -> Affine:
        """Return the map that applies `first`, then this one."""
        return Affine(multiply(self.matrix, first.matrix))


def apply_matrix(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply a 4x4 homogeneous matrix to points of shape (..., 3)."""
    moved: NDArray[np.float64] = multiply(points, matrix[:3, :3].T) + matrix[:3, 3]
    return moved


def voxel_grid(
    shape: tuple[int, int, int], voxel_to_world: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the world position in mm of every voxel centre, shape (i, j, k, 3)."""
    indices = np.stack(
        np.meshgrid(*(np.arange(n, dtype=np.float64) for n in shape), indexing="ij"), -1
    )
    return apply_matrix(voxel_to_world, indices)


def nearest_labels(labels: LabelMap, voxels: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the label of the nearest voxel; 0 outside the lattice.

    Parameters
    ----------
    labels : LabelMap
    voxels : ndarray, shape (..., 3)
        Positions in voxels of `labels`.

    Returns
    -------
    ndarray of uint8, shape (...)
    """
    return labels_at(labels, np.rint(voxels).astype(np.int64))


def labels_at(labels: LabelMap, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the labels at voxel indices of shape (..., 3); 0 outside the lattice."""
    last = np.array(labels.shape) - 1
    inside = ((indices >= 0) & (indices <= last)).all(axis=-1)
    i, j, k = np.moveaxis(np.clip(indices, 0, last), -1, 0)
    return np.where(inside, labels.array[i, j, k], 0).astype(np.uint8)


def same_lattice(
    first: Volume | LabelMap, second: Volume | LabelMap, *, tolerance_mm: float = 1e-3
) -> bool:
    """Return whether two grids have the same shape and corners that agree within `tolerance_mm`."""
    if first.shape != second.shape:
        return False
    return (
        corner_distance_mm(first.shape, first.voxel_to_world, second.voxel_to_world) <= tolerance_mm
    )


def corner_distance_mm(
    shape: tuple[int, int, int], first: NDArray[np.float64], second: NDArray[np.float64]
) -> float:
    """Return the largest distance in mm between a lattice's corners under two matrices."""
    last = np.array(shape, dtype=np.float64) - 1
    corners = np.array(np.meshgrid(*zip(np.zeros(3), last, strict=True))).reshape(3, -1).T
    gap = apply_matrix(first, corners) - apply_matrix(second, corners)
    return float(np.linalg.norm(gap, axis=1).max())
