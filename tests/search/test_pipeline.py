"""The pipeline against the same steps taken by hand: index, re-rankers, expansions, and what it hands to stages."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import zoo
from zoo.search import Pipeline
from zoo.types import Ranking, Representation

N, D, SHORTLIST = 60, 8, 12
IDS = [f"item {place:02d}" for place in range(N)]


def normal(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32) + 0.4)


GALLERY, QUERIES = normal(N, D), normal(3, D, seed=1)


def flat(metric="cosine", fingerprint=None):
    index = zoo.create("index", "flat", metric=metric)
    payloads = [{"label": "even" if place % 2 == 0 else "odd", "number": place} for place in range(N)]
    index.add(IDS, Representation(vector=GALLERY, fingerprint=fingerprint), payloads)
    return index


def queries(**fields):
    return Representation(vector=QUERIES, **fields)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def searched(query, left_out=None):
    """Returns the positions of the whole gallery, nearest to a vector first."""
    order = np.argsort(-unit(GALLERY.numpy()) @ query, kind="stable")
    return [place for place in order if IDS[place] != left_out]


def stage(name, **parameters):
    return zoo.create("reranker", name, **parameters)


class Recorder:
    """Keeps the order of the hits, or turns it around, and remembers what it was given."""

    registered = None

    def __init__(self, needs=("vector",), turn=False):
        self.needs, self.turn, self.calls = needs, turn, []

    def __call__(self, query, hits, query_metadata=None, hit_metadata=None):
        self.calls.append((query, hits, query_metadata, hit_metadata))
        ids = [mapping["id"] for mapping in hit_metadata][:: -1 if self.turn else 1]
        return Ranking(ids, torch.arange(len(ids), 0, -1), [{"seen": key} for key in ids])


# By hand


def aqe_by_hand(query, order, left_out):
    query = np.mean([query, *unit(GALLERY.numpy())[order[:2]]], axis=0)
    return unit(query), searched(query, left_out)


def superglobal_by_hand(query, order, left_out):
    hits = torch.from_numpy(unit(GALLERY.numpy())[order[:SHORTLIST]])
    scores = zoo.search.superglobal(torch.from_numpy(query)[None], hits[None], 3, 0.5)[0].numpy()
    return query, [*np.array(order[:SHORTLIST])[np.argsort(-scores, kind="stable")], *order[SHORTLIST:]]


BY_HAND = {"aqe": (aqe_by_hand, {"k": 2}), "superglobal": (superglobal_by_hand, {"p": 3, "beta": 0.5})}


@pytest.mark.parametrize("chain", [["superglobal", "aqe"], ["aqe", "superglobal"], ["aqe", "aqe"], ["superglobal"], []])
@pytest.mark.parametrize("leave_out", [False, True])
def test_a_chain_is_its_stages_one_after_the_other(chain, leave_out):
    exclude = [IDS[searched(unit(query))[0]] for query in QUERIES.numpy()] if leave_out else [None] * 3
    pipeline = Pipeline(flat(), [stage(name, **BY_HAND[name][1]) for name in chain], SHORTLIST)
    found = pipeline.search(queries(), N, exclude=exclude)
    for row, ranking in enumerate(found):
        query = unit(QUERIES[row].numpy())
        order = searched(query, exclude[row])
        for name in chain:
            query, order = BY_HAND[name][0](query, order, exclude[row])
        assert list(ranking.ids) == [IDS[place] for place in order]
        assert (ranking.scores.diff() <= 0).all()
        assert len(ranking) == N - leave_out


def test_the_order_of_the_stages_matters():
    first, second = (
        Pipeline(flat(), [stage(name, **BY_HAND[name][1]) for name in chain], SHORTLIST).search(queries(), 10)
        for chain in (["superglobal", "aqe"], ["aqe", "superglobal"])
    )
    assert [list(ranking.ids) for ranking in first] != [list(ranking.ids) for ranking in second]


def test_an_expansion_finds_what_was_not_in_the_shortlist():
    plain = Pipeline(flat(), [], 3).search(queries(), 3)
    found = Pipeline(flat(), [stage("aqe", k=3)], 3).search(queries(), 3)
    assert any(set(a.ids) != set(b.ids) for a, b in zip(plain, found, strict=True))


def test_regional_expansion_searches_an_index_of_regions():
    regions, asked = normal(N, 4, D), normal(2, 3, D, seed=1)
    index = zoo.create("index", "regions", metric="cosine")
    index.add(IDS, Representation(regions=regions))
    found = Pipeline(index, [stage("regional_qe", k=5)], None).search(Representation(regions=asked), N)
    gallery, own = unit(regions.numpy()), unit(asked.numpy())
    for row, ranking in enumerate(found):
        pairs = np.einsum("rd,nsd->nrs", own[row], gallery)
        order = np.argsort(-pairs.max((1, 2)), kind="stable")[:5]
        expanded = unit(np.mean([gallery[item, pairs[item].max(0).argmax()] for item in order], axis=0))
        scores = (gallery @ expanded).max(1)
        assert list(ranking.ids) == [IDS[place] for place in np.argsort(-scores, kind="stable")]
        assert ranking.scores.tolist() == pytest.approx(sorted(scores, reverse=True), abs=1e-5)
        best = (gallery @ expanded).argmax(1)
        assert [shown["region"] for shown in ranking.evidence] == [best[IDS.index(key)] for key in ranking.ids]


def test_orders_of_earlier_stages_are_fused():
    chain = [stage("superglobal", p=3), stage("rank_fusion", keys=["score", "superglobal"], k=5)]
    found = Pipeline(flat(), chain, SHORTLIST).search(queries(), SHORTLIST)
    first = Pipeline(flat(), [], None).search(queries(), SHORTLIST)
    second = Pipeline(flat(), chain[:1], SHORTLIST).search(queries(), SHORTLIST)
    for ranking, a, b in zip(found, first, second, strict=True):
        wanted = {key: 1 / (6 + list(a.ids).index(key)) + 1 / (6 + list(b.ids).index(key)) for key in a.ids}
        assert ranking.scores.tolist() == pytest.approx(sorted(wanted.values(), reverse=True))
        assert [wanted[key] for key in ranking.ids] == pytest.approx(sorted(wanted.values(), reverse=True))


# What stages are given


def test_stages_see_the_shortlist_its_payloads_and_earlier_scores():
    first, second = Recorder(turn=True), Recorder()
    metadata = [{"width": 5}, {}, {}]
    found = Pipeline(flat(fingerprint="m"), [first, second], 4).search(
        queries(fingerprint="m"), 6, where={"label": "odd"}, query_metadata=metadata
    )
    plain = Pipeline(flat(), [], None).search(queries(), 6, where={"label": "odd"})
    for row in range(3):
        ids, scores = list(plain[row].ids), plain[row].scores.tolist()
        assert list(found[row].ids) == [*ids[3::-1], *ids[4:]]
        query, hits, query_metadata, hit_metadata = first.calls[row]
        assert (len(query), len(hits), query.fingerprint, hits.fingerprint) == (1, 4, "m", "m")
        assert query_metadata == metadata[row]
        places = [IDS.index(key) for key in ids[:4]]
        np.testing.assert_allclose(hits.vector, unit(GALLERY.numpy())[places], rtol=1e-6)
        np.testing.assert_allclose(query.vector[0], unit(QUERIES[row].numpy()), rtol=1e-6)
        for key, score, mapping in zip(ids, scores, hit_metadata, strict=False):
            assert mapping == {"label": "odd", "number": IDS.index(key), "id": key, "score": pytest.approx(score)}
        assert [mapping["id"] for mapping in second.calls[row][3]] == ids[3::-1]
        assert [mapping["Recorder"] for mapping in second.calls[row][3]] == [4, 3, 2, 1]
        assert found[row].evidence == [{"seen": key} for key in ids[3::-1]] + [{}, {}]
        assert (found[row].scores.diff() <= 0).all()


@pytest.mark.parametrize("metric", ["dot", "l2"])
def test_queries_of_other_metrics_stay_as_they_are(metric):
    recorder = Recorder()
    Pipeline(flat(metric), [recorder], 3).search(queries(), 3)
    assert torch.equal(torch.cat([call[0].vector for call in recorder.calls]), QUERIES)


def further(fingerprint=None, kinds=("local_map", "vector")):
    maps = normal(N, D, 2, 2, seed=5)

    def get(ids):
        places = [IDS.index(key) for key in ids]
        return Representation(vector=torch.zeros(len(ids), D), local_map=maps[places])

    return SimpleNamespace(get=get, kinds=kinds, fingerprint=fingerprint), maps


def test_further_fields_come_from_features_beside_the_index():
    extra, maps = further()
    recorder, asked = Recorder(("vector", "local_map")), Representation(local_map=normal(3, D, 2, 2, seed=6))
    found = Pipeline(flat(), [recorder], 5).search(queries(), 5, extra=extra, extra_queries=asked)
    for row, (query, hits, *_) in enumerate(recorder.calls):
        places = [IDS.index(key) for key in found[row].ids]
        assert torch.equal(hits.local_map, maps[places])
        assert torch.equal(query.local_map, asked.local_map[row : row + 1])
        np.testing.assert_allclose(hits.vector, unit(GALLERY.numpy())[places], rtol=1e-6)  # the index's own


# Edges


def test_more_than_there_is_nothing_and_no_hits():
    pipeline = Pipeline(flat(), [stage("superglobal"), stage("aqe", k=100)], 1000)
    assert [len(ranking) for ranking in pipeline.search(queries(), 1000)] == [N] * 3
    nothing = pipeline.search(queries(), 5, where={"label": "neither"})
    assert [len(ranking) for ranking in nothing] == [0] * 3
    assert pipeline.search(queries().rows(slice(0, 0)), 5) == []
    empty = Pipeline(zoo.create("index", "flat"), [stage("superglobal"), stage("aqe")], None)
    assert [len(ranking) for ranking in empty.search(queries(), 5)] == [0] * 3
    single = flat()
    single.remove(IDS[1:])
    alone = Pipeline(single, [stage("superglobal"), stage("aqe")], None)
    assert [list(ranking.ids) for ranking in alone.search(queries(), 5)] == [IDS[:1]] * 3
    assert [len(ranking) for ranking in alone.search(queries(), 5, exclude=[IDS[0], None, IDS[1]])] == [0, 1, 1]


class Loses(Recorder):
    def __call__(self, *arguments):
        found = super().__call__(*arguments)
        return Ranking(found.ids[1:], found.scores[1:])


@pytest.mark.parametrize(
    ("chain", "arguments", "message"),
    [
        ([], {"k": 0}, "k must be an integer of at least 1, got 0"),
        ([], {"exclude": ["a"]}, "exclude must be one per query, got 1 for 3 queries"),
        ([], {"query_metadata": [{}]}, "query_metadata must be one per query, got 1 for 3"),
        ([], {"extra_queries": queries().rows([0])}, "extra_queries must be one per query, got 1 for 3"),
        (
            ["r_match"],
            {},
            r"the query of the reranker r_match needs the representation fields \['local_map'\], .*\['vector'\]",
        ),
        (
            ["r_match"],
            {"extra_queries": Representation(local_map=normal(3, D, 2, 2))},
            r"r_match needs .*\['local_map'\] of the items, the index and the features beside it hold \['vector'\]",
        ),
        (
            ["regional_qe"],
            {
                "extra": SimpleNamespace(
                    get=lambda ids: Representation(regions=normal(len(ids), 2, D)), kinds=("regions",), fingerprint=None
                ),
                "extra_queries": Representation(regions=normal(3, 2, D)),
            },
            r"can't be searched by what the reranker regional_qe returns: .*\['vector'\], .*\['regions'",
        ),
        (
            [],
            {"extra": further("a")[0], "extra_queries": replace(queries(), fingerprint="b")},
            "extra holds features of the model a, extra_queries b",
        ),
        ([Loses()], {}, "the reranker Loses must return every hit of the shortlist once"),
    ],
)
def test_what_does_not_fit_is_refused(chain, arguments, message):
    stages = [stage(name) if isinstance(name, str) else name for name in chain]
    with pytest.raises(ValueError, match=message):
        Pipeline(flat(), stages, None).search(queries(), **{"k": 3, **arguments})


def test_a_shortlist_of_nothing_is_refused():
    with pytest.raises(ValueError, match="shortlist must be an integer of at least 1, got 0"):
        Pipeline(flat(), [], 0)
