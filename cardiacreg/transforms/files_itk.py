"""ITK transform files, as written by ITK, SimpleITK and ANTs: ``.tfm``, ``.txt``, ``.mat`` and ``.h5``.

ITK's world is LPS; it is turned to ours, RAS, and back here. An affine is stored as matrix, translation
and centre; a B-spline as control points, x fastest, first all x, then all y, then all z components; a
composite applies its last member first. A deformation of ours, ``A (x + u(x))``, is the composite of A
and the B-spline. ITK's splines are zero wherever the lattice is not complete, ours fade out over the
last control points; inside, where registrations take place, both are the same. ``.h5`` needs h5py.
"""

from __future__ import annotations

import io
import os
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import Affine
from cardiacreg.io.atomic_write import write_bytes_atomically
from cardiacreg.io.regular_file import check_regular_file
from cardiacreg.io.source_name import named_source
from cardiacreg.transforms.ffd import FFD

_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
_COMPOSITE, _AFFINE, _SPLINE = (
    f"{name}_double_3_3" for name in ("CompositeTransform", "AffineTransform", "BSplineTransform")
)
_MATRIX_KINDS = ("AffineTransform", "MatrixOffsetTransformBase", "ScaleSkewVersor3DTransform")
_TEXT = (".tfm", ".txt")


class _Record(NamedTuple):
    """One transform of a file."""

    kind: str
    parameters: Float
    fixed: Float


def read_itk_transform(path: str | os.PathLike[str]) -> Affine | FFD:
    """Read an affine, a B-spline, or a composite of affines around one B-spline.

    Parameters
    ----------
    path : path-like
        Ends with ``.tfm``, ``.txt``, ``.mat``, ``.h5`` or ``.hdf5``.

    Returns
    -------
    Affine or FFD
        World mm to world mm, RAS.

    Raises
    ------
    InvalidInputError
        If the file is missing, damaged or of another type, or its composite is not of that form.

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg import Affine, read_itk_transform, write_itk_transform
    >>> write_itk_transform("affine.tfm", Affine(np.diag([1.1, 1.0, 1.0, 1.0])))
    >>> read_itk_transform("affine.tfm").matrix.diagonal()
    array([1.1, 1. , 1. , 1. ])
    """
    file = Path(path)
    with named_source(os.fspath(path)):
        check_regular_file(file)
        return _assembled(_read_records(file))


def write_itk_transform(path: str | os.PathLike[str], transform: Affine | FFD) -> None:
    """Write an affine or a deformation for ITK, complete or not at all.

    Parameters
    ----------
    path : path-like
        Ends with ``.tfm``, ``.txt``, ``.h5``, ``.hdf5`` or, for an affine alone, ``.mat``.
    transform : Affine or FFD
        World mm to world mm, RAS. A deformation becomes a composite of affine and B-spline.

    Raises
    ------
    InvalidInputError
        If the name ends otherwise, or the folder does not exist.

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg import Affine, write_itk_transform
    >>> write_itk_transform("to_atlas.tfm", Affine(np.eye(4)))
    """
    suffix = Path(path).suffix.lower()
    records = _records(transform)
    if suffix in _TEXT:
        payload = _text(records).encode()
    elif suffix == ".mat" and len(records) == 1:
        payload = _matlab(records[0])
    elif suffix in (".h5", ".hdf5"):
        payload = _hdf5(records)
    else:
        raise InvalidInputError(
            f"{path}: needs a name that ends with .tfm, .txt or .h5, or .mat for an affine.",
            code="BAD_FILE_NAME",
        )
    write_bytes_atomically(path, payload)


# ----------------------------------------------------------------------------------- between both worlds


def _records(transform: Affine | FFD) -> list[_Record]:
    if isinstance(transform, Affine):
        return [_affine_record(transform)]
    empty = np.zeros(0)
    return [
        _Record(_COMPOSITE, empty, empty),
        _affine_record(transform.affine),
        _spline_record(transform),
    ]


