"""Images of other kinds than NIfTI files: nibabel and SimpleITK objects, and the files that they read.

NRRD and MetaImage files, and the segmentations of 3D Slicer among them, are read by SimpleITK, which is
optional; MGH files and two-file NIfTI images by nibabel.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import corner_distance_mm, unmasked
from cardiacreg.io.bounded_read import read_everything
from cardiacreg.io.label_values import Stored, not_3d
from cardiacreg.io.nifti_header import bad_header, header_matrix, in_mm
from cardiacreg.io.regular_file import check_regular_file, unreadable
from cardiacreg.io.source_name import warn_about_source

BY_SIMPLEITK = (".nrrd", ".nhdr", ".mha", ".mhd")
BY_NIBABEL = (".mgz", ".mgh", ".hdr", ".img", ".hdr.gz", ".img.gz")
_MGH_HEADER_BYTES = 284
_MOVED_MM = 1e-3
_MOST_OVERLAP = 0.05
_SEGMENT_KEYS = ("Name", "LabelValue", "Layer")

_ReadFile = Callable[[Path], Stored]


def is_foreign(path: Path) -> bool:
    """Whether a name is that of a format that is read here."""
    return path.name.lower().endswith((*BY_SIMPLEITK, *BY_NIBABEL))


def from_foreign_file(path: Path, max_bytes: int) -> Stored:
    """Read a file by SimpleITK or nibabel, as its name says.

    Parameters
    ----------
    path : pathlib.Path
    max_bytes : int
        Most bytes to hold.

    Raises
    ------
    InvalidInputError
        FILE_NOT_FOUND, UNREADABLE_FILE (damaged, truncated or of another format), TOO_LARGE, NO_ITK
        where SimpleITK is needed and not installed, SPACING_UNKNOWN.

    Warns
    -----
    InputWarning
        If the file does not say how the image lies.
    """
    check_regular_file(path)
    if path.name.lower().endswith(BY_SIMPLEITK):
        return _from_itk_file(path, max_bytes)
    try:
        image, array = _by_nibabel(path, max_bytes)
    except InvalidInputError:
        raise
    except Exception as error:
        raise unreadable(f"nibabel says: {error}") from error
    analyze = isinstance(image, nibabel.AnalyzeImage) and not isinstance(image, nibabel.Nifti1Pair)
    if analyze and not path.with_suffix(".mat").exists():
        raise bad_header(
            "an ANALYZE image does not say how it lies (left and right are unknown)",
            "SPACING_UNKNOWN",
        )
    return Stored(array, _nibabel_matrix(image), _step(image.dataobj))


def _by_nibabel(path: Path, max_bytes: int) -> tuple[Any, NDArray[Any]]:
    """Return an image and its voxels; an MGH file is read to its end, which nibabel leaves out."""
    if ".mg" not in path.name.lower()[-4:]:
        image: Any = nibabel.load(path)
        _check_size(int(np.prod(image.shape, dtype=float)), max_bytes)
        return image, np.asanyarray(image.dataobj)
    content = read_everything(path, max_bytes=max_bytes)
    image = nibabel.MGHImage.from_bytes(content)
    voxel_bytes = int(image.header.get_data_dtype().itemsize)
    needed = _MGH_HEADER_BYTES + int(np.prod(image.shape, dtype=float)) * voxel_bytes
    if len(content) < needed:
        raise InvalidInputError(
            f"the file holds {len(content)} of the {needed} bytes its header promises; it is truncated "
            "or its header is damaged: copy or export it again.",
            code="TRUNCATED_FILE",
        )
    return image, np.asanyarray(image.dataobj)


def _check_size(n_bytes: int, max_bytes: int) -> None:
    if n_bytes > 8 * max_bytes:
        raise InvalidInputError(
            f"the image holds about {n_bytes} bytes, over the budget of {max_bytes}; raise max_bytes if "
            "this is right.",
            code="TOO_LARGE",
        )


# ---- nibabel


def from_nibabel(image: Any, read_file: _ReadFile) -> Stored:
    """Return the voxels and the place of a nibabel image: the object's, not those of its file.

    Parameters
    ----------
    image : nibabel image
    read_file : callable
        Reads a NIfTI file to its end; nibabel stops before the checksum behind the voxels.

    Raises
    ------
    InvalidInputError
        SPACING_UNKNOWN without an affine; CHANGED_HEADER if the header was changed in memory and the
        affine was not; and what the reading raises.

    Warns
    -----
    InputWarning
        If the data were changed in memory.
    """
    if image.affine is None:
        raise bad_header("the image has no affine", "SPACING_UNKNOWN")
    file = _file_behind(image)
    if file is None:
        return Stored(_data(image), _nibabel_matrix(image), _step(image.dataobj))
    stored, header = read_file(file), nibabel.load(file)
    if _is_changed(image, header.affine):
        matrix = in_mm(np.array(image.affine, dtype=np.float64), image.header)
        return stored._replace(array=_checked_cache(image, stored), matrix=matrix)
    shape = image.shape[:3]
    if isinstance(image, nibabel.Nifti1Image) and _differ(
        shape, image.header.get_best_affine(), header.header.get_best_affine()
    ):
        raise InvalidInputError(
            "the header was changed in memory and the affine was not, so the place and size of the image "
            "are uncertain; change the affine: nibabel.Nifti1Image(image.dataobj, affine), or "
            "image.set_sform(affine).",
            code="CHANGED_HEADER",
        )
    return stored._replace(array=_checked_cache(image, stored))


def _file_behind(image: Any) -> Path | None:
    """Return the NIfTI file that the voxels still come from, or None."""
    data = image.dataobj
    name = getattr(data, "file_like", None)
    if not nibabel.is_proxy(data) or not isinstance(name, str | Path):
        return None
    if not isinstance(image, nibabel.Nifti1Image):
        return None
    try:
        shape = nibabel.load(name).shape
    except Exception:
        return Path(name)
    return Path(name) if tuple(shape) == tuple(data.shape) else None


def _is_changed(image: Any, affine: Any) -> bool:
    return affine is None or _differ(image.shape[:3], image.affine, affine)


def _differ(shape: Any, first: Any, second: Any) -> bool:
    return corner_distance_mm(tuple(shape), np.asarray(first), np.asarray(second)) > _MOVED_MM


def _checked_cache(image: Any, stored: Stored) -> NDArray[Any]:
    """Return the file's voxels, or those in memory where somebody changed them."""
    if not image.in_memory:
        return stored.array
    cached = np.asarray(image.get_fdata(caching="unchanged"))
    if np.array_equal(cached, stored.array.astype(cached.dtype), equal_nan=True):
        return stored.array
    if np.allclose(cached, stored.array, rtol=1e-5, atol=1e-6, equal_nan=True):
        return stored.array
    warn_about_source(
        "the data were changed in memory after loading; these are used, not the file's."
    )
    return cached


