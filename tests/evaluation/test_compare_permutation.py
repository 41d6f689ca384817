"""The paired permutation test against SciPy's."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test

from zoo.evaluation.permutation import paired_permutation_test

EIGHTHS = st.lists(st.integers(-8, 8), min_size=2, max_size=13)  # exact in binary, so that ties are ties


def by_scipy(x, y, resamples=9_999):
    def difference(a, b, axis):
        return np.mean(a - b, axis=axis)

    options = {"permutation_type": "samples", "vectorized": True, "n_resamples": resamples, "rng": 1}
    return permutation_test((x, y), difference, **options).pvalue


@settings(max_examples=40)
@given(EIGHTHS)
def test_few_queries_give_scipys_exact_p(eighths):
    differences = np.array(eighths) / 8
    exact = by_scipy(differences, np.zeros(len(eighths)))
    assert paired_permutation_test(differences[:, None])[0] == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.12])
def test_many_queries_give_scipys_p_up_to_chance(shift):
    generator = np.random.default_rng(3)
    x, y = generator.random(80) + shift, generator.random(80)
    p = paired_permutation_test((x - y)[:, None])[0]
    expected = by_scipy(x, y)
    assert abs(p - expected) <= 4 * np.sqrt(2 * expected * (1 - expected) / 9_999) + 2e-4


def test_p_is_right_under_the_null_hypothesis():
    generator = np.random.default_rng(4)
    p = paired_permutation_test(generator.standard_normal((60, 400)))
    assert 0.02 <= np.mean(p <= 0.05) <= 0.09  # 0.05 ± 3.5 standard deviations
    assert 0.4 <= p.mean() <= 0.6


def test_queries_without_a_difference_change_nothing_and_make_it_exact():
    differences = np.zeros((500, 1))
    differences[[3, 77, 400], 0] = 0.5, 1.0, 0.25
    assert paired_permutation_test(differences)[0] == 2 / 8
    assert paired_permutation_test(differences[[3, 77, 400]])[0] == 2 / 8


def test_all_equal_is_one_and_nothing_to_compare_is_undefined():
    p = paired_permutation_test(np.stack([np.zeros(30), np.full(30, np.nan)], axis=1))
    assert p[0] == 1
    assert np.isnan(p[1])


def test_undefined_pairs_are_as_if_they_were_not_there():
    generator = np.random.default_rng(5)
    differences = generator.integers(-4, 5, (12, 1)) / 4
    holes = np.insert(differences, [0, 5, 12], np.nan, axis=0)
    assert paired_permutation_test(holes) == paired_permutation_test(differences)


def test_sign_scale_and_neighbouring_columns_do_not_matter():
    generator = np.random.default_rng(6)
    differences = generator.standard_normal((200, 3)) + 0.1
    p = paired_permutation_test(differences)
    assert (paired_permutation_test(-8 * differences) == p).all()
    alone = [paired_permutation_test(differences[:, [column]])[0] for column in range(3)]
    assert p == pytest.approx(alone)
    assert (paired_permutation_test(differences) == p).all()


def test_a_clear_difference_reaches_the_smallest_p():
    assert paired_permutation_test(np.full((100, 1), 0.3))[0] == 1 / 10_000
    assert paired_permutation_test(np.full((5, 1), 0.3))[0] == 2 / 32


def test_eleven_thousand_queries_take_a_second_and_some_megabytes():
    differences = np.random.default_rng(7).standard_normal((11_000, 12)) + 0.02
    tracemalloc.start()
    start = time.process_time()
    p = paired_permutation_test(differences)
    seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert p.shape == (12,)
    assert seconds < 15  # measured: 1
    assert peak < 100e6
