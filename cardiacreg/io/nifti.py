"""Label maps and images in and out: files, nibabel and SimpleITK images, plain arrays.

Whatever is read leaves as a `LabelMap` or `Volume` that is complete, finite and placed in world
RAS+ millimetres, or as an `InvalidInputError` that says why not; repairs are warnings. NIfTI files are
read here, other kinds by `foreign_images`.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from cardiacreg.errors import InvalidInputError, check_argument
from cardiacreg.geometry import LabelMap, Volume, unmasked
from cardiacreg.io.atomic_write import write_bytes_atomically
from cardiacreg.io.bounded_read import read_whole_file
from cardiacreg.io.foreign_images import (
    from_foreign_file,
    from_nibabel,
    from_simpleitk,
    is_foreign,
    is_nibabel,
    is_simpleitk,
)
from cardiacreg.io.label_values import (
    ONE_FRAME,
    Frame,
    Stored,
    StoredLabels,
    check_only_frame,
    coded,
    frames_of_series,
    one_frame,
    one_label_frame,
    with_three_or_four_axes,
)
from cardiacreg.io.nifti_header import (
    Layout,
    check_working_memory,
    checked_matrix,
    header_layout,
    header_matrix,
    header_scaling,
    parse_header,
)
from cardiacreg.io.source_name import named_source, warn_about_source

__all__ = [
    "MAX_BYTES",
    "ONE_FRAME",
    "read_labels",
    "read_stored_labels",
    "read_vectors",
    "read_volume",
    "write_labels",
    "write_volume",
]

MAX_BYTES = 2**31


def read_labels(
    source: Any, *, frame: Frame = None, max_bytes: int = MAX_BYTES, check_spacing: bool = True
) -> LabelMap:
    """Read a label map, its values as they are, from a file or from an object in memory.

    Parameters
    ----------
    source : path-like, nibabel image, SimpleITK image, LabelMap or (array, voxel_to_world)
        A ``.nii`` or ``.nii.gz`` file, one of another kind (``.nrrd``, ``.seg.nrrd``, ``.mha``,
        ``.mgz``, ...), or what holds the same in memory. A matrix of its own is in RAS+ mm; a LabelMap
        is returned as it is.
    frame : int, "ED" or "ES", optional
        Which frame of a 4-D source, needed when there is more than one; 3-D sources have one, 0. ED is
        the frame with most labelled voxels, ES that with fewest.
    max_bytes : int
        Most bytes a file may hold after decompression; reading may take four times as much memory.
    check_spacing : bool
        Whether to refuse a spacing outside 0.2 to 5 mm in plane and 0.3 to 20 mm between slices.

    Returns
    -------
    LabelMap
        Labels as stored (`read_segmentation` translates them), uint8, shape (i, j, k).

    Raises
    ------
    InvalidInputError
        If the file is missing, truncated, damaged or too large, is of no known kind, has no or an
        impossible geometry, needs a frame, or holds anything but integers from 0 to 255; its
        ``code`` says which.

    Warns
    -----
    InputWarning
        If something was repaired or assumed: shear, units, two frames that differ, trailing data,
        channels that were decoded, values that were rounded.

    Examples
    --------
    >>> from cardiacreg import read_labels, write_labels
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> write_labels("seg.nii.gz", make_toy_heart().labels)
    >>> read_labels("seg.nii.gz").shape
    (40, 40, 8)
    """
    found = read_stored_labels(
        source, frame=frame, max_bytes=max_bytes, check_spacing=check_spacing
    )
    if all(number == value for number, value in found.values.items()):
        return found.codes
    values = list(found.values.values())
    shown = str(values) if len(values) <= 12 else f"{len(values)} of them"
    raise InvalidInputError(
        f"{_source_name(source)}: labels run from {min(values)} to {max(values)} ({shown}); needs 0 to "
        "255. Where a preset or a mapping {their label: canonical label} says what they mean, "
        "cardiacreg.read_segmentation and refine read them.",
        code="UNKNOWN_LABEL",
    )


def read_stored_labels(
    source: Any, *, frame: Frame = None, max_bytes: int = MAX_BYTES, check_spacing: bool = True
) -> StoredLabels:
    """Read a label map whose values may be of any size, with what the file says about them.

    Parameters
    ----------
    source, frame, max_bytes, check_spacing
        As for `read_labels`.

    Returns
    -------
    StoredLabels

    Raises
    ------
    InvalidInputError
        As `read_labels`, but for values that are too large.

    Warns
    -----
    InputWarning
        As `read_labels`.
    """
    if isinstance(source, LabelMap):
        check_only_frame(frame, source.shape)
        return StoredLabels.of(source)
    with named_source(_source_name(source)):
        stored = _load(source, max_bytes)
        array, number = one_label_frame(stored.array, frame)
        matrix = checked_matrix(stored.matrix, array.shape, check_spacing=check_spacing)
        codes, values = coded(array, stored.step)
        return StoredLabels(LabelMap(codes, matrix), values, number, dict(stored.names))


def read_stored_frames(source: Any, *, max_bytes: int = MAX_BYTES) -> list[StoredLabels]:
    """Read every frame of a label series, from a file read once or from an object in memory.

    Parameters
    ----------
    source : path-like, nibabel image, SimpleITK image, LabelMap or (array, voxel_to_world)
        As for `read_labels`; what has three dimensions is one frame.
    max_bytes : int
        Most bytes a file may hold after decompression.

    Returns
    -------
    list of StoredLabels
        As `read_stored_labels` returns each.

    Raises
    ------
    InvalidInputError
        As `read_labels`.

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg.io.nifti import read_stored_frames
    >>> array, matrix = np.zeros((8, 8, 3, 5), np.uint8), np.diag([1.0, 1.0, 8.0, 1.0])
    >>> frames = read_stored_frames((array, matrix))
    >>> len(frames), frames[0].codes.shape
    (5, (8, 8, 3))
    """
    if isinstance(source, LabelMap):
        return [StoredLabels.of(source)]
    with named_source(_source_name(source)):
        stored = _load(source, max_bytes)
        array = stored.array
        while array.ndim > 4 and array.shape[-1] == 1:
            array = array[..., 0]
        chosen = frames_of_series(array)
        matrix = checked_matrix(stored.matrix, chosen[0].shape, check_spacing=True)
        names, frames = dict(stored.names), [coded(each, stored.step) for each in chosen]
        return [
            StoredLabels(LabelMap(codes, matrix), values, number, names)
            for number, (codes, values) in enumerate(frames)
        ]


def read_volume(
    source: Any,
    *,
    frame: Frame = None,
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
        Most bytes a file may hold after decompression; reading may take four times as much memory.
    check_spacing : bool
        Whether to refuse a spacing outside 0.2 to 5 mm in plane and 0.3 to 20 mm between slices.

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
        check_only_frame(frame, source.shape)
        return source
    with named_source(_source_name(source)):
        stored = _load(source, max_bytes)
        frames = with_three_or_four_axes(stored.array)
        array = _intensities(one_frame(frames, frame)[0], nan_policy)
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
    check_argument(labels, LabelMap, "write_labels: labels")
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
    check_argument(volume, Volume, "write_volume: volume")
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
    >>> from cardiacreg.io.nifti import read_stored_frames, write_label_frames
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> write_label_frames("cine.nii.gz", [make_toy_heart(size=s).labels for s in (1.0, 0.9)])
    >>> len(read_stored_frames("cine.nii.gz"))
    2
    """
    if not frames or any(each.shape != frames[0].shape for each in frames):
        raise InvalidInputError(
            f"{path}: frames of shapes {[each.shape for each in frames]}; needs some, all of one.",
            code="BAD_SHAPE",
        )
    array = np.stack([each.array for each in frames], axis=-1)
    _write_array(path, array, frames[0].voxel_to_world, step_ms=step_ms)


