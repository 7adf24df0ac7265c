"""MIRTK and IRTK ``.dof`` files: affines, B-spline deformations and the sum of both.

The files are big-endian, with 32-bit integers and 64-bit reals, and may be gzip-compressed. They map
target world points to source world points in RAS mm, like ours. Read: types 2, 22 and 3 (rigid,
similarity, affine), 4 and 12 (IRTK splines), 56 and 76 (MIRTK splines), 7 (multi-level, the sum of its
levels). MIRTK adds the spline after the affine, ``T(x) = A x + v(x)``; ours is applied before it,
``T(x) = A (x + u(x))``, so that v is u turned and scaled by A, exactly. Layouts are facts about the
formats; no code was taken.
"""

from __future__ import annotations

import gzip
import os
import struct

import numpy as np
from numpy.typing import NDArray

from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import Affine
from cardiacreg.io.atomic_write import write_bytes_atomically
from cardiacreg.io.bounded_read import read_everything
from cardiacreg.io.source_name import named_source, warn_about_source
from cardiacreg.transforms.ffd import FFD

_MAGIC = 815007
_RIGID, _SIMILARITY, _AFFINE, _MULTI_LEVEL = 2, 22, 3, 7
_LINEAR = (_RIGID, _SIMILARITY, _AFFINE)
_COUNTS = {_RIGID: (6,), _SIMILARITY: (6, 7), _AFFINE: (6, 7, 9, 12)}
"""Numbers that a linear type may hold."""
_CONVERT = (
    "Write a dense field with MIRTK, convert-dof FILE warp.nii.gz -format f3d_disp_field -target "
    "TARGET.nii.gz, and read it with read_displacement_field."
)
_NAMES = {
    1: "homogeneous", 5: "linear FFD", 8: "fluid", 11: "quaternion", 13: "linear FFD",
    16: "velocity spline", 26: "multi-level velocity", 51: "linear FFD", 58: "velocity spline",
    61: "statistical", 65: "velocity spline", 71: "linear FFD", 73: "linear velocity",
    78: "velocity spline", 81: "fluid",
}  # fmt: skip
_SPLINES = (4, 12, 56, 76)
_SLOW_X = (4, 12)
"""Types whose control points are stored with z fastest; in the others x is."""
_LARGEST_LATTICE = 10**8
_LARGEST_FILE_BYTES = 2**32
_HARMLESS_EXTRAPOLATION = (0, 1, 2)


def read_dof(path: str | os.PathLike[str]) -> Affine | FFD:
    """Read an affine or a deformation from a ``.dof`` file, plain or gzip-compressed.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    Affine or FFD
        Target world mm to source (atlas) world mm, RAS.

    Raises
    ------
    InvalidInputError
        If the file is missing, damaged, of another type, or sums splines on different lattices.

    Warns
    -----
    InputWarning
        If the file asks for an extrapolation beyond its lattice other than zero.

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg import FFD, Affine, read_dof, write_dof
    >>> lattice = np.diag([20.0, 20.0, 20.0, 1.0])
    >>> lattice[:3, 3] = -40.0
    >>> bent = np.zeros((6, 6, 6, 3))
    >>> bent[3, 3, 3] = (3.0, 0.0, 0.0)  # one control point, moved by 3 mm
    >>> transform = FFD(Affine(np.eye(4)), bent, lattice)
    >>> write_dof("transform.dof", transform)
    >>> point = [[1.0, 2.0, 3.0]]
    >>> bool(np.allclose(read_dof("transform.dof").apply(point), transform.apply(point)))
    True
    """
    with named_source(os.fspath(path)):
        reader = _Reader(read_everything(path, max_bytes=_LARGEST_FILE_BYTES))
        found = reader.transform()
        if isinstance(found, tuple):
            affine, splines = found
            return _summed(affine, splines)
        return found


def write_dof(
    path: str | os.PathLike[str], transform: Affine | FFD, *, flavour: str = "mirtk"
) -> None:
    """Write an affine or a deformation as a ``.dof`` file, complete or not at all.

    Parameters
    ----------
    path : path-like
        Compressed when the name ends with ``.gz``.
    transform : Affine or FFD
        Target world mm to source world mm, RAS. A deformation becomes a multi-level transformation
        of one affine and one spline.
    flavour : {"mirtk", "irtk"}
        Spline type 76 or 12.

    Raises
    ------
    InvalidInputError
        If the flavour is unknown or the folder does not exist.

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg import Affine, write_dof
    >>> write_dof("affine.dof", Affine(np.eye(4)))
    """
    payload = dof_content(transform, flavour=flavour)
    if os.fspath(path).endswith(".gz"):
        payload = gzip.compress(payload, mtime=0)
    write_bytes_atomically(path, payload)


