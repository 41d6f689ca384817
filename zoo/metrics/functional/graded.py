"""Metrics of rankings in which items are relevant by degrees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from zoo.checks import check_words
from zoo.metrics.functional.checks import (
    check_cutoff,
    check_ideal,
    check_like,
    check_mask,
    check_rows,
    refuse_nan,
    refuse_unfit_gains,
)
from zoo.metrics.functional.ranking import discounted

if TYPE_CHECKING:
    from torch import Tensor

Gain = Literal["linear", "exponential"]


def ndcg(
    scores: Tensor,
    gains: Tensor,
    k: int | None = None,
    ignore: Tensor | None = None,
    gain: Gain = "linear",
    ideal: Tensor | None = None,
) -> Tensor:
    """Normalised discounted cumulative gain of each query's ranking, down to rank `k` or whole.

    `scores (Q, N)` and `ignore (Q, N)` are as in `average_precision`, ties included: equal scores share no gain, the
    lower column comes first. `gains (Q, N)` are grades of any real type, finite and not negative. An item of grade g
    at rank r = 1, 2, … adds g / log2(r + 1) (`linear`, Järvelin and Kekäläinen 2002) or (2^g - 1) / log2(r + 1)
    (`exponential`, Burges et al. 2005); the sum is divided by the one of the best ranking.

    `ideal (Q, M)` holds the grades of all items of the gallery, in any order and padded with 0, for partial rankings:
    without it the listed items are taken for all. Returns `(Q,)` float64 on the device of `scores`, NaN where all
    grades are 0. Raises ValueError for misfits, for NaN scores, for grades that are unfit or too large for float64,
    and for an `ideal` that is worse than the listed items in their best order.
    """
    check_gain(gain, k)
    check_rows("scores", scores)
    check_like("gains", gains, "scores", scores)
    check_rows("gains", gains)
    check_mask("ignore", ignore, "scores", scores)
    refuse_nan("scores", scores, ignore)
    refuse_unfit_gains("gains", gains, ignore)
    check_ideal(ideal, scores)
    exponential = gain == "exponential"
    best = listed = discounted(gains, gains, ignore, k, exponential)
    if ideal is not None:
        best = discounted(ideal, ideal, None, k, exponential)
        # Sums of the same grades may differ in their last digits.
        _refuse(best < listed * (1 - 1e-12), "ideal must hold the grades of all listed items, got too few")
    _refuse(best.isinf(), "gains must be small enough for their sum to fit float64, got too large ones")
    return discounted(scores, gains, ignore, k, exponential) / best.masked_fill(best == 0, torch.nan)


def check_gain(gain: str, k: int | None) -> None:
    """Raises ValueError for an unknown form of gain or a cut-off that is neither None nor an integer from 1."""
    check_words(gain=(gain, ("linear", "exponential")))
    if k is not None:
        check_cutoff(k)


def _refuse(bad: Tensor, rule: str) -> None:
    if bad.any():
        raise ValueError(f"{rule} in query {int(bad.nonzero()[0])}")
