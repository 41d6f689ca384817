"""Second-order pooling against SciPy's matrix logarithm region by region, and its invariants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import logm

from zoo.ops.second_order import second_order_pool

SEEDS = st.integers(0, 50)


def example(seed, batch=2, channels=5, regions=3, height=4, width=6):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, channels, height, width, generator=generator, dtype=torch.float64).relu()
    masks = torch.rand(batch, regions, height, width, generator=generator) < 0.7
    masks[:, 0] = True
    return x, masks, torch.rand(batch, height, width, generator=generator, dtype=torch.float64)


def average(x, mask, weights):
    """Transcribes the average of Eq. 5, cell by cell, for one region of one image."""
    total, matrix = 0.0, np.zeros((len(x), len(x)))
    for row, column in np.argwhere(mask):
        local = x[:, row, column]
        total += weights[row, column]
        matrix += weights[row, column] * np.outer(local, local)
    return matrix / total


def expected(x, masks, weights, eps):
    rows = np.triu_indices(x.shape[1])
    found = []
    for image in range(len(x)):
        for mask in masks[image].numpy():
            matrix = average(x[image].numpy(), mask, weights[image].numpy())
            ridge = eps * np.trace(matrix) / len(matrix)
            found.append(logm(matrix + ridge * np.eye(len(matrix)))[rows])
    return np.stack(found).reshape(*masks.shape[:2], -1)


@settings(max_examples=20)
@given(SEEDS, st.integers(1, 7), st.sampled_from([1e-4, 1e-2, 1.0]))
def test_equals_scipys_logarithm_of_each_region(seed, channels, eps):
    x, masks, weights = example(seed, channels=channels)
    got = second_order_pool(x, masks, weights, eps)
    assert got.shape == (2, 3, channels * (channels + 1) // 2)
    np.testing.assert_allclose(got.numpy(), expected(x, masks, weights, eps), atol=1e-8)


def test_equals_scipys_logarithm_at_the_papers_size():
    x, masks, weights = example(0, batch=1, channels=128, regions=2, height=12, width=16)
    got = second_order_pool(x.float(), masks, weights.float(), 1e-3)
    assert got.dtype == torch.float64
    reference = expected(x.float().double(), masks, weights.float().double(), 1e-3)
    np.testing.assert_allclose(got.numpy(), reference, atol=1e-8)


@settings(max_examples=20)
@given(SEEDS, st.floats(1e-2, 1e2))
def test_the_size_of_the_weights_changes_nothing(seed, factor):
    x, masks, weights = example(seed)
    torch.testing.assert_close(
        second_order_pool(x, masks, factor * weights, 1e-2), second_order_pool(x, masks, weights, 1e-2)
    )


@settings(max_examples=20)
@given(SEEDS, st.floats(1e-2, 1e2))
def test_larger_activations_only_shift_the_diagonal(seed, factor):
    x, masks, weights = example(seed)
    shift = (second_order_pool(factor * x, masks, weights, 1e-2) - second_order_pool(x, masks, weights, 1e-2)).numpy()
    rows, columns = np.triu_indices(x.shape[1])
    np.testing.assert_allclose(
        shift, np.broadcast_to(np.where(rows == columns, 2 * np.log(factor), 0), shift.shape), atol=1e-8
    )


@settings(max_examples=20)
@given(SEEDS, SEEDS)
def test_the_order_of_cells_changes_nothing(seed, other):
    x, masks, weights = example(seed)
    order = torch.randperm(x.shape[2] * x.shape[3], generator=torch.Generator().manual_seed(other))
    moved = [part.flatten(-2)[..., order].view_as(part) for part in (x, masks, weights)]
    torch.testing.assert_close(second_order_pool(*moved, 1e-2), second_order_pool(x, masks, weights, 1e-2))


def test_isometric_vectors_keep_the_products_of_matrices():
    x, masks, weights = example(1, batch=1, regions=2)
    a, b = second_order_pool(x, masks, weights, 1e-2, isometric=True)[0]
    first, second = (
        logm(m + 1e-2 * np.trace(m) / 5 * np.eye(5))
        for m in (average(x[0].numpy(), mask, weights[0].numpy()) for mask in masks[0].numpy())
    )
    assert (a @ b).item() == pytest.approx((first * second).sum())


def test_weights_of_zero_count_cells_alike():
    x, masks, weights = example(2)
    got = second_order_pool(x, masks, torch.zeros_like(weights), 1e-2)
    torch.testing.assert_close(got, second_order_pool(x, masks, torch.ones_like(weights), 1e-2))


@pytest.mark.parametrize("cells", [0, 1, 2])
def test_few_cells_and_blank_images_stay_finite(cells):
    x, masks, weights = example(3, channels=16)
    masks = torch.zeros_like(masks)
    masks.flatten(2)[..., :cells] = True
    assert second_order_pool(x, masks, weights, 1e-4).isfinite().all()
    assert second_order_pool(torch.zeros_like(x), masks, torch.zeros_like(weights), 1e-4).isfinite().all()


def test_gradients_are_those_of_finite_differences():
    x, masks, weights = example(4, batch=1, channels=3, regions=1, height=3, width=4)
    x, weights = (x + 0.1).requires_grad_(), weights.requires_grad_()
    torch.autograd.gradcheck(lambda a, b: second_order_pool(a, masks, b, 1e-2), (x, weights))


def test_wrong_arguments_are_named():
    x, masks, weights = example(0)
    for wrong, said in (
        ((x[0], masks, weights, 1e-2), r"x must be \(B, C, H, W\), got shape \(5, 4, 6\)"),
        ((x, masks[..., :5], weights, 1e-2), r"masks must be \(2, R, 4, 6\), got shape \(2, 3, 4, 5\)"),
        ((x, masks, weights[:1], 1e-2), r"weights must be \(2, 4, 6\), got shape \(1, 4, 6\)"),
        ((x, masks, weights, 0.0), "eps must be above 0, got 0.0"),
    ):
        with pytest.raises(ValueError, match=said):
            second_order_pool(*wrong)
