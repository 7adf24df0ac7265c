"""Dense displacement fields: of any transform or chain of transforms, in memory and as NIfTI files.

A field holds, per voxel of a lattice, how far its centre moves, in mm. Files have five dimensions, the
fourth of size one, and an intent: 1007 (vector) with displacements in LPS, as ITK and ANTs read and write
them, or 1006 (displacement vector) in RAS, as the NIfTI standard has it. NiftyReg and SPM use 1007 too;
they are known by the intent's name or the description, and hold RAS: displacements, or the positions
that voxels go to. What is not known so is not guessed: where values look like positions and nothing says
so, the reader has to be told.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
from numpy.typing import ArrayLike

from cardiacreg.arrays import Float, MadeAnew
from cardiacreg.errors import InvalidInputError, check_argument
from cardiacreg.geometry import Affine, Volume, as_numbers, voxel_grid
from cardiacreg.io.atomic_write import write_bytes_atomically
from cardiacreg.io.nifti import read_vectors
from cardiacreg.io.source_name import named_source
from cardiacreg.transforms.ffd import FFD
from cardiacreg.transforms.ffd_chain import FFDChain
from cardiacreg.transforms.resampling import GRIDS, Grid, PointMap, check_map

_INTENTS = {"LPS": 1007, "RAS": 1006}
_SIGNS = {"LPS": np.array([-1.0, -1.0, 1.0]), "RAS": np.ones(3)}
_KINDS = ("displacements", "positions")
_LARGEST_FILE_BYTES = 2**32
_HEAD_BYTES = 4096
_FSL_INTENTS = range(2001, 2017)
_FSL = (
    "It is one of FSL's, whose numbers count along axes of their own: wb_command -convert-warpfield "
    "-from-fnirt FILE ATLAS.nii.gz -to-itk warp.nii.gz writes one that can be read."
)
_SPM = "Have SPM's Deformations utility write the deformation (y_), and read that."
_NIFTYREG = (
    "Have reg_transform -ref TARGET.nii.gz -disp FILE warp.nii.gz write a field, and read that."
)
_NIFTYREG_KINDS = {
    2.0: "control points", 3.0: "velocities", 4.0: "velocities", 5.0: "velocities",
    6.0: "control points",
}  # fmt: skip
_TELL = (
    "Pass space='LPS' (ITK, ANTs) or 'RAS', and kind='displacements' if the file holds how far voxels "
    "move or kind='positions' if it holds where they go to."
)
_POSITIONS_CORRELATION, _POSITIONS_SLOPE = 0.9, 0.4
"""From which correlation with the voxels' own positions, and up to which deviation of the slope from 1,
values are taken for positions."""


@dataclass(frozen=True, slots=True, eq=False)
class DisplacementField(MadeAnew):
    """Displacements on a lattice, interpolated between voxel centres and zero outside the voxels.

    Parameters
    ----------
    displacements_mm : array_like, shape (i, j, k, 3)
        Displacement of each voxel centre in world RAS mm.
    voxel_to_world : array_like, shape (4, 4)

    Raises
    ------
    InvalidInputError
        If the shape is another, values are not finite, or the matrix is singular.
    """

    displacements_mm: Float
    voxel_to_world: Float

    def __post_init__(self) -> None:
        values = as_numbers(self.displacements_mm, "DisplacementField")
        if values.ndim != 4 or values.shape[3] != 3 or values.size == 0:
            raise InvalidInputError(
                f"DisplacementField: shape {values.shape}; needs (i, j, k, 3).", code="BAD_SHAPE"
            )
        if not np.isfinite(values).all():
            raise InvalidInputError(
                "DisplacementField: displacements hold NaN or infinity.", code="NOT_FINITE"
            )
        values.setflags(write=False)
        object.__setattr__(self, "displacements_mm", values)
        object.__setattr__(self, "voxel_to_world", Affine(self.voxel_to_world).matrix)

    def apply(self, points_mm: ArrayLike) -> Float:
        """Map points of shape (..., 3) in mm; those outside the voxels of the lattice stay."""
        from scipy.ndimage import map_coordinates

        points = np.asarray(points_mm, dtype=np.float64)
        voxels = Affine(self.voxel_to_world).inverse().apply(points.reshape(-1, 3)).T
        last = np.array(self.displacements_mm.shape[:3])[:, None] - 1.0
        inside = ((voxels >= -0.5) & (voxels <= last + 0.5)).all(axis=0)
        voxels = np.clip(voxels, 0, last)
        moved = [
            inside * map_coordinates(self.displacements_mm[..., c], voxels, order=1)
            for c in range(3)
        ]
        return np.asarray(points + np.stack(moved, axis=-1).reshape(points.shape))


def dense_displacement(transforms: PointMap | Sequence[PointMap], grid: Grid) -> DisplacementField:
    """Return the displacements of a transform, or of several one after the other, on a lattice.

    Parameters
    ----------
    transforms : Affine, FFD, FFDChain, DisplacementField or a sequence of these
        Of a sequence, the first is applied first.
    grid : Lattice, Volume or LabelMap

    Returns
    -------
    DisplacementField

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg import FFD, Affine, Lattice, dense_displacement
    >>> lattice = np.diag([20.0, 20.0, 20.0, 1.0])
    >>> lattice[:3, 3] = -40.0
    >>> bent = np.zeros((6, 6, 6, 3))
    >>> bent[3, 3, 3] = (3.0, 0.0, 0.0)  # one control point, moved by 3 mm
    >>> transform = FFD(Affine(np.eye(4)), bent, lattice)
    >>> grid = Lattice((5, 5, 5), np.diag([10.0, 10.0, 10.0, 1.0]))
    >>> dense_displacement(transform, grid).displacements_mm.shape
    (5, 5, 5, 3)
    """
    check_argument(grid, GRIDS, "dense_displacement: grid")
    points = voxel_grid(grid.shape, grid.voxel_to_world)
    moved = points
    chain = list(transforms) if isinstance(transforms, Sequence) else [transforms]
    for number, transform in enumerate(chain):
        check_map(transform, "dense_displacement")
        if number == 0 and isinstance(transform, FFD | FFDChain):
            u = transform.grid_displacement(grid.shape, grid.voxel_to_world)
            moved = transform.affine.apply(points + u)
        else:
            moved = transform.apply(moved)
    return DisplacementField(moved - points, grid.voxel_to_world)


def jacobian_map(transform: FFD | FFDChain, grid: Grid, *, with_affine: bool = False) -> Volume:
    """Return the Jacobian determinant of a deformation on a lattice aligned with its control lattice.

    Parameters
    ----------
    transform : FFD or FFDChain
    grid : Lattice, Volume or LabelMap
    with_affine : bool
        Multiply by the affine's determinant: the whole change of volume instead of the local one.

    Returns
    -------
    Volume
        1 means no change of volume, values at or below zero mean folding.

    Raises
    ------
    InvalidInputError
        If the lattices' axes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg import FFD, Affine, Lattice, jacobian_map
    >>> lattice = np.diag([20.0, 20.0, 20.0, 1.0])
    >>> lattice[:3, 3] = -40.0
    >>> bent = np.zeros((6, 6, 6, 3))
    >>> bent[3, 3, 3] = (3.0, 0.0, 0.0)  # one control point, moved by 3 mm
    >>> transform = FFD(Affine(np.eye(4)), bent, lattice)
    >>> grid = Lattice((5, 5, 5), np.diag([10.0, 10.0, 10.0, 1.0]))
    >>> bool((jacobian_map(transform, grid).array > 0).all())  # nothing folds
    True
    """
    check_argument(grid, GRIDS, "jacobian_map: grid")
    check_argument(transform, (FFD, FFDChain), "jacobian_map: transform")
    values = transform.jacobian_determinant(grid.shape, grid.voxel_to_world)
    if values.shape != tuple(grid.shape):
        raise InvalidInputError(
            "jacobian_map: the lattice is turned against the control lattice; use one with the axes of "
            "the registration's target.",
            code="TURNED_LATTICE",
        )
    factor = np.linalg.det(transform.affine.matrix[:3, :3]) if with_affine else 1.0
    return Volume(values * factor, grid.voxel_to_world)


def write_displacement_field(
    path: str | os.PathLike[str], field: DisplacementField, *, space: str = "LPS"
) -> None:
    """Write a field as NIfTI, complete or not at all.

    Parameters
    ----------
    path : path-like
        Ends with ``.nii`` or ``.nii.gz``.
    field : DisplacementField
    space : {"LPS", "RAS"}
        World of the stored components: ``"LPS"`` for ITK and ANTs (intent 1007), ``"RAS"`` for the
        NIfTI standard (intent 1006). The lattice's matrix is in RAS either way, as always in NIfTI.

    Raises
    ------
    InvalidInputError
        If the space or the name is another, or the folder does not exist.

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg import DisplacementField, write_displacement_field
    >>> field = DisplacementField(np.zeros((4, 4, 4, 3)), np.eye(4))
    >>> write_displacement_field("zero.nii.gz", field)
    """
    name = os.fspath(path)
    check_argument(field, DisplacementField, "write_displacement_field: field")
    check_argument(space, str, "write_displacement_field: space")
    if space not in _INTENTS or not name.endswith((".nii", ".nii.gz")):
        raise InvalidInputError(
            f"{name}: space {space!r}; needs 'LPS' or 'RAS' and a name ending with .nii or .nii.gz.",
            code="BAD_OPTION",
        )
    values = (field.displacements_mm * _SIGNS[space]).astype(np.float32)
    image = nibabel.Nifti1Image(values[:, :, :, None], field.voxel_to_world)
    image.header.set_intent(_INTENTS[space])
    image.header.set_xyzt_units("mm")
    stream = io.BytesIO()
    image.to_stream(stream)
    payload = stream.getvalue()
    compressed = gzip.compress(payload, 4, mtime=0) if name.endswith(".gz") else payload
    write_bytes_atomically(path, compressed)


def read_displacement_field(
    source: Any, *, space: str | None = None, kind: str | None = None
) -> DisplacementField:
    """Read a field from NIfTI, or take it from an image of SimpleITK.

    Parameters
    ----------
    source : path-like or SimpleITK.Image
        An image of vectors of three components, as read from ``.nrrd`` or ``.mha``; its values are
        displacements in LPS.
    space : {"LPS", "RAS"}, optional
        World of the stored components; by default what the file says.
    kind : {"displacements", "positions"}, optional
        Whether the file holds how far voxels move or where they go to; by default what it says.

    Returns
    -------
    DisplacementField
        World RAS mm.

    Raises
    ------
    InvalidInputError
        If the file is missing, truncated, damaged (by its checksum) or not a field (BAD_SHAPE,
        BAD_FIELD), or neither the arguments nor the file name the world (UNKNOWN_SPACE) or the kind
        (UNKNOWN_KIND).

    Notes
    -----
    The file says: intent 1007 is LPS displacements (ITK, ANTs), and 1006 RAS displacements, unless the
    intent's name is ``NREG_TRANS`` (NiftyReg: RAS, positions or displacements by intent_p1), or the name
    is ``Mapping`` or the description begins with "Deformation" (SPM's ``y_`` and ``iy_`` files: RAS
    positions).

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg import DisplacementField, read_displacement_field, write_displacement_field
    >>> field = DisplacementField(np.full((4, 4, 4, 3), 2.0), np.diag([1.5, 1.5, 8.0, 1.0]))
    >>> write_displacement_field("field.nii.gz", field, space="LPS")
    >>> read_displacement_field("field.nii.gz", space="LPS").displacements_mm[0, 0, 0]
    array([2., 2., 2.])
    """
    _check_options(space, kind)
    if not isinstance(source, str | os.PathLike):
        return _from_simpleitk(source, space, kind)
    with named_source(os.fspath(source)):
        values, matrix, intent = read_vectors(source, max_bytes=_LARGEST_FILE_BYTES)
        shape = values.shape
        if values.ndim == 5 and values.shape[3] == 1:
            values = values[:, :, :, 0]
        said = _said(Path(source), intent)
        known = _Meaning(space or said.space, kind or said.kind)
        if known.space is None or known.kind is None:
            raise _unknown(intent, known, said.hint)
        if values.ndim != 4 or values.shape[3] != 3:
            raise InvalidInputError(f"shape {shape}; needs (i, j, k, 1, 3).", code="BAD_SHAPE")
        if said.sure is False and kind is None:
            _check_displacements(values, matrix, space is not None)
        return _field(values * _SIGNS[known.space], matrix, known.kind)


class _Meaning(NamedTuple):
    """What the numbers of a file are."""

    space: str | None = None
    kind: str | None = None
    sure: bool = False
    """Whether the file names both itself."""
    hint: str = ""


def _check_options(space: str | None, kind: str | None) -> None:
    for each in (space, kind):
        check_argument(each, (str, type(None)), "read_displacement_field: space and kind")
    if space not in (None, *_SIGNS) or kind not in (None, *_KINDS):
        raise InvalidInputError(
            f"read_displacement_field: space {space!r}, kind {kind!r}; needs 'LPS' or 'RAS', and "
            "'displacements' or 'positions'.",
            code="UNKNOWN_SPACE" if space not in (None, *_SIGNS) else "UNKNOWN_KIND",
        )


def _said(path: Path, intent: int) -> _Meaning:
    """What a file's header says; the file has been read, so that its header is whole."""
    name, kind, description = _marks(path)
    if name.startswith("NREG"):
        return _said_by_niftyreg(name, kind)
    if description.lower().startswith("flow field") or "velocity" in description.lower():
        raise _no_field(
            f"a flow field of SPM ({description!r}), whose numbers are velocities", _SPM
        )
    if intent in _FSL_INTENTS:
        return _Meaning(hint=_FSL)
    is_mapping = name == "Mapping" or re.match(r"(inverse )?deformation", description, re.I)
    if is_mapping and intent in (0, 1007):
        return _Meaning("RAS", "positions", True)
    if intent == 1007 and name:
        hint = f"The intent's name is {name!r}, which ITK and ANTs do not write."
        return _Meaning(hint=hint)
    spaces = {code: space for space, code in _INTENTS.items()}
    return _Meaning(spaces.get(intent), "displacements")


