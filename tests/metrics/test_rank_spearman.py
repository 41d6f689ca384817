"""`RankSpearman` on one process and on two gloo processes against the same queries at once."""

from __future__ import annotations

import os
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist
from scipy import stats
from torch.multiprocessing import start_processes
from torchmetrics import MetricCollection

from zoo.metrics.functional import spearman
from zoo.metrics.spearman import RankSpearman, export

QUERIES = 21


def queries() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 12, (QUERIES, 50), generator=generator) / 4
    distances = truth + torch.randn(truth.shape, generator=generator)
    truth[5] = 1.0  # undefined
    return distances, truth, torch.eye(QUERIES, 50) > 0, torch.randperm(QUERIES, generator=generator)


def filled(parts: list[slice], per_query: bool = True) -> RankSpearman:
    a, b, ignore, ids = queries()
    metric = RankSpearman(per_query=per_query)
    for part in parts:
        metric.update(a[part], b[part], ignore[part], ids[part])
    return metric


def test_mean_interval_and_values_are_those_of_scipy():
    a, b, ignore, ids = queries()
    metric = filled([slice(0, 8), slice(8, 8), slice(8, None)])
    values = spearman(a, b, ignore).numpy()
    defined = values[~np.isnan(values)]
    assert len(defined) == QUERIES - 1
    assert metric.undefined == 1
    assert metric.compute().item() == pytest.approx(defined.mean(), abs=1e-12)
    low, high = stats.t.interval(0.95, len(defined) - 1, loc=defined.mean(), scale=stats.sem(defined))
    assert metric.half_width().item() == pytest.approx((high - low) / 2, abs=1e-10)
    found_ids, found = metric.per_query_values()
    assert found_ids.tolist() == list(range(QUERIES))
    assert np.array_equal(found.numpy(), values[ids.argsort().numpy()], equal_nan=True)


@pytest.mark.parametrize("per_query", [True, False])
def test_no_query_and_one_query(per_query):
    metric = RankSpearman(per_query=per_query)
    assert metric.half_width().isnan()
    a = torch.arange(4.0)[None]
    metric.update(a, a, query=torch.tensor([7]))
    assert metric.compute() == 1
    assert metric.half_width().isnan()
    metric.update(-a, a, query=torch.tensor([3]))
    assert metric.compute() == 0
    assert metric.half_width().item() == pytest.approx(stats.t.ppf(0.975, 1), rel=1e-9)
    metric.reset()
    assert metric.count == 0
    if per_query:
        assert [len(x) for x in metric.per_query_values()] == [0, 0]


def test_equal_values_give_no_negative_variance():
    metric = RankSpearman(per_query=False)
    a = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]])
    metric.update(a.repeat(9, 1), a[:, [1, 0, 2, 4, 3]].repeat(9, 1))
    assert metric.half_width().item() == pytest.approx(0, abs=1e-7)


def test_serves_a_collection_forward_and_clones():
    assert export is RankSpearman
    a, b, ignore, ids = queries()
    collection = MetricCollection({"soft": RankSpearman(per_query=False), "kept": RankSpearman(per_query=True)})
    step = collection(a[:4], b[:4], ignore=ignore[:4], query=ids[:4])
    collection.update(a[4:], b[4:], ignore=ignore[4:], query=ids[4:])
    whole = filled([slice(None)])
    assert step["soft"].item() == pytest.approx(spearman(a[:4], b[:4], ignore[:4]).mean().item())
    for value in collection.compute().values():
        assert value.shape == ()
        assert value.item() == pytest.approx(whole.compute().item(), abs=1e-12)
    moved = collection.clone(prefix="val/").to("cpu")
    assert set(moved.compute()) == {"val/soft", "val/kept"}
    assert torch.equal(moved["kept"].per_query_values()[0], whole.per_query_values()[0])


def test_misuse_is_refused_and_leaves_the_state_alone():
    a = torch.randn(2, 5)
    metric = RankSpearman(per_query=True)
    with pytest.raises(ValueError, match="query must hold the queries' ids when per_query is set, got None"):
        metric.update(a, a)
    for wrong in (torch.tensor([1]), torch.tensor([1.0, 2.0])):
        with pytest.raises(ValueError, match=r"query must be int64 of shape \(2,\)"):
            metric.update(a, a, query=wrong)
    assert metric.count == 0
    with pytest.raises(RuntimeError, match="per_query_values needs per_query=True"):
        RankSpearman(per_query=False).per_query_values()


def compare_with_one_process(metric: RankSpearman, whole: RankSpearman) -> None:
    torch.testing.assert_close(metric.half_width(), whole.half_width(), rtol=0, atol=1e-12)
    torch.testing.assert_close(metric.compute(), whole.compute(), rtol=0, atol=1e-12)
    if metric.per_query:
        torch.testing.assert_close(metric.per_query_values(), whole.per_query_values(), rtol=0, atol=0, equal_nan=True)
    metric.sync()  # by hand, as evaluation code may do around several calls
    assert metric.undefined == 1
    torch.testing.assert_close(metric.half_width(), whole.half_width(), rtol=0, atol=1e-12)
    if metric.per_query:
        assert len(metric.per_query_values()[0]) == QUERIES
    metric.unsync()


def rank_main(rank: int, rendezvous: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    whole = {per_query: filled([slice(None)], per_query) for per_query in (False, True)}
    dist.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2, timeout=timedelta(seconds=20)
    )
    # Uneven sizes in batches of uneven number; one rank without any query; the same on the other rank.
    splits = [
        [[slice(0, 6), slice(6, 13)], [slice(13, None)]],
        [[slice(None)], []],
        [[], [slice(0, 2), slice(2, None)]],
    ]
    for per_query, reference in whole.items():
        reference.distributed_available_fn = lambda: False
        for split in splits:
            metric = filled(split[rank], per_query)
            local = int(metric.count + metric.undefined)
            compare_with_one_process(metric, reference)
            assert metric.count + metric.undefined == local
    empty = RankSpearman(per_query=True)
    assert empty.half_width().isnan()
    assert [len(x) for x in empty.per_query_values()] == [0, 0]
    dist.destroy_process_group()


def test_two_processes_agree_with_one(tmp_path):
    start_processes(rank_main, args=(str(tmp_path / "rendezvous"),), nprocs=2, start_method="fork")
