"""How the metric functions go through the rows of their arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from torch import Tensor

_CPU_BLOCK = 1 << 20  # elements: some MiB, in few enough blocks that calls cost little
_DEVICE_BLOCK = 1 << 24  # elements sorted at once on a device, so that its scratch memory stays below some GiB
_NARROW = (torch.float16, torch.bfloat16, torch.bool, torch.uint8, torch.int8, torch.int16)


def blocks(values: Tensor) -> Iterator[slice]:
    """Yields slices of the rows of `values (Q, N)`, at least one: memory for a block is all that a metric needs."""
    budget = _DEVICE_BLOCK if values.is_cuda else _CPU_BLOCK
    step = max(1, budget // max(1, values.shape[1]))
    for start in range(0, max(1, len(values)), step):
        yield slice(start, start + step)


def part(values: Tensor | None, rows: slice) -> Tensor | None:
    """Returns these rows of an argument that may be left out."""
    return None if values is None else values[rows]


def as_array(values: Tensor) -> np.ndarray:
    """Widens what NumPy doesn't know or the loops do without to float32 or int32, without loss."""
    if values.dtype in _NARROW:
        values = values.to(torch.float32 if values.is_floating_point() else torch.int32)
    return values.cpu().numpy()
