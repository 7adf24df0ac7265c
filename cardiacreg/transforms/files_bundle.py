"""Many deformations in one file of ours, ``.npz``: what a refinement found, as it found it.

A bundle is a NumPy archive (`numpy.savez`) of seven arrays without pickled objects. Links are the
splines of all transforms, one after the other; a transform of one link is an `FFD`, of more an
`FFDChain`:

- ``version``: of the format, 1;
- ``names``, shape (n,): text, one per transform;
- ``affines``, shape (n, 4, 4): the affine of each, applied last;
- ``n_links``, shape (n,): how many links each has;
- ``lattice_shapes``, shape (m, 3): control points of each link along its axes;
- ``lattices_to_world``, shape (m, 4, 4): control-point indices to world mm, RAS;
- ``displacements_mm``, shape (sum of control points, 3): world mm, the last lattice axis fastest.

Numbers are in double precision, so that what is read maps points to the same bits. They are not
compressed, which would save next to nothing, so that no file can claim more than it holds.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import Affine
from cardiacreg.io.atomic_write import write_bytes_atomically
from cardiacreg.io.bounded_read import DAMAGED_NPZ, read_everything
from cardiacreg.io.source_name import named_source
from cardiacreg.transforms.ffd import FFD
from cardiacreg.transforms.ffd_chain import FFDChain

_VERSION = 1
_LARGEST_BYTES = 2**31
_DIMENSIONS = {
    "version": 0, "names": 1, "affines": 3, "n_links": 1, "lattice_shapes": 2, "lattices_to_world": 3,
    "displacements_mm": 2,
}  # fmt: skip


def write_transforms(
    path: str | os.PathLike[str], transforms: Sequence[FFD | FFDChain], names: Sequence[str]
) -> None:
    """Write deformations into one file, complete or not at all.

    Parameters
    ----------
    path : path-like
        Ends with ``.npz``; an existing file is replaced in one step.
    transforms : sequence of FFD or FFDChain
        Target world mm to atlas world mm, RAS.
    names : sequence of str
        One per transform, as the names of the atlases.

    Raises
    ------
    InvalidInputError
        If the name ends otherwise (BAD_FILE_NAME), a transform is another (BAD_TYPE), there are other
        numbers of both (BAD_SHAPE), or the folder does not exist.

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg import FFD, Affine, read_transforms, write_transforms
    >>> transform = FFD(Affine(np.eye(4)), np.zeros((4, 4, 4, 3)), np.diag([20.0, 20.0, 20.0, 1.0]))
    >>> write_transforms("transforms.npz", [transform], ["atlas 7"])
    >>> found, names = read_transforms("transforms.npz")
    >>> len(found), names
    (1, ('atlas 7',))
    """
    if not os.fspath(path).endswith(".npz"):
        raise InvalidInputError(
            f"{path}: needs a name that ends with .npz; one transform can be written with write_dof or "
            "write_itk_transform.",
            code="BAD_FILE_NAME",
        )
    write_bytes_atomically(path, bundle_content(transforms, names))


def bundle_content(transforms: Sequence[FFD | FFDChain], names: Sequence[str]) -> bytes:
    """Return the content of the file that `write_transforms` writes."""
    for each in transforms:
        if not isinstance(each, FFD | FFDChain):
            raise InvalidInputError(
                f"write_transforms: a {type(each).__name__}; needs FFD and FFDChain. Affines can be "
                "written with write_dof or write_itk_transform.",
                code="BAD_TYPE",
            )
    if len(names) != len(transforms):
        raise InvalidInputError(
            f"write_transforms: {len(names)} names for {len(transforms)} transforms; needs one each.",
            code="BAD_SHAPE",
        )
    links = [link for each in transforms for link in _links(each)]
    lattices = [np.asarray(link.lattice_to_world) for link in links]
    arrays: dict[str, Any] = {
        "version": np.int64(_VERSION),
        "names": np.array([str(name) for name in names], dtype=np.str_),
        "affines": np.array([each.affine.matrix for each in transforms]).reshape(-1, 4, 4),
        "n_links": np.array([len(_links(each)) for each in transforms], dtype=np.int64),
        "lattice_shapes": np.array([link.displacements_mm.shape[:3] for link in links], np.int64)
        .reshape(-1, 3),
        "lattices_to_world": np.array(lattices, dtype=np.float64).reshape(-1, 4, 4),
        "displacements_mm": np.concatenate(
            [np.zeros((0, 3)), *(link.displacements_mm.reshape(-1, 3) for link in links)]
        ),
    }  # fmt: skip
    stream = BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def _links(transform: FFD | FFDChain) -> tuple[FFD, ...]:
    return transform.links if isinstance(transform, FFDChain) else (transform,)


def read_transforms(
    path: str | os.PathLike[str],
) -> tuple[tuple[FFD | FFDChain, ...], tuple[str, ...]]:
    """Read the deformations that `write_transforms` wrote, or a refinement saved.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    tuple of FFD or FFDChain
        Target world mm to atlas world mm, RAS.
    tuple of str
        Their names.

    Raises
    ------
    InvalidInputError
        If the file is missing (FILE_NOT_FOUND), no regular file (UNREADABLE_FILE), of another kind or
        version (BAD_FILE_TYPE), damaged (CORRUPT_FILE) or larger than 2 GB (TOO_LARGE).

    Examples
    --------
    >>> from cardiacreg import read_transforms
    >>> transforms, names = read_transforms("out/transforms.npz")  # doctest: +SKIP
    >>> transforms[0].apply([[0.0, 0.0, 0.0]])  # doctest: +SKIP
    array([[12.3, -4.5, 67.8]])
    """
    with named_source(os.fspath(path)):
        content = read_everything(path, max_bytes=_LARGEST_BYTES)
        if not content.startswith(b"PK"):
            raise _other("not a NumPy archive")
        try:
            held = _arrays(content)
            names = tuple(str(name) for name in held["names"])
            found = tuple(_transforms(held))
        except InvalidInputError as error:
            if error.code == "BAD_FILE_TYPE":
                raise
            raise _corrupt(str(error)) from error
        except DAMAGED_NPZ as error:
            raise _corrupt(str(error) or type(error).__name__) from error
        if len(names) != len(found):
            raise _corrupt(f"{len(names)} names for {len(found)} transforms")
        return found, names


def _other(what: str) -> InvalidInputError:
    return InvalidInputError(
        f"{what}; needs a file that write_transforms or a refinement wrote (transforms.npz).",
        code="BAD_FILE_TYPE",
    )


def _corrupt(why: str) -> InvalidInputError:
    return InvalidInputError(
        f"cannot be read as a bundle of transforms ({' '.join(why.split())}); the file is damaged: copy "
        "it again, or refine anew.",
        code="CORRUPT_FILE",
    )


def _arrays(content: bytes) -> dict[str, NDArray[Any]]:
    """Read every array, once its size is known to be what the archive says."""
    with zipfile.ZipFile(BytesIO(content)) as archive:
        members = archive.infolist()
        if {each.filename for each in members} != {f"{name}.npy" for name in _DIMENSIONS}:
            raise _other("an archive of other arrays")
        if any(each.compress_type != zipfile.ZIP_STORED for each in members):
            raise _other("an archive of compressed arrays")
        if sum(each.file_size for each in members) > len(content):
            raise ValueError("members larger than the file")
        held = {each.filename.removesuffix(".npy"): _array(archive.read(each)) for each in members}
    version = held["version"]
    if version.shape != () or version.dtype.kind not in "iu" or int(version) != _VERSION:
        raise _other(f"of version {version}, where {_VERSION} is read")
    return held


def _array(stored: bytes) -> NDArray[Any]:
    """Read one array of NumPy's format, which has to fill what is stored."""
    stream = BytesIO(stored)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"an array of format {version}")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    count = int(np.prod(shape, dtype=object))
    if dtype.hasobject or fortran or count * dtype.itemsize != len(stored) - stream.tell():
        raise ValueError(f"{shape} values of {dtype} in {len(stored)} bytes")
    return np.frombuffer(stored, dtype, count, stream.tell()).reshape(shape)


