"""The shuffle gap against scikit-learn's average precision of two galleries, and what must hold of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_references import average_precision, batched, by_query, rankings, trapezoid
from sklearn.metrics import average_precision_score

from zoo.metrics.functional import shuffle_gap

REFERENCES = {"finite": average_precision, "trapezoid": trapezoid}


def split(relevant):
    """Draws which of the irrelevant items are distractors."""
    generator = torch.Generator().manual_seed(int(relevant.sum()))
    return (torch.rand(relevant.shape, generator=generator) < 0.5) & ~relevant


def test_two_galleries_by_scikit_learn():
    rng = np.random.default_rng(0)
    scores, kinds = rng.normal(size=(20, 60)), rng.integers(0, 4, (20, 60))
    relevant, distractors, junk = kinds == 1, kinds == 2, rng.random((20, 60)) < 0.1
    wanted = []
    for row in range(20):
        shuffled = ~junk[row]
        clean = shuffled & ~distractors[row]
        parts = [average_precision_score(relevant[row, kept], scores[row, kept]) for kept in (clean, shuffled)]
        wanted.append(parts[0] - parts[1])
    found = shuffle_gap(*map(torch.from_numpy, (scores, relevant, distractors, junk)))
    assert found.dtype == torch.float64
    assert found.numpy() == pytest.approx(wanted)
    assert min(wanted) > 0


@pytest.mark.parametrize("convention", REFERENCES)
@given(rankings())
@settings(max_examples=60)
def test_definition_with_ties_and_junk(convention, drawn):
    scores, relevant, ignore = drawn
    distractors = split(relevant)
    reference = REFERENCES[convention]
    clean, shuffled = (by_query(reference, scores, relevant, out) for out in (ignore | distractors, ignore))
    found = shuffle_gap(scores, relevant, distractors, ignore, convention=convention)
    assert found.numpy() == pytest.approx(clean - shuffled, nan_ok=True)
    defined = ~found.isnan()
    assert (found[defined] >= -1e-12).all()
    assert (found[defined] < 1).all()
    with batched():
        again = shuffle_gap(scores, relevant, distractors, ignore, convention=convention)
    assert torch.allclose(again, found, equal_nan=True)


@given(rankings(), st.integers(1, 30))
@settings(max_examples=40)
def test_cut_off_rankings(drawn, k):
    scores, relevant, ignore = drawn
    distractors = split(relevant)
    clean, shuffled = (
        by_query(average_precision, scores, relevant, out, k=k) for out in (ignore | distractors, ignore)
    )
    found = shuffle_gap(scores, relevant, distractors, ignore, k=k)
    assert found.numpy() == pytest.approx(clean - shuffled, nan_ok=True)
    assert not (found < -1e-12).any()


@pytest.mark.parametrize("convention", REFERENCES)
@given(rankings())
@settings(max_examples=40)
def test_nothing_is_lost_without_distractors_or_to_those_below(convention, drawn):
    scores, relevant, ignore = drawn
    none = torch.zeros_like(relevant)
    found = shuffle_gap(scores, relevant, none, ignore, convention=convention)
    assert set(found[~found.isnan()].tolist()) <= {0.0}
    assert torch.equal(found.isnan(), ~(relevant & ~ignore).any(dim=1))
    ranks = scores.double().nan_to_num(posinf=1e300, neginf=-1e300).argsort(dim=1).argsort(dim=1)
    distractors = split(relevant)
    below = ranks.masked_fill(distractors, -1)
    found = shuffle_gap(below, relevant, distractors, ignore, convention=convention)
    assert set(found[~found.isnan()].tolist()) <= {0.0}


@given(st.integers(0, 10**6))
@settings(max_examples=30)
def test_the_order_of_the_gallery_does_not_matter_without_ties(seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(3, 20, generator=generator, dtype=torch.float64)
    relevant = torch.rand(3, 20, generator=generator) < 0.3
    arguments = scores, relevant, split(relevant), torch.rand(3, 20, generator=generator) < 0.2
    moved = torch.randperm(20, generator=generator)
    for convention in REFERENCES:
        plain, permuted = (
            shuffle_gap(*given, convention=convention) for given in (arguments, [each[:, moved] for each in arguments])
        )
        assert torch.allclose(plain, permuted, equal_nan=True)


def test_of_equal_scores_the_lower_column_comes_first():
    scores, relevant = torch.ones(1, 2), torch.tensor([[False, True]])
    assert shuffle_gap(scores, relevant, ~relevant).tolist() == [0.5]
    assert shuffle_gap(scores, relevant.flip(1), ~relevant.flip(1)).tolist() == [0.0]
    assert shuffle_gap(scores, relevant, ~relevant, convention="trapezoid").tolist() == [0.75]


def test_a_partial_ranking_counts_what_it_does_not_list():
    scores, relevant = torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[False, True, False]])
    distractors = torch.tensor([[True, False, False]])
    assert shuffle_gap(scores, relevant, distractors, n_relevant=torch.tensor([4])).tolist() == [(1 - 1 / 2) / 4]


def test_misfits_are_named():
    scores, relevant = torch.rand(2, 3), torch.tensor([[True, False, False]] * 2)
    with pytest.raises(ValueError, match="distractors must not be relevant, got 1 that are in query 0"):
        shuffle_gap(scores, relevant, relevant)
    assert shuffle_gap(scores, relevant, relevant, ignore=relevant).isnan().all()
    with pytest.raises(TypeError, match="distractors must be bool"):
        shuffle_gap(scores, relevant, relevant.float())
    with pytest.raises(ValueError, match="distractors must have the shape of scores"):
        shuffle_gap(scores, relevant, relevant[:1])
    with pytest.raises(ValueError, match="k must be None with convention='trapezoid'"):
        shuffle_gap(scores, relevant, ~relevant, k=2, convention="trapezoid")