def _said_by_niftyreg(name: str, kind: float) -> _Meaning:
    kinds = {0.0: "positions", 1.0: "displacements"}
    if name == "NREG_TRANS" and kind in kinds:
        return _Meaning("RAS", kinds[kind], True)
    what = _NIFTYREG_KINDS.get(kind, "another kind") if name == "NREG_TRANS" else "an old kind"
    raise _no_field(f"a transformation of NiftyReg of {what} (intent {name}, {kind:g})", _NIFTYREG)


def _no_field(what: str, advice: str) -> InvalidInputError:
    return InvalidInputError(
        f"holds {what}; needs displacements or positions. {advice}", code="BAD_FIELD"
    )


def _unknown(intent: int, known: _Meaning, hint: str) -> InvalidInputError:
    code, what = ("UNKNOWN_KIND", "the kind") if known.space else ("UNKNOWN_SPACE", "the world")
    return InvalidInputError(
        f"intent {intent}: {what} of the numbers is unknown. {hint}{' ' if hint else ''}{_TELL}",
        code=code,
    )


def _marks(path: Path) -> tuple[str, float, str]:
    """Name and first parameter of the header's intent, and its description."""
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if head.startswith(b"\x1f\x8b"):
        head = zlib.decompressobj(wbits=31).decompress(head, _HEAD_BYTES)
    old = 348 in struct.unpack("<i", head[:4]) + struct.unpack(">i", head[:4])
    kind, length = (nibabel.Nifti1Header, 348) if old else (nibabel.Nifti2Header, 540)
    header = kind(head[:length], check=False)
    name, description = (
        bytes(header[key].tobytes()).split(b"\0")[0].decode("latin-1").strip()
        for key in ("intent_name", "descrip")
    )
    return name, float(header["intent_p1"]), description


