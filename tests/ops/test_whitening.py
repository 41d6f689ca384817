"""PCA against scikit-learn, learned whitening against the papers' formula over all pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from zoo.ops.whitening import Whitening


def descriptors(count, channels, seed=0):
    """Returns correlated descriptors, in double precision, away from zero."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, channels, generator=generator, dtype=torch.float64)
    mix = torch.randn(channels, channels, generator=generator, dtype=torch.float64)
    return rows @ mix + torch.rand(channels, generator=generator, dtype=torch.float64)


def double(whitening, x):
    return (x - whitening.mean.double()) @ whitening.projection.double().mT


@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize(("count", "channels", "dimension"), [(200, 12, 12), (200, 12, 5), (30, 80, 29), (40, 40, 7)])
def test_pca_is_scikit_learns(count, channels, dimension, whiten):
    x = descriptors(count, channels)
    ours = Whitening(channels, dimension).double().fit_pca(x, whiten=whiten)
    # Its randomised solver would be another method.
    theirs = PCA(dimension, whiten=whiten, svd_solver="full").fit(x.numpy())
    expected, got = theirs.transform(x.numpy()), ours(x).numpy()
    signs = np.sign((expected * got).sum(0))
    np.testing.assert_allclose(got * signs, expected, atol=1e-6)
    np.testing.assert_allclose(ours.mean.numpy(), theirs.mean_, atol=1e-12)


