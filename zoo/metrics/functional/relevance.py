"""Metrics of rankings in which an item is relevant, irrelevant or junk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from zoo.checks import check_words
from zoo.metrics.functional.checks import (
    check_counts,
    check_cutoff,
    check_mask,
    check_rows,
    refuse_nan,
)
from zoo.metrics.functional.ranking import Retrieved, retrieved

if TYPE_CHECKING:
    from torch import Tensor

Convention = Literal["finite", "trapezoid"]


def average_precision(
    scores: Tensor,
    relevant: Tensor,
    ignore: Tensor | None = None,
    k: int | None = None,
    n_relevant: Tensor | None = None,
    convention: Convention = "finite",
) -> Tensor:
    """Average precision of each query's ranking.

    `scores (Q, N)` are floats of any width or integers, unsorted, higher = nearer; of equal scores the lower column
    ranks first. `relevant (Q, N)` bool. Where `ignore (Q, N)` bool is true, the item (junk, the query itself, padding)
    is taken out before ranking, whatever `relevant` says and whatever stands there, NaN included.

    `finite` sums the precision at the ranks of the relevant items and divides by their number, or by min(k, number)
    when only the first `k` items count. `trapezoid` is the area under the precision-recall curve by the trapezoidal
    rule, as in the evaluators of Oxford and Paris Buildings (Philbin et al. 2007) and of their revisited forms
    (Radenović et al. 2018): each relevant item adds the mean of the precision at its rank and one rank above, where it
    is 1 above the first rank.

    `n_relevant (Q,)` integers is the number of relevant items, junk left out, for partial rankings: items that are not
    listed count as not retrieved. Returns `(Q,)` float64 on the device of `scores`, NaN for a query without relevant
    items. Raises ValueError for misfits, for NaN, for an `n_relevant` below the number of relevant items listed, and
    for `k` with `trapezoid`, which is defined on whole rankings.
    """
    check_convention(convention, k)
    found, total = _retrieved(scores, relevant, ignore, k, n_relevant, trapezoid=convention == "trapezoid")
    return _defined(found.area / (total if k is None else total.clamp(max=k)), total)


def precision_at_k(
    scores: Tensor,
    relevant: Tensor,
    k: int,
    ignore: Tensor | None = None,
    capped: bool = True,
    n_relevant: Tensor | None = None,
) -> Tensor:
    """Share of relevant items among the first `k` of each query's ranking.

    `capped` lowers k to the rank of the last relevant item, as the public evaluator of the revisited Oxford and Paris
    (Radenović et al. 2018) does, so that a perfect ranking scores 1; in a partial ranking, that rank is known only
    where all `n_relevant` are listed. Otherwise it is the textbook's, found / k. Arguments, result and errors as in
    `average_precision`.
    """
    check_cutoff(k)
    found, total = _retrieved(scores, relevant, ignore, k, n_relevant)
    cutoff = torch.where(found.found == total, found.last, k) if capped else k
    return _defined(found.found.to(torch.float64) / cutoff, total)


def recall_at_k(
    scores: Tensor,
    relevant: Tensor,
    k: int,
    ignore: Tensor | None = None,
    n_relevant: Tensor | None = None,
    any_hit: bool = True,
) -> Tensor:
    """Recall among the first `k` of each query's ranking.

    With `any_hit`, as in place recognition, 1 where any relevant item is among them and else 0; without, the share of
    the relevant items that are. Arguments, result and errors as in `average_precision`.
    """
    check_cutoff(k)
    found, total = _retrieved(scores, relevant, ignore, k, n_relevant)
    return _defined((found.found > 0).to(torch.float64) if any_hit else found.found / total.to(torch.float64), total)


def check_convention(convention: str, k: int | None) -> None:
    """Raises ValueError for an unknown convention of average precision, or one that allows no cut-off."""
    check_words(convention=(convention, ("finite", "trapezoid")))
    if k is None:
        return
    check_cutoff(k)
    if convention == "trapezoid":
        raise ValueError(f"k must be None with convention='trapezoid', which needs the whole ranking, got {k}")


def _retrieved(
    scores: Tensor,
    relevant: Tensor,
    ignore: Tensor | None,
    k: int | None,
    n_relevant: Tensor | None,
    trapezoid: bool = False,
) -> tuple[Retrieved, Tensor]:
    """Checks the arguments and returns what is found and the number of relevant items (Q,)."""
    check_rows("scores", scores)
    check_mask("relevant", relevant, "scores", scores)
    check_mask("ignore", ignore, "scores", scores)
    check_counts(n_relevant, scores)
    refuse_nan("scores", scores, ignore)
    found = retrieved(scores, relevant, ignore, k, trapezoid)
    if n_relevant is None:
        return found, found.listed
    short = n_relevant < found.listed
    if short.any():
        query = int(short.nonzero()[0])
        raise ValueError(
            f"n_relevant must count every relevant item that is listed, got {int(n_relevant[query])} "
            f"for {int(found.listed[query])} in query {query}"
        )
    return found, n_relevant.to(torch.int64)


def _defined(values: Tensor, total: Tensor) -> Tensor:
    return torch.where(total > 0, values, torch.nan)
