"""Label maps and images in and out: NIfTI files, nibabel and SimpleITK images, plain arrays.

Whatever is read leaves as a `LabelMap` or `Volume` that is complete, finite and placed in world
RAS+ millimetres, or as an `InvalidInputError` that says why not; repairs are warnings. This is the
only importer of nibabel.
"""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LabelMap, Volume, unmasked
from cardiacreg.io.atomic_write import write_bytes_atomically
from cardiacreg.io.bounded_read import read_whole_file
from cardiacreg.io.nifti_header import (
    bad_header,
    checked_matrix,
    header_layout,
    header_matrix,
    header_scaling,
)
from cardiacreg.io.source_name import named_source, warn_about_source

MAX_BYTES = 2**31
ONE_FRAME = "ONE_FRAME"
"""Code of the error where a frame is asked for and there is only one."""


class _Stored(NamedTuple):
    """Voxels of any number of dimensions, their matrix in mm, and what to call them in errors."""

    array: NDArray[Any]
    matrix: NDArray[np.float64]


def read_labels(
    source: Any, *, frame: int | None = None, max_bytes: int = MAX_BYTES, check_spacing: bool = True
) -> LabelMap:
    """Read a label map from a file or from an object in memory.

    Parameters
    ----------
    source : path-like, nibabel image, SimpleITK image, LabelMap or (array, voxel_to_world)
        A ``.nii`` or ``.nii.gz`` file, or what holds the same in memory. A matrix of its own is in
        RAS+ mm; a LabelMap is returned as it is.
    frame : int, optional
        Which frame of a 4-D source, needed when there is more than one; 3-D sources have one, 0.
    max_bytes : int
        Most bytes a file may hold after decompression.
    check_spacing : bool
        Whether to refuse a spacing outside 0.3 to 5 mm in plane and 1 to 20 mm between slices.

    Returns
    -------
    LabelMap
        Labels as stored (translate them with `canonical_labels`), uint8, shape (i, j, k).

    Raises
    ------
    InvalidInputError
        If the file is missing, truncated, damaged or too large, is not NIfTI, has no or an
        impossible geometry, needs a frame, or holds anything but integers from 0 to 255; its
        ``code`` says which.

    Warns
    -----
    InputWarning
        If something was repaired or assumed: shear, units, two frames that differ, trailing data.

    Examples
    --------
    >>> from cardiacreg import read_labels, write_labels
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> write_labels("seg.nii.gz", make_toy_heart().labels)
    >>> read_labels("seg.nii.gz").shape
    (40, 40, 8)
    """
    if isinstance(source, LabelMap):
        _check_only_frame(frame, source.shape)
        return source
    with named_source(_source_name(source)):
        stored = _load(source, max_bytes)
        array = _one_frame(stored.array, frame)
        matrix = checked_matrix(stored.matrix, array.shape, check_spacing=check_spacing)
        return LabelMap(array, matrix)


def read_label_frames(source: Any, *, max_bytes: int = MAX_BYTES) -> list[LabelMap]:
    """Read every frame of a label series, from a file read once or from an object in memory.

    Parameters
    ----------
    source : path-like, nibabel image, SimpleITK image, LabelMap or (array, voxel_to_world)
        As for `read_labels`; what has three dimensions is one frame.
    max_bytes : int
        Most bytes a file may hold after decompression.

    Returns
    -------
    list of LabelMap
        As `read_labels` returns each.

    Raises
    ------
    InvalidInputError
        As `read_labels`.

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg.io.nifti import read_label_frames
    >>> frames = read_label_frames((np.zeros((8, 8, 3, 5), np.uint8), np.diag([1.0, 1.0, 8.0, 1.0])))
    >>> len(frames), frames[0].shape
    (5, (8, 8, 3))
    """
    if isinstance(source, LabelMap):
        return [source]
    with named_source(_source_name(source)):
        stored = _load(source, max_bytes)
        array = stored.array
        while array.ndim > 4 and array.shape[-1] == 1:
            array = array[..., 0]
        count = array.shape[3] if array.ndim == 4 else 1
        frames = [_one_frame(array, n if count > 1 else None) for n in range(count)]
        matrix = checked_matrix(stored.matrix, frames[0].shape, check_spacing=True)
        return [LabelMap(each, matrix) for each in frames]


