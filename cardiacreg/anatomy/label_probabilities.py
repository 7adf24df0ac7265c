"""How probable a network finds every label: read, translated, checked against its labels, told as doubt.

Any network's softmax will do. Its classes are the values of its segmentation, 0 for background, 1, 2 and
so on, and mean what the segmentation's values mean.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiacreg.anatomy.landmarks import base_is_at_last_slice
from cardiacreg.anatomy.preset_tables import preset_mapping
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LV_CAVITY, LV_WALL, N_LABELS, RV_CAVITY, RV_WALL, LabelMap
from cardiacreg.io.nifti import MAX_BYTES, read_vectors
from cardiacreg.io.regular_file import check_regular_file
from cardiacreg.io.source_name import named_source
from cardiacreg.slices import DOUBT_LEVELS

Probabilities = NDArray[np.float32]
"""Of every canonical label at every voxel, shape (N_LABELS, i, j, k)."""
_LEFT, _RIGHT = [LV_CAVITY, LV_WALL], [RV_WALL, RV_CAVITY]
_LEAST_AT_BASE = 0.9
"""Of the LV's usual mean probability; an RV with less in its outermost basal slice has ended before it.
Chosen on the development patients of `benchmarks.network`. The same rule for the LV was right on them and
wrong on others, which the study of networks says; doubt at the apex told nothing."""
_MOST_SLICES, _FEWEST_SLICES = 2, 3
_NPZ_NAMES = ("probabilities", "softmax")
_LARGEST_ERROR = 0.02
_LEAST_AGREEMENT = 0.5
_MOST_CLASSES = 256


def read_probabilities(
    source: Any, labels: LabelMap, preset: str | Mapping[int, int] | None = None
) -> Probabilities:
    """Read the probabilities that belong to a segmentation.

    Parameters
    ----------
    source : path or array_like, shape (n, i, j, k)
        The probability of each of n classes at the voxels of the segmentation. A ``.npz`` file is one of
        nnU-Net, whose arrays have their axes the other way round; a NIfTI file holds the classes along
        its fourth axis.
    labels : LabelMap
        The segmentation, canonical labels, on its stored lattice.
    preset : str or mapping, optional
        The meaning of its values, and so of the classes; canonical when absent.

    Returns
    -------
    ndarray of float32, shape (N_LABELS, i, j, k)
        Sums are 1.

    Raises
    ------
    InvalidInputError
        If the file is not there or unreadable, the shape does not fit the segmentation
        (PROBABILITIES_MISMATCH), numbers are no probabilities (BAD_PROBABILITIES), or most labels are not
        those that the probabilities favour (PROBABILITIES_DIFFER).

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg.anatomy.label_probabilities import read_probabilities
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> labels = make_toy_heart().labels
    >>> sure = np.stack([labels.array == n for n in range(5)]) * 0.8 + 0.04
    >>> read_probabilities(sure, labels).shape == (5, *labels.shape)
    True
    """
    classes = _read(source)
    if classes.ndim != 4 or classes.shape[1:] != labels.shape or len(classes) < 2:
        raise InvalidInputError(
            f"probabilities (probabilities= or --probabilities): shape {classes.shape}; needs (classes, "
            f"{', '.join(map(str, labels.shape))}): a class for the background and for each value, at "
            "the voxels of the segmentation.",
            code="PROBABILITIES_MISMATCH",
        )
    found = _canonical(_checked(classes), preset_mapping(preset))
    _check_agreement(found, labels)
    return found


def doubt_levels(labels: LabelMap, probabilities: Probabilities) -> NDArray[np.uint8]:
    """Return how doubtful every voxel's label is, from 0, certain, to ``DOUBT_LEVELS - 1``.

    A voxel counts by how much more probable its own label is than the next one: 1 where it is certain,
    hardly anything where another label is as probable.

    Parameters
    ----------
    labels : LabelMap
    probabilities : ndarray of float32, shape (N_LABELS, i, j, k)

    Returns
    -------
    ndarray of uint8, shape (i, j, k)
    """
    own = np.take_along_axis(probabilities, labels.array[None].astype(np.int64), axis=0)[0]
    others = np.where(
        np.arange(N_LABELS)[:, None, None, None] == labels.array[None], -1.0, probabilities
    )
    margin = np.clip(own - others.max(axis=0), 0.0, 1.0)
    levels = np.floor((1 - margin) * DOUBT_LEVELS + 0.5)
    return np.asarray(np.minimum(levels, DOUBT_LEVELS - 1), dtype=np.uint8)


class DoubtfulEnd(NamedTuple):
    """A basal slice of the RV that its probabilities do not bear out.

    Parameters
    ----------
    slice : int
    probability : float
        Mean over the voxels of the RV in this slice.
    needed : float
    """

    slice: int
    probability: float
    needed: float

    def __str__(self) -> str:
        return (
            f"the RV in slice {self.slice}, at its base (mean probability {self.probability:.2f}, needs "
            f"{self.needed:.2f})"
        )


def without_doubtful_ends(
    labels: LabelMap, probabilities: Probabilities
) -> tuple[LabelMap, tuple[DoubtfulEnd, ...]]:
    """Leave out the RV in basal slices where its probabilities say that it has ended.

    Networks draw the RV on beyond its base, and doubt it there: a large outline of middling
    probabilities, which no voxel by itself gives away.

    Parameters
    ----------
    labels : LabelMap
        Canonical labels, slices along k.
    probabilities : ndarray of float32, shape (N_LABELS, i, j, k)

    Returns
    -------
    labels : LabelMap
    left_out : tuple of DoubtfulEnd
        Empty where the base is sure. Three slices of the RV stay.
    """
    array, left_out = labels.array.copy(), []
    needed = _LEAST_AT_BASE * _usual_probability(array, probabilities)
    base_at_last = base_is_at_last_slice(labels)
    for _ in range(_MOST_SLICES):
        shown = np.isin(array, _RIGHT)
        held = np.flatnonzero(shown.any(axis=(0, 1)))
        if len(held) <= _FEWEST_SLICES:
            break
        k = int(held[-1] if base_at_last else held[0])
        mean = _mean_probability(shown, probabilities[_RIGHT], k)
        if mean >= needed:
            break
        array[:, :, k][shown[:, :, k]] = 0
        left_out.append(DoubtfulEnd(k, mean, needed))
    return LabelMap(array, labels.voxel_to_world), tuple(left_out)


def _mean_probability(shown: NDArray[np.bool_], of_structures: Probabilities, k: int) -> float:
    return float(of_structures[..., k].sum(axis=0)[shown[:, :, k]].mean())


def _usual_probability(array: NDArray[np.uint8], probabilities: Probabilities) -> float:
    """Median over slices of the LV's mean probability: how sure this network is of a heart."""
    shown = np.isin(array, _LEFT)
    held = np.flatnonzero(shown.any(axis=(0, 1)))
    means = [_mean_probability(shown, probabilities[_LEFT], int(k)) for k in held]
    return float(np.median(means)) if means else 1.0


