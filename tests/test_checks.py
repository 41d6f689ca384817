"""`zoo.checks`: what a parameter may be."""

import math

import numpy as np
import pytest

from zoo.checks import check_flags, check_integers, check_not_negative, check_positive, check_words


@pytest.mark.parametrize("value", [0, -3, 1.0, True, "4", None, np.float64(2), math.nan])
def test_integers_are_checked_by_name_rule_and_value(value):
    with pytest.raises(ValueError, match=r"^width must be an integer of at least 1, got ") as raised:
        check_integers(1, depth=3, width=value)
    assert str(raised.value).endswith(f"got {value!r}")


def test_integers_of_numpy_are_integers():
    check_integers(0, width=np.int64(0), depth=np.uint8(4), height=10**30)


@pytest.mark.parametrize("value", [0, -0.5, True, "1", None, math.nan, math.inf, 10**400])
def test_positive_numbers_are_finite_and_above_0(value):
    with pytest.raises(ValueError, match=r"^rate must be a finite number above 0, got "):
        check_positive(rate=value)
    check_positive(rate=1e-300, other=np.float32(2), third=10**300)


@pytest.mark.parametrize("value", [-1e-300, False, "1", None, math.nan, -math.inf])
def test_numbers_that_may_be_0_are_finite_too(value):
    with pytest.raises(ValueError, match=r"^rate must be a finite number of at least 0, got "):
        check_not_negative(rate=value)
    check_not_negative(rate=0, other=0.0)


@pytest.mark.parametrize("value", ["no", "true", 0, 1, None])
def test_flags_are_true_or_false(value):
    with pytest.raises(ValueError, match=rf"augment must be true or false, got {value!r}"):
        check_flags(augment=value)
    check_flags(augment=False)


def test_words_are_among_those_known():
    check_words(order=(2, (1, 2)), name=("a", {"a": 1}))
    with pytest.raises(ValueError, match="order must be one of 1, 2, got '2'"):
        check_words(order=("2", (1, 2)))
