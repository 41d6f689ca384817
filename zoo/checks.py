"""What a parameter may be; an error names the parameter, the rule and the value. Plugins may use it too.

Names are keywords, so one call checks several: `check_integers(1, width=width, layers=layers)`.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any


def is_integer(value: Any) -> bool:
    """Tells whether a value is a whole number; True and False aren't, nor is 2.0."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Tells whether a value is a number that a float can hold; True and False aren't, nor are NaN and infinity."""
    return isinstance(value, Real) and not isinstance(value, bool) and bool(abs(value) <= sys.float_info.max)


def check_integers(least: int, /, **values: Any) -> None:
    """Raises ValueError for a value that isn't an integer of at least `least`."""
    for name, value in values.items():
        if not is_integer(value) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")


def check_positive(**values: Any) -> None:
    """Raises ValueError for a value that isn't a finite number above 0."""
    for name, value in values.items():
        if not is_number(value) or value <= 0:
            raise ValueError(f"{name} must be a finite number above 0, got {value!r}")


def check_not_negative(**values: Any) -> None:
    """Raises ValueError for a value that isn't a finite number of at least 0."""
    for name, value in values.items():
        if not is_number(value) or value < 0:
            raise ValueError(f"{name} must be a finite number of at least 0, got {value!r}")


def check_flags(**values: Any) -> None:
    """Raises ValueError for a value that is neither True nor False; a word such as "no" would count as true."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false, got {value!r}")


def check_words(**chosen: tuple[Any, Collection[Any]]) -> None:
    """Raises ValueError where, of a name's value and the values known, the former isn't one of the latter."""
    for name, (value, known) in chosen.items():
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(str, known))}, got {value!r}")
