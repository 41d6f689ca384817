"""Expansion, augmentation, SuperGlobal and fusion against their equations written out, one number at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from zoo.search import augment_database, expand_query, rank_fusion, regional_qe, superglobal
from zoo.types import Ranking


def normal(*shape, seed=0, shift=0.0):
    return np.random.default_rng(seed).normal(size=shape) + shift


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


# Query expansion


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.5])
def test_expanded_queries_follow_the_equations(alpha):
    queries, neighbours = normal(3, 5), normal(3, 4, 5, seed=1)
    found = expand_query(torch.from_numpy(queries), torch.from_numpy(neighbours), alpha)
    for query, near, row in zip(queries, neighbours, found.numpy(), strict=True):
        weights = [max(0.0, cosine(query, item)) ** alpha for item in near]
        total = query + sum(weight * item for weight, item in zip(weights, near, strict=True))
        np.testing.assert_allclose(row, total / (1 + sum(weights)))


def test_average_expansion_is_the_plain_mean_even_of_opposites():
    query = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    near = torch.tensor([[[-3.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    assert expand_query(query, near)[0].tolist() == pytest.approx([-2 / 3, 1 / 3])
    assert expand_query(query, torch.zeros(1, 0, 2)).tolist() == query.tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(2, 3), torch.zeros(1, 4, 3)), r"fit together, got \(2, 3\) and \(1, 4, 3\)"),
        ((torch.zeros(1, 3), torch.zeros(1, 4, 2)), "fit together"),
        ((torch.zeros(1, 3), torch.zeros(1, 4, 3), -1.0), "alpha must be at least 0, got -1"),
    ],
)
def test_what_cannot_be_expanded_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        expand_query(*arguments)


# Database augmentation


@pytest.mark.parametrize("alpha", [0.0, 3.0])
def test_augmented_galleries_follow_the_neighbours_of_scikit_learn(alpha, monkeypatch):
    vectors = normal(60, 8, shift=0.5)
    search = NearestNeighbors(n_neighbors=6, metric="cosine").fit(vectors)
    nearest = search.kneighbors(vectors, return_distance=False)[:, 1:]
    wanted = expand_query(torch.from_numpy(vectors), torch.from_numpy(vectors[nearest]), alpha).numpy()
    monkeypatch.setattr("zoo.search.expansion._CELLS", 60 * 7)  # blocks of seven
    found = augment_database(torch.from_numpy(vectors), 5, alpha)
    np.testing.assert_allclose(found.numpy(), unit(wanted))


def test_augmentation_takes_what_there_is():
    vectors = torch.tensor([[3.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    assert augment_database(vectors, 10).tolist() == [[pytest.approx(0.6), pytest.approx(0.8)]] * 2
    assert augment_database(vectors[:1], 10).tolist() == [[1.0, 0.0]]
    assert augment_database(vectors[:0], 10).shape == (0, 2)
    twins = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert augment_database(twins, 1)[:2].tolist() == [[1.0, 0.0]] * 2
    with pytest.raises(ValueError, match="k must be an integer of at least 1, got 0"):
        augment_database(vectors, 0)


# Regional query expansion


def test_the_best_matching_regions_are_averaged():
    queries, neighbours = normal(2, 3, 6), normal(2, 4, 5, 6, seed=1)
    found = regional_qe(torch.from_numpy(queries), torch.from_numpy(neighbours)).numpy()
    for query, near, row in zip(queries, neighbours, found, strict=True):
        best = [max(image, key=lambda region: max(cosine(own, region) for own in query)) for image in near]
        np.testing.assert_allclose(row, unit(np.mean(best, axis=0)))
    alone = regional_qe(torch.from_numpy(queries), torch.zeros(2, 0, 5, 6, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(alone, unit(queries[:, 0]))


# SuperGlobal


def by_the_paper(query, shortlist, p, beta, neighbours=None):
    refined = []
    for place, item in enumerate(shortlist):
        others = [other for at, other in enumerate(shortlist) if at != place]
        near = sorted(others, key=lambda other: -cosine(item, other)) if neighbours is None else neighbours[place]
        total, weights = item.copy(), 1.0
        for other in near[:p]:
            total += beta * cosine(item, other) * other
            weights += beta * cosine(item, other)
        refined.append(total / weights)
    expanded = np.max(refined[:p], axis=0)
    return [(cosine(query, item) + cosine(expanded, item)) / 2 for item in refined]


def by_the_authors(query, shortlist, p, beta):
    refined = []
    for item in shortlist:
        near = sorted(shortlist, key=lambda other: -(item @ other))[: p + 1]
        weights = [1.0, *(beta * (item @ other) for other in near[1:])]
        refined.append(sum(w * other for w, other in zip(weights, near, strict=True)) / sum(weights))
    best = sorted(refined, key=lambda item: -(query @ item))[: p + 1]
    expanded = np.max(best, axis=0)
    return [(query @ item + expanded @ item) / 2 for item in refined]


LITERAL = {"paper": by_the_paper, "authors": by_the_authors}


@pytest.mark.parametrize("convention", ["paper", "authors"])
@pytest.mark.parametrize(("p", "hits"), [(1, 12), (4, 12), (9, 5), (3, 1), (2, 250)])
def test_superglobal_follows_a_loop_over_neighbours(convention, p, hits):
    queries, shortlists = normal(2, 7, shift=0.3), normal(2, hits, 7, seed=1, shift=0.3)
    found = superglobal(torch.from_numpy(queries), torch.from_numpy(shortlists), p, 0.4, convention=convention)
    for query, shortlist, row in zip(queries, shortlists, found.numpy(), strict=True):
        np.testing.assert_allclose(row, LITERAL[convention](query, shortlist, p, 0.4), rtol=1e-9, atol=1e-12)


def test_superglobal_takes_neighbours_from_the_whole_database():
    queries, shortlists, neighbours = normal(2, 7), normal(2, 5, 7, seed=1), normal(2, 5, 4, 7, seed=2)
    arguments = [torch.from_numpy(array) for array in (queries, shortlists)]
    found = superglobal(*arguments, 3, 0.4, neighbours=torch.from_numpy(neighbours)).numpy()
    for row, line in enumerate(found):
        np.testing.assert_allclose(line, by_the_paper(queries[row], shortlists[row], 3, 0.4, neighbours[row]))


@pytest.mark.parametrize(
    ("convention", "wanted"), [("paper", [0.8708325, 0.8328725]), ("authors", [0.882162, 0.847027])]
)
def test_each_convention_holds_its_number(convention, wanted):
    """Worked out by hand: cosine of the items .96, refined (1.088, .984) / 1.48 and (.984, 1.088) / 1.48."""
    shortlist = torch.tensor([[[0.8, 0.6], [0.6, 0.8]]], dtype=torch.float64)
    query = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert superglobal(query, shortlist, 1, 0.5, convention=convention)[0].tolist() == pytest.approx(wanted, abs=1e-6)


def test_superglobal_survives_opposites_zeros_and_nothing():
    opposite = torch.tensor([[[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]])
    for convention in LITERAL:
        for hits in range(4):
            scores = superglobal(torch.tensor([[1.0, 0.0]]), opposite[:, :hits], 2, 1.0, convention=convention)
            assert scores.shape == (1, hits)
            assert scores.isfinite().all()
    zero = superglobal(torch.zeros(1, 2), opposite, 1, 0.5)
    assert zero.isfinite().all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"p": 0}, "p must be an integer of at least 1, got 0"),
        ({"convention": "thesis"}, "one of paper, authors, got 'thesis'"),
        ({"query": torch.zeros(1, 2)}, r"fit together, got \(1, 2\) and \(1, 4, 3\)"),
        ({"neighbours": torch.zeros(1, 4, 1, 3)}, r"at least \(1, 4, 2, 3\), got \(1, 4, 1, 3\)"),
        ({"neighbours": torch.zeros(1, 4, 2, 3), "convention": "authors"}, "must be None with the convention"),
    ],
)
def test_what_superglobal_cannot_use_is_refused(changes, message):
    arguments = {"query": torch.zeros(1, 3), "shortlist": torch.zeros(1, 4, 3), "p": 2, "beta": 0.5, **changes}
    with pytest.raises(ValueError, match=message):
        superglobal(**arguments)


# Rank fusion


def ranking(ids, scores=None, evidence=None):
    scores = range(len(ids), 0, -1) if scores is None else scores
    return Ranking(ids, torch.tensor(list(scores), dtype=torch.float64), evidence)


def test_reciprocal_ranks_are_added_up():
    lists = [["a", "b", "c"], ["c", "d"], ["b"]]
    fused = rank_fusion([ranking(ids) for ids in lists], weights=[1, 2, 0.5], k=10)
    wanted = {"a": 1 / 11, "b": 1 / 12 + 0.5 / 11, "c": 1 / 13 + 2 / 11, "d": 2 / 12}
    assert list(fused.ids) == sorted(wanted, key=wanted.get, reverse=True)
    assert fused.scores.tolist() == pytest.approx(sorted(wanted.values(), reverse=True))


def test_scores_are_brought_to_one_range():
    first, second = ranking([1, 2, 3], [10.0, 5.0, 0.0]), ranking([3, 2], [-0.5, -0.5], [{"box": 1}, {"box": 2}])
    fused = rank_fusion([first, second], method="score")
    assert list(fused.ids) == [1, 2, 3]
    assert fused.scores.tolist() == [1.0, 1.0, 0.5]
    assert fused.evidence == [{}, {"box": 2}, {"box": 1}]


@settings(max_examples=50)
@given(
    orders=st.lists(st.permutations(range(6)), min_size=1, max_size=4), method=st.sampled_from(["reciprocal", "score"])
)
def test_an_item_that_leads_everywhere_leads(orders, method):
    lists = [ranking([99, *order]) for order in orders]
    assert rank_fusion(lists, method=method).ids[0] == 99
    assert list(rank_fusion(lists[:1], method=method).ids) == list(lists[0].ids)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "at least one"),
        (([ranking([1])], [1, 2]), "one per ranking, got 2 for 1"),
        (([ranking([1])], [-1]), "must not be negative"),
        (([ranking([1])], None, "borda"), "one of reciprocal, score, got 'borda'"),
        (([ranking([1, 1])],), "an id only once"),
    ],
)
def test_what_cannot_be_fused_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        rank_fusion(*arguments)
