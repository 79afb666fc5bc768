"""The floating-point environment that engines compute in, whatever the caller's is; libmvde has the same for itself.

A program may round upwards, flush denormal numbers or trap invalid operations. An engine that is opened so computes
other depth for as long as it lives: weights are folded then, and the threads of its library are started with it.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

_DEFAULT = ctypes.c_void_p(-1)
"""glibc's FE_DFL_ENV, on x86-64 and aarch64."""
_ENVIRONMENT_BYTES = 64
"""More than a fenv_t takes: 32 on x86-64, 8 on aarch64."""


def in_default_float_environment(call: F) -> F:
    """Decorator: compute in the default environment (to nearest, denormals, no traps), then restore the caller's.

    It belongs to a thread, and costs two microseconds. Without a C library that has it, nothing is changed.
    """
    if _LIBRARY is None:
        return call

    @functools.wraps(call)
    def computed(*arguments: Any, **options: Any) -> Any:
        callers = ctypes.create_string_buffer(_ENVIRONMENT_BYTES)
        _LIBRARY.fegetenv(callers)
        _LIBRARY.fesetenv(_DEFAULT)
        try:
            return call(*arguments, **options)
        finally:
            _LIBRARY.fesetenv(callers)

    return cast(F, computed)


def _library() -> Any:
    """The C library of this process with the interface of fenv.h, or ``None``."""
    try:
        library = ctypes.PyDLL("libm.so.6")  # the lock of the interpreter is kept: the calls take nanoseconds
        library.fegetenv, library.fesetenv  # noqa: B018 - raises where they are not there
    except (OSError, AttributeError):
        return None
    return library


_LIBRARY = _library()
