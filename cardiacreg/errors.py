"""Errors and warnings; every message says where, what was found, what is needed, what to try."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields
from functools import lru_cache
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, cast, get_args, get_origin, get_type_hints


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


def check_option_kinds(options: Any) -> None:
    """Refuse options whose values are of another kind than their annotations say.

    Parameters
    ----------
    options : dataclass
        Lists pass for tuples, whole numbers for real ones.

    Raises
    ------
    InvalidInputError
        BAD_OPTION.
    """
    name, hints = type(options).__name__, _hints(type(options))  # type: ignore[arg-type]
    for each in fields(options):
        value = getattr(options, each.name)
        if not _is_of_kind(value, hints[each.name]):
            kind = str(each.type).replace("typing.", "")
            raise InvalidInputError(
                f"{name}: {each.name} is {value!r}, a {type(value).__name__}; needs {kind}.",
                code="BAD_OPTION",
            )


def check_arguments(values: object, kind: type | tuple[type, ...], where: str) -> None:
    """Refuse what is no sequence of values of a kind, as `check_argument` does."""
    check_argument(values, Sequence, where)
    for each in cast("Sequence[object]", values):
        check_argument(each, kind, f"{where}: one of them")


@lru_cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def check_argument(value: object, kind: type | tuple[type, ...], where: str) -> None:
    """Refuse an argument of a call that is of another kind than it needs.

    Parameters
    ----------
    value : object
    kind : type or tuple of types
    where : str
        What the message begins with: the call and its argument.

    Raises
    ------
    InvalidInputError
        BAD_TYPE.
    """
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        names = " or ".join(each.__name__.replace("NoneType", "None") for each in kinds)
        raise InvalidInputError(
            f"{where} is a {type(value).__name__}; needs {names}.", code="BAD_TYPE"
        )


def _is_of_kind(value: Any, kind: Any) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin in (Union, UnionType):
        return any(_is_of_kind(value, each) for each in inner)
    if origin is Literal:
        return isinstance(value, tuple(map(type, inner)))
    if origin is tuple:
        if not isinstance(value, tuple | list):
            return False
        if inner and inner[-1] is Ellipsis:
            return all(_is_of_kind(each, inner[0]) for each in value)
        return len(value) == len(inner) and all(map(_is_of_kind, value, inner))
    if kind in (int, float):
        number = Integral if kind is int else Real
        return isinstance(value, number) and not isinstance(value, bool)
    return isinstance(value, kind) or (kind is bool and type(value).__name__ == "bool")


class InputWarning(UserWarning):
    """An input that was accepted after a repair or with a reservation, which the text names."""


class ResultWarning(InputWarning):
    """A result that should be looked at before it is used; the text begins with a code in brackets."""


class CacheWarning(UserWarning):
    """A cache that cannot be used: results are the same, only slower; the text says what to change."""


def merged(texts: Iterable[str]) -> list[str]:
    """Return warnings with one line for what is said of several files, which are named without folders.

    Examples
    --------
    >>> from cardiacreg.errors import merged
    >>> merged(["of/a.nii: no sform.", "of/b.nii: no sform.", "of/c.nii: empty."])
    ['a.nii, b.nii: no sform.', 'of/c.nii: empty.']
    """
    said: dict[str, list[str]] = {}
    for text in dict.fromkeys(texts):
        place, colon, rest = text.partition(": ")
        is_file = bool(colon) and "." in Path(place).name and " " not in Path(place).name
        said.setdefault(rest if is_file else text, []).append(place if is_file else "")
    return [
        text if not places[0] else f"{places[0] if len(places) == 1 else _names(places)}: {text}"
        for text, places in said.items()
    ]


def _names(places: Sequence[str]) -> str:
    return ", ".join(Path(place).name for place in places)


class Note(NamedTuple):
    """A warning that is kept until somebody asks for it."""

    message: str
    category: type[Warning]


_NOTES: ContextVar[list[Note] | None] = ContextVar("notes", default=None)
"""Where warnings of this thread of work are kept; they are shown at once where that is None."""


def warn(message: str, category: type[Warning] = InputWarning, *, stacklevel: int = 2) -> None:
    """Warn, or keep the warning where `kept_warnings` is at work.

    Parameters
    ----------
    message : str
    category : type of Warning
    stacklevel : int
        Whose line is shown: 1 is the caller of this function, 2 is that one's caller.
    """
    notes = _NOTES.get()
    if notes is None:
        warnings.warn(message, category, stacklevel=stacklevel + 1)
    else:
        notes.append(Note(message, category))


@contextmanager
def kept_warnings() -> Iterator[list[Note]]:
    """Keep what `warn` is told inside, in order, without a word to anybody else.

    The list belongs to this call alone, however many threads are at work: unlike
    `warnings.catch_warnings`, nothing of the process is changed. `compute.threads.run_tasks` carries it
    into its workers.
    """
    notes: list[Note] = []
    token = _NOTES.set(notes)
    try:
        yield notes
    finally:
        _NOTES.reset(token)


def pass_on(notes: Iterable[Note], *, stacklevel: int = 2) -> None:
    """Tell kept warnings, as `warn` does."""
    for note in notes:
        warn(*note, stacklevel=stacklevel + 1)
