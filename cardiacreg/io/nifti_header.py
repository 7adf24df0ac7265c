"""What a NIfTI header says about layout and place, and whether that can be true.

Works on the header objects of nibabel without importing it; `nifti` is its only caller.
"""

from __future__ import annotations

import math
import struct
from typing import Any, NamedTuple

import nibabel
import numpy as np
from numpy.typing import NDArray

from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import Affine
from cardiacreg.io.source_name import warn_about_source

IN_PLANE_MM = (0.2, 5.0)
BETWEEN_SLICES_MM = (0.3, 20.0)
"""Spacings of short-axis MR, interpolated or not, and of CT."""
_LARGEST_SHEAR = 1e-3
_UNNOTICED_SHEAR = 1e-5
_MM_PER_UNIT = {0: 1.0, 1: 1e3, 2: 1.0, 3: 1e-3}
_UNIT_NAMES = {1: "metres", 3: "micrometres"}


_BYTES_PER_INTEGER, _BYTES_PER_FLOAT, _BYTES_PER_DOUBLE = 12, 20, 36
"""Of memory per voxel at the peak of reading labels; scaled integers become doubles."""
_MEMORY_PER_BYTE, _SMALL_MEMORY_BYTES = 4, 2**28


class Layout(NamedTuple):
    """Where the voxels lie in the file."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int

    @property
    def end(self) -> int:
        """The first byte after the voxels."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


def check_working_memory(layout: Layout, scaling: tuple[float, float], max_bytes: int) -> None:
    """Refuse what takes far more memory to read than the file holds bytes, as scaled numbers do.

    Parameters
    ----------
    layout : Layout
    scaling : tuple of float
        Slope and intercept.
    max_bytes : int
        Most bytes that a file may hold.

    Raises
    ------
    InvalidInputError
        TOO_LARGE.
    """
    kind, size = layout.dtype.kind, layout.dtype.itemsize
    per_voxel = _BYTES_PER_INTEGER
    if scaling != (1.0, 0.0) or kind not in "iub":
        per_voxel = _BYTES_PER_FLOAT if scaling == (1.0, 0.0) and size == 4 else _BYTES_PER_DOUBLE
    needed = per_voxel * float(np.prod(layout.shape, dtype=np.float64))
    if needed > max(_MEMORY_PER_BYTE * max_bytes, _SMALL_MEMORY_BYTES):
        raise InvalidInputError(
            f"reading {' x '.join(map(str, layout.shape))} voxels takes about {needed / 1e9:.1f} GB of "
            f"memory, over {_MEMORY_PER_BYTE} times the budget of {max_bytes} bytes; raise max_bytes if "
            "this is right.",
            code="TOO_LARGE",
        )


def bad_header(message: str, code: str = "BAD_HEADER") -> InvalidInputError:
    """Make the error for a header that cannot be true."""
    return InvalidInputError(f"{message}; export the file again or repair it.", code=code)


def header_layout(header: Any) -> Layout:
    """Return the shape, dtype and position of the voxels that a header promises.

    Parameters
    ----------
    header : nibabel Nifti1Header or Nifti2Header
        Unchecked header.

    Raises
    ------
    InvalidInputError
        If a dimension is not positive (BAD_HEADER, EMPTY_IMAGE), the voxels are colours, complex
        or of unknown type (BAD_DTYPE), or their position is not a position (BAD_HEADER).
    """
    n_dimensions = int(header["dim"][0])
    if not 1 <= n_dimensions <= 7:
        raise bad_header(f"the header has {n_dimensions} dimensions; needs 1 to 7")
    shape = _shape(header, n_dimensions)
    if min(shape) < 0:
        raise bad_header(f"the header has a negative dimension in {shape}")
    if min(shape) == 0:
        raise bad_header(f"the image is empty, its shape is {shape}", "EMPTY_IMAGE")
    return Layout(shape, _voxel_dtype(header), _voxel_offset(header))


def _shape(header: Any, n_dimensions: int) -> tuple[int, ...]:
    """Return the dimensions; beyond the third, one that is not positive counts as 1, as in ITK."""
    stated = tuple(int(n) for n in header["dim"][1 : n_dimensions + 1])
    shape = tuple(max(n, 1) if axis > 2 else n for axis, n in enumerate(stated))
    if shape != stated:
        warn_about_source(f"the header has dimensions {stated}; they are read as {shape}.")
    return shape


