"""Registered re-rankers: the contract, and what each makes of hits from anywhere."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo
from zoo import registry
from zoo.search import expand_query, regional_qe, superglobal
from zoo.testing import check_reranker
from zoo.testing.rerankers import made_up
from zoo.types import Representation

NAMES = sorted(registry.entries("reranker"))
ORDER_FREE = {
    "superglobal": {"convention": "authors"}, "dba": {}, "r_match": {}, "geometric_verification": {},
    "rank_fusion": {"keys": ["score"]},
}  # fmt: skip


@cache
def built(name):
    return zoo.create("reranker", name, **ORDER_FREE.get(name, {"k": 2}))


@pytest.mark.parametrize("name", NAMES)
def test_every_registered_reranker_keeps_the_contract(name):
    check_reranker(name)


def test_a_plugin_keeps_it_too(plugins):
    check_reranker("acme_same_shelf")


@pytest.mark.parametrize(
    ("method", "broken", "clause"),
    [
        ("score", lambda self, query, hits, *_: (hits.vector.sum(1) * torch.nan, None), "scores must be finite"),
        ("score", lambda self, query, hits, *_: (torch.arange(len(hits)), None), "equal hits must keep their order"),
        ("score", lambda self, query, hits, *_: (hits.vector.mul_(2).sum(1), None), "must not be changed"),
        (
            "expanded",
            lambda self, query, hits: Representation(vector=query.vector),
            "must keep the query's fingerprint",
        ),
        ("read", lambda self, given, one=False: given, "NumPy arrays must do as well as tensors"),
        ("__init__", lambda self, *, k, size=1: None, "arguments must be keyword-only"),
    ],
)
def test_a_broken_clause_is_named(method, broken, clause, monkeypatch):
    from zoo.search.rerankers.aqe import AverageQueryExpansion

    monkeypatch.setattr(AverageQueryExpansion, method, broken)
    with pytest.raises(AssertionError, match=clause):
        check_reranker("aqe")


def test_all_of_them_are_there():
    assert {"alpha_qe", "aqe", "dba", "geometric_verification", "r_match", "rank_fusion", "regional_qe"} < set(NAMES)


def vectors(count, seed=1, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=(count, 6)).astype(dtype) + 0.3


def cosines(query, rows):
    return rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)


# By name


def test_plain_arrays_go_in_and_an_order_comes_out():
    query, hits = vectors(1, 0, np.float16), vectors(9)
    found = zoo.create("reranker", "aqe", k=3)(query[0], hits)
    expanded = (query[0].astype(np.float64) + hits[:3].sum(0)) / 4
    wanted = cosines(expanded, hits)
    assert list(found.ids) == np.argsort(-wanted, kind="stable").tolist()
    assert found.scores.tolist() == pytest.approx(sorted(wanted, reverse=True), abs=1e-5)
    assert list(zoo.create("reranker", "aqe", k=3)(query.tolist(), hits.tolist()).ids) == list(found.ids)
    assert len(zoo.create("reranker", "aqe")(query, np.zeros((0, 6)))) == 0
    hits.setflags(write=False)
    with warnings.catch_warnings(action="error"):
        assert list(zoo.create("reranker", "aqe", k=3)(query, hits).ids) == list(found.ids)


def test_weighted_expansion_is_searched_with_by_the_pipeline():
    query, hits = torch.from_numpy(vectors(1, 0)), torch.from_numpy(vectors(9))
    expanded = zoo.create("reranker", "alpha_qe", k=4, alpha=2.0).expand(
        Representation(vector=query, fingerprint="m"), Representation(vector=hits)
    )
    torch.testing.assert_close(expanded.vector, expand_query(query, hits[None, :4], 2.0))
    assert list(expanded.filled()) == ["vector"]
    assert expanded.fingerprint == "m"


@pytest.mark.parametrize(("convention", "p", "beta"), [("paper", 1, 0.6), ("authors", 9, 0.15)])
def test_a_convention_brings_its_own_settings(convention, p, beta):
    query, hits = torch.from_numpy(vectors(1, 0)), torch.from_numpy(vectors(20))
    found = zoo.create("reranker", "superglobal", convention=convention)(query, hits)
    wanted = superglobal(query, hits[None], p, beta, convention=convention)[0]
    assert found.scores.tolist() == pytest.approx(wanted.sort(descending=True).values.tolist())
    other = zoo.create("reranker", "superglobal", convention=convention, p=3)(query, hits)
    assert other.scores.tolist() != pytest.approx(found.scores.tolist())


def test_augmented_hits_move_towards_their_like():
    hits = np.array([[1.0, 0.0], [0.0, 1.0], [0.1, 0.9], [0.9, 0.1]])
    found = zoo.create("reranker", "dba", k=1, alpha=0.0)(np.array([1.0, 0.2]), hits)
    wanted = cosines(np.array([1.0, 0.2]), np.array([[1.9, 0.1], [0.1, 1.9], [0.1, 1.9], [1.9, 0.1]]))
    assert list(found.ids) == [0, 3, 1, 2]
    assert found.scores.tolist() == pytest.approx(sorted(wanted, reverse=True))


def test_regional_expansion_shows_the_region_that_matched():
    query, hits = made_up(1, 0), made_up(7, 1)
    found = zoo.create("reranker", "regional_qe", k=3)(query, hits)
    region = regional_qe(query.regions, hits.regions[None, :3])[0]
    best = (torch.nn.functional.normalize(hits.regions, dim=2) @ region).max(dim=1)
    assert found.scores.tolist() == pytest.approx(best.values.sort(descending=True).values.tolist(), abs=1e-6)
    for item, shown in zip(found.ids, found.evidence, strict=True):
        place = best.indices[item]
        assert (shown["query_region"], shown["region"]) == (0, place)
        assert shown["box"] == hits.region_boxes[item, place].tolist()
        assert shown["hull"] == hits.region_hulls[item, place].tolist()


def test_r_match_of_regions_leaves_out_those_that_repeat_the_whole_image():
    query, hits = made_up(1, 0), made_up(5, 1)
    mask = torch.tensor([[True, True, False]])
    padded = Representation(regions=torch.cat([query.regions[:, :2], query.regions[:, :1]], 1), region_mask=mask)
    short = Representation(regions=query.regions[:, :2])
    reranker = zoo.create("reranker", "r_match", field="regions")
    found, wanted = reranker(padded, hits), reranker(short, hits)
    assert (list(found.ids), found.scores.tolist()) == (list(wanted.ids), pytest.approx(wanted.scores.tolist()))
    pairs = (
        torch.nn.functional.normalize(short.regions[0], dim=1) @ torch.nn.functional.normalize(hits.regions, dim=2).mT
    )
    assert found.scores.tolist() == pytest.approx(pairs.amax(2).mean(1).sort(descending=True).values.tolist(), abs=1e-6)


def test_orders_of_the_metadata_are_fused():
    metadata = [
        {"id": "a", "score": 0.1, "clicks": 5},
        {"id": "b", "score": 0.9},
        {"id": "c", "score": 0.5, "clicks": 9},
    ]
    reranker = zoo.create("reranker", "rank_fusion", keys=["order", "score", "clicks"], weights=[1, 1, 2], k=1)
    found = reranker(Representation(), Representation(), None, metadata)
    wanted = {"a": 1 / 2 + 1 / 4 + 2 / 3, "b": 1 / 3 + 1 / 2, "c": 1 / 4 + 1 / 3 + 2 / 2}
    assert list(found.ids) == ["c", "a", "b"]
    assert found.scores.tolist() == pytest.approx([wanted[key] for key in found.ids])
    with pytest.raises(ValueError, match="no hit's metadata has 'likes'; they have clicks, id, score"):
        zoo.create("reranker", "rank_fusion", keys=["likes"])(Representation(), Representation(), None, metadata)


# What all share


@settings(max_examples=25)
@given(order=st.permutations(range(8)), name=st.sampled_from(sorted(ORDER_FREE)))
def test_the_order_of_the_hits_does_not_change_the_ranking(order, name):
    reranker = built(name)
    query, hits = made_up(1, 0), made_up(8, 1)
    metadata = [{"id": place, "score": float(place * 3 % 8)} for place in range(8)]
    plain = reranker(query, hits, {}, metadata)
    turned = reranker(query, hits.rows(list(order)), {}, [metadata[place] for place in order])
    assert turned.scores.tolist() == pytest.approx(plain.scores.tolist(), abs=1e-5)
    gaps = np.diff(plain.scores.numpy())
    if len(gaps) and gaps.max() < -1e-5:  # no ties
        assert list(turned.ids) == list(plain.ids)


@settings(max_examples=25)
@given(order=st.permutations(range(2, 8)), name=st.sampled_from(["aqe", "alpha_qe"]))
def test_hits_behind_those_that_are_averaged_may_come_in_any_order(order, name):
    reranker, hits = built(name), vectors(8)
    turned = [0, 1, *order]
    plain, found = reranker(vectors(1, 0), hits), reranker(vectors(1, 0), hits[turned])
    assert [turned[place] for place in found.ids] == list(plain.ids)


@pytest.mark.parametrize("name", ["aqe", "dba", "superglobal"])
def test_equal_descriptors_keep_their_order_among_others(name):
    hits = vectors(6)
    hits[[1, 4]] = hits[3]
    ids = list(zoo.create("reranker", name)(vectors(1, 0), hits).ids)
    assert [item for item in ids if item in (1, 3, 4)] == [1, 3, 4]


@pytest.mark.parametrize(
    ("query", "hits", "metadata", "message"),
    [
        (Representation(vector=torch.ones(2, 3)), torch.ones(4, 3), None, "one image .* got 2 by its vector"),
        (torch.ones(3), torch.tensor([[1.0, torch.nan, 0]]), None, "vector must be finite"),
        (
            torch.ones(3),
            torch.ones(4, 2, 3),
            None,
            r"as many dimensions in query and hits, got \(1, 3\) and \(4, 2, 3\)",
        ),
        (torch.ones(3), torch.ones(2, 3), [{"id": 1}], "one mapping per hit, got 1 for 2 hits"),
        (torch.ones(3), torch.ones(2, 3), [{"id": 1}, {}], "'id' for every hit or for none, got 1 of 2"),
        (
            Representation(vector=torch.ones(1, 3), fingerprint="a"),
            Representation(vector=torch.ones(1, 3), fingerprint="b"),
            None,
            "hits are of the model b, the query of a",
        ),
    ],
)
def test_what_does_not_fit_is_refused(query, hits, metadata, message):
    with pytest.raises(ValueError, match=message):
        zoo.create("reranker", "superglobal")(query, hits, None, metadata)


@pytest.mark.parametrize("value", ["cat", float("nan"), None])
def test_only_numbers_are_fused(value):
    fusion = zoo.create("reranker", "rank_fusion", keys=["order", "label"])
    with pytest.raises(ValueError, match=f"keys: 'label' must be a finite number .*, got {value!r}"):
        fusion(Representation(), Representation(), None, [{"label": 1}, {"label": value}])


def test_a_reranker_of_several_fields_wants_them_named():
    with pytest.raises(ValueError, match=r"geometric_verification needs .*'keypoints'.*, got Tensor"):
        zoo.create("reranker", "geometric_verification")(torch.ones(3), torch.ones(2, 3))


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("aqe", {"k": 0}, "k must be an integer of at least 1, got 0"),
        ("aqe", {"k": 2.5}, "k must be an integer of at least 1, got 2.5"),
        ("alpha_qe", {"alpha": 0}, "alpha must be a finite number above 0"),
        ("superglobal", {"p": "two"}, "p must be an integer of at least 1, got 'two'"),
        ("dba", {"alpha": -1}, "alpha must be at least 0, got -1"),
        ("superglobal", {"convention": "thesis"}, "got 'thesis'"),
        ("superglobal", {"beta": -0.5}, "beta must be a finite number above 0, got -0.5"),
        ("r_match", {"field": "vector"}, "one of local_map, regions, got 'vector'"),
        ("rank_fusion", {"keys": []}, "at least one order"),
        ("rank_fusion", {"weights": [1]}, "one per key"),
        ("geometric_verification", {"transform": "rigid"}, "one of homography, affine, got 'rigid'"),
        ("geometric_verification", {"ratio": 1.2}, "ratio must be above 0 and at most 1, got 1.2"),
    ],
)
def test_wrong_parameters_are_refused_when_a_reranker_is_built(name, parameters, message):
    with pytest.raises(ValueError, match=message):
        zoo.create("reranker", name, **parameters)