def write_label_values(
    path: str | os.PathLike[str], array: NDArray[Any], voxel_to_world: NDArray[np.float64]
) -> None:
    """Write label values of any integer type as NIfTI; as `write_labels` otherwise."""
    _write_array(path, array, voxel_to_world)


def write_volume_frames(
    path: str | os.PathLike[str],
    array: NDArray[np.float32],
    voxel_to_world: NDArray[np.float64],
    *,
    step_ms: float | None = None,
) -> None:
    """Write images on one lattice, shape (i, j, k, t), as a 4-D NIfTI; as `write_volume` otherwise."""
    _write_array(path, array, voxel_to_world, step_ms=step_ms)


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


def _load(source: Any, max_bytes: int) -> Stored:
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if is_foreign(path):
            return from_foreign_file(path, max_bytes)
        return _load_file(path, max_bytes)[0]
    if isinstance(source, tuple) and len(source) == 2:
        return _arrays(*source)
    if is_nibabel(source):
        return from_nibabel(source, lambda path: _load_file(path, max_bytes)[0])
    if is_simpleitk(source):
        return from_simpleitk(source)
    raise InvalidInputError(
        f"got a {type(source).__name__}; needs a path, a nibabel or SimpleITK image, a LabelMap or "
        "Volume, or a tuple (array, voxel_to_world).",
        code="BAD_TYPE",
    )


def _arrays(array: Any, matrix: Any) -> Stored:
    try:
        voxels = np.asarray(unmasked(array, "the array"))
        return Stored(voxels, np.asarray(matrix, dtype=np.float64))
    except (TypeError, ValueError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(
            f"the tuple does not hold an array and a matrix of numbers ({error}); needs (array, "
            "voxel_to_world).",
            code="BAD_TYPE",
        ) from error


def _load_file(path: Path, max_bytes: int) -> tuple[Stored, int]:
    """What a file holds, and its header's intent."""
    parsed: list[tuple[Any, Layout]] = []

    def end_of(head: bytes) -> int:
        header = parse_header(head)
        parsed.append((header, header_layout(header)))
        return parsed[0][1].end

    content = read_whole_file(path, end_of, max_bytes=max_bytes)
    ((header, layout),) = parsed
    check_working_memory(layout, header_scaling(header), max_bytes)
    flat = np.frombuffer(
        content, layout.dtype, offset=layout.offset, count=int(np.prod(layout.shape))
    )
    slope, intercept = header_scaling(header)
    array = flat.reshape(layout.shape, order="F")
    if (slope, intercept) != (1.0, 0.0):
        step = abs(slope) if array.dtype.kind in "iu" else 0.0
        array = array.astype(np.float64)
        array *= slope
        array += intercept
    else:
        step = 0.0
    return Stored(array, header_matrix(header), step), int(header["intent_code"])


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