def _affine_record(affine: Affine) -> _Record:
    matrix = _FLIP @ affine.matrix @ _FLIP
    return _Record(_AFFINE, np.append(matrix[:3, :3].ravel(), matrix[:3, 3]), np.zeros(3))


def _spline_record(ffd: FFD) -> _Record:
    shape, spacing = ffd.displacements_mm.shape[:3], ffd.spacing_mm
    matrix = _FLIP @ ffd.lattice_to_world
    fixed = [*shape, *matrix[:3, 3], *spacing, *(matrix[:3, :3] / spacing).ravel()]
    values = ffd.displacements_mm @ _FLIP[:3, :3]
    return _Record(_SPLINE, values.transpose(3, 2, 1, 0).ravel(), np.array(fixed))


def _assembled(records: list[_Record]) -> Affine | FFD:
    if records and records[0].kind.startswith("CompositeTransform"):
        records = records[1:]
    found: Affine | FFD = Affine.identity()
    for record in records:
        found = _after(found, _transform(record))
    return found


def _after(outer: Affine | FFD, inner: Affine | FFD) -> Affine | FFD:
    """Outer(inner(x)), where that is one affine or one FFD."""
    if isinstance(outer, Affine):
        if isinstance(inner, Affine):
            return outer.compose(inner)
        affine = outer.compose(inner.affine)
        return FFD(affine, inner.displacements_mm, inner.lattice_to_world)
    raise InvalidInputError(
        "a transform that is applied before a B-spline cannot be part of one FFD; read the "
        "composite's members from files of their own.",
        code="BAD_FILE_TYPE",
    )


def _transform(record: _Record) -> Affine | FFD:
    name = record.kind.split("_")[0]
    if name in _MATRIX_KINDS and len(record.parameters) == 12 and len(record.fixed) == 3:
        linear, centre = record.parameters[:9].reshape(3, 3), record.fixed
        matrix = np.eye(4)
        matrix[:3, :3] = linear
        matrix[:3, 3] = record.parameters[9:] + centre - linear @ centre
        return Affine(_FLIP @ matrix @ _FLIP)
    if name == "IdentityTransform":
        return Affine.identity()
    if name == "BSplineTransform" and len(record.fixed) == 18:
        return _spline(record)
    raise InvalidInputError(
        f"holds a {record.kind} of {len(record.parameters)} parameters; readable are affine and cubic "
        "B-spline transforms in 3-D and composites of them.",
        code="BAD_FILE_TYPE",
    )


def _spline(record: _Record) -> FFD:
    given = record.fixed[:3]
    if not (np.isfinite(given).all() and (given == np.rint(given)).all() and given.min() > 0):
        raise InvalidInputError(
            f"holds a lattice of {given.tolist()} points; needs three whole numbers above zero. The "
            "file is damaged: export it again.",
            code="BAD_LATTICE",
        )
    shape = given.astype(int)
    if len(record.parameters) != 3 * shape.prod():
        raise InvalidInputError(
            f"holds {len(record.parameters)} parameters for a lattice of {shape.tolist()} points.",
            code="BAD_LATTICE",
        )
    matrix = np.eye(4)
    matrix[:3, :3] = record.fixed[9:].reshape(3, 3) * record.fixed[6:9]
    matrix[:3, 3] = record.fixed[3:6]
    values = record.parameters.reshape(3, *shape[::-1]).transpose(3, 2, 1, 0)
    return FFD(Affine.identity(), values @ _FLIP[:3, :3], _FLIP @ matrix)


# ----------------------------------------------------------------------------------------- three formats


