"""Compilation of CPU kernels; numba is slow to load, so only modules of kernels, lazily imported, import this."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


def compiled(function: Callable, fastmath: Collection[str] = ()) -> Callable:
    """Compiles a kernel without the GIL, and keeps the result on disk where some directory can be written.

    `fastmath` names the liberties that numba may take with floating-point numbers.
    """
    options = {"nogil": True, "fastmath": set(fastmath)}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # a read-only install without a writable home: numba finds no place for its cache
        return numba.njit(**options)(function)
