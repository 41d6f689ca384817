"""Checks of the numbers that indexes and re-rankers are built with."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np


def check_counts(**values: Any) -> None:
    """Raises ValueError, naming it, for a value that isn't an integer of at least 1."""
    for name, value in values.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")


def check_positive(**values: Any) -> None:
    """Raises ValueError, naming it, for a value that isn't a number above 0."""
    for name, value in values.items():
        if not isinstance(value, Real) or not value > 0:
            raise ValueError(f"{name} must be above 0, got {value!r}")


def all_finite(values: np.ndarray) -> bool:
    """Tells whether no value is NaN or infinite."""
    flat = values.ravel()
    # A product with itself is read at the speed of memory and needs no second array, but it may overflow.
    return bool(np.isfinite(np.dot(flat, flat)) or np.isfinite(flat).all())
