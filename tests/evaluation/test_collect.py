"""Gathering over batches and ranks."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from zoo.evaluation.collect import Collector

CPU = torch.device("cpu")


def fill(collector, positions):
    for position in positions:
        index = torch.tensor([position])
        right = torch.tensor([float(position % 2), 1.0], dtype=torch.float64)
        rows = {"a": index[:, None].float(), "b": index.repeat(1, 2), "regions": index.repeat(1, 2, 3)}
        collector.add(index, rows, {"odd": right}, {"mask": index[:, None] > 2}, {"cells": index.repeat(2, 2)})


def check(collected, count):
    assert collected.index.tolist() == list(range(count))
    assert collected.vectors["a"].tolist() == [[float(i)] for i in range(count)]
    assert collected.vectors["b"].dtype == torch.int64
    assert collected.vectors["regions"].tolist() == [[[i] * 3] * 2 for i in range(count)]
    assert collected.fields["mask"].tolist() == [[i > 2] for i in range(count)]
    assert collected.scores == {"odd": (count // 2) / count}
    assert collected.sums["cells"].tolist() == [[sum(range(count))] * 2] * 2


def test_rows_come_back_in_the_order_of_the_split():
    collector = Collector()
    fill(collector, [3, 0, 4, 1, 2])
    check(collector.gather(CPU), 5)


def work(rank, path, shares):
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=len(shares))
    collector = Collector()
    fill(collector, shares[rank])
    check(collector.gather(CPU), sum(len(share) for share in shares))
    dist.destroy_process_group()


def test_two_ranks_with_uneven_shares(tmp_path):
    mp.start_processes(work, (tmp_path / "store", [[0, 2, 4], [1, 3]]), nprocs=2, start_method="fork")


def test_a_rank_without_any_batch(tmp_path):
    mp.start_processes(work, (tmp_path / "store", [[], [1, 0, 2]]), nprocs=2, start_method="fork")


def of_two_shapes():
    collector = Collector()
    collector.add(torch.tensor([0]), {}, {}, {"local_map": torch.zeros(1, 3, 4, 5)})
    collector.add(torch.tensor([1]), {}, {}, {"local_map": torch.zeros(1, 3, 5, 4)})
    return collector


def test_images_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match=r"local_map: all images must give one shape .*\[\(3, 4, 5\), \(3, 5, 4\)\]"):
        of_two_shapes().gather(CPU)


def refuse(rank, path):
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    with pytest.raises(ValueError, match="must give one shape"):
        (Collector() if rank else of_two_shapes()).gather(CPU)
    dist.destroy_process_group()


def test_two_shapes_of_one_rank_end_both(tmp_path):
    mp.start_processes(refuse, (tmp_path / "store",), nprocs=2, start_method="fork")
