"""Collecting what differs in length from rank to rank."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor

_DTYPES = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
)
_MAX_DIMENSIONS = 8


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenates the ranks' `rows (n_r, ...)` to `(sum n_r, ...)`, in rank order and on every rank.

    `n_r` may differ and may be zero, the other dimensions and the dtype have to agree. Returns `rows` itself where
    torch.distributed is not initialised. A collective call: every rank has to make it, with rows on a device that
    the process group serves. Gradients don't pass.
    Raises ValueError, on all ranks alike, for rows that disagree or can't be gathered.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return rows
    # Ranks check each other's headers, not their own rows: if one raised alone, the others would wait for it.
    headers = _all_gather(_header(rows))
    _check(headers)
    lengths = [int(header[2]) for header in headers]
    width = math.prod(rows.shape[1:]) * rows.element_size()
    padded = torch.zeros(max(lengths), width, dtype=torch.uint8, device=rows.device)
    if rows.numel():
        # As bytes, because backends know only some dtypes.
        padded[: len(rows)] = rows.detach().contiguous().flatten().view(torch.uint8).view(len(rows), width)
    received = torch.cat([part[:length] for part, length in zip(_all_gather(padded), lengths, strict=True)])
    return received.flatten().view(rows.dtype).view(sum(lengths), *rows.shape[1:])


def _all_gather(tensor: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor)
    return parts


def _header(rows: Tensor) -> Tensor:
    dtype = _DTYPES.index(rows.dtype) if rows.dtype in _DTYPES else -1
    shape = list(rows.shape[:_MAX_DIMENSIONS])
    padding = [0] * (_MAX_DIMENSIONS - len(shape))
    return torch.tensor([dtype, rows.ndim, *shape, *padding], dtype=torch.int64, device=rows.device)


def _check(headers: list[Tensor]) -> None:
    table = [header.tolist() for header in headers]
    if any(not 1 <= dimensions <= _MAX_DIMENSIONS for _, dimensions, *_ in table):
        counts = [dimensions for _, dimensions, *_ in table]
        raise ValueError(f"rows must have 1 to {_MAX_DIMENSIONS} dimensions on every rank, got {counts}")
    dtypes = [str(_DTYPES[code]) if code >= 0 else "another" for code, *_ in table]
    if "another" in dtypes or len(set(dtypes)) > 1:
        raise ValueError(f"rows must have the same real dtype on every rank, got {dtypes}")
    shapes = [tuple(shape[:dimensions]) for _, dimensions, *shape in table]
    if len({shape[1:] for shape in shapes}) > 1:
        raise ValueError(f"rows must agree in all but the first dimension on every rank, got {shapes}")
