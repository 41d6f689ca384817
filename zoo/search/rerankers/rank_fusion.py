"""Fusion of the orders that a shortlist has gone through."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from zoo.checks import check_positive
from zoo.search.fusion import METHODS, rank_fusion
from zoo.search.reranking import HitReranker, ordered
from zoo.types import Ranking

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from zoo.search.reranking import Evidence
    from zoo.types import Representation

ORDER = "order"  # the order in which the hits come, among the keys


class RankFusion(HitReranker):
    """Fuses the order in which the hits come with those that numbers in their metadata give, higher = nearer.

    The pipeline writes such numbers: `score` of the first search, and one under the name of every stage before this.
    A hit without a number is missing from that order. `conf/reranker/rank_fusion.yaml` explains the parameters. Raises
    ValueError for no keys, weights that aren't one per key, an unknown method, a key that no hit has, and values that
    aren't finite numbers.
    """

    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, keys: Sequence[str], weights: Sequence[float] | None, method: str, k: float) -> None:
        check_positive(k=k)
        if not keys:
            raise ValueError("keys must name at least one order, got none")
        if weights is not None and (len(weights) != len(keys) or min(weights) < 0):
            raise ValueError(f"weights must be one per key and not negative, got {list(weights)} for {list(keys)}")
        if method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
        self.keys, self.weights, self.method, self.k = list(keys), weights, method, k

    def score(
        self,
        query: Representation,
        hits: Representation,
        query_metadata: Mapping[str, Any],
        hit_metadata: Sequence[Mapping[str, Any]],
    ) -> tuple[Tensor, Evidence | None]:
        """Returns the fused scores; a hit that no order holds gets 0."""
        count = len(hit_metadata)
        rankings = [self._ranking(key, hit_metadata) for key in self.keys]
        fused = rank_fusion(rankings, self.weights, self.method, self.k)
        scores = torch.zeros(count, dtype=torch.float64)
        scores[torch.tensor(fused.ids, dtype=torch.int64)] = fused.scores
        return scores, None

    def _ranking(self, key: str, metadata: Sequence[Mapping[str, Any]]) -> Ranking:
        if key == ORDER:
            return Ranking(range(len(metadata)), -torch.arange(len(metadata), dtype=torch.float64))
        places = [place for place, mapping in enumerate(metadata) if key in mapping]
        if not places:
            known = ", ".join(sorted({name for mapping in metadata for name in mapping}))
            raise ValueError(f"keys: no hit's metadata has '{key}'; they have {known or 'nothing'}")
        numbers = [metadata[place][key] for place in places]
        for number in numbers:
            if not isinstance(number, (int, float)) or not math.isfinite(number):
                raise ValueError(f"keys: '{key}' must be a finite number in every hit's metadata, got {number!r}")
        return ordered(places, torch.tensor(numbers, dtype=torch.float64), None)


export = RankFusion
