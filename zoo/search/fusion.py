"""Several rankings of the same gallery made into one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from zoo.types import Ranking

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

METHODS = ("reciprocal", "score")


def rank_fusion(
    rankings: Sequence[Ranking],
    weights: Sequence[float] | None = None,
    method: str = "reciprocal",
    k: float = 60,
) -> Ranking:
    """Returns one ranking of every item that any of `rankings` holds; equal items in the order of the earlier ranking.

    `reciprocal` adds up weight / (k + rank), ranks from 1 (Cormack et al. 2009, who take k = 60). `score` adds up
    weight * score, scores of each ranking brought to [0, 1] (0.5 where all are equal). A ranking adds nothing to an
    item that it lacks. `weights` are one per ranking, 1 where None. Raises ValueError for no rankings, another number
    of weights, negative weights or k, an unknown method, and an id that a ranking holds twice.
    """
    weights = [1.0] * len(rankings) if weights is None else list(weights)
    _check(rankings, weights, method, k)
    total: dict[Hashable, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        shares = _reciprocal_ranks(len(ranking), k) if method == "reciprocal" else _to_unit(ranking.scores)
        for key, share in zip(ranking.ids, shares, strict=True):
            total[key] = total.get(key, 0.0) + weight * share
    ids = sorted(total, key=total.__getitem__, reverse=True)  # stable: equal ones stay as they were met
    scores = torch.tensor([total[key] for key in ids], dtype=torch.float64)
    return Ranking(ids, scores, _evidence(rankings, ids))


def _check(rankings: Sequence[Ranking], weights: Sequence[float], method: str, k: float) -> None:
    if not rankings:
        raise ValueError("rankings must be at least one, got none")
    if len(weights) != len(rankings):
        raise ValueError(f"weights must be one per ranking, got {len(weights)} for {len(rankings)}")
    if min(weights) < 0 or k < 0:
        raise ValueError(f"weights and k must not be negative, got {list(weights)} and {k}")
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    for ranking in rankings:
        if len(set(ranking.ids)) < len(ranking.ids):
            raise ValueError("rankings must hold an id only once")


def _reciprocal_ranks(count: int, k: float) -> list[float]:
    return [1 / (k + rank) for rank in range(1, count + 1)]


def _to_unit(scores: torch.Tensor) -> list[float]:
    scores = torch.as_tensor(scores).double()
    if not len(scores):
        return []
    low, high = scores.min(), scores.max()
    return ((scores - low) / (high - low)).tolist() if high > low else [0.5] * len(scores)


def _evidence(rankings: Sequence[Ranking], ids: Sequence[Hashable]) -> list[dict] | None:
    shown: dict[Hashable, dict] = {}
    for ranking in rankings:
        for key, evidence in zip(ranking.ids, ranking.evidence or (), strict=False):
            shown[key] = {**evidence, **shown.get(key, {})}
    return [shown.get(key, {}) for key in ids] if shown else None
