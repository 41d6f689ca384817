"""The re-ranking network against torch's own attention and the equations, and alone on plain arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo
from zoo.affinities import create_affinity
from zoo.models.gnn_rerank.net import GnnRerankNet, similarities

SMALL = {
    "dimension": 10, "projection": 6, "anchors": 4, "hits": 9, "projection_hits": 9, "width": 12, "heads": 3,
}  # fmt: skip


def made(seed=0, **changed):
    torch.manual_seed(seed)
    return zoo.create_model("gnn_rerank", **{**SMALL, **changed}).eval()


def rows(count, dimension=10, seed=0):
    return torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("changed", "millions"),
    [
        ({"affinities": ["field_of_view"]}, 9.38),
        ({"affinities": ["field_of_view"], "layers": 2, "norm": "pre"}, 16.47),
        ({"affinities": ["field_of_view"], "layers": 3, "norm": "pre"}, 23.56),
        ({"layers": 0, "affinities": []}, 2.10),
    ],
)
def test_counts_of_parameters_are_those_of_the_thesis(changed, millions):
    model = zoo.create_model("gnn_rerank", **changed)
    assert sum(each.numel() for each in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


def by_the_equations(net, projected, affinities, norm):
    """Eqs. 2.8 to 3.5 with torch's MultiheadAttention, for one query."""
    cosine = F.cosine_similarity(projected[:, None], projected[None, : 1 + net.anchors], dim=2)
    positional = torch.cat([torch.zeros(1, net.anchors), affinities])
    x = net.embedding(torch.cat([cosine, positional], dim=1))
    for layer in net.layers:
        attention = nn.MultiheadAttention(x.shape[1], layer.heads, batch_first=True).eval()
        attention.in_proj_weight.data, attention.in_proj_bias.data = layer.to_messages.weight, layer.to_messages.bias
        attention.out_proj.weight.data, attention.out_proj.bias.data = layer.from_heads.weight, layer.from_heads.bias
        read = layer.before_messages(x) if norm == "pre" else x
        message = attention(read[None], read[None], read[None])[0][0]
        heard = layer.before_mlp(x + message) if norm == "pre" else x + message
        x = x + layer.mlp(heard)
    return F.cosine_similarity(x[:1], x[1:])


@pytest.mark.parametrize("norm", ["none", "pre"])
@pytest.mark.parametrize("layers", [1, 3])
@torch.no_grad()
def test_scores_are_those_of_the_equations(norm, layers):
    model = made(affinities=["heading"], layers=layers, norm=norm)
    query, hits, headings = rows(1), rows(9, seed=1), 360 * torch.rand(9)
    order, scores = model.rerank(query[0], hits, {"heading": headings})
    projected = F.normalize(model.net.projection(torch.cat([query, hits])), dim=1)
    affinities = create_affinity("heading")({"heading": headings[:, None]}, {"heading": headings[None, :4]})
    wanted = by_the_equations(model.net, projected, affinities, norm)
    assert torch.allclose(scores, wanted[order], atol=1e-5)
    assert order.tolist() == wanted.argsort(descending=True).tolist()


@pytest.mark.parametrize("centre", [False, True])
@torch.no_grad()
def test_lists_that_have_ended_score_as_if_they_were_cut(centre):
    model = made(centre=centre)
    projected = model.net.project(rows(2 * 8).reshape(2, 8, 10))
    valid = torch.ones(2, 7, dtype=torch.bool)
    valid[1, 3:] = False
    scores = model.net(projected, None, valid)
    assert torch.allclose(scores[:1], model.net(projected[:1]), atol=1e-6)
    assert torch.allclose(scores[1:, :3], model.net(projected[1:, :4]), atol=1e-6)


def test_the_order_of_hits_beyond_the_anchors_changes_no_score():
    model = made()
    query, hits = rows(1)[0], rows(9, seed=1)
    one, two = model.rerank(query, hits), model.rerank(query, hits[[0, 1, 2, 3, 8, 7, 6, 5, 4]])
    assert torch.allclose(one[1], two[1], atol=1e-6)


@pytest.mark.parametrize("count", [1, 3, 9, 30])
def test_fewer_and_more_hits_than_in_training_are_ranked(count):
    model = made(affinities=["field_of_view"])
    hits = rows(count, seed=1).numpy()
    columns = {"easting": np.arange(count), "northing": np.zeros(count), "heading": np.full(count, 90)}
    order, scores = model.rerank(rows(1)[0].numpy(), hits, columns)
    assert sorted(order.tolist()) == list(range(count))
    assert scores.diff().le(0).all()
    as_rows = [{name: values[k] for name, values in columns.items()} | {"id": k} for k in range(count)]
    assert torch.equal(model.rerank(rows(1)[0], hits, as_rows)[0], order)