def _nibabel_matrix(image: Any) -> NDArray[np.float64]:
    """Return the object's affine in mm; the header's place where it says the same in more detail."""
    affine = np.array(image.affine, dtype=np.float64)
    if not isinstance(image, nibabel.Nifti1Pair):
        return affine
    try:
        same = not _differ(image.shape[:3], image.header.get_best_affine(), affine)
    except Exception:
        same = False
    return header_matrix(image.header) if same else in_mm(affine, image.header)


def _data(image: Any) -> NDArray[Any]:
    try:
        array = np.asanyarray(image.dataobj)
    except Exception as error:
        raise unreadable(f"nibabel says: {error}") from error
    return np.asarray(unmasked(array, "the image"))


def _step(data: Any) -> float:
    """Return the distance between the numbers that a scaled file can hold, 0 without scaling."""
    slope = getattr(data, "slope", None)
    return abs(float(slope)) if slope is not None and np.isfinite(slope) else 0.0


def is_nibabel(source: Any) -> bool:
    """Whether an object is an image of nibabel."""
    return isinstance(source, SpatialImage)


# ---- SimpleITK


def is_simpleitk(source: Any) -> bool:
    """Whether an object is an image of SimpleITK."""
    return all(hasattr(source, name) for name in ("GetDirection", "GetSpacing", "GetOrigin"))