def _check_displacements(values: Float, matrix: Float, space_given: bool) -> None:
    """Refuse numbers that follow the lattice's own positions: they are places, not movements."""
    positions = voxel_grid(values.shape[:3], matrix)
    slopes = []
    for c in range(3):
        own = positions[..., c] - positions[..., c].mean()
        found = values[..., c] - values[..., c].mean()
        spread = float((own * own).sum()), float((found * found).sum())
        if spread[0] <= 0:  # a lattice of one voxel along this axis
            slopes.append(np.nan)
            continue
        both = float((own * found).sum())
        if spread[1] <= 0 or abs(both) < _POSITIONS_CORRELATION * np.sqrt(spread[0] * spread[1]):
            return
        slopes.append(both / spread[0])
    for space, signs in _SIGNS.items():
        off = np.abs(signs * slopes - 1)
        if np.isfinite(off).any() and np.nanmax(off) < _POSITIONS_SLOPE:
            raise InvalidInputError(
                f"the values follow the voxels' own positions in {space} (slopes "
                f"{np.round(slopes, 2).tolist()}): they seem to be positions, as SPM, NiftyReg and ANTs' "
                f"maps have them, not displacements. Pass kind='positions' with space='{space}', or "
                f"kind='displacements'{'' if space_given else ' with their space='}.",
                code="UNKNOWN_KIND",
            )


