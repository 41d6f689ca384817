"""The metric classes: their labels, one call of a collection for all, and two gloo processes against one."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from scipy import stats
from torch.multiprocessing import start_processes
from torchmetrics import MetricCollection

import zoo
from zoo.metrics import functional
from zoo.metrics.map import RetrievalMAP
from zoo.metrics.ndcg import RetrievalNDCG
from zoo.metrics.precision import RetrievalPrecision
from zoo.metrics.recall import RetrievalRecall
from zoo.metrics.spearman import RankSpearman

QUERIES = 23


def inputs() -> dict[str, torch.Tensor]:
    """Partial rankings with junk; query 5 has nothing relevant, query 6 something that is not listed."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(QUERIES, 40, generator=generator)
    gains = torch.randint(0, 4, scores.shape, generator=generator) * (
        scores + torch.randn(scores.shape, generator=generator) > 1
    )
    gains[5] = 0
    ignore = torch.eye(QUERIES, 40) > 0
    relevant = gains > 1
    n_relevant = (relevant & ~ignore).sum(dim=1)
    n_relevant[6] += 3
    ideal = torch.cat([gains.masked_fill(ignore, 0), torch.full((QUERIES, 1), 0)], dim=1)
    ideal[6, -1] = 3
    query = torch.randperm(QUERIES, generator=generator)
    relation = {"a": scores, "b": gains}  # what RankSpearman takes
    found = {"scores": scores, "gains": gains, "relevant": relevant, "ignore": ignore, "ideal": ideal, "query": query}
    return {**found, **relation, "n_relevant": n_relevant}


def expected() -> dict[str, torch.Tensor]:
    """What the functions give, by label."""
    x = inputs()
    ranking, graded = (x["scores"], x["relevant"]), (x["scores"], x["gains"])
    junk = {"ignore": x["ignore"]}
    known, best = {**junk, "n_relevant": x["n_relevant"]}, {**junk, "ideal": x["ideal"]}
    return {
        "map": functional.average_precision(*ranking, **known),
        "map@10": functional.average_precision(*ranking, k=10, **known),
        "map_trapezoid": functional.average_precision(*ranking, convention="trapezoid", **known),
        "mp@5": functional.precision_at_k(*ranking, 5, **known),
        "p@5": functional.precision_at_k(*ranking, 5, capped=False, **known),
        "recall@5": functional.recall_at_k(*ranking, 5, **known),
        "recall_fraction@5": functional.recall_at_k(*ranking, 5, any_hit=False, **known),
        "ndcg": functional.ndcg(*graded, **best),
        "ndcg@10": functional.ndcg(*graded, 10, **best),
        "ndcg_exp@10": functional.ndcg(*graded, 10, gain="exponential", **best),
        "spearman": functional.spearman(*graded, **junk),
    }


def metrics(per_query: bool) -> MetricCollection:
    kept = {"per_query": per_query}
    made = [
        RetrievalMAP(k=None, convention="finite", **kept),
        RetrievalMAP(k=10, convention="finite", **kept),
        RetrievalMAP(k=None, convention="trapezoid", **kept),
        RetrievalPrecision(k=5, capped=True, **kept),
        RetrievalPrecision(k=5, capped=False, **kept),
        RetrievalRecall(k=5, any_hit=True, **kept),
        RetrievalRecall(k=5, any_hit=False, **kept),
        RetrievalNDCG(k=None, gain="linear", **kept),
        RetrievalNDCG(k=10, gain="linear", **kept),
        RetrievalNDCG(k=10, gain="exponential", **kept),
        RankSpearman(**kept),
    ]
    return MetricCollection({metric.label: metric for metric in made})


def filled(parts: list[slice], per_query: bool) -> MetricCollection:
    found = metrics(per_query)
    for part in parts:
        found.update(**{name: values[part] for name, values in inputs().items()})
    return found


