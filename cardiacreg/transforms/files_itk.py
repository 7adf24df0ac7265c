"""ITK transform files, as written by ITK, SimpleITK and ANTs: ``.tfm``, ``.txt``, ``.mat`` and ``.h5``.

ITK's world is LPS; it is turned to ours, RAS, and back here. A linear transform is stored as the
parameters of its kind and a centre; a B-spline as control points, x fastest, first all x, then all y,
then all z components; a composite applies its last member first. A deformation of ours, ``A (x + u(x))``,
is the composite of A and the B-spline. ITK's splines are zero wherever the lattice is not complete. A
cubic one becomes an `FFD`, which fades out over the last control points; inside, where registrations
take place, both are the same. ``.h5`` needs h5py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from numbers import Integral
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError, check_argument
from cardiacreg.geometry import Affine
from cardiacreg.io.atomic_write import write_bytes_atomically
from cardiacreg.io.regular_file import check_regular_file
from cardiacreg.io.source_name import named_source
from cardiacreg.transforms.displacement_field import DisplacementField
from cardiacreg.transforms.ffd import FFD
from cardiacreg.transforms.ffd_chain import FFDChain
from cardiacreg.transforms.itk_records import Record, read_records, written
from cardiacreg.transforms.point_maps import BSplineMap, composed
from cardiacreg.transforms.resampling import PointMap

_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
_LARGEST_NUMBER = 1e9
_VERSOR_EDGE = 1e-10
_COMPOSITE, _AFFINE, _SPLINE = (
    f"{name}_double_3_3" for name in ("CompositeTransform", "AffineTransform", "BSplineTransform")
)
_SPLINES = ("BSplineTransform", "BSplineDeformableTransform")
_FIELDS = (
    "DisplacementFieldTransform",
    "GaussianSmoothingOnUpdateDisplacementFieldTransform",
    "BSplineSmoothingOnUpdateDisplacementFieldTransform",
)
_KIND = re.compile(r"(?P<name>\w+?)_(?:double|float)_(?P<d>\d)_(?P<e>\d)(?:_(?P<order>\d))?")
_CONVERT = (
    "Write it as a displacement field with SimpleITK (TransformToDisplacementField) or with "
    "antsApplyTransforms -o [warp.nii.gz,1], and read that with read_displacement_field."
)


def read_itk_transform(path: str | os.PathLike[str], *, index: int | None = None) -> PointMap:
    """Read a transform written by ITK, SimpleITK, ANTs or elastix.

    Parameters
    ----------
    path : path-like
        Ends with ``.tfm``, ``.txt``, ``.mat``, ``.h5`` or ``.hdf5``. A ``.txt`` may also be elastix's
        ``TransformParameters.*.txt``; the files that it names as initial transforms are read too.
    index : int, optional
        Which one to read, from 0, of a file that lists transforms without a composite that joins them.

    Returns
    -------
    Affine, FFD, BSplineMap, DisplacementField or TransformChain
        World mm to world mm, RAS. Linear transforms, and composites of them, are an `Affine`; a cubic
        B-spline, alone or with linear transforms applied after it, is an `FFD`. B-splines of order 1 and
        2 are a `BSplineMap`, dense fields a `DisplacementField`, any other composite a
        `TransformChain`; all of them map points and warp.

    Raises
    ------
    InvalidInputError
        If the file is missing, damaged or of another type, is a list and `index` does not choose from
        it (SEVERAL_TRANSFORMS), or is of a kind that cannot be read (BAD_FILE_TYPE).

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg import Affine, read_itk_transform, write_itk_transform
    >>> write_itk_transform("affine.tfm", Affine(np.diag([1.1, 1.0, 1.0, 1.0])))
    >>> read_itk_transform("affine.tfm").matrix.diagonal()
    array([1.1, 1. , 1. , 1. ])
    """
    from cardiacreg.transforms.files_elastix import is_elastix, read_elastix

    file = Path(path)
    with named_source(os.fspath(path)):
        check_regular_file(file)
        if is_elastix(file):
            _check_index(index, 1)
            return read_elastix(file)
        return _assembled(read_records(file), index)


def write_itk_transform(path: str | os.PathLike[str], transform: Affine | FFD | FFDChain) -> None:
    """Write an affine or a deformation for ITK, complete or not at all.

    Parameters
    ----------
    path : path-like
        Ends with ``.tfm``, ``.txt``, ``.h5``, ``.hdf5`` or, for an affine alone, ``.mat``.
    transform : Affine, FFD or FFDChain
        World mm to world mm, RAS. A deformation becomes a composite of an affine and B-splines.

    Raises
    ------
    InvalidInputError
        If the name ends otherwise, the folder does not exist, or the transform is another (BAD_TYPE).

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg import Affine, write_itk_transform
    >>> write_itk_transform("to_atlas.tfm", Affine(np.eye(4)))
    """
    payload = itk_content(transform, Path(path).suffix.lower())
    if payload is None:
        raise InvalidInputError(
            f"{path}: needs a name that ends with .tfm, .txt or .h5, or .mat for an affine.",
            code="BAD_FILE_NAME",
        )
    write_bytes_atomically(path, payload)


def itk_content(transform: Affine | FFD | FFDChain, suffix: str) -> bytes | None:
    """Return the content of the file that `write_itk_transform` writes; None for another suffix."""
    return written(_records(transform), suffix)


# ----------------------------------------------------------------------------------- between both worlds


def _records(transform: Affine | FFD | FFDChain) -> list[Record]:
    if isinstance(transform, Affine):
        return [_affine_record(transform)]
    if not isinstance(transform, FFD | FFDChain):
        raise InvalidInputError(
            f"write_itk_transform: a {type(transform).__name__}; needs an Affine, FFD or FFDChain. Any "
            "transform can be written with write_displacement_field(path, dense_displacement(transform, "
            "grid)).",
            code="BAD_TYPE",
        )
    links = transform.links if isinstance(transform, FFDChain) else (transform,)
    splines = [_spline_record(link) for link in reversed(links)]
    empty = np.zeros(0)
    return [Record(_COMPOSITE, empty, empty), _affine_record(transform.affine), *splines]


def _affine_record(affine: Affine) -> Record:
    matrix = _FLIP @ affine.matrix @ _FLIP
    return Record(_AFFINE, np.append(matrix[:3, :3].ravel(), matrix[:3, 3]), np.zeros(3))


def _spline_record(ffd: FFD) -> Record:
    shape, spacing = ffd.displacements_mm.shape[:3], ffd.spacing_mm
    matrix = _FLIP @ ffd.lattice_to_world
    fixed = [*shape, *matrix[:3, 3], *spacing, *(matrix[:3, :3] / spacing).ravel()]
    values = ffd.displacements_mm @ _FLIP[:3, :3]
    return Record(_SPLINE, values.transpose(3, 2, 1, 0).ravel(), np.array(fixed))


def _assembled(records: list[Record], index: int | None) -> PointMap:
    if not records:
        raise InvalidInputError(
            "holds no transform; the file is damaged: write it again.", code="CORRUPT_FILE"
        )
    if records[0].is_composite:
        _check_index(index, 1)
        return composed(_transform(record) for record in reversed(records[1:]))
    if len(records) > 1 and index is None:
        raise _several(records)
    _check_index(index, len(records))
    return composed([_transform(records[index or 0])])


def _check_index(index: int | None, count: int) -> None:
    check_argument(index, (Integral, type(None)), "index")
    if index is not None and not 0 <= index < count:
        raise InvalidInputError(
            f"index {index} of a file that holds {count}; needs 0 to {count - 1}.",
            code="BAD_OPTION",
        )


def _several(records: list[Record]) -> InvalidInputError:
    kinds = sorted({record.kind for record in records})
    bulk = ""
    if any(record.kind.startswith("BSplineDeformable") for record in records):
        bulk = (
            " A matrix beside a BSplineDeformableTransform may be its bulk transform, to which the "
            "spline is added (Slicer 3): open it in Slicer and save it again."
        )
    return InvalidInputError(
        f"lists {len(records)} transforms ({', '.join(kinds)}) without a composite that joins them, and "
        f"which one is meant cannot be told: pass index=0 to index={len(records) - 1}. ITK and SimpleITK "
        f"use the first.{bulk}",
        code="SEVERAL_TRANSFORMS",
    )


def _transform(record: Record) -> PointMap:
    kind = _KIND.fullmatch(record.kind)
    if kind is None or record.is_composite:
        raise _unreadable(record, "")
    if (kind["d"], kind["e"]) != ("3", "3"):
        raise _unreadable(record, "It does not map points in 3-D. ")
    name = kind["name"]
    if name in _SPLINES:
        return spline_map(record.parameters, record.fixed, int(kind["order"] or 3))
    if name in _FIELDS:
        return _field(record)
    return linear_map(name, record.parameters, record.fixed)


def _unreadable(record: Record, why: str) -> InvalidInputError:
    return InvalidInputError(
        f"holds a {record.kind} of {len(record.parameters)} parameters. {why}Readable are linear "
        f"transforms, B-splines and displacement fields in 3-D, and composites of them. {_CONVERT}",
        code="BAD_FILE_TYPE",
    )


# ---------------------------------------------------------------------------------------- linear kinds

_Parts = tuple[Float, Float]
"""The 3x3 matrix and the translation in mm of a linear transform about its centre."""


def linear_map(name: str, parameters: Float, fixed: Float) -> Affine:
    """Return a linear transform of ITK as an affine map of RAS.

    Parameters
    ----------
    name : str
        ITK's name of its class, such as ``Euler3DTransform``.
    parameters : ndarray, shape (n,)
        In ITK's order; angles in radians, translations in mm, LPS.
    fixed : ndarray, shape (m,)
        The centre in mm, LPS, and for Euler angles whether they are applied in the order z, y, x.

    Returns
    -------
    Affine

    Raises
    ------
    InvalidInputError
        If the kind is not a linear one of ITK, or not of this many numbers.
    """
    count, parts = _LINEAR.get(name, (-1, _affine_parts))
    record = Record(f"{name}_double_3_3", parameters, fixed)
    if count != len(parameters):
        raise _unreadable(record, f"It should have {count}. " if count >= 0 else "")
    if not (np.abs(np.append(parameters, fixed)) < _LARGEST_NUMBER).all():
        raise _unreadable(record, "Some are not finite, or above 1e9. ")
    linear, translation = parts(parameters, fixed)
    centre = _centre(name, parameters, fixed)
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = translation + centre - linear @ centre
    return Affine(_FLIP @ matrix @ _FLIP)


def _centre(name: str, parameters: Float, fixed: Float) -> Float:
    if name.startswith("Centered"):
        first = len(parameters) - 6
        return parameters[first : first + 3]
    return fixed[:3] if len(fixed) >= 3 else np.zeros(3)


def _affine_parts(p: Float, fixed: Float) -> _Parts:
    return p[:9].reshape(3, 3), p[-3:]


def _translation_parts(p: Float, fixed: Float) -> _Parts:
    return np.eye(3), p


def _scale_parts(p: Float, fixed: Float) -> _Parts:
    return np.diag(p), np.zeros(3)


def _log_scale_parts(p: Float, fixed: Float) -> _Parts:
    return np.diag(np.exp(p)), np.zeros(3)


def _euler_parts(p: Float, fixed: Float) -> _Parts:
    x, y, z = (_turn(axis, angle) for axis, angle in enumerate(p[:3]))
    zyx = len(fixed) > 3 and fixed[3] != 0
    return z @ y @ x if zyx else z @ x @ y, p[-3:]


def _turn(axis: int, angle: float) -> Float:
    first, second = [a for a in range(3) if a != axis]
    matrix = np.eye(3)
    sine = np.sin(angle) * (-1 if axis == 1 else 1)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -sine, sine
    return matrix


def _versor(p: Float) -> Float:
    """The rotation of a versor's vector part, which is scaled to length 1 where it is longer."""
    norm = float(np.linalg.norm(p[:3]))
    x, y, z = p[:3] / (norm * (1 + _VERSOR_EDGE) if norm >= 1 - _VERSOR_EDGE else 1.0)
    return _quaternion(x, y, z, float(np.sqrt(max(0.0, 1 - x * x - y * y - z * z))))


