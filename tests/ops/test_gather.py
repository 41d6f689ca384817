"""`gather_rows` on two and on three gloo processes."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes

from zoo.ops.gather import gather_rows

DTYPES = [
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.bool, torch.uint8, torch.int16, torch.int32, torch.int64),
]


def part(rank: int, length: int, trailing: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rank)
    return torch.randint(0, 100, (length, *trailing), generator=generator).sub(50).abs().to(dtype)


def check_values(rank: int, world: int) -> None:
    for lengths in ([3, 1, 2], [0, 4, 1], [2, 0, 0], [0, 0, 0]):
        for trailing in ((), (3,), (2, 3), (0,)):
            for dtype in DTYPES:
                parts = [part(r, lengths[r], trailing, dtype) for r in range(world)]
                gathered = gather_rows(parts[rank])
                assert gathered.dtype == dtype
                assert torch.equal(gathered, torch.cat(parts))
    strided = part(rank, 4, (rank + 2,), torch.float32).T.requires_grad_()
    expected = torch.cat([part(r, 4, (r + 2,), torch.float32).T for r in range(world)])
    assert torch.equal(gather_rows(strided), expected)


def check_refusals(rank: int) -> None:
    first = rank == 0
    with pytest.raises(ValueError, match=r"same real dtype on every rank, got .*float32.*float64"):
        gather_rows(torch.zeros(2, dtype=torch.float32 if first else torch.float64))
    with pytest.raises(ValueError, match=r"same real dtype on every rank, got .*another"):
        gather_rows(torch.zeros(2, dtype=torch.cfloat if first else torch.float32))
    with pytest.raises(ValueError, match=r"all but the first dimension on every rank, got \[\(2, 3\), \(5, 4\)"):
        gather_rows(torch.zeros(2, 3) if first else torch.zeros(5, 4))
    with pytest.raises(ValueError, match="1 to 8 dimensions on every rank, got"):
        gather_rows(torch.tensor(1.0) if first else torch.zeros(1))


def rank_main(rank: int, world: int, rendezvous: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world, timeout=timedelta(seconds=20)
    )
    check_values(rank, world)
    check_refusals(rank)
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [1, 2, 3])
def test_rows_arrive_in_rank_order_and_misfits_fail_everywhere(tmp_path, world):
    if world == 1:
        rows = torch.randn(3, 2)
        assert gather_rows(rows) is rows
        return
    start_processes(rank_main, args=(world, str(tmp_path / "rendezvous")), nprocs=world, start_method="fork")
