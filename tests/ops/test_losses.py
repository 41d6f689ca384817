"""The ranking loss against SciPy's Spearman correlation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from zoo.ops.losses import soft_spearman_loss


def row_correlations(distances, truth):
    """Spearman's rho of every row without its diagonal."""
    for query in range(len(truth)):
        others = [item for item in range(len(truth)) if item != query]
        yield spearmanr(distances[query][others], truth[query][others]).statistic


def matrices(seed, size, levels):
    rng = np.random.default_rng(seed)
    distances = rng.normal(size=(size, size))
    truth = rng.integers(0, levels, (2, size, size)).astype(float)
    truth[:, :, :2] += [[[0.5, 0.25]]]  # so that no row is constant
    return torch.tensor(distances), torch.tensor(truth)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), size=st.integers(4, 12), levels=st.integers(1, 5))
def test_a_low_temperature_gives_spearman(seed, size, levels):
    distances, truth = matrices(seed, size, levels)
    expected = np.mean([list(row_correlations(distances.numpy(), one)) for one in truth.numpy()])
    assert soft_spearman_loss(distances, truth, 1e-7).item() == pytest.approx(1 - expected, abs=1e-6)


def test_the_perfect_order_costs_nothing_and_its_reverse_two():
    distances, truth = matrices(0, 9, 4)
    for sign, expected in ((1, 0.0), (-1, 2.0)):
        wanted = sign * distances[None]
        assert soft_spearman_loss(distances, wanted, 1e-6).item() == pytest.approx(expected, abs=1e-6)
    assert soft_spearman_loss(distances, truth[0], 0.1) == soft_spearman_loss(distances, truth[:1], 0.1)


def test_the_loss_does_not_depend_on_scale_or_diagonal():
    distances, truth = matrices(1, 8, 4)
    loss = soft_spearman_loss(distances, truth, 0.3)
    changed = 7 * distances + 100 * torch.eye(8)
    assert soft_spearman_loss(changed, truth + 3 * torch.eye(8), 0.3).item() == pytest.approx(loss.item(), rel=1e-9)


def test_rows_of_constant_truth_count_for_nothing():
    distances, truth = matrices(2, 6, 4)
    truth = truth[:1].clone()
    truth[0, 3] = 1.0
    rest = [rho for row, rho in enumerate(row_correlations(distances.numpy(), truth[0].numpy())) if row != 3]
    assert soft_spearman_loss(distances, truth, 1e-7).item() == pytest.approx(1 - np.mean(rest), abs=1e-6)
    assert soft_spearman_loss(distances, torch.ones(1, 6, 6), 0.1).item() == 0


def test_descent_sorts_the_items():
    truth = torch.rand(10, 10, generator=torch.Generator().manual_seed(0))
    distances = torch.zeros(10, 10).normal_(generator=torch.Generator().manual_seed(1)).requires_grad_()
    optimizer = torch.optim.Adam([distances], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        soft_spearman_loss(distances, truth, 0.2).backward()
        optimizer.step()
    assert np.mean(list(row_correlations(distances.detach().numpy(), truth.numpy()))) > 0.97


def test_equal_distances_have_a_finite_gradient():
    distances = torch.zeros(5, 5, requires_grad=True)
    soft_spearman_loss(distances, torch.rand(5, 5), 0.1).backward()
    assert distances.grad.isfinite().all()


@pytest.mark.parametrize(
    ("distances", "truth", "temperature"),
    [((4, 5), (4, 5), 0.1), ((4, 4), (2, 5, 5), 0.1), ((2, 2), (2, 2), 0.1), ((4, 4), (4, 4), 0.0)],
)
def test_wrong_arguments_are_named(distances, truth, temperature):
    with pytest.raises(ValueError, match=r"distances|temperature"):
        soft_spearman_loss(torch.zeros(distances), torch.zeros(truth), temperature)