def check(found: MetricCollection, per_query: bool) -> None:
    x = inputs()
    means = found.compute()
    for label, values in expected().items():
        metric, defined = found[label], values[~values.isnan()]
        assert 0 < metric.half_width() < 0.3
        assert metric.half_width().item() == pytest.approx(
            stats.t.ppf(0.975, len(defined) - 1) * stats.sem(defined.numpy()), abs=1e-10
        )
        assert means[label].item() == pytest.approx(defined.mean().item(), abs=1e-12)
        if per_query:
            ids, kept = metric.per_query_values()
            assert ids.tolist() == list(range(QUERIES))
            torch.testing.assert_close(kept, values[x["query"].argsort()], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("per_query", [True, False])
def test_one_call_of_a_collection_serves_all(per_query):
    found = filled([slice(0, 7), slice(7, 7), slice(7, None)], per_query)
    assert set(found) == set(expected())
    check(found, per_query)
    assert all(metric.undefined == 1 for metric in found.values())


def test_measures_that_agree_on_the_first_batch_stay_apart():
    relevant = torch.tensor([[True, False, False]])
    found = MetricCollection(
        {str(k): RetrievalRecall(k=k, any_hit=True, per_query=per_query) for k, per_query in ((1, 0), (2, 0), (3, 1))}
    )
    query = torch.tensor([0])
    found.update(scores=torch.tensor([[3, 2, 1]]), relevant=relevant, query=query)
    for scores in ([[2, 3, 1]], [[1, 2, 3]]):
        found.update(scores=torch.tensor(scores), relevant=relevant, query=query)
    assert [found[k].total.item() for k in "123"] == [1, 2, 3]


def test_a_rejected_batch_leaves_the_state_alone():
    metric = RetrievalRecall(k=1, any_hit=True, per_query=True)
    scores = torch.rand(2, 3)
    with pytest.raises(ValueError, match="query must hold the queries' ids when per_query is set, got None"):
        metric.update(scores, scores > 0)
    with pytest.raises(ValueError, match="scores must not hold NaN"):
        metric.update(scores / 0 * 0, scores > 0, query=torch.arange(2))
    assert metric.count == metric.undefined == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RetrievalMAP(k=5, convention="trapezoid", per_query=False), "k must be None with"),
        (lambda: RetrievalMAP(k=None, convention="oxford", per_query=False), "convention must be one of"),
        (lambda: RetrievalPrecision(k=0, capped=True, per_query=False), "k must be an integer of at least 1, got 0"),
        (lambda: RetrievalRecall(k=None, any_hit=True, per_query=False), "k must be an integer of at least 1"),
        (lambda: RetrievalNDCG(k=0, gain="linear", per_query=False), "k must be an integer of at least 1, got 0"),
        (lambda: RetrievalNDCG(k=5, gain="square", per_query=False), "gain must be one of"),
    ],
)
def test_settings_are_refused_at_construction(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("name", "settings", "label"),
    [
        ("map", {}, "map"),
        ("precision", {"k": 5}, "mp@5"),
        ("recall", {"k": 20}, "recall@20"),
        ("ndcg", {"gain": "exponential"}, "ndcg_exp"),
        ("spearman", {}, "spearman"),
    ],
)
def test_registered_names_and_labels(name, settings, label):
    assert zoo.create("metrics", name, **settings).label == label


def rank_main(rank: int, rendezvous: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    # Uneven sizes in batches of uneven number; one rank without any query; the same on the other rank.
    splits = [
        [[slice(0, 6), slice(6, 13)], [slice(13, None)]],
        [[slice(None)], []],
        [[], [slice(0, 2), slice(2, None)]],
    ]
    for per_query in (True, False):
        for split in splits:
            check(filled(split[rank], per_query), per_query)
    dist.destroy_process_group()


def test_two_processes_agree_with_one(tmp_path):
    check(filled([slice(None)], True), True)  # compiles before the fork
    start_processes(rank_main, args=(str(tmp_path / "rendezvous"),), nprocs=2, start_method="fork")
