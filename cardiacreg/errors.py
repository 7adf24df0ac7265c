"""Errors and warnings; every message says where, what was found, what is needed, what to try."""

from __future__ import annotations

import warnings


class InvalidInputError(ValueError):
    """An input that cannot give a right answer: wrong shape, dtype, frame, label set or file.

    Parameters
    ----------
    message : str
        Where, what was found, what is needed and what to try.
    code : str
        Stable upper-case identifier of the problem, for programs (``"EMPTY_LABELS"``, ...).
    """

    def __init__(self, message: str, *, code: str = "INVALID_INPUT") -> None:
        super().__init__(message)
        self.code = code


class RefinementError(RuntimeError):
    """A refinement that could not be finished although its inputs were valid (no usable atlas).

    Parameters
    ----------
    message : str
        What failed and what to try.
    code : str
        Stable upper-case identifier of the problem, for programs (``"NO_USABLE_ATLAS"``, ...).
    """

    def __init__(self, message: str, *, code: str = "REFINEMENT_FAILED") -> None:
        super().__init__(message)
        self.code = code


class InputWarning(UserWarning):
    """An input that was accepted after a repair or with a reservation, which the text names."""


class ResultWarning(InputWarning):
    """A result that should be looked at before it is used; the text begins with a code in brackets."""


class CacheWarning(UserWarning):
    """A cache that cannot be used: results are the same, only slower; the text says what to change."""


def warn(message: str) -> None:
    """Warn about an input, as seen from the caller of the function that calls this one."""
    warnings.warn(message, InputWarning, stacklevel=3)
