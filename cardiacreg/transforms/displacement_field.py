"""Dense displacement fields: of any transform or chain of transforms, in memory and as NIfTI files.

A field holds, per voxel of a lattice, how far its centre moves, in mm. Files have five dimensions, the
fourth of size one, and an intent: 1007 (vector) with components in LPS, as ITK and ANTs read and write
them, or 1006 (displacement vector) with components in RAS, as the NIfTI standard has it. Which of the
two is stated by name; nothing is guessed from values.
"""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass

import nibabel
import numpy as np
from numpy.typing import ArrayLike

from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import Affine, Volume, unmasked, voxel_grid
from cardiacreg.io.atomic_write import write_bytes_atomically
from cardiacreg.io.nifti import read_vectors
from cardiacreg.io.source_name import named_source
from cardiacreg.transforms.ffd import FFD
from cardiacreg.transforms.ffd_chain import FFDChain
from cardiacreg.transforms.resampling import Grid, PointMap

_INTENTS = {"LPS": 1007, "RAS": 1006}
_SIGNS = {"LPS": np.array([-1.0, -1.0, 1.0]), "RAS": np.ones(3)}
_LARGEST_FILE_BYTES = 2**32


@dataclass(frozen=True, slots=True, eq=False)
class DisplacementField:
    """Displacements on a lattice, interpolated between voxels and zero outside.

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
        values = np.array(unmasked(self.displacements_mm, "DisplacementField"), dtype=np.float64)
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
        """Map points of shape (..., 3) in mm; those outside the lattice stay."""
        from scipy.ndimage import map_coordinates

        points = np.asarray(points_mm, dtype=np.float64)
        voxels = Affine(self.voxel_to_world).inverse().apply(points.reshape(-1, 3)).T
        moved = [
            map_coordinates(self.displacements_mm[..., c], voxels, order=1, mode="constant")
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
    points = voxel_grid(grid.shape, grid.voxel_to_world)
    moved = points
    chain = list(transforms) if isinstance(transforms, Sequence) else [transforms]
    for number, transform in enumerate(chain):
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
    path: str | os.PathLike[str], *, space: str | None = None
) -> DisplacementField:
    """Read a field from NIfTI.

    Parameters
    ----------
    path : path-like
    space : {"LPS", "RAS"}, optional
        World of the stored components; by default what the file's intent says.

    Returns
    -------
    DisplacementField

    Raises
    ------
    InvalidInputError
        If the file is missing, truncated, damaged (by its checksum) or not a field, or neither `space`
        nor the intent names the world.

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg import DisplacementField, read_displacement_field, write_displacement_field
    >>> field = DisplacementField(np.full((4, 4, 4, 3), 2.0), np.diag([1.5, 1.5, 8.0, 1.0]))
    >>> write_displacement_field("field.nii.gz", field, space="LPS")
    >>> read_displacement_field("field.nii.gz", space="LPS").displacements_mm[0, 0, 0]
    array([2., 2., 2.])
    """
    with named_source(os.fspath(path)):
        values, matrix, intent = read_vectors(path, max_bytes=_LARGEST_FILE_BYTES)
        shape = values.shape
        if values.ndim == 5 and values.shape[3] == 1:
            values = values[:, :, :, 0]
        known = {code: name for name, code in _INTENTS.items()}
        chosen = space or known.get(intent)
        if chosen not in _SIGNS:
            raise InvalidInputError(
                f"intent {intent}, space {space!r}: the world of the components is unknown; pass "
                "space='LPS' (ITK, ANTs) or 'RAS'.",
                code="UNKNOWN_SPACE",
            )
        if values.ndim != 4 or values.shape[3] != 3:
            raise InvalidInputError(f"shape {shape}; needs (i, j, k, 1, 3).", code="BAD_SHAPE")
        return DisplacementField(values * _SIGNS[chosen], matrix)