def _voxel_dtype(header: Any) -> np.dtype[Any]:
    code = int(header["datatype"])
    try:
        dtype: np.dtype[Any] = np.dtype(header.get_data_dtype())
    except Exception as error:
        raise bad_header(f"the voxel type code {code} is unknown", "BAD_DTYPE") from error
    if dtype.kind not in "iuf":
        kind = {"c": "complex numbers"}.get(dtype.kind, "colours or bits")
        raise InvalidInputError(
            f"the voxels are {kind} (type code {code}); needs one real number per voxel.",
            code="BAD_DTYPE",
        )
    return dtype


def _voxel_offset(header: Any) -> int:
    offset = float(header["vox_offset"])
    smallest = int(header["sizeof_hdr"]) + 4
    if offset == 0:
        return smallest
    if not (math.isfinite(offset) and offset >= smallest and offset == int(offset)):
        raise bad_header(f"the voxels start at byte {offset}; needs a whole number from {smallest}")
    return int(offset)


def header_scaling(header: Any) -> tuple[float, float]:
    """Return (slope, intercept) to apply to the stored numbers; (1, 0) where none is set.

    What is not finite is not set, as in ITK and nibabel.
    """
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or math.isnan(slope):
        return 1.0, 0.0
    if math.isfinite(slope) and math.isfinite(intercept):
        return slope, intercept
    used = (slope, 0.0) if math.isfinite(slope) else (1.0, 0.0)
    warn_about_source(
        f"the header has the scaling {slope:g} and intercept {intercept:g}; {used[0]:g} and "
        f"{used[1]:g} are used."
    )
    return used


def header_matrix(header: Any) -> NDArray[np.float64]:
    """Return voxel_to_world in mm: the sform if its code is set, else the qform, else the spacing.

    Parameters
    ----------
    header : nibabel Nifti1Header or Nifti2Header
        Unchecked header.

    Raises
    ------
    InvalidInputError
        If no frame is set and the spacing is unknown too (SPACING_UNKNOWN), or the qform that is
        set cannot be decoded (BAD_HEADER).

    Warns
    -----
    InputWarning
        If the two frames or the spacings differ, none is set, or the unit is not millimetres.
    """
    qform = _qform(header)
    sform = _usable_sform(header, qform)
    if sform is not None:
        matrix = sform
        if qform is not None and not np.allclose(matrix, qform, atol=1e-3, rtol=0, equal_nan=True):
            warn_about_source(
                "the header's sform and qform place the image differently (by up to "
                f"{np.abs(matrix - qform).max():.3g}); the sform is used."
            )
    elif qform is not None:
        matrix = qform
    else:
        matrix = _unplaced_matrix(header)
    return in_mm(matrix, header)


def _sform(header: Any) -> NDArray[np.float64]:
    """Return the sform; one of unit scale takes the spacing that pixdim states.

    Converters (that of ACDC among them) leave a sform of ones beside a right pixdim, and others
    leave a pixdim of ones beside a right sform, which is no contradiction.
    """
    matrix = np.asarray(header.get_sform(), dtype=np.float64)
    spacing = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    scale = np.linalg.norm(matrix[:3, :3], axis=0)
    stated = bool(np.isfinite(spacing).all() and (spacing > 0).all() and (spacing != 1).any())
    if not stated and np.array_equal(np.abs(matrix), np.eye(4)):
        warn_about_source(
            "the header has a spacing of 1 x 1 x 1 mm at the origin, as when nobody filled it in; "
            "all sizes are wrong if the spacing is another."
        )
    if not stated or not np.isfinite(scale).all() or np.allclose(scale, spacing, rtol=1e-3):
        return matrix
    found = f"the sform has spacing {scale.round(4).tolist()}, pixdim {spacing.round(4).tolist()}"
    if not np.allclose(scale, 1.0, atol=1e-6):
        warn_about_source(f"{found}; the sform is used.")
        return matrix
    warn_about_source(f"{found}; the spacing of pixdim is used.")
    matrix[:3, :3] *= spacing
    return matrix