def test_whitened_descriptors_are_white():
    x = descriptors(300, 10)
    white = Whitening(10, 6).double().fit_pca(x)(x)
    torch.testing.assert_close(white.mean(0), torch.zeros(6).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(white.T.cov(), torch.eye(6).double(), atol=1e-9, rtol=0)


@pytest.mark.parametrize(("count", "channels"), [(20, 8), (20, 30)])
def test_descriptors_that_are_all_alike_have_no_directions(count, channels):
    one = descriptors(1, channels).float()
    noisy = one * (1 + 1e-7 * torch.rand(count, channels, generator=torch.Generator().manual_seed(0)))
    for x in (one.expand(count, -1), noisy, torch.zeros(count, channels)):
        with pytest.raises(ValueError, match=f"x must hold descriptors that differ, got {count} of which all are"):
            Whitening(channels, 3).fit_pca(x)


def test_without_centring_directions_are_the_same_and_the_mean_stays():
    x = descriptors(60, 8)
    centred, plain = (Whitening(8, 3).double().fit_pca(x, whiten=False, centre=centre) for centre in (True, False))
    assert torch.equal(plain.projection, centred.projection)
    torch.testing.assert_close(plain(x), x @ centred.projection.mT)
    assert torch.equal(plain.mean, torch.zeros(8).double())


@settings(max_examples=20)
@given(st.permutations(range(12)), st.integers(0, 5))
def test_the_order_of_descriptors_changes_nothing(order, seed):
    x, labels = descriptors(12, 5, seed), [place % 4 for place in range(12)]
    for fit in (
        lambda rows, names: Whitening(5, 4).double().fit_pca(rows),
        lambda rows, names: Whitening(5, 4).double().fit_learned(rows, names, 0.1),
    ):
        one, two = fit(x, labels), fit(x[order], [labels[place] for place in order])
        torch.testing.assert_close(two.projection, one.projection, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("count", [50, 9])
def test_signs_are_determined(count):
    whitening = Whitening(10, 4).fit_pca(descriptors(count, 10).float())
    rows = whitening.projection
    assert (rows.gather(1, rows.abs().argmax(1, keepdim=True)) > 0).all()


@pytest.mark.parametrize("count", [50, 8])
def test_a_direction_without_variance_is_left_out(count):
    x = descriptors(count, 3).repeat(1, 3)  # nine dimensions, of which three vary
    x[:, 3:6] = 0.25
    whitening = Whitening(9, 5).fit_pca(x.float())
    assert whitening.projection.isfinite().all()
    assert torch.equal(whitening.projection[3:], torch.zeros(2, 9))
    assert (whitening(x.float())[:, :3].std(0) > 0.9).all()


def literal_learned(x, labels, dimension):
    """Transcribes Sec. 3.4: over all matching pairs, S^-1/2, then PCA of what it makes of all descriptors."""
    pairs = [(a, b) for a, b in combinations(range(len(x)), 2) if labels[a] == labels[b]]
    scatter = sum(np.outer(x[a] - x[b], x[a] - x[b]) for a, b in pairs) / len(pairs)
    inverse = np.linalg.inv(np.linalg.cholesky(scatter))  # a root up to a rotation, which the PCA takes out
    moved = (x - x.mean(0)) @ inverse.T
    values, vectors = np.linalg.eigh(moved.T @ moved)
    return vectors[:, np.argsort(values)[::-1][:dimension]].T @ inverse


@pytest.mark.parametrize("dimension", [6, 3])
def test_learned_whitening_is_the_papers(dimension):
    x = descriptors(60, 6)
    labels = [place % 7 if place < 50 else f"alone {place}" for place in range(60)]
    ours = Whitening(6, dimension).double().fit_learned(x, labels, 0.0)
    expected = (x.numpy() - x.mean(0).numpy()) @ literal_learned(x.numpy(), labels, dimension).T
    got = ours(x).numpy()
    np.testing.assert_allclose(got * np.sign((got * expected).sum(0)), expected, rtol=1e-8, atol=1e-8)


def test_learned_whitening_brings_pairs_together():
    generator = torch.Generator().manual_seed(0)
    shown = torch.randn(20, 8, generator=generator, dtype=torch.float64)
    noise = torch.randn(20, 6, 8, generator=generator, dtype=torch.float64) * torch.tensor([9.0] * 4 + [0.1] * 4)
    x, labels = (shown[:, None] + noise).flatten(0, 1), np.repeat(np.arange(20), 6)

    def nearest_is_of_the_same_label(rows):
        distances = torch.cdist(rows, rows).fill_diagonal_(float("inf"))
        return (labels[distances.argmin(1).numpy()] == labels).mean()

    learned = Whitening(8, 4).double().fit_learned(x, labels.tolist(), 0.0)
    assert nearest_is_of_the_same_label(x) < 0.3
    assert nearest_is_of_the_same_label(learned(x)) > 0.9


def test_shrinkage_makes_up_for_few_pairs_and_all_of_it_is_pca():
    x, labels = descriptors(40, 6), [place // 2 if place < 4 else f"alone {place}" for place in range(40)]
    with pytest.raises(ValueError, match="pairs of one label must vary in all 6 dimensions, or shrinkage be above 0"):
        Whitening(6, 3).double().fit_learned(x, labels, 0.0)
    assert Whitening(6, 3).double().fit_learned(x, labels, 0.2)(x).isfinite().all()
    whole = Whitening(6, 3).double().fit_learned(x, labels, 1.0).projection
    pca = Whitening(6, 3).double().fit_pca(x, whiten=False).projection
    torch.testing.assert_close(torch.nn.functional.normalize(whole, dim=1), pca)


def test_a_file_fills_a_new_one():
    fitted = Whitening(6, 3).fit_pca(descriptors(40, 6).float())
    again = Whitening(6, 3)
    again.load_state_dict(fitted.state_dict())
    x = torch.rand(2, 5, 6)
    assert torch.equal(again(x), fitted(x))
    assert again(x).shape == (2, 5, 3)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"dimension must lie in 1 … 4, the descriptor's own, got 5"):
        Whitening(4, 5)
    with pytest.raises(RuntimeError, match="must be fitted on a set of images, or loaded, before it is used"):
        Whitening(4, 2)(torch.rand(3, 4))
    x = torch.rand(9, 4)
    with pytest.raises(ValueError, match=r"x must be \(N, 4\), got shape \(9, 3\)"):
        Whitening(4, 2).fit_pca(x[:, :3])
    with pytest.raises(ValueError, match="to 3 dimensions must be fitted on more descriptors than that, got 3; take"):
        Whitening(4, 3).fit_pca(x[:3])
    with pytest.raises(ValueError, match="finite"):
        Whitening(4, 3).fit_pca(x / 0)
    for labels, shrinkage, said in (
        (range(9), 0.1, "labels must be shared by at least two descriptors"),
        ([1] * 8, 0.1, "labels must be one for each of 9 descriptors, got 8"),
        ([1] * 9, 1.5, r"shrinkage must lie in 0 … 1, got 1.5"),
    ):
        with pytest.raises(ValueError, match=said):
            Whitening(4, 3).fit_learned(x, labels, shrinkage)
