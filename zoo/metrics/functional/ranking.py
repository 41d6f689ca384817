"""Where the relevant items of a ranking stand: on the CPU compiled loops, elsewhere whole batches with torch.

Both rank by score, highest first, and put the lower column first among equal scores. Ignored items are taken out of
the ranking before anything is counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from zoo.metrics.functional.rows import as_array, blocks, part

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.metrics.kernels import Work


class Retrieved(NamedTuple):
    """What a metric needs to know of each query's ranking down to a cut-off.

    `listed (Q,)` int64 relevant items in the list; `found (Q,)` int64 those at or above the cut-off; `last (Q,)` int64
    rank of the last one found, from 1, else 0; `area (Q,)` float64 sum over them of the precision, or of its mean with
    the precision one rank above.
    """

    listed: Tensor
    found: Tensor
    last: Tensor
    area: Tensor


def retrieved(scores: Tensor, relevant: Tensor, ignore: Tensor | None, k: int | None, trapezoid: bool) -> Retrieved:
    """Finds the relevant items among the k nearest of `scores (Q, N)`; arguments are taken as checked."""
    find = _retrieved_batched if scores.is_cuda else _retrieved_by_row
    k = scores.shape[1] if k is None else k
    found = [find(scores[rows].detach(), relevant[rows], part(ignore, rows), k, trapezoid) for rows in blocks(scores)]
    return Retrieved(*(torch.cat(columns) for columns in zip(*found, strict=True)))


def discounted(scores: Tensor, gains: Tensor, ignore: Tensor | None, k: int | None, exponential: bool) -> Tensor:
    """Sums the gains of the k nearest items over log2(rank + 1): (Q,) float64; arguments are taken as checked.

    `gains (Q, N)` are the grades g themselves, or 2^g - 1 where `exponential`.
    """
    find = _discounted_batched if scores.is_cuda else _discounted_by_row
    last = scores.shape[1] if k is None else min(k, scores.shape[1])
    weights = 1 / torch.arange(2, last + 2, dtype=torch.float64, device=scores.device).log2()
    sums = [
        find(scores[rows].detach(), gains[rows].detach(), part(ignore, rows), exponential, weights)
        for rows in blocks(scores)
    ]
    return torch.cat(sums)


# --- CPU: compiled loops over the rows of a block -------------------------------------------------------------------


def _retrieved_by_row(scores: Tensor, relevant: Tensor, ignore: Tensor | None, k: int, trapezoid: bool) -> Retrieved:
    from zoo.metrics import kernels

    bits, size = _bits(scores), len(scores)
    out = (np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size))
    floating = scores.is_floating_point()
    kernels.retrieve(bits, floating, _flags(relevant), _mask(ignore), k, trapezoid, _work(bits), out)
    return Retrieved(*(torch.from_numpy(column).to(scores.device) for column in out))


def _discounted_by_row(
    scores: Tensor, gains: Tensor, ignore: Tensor | None, exponential: bool, weights: Tensor
) -> Tensor:
    from zoo.metrics import kernels

    bits, sums = _bits(scores), np.empty(len(scores))
    values, floating = np.ascontiguousarray(as_array(gains)), scores.is_floating_point()
    kernels.discount(bits, floating, values, _mask(ignore), exponential, weights.cpu().numpy(), _work(bits), sums)
    return torch.from_numpy(sums).to(scores.device)


def _bits(scores: Tensor) -> np.ndarray:
    """Reads scores as integers of their width."""
    values = np.ascontiguousarray(as_array(scores))
    return values.view(np.int32 if values.itemsize == 4 else np.int64)


def _mask(ignore: Tensor | None) -> np.ndarray:
    """Returns an empty array, which stands for none, or the flags (Q, N)."""
    return np.empty((0, 0), dtype=bool) if ignore is None else _flags(ignore)


def _flags(mask: Tensor) -> np.ndarray:
    return np.ascontiguousarray(mask.cpu().numpy())


def _work(bits: np.ndarray) -> Work:
    from zoo.metrics.kernels import DIGIT, Work

    items = bits.shape[1]
    keys, places = np.empty(items, bits.dtype), np.arange(items, dtype=np.int32)
    return Work(keys, places, *(np.empty(items, np.int32) for _ in range(3)), np.empty(1 << DIGIT, np.int64))


# --- devices: whole batches of rows with torch ----------------------------------------------------------------------


def _order(scores: Tensor, ignore: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns the columns (Q, N), nearest first and ignored ones behind all others, and how many (Q, 1) are kept."""
    if scores.dtype == torch.bool:
        scores = scores.to(torch.uint8)
    order = (scores + 0).argsort(dim=1, descending=True, stable=True)  # + 0 turns -0 into 0, its equal
    if ignore is None:
        return order, torch.full_like(order[:, :1], scores.shape[1])
    order = order.gather(1, ignore.gather(1, order).to(torch.uint8).argsort(dim=1, stable=True))
    return order, (~ignore).sum(dim=1, keepdim=True)


def _retrieved_batched(scores: Tensor, relevant: Tensor, ignore: Tensor | None, k: int, trapezoid: bool) -> Retrieved:
    order, kept = _order(scores, ignore)
    ranks = torch.arange(1, scores.shape[1] + 1, device=scores.device)
    listed = relevant.gather(1, order) & (ranks <= kept)
    hits = listed & (ranks <= k)
    found = hits.cumsum(dim=1)
    precision = found / ranks.to(torch.float64)
    if trapezoid:
        above = torch.ones_like(precision)
        above[:, 1:] = (found[:, 1:] - 1) / ranks[:-1].to(torch.float64)
        precision = (precision + above) / 2
    last = torch.where(hits, ranks, 0)
    last = last.amax(dim=1) if ranks.numel() else last.sum(dim=1)  # there is no maximum of nothing
    return Retrieved(listed.sum(dim=1), hits.sum(dim=1), last, torch.where(hits, precision, 0).sum(dim=1))


def _discounted_batched(
    scores: Tensor, gains: Tensor, ignore: Tensor | None, exponential: bool, weights: Tensor
) -> Tensor:
    order, kept = _order(scores, ignore)
    chosen = gains.gather(1, order[:, : len(weights)]).to(torch.float64)
    chosen = torch.exp2(chosen) - 1 if exponential else chosen
    behind = torch.arange(len(weights), device=scores.device) >= kept
    return (chosen * weights).masked_fill(behind, 0).sum(dim=1)