def dof_content(transform: Affine | FFD, *, flavour: str = "mirtk") -> bytes:
    """Return the content of the file that `write_dof` writes, not compressed."""
    if flavour not in ("mirtk", "irtk"):
        raise InvalidInputError(
            f"write_dof: flavour {flavour!r}; needs 'mirtk' or 'irtk'.", code="BAD_OPTION"
        )
    if not isinstance(transform, Affine | FFD):
        raise InvalidInputError(
            f"write_dof: a {type(transform).__name__}; needs an Affine or FFD. Any transform can be "
            "written with write_displacement_field(path, dense_displacement(transform, grid)).",
            code="BAD_TYPE",
        )
    if isinstance(transform, FFD):
        levels = struct.pack(">IIi", _MAGIC, _MULTI_LEVEL, 1)
        return levels + _affine_record(transform.affine) + _spline_record(transform, flavour)
    return _affine_record(transform)


class _Reader:
    """Reads records one after the other from the bytes of a file."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def _take(self, kind: str, count: int) -> NDArray[np.generic]:
        dtype = np.dtype(kind)
        size = count * dtype.itemsize
        if count < 0 or self._at + size > len(self._content):
            raise InvalidInputError(
                f"ends after {len(self._content)} bytes where {self._at + size} are needed; the "
                "file is truncated or damaged.",
                code="TRUNCATED_FILE",
            )
        values = np.frombuffer(self._content, dtype, count, self._at)
        self._at += size
        return values

    def _integers(self, count: int) -> list[int]:
        return [int(value) for value in self._take(">i4", count)]

    def _reals(self, count: int) -> Float:
        return np.asarray(self._take(">f8", count), dtype=np.float64)

    def transform(self) -> Affine | FFD | tuple[Affine, list[FFD]]:
        magic, kind = self._integers(2)
        if magic != _MAGIC:
            raise InvalidInputError(
                f"starts with {magic} instead of {_MAGIC}: not a .dof file.", code="BAD_FILE_TYPE"
            )
        if kind in _LINEAR:
            return self._affine(kind)
        if kind in _SPLINES:
            return self._spline(kind)
        if kind == _MULTI_LEVEL:
            return self._levels()
        raise InvalidInputError(
            f"holds a transformation of type {kind} ({_NAMES.get(kind, 'unknown')}); readable are "
            f"{_LINEAR}, {_SPLINES} and {_MULTI_LEVEL}. {_CONVERT}",
            code="BAD_FILE_TYPE",
        )

    def _levels(self) -> tuple[Affine, list[FFD]]:
        (count,) = self._integers(1)
        affine = self.transform()
        splines = [self.transform() for _ in range(max(0, min(count, 64)))]
        if not isinstance(affine, Affine) or not all(isinstance(s, FFD) for s in splines):
            raise InvalidInputError(
                "holds levels that are neither an affine nor a spline.", code="BAD_FILE_TYPE"
            )
        return affine, [s for s in splines if isinstance(s, FFD)]

    def _affine(self, kind: int) -> Affine:
        (count,) = self._integers(1)
        if count not in _COUNTS[kind]:
            needed = " or ".join(map(str, _COUNTS[kind]))
            raise InvalidInputError(
                f"holds {count} numbers for a transformation of type {kind}; needs {needed}. The file is "
                "damaged: write it again.",
                code="BAD_FILE_TYPE",
            )
        given = self._reals(count)
        parameters = np.array([0.0] * 6 + [100.0] * 3 + [0.0] * 3)
        parameters[:count] = given
        if count == 7:
            parameters[6:9] = given[6]
        return Affine(matrix_from_parameters(parameters))

    def _spline(self, kind: int) -> FFD:
        shape = self._integers(3)
        if min(shape) < 1 or np.prod(shape, dtype=np.float64) > _LARGEST_LATTICE:
            raise InvalidInputError(f"holds a lattice of {shape} points.", code="BAD_LATTICE")
        axes = self._reals(6 if kind == 4 else 9).reshape(-1, 3)
        if kind == 4:
            axes = np.vstack([axes, np.cross(axes[0], axes[1])])
        spacing, centre = self._reals(3), self._reals(3)
        if kind == 76:
            self._check_extrapolation()
        count = int(np.prod(shape))
        values = self._reals(3 * count).reshape(*(shape if kind in _SLOW_X else shape[::-1]), 3)
        if kind not in _SLOW_X:
            values = values.transpose(2, 1, 0, 3)
        self._integers(3 * count)  # status of each number: matters to optimisers only
        matrix = np.eye(4)
        matrix[:3, :3] = axes.T * spacing
        matrix[:3, 3] = centre - matrix[:3, :3] @ ((np.array(shape) - 1) / 2)
        return FFD(Affine.identity(), _at_least_four(values), matrix)

    def _check_extrapolation(self) -> None:
        (mode,) = self._integers(1)
        if mode not in _HARMLESS_EXTRAPOLATION:
            warn_about_source(
                f"extrapolates beyond its lattice by mode {mode}; here it ends with zeros."
            )


def _at_least_four(values: Float) -> Float:
    """Pad short axes with zeros at their end, which is what lies beyond a lattice."""
    missing = [(0, max(0, 4 - n)) for n in values.shape[:3]]
    return np.pad(values, [*missing, (0, 0)])


def _summed(affine: Affine, splines: list[FFD]) -> Affine | FFD:
    if not splines:
        return affine
    first = splines[0]
    total = np.zeros(first.displacements_mm.shape)
    for spline in splines:
        same = spline.displacements_mm.shape == total.shape
        if not same or not np.allclose(spline.lattice_to_world, first.lattice_to_world, atol=1e-6):
            raise InvalidInputError(
                f"sums {len(splines)} splines on different lattices, which one FFD cannot hold. "
                f"{_CONVERT}",
                code="BAD_LATTICE",
            )
        total += spline.displacements_mm
    back = np.linalg.inv(affine.matrix[:3, :3])
    return FFD(affine, total @ back.T, first.lattice_to_world)


def _affine_record(affine: Affine) -> bytes:
    parameters = parameters_from_matrix(affine.matrix)
    return struct.pack(">III12d", _MAGIC, _AFFINE, 12, *parameters)


def _spline_record(ffd: FFD, flavour: str) -> bytes:
    kind = 76 if flavour == "mirtk" else 12
    shape = ffd.displacements_mm.shape[:3]
    spacing = ffd.spacing_mm
    matrix = ffd.lattice_to_world
    centre = matrix[:3, :3] @ ((np.array(shape) - 1) / 2) + matrix[:3, 3]
    head = struct.pack(">II3i", _MAGIC, kind, *shape)
    head += struct.pack(">9d", *(matrix[:3, :3] / spacing).T.ravel())
    head += struct.pack(">6d", *spacing, *centre)
    if kind == 76:
        head += struct.pack(">I", 2)
    values = ffd.displacements_mm @ ffd.affine.matrix[:3, :3].T
    if kind not in _SLOW_X:
        values = values.transpose(2, 1, 0, 3)
    status = bytes(4 * values.size)
    return head + np.ascontiguousarray(values).astype(">f8").tobytes() + status


def matrix_from_parameters(parameters: Float) -> Float:
    """Return the 4x4 matrix of 12 parameters: translation R Shear Scale.

    Parameters
    ----------
    parameters : ndarray, shape (12,)
        tx ty tz (mm), rx ry rz (degrees), sx sy sz (percent), sxy syz sxz (degrees).
    """
    rx, ry, rz = np.radians(parameters[3:6])
    sxy, syz, sxz = np.tan(np.radians(parameters[9:12]))
    shear = np.array([[1.0, sxy, sxz], [0.0, 1.0, syz], [0.0, 0.0, 1.0]])
    matrix = np.eye(4)
    matrix[:3, :3] = _rotation(rx, ry, rz) @ shear @ np.diag(parameters[6:9] / 100)
    matrix[:3, 3] = parameters[:3]
    return matrix


def _rotation(rx: float, ry: float, rz: float) -> Float:
    (sx, sy, sz), (cx, cy, cz) = np.sin([rx, ry, rz]), np.cos([rx, ry, rz])
    return np.array(
        [
            [cy * cz, cy * sz, -sy],
            [sx * sy * cz - cx * sz, sx * sy * sz + cx * cz, sx * cy],
            [cx * sy * cz + sx * sz, cx * sy * sz - sx * cz, cx * cy],
        ]
    )


def parameters_from_matrix(matrix: Float) -> Float:
    """Return the 12 parameters of a 4x4 matrix (see `matrix_from_parameters`); a reflection is in sx."""
    rotation, upper = np.linalg.qr(matrix[:3, :3])
    signs = np.sign(np.diag(upper))
    signs[0] *= np.linalg.det(rotation) * signs.prod()
    rotation, upper = rotation * signs, upper * signs[:, None]
    scale = np.diag(upper)
    shear = upper / scale
    angles = [
        np.arctan2(rotation[1, 2], rotation[2, 2]),
        -np.arcsin(np.clip(rotation[0, 2], -1, 1)),
        np.arctan2(rotation[0, 1], rotation[0, 0]),
    ]
    shears = np.degrees(np.arctan([shear[0, 1], shear[1, 2], shear[0, 2]]))
    return np.concatenate([matrix[:3, 3], np.degrees(angles), 100 * scale, shears])
