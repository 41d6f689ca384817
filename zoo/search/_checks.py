"""Checks of the arrays that indexes are given."""

from __future__ import annotations

import numpy as np


def all_finite(values: np.ndarray) -> bool:
    """Tells whether no value is NaN or infinite."""
    flat = values.ravel()
    # A product with itself is read at the speed of memory and needs no second array, but it may overflow.
    return bool(np.isfinite(np.dot(flat, flat)) or np.isfinite(flat).all())
