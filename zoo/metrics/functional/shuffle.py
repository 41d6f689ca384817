"""How much of a ranking is lost to distractors that show the right parts in the wrong arrangement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.metrics.functional.checks import check_mask, check_rows
from zoo.metrics.functional.relevance import average_precision

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.metrics.functional.relevance import Convention


def shuffle_gap(
    scores: Tensor,
    relevant: Tensor,
    distractors: Tensor,
    ignore: Tensor | None = None,
    k: int | None = None,
    convention: Convention = "finite",
    n_relevant: Tensor | None = None,
) -> Tensor:
    """Average precision without distractors minus that with them, of each query's ranking.

    `distractors (Q, N)` bool are irrelevant items, such as shuffled copies of relevant images (Sec. 4.1 of Chen et al.
    2019): first they are taken out of the ranking, then they stay in. The other arguments are as in
    `average_precision`. Returns `(Q,)` float64 from 0, where none stands above a relevant item, to below 1; NaN for a
    query without relevant items. Raises ValueError as `average_precision` does, and for an item that is relevant and a
    distractor, unless it is ignored.
    """
    check_rows("scores", scores)
    for name, mask in (("relevant", relevant), ("distractors", distractors), ("ignore", ignore)):
        check_mask(name, mask, "scores", scores)
    both = relevant & distractors if ignore is None else relevant & distractors & ~ignore
    if both.any():
        query = int(both.any(dim=1).nonzero()[0])
        raise ValueError(f"distractors must not be relevant, got {int(both[query].sum())} that are in query {query}")
    without = distractors if ignore is None else distractors | ignore
    clean, shuffled = (average_precision(scores, relevant, out, k, n_relevant, convention) for out in (without, ignore))
    return clean - shuffled
