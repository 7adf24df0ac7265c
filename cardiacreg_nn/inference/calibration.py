"""Probabilities that mean what they say: a network's, made as frequent as they are right.

Averages over views are already less sure than a single look. What is left is corrected by a
temperature and one bias per class, fitted on patients that the network did not see and kept in the card
of its weights (A. Alexandari, A. Kundaje, A. Shrikumar, ICML 2020): ``p_l ~ p_l^(1 / T) exp(b_l)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiacreg.errors import InvalidInputError

_LEAST = 1e-6


def calibrated(probabilities: NDArray[np.float32], card: Mapping[str, Any]) -> NDArray[np.float32]:
    """Return calibrated probabilities, as the card of the weights says.

    Parameters
    ----------
    probabilities : ndarray of float32, shape (classes, ...)
        Sums are 1.
    card : mapping
        ``card["calibration"]`` holds ``temperature`` and ``bias``, one per class; nothing is changed
        without it.

    Returns
    -------
    ndarray of float32, shape (classes, ...)

    Raises
    ------
    InvalidInputError
        If the card's calibration is no temperature above 0 and one number per class (BAD_CARD).

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg_nn.inference.calibration import calibrated
    >>> sure = np.array([0.9, 0.1], dtype=np.float32)
    >>> calibrated(sure, {"calibration": {"temperature": 2.0, "bias": [0.0, 0.0]}}).round(2)
    array([0.75, 0.25], dtype=float32)
    """
    said = card.get("calibration")
    if said is None:
        return probabilities
    temperature, bias = _read(said, len(probabilities))
    flat = np.maximum(probabilities.reshape(len(probabilities), -1), _LEAST)
    logits = np.log(flat) / np.float32(temperature) + bias[:, None]
    found = np.exp(logits - logits.max(axis=0))
    return np.asarray(found / found.sum(axis=0), dtype=np.float32).reshape(probabilities.shape)


def _read(said: Any, n_classes: int) -> tuple[float, NDArray[np.float32]]:
    try:
        temperature, bias = float(said["temperature"]), np.asarray(said["bias"], np.float32)
    except (KeyError, TypeError, ValueError) as error:
        raise _bad(said, n_classes) from error
    if not 0 < temperature < np.inf or bias.shape != (n_classes,) or not np.isfinite(bias).all():
        raise _bad(said, n_classes)
    return temperature, bias


def _bad(said: Any, n_classes: int) -> InvalidInputError:
    return InvalidInputError(
        f"weights: the card's calibration is {said!r}; needs a temperature above 0 and a bias of "
        f"{n_classes} numbers.",
        code="BAD_CARD",
    )


def calibration_error(probabilities: ArrayLike, right: ArrayLike, *, bins: int = 15) -> float:
    """Return the expected calibration error: how far probabilities are from how often they are right.

    Parameters
    ----------
    probabilities : array_like, shape (n,)
        Of what was predicted.
    right : array_like of bool, shape (n,)
        Whether it was right.
    bins : int
        Of equal width, over which differences are averaged, weighed by their share of all.

    Examples
    --------
    >>> from cardiacreg_nn.inference.calibration import calibration_error
    >>> round(calibration_error([0.9, 0.9, 0.9, 0.9], [True, True, True, False]), 2)
    0.15
    """
    said, was = np.asarray(probabilities, dtype=np.float64), np.asarray(right, dtype=bool)
    place = np.minimum((said * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    off = np.bincount(place, said, minlength=bins) - np.bincount(place, was, minlength=bins)
    return float(np.abs(off).sum() / max(count.sum(), 1))