def read_volume(
    source: Any,
    *,
    frame: int | None = None,
    nan_policy: str = "error",
    max_bytes: int = MAX_BYTES,
    check_spacing: bool = True,
) -> Volume:
    """Read an intensity image from a file or from an object in memory.

    Parameters
    ----------
    source : path-like, nibabel image, SimpleITK image, Volume or (array, voxel_to_world)
        As for `read_labels`.
    frame : int, optional
        Which frame of a 4-D source, needed when there is more than one; 3-D sources have one, 0.
    nan_policy : {"error", "zero"}
        What to do with NaN and infinite intensities.
    max_bytes : int
        Most bytes a file may hold after decompression.
    check_spacing : bool
        Whether to refuse a spacing outside 0.3 to 5 mm in plane and 1 to 20 mm between slices.

    Returns
    -------
    Volume
        Intensities with the file's scaling applied, float32, shape (i, j, k).

    Raises
    ------
    InvalidInputError
        As `read_labels`; and if intensities are not finite (NOT_FINITE) under ``"error"``.

    Warns
    -----
    InputWarning
        As `read_labels`; and if intensities were replaced under ``"zero"``.

    Examples
    --------
    >>> from cardiacreg import read_volume, write_volume
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> write_volume("image.nii.gz", make_toy_heart().image)
    >>> read_volume("image.nii.gz").spacing_mm
    array([2.5, 2.5, 8. ])
    """
    if nan_policy not in ("error", "zero"):
        raise InvalidInputError(
            f"read_volume: nan_policy {nan_policy!r}; needs 'error' or 'zero'.", code="BAD_OPTION"
        )
    if isinstance(source, Volume):
        _check_only_frame(frame, source.shape)
        return source
    with named_source(_source_name(source)):
        stored = _load(source, max_bytes)
        array = _intensities(_one_frame(stored.array, frame), nan_policy)
        matrix = checked_matrix(stored.matrix, array.shape, check_spacing=check_spacing)
        return Volume(array, matrix)