def test_what_is_projected_before_is_ranked_alike():
    model = made()
    query, hits = rows(1)[0], rows(9, seed=1)
    both = model.project(torch.cat([query[None], hits]))
    assert both.shape == (10, 6)
    one, two = model.rerank(query, hits), model.rerank(both[0], both[1:], projected=True)
    assert torch.equal(one[0], two[0])
    assert torch.allclose(one[1], two[1], atol=1e-6)


def test_without_projection_any_dimension_does():
    model = made(projection=None)
    for dimension in (3, 50):
        assert len(model.rerank(rows(1, dimension)[0], rows(9, dimension, 1))[0]) == 9
    with pytest.raises(ValueError, match="has no projection"):
        model.project(rows(3))


@torch.no_grad()
def test_what_all_descriptors_share_changes_nothing_where_lists_are_centred():
    plain, centred = (made(projection=None, centre=centre).net for centre in (False, True))
    own = rows(10)[None]
    shifted = own + 3 * rows(1, seed=2)
    assert torch.allclose(centred(own), centred(shifted), atol=1e-5)
    assert torch.allclose(centred(own), plain(own - own.mean(1, keepdim=True)), atol=1e-5)
    assert not torch.allclose(plain(own), plain(shifted), atol=1e-2)


def test_without_layers_it_is_the_projection():
    model = made(layers=0)
    query, hits = rows(1)[0], rows(9, seed=1)
    both = model.project(torch.cat([query[None], hits]))
    assert torch.equal(model.rerank(query, hits)[1], similarities(both[None])[0].sort(descending=True).values)


@pytest.mark.parametrize(
    ("query", "hits", "metadata", "rule"),
    [
        (rows(1, 11)[0], rows(9, 11), None, r"hits must be \(N, 10\), as in training, got \(9, 11\)"),
        (rows(1, 9)[0], rows(9), None, r"query must be \(10,\), as the hits, got \(9,\)"),
        (rows(1)[0], torch.full((3, 10), torch.nan), None, "hits must be finite"),
        (rows(1)[0], rows(9), None, "metadata must hold heading of every hit"),
        (rows(1)[0], rows(2), [{"heading": 3}, {"time": 3}], "heading is missing, hit 1 has none"),
        (rows(1)[0], rows(2), {"heading": [3.0]}, r"heading must be one number a hit, got \(1,\) for 2 hits"),
        (rows(1)[0], rows(2), {"heading": [3.0, float("inf")]}, "heading must be finite"),
        (rows(1)[0], rows(2), {"heading": ["north", "south"]}, "heading must be numbers"),
    ],
)
def test_what_does_not_fit_is_refused(query, hits, metadata, rule):
    with pytest.raises(ValueError, match=rule):
        made(affinities=["heading"]).rerank(query, hits, metadata)


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"anchors": 0}, "anchors must be an integer of at least 1, got 0"),
        ({"heads": 5}, "heads must divide width = 12, got 5"),
        ({"norm": "post"}, "norm must be one of none, pre, got 'post'"),
        ({"loss": "triplet"}, "loss must be one of ap, contrastive_mse"),
        ({"dropout": 1}, "dropout must lie in 0 … 1"),
        ({"centre": 1}, "centre must be true or false, got 1"),
        ({"lock": False}, "phase2_input must be raw where lock is false"),
        ({"projection": None, "layers": 0}, "nothing to train"),
        ({"affinities": "heading"}, r"affinities must be a list such as \[field_of_view\], got 'heading'"),
        ({"affinities": ["headings"]}, r"unknown affinity 'headings'.*Did you mean 'heading'"),
        ({"affinities": [{"name": "heading", "spam": 3}]}, "has no parameter 'spam'.*Did you mean 'span'"),
        ({"affinities": [{"span": 3}]}, "an affinity must be a name"),
        ({"learning_rate": 0}, "learning_rate must be a finite number above 0"),
    ],
)
def test_parameters_are_checked(changed, rule):
    with pytest.raises(ValueError, match=rule):
        made(**changed)


def test_attention_weights_and_descriptors_are_dropped_in_training_alone():
    torch.manual_seed(0)
    net = GnnRerankNet(
        dimension=10, projection=6, anchors=4, affinities=0, width=12, layers=1, heads=3, expansion=4, dropout=0.5,
        norm="none", centre=False,
    )  # fmt: skip
    batch = rows(10)[None]
    assert torch.equal(net.eval().project(batch), net.project(batch))
    assert not torch.equal(net.train().project(batch), net.project(batch))
    projected = net.eval().project(batch)
    assert not torch.equal(net.train()(projected), net(projected))
