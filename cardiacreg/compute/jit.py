"""The one kernel decorator.

Every flag has a reason: no-Python mode (the default of ``njit``) so that a kernel cannot fall back to
slow code; ``nogil`` so that a thread pool runs kernels side by side; the NumPy error model so that a
division by zero gives IEEE values instead of a branch; no wrapper for C callbacks, which nobody calls. No
fast-math and no ``parallel``: results are the same bits for any thread count. Compiled code is kept on
disk (`kernel_cache`), so that a process starts in a second instead of compiling. Kernels call kernels of
their own file or imported by name from others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numba

from cardiacreg.compute import kernel_cache

Function = TypeVar("Function", bound=Callable[..., object])


def kernel(function: Function) -> Function:
    """Compile a loop nest that takes arrays and scalars and writes into arrays given to it.

    Parameters
    ----------
    function : callable
        Plain Python loops over NumPy arrays; it returns nothing, validates nothing, raises nothing.

    Returns
    -------
    callable
        The compiled function, cached on disk, releasing the GIL while it runs.
    """
    compiled = numba.njit(nogil=True, error_model="numpy", no_cfunc_wrapper=True)(function)
    kernel_cache.attach(compiled)
    return compiled  # type: ignore[no-any-return]