def from_simpleitk(image: Any) -> Stored:
    """Return the voxels and the place of a SimpleITK image, with its segments where it is of 3D Slicer.

    Parameters
    ----------
    image : SimpleITK.Image

    Raises
    ------
    InvalidInputError
        BAD_DTYPE for several values per voxel, BAD_SHAPE for slices, and as `_flattened`.
    """
    simpleitk = import_module(type(image).__module__.partition(".")[0])
    n = image.GetDimension()
    if n < 3:
        raise not_3d(tuple(image.GetSize()))
    array = simpleitk.GetArrayFromImage(image)
    segments = _segments(image)
    n_layers = image.GetNumberOfComponentsPerPixel()
    if n_layers != 1 and not segments:
        raise InvalidInputError(f"{n_layers} values per voxel; needs one.", code="BAD_DTYPE")
    direction = np.array(image.GetDirection()).reshape(n, n)[:3, :3]
    to_ras = np.diag([-1.0, -1.0, 1.0])
    matrix = np.eye(4)
    matrix[:3, :3] = to_ras @ direction * np.array(image.GetSpacing()[:3])
    matrix[:3, 3] = to_ras @ np.array(image.GetOrigin()[:3])
    if not segments:
        return Stored(array.T, matrix)
    layers = array[..., None] if n_layers == 1 else array
    flat, names = _flattened(np.moveaxis(layers.transpose(2, 1, 0, 3), 3, 0), segments)
    return Stored(flat, matrix, 0.0, names)


def _segments(image: Any) -> list[tuple[str, int, int]]:
    """Return (name, label value, layer) of every segment of a segmentation of 3D Slicer."""
    found = []
    number = 0
    while image.HasMetaDataKey(f"Segment{number}_LabelValue"):
        stated = [
            image.GetMetaData(key).strip() if image.HasMetaDataKey(key) else "0"
            for key in (f"Segment{number}_{part}" for part in _SEGMENT_KEYS)
        ]
        try:
            found.append((stated[0], int(stated[1]), int(stated[2])))
        except ValueError as error:
            raise bad_header(f"segment {number} has no usable value or layer ({error})") from error
        number += 1
    return found


def _flattened(
    layers: NDArray[Any], segments: list[tuple[str, int, int]]
) -> tuple[NDArray[np.int64], Mapping[int, str]]:
    """Return one label map of all layers, and the names of its values.

    A segment within another one, as a cavity within an epicardial outline, is on top of it.

    Raises
    ------
    InvalidInputError
        OVERLAPPING_SEGMENTS where two segments share more than 5 % of the smaller one, and neither
        lies within the other; BAD_HEADER for a layer that is not there; UNKNOWN_SEGMENTS for voxels
        without a segment whose value means a segment of another layer.
    """
    if len({value for _, value, _ in segments}) == len(segments):
        values = [value for _, value, _ in segments]
    else:
        values = list(range(1, len(segments) + 1))
    if max(layer for *_, layer in segments) >= len(layers):
        raise bad_header(f"a segment is in a layer that is not there, of {len(layers)}")
    masks = [layers[layer] == value for _, value, layer in segments]
    sizes = [int(np.count_nonzero(mask)) for mask in masks]
    names = {value: name for value, (name, *_) in zip(values, segments, strict=True)}
    flat = np.zeros(layers.shape[1:], dtype=np.int64)
    for n in np.argsort([-size for size in sizes], kind="stable"):
        _check_overlap(flat, masks[n], sizes, values, names, segments[n][0])
        flat[masks[n]] = values[n]
    _keep_undescribed(flat, layers, segments, values)
    known = {value for value, size in zip(values, sizes, strict=True) if size}
    return flat, {value: name for value, name in names.items() if value in known}


