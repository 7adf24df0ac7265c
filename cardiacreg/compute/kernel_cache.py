"""Compiled kernels on disk, each in a file that is named by all that its code depends on.

Numba's own disk cache knows the source of one file, and overwrites what is out of date. Here a digest in
the file's name covers code and source files of the kernel and of every kernel that it calls, directly or
through others; the constants that they use; types of arguments; versions, flags and the processor.
So an edit anywhere is noticed, a kernel with checked indices is never taken for one without, and equal
checkouts share their kernels. A file is complete or absent. Where none can be written, kernels work all
the same, and one warning says so.

It replaces Numba's ``FunctionCache`` in one dispatcher at a time; other packages notice nothing.
"""

from __future__ import annotations

import hashlib
import pickle
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.extending import is_jitted

from cardiacreg.compute.cache_files import CACHE_VARIABLE, kernel_folder, read_kernel, write_kernel
from cardiacreg.errors import CacheWarning

_FLAGS = ("BOUNDSCHECK", "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "USING_SVML")
_PLAIN = (bool, int, float, complex, str, bytes, type(None), np.generic)
_ELSEWHERE = f"set {CACHE_VARIABLE} to a folder that can be written"
_OTHER_NUMBA = "install another version of Numba"
_CLEAR = "remove what is stored: cardiacreg cache clear --kernels"
_troubles: list[str] = []


def attach(dispatcher: Any) -> None:
    """Let a Numba dispatcher keep its compiled code on disk, if this Numba can."""
    if not is_jitted(dispatcher):  # NUMBA_DISABLE_JIT
        return
    try:
        _internals()
        _ = dispatcher._cache.load_overload, dispatcher._cache.save_overload
    except (ImportError, AttributeError) as error:
        _give_up(f"Numba {numba.__version__} works in another way: {error}", _OTHER_NUMBA)
    else:
        dispatcher._cache = KernelCache(dispatcher)


def trouble() -> str | None:
    """Return why compiled kernels are not kept in this process; None as long as they are."""
    return _troubles[0] if _troubles else None


class KernelCache:
    """What a Numba dispatcher asks for compiled code, as it would ask Numba's ``FunctionCache``.

    Parameters
    ----------
    dispatcher : numba.core.dispatcher.Dispatcher
        The kernel. Its file is read now, when it has just been loaded.
    """

    def __init__(self, dispatcher: Any) -> None:
        self._dispatcher = dispatcher
        self.source = source_digest(dispatcher.py_func)

    @property
    def cache_path(self) -> str:
        """The folder."""
        return str(kernel_folder())

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """Return compiled code for some types, or None."""
        target_context.refresh()
        try:
            content = read_kernel(self._path(signature, target_context.codegen()))
            if content is not None:
                return _internals()[1](target_context, *pickle.loads(content))
        except Exception as error:  # whatever a changed Numba raises, compiling still works
            _give_up(f"a stored kernel does not load ({error!r})", _CLEAR)
        return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep compiled code for some types."""
        if _troubles or result.lifted or result.library.has_dynamic_globals:
            return
        try:
            path = self._path(signature, result.codegen)
            reduce, _, dumps = _internals()
            write_kernel(path, dumps(reduce(result)))
        except OSError as error:
            why = error.strerror or error
            _give_up(f"{kernel_folder()} cannot be written ({why})", _ELSEWHERE)
        except Exception as error:  # the kernel is compiled: no reason to stop
            _give_up(f"a kernel cannot be stored ({error!r})", _OTHER_NUMBA)

    def holds(self, signature: Any) -> bool:
        """Return whether compiled code for some types is stored."""
        context = self._dispatcher.targetctx
        context.refresh()
        return self._path(signature, context.codegen()).exists()

    def flush(self) -> None:
        """Do nothing: no file is ever out of date."""

    def _path(self, signature: Any, codegen: Any) -> Path:
        function = self._dispatcher.py_func
        parts = (_setting(), codegen.magic_tuple(), _types(signature), _sources(self._dispatcher))
        digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
        return kernel_folder() / f"{function.__module__}.{function.__name__}-{digest}.kernel"


def types_of(words: str) -> tuple[Any, ...]:
    """Return Numba's types of arguments, as in ``"int64 float64[3] uint8[1]!"``.

    Parameters
    ----------
    words : str
        Types; an array, contiguous, has its number of axes in brackets, and ``!`` where it is read-only.
    """
    found = []
    for word in words.split():
        name, _, axes = word.partition("[")
        kind = getattr(numba.types, name)
        if axes:
            kind = numba.types.Array(kind, int(axes[0]), "C", readonly=word.endswith("!"))
        found.append(kind)
    return tuple(found)


def words_of(signature: tuple[Any, ...]) -> str:
    """Return what `types_of` reads."""
    return " ".join(
        f"{each.dtype}[{each.ndim}]{'' if each.mutable else '!'}"
        if isinstance(each, numba.types.Array)
        else str(each)
        for each in signature
    )


def source_digest(function: FunctionType) -> str:
    """Return the SHA-256 of the file that defines a function; nothing if there is no file."""
    path = Path(function.__code__.co_filename)
    try:
        state = path.stat()
        return _file_digest(path, state.st_mtime_ns, state.st_size)
    except OSError:
        return ""


@cache
def _file_digest(path: Path, modified: int, size: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _code(code: CodeType) -> tuple[object, ...]:
    """What a function does, wherever its file is."""
    constants = [_constant(each) for each in code.co_consts]
    return code.co_code, code.co_names, code.co_varnames, constants


def _internals() -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., bytes]]:
    """What of Numba is used that it does not promise to keep: to reduce, rebuild and pickle code."""
    from numba.core.compiler import CompileResult
    from numba.core.serialize import dumps

    return CompileResult._reduce, CompileResult._rebuild, dumps


def _give_up(reason: str, advice: str) -> None:
    """Keep no more kernels in this process, and say so once."""
    _troubles.append(f"{reason}; {advice}")
    if len(_troubles) == 1:
        warnings.warn(
            f"kernel cache: {reason}. Every process compiles its kernels anew, which takes up to a "
            f"minute; {advice}.",
            CacheWarning,
            stacklevel=2,
        )


def _setting() -> tuple[object, ...]:
    """Versions and compiler settings."""
    versions = (sys.version, numba.__version__, llvmlite.__version__, np.__version__)
    return *versions, *(getattr(numba.config, name, None) for name in _FLAGS)


def _types(signature: Any) -> str:
    """Types of arguments; Numba's name of a named tuple lacks the names."""
    arguments = getattr(signature, "args", signature)
    return repr([(repr(each), getattr(each, "fields", None)) for each in arguments])


def _sources(kernel: Any) -> list[object]:
    """What a kernel and every kernel that it calls are made of, in the order in which they are met."""
    found: list[Any] = [kernel]
    described: list[object] = []
    for each in found:  # grows on the way
        used: list[tuple[str, object]] = []
        for name, value in _values(each.py_func).items():
            if is_jitted(value) and not any(value is known for known in found):
                found.append(value)
            used.append((name, found.index(value) if is_jitted(value) else _constant(value)))
        own = isinstance(each._cache, KernelCache)
        source = each._cache.source if own else source_digest(each.py_func)
        place = each.py_func.__module__, each.py_func.__qualname__
        code = _code(each.py_func.__code__)
        described.append((*place, code, source, sorted(each.targetoptions.items()), used))
    return described


def _values(function: FunctionType) -> dict[str, object]:
    """Values from outside that a function may use: globals, closed over, or in a module of these."""
    names = sorted(_names(function.__code__))
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    closed = dict(zip(function.__code__.co_freevars, cells, strict=True))
    found: dict[str, object] = {}
    for space in (function.__globals__, closed):
        found |= {name: space[name] for name in names if name in space}
    for holder, module in list(found.items()):
        held = vars(module) if isinstance(module, ModuleType) else {}
        found |= {f"{holder}.{name}": held[name] for name in names if name in held}
    return found


def _names(code: CodeType) -> set[str]:
    inner = [_names(each) for each in code.co_consts if isinstance(each, CodeType)]
    return {*code.co_names, *code.co_freevars}.union(*inner)


def _constant(value: object) -> object:
    """What tells a constant from another; functions and types are told by their names."""
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, tuple):
        return [_constant(each) for each in value]
    if isinstance(value, frozenset):
        return sorted(repr(each) for each in value)
    if isinstance(value, CodeType):
        return _code(value)
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, hashlib.sha256(value.tobytes()).hexdigest()
    return getattr(value, "__qualname__", type(value).__qualname__)