def _quaternion(x: float, y: float, z: float, w: float) -> Float:
    """The rotation of a quaternion of length 1; of another, it is scaled by the length squared."""
    vector = np.array([x, y, z])
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    scale = w * w - vector @ vector
    return np.asarray(scale * np.eye(3) + 2 * (w * cross + np.outer(vector, vector)))


def _versor_parts(p: Float, fixed: Float) -> _Parts:
    return _versor(p), p[3:6] if len(p) > 3 else np.zeros(3)


def _quaternion_parts(p: Float, fixed: Float) -> _Parts:
    return _quaternion(*p[:4]), p[4:]


def _similarity_parts(p: Float, fixed: Float) -> _Parts:
    return _versor(p) * p[6], p[3:6]


def _scale_versor_parts(p: Float, fixed: Float) -> _Parts:
    """Scales, and skews, are added to the rotation: this is how ITK has it."""
    linear = _versor(p) + np.diag(p[6:9] - 1)
    if len(p) == 15:
        linear[~np.eye(3, dtype=bool)] += p[9:]
    return linear, p[3:6]


def _compose_scale_skew_parts(p: Float, fixed: Float) -> _Parts:
    skew = np.eye(3)
    skew[np.triu_indices(3, 1)] = p[9:]
    return _versor(p) @ np.diag(p[6:9]) @ skew, p[3:6]


