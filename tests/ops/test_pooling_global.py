"""MAC, SPoC, GeM and CroW against the papers' equations in NumPy loops, and their invariants."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import zoo.ops
from zoo.ops import crow, crow_channel_weights, crow_spatial_weights, gem, mac, spoc

SIDES = st.integers(1, 9)
POOLINGS = {
    "mac": mac, "ucrow": spoc, "spoc": lambda x: spoc(x, centre_prior=True), "gem": gem, "crow": crow,
}  # fmt: skip


def activations(height, width, seed, batch=2, channels=5):
    """Returns what a ReLU leaves: about half of it zero."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, height, width, generator=generator, dtype=torch.float64).relu()


def literal_spoc(one, prior):
    _, height, width = one.shape
    sigma = min(height, width) / 2 / 3
    total = 0
    for row in range(height):
        for column in range(width):
            squared = (row + 0.5 - height / 2) ** 2 + (column + 0.5 - width / 2) ** 2
            total = total + one[:, row, column] * (np.exp(-squared / (2 * sigma**2)) if prior else 1)
    return total


def literal_gem(one, p, eps):
    return np.array([(sum(max(v, eps) ** p for v in c.ravel()) / c.size) ** (1 / p) for c in one])


def literal_spatial(one, a, b):
    sums = one.sum(0)
    norm = (sums**a).sum() ** (1 / a)
    return (sums / norm) ** (1 / b) if norm > 0 else sums


def literal_channels(one, eps):
    shares = np.array([np.count_nonzero(channel) / channel.size for channel in one])
    if eps is not None:
        return np.log((len(one) * eps + shares.sum()) / (eps + shares))
    return np.array([np.log(shares.sum() / share) if share > 0 else 0 for share in shares])


def literal_crow(one, a, b):
    weights = literal_spatial(one, a, b)
    return np.array([(channel * weights).sum() for channel in one]) * literal_channels(one, None)


@given(SIDES, SIDES, st.integers(0, 9), st.sampled_from([(3.0, 1e-6), (1.0, 1e-6), (4.5, 0.1)]))
def test_sums_maxima_and_means_equal_their_definitions(height, width, seed, gem_options):
    maps = activations(height, width, seed)
    each = [one.numpy() for one in maps]
    for got, expected in (
        (mac(maps), [one.reshape(5, -1).max(1) for one in each]),
        (spoc(maps), [literal_spoc(one, prior=False) for one in each]),
        (spoc(maps, centre_prior=True), [literal_spoc(one, prior=True) for one in each]),
        (gem(maps, *gem_options), [literal_gem(one, *gem_options) for one in each]),
    ):
        np.testing.assert_allclose(got.numpy(), np.stack(expected), rtol=1e-5, atol=1e-9)


@given(SIDES, SIDES, st.integers(0, 9), st.sampled_from([(2.0, 2.0), (1.0, 3.0), (3.0, 1.0)]))
def test_crow_equals_its_definition(height, width, seed, options):
    maps = activations(height, width, seed)
    each = [one.numpy() for one in maps]
    for got, expected in (
        (crow_spatial_weights(maps, *options), [literal_spatial(one, *options) for one in each]),
        (crow_channel_weights(maps), [literal_channels(one, None) for one in each]),
        (crow_channel_weights(maps, eps=1e-6), [literal_channels(one, 1e-6) for one in each]),
        (crow(maps, *options), [literal_crow(one, *options) for one in each]),
    ):
        np.testing.assert_allclose(got.numpy(), np.stack(expected), rtol=1e-9, atol=1e-12)


@given(SIDES, SIDES, st.randoms(use_true_random=False))
def test_where_a_cell_lies_tells_only_the_centre_prior(height, width, random):
    maps, order = activations(height, width, 0), list(range(height * width))
    random.shuffle(order)
    moved = maps.flatten(2)[..., order].view_as(maps)
    for name in ("mac", "ucrow", "gem", "crow"):
        torch.testing.assert_close(POOLINGS[name](moved), POOLINGS[name](maps))
    for flipped in (maps.flip(2), maps.flip(3), maps.flip(2, 3)):
        torch.testing.assert_close(spoc(flipped, centre_prior=True), spoc(maps, centre_prior=True))
    torch.testing.assert_close(spoc(maps.mT, centre_prior=True), spoc(maps, centre_prior=True))