def _read(source: Any) -> NDArray[Any]:
    if not isinstance(source, str | os.PathLike):
        try:
            return np.asarray(source, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise InvalidInputError(
                f"probabilities: got a {type(source).__name__} ({error}); needs a file or an array of "
                "shape (classes, i, j, k).",
                code="BAD_TYPE",
            ) from error
    path = Path(source)
    if path.suffix.lower() == ".npz":
        return _read_npz(path)
    with named_source(os.fspath(path)):
        values, _, _ = read_vectors(path, max_bytes=MAX_BYTES)
    if values.ndim == 5 and 1 in values.shape[3:]:
        values = values.reshape(*values.shape[:3], -1)
    if values.ndim != 4:
        raise _bad(f"{path}: an array of {values.ndim} axes; needs (i, j, k, classes)")
    return np.moveaxis(values, 3, 0)


def _read_npz(path: Path) -> NDArray[Any]:
    """Read an array of classes that nnU-Net saved, whose axes are (classes, k, j, i)."""
    with named_source(os.fspath(path)):
        check_regular_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(each.file_size for each in archive.infolist())
        if size > MAX_BYTES:
            raise _bad(f"{path}: {size} bytes, more than the {MAX_BYTES} that may be read")
        with np.load(path, allow_pickle=False) as held:
            name = next((n for n in _NPZ_NAMES if n in held), None)
            if name is None:
                raise _bad(
                    f"{path}: holds {', '.join(held) or 'nothing'}; needs an array named "
                    f"{' or '.join(_NPZ_NAMES)}, as nnU-Net saves it"
                )
            found = np.asarray(held[name])
    except InvalidInputError:
        raise
    except Exception as error:  # zipfile, zlib and numpy each have their own for damaged files
        raise _bad(f"{path}: not a readable .npz file ({error})") from error
    if found.ndim != 4 or found.dtype.kind not in "fiu":
        raise _bad(f"{path}: {name} has shape {found.shape}; needs numbers in (classes, k, j, i)")
    return found.transpose(0, 3, 2, 1)


def _checked(classes: NDArray[Any]) -> Probabilities:
    """Return classes whose sums are 1, as numbers of a softmax are but for rounding."""
    if len(classes) > _MOST_CLASSES:
        raise _bad(f"probabilities: {len(classes)} classes; needs at most {_MOST_CLASSES}")
    found = np.asarray(classes, dtype=np.float32)
    total = found.sum(axis=0)
    worst = float(np.abs(total - 1).max()) if np.isfinite(total).all() else np.inf
    if not (worst <= _LARGEST_ERROR and float(found.min()) >= -_LARGEST_ERROR):
        raise _bad(
            f"probabilities: from {found.min():.3g}, with sums up to {worst:.3g} from 1; needs "
            "probabilities of classes that exclude each other, as of a softmax"
        )
    found = np.maximum(found, 0)
    return np.asarray(found / found.sum(axis=0), dtype=np.float32)


def _canonical(classes: Probabilities, mapping: Mapping[int, int]) -> Probabilities:
    found = np.zeros((N_LABELS, *classes.shape[1:]), dtype=np.float32)
    for value, own in enumerate(classes):
        found[mapping.get(value, 0)] += own
    return found


def _check_agreement(probabilities: Probabilities, labels: LabelMap) -> None:
    """Raise if most labels are not the most probable ones: other axes, classes or files."""
    held = labels.array > 0
    favoured = probabilities[:, held].argmax(axis=0)
    share = float((favoured == labels.array[held]).mean()) if held.any() else 1.0
    if share < _LEAST_AGREEMENT:
        raise InvalidInputError(
            "probabilities (probabilities= or --probabilities): they favour the segmentation's own label "
            f"at {share:.0%} of its voxels; needs those of the same frame, with classes in the order of "
            "the values, background first, and the axes of the segmentation.",
            code="PROBABILITIES_DIFFER",
        )


def _bad(what: str) -> InvalidInputError:
    return InvalidInputError(f"{what}.", code="BAD_PROBABILITIES")
