"""Affinity features against scikit-learn, with lists of other lengths than the anchors."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from zoo.ops import affinity_features
from zoo.ops.affinity import fitted_anchors, with_query_row, without_mean


def made_up(batch, rows, dimension, seed=0):
    return torch.randn(batch, rows, dimension, generator=torch.Generator().manual_seed(seed))


def test_features_are_the_cosines_with_query_and_first_hits():
    x = made_up(3, 9, 5)
    features = affinity_features(x, 4)
    assert features.shape == (3, 9, 5)
    for own, found in zip(x, features, strict=True):
        assert torch.allclose(found, torch.tensor(cosine_similarity(own.numpy(), own[:5].numpy())), atol=1e-6)


def test_lists_shorter_than_the_anchors_get_zeros():
    x = made_up(1, 4, 5)
    features = affinity_features(x, 6)
    assert features.shape == (1, 4, 7)
    assert torch.equal(features[..., :4], affinity_features(x, 3))
    assert not features[..., 4:].any()


def test_images_that_are_not_there_are_no_anchors():
    x = made_up(2, 6, 5)
    valid = torch.ones(2, 5, dtype=torch.bool)
    valid[1, 3:] = False
    features = affinity_features(x, 5, valid)
    assert torch.equal(features[0], affinity_features(x, 5)[0])
    assert torch.allclose(features[1, :4], affinity_features(x[1:, :4], 5)[0], atol=1e-6)


def test_scale_and_order_of_hits_beyond_the_anchors_change_nothing():
    x = made_up(1, 8, 5)
    features = affinity_features(x, 3)
    assert torch.allclose(affinity_features(x * torch.rand(1, 8, 1).add(0.5), 3), features, atol=1e-6)
    order = [0, 1, 2, 3, 7, 5, 6, 4]
    assert torch.allclose(affinity_features(x[:, order], 3), features[:, order], atol=1e-6)


def test_other_affinities_are_cut_and_padded_alike():
    values = torch.arange(6.0).reshape(1, 2, 3)
    assert torch.equal(fitted_anchors(values, 2), values[..., :2])
    assert fitted_anchors(values, 5).shape == (1, 2, 5)
    assert not fitted_anchors(values, 5)[..., 3:].any()
    rows = with_query_row(values)
    assert not rows[:, 0].any()
    assert torch.equal(rows[:, 1:], values)


def test_the_mean_of_those_that_exist_is_taken_out():
    x = made_up(2, 6, 5)
    valid = torch.ones(2, 5, dtype=torch.bool)
    valid[1, 3:] = False
    assert torch.allclose(without_mean(x), x - x.mean(1, keepdim=True))
    found = without_mean(x, valid)
    assert torch.allclose(found[0], x[0] - x[0].mean(0), atol=1e-6)
    assert torch.allclose(found[1, :4], x[1, :4] - x[1, :4].mean(0), atol=1e-6)


@pytest.mark.parametrize(("shape", "anchors", "rule"), [((3, 4), 2, "must be"), ((1, 3, 4), 0, "at least 1, got 0")])
def test_wrong_arguments_are_named(shape, anchors, rule):
    with pytest.raises(ValueError, match=rule):
        affinity_features(torch.zeros(shape), anchors)