def read_vectors(
    path: str | os.PathLike[str], *, max_bytes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Read a file whose voxels may hold several numbers, as those of a displacement field.

    Parameters
    ----------
    path : path-like
    max_bytes : int
        Most bytes the file may hold after decompression.

    Returns
    -------
    values : ndarray of float64
        In as many dimensions as the file has.
    voxel_to_world : ndarray, shape (4, 4)
        In mm.
    intent : int
        The header's code of what the numbers mean.

    Raises
    ------
    InvalidInputError
        As `read_labels`, for a file.
    """
    found, intent = _load_file(Path(path), max_bytes)
    return found.array.astype(np.float64), found.matrix, intent


def write_labels(path: str | os.PathLike[str], labels: LabelMap, *, description: str = "") -> None:
    """Write a label map as NIfTI, uint8, complete or not at all.

    Parameters
    ----------
    path : path-like
        Ends with ``.nii`` or ``.nii.gz``; an existing file is replaced in one step.
    labels : LabelMap
        What to write; sform and qform are both set, in mm.
    description : str
        Kept in the header, up to 79 bytes.

    Raises
    ------
    InvalidInputError
        If the name ends otherwise (BAD_FILE_NAME) or the folder does not exist (NO_FOLDER).

    Examples
    --------
    >>> from cardiacreg import write_labels
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> write_labels("labels.nii.gz", make_toy_heart().labels, description="a toy heart")
    """
    _write(path, labels, description)


def write_volume(path: str | os.PathLike[str], volume: Volume) -> None:
    """Write an image as NIfTI, float32, complete or not at all.

    Parameters
    ----------
    path : path-like
        Ends with ``.nii`` or ``.nii.gz``; an existing file is replaced in one step.
    volume : Volume
        What to write; sform and qform are both set, in mm.

    Raises
    ------
    InvalidInputError
        If the name ends otherwise (BAD_FILE_NAME) or the folder does not exist (NO_FOLDER).

    Examples
    --------
    >>> from cardiacreg import write_volume
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> write_volume("sax.nii.gz", make_toy_heart().image)
    """
    _write(path, volume)


def write_label_frames(
    path: str | os.PathLike[str], frames: Sequence[LabelMap], *, step_ms: float | None = None
) -> None:
    """Write label maps on one lattice as a 4-D NIfTI, uint8, complete or not at all.

    Parameters
    ----------
    path : path-like
        Ends with ``.nii`` or ``.nii.gz``; an existing file is replaced in one step.
    frames : sequence of LabelMap
        On the lattice of the first.
    step_ms : float, optional
        Time between frames.

    Raises
    ------
    InvalidInputError
        As `write_labels`; or if the frames differ in shape (BAD_SHAPE).

    Examples
    --------
    >>> from cardiacreg.io.nifti import read_label_frames, write_label_frames
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> write_label_frames("cine.nii.gz", [make_toy_heart(size=s).labels for s in (1.0, 0.9)])
    >>> len(read_label_frames("cine.nii.gz"))
    2
    """
    if not frames or any(each.shape != frames[0].shape for each in frames):
        raise InvalidInputError(
            f"{path}: frames of shapes {[each.shape for each in frames]}; needs some, all of one.",
            code="BAD_SHAPE",
        )
    array = np.stack([each.array for each in frames], axis=-1)
    _write_array(path, array, frames[0].voxel_to_world, step_ms=step_ms)


def _write(path: str | os.PathLike[str], grid: LabelMap | Volume, description: str = "") -> None:
    _write_array(path, grid.array, grid.voxel_to_world, description)


def _write_array(
    path: str | os.PathLike[str],
    array: NDArray[Any],
    matrix: NDArray[np.float64],
    description: str = "",
    step_ms: float | None = None,
) -> None:
    name = Path(path).name.lower()
    if not name.endswith((".nii", ".nii.gz")):
        raise InvalidInputError(
            f"{path}: cannot tell the format; needs a name that ends with .nii or .nii.gz.",
            code="BAD_FILE_NAME",
        )
    image = nibabel.Nifti1Image(array, matrix)
    image.set_qform(matrix, code=1)
    image.set_sform(matrix, code=1)
    image.header.set_xyzt_units("mm", None if step_ms is None else "msec")
    if step_ms is not None:
        image.header["pixdim"][4] = step_ms
    image.header["descrip"] = description.encode("ascii", "replace")[:79]
    payload = image.to_bytes()
    if name.endswith(".gz"):
        payload = gzip.compress(payload, compresslevel=6, mtime=0)  # no time: same input, same file
    write_bytes_atomically(path, payload)


def _source_name(source: Any) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    file_name = source.get_filename() if hasattr(source, "get_filename") else None
    return str(file_name or f"{type(source).__name__} in memory")


def _load(source: Any, max_bytes: int) -> _Stored:
    if isinstance(source, str | os.PathLike):
        return _load_file(Path(source), max_bytes)[0]
    if isinstance(source, tuple) and len(source) == 2:
        array = np.asarray(unmasked(source[0], "the array"))
        return _Stored(array, np.asarray(source[1], dtype=np.float64))
    if isinstance(source, SpatialImage):
        return _from_nibabel(source, max_bytes)
    if all(hasattr(source, name) for name in ("GetDirection", "GetSpacing", "GetOrigin")):
        return _from_simpleitk(source)
    raise InvalidInputError(
        f"got a {type(source).__name__}; needs a path, a nibabel or SimpleITK image, a LabelMap or "
        "Volume, or a tuple (array, voxel_to_world).",
        code="BAD_TYPE",
    )


def _load_file(path: Path, max_bytes: int) -> tuple[_Stored, int]:
    """What a file holds, and its header's intent."""
    content = read_whole_file(
        path, lambda head: header_layout(_parse_header(head)).end, max_bytes=max_bytes
    )
    header = _parse_header(bytes(content[:544]))
    layout = header_layout(header)
    flat = np.frombuffer(
        content, layout.dtype, offset=layout.offset, count=int(np.prod(layout.shape))
    )
    slope, intercept = header_scaling(header)
    array = flat.reshape(layout.shape, order="F")
    if (slope, intercept) != (1.0, 0.0):
        array = array.astype(np.float64) * slope + intercept
    return _Stored(array, header_matrix(header)), int(header["intent_code"])


def _parse_header(head: bytes) -> Any:
    sizes = {struct.unpack(order + "i", head[:4])[0] for order in "<>"} if len(head) >= 4 else set()
    if 348 in sizes and len(head) >= 348:
        if head[344:348] != b"n+1\0":
            raise _not_nifti("an ANALYZE or two-file (.hdr/.img) image")
        return nibabel.Nifti1Header(head[:348], check=False)
    if 540 in sizes and len(head) >= 540:
        return nibabel.Nifti2Header(head[:540], check=False)
    raise _not_nifti("not NIfTI" if len(head) >= 348 else f"only {len(head)} bytes long")


def _not_nifti(what: str) -> InvalidInputError:
    return InvalidInputError(
        f"the file is {what}; needs a single-file NIfTI image (.nii or .nii.gz): convert it, or "
        "read it with SimpleITK and pass the image.",
        code="NOT_NIFTI",
    )


def _from_nibabel(image: Any, max_bytes: int) -> _Stored:
    if image.affine is None:
        raise bad_header("the image has no affine", "SPACING_UNKNOWN")
    # A file behind the image is read anew: nibabel stops before the checksum at its end.
    if (
        isinstance(image, nibabel.Nifti1Image)
        and nibabel.is_proxy(image.dataobj)
        and (file_name := image.get_filename())
    ):
        return _load_file(Path(file_name), max_bytes)[0]
    is_nifti = isinstance(image, nibabel.Nifti1Image)
    matrix = header_matrix(image.header) if is_nifti else np.asarray(image.affine, np.float64)
    return _Stored(np.asarray(unmasked(np.asanyarray(image.dataobj), "the image")), matrix)


def _from_simpleitk(image: Any) -> _Stored:
    simpleitk = import_module(type(image).__module__.partition(".")[0])
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise InvalidInputError(
            f"{image.GetNumberOfComponentsPerPixel()} values per voxel; needs one.",
            code="BAD_DTYPE",
        )
    n = image.GetDimension()
    if n < 3:
        raise _not_3d(tuple(image.GetSize()))
    direction = np.array(image.GetDirection()).reshape(n, n)[:3, :3]
    to_ras = np.diag([-1.0, -1.0, 1.0])
    matrix = np.eye(4)
    matrix[:3, :3] = to_ras @ direction * np.array(image.GetSpacing()[:3])
    matrix[:3, 3] = to_ras @ np.array(image.GetOrigin()[:3])
    return _Stored(simpleitk.GetArrayFromImage(image).T, matrix)


def _not_3d(shape: tuple[int, ...]) -> InvalidInputError:
    return InvalidInputError(
        f"the image has shape {shape}; needs three dimensions (i, j, k), or four with frame=.",
        code="BAD_SHAPE",
    )


def _one_frame(array: NDArray[Any], frame: int | None) -> NDArray[Any]:
    """Return the one 3-D frame that is there or asked for."""
    shape = array.shape
    while array.ndim > 4 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (3, 4):
        raise _not_3d(shape)
    if array.dtype.kind not in "biuf":
        raise InvalidInputError(
            f"the voxels are of type {array.dtype}; needs integers or real numbers.",
            code="BAD_DTYPE",
        )
    frames = array[..., None] if array.ndim == 3 else array
    n_frames = frames.shape[3]
    if n_frames == 1:
        _check_only_frame(frame, shape)
        return frames[..., 0]
    if frame is None:
        raise InvalidInputError(
            f"the image has {n_frames} frames (shape {shape}); choose one with frame=0 to "
            f"frame={n_frames - 1} (in most cine series frame=0 is end diastole).",
            code="FRAME_NEEDED",
        )
    if not 0 <= frame < n_frames:
        raise InvalidInputError(
            f"frame={frame} of {n_frames}; needs 0 to {n_frames - 1}.", code="BAD_FRAME"
        )
    return frames[..., frame]


def _check_only_frame(frame: int | None, shape: tuple[int, ...]) -> None:
    """Refuse to be asked for another frame than the one there is."""
    if frame not in (None, 0):
        raise InvalidInputError(
            f"frame={frame}, and the image has one frame (shape {shape}); leave the frame away, or give "
            "the 4-D file.",
            code=ONE_FRAME,
        )


def _intensities(array: NDArray[Any], nan_policy: str) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        values = array.astype(np.float32)
    if nan_policy == "error":
        return values
    bad = ~np.isfinite(values)
    if bad.any():
        warn_about_source(f"{int(bad.sum())} intensities are NaN or infinite; they are set to 0.")
        values[bad] = 0
    return values
