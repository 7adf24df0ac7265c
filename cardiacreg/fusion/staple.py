"""Simultaneous truth and performance level estimation (STAPLE) of warped label maps, by SimpleITK.

Expectation and maximisation (Warfield et al., IEEE TMI 23(7), 2004; several labels: Rohlfing et al., IPMI
2003) alternate between the probability of every label at every voxel and how each atlas confuses labels.
SimpleITK estimates the confusion; the probabilities ``p(k | l_1 .. l_n) ~ p(k) prod_n p(l_n | k)`` that
follow from it are evaluated here, because SimpleITK returns labels alone. It needs no images. Labels are
numbered without gaps before, because what SimpleITK makes of gaps depends on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cardiacreg.errors import InvalidInputError

_UNDECIDED = 255
_MOST_ITERATIONS = 1000


def staple_shares(
    codes: Sequence[NDArray[np.uint8]], disputed: NDArray[np.bool_], n_labels: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the probability of every label at disputed voxels, and how many atlases hold it there.

    Parameters
    ----------
    codes : sequence of ndarray of uint8, shape (i, j, k)
        Labels of each atlas as positions in the list of labels, over the region that the estimate is of.
        Their order does not change a bit of the result.
    disputed : ndarray of bool, shape (i, j, k)
    n_labels : int
        At most 255.

    Returns
    -------
    shares : ndarray of float64, shape (m, n_labels)
        Of the m disputed voxels, summing to one; where the estimate rules out every label, the shares of
        the atlases.
    counts : ndarray of int64, shape (m, n_labels)

    Raises
    ------
    InvalidInputError
        If SimpleITK is not installed.
    """
    ordered = sorted(codes, key=lambda array: array.tobytes())
    confusions = _confusions(ordered, n_labels)
    counts = np.zeros((int(disputed.sum()), n_labels), dtype=np.int64)
    held = np.bincount(np.concatenate([array.ravel() for array in ordered]), minlength=n_labels)
    chances = np.tile(_logarithm(held / held.sum()), (len(counts), 1))
    for array, confusion in zip(ordered, confusions, strict=True):
        own = array[disputed]
        counts[np.arange(len(own)), own] += 1
        chances += _logarithm(confusion)[own]
    most = chances.max(axis=1, keepdims=True)
    possible = np.isfinite(most)
    shares = np.where(possible, np.exp(chances - np.where(possible, most, 0.0)), counts)
    return shares / shares.sum(axis=1, keepdims=True), counts


def _confusions(codes: Sequence[NDArray[np.uint8]], n_labels: int) -> list[NDArray[np.float64]]:
    """How often each atlas shows label a where the truth is b: arrays (a, b)."""
    itk = _simple_itk()
    estimate = itk.MultiLabelSTAPLEImageFilter()
    estimate.SetNumberOfThreads(1)
    estimate.SetLabelForUndecidedPixels(_UNDECIDED)
    estimate.SetMaximumNumberOfIterations(_MOST_ITERATIONS)
    estimate.Execute([itk.GetImageFromArray(np.ascontiguousarray(array)) for array in codes])
    n_seen = 1 + max(int(array.max()) for array in codes)
    found = []
    for number in range(len(codes)):
        table = np.zeros((n_labels, n_labels))
        flat = np.asarray(estimate.GetConfusionMatrix(number), dtype=np.float64)
        table[:n_seen, :n_seen] = flat.reshape(n_seen + 1, n_seen)[:n_seen]
        found.append(table)
    return found


def _logarithm(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    possible = probability > 0
    return np.where(possible, np.log(np.where(possible, probability, 1.0)), -np.inf)


def _simple_itk() -> Any:
    try:
        return import_module("SimpleITK")
    except ImportError as error:
        raise InvalidInputError(
            'fuse_labels: mode "staple" needs SimpleITK, which is not installed; install it '
            "(pip install 'cardiacreg[staple]') or take another mode.",
            code="NO_SIMPLEITK",
        ) from error