_LINEAR: dict[str, tuple[int, Callable[[Float, Float], _Parts]]] = {
    "IdentityTransform": (0, lambda p, fixed: (np.eye(3), np.zeros(3))),
    "AffineTransform": (12, _affine_parts),
    "MatrixOffsetTransformBase": (12, _affine_parts),
    "Rigid3DTransform": (12, _affine_parts),
    "CenteredAffineTransform": (15, _affine_parts),
    "TranslationTransform": (3, _translation_parts),
    "ScaleTransform": (3, _scale_parts),
    "ScaleLogarithmicTransform": (3, _log_scale_parts),
    "Euler3DTransform": (6, _euler_parts),
    "CenteredEuler3DTransform": (9, _euler_parts),
    "VersorTransform": (3, _versor_parts),
    "VersorRigid3DTransform": (6, _versor_parts),
    "QuaternionRigidTransform": (7, _quaternion_parts),
    "Similarity3DTransform": (7, _similarity_parts),
    "ScaleVersor3DTransform": (9, _scale_versor_parts),
    "ScaleSkewVersor3DTransform": (15, _scale_versor_parts),
    "ComposeScaleSkewVersor3DTransform": (12, _compose_scale_skew_parts),
}
"""Number of parameters of ITK's linear kinds, and what they mean."""


