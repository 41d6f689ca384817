"""R-Match: every region of the query finds its best one in the hit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from zoo.ops.correlation import best_in_volume, best_products, r_match
from zoo.search.local_maps import correlations
from zoo.search.rerankers.regional_qe import best_pairs
from zoo.search.reranking import HitReranker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from zoo.search.reranking import Evidence
    from zoo.types import Representation

FIELDS = ("local_map", "regions")


class RMatch(HitReranker):
    """Scores a hit by the mean cosine similarity of the query's regions to their best ones in the hit.

    The mean rather than the sum of eq. 2 of Chen et al. 2019, so that scores stay within [-1, 1]; the order is the
    same. Hits may hold their local maps as codes. `conf/reranker/r_match.yaml` explains the parameters. Raises
    ValueError for another field.
    """

    def __init__(self, *, field: str) -> None:
        if field not in FIELDS:
            raise ValueError(f"field must be one of {', '.join(FIELDS)}, got {field!r}")
        self.field, self.needs = field, (field,)

    def score(
        self,
        query: Representation,
        hits: Representation,
        query_metadata: Mapping[str, Any],
        hit_metadata: Sequence[Mapping[str, Any]],
    ) -> tuple[Tensor, Evidence | None]:
        """Returns mean similarities; with `regions` also the best pair of each hit."""
        if self.field == "local_map":
            return self._of_maps(F.normalize(query.local_map, dim=1), hits), None
        own, others = F.normalize(query.regions, dim=2), F.normalize(hits.regions, dim=2)
        found = best_products(others, own)
        exists = torch.ones_like(own[0, :, 0], dtype=torch.bool) if query.region_mask is None else query.region_mask[0]
        return found[:, exists].mean(dim=1), best_pairs(query, hits)

    def _of_maps(self, own: Tensor, hits: Representation) -> Tensor:
        if hits.local_map is not None:
            scores = r_match(F.normalize(hits.local_map, dim=1), own)
        else:
            volumes = (volume for _, volume in correlations(own[0], hits))
            scores = torch.cat([best_in_volume(volume).sum(dim=1) for volume in volumes])
        return scores / own[0, 0].numel()


export = RMatch