def _keep_undescribed(
    flat: NDArray[np.int64],
    layers: NDArray[Any],
    segments: list[tuple[str, int, int]],
    values: list[int],
) -> None:
    """Keep the voxels that no segment describes, so that they are told of.

    Raises
    ------
    InvalidInputError
        UNKNOWN_SEGMENTS where their value means a segment of another layer.
    """
    for layer, voxels in enumerate(layers):
        described = [value for _, value, of in segments if of == layer]
        alone = (voxels != 0) & ~np.isin(voxels, described) & (flat == 0)
        for value in map(int, np.unique(voxels[alone])):
            if value in values:
                raise InvalidInputError(
                    f"layer {layer} holds voxels of value {value} that belong to no segment: make a "
                    "segment of them, or remove them.",
                    code="UNKNOWN_SEGMENTS",
                )
            flat[alone & (voxels == value)] = value


def _check_overlap(
    flat: NDArray[np.int64],
    mask: NDArray[np.bool_],
    sizes: list[int],
    values: list[int],
    names: Mapping[int, str],
    name: str,
) -> None:
    """Tell of what a segment covers; refuse where it only half covers it."""
    size = int(np.count_nonzero(mask))
    for value, count in zip(*np.unique(flat[mask], return_counts=True), strict=True):
        if value == 0 or not size:
            continue
        share = int(count) / size
        if _MOST_OVERLAP < share < 1 - _MOST_OVERLAP:
            raise InvalidInputError(
                f"the segments {names[int(value)]!r} and {name!r} share {share:.0%} of the smaller one, "
                "and neither lies within the other; needs segments that do not overlap: subtract one "
                "from the other in the Segment Editor.",
                code="OVERLAPPING_SEGMENTS",
            )
        warn_about_source(
            f"the segments {names[int(value)]!r} and {name!r} overlap in {int(count)} voxels; they are "
            f"taken as {name!r}, the smaller one."
        )


def _from_itk_file(path: Path, max_bytes: int) -> Stored:
    simpleitk = _simpleitk(path)
    try:
        reader = simpleitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        voxels = int(np.prod(reader.GetSize(), dtype=float)) * reader.GetNumberOfComponents()
        _check_size(voxels, max_bytes)
        image = reader.Execute()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise unreadable(
            f"truncated, damaged or of another format; SimpleITK says: {reason}"
        ) from error
    if path.name.lower().endswith(".mha"):
        _check_compressed(path)
    keys = set(image.GetMetaDataKeys())
    if path.name.lower().endswith((".nrrd", ".nhdr")) and "NRRD_space" not in keys:
        warn_about_source(
            "the file does not say in which space it lies; its orientation is assumed."
        )
    return from_simpleitk(image)


def _simpleitk(path: Path) -> Any:
    try:
        return import_module("SimpleITK")
    except ImportError as error:
        raise InvalidInputError(
            f"{path.suffix} files are read by SimpleITK, which is not installed; install it with: pip "
            "install 'cardiacreg[itk]', or convert the file to NIfTI (.nii.gz).",
            code="NO_ITK",
        ) from error


def _check_compressed(path: Path) -> None:
    """Refuse a compressed MetaImage whose checksum is wrong: SimpleITK does not look at it."""
    content = path.read_bytes()
    head, _, data = content.partition(b"ElementDataFile = LOCAL\n")
    if not data or b"CompressedData = True" not in head:
        return
    try:
        zlib.decompress(data)
    except zlib.error as error:
        raise InvalidInputError(
            f"the compressed data are damaged ({error}); copy or export the file again.",
            code="CORRUPT_FILE",
        ) from error