# ------------------------------------------------------------------------------------ splines and fields


def spline_map(parameters: Float, fixed: Float, order: int) -> BSplineMap:
    """Return a B-spline transform of ITK as a map of RAS.

    Parameters
    ----------
    parameters : ndarray, shape (n,)
        Control points in mm, LPS: x fastest, all x components, then all y, then all z.
    fixed : ndarray, shape (18,)
        Lattice: points along each axis, first point in mm LPS, spacing in mm, direction row by row.
        Without the direction (9 numbers) it is the identity.
    order : {1, 2, 3}

    Returns
    -------
    BSplineMap

    Raises
    ------
    InvalidInputError
        If the lattice and the parameters do not go together (BAD_LATTICE).
    """
    shape, matrix = _lattice(parameters, fixed)
    values = parameters.reshape(3, *shape[::-1]).transpose(3, 2, 1, 0) @ _FLIP[:3, :3]
    return BSplineMap(values, matrix, order)


def _field(record: Record) -> DisplacementField:
    shape, matrix = _lattice(record.parameters, record.fixed)
    values = record.parameters.reshape(*shape[::-1], 3).transpose(2, 1, 0, 3)
    return DisplacementField(values @ _FLIP[:3, :3], matrix)


def _lattice(parameters: Float, fixed: Float) -> tuple[NDArray[np.int64], Float]:
    """Shape and matrix, to RAS, of a lattice that holds three parameters per point."""
    if len(fixed) == 9:
        fixed = np.append(fixed, np.eye(3))
    given = fixed[:3]
    sized = len(fixed) >= 18 and np.isfinite(fixed[:18]).all()
    if not (sized and (given == np.rint(given)).all() and 0 < given.min() <= given.max() < 2**31):
        raise InvalidInputError(
            f"holds a lattice of {given.tolist()} points ({len(fixed)} numbers); needs three whole "
            "numbers above zero, origin, spacing and direction. The file is damaged: export it again.",
            code="BAD_LATTICE",
        )
    shape = given.astype(np.int64)
    if len(parameters) != 3 * np.prod(given):
        raise InvalidInputError(
            f"holds {len(parameters)} parameters for a lattice of {shape.tolist()} points; needs three "
            "per point. The file is damaged: export it again.",
            code="BAD_LATTICE",
        )
    matrix = np.eye(4)
    matrix[:3, :3] = fixed[9:18].reshape(3, 3) * fixed[6:9]
    matrix[:3, 3] = fixed[3:6]
    return shape, _FLIP @ matrix