def _transforms(held: Mapping[str, NDArray[Any]]) -> Iterator[FFD | FFDChain]:
    _check(held)
    shapes = held["lattice_shapes"]
    matrices, values = held["lattices_to_world"], np.asarray(held["displacements_mm"], np.float64)
    ends = np.cumsum(shapes.prod(axis=1))
    parts = np.split(values, ends[:-1]) if len(ends) else []
    last = np.cumsum(held["n_links"])
    for affine, stop, count in zip(held["affines"], last, held["n_links"], strict=True):
        links = [
            _link(parts[n], shapes[n], matrices[n], affine if n == stop - 1 else np.eye(4))
            for n in range(stop - count, stop)
        ]
        yield links[0] if len(links) == 1 else FFDChain(tuple(links))


def _link(values: Float, shape: NDArray[Any], matrix: Float, affine: Float) -> FFD:
    na, nb, nc = (int(n) for n in shape)
    return FFD(Affine(affine), values.reshape(na, nb, nc, 3), matrix)


def _check(held: Mapping[str, NDArray[Any]]) -> None:
    """Refuse arrays that do not go together, before their numbers are used."""
    for name, dimensions in _DIMENSIONS.items():
        if held[name].ndim != dimensions:
            raise ValueError(f"{name} of shape {held[name].shape}")
    kinds = "".join(held[name].dtype.kind for name in _DIMENSIONS)
    if kinds != "iUfiiff":
        raise ValueError(f"arrays of kinds {kinds}")
    counts, shapes = held["n_links"], held["lattice_shapes"]
    if (counts < 1).any() or counts.sum(dtype=object) != len(shapes):
        raise ValueError(f"{len(shapes)} lattices for {counts.tolist()[:9]} links")
    if shapes.shape[1] != 3 or (shapes < 4).any() or (shapes > 10**6).any():
        raise ValueError("lattices of a wrong shape")
    if held["displacements_mm"].shape != (int(shapes.prod(axis=1).sum()), 3):
        raise ValueError(f"displacements of shape {held['displacements_mm'].shape}")
    for name, count in (("affines", len(counts)), ("lattices_to_world", len(shapes))):
        if held[name].shape != (count, 4, 4):
            raise ValueError(f"{name} of shape {held[name].shape}")
