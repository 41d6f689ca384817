"""Losses over ranked lists: quantised average precision against scikit-learn and the equations, the contrastive one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from zoo.ops import quantized_ap_loss
from zoo.ops.losses import contrastive_list_loss


def by_the_equations(scores, relevance, bins):
    """Eqs. 2.27 to 2.34 with loops."""
    width = 2 / (bins - 1)
    seen = found = total = 0.0
    for number in range(bins):
        centre = 1 - number * width
        shares = [max(1 - abs(score - centre) / width, 0) for score in scores]
        own = sum(share * y for share, y in zip(shares, relevance, strict=True))
        found, seen = found + own, seen + sum(shares)
        total += found / seen * own / sum(relevance) if seen else 0
    return 1 - total


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(1, 12))
def test_the_loss_is_that_of_the_equations(seed, bins, items):
    rng = np.random.default_rng(seed)
    scores, relevance = rng.uniform(-1, 1, items), rng.integers(0, 2, items)
    relevance[rng.integers(items)] = 1
    loss = quantized_ap_loss(torch.tensor(scores)[None], torch.tensor(relevance)[None], bins)
    assert loss.item() == pytest.approx(by_the_equations(scores, relevance, bins), abs=1e-9)
    assert -1e-9 <= loss.item() <= 1


def test_of_scores_on_the_centres_it_is_the_average_precision():
    rng = np.random.default_rng(0)
    scores = rng.permuted(np.tile(np.linspace(-1, 1, 31)[1:], (8, 1)), axis=1)
    relevance = rng.integers(0, 2, scores.shape)
    wanted = 1 - np.mean([average_precision_score(y, x) for x, y in zip(scores, relevance, strict=True)])
    loss = quantized_ap_loss(torch.tensor(scores), torch.tensor(relevance), 31)
    assert loss.item() == pytest.approx(wanted, abs=1e-6)


def test_queries_without_relevant_items_are_left_out_and_give_no_gradient():
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.5]], requires_grad=True)
    relevance = torch.tensor([[1, 0], [0, 0]])
    loss = quantized_ap_loss(scores, relevance, 11)
    assert loss.item() == pytest.approx(quantized_ap_loss(scores[:1], relevance[:1], 11).item())
    loss.backward()
    assert not scores.grad[1].any()
    none = quantized_ap_loss(scores, torch.zeros(2, 2), 11)
    none.backward()
    assert none.item() == 0


def test_scores_beyond_the_range_count_in_the_end_bins():
    relevance = torch.tensor([[1, 0, 1]])
    inside, outside = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[7.0, 0.0, -3.0]])
    assert quantized_ap_loss(inside, relevance, 9) == quantized_ap_loss(outside, relevance, 9)


def test_ignored_items_count_for_nothing():
    scores = torch.tensor([[0.9, 0.5, 0.1, 0.99]])
    relevance = torch.tensor([[0, 1, 1, 0]])
    ignore = torch.tensor([[False, False, False, True]])
    assert quantized_ap_loss(scores, relevance, 30, ignore=ignore) == quantized_ap_loss(
        scores[:, :3], relevance[:, :3], 30
    )


def test_the_slope_puts_relevant_items_up():
    scores = torch.tensor([[0.3, 0.25, 0.2]], requires_grad=True)
    quantized_ap_loss(scores, torch.tensor([[0, 1, 0]]), 20).backward()
    assert scores.grad[0, 1] < 0


@pytest.mark.parametrize(("bins", "low"), [(1, -1.0), (5, 1.0)])
def test_bins_and_range_are_checked(bins, low):
    with pytest.raises(ValueError, match="bins must be at least 2 and low below high"):
        quantized_ap_loss(torch.zeros(1, 2), torch.zeros(1, 2), bins, low)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"scores and relevance must be \(Q, N\)"):
        quantized_ap_loss(torch.zeros(1, 2), torch.zeros(1, 3), 5)
    with pytest.raises(ValueError, match=r"scores and relevance must be \(Q, N\)"):
        contrastive_list_loss(torch.zeros(2), torch.zeros(2), 1.0)
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        contrastive_list_loss(torch.zeros(1, 2), torch.zeros(1, 2), 0)


def test_the_contrastive_loss_is_that_of_its_equation():
    scores = torch.tensor([[0.8, 0.1, -0.3], [0.5, 0.4, 0.3]])
    relevance = torch.tensor([[1, 0, 1], [0, 0, 0]])
    exp = [math.exp(score / 2) for score in (0.8, 0.1, -0.3)]
    wanted = -math.log((exp[0] + exp[2]) / sum(exp))
    assert contrastive_list_loss(scores, relevance, 2.0).item() == pytest.approx(wanted, abs=1e-6)
    own = math.exp(1 / 2)
    wanted = -math.log((own + exp[0] + exp[2]) / (own + sum(exp)))
    assert contrastive_list_loss(scores, relevance, 2.0, itself=True).item() == pytest.approx(wanted, abs=1e-6)
    ignore = torch.tensor([[False, True, False], [False] * 3])
    assert contrastive_list_loss(scores, relevance, 2.0, ignore).item() == pytest.approx(0, abs=1e-6)
    assert contrastive_list_loss(scores, torch.zeros(2, 3), 2.0).item() == 0
