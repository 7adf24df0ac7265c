"""Errors and warnings about a file that start with its name, without passing the name around."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from cardiacreg.errors import InvalidInputError, warn

_NAMES: ContextVar[tuple[str, ...]] = ContextVar("names", default=())


@contextmanager
def named_source(name: str) -> Iterator[None]:
    """Put `name` before every `InvalidInputError` and `warn_about_source` raised inside."""
    token = _NAMES.set((*_NAMES.get(), name))
    try:
        yield
    except InvalidInputError as error:
        raise InvalidInputError(f"{name}: {error}", code=error.code) from error
    finally:
        _NAMES.reset(token)


def warn_about_source(message: str) -> None:
    """Warn with `InputWarning`, naming the source that is being read."""
    warn(": ".join((*_NAMES.get(), message)), stacklevel=3)