def _read_records(file: Path) -> list[_Record]:
    suffix = file.suffix.lower()
    try:
        if suffix in _TEXT:
            return _from_text(file.read_text(encoding="utf-8"))
        if suffix == ".mat":
            return _from_matlab(file.read_bytes())
        if suffix in (".h5", ".hdf5"):
            return _from_hdf5(file)
    except (OSError, ValueError, KeyError, IndexError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(
            f"cannot be read as an ITK transform ({error}); the file is damaged.",
            code="CORRUPT_FILE",
        ) from error
    raise InvalidInputError(
        f"a name that ends with {suffix!r}; needs .tfm, .txt, .mat or .h5.", code="BAD_FILE_NAME"
    )


def _text(records: list[_Record]) -> str:
    lines = ["#Insight Transform File V1.0"]
    for number, record in enumerate(records):
        lines += [f"#Transform {number}", f"Transform: {record.kind}"]
        if not record.kind.startswith("CompositeTransform"):
            lines.append("Parameters: " + " ".join(repr(float(v)) for v in record.parameters))
            lines.append("FixedParameters: " + " ".join(repr(float(v)) for v in record.fixed))
    return "\n".join(lines) + "\n"


def _from_text(text: str) -> list[_Record]:
    if not text.startswith("#Insight Transform File"):
        raise InvalidInputError("is not an ITK transform file.", code="BAD_FILE_TYPE")
    found: list[dict[str, str]] = []
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key == "Transform":
            found.append({"kind": value.strip()})
        elif key in ("Parameters", "FixedParameters") and found:
            found[-1][key] = value
    return [
        _Record(
            each["kind"], *(_numbers(each.get(k, "")) for k in ("Parameters", "FixedParameters"))
        )
        for each in found
    ]


def _numbers(text: str) -> Float:
    return np.array([float(word) for word in text.split()], dtype=np.float64)


def _matlab(record: _Record) -> bytes:
    from scipy.io import savemat

    stream = io.BytesIO()
    columns = {record.kind: record.parameters[:, None], "fixed": record.fixed[:, None]}
    savemat(stream, columns, format="4")
    return stream.getvalue()


def _from_matlab(content: bytes) -> list[_Record]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        found = {k: v for k, v in loadmat(io.BytesIO(content)).items() if not k.startswith("__")}
    except (MatReadError, TypeError) as error:
        raise ValueError(str(error)) from error
    fixed = np.asarray(found.pop("fixed"), dtype=np.float64).ravel()
    ((kind, parameters),) = found.items()
    return [_Record(kind, np.asarray(parameters, dtype=np.float64).ravel(), fixed)]


def _h5py() -> Any:
    try:
        return import_module("h5py")
    except ImportError as error:
        raise InvalidInputError(
            "ITK's .h5 transforms need h5py; install it (pip install h5py) or use .tfm.",
            code="NO_H5PY",
        ) from error


def _hdf5(records: list[_Record]) -> bytes:
    h5py = _h5py()
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        text = h5py.string_dtype("ascii")
        file.create_dataset("ITKVersion", data=["5.0.0"], dtype=text)
        file.create_dataset("HDFVersion", data=["1.10"], dtype=text)
        file.create_dataset("OSName", data=["any"], dtype=text)
        file.create_dataset("OSVersion", data=["any"], dtype=text)
        for number, record in enumerate(records):
            group = file.create_group(f"TransformGroup/{number}")
            group.create_dataset("TransformType", data=[record.kind], dtype=text)
            if not record.kind.startswith("CompositeTransform"):
                group.create_dataset("TransformParameters", data=record.parameters)
                group.create_dataset("TransformFixedParameters", data=record.fixed)
    return stream.getvalue()


def _from_hdf5(path: Path) -> list[_Record]:
    records = []
    with _h5py().File(path, "r") as file:
        groups = file["TransformGroup"]
        for name in sorted(groups, key=int):
            group = groups[name]
            kind = group["TransformType"][0]
            values = [
                np.asarray(group[key], dtype=np.float64).ravel() if key in group else np.zeros(0)
                for key in ("TransformParameters", "TransformFixedParameters")
            ]
            records.append(
                _Record(kind.decode() if isinstance(kind, bytes) else str(kind), *values)
            )
    return records