def _usable_sform(header: Any, qform: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    """Return the sform where its code is set; not a degenerate one beside a good qform, as in ITK."""
    if int(header["sform_code"]) <= 0:
        return None
    rows = np.asarray(header.get_sform(), dtype=np.float64)
    if qform is not None and _is_regular(qform) and not _is_regular(rows):
        warn_about_source("the header's sform is not a valid matrix; the qform is used.")
        return None
    return _sform(header)


def _is_regular(matrix: NDArray[np.float64]) -> bool:
    scale = np.linalg.norm(matrix[:3, :3], axis=0)
    if not (np.isfinite(matrix).all() and scale.min() > 1e-6):
        return False
    return bool(abs(np.linalg.det(matrix[:3, :3] / scale)) > 1e-6)


def _qform(header: Any) -> NDArray[np.float64] | None:
    """Return the qform, decoded as the standard says; None where it is not set or holds no numbers.

    A pixdim[0] of 0 means 1, and of other numbers only the sign counts. A quaternion that is longer
    than 1 is made a unit one, and spacings count without sign, as in the library of the standard.
    """
    if int(header["qform_code"]) <= 0:
        return None
    vector = np.array([float(header[f"quatern_{axis}"]) for axis in "bcd"])
    spacing = np.abs(np.asarray(header["pixdim"][1:4], dtype=np.float64))
    offset = np.array([float(header[f"qoffset_{axis}"]) for axis in "xyz"])
    if not np.isfinite(np.concatenate([vector, spacing, offset])).all():
        if int(header["sform_code"]) > 0:
            return None
        raise bad_header("the qform holds numbers that are not finite")
    matrix = np.eye(4)
    matrix[:3, :3] = _rotation(vector) * spacing
    matrix[:3, 2] *= -1 if float(header["pixdim"][0]) < 0 else 1
    matrix[:3, 3] = offset
    return matrix


def _rotation(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rotation of a unit quaternion with the vector part (b, c, d)."""
    squared = float(vector @ vector)
    if 1 - squared < 1e-7:
        if squared > 1 + 1e-3:
            warn_about_source(
                f"the quaternion of the header's qform has length {math.sqrt(squared):.4g}; it is "
                "made a unit quaternion."
            )
        vector, a = vector / math.sqrt(squared), 0.0
    else:
        a = math.sqrt(1 - squared)
    b, c, d = vector
    return np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )


def _unplaced_matrix(header: Any) -> NDArray[np.float64]:
    spacing = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise InvalidInputError(
            f"neither sform nor qform is set and the voxel spacing is {spacing}; the spacing is "
            "unknown, set the header's affine.",
            code="SPACING_UNKNOWN",
        )
    warn_about_source(
        "neither sform nor qform is set; only the spacing is known, orientation is assumed."
    )
    return np.asarray(header.get_base_affine(), dtype=np.float64)


def in_mm(matrix: NDArray[np.float64], header: Any) -> NDArray[np.float64]:
    """Return a matrix in mm, from the unit that the header states.

    Parameters
    ----------
    matrix : ndarray, shape (4, 4)
    header : nibabel Nifti1Header or Nifti2Header

    Warns
    -----
    InputWarning
        If the unit is unknown or another one.
    """
    unit = int(header["xyzt_units"]) & 7
    if unit not in _MM_PER_UNIT:
        warn_about_source(f"the header's unit code {unit} is unknown; millimetres are assumed.")
    factor = _MM_PER_UNIT.get(unit, 1.0)
    if factor == 1:
        return matrix
    warn_about_source(f"the header gives {_UNIT_NAMES[unit]}; they are converted to millimetres.")
    return np.diag([factor, factor, factor, 1.0]) @ matrix


def checked_matrix(
    matrix: NDArray[np.float64], shape: tuple[int, ...], *, check_spacing: bool
) -> NDArray[np.float64]:
    """Return a matrix that is finite, invertible, without shear and of plausible spacing.

    Parameters
    ----------
    matrix : numpy.ndarray, shape (4, 4)
        Voxel indices to world mm.
    shape : tuple of int
        Voxels along (i, j, k); a small shear is removed about the centre of the lattice.
    check_spacing : bool
        Whether to refuse a spacing outside 0.2 to 5 mm in plane and 0.3 to 20 mm between slices.

    Raises
    ------
    InvalidInputError
        BAD_MATRIX, SINGULAR_MATRIX, SHEARED_MATRIX or IMPLAUSIBLE_SPACING.

    Warns
    -----
    InputWarning
        If a shear below 1e-3 was removed.
    """
    valid = Affine(matrix).matrix
    spacing = np.linalg.norm(valid[:3, :3], axis=0)
    if check_spacing:
        _check_spacing(spacing)
    directions = valid[:3, :3] / spacing
    shear = float(np.abs(directions.T @ directions - np.eye(3)).max())
    if shear < _UNNOTICED_SHEAR:
        return valid
    if shear > _LARGEST_SHEAR:
        raise InvalidInputError(
            f"the axes of the image are sheared by {shear:.2g}; needs perpendicular axes (up to "
            f"{_LARGEST_SHEAR:g} is repaired): resample the image onto a straight lattice.",
            code="SHEARED_MATRIX",
        )
    warn_about_source(
        f"the axes of the image are sheared by {shear:.2g}; they are made perpendicular."
    )
    return _without_shear(valid, spacing, shape)


def _without_shear(
    matrix: NDArray[np.float64], spacing: NDArray[np.float64], shape: tuple[int, ...]
) -> NDArray[np.float64]:
    left, _, right = np.linalg.svd(matrix[:3, :3] / spacing)
    straight = np.eye(4)
    straight[:3, :3] = (left @ right) * spacing
    centre = (np.array(shape[:3]) - 1) / 2
    straight[:3, 3] = matrix[:3, 3] + (matrix[:3, :3] - straight[:3, :3]) @ centre
    return straight


def _check_spacing(spacing: NDArray[np.float64]) -> None:
    spacing = spacing.round(5)  # headers hold float32
    in_plane, between = spacing[:2], spacing[2]
    fits = IN_PLANE_MM[0] <= in_plane.min() and in_plane.max() <= IN_PLANE_MM[1]
    if fits and BETWEEN_SLICES_MM[0] <= between <= BETWEEN_SLICES_MM[1]:
        return
    thickest = int(spacing.argmax())
    hint = (
        f" The slices seem to lie along axis {thickest}; move that axis to the end."
        if thickest != 2 and 2 <= spacing[thickest] <= 20
        else " The header's unit may be wrong."
        if spacing.max() > 300 or spacing.max() < 0.1
        else ""
    )
    raise InvalidInputError(
        f"the spacing is {spacing.tolist()} mm; needs {IN_PLANE_MM[0]:g} to {IN_PLANE_MM[1]:g} mm in "
        f"plane (axes 0 and 1) and {BETWEEN_SLICES_MM[0]:g} to {BETWEEN_SLICES_MM[1]:g} mm between "
        "slices (axis 2): correct the header, or pass check_spacing=False if this is right."
        f"{hint}",
        code="IMPLAUSIBLE_SPACING",
    )


def parse_header(head: bytes) -> Any:
    """Return the header that the first bytes of a file hold (NOT_NIFTI if none)."""
    sizes = {struct.unpack(order + "i", head[:4])[0] for order in "<>"} if len(head) >= 4 else set()
    if 348 in sizes and len(head) >= 348:
        if head[344:348] != b"n+1\0":
            raise not_nifti("an ANALYZE or two-file (.hdr/.img) image")
        return nibabel.Nifti1Header(head[:348], check=False)
    if 540 in sizes and len(head) >= 540:
        return nibabel.Nifti2Header(head[:540], check=False)
    if len(head) >= 348 and head[344:348] == b"n+1\0":
        return _header_of_wrong_size(head)
    raise not_nifti("not NIfTI" if len(head) >= 348 else f"only {len(head)} bytes long")


def _header_of_wrong_size(head: bytes) -> Any:
    """Return a header that misstates its own size: the byte order is told by the dimensions."""
    for order in "<>":
        if 1 <= struct.unpack(order + "h", head[40:42])[0] <= 7:
            warn_about_source("the header states a wrong size of itself; 348 bytes are assumed.")
            right = struct.pack(order + "i", 348) + head[4:348]
            return nibabel.Nifti1Header(right, check=False, endianness=order)
    raise not_nifti("not NIfTI")


def not_nifti(what: str) -> InvalidInputError:
    """Return the error about a file that is something else."""
    return InvalidInputError(
        f"the file is {what}; needs a single-file NIfTI image (.nii or .nii.gz): convert it, or "
        "read it with SimpleITK and pass the image.",
        code="NOT_NIFTI",
    )
