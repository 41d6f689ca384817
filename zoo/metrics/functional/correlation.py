"""Spearman's rank correlation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from zoo.metrics.functional.checks import check_like, check_mask, check_rows, refuse_nan
from zoo.metrics.functional.rows import as_array, blocks

if TYPE_CHECKING:
    from torch import Tensor

_STEPS_PER_UNIT = 16  # ground truths in multiples of 1/16 are ranked by counting; soft edit distances are 1/A apart
_PROBE = 64
_INT32 = np.iinfo(np.int32)
_INDEX_MASK = np.int64(0xFFFFFFFF)


def spearman(a: Tensor, b: Tensor, ignore: Tensor | None = None) -> Tensor:
    """Spearman's rank correlation of each query's two rows, ties sharing their average rank.

    `a (Q, N)` and `b (Q, N)` must run in the same sense: two distances, or two scores. Both may be floats of any width
    or integers, and float64 is ranked without rounding. Where `ignore (Q, N)` bool is true, the item (for instance the
    query itself) is taken out before ranking; what stands there does not matter, NaN included.
    Returns `(Q,)` float64 on the device of `a`, NaN for a query with fewer than two items or with a constant row.
    Raises ValueError for shapes or devices that differ and for NaN, TypeError for dtypes that have no order.
    """
    check_rows("a", a)
    check_like("b", b, "a", a)
    check_rows("b", b)
    check_mask("ignore", ignore, "a", a)
    for name, values in (("a", a), ("b", b)):
        refuse_nan(name, values, ignore)
    a, b = a.detach(), b.detach()
    return _spearman_batched(a, b, ignore) if a.is_cuda else _spearman_by_row(a, b, ignore)


# --- CPU: row by row, which stays in the cache; NumPy's sorts use AVX-512 or AVX2 where torch's don't ---------------


def _spearman_by_row(a: Tensor, b: Tensor, ignore: Tensor | None) -> Tensor:
    rho = np.empty(len(a))
    for query in range(len(a)):
        row_a, row_b = as_array(a[query]), as_array(b[query])
        if ignore is not None:
            keep = ~ignore[query].cpu().numpy()
            row_a, row_b = row_a[keep], row_b[keep]
        rho[query] = _correlate(_centred_ranks(row_a), _centred_ranks(row_b)) if len(row_a) > 1 else np.nan
    return torch.from_numpy(rho).to(a.device)


def _correlate(a: np.ndarray, b: np.ndarray) -> float:
    variance = float(a @ a) * float(b @ b)
    return min(1.0, max(-1.0, float(a @ b) / variance**0.5)) if variance > 0 else np.nan


def _centred_ranks(row: np.ndarray) -> np.ndarray:
    """Twice the average rank, minus its mean: integers, so that float64 sums of their products are exact."""
    codes = _small_codes(row)
    if codes is not None:
        counts = np.bincount(codes)
        return (2 * np.cumsum(counts) - counts - len(row)).astype(np.float64)[codes]
    order, first = _sort_packed(row) if row.itemsize == 4 else _sort_wide(row)
    ranks = np.empty(len(row))
    if first.all():
        ranks[order] = np.arange(1 - len(row), len(row), 2)
        return ranks
    starts = np.flatnonzero(first)
    ends = np.append(starts[1:], len(row))
    ranks[order] = np.repeat((starts + ends - len(row)).astype(np.float64), ends - starts)
    return ranks


def _small_codes(row: np.ndarray) -> np.ndarray | None:
    """Numbers the possible values of a discrete row in order; None if they are not few and evenly spaced."""
    steps = _STEPS_PER_UNIT if row.dtype.kind == "f" else 1
    low, high = row.min().item() * steps, row.max().item() * steps
    if not (high - low < len(row) and max(-low, high) <= _INT32.max):
        return None
    factor = row.dtype.type(steps)  # a power of two: the products are exact
    probe = row[:_PROBE] * factor
    if steps > 1 and not np.array_equal(probe, np.rint(probe)):
        return None
    scaled = row * factor
    codes = scaled.astype(np.int64)
    if steps > 1 and not np.array_equal(codes, scaled):
        return None
    return codes - int(low)


def _sort_packed(row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the order of 32-bit values and where in it a new value begins."""
    if row.dtype.kind == "f":
        bits = (row + np.float32(0)).view(np.int32)  # + 0 turns -0 into 0, its equal
        row = bits ^ ((bits >> 31) & _INT32.max)
    # One sort of key and position in an int64 is several times faster than an argsort.
    packed = (row.astype(np.int64) << 32) | np.arange(len(row))
    packed.sort()
    return packed & _INDEX_MASK, _begins(packed >> 32)


def _sort_wide(row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `_sort_packed` for 64-bit values: sorts them rounded, then puts right those that rounding has merged."""
    with np.errstate(over="ignore"):
        rounded = row.astype(np.float32)
    order, first = _sort_packed(rounded)
    if row.dtype.kind == "f" and np.array_equal(rounded, row):
        return order, first
    alone = first & np.append(first[1:], True)
    merged = np.flatnonzero(~alone)
    # Rounding is monotone: the merged values as a whole stand in the right places, so one sort serves all runs.
    items = order[merged]
    order[merged] = items[np.argsort(row[items])]
    return order, _begins(row[order])


def _begins(ranked: np.ndarray) -> np.ndarray:
    first = np.ones(len(ranked), dtype=bool)
    np.not_equal(ranked[1:], ranked[:-1], out=first[1:])
    return first


# --- devices: whole batches of rows with torch ----------------------------------------------------------------------


def _spearman_batched(a: Tensor, b: Tensor, ignore: Tensor | None) -> Tensor:
    rho = a.new_empty(len(a), dtype=torch.float64)
    for rows in blocks(a):
        drop = torch.zeros_like(a[rows], dtype=torch.bool) if ignore is None else ignore[rows]
        x, y = _centred_ranks_batched(a[rows], drop), _centred_ranks_batched(b[rows], drop)
        variance = x.square().sum(dim=1) * y.square().sum(dim=1)
        rho[rows] = ((x * y).sum(dim=1) / variance.sqrt()).clamp(-1, 1)
    return rho


def _centred_ranks_batched(values: Tensor, ignore: Tensor) -> Tensor:
    """As `_centred_ranks` for (Q, N); zero for ignored items, which are sorted behind all others."""
    if values.dtype == torch.bool:
        values = values.to(torch.uint8)
    values = values + 0  # turns -0 into 0: a radix sort may tell them apart
    order = values.argsort(dim=1, stable=True)
    order = order.gather(1, ignore.gather(1, order).to(torch.uint8).argsort(dim=1, stable=True))
    ranked = values.gather(1, order)
    size = values.shape[1]
    kept = (~ignore).sum(dim=1, keepdim=True)
    position = torch.arange(size, device=values.device).expand_as(order)
    first = position == 0
    first[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    first |= position == kept
    last = torch.ones_like(first)
    last[:, :-1] = first[:, 1:]
    start = torch.where(first, position, 0).cummax(dim=1).values
    end = torch.where(last, position + 1, size).flip(1).cummin(dim=1).values.flip(1)
    doubled = torch.where(position < kept, start + end - kept, 0).to(torch.float64)
    return torch.zeros_like(doubled).scatter_(1, order, doubled)