def _field(values: Float, matrix: Float, kind: str | None) -> DisplacementField:
    if kind == "positions":
        values = values - voxel_grid(values.shape[:3], matrix)
    bad = int((~np.isfinite(values)).any(axis=-1).sum())
    if bad:
        raise InvalidInputError(
            f"{bad} voxels hold NaN or infinity, as some tools write where a field is not known; give "
            "them a number, such as that of the nearest voxel, first.",
            code="NOT_FINITE",
        )
    return DisplacementField(values, matrix)


def _from_simpleitk(image: Any, space: str | None, kind: str | None) -> DisplacementField:
    if not all(hasattr(image, name) for name in ("GetDirection", "GetSpacing", "GetOrigin")):
        raise InvalidInputError(
            f"read_displacement_field: got a {type(image).__name__}; needs a path or a SimpleITK image.",
            code="BAD_TYPE",
        )
    components, dimension = image.GetNumberOfComponentsPerPixel(), image.GetDimension()
    if (components, dimension) != (3, 3):
        raise InvalidInputError(
            f"read_displacement_field: an image of {components} numbers per voxel in {dimension} "
            "dimensions; needs 3 in 3: sitk.ReadImage(path, sitk.sitkVectorFloat64).",
            code="BAD_SHAPE",
        )
    simpleitk = import_module(type(image).__module__.partition(".")[0])
    flip = np.diag(_SIGNS["LPS"])
    matrix = np.eye(4)
    matrix[:3, :3] = (
        flip @ np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    )
    matrix[:3, 3] = flip @ np.array(image.GetOrigin())
    values = np.asarray(simpleitk.GetArrayFromImage(image), np.float64).transpose(2, 1, 0, 3)
    if kind is None:
        _check_displacements(values, matrix, space is not None)
    return _field(values * _SIGNS[space or "LPS"], matrix, kind)