@given(SIDES, SIDES, st.floats(0.1, 1e3), st.permutations(range(5)))
def test_scaling_a_map_scales_its_vector_and_channels_are_treated_alike(height, width, factor, order):
    maps = activations(height, width, 1)
    for name, pool in POOLINGS.items():
        if name != "gem":
            torch.testing.assert_close(pool(factor * maps), factor * pool(maps))
        torch.testing.assert_close(pool(maps[:, order]), pool(maps)[:, order])
    torch.testing.assert_close(gem(factor * maps, eps=factor * 1e-6), factor * gem(maps))


@given(st.integers(1, 30), st.floats(1e-3, 1e3))
def test_gem_lies_between_mean_and_maximum(side, scale):
    maps = scale * activations(side, 2, 2) + scale
    torch.testing.assert_close(gem(maps, p=1.0), maps.mean((2, 3)))
    pooled = [gem(maps, p=p) for p in (1.0, 3.0, 10.0)] + [mac(maps)]
    assert all((low <= high * (1 + 1e-9)).all() for low, high in pairwise(pooled))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_no_power_of_gem_leaves_the_range_of_numbers(dtype):
    maps = 200 * torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    pooled = gem(maps.to(dtype), p=60.0)
    torch.testing.assert_close(pooled.double(), gem(maps.double(), p=60.0), rtol=5e-3, atol=0)
    assert (gem(torch.zeros(1, 2, 3, 3, dtype=dtype)) > 0).all()


def test_maps_without_activation_give_finite_values():
    empty = torch.zeros(2, 3, 4, 5)
    for name, pool in POOLINGS.items():
        assert torch.allclose(pool(empty), torch.zeros(2, 3), atol=2e-6), name
    assert torch.equal(crow_spatial_weights(empty, 2, 2), torch.zeros(2, 4, 5))
    assert torch.equal(crow_channel_weights(empty), torch.zeros(2, 3))
    torch.testing.assert_close(crow_channel_weights(empty, eps=1e-6), torch.full((2, 3), np.log(3.0)))


@pytest.mark.parametrize("name", POOLINGS)
def test_gradients_are_those_of_finite_differences(name):
    maps = (activations(3, 4, 3, batch=1, channels=2) + 0.1 * torch.rand(1, 2, 3, 4)).requires_grad_()
    torch.autograd.gradcheck(POOLINGS[name], maps)


@pytest.mark.parametrize("name", POOLINGS)
def test_gradients_where_nothing_is_active_are_finite(name):
    maps = torch.zeros(1, 2, 3, 3, requires_grad=True)
    POOLINGS[name](maps).sum().backward()
    assert maps.grad.isfinite().all()


def test_negative_sums_have_no_weight():
    maps = torch.tensor([[[[-3.0, 4.0]], [[1.0, 0.0]]]])
    assert torch.equal(crow_spatial_weights(maps, 2, 2), torch.tensor([[[0.0, 1.0]]]))


def test_wrong_arguments_are_named():
    for pool in POOLINGS.values():
        with pytest.raises(ValueError, match=r"x must be \(B, C, H, W\), got shape \(3, 4, 4\)"):
            pool(torch.zeros(3, 4, 4))
        with pytest.raises(ValueError, match="width must be at least 1, got 0"):
            pool(torch.zeros(1, 3, 4, 0))
    for call, said in (
        (lambda x: gem(x, p=0), "p must be a finite number above 0, got 0"),
        (lambda x: gem(x, p=float("inf")), "p must be a finite number above 0, got inf"),
        (lambda x: gem(x, eps=-1.0), "eps must be a finite number above 0, got -1.0"),
        (lambda x: crow(x, a=0.0), "a must be a finite number above 0, got 0.0"),
        (lambda x: crow_channel_weights(x, eps=0.0), "eps must be a finite number above 0, got 0.0"),
    ):
        with pytest.raises(ValueError, match=said):
            call(torch.ones(1, 2, 3, 3))


def test_the_public_names_are_listed():
    assert {"mac", "spoc", "gem", "rmac", "crow", "crow_spatial_weights", "crow_channel_weights"} <= set(dir(zoo.ops))
