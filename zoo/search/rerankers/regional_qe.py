"""Regional query expansion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch.nn.functional as F

from zoo.search.expansion import regional_qe
from zoo.search.reranking import ExpandingReranker
from zoo.types import Representation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from zoo.search.reranking import Evidence


class RegionalQueryExpansion(ExpandingReranker):
    """Averages the regions that match best in the first k hits into one region, with which hits are compared.

    `conf/reranker/regional_qe.yaml` explains the parameters.
    """

    needs: ClassVar[tuple[str, ...]] = ("regions",)
    expands: ClassVar[tuple[str, ...]] = ("regions",)

    def expanded(self, query: Representation, hits: Representation) -> Representation:
        """Returns one region (1, 1, D); its box and outline are those of the query's region 0, the whole image."""
        region = regional_qe(query.regions, hits.regions[None, : self.k])
        shown = {
            field: getattr(query, field)[:, :1]
            for field in ("region_mask", "region_boxes", "region_hulls")
            if getattr(query, field) is not None
        }
        return Representation(regions=region[:, None], **shown, fingerprint=query.fingerprint)

    def score(
        self,
        query: Representation,
        hits: Representation,
        query_metadata: Mapping[str, Any],
        hit_metadata: Sequence[Mapping[str, Any]],
    ) -> tuple[Tensor, Evidence | None]:
        """Returns the largest cosine similarity of any region of each hit, and which region that is (eq. 8)."""
        expanded = self.expanded(query, hits)
        return _products(expanded, hits).flatten(1).amax(dim=1), best_pairs(expanded, hits)


def best_pairs(query: Representation, hits: Representation) -> Evidence:
    """Returns for each hit the pair of regions with the largest cosine similarity, of equal ones the first.

    Keys: the numbers `query_region` and `region`; `query_box`, `box`, `query_hull` and `hull` in px, where known.
    """
    pairs = _products(query, hits)
    best = pairs.flatten(1).argmax(dim=1).tolist()
    return [_pair(query, hits, hit, *divmod(place, pairs.shape[2])) for hit, place in enumerate(best)]


def _products(query: Representation, hits: Representation) -> Tensor:
    """Returns (K, R, S): cosine similarities of the query's regions and those of the hits."""
    return F.normalize(query.regions[0], dim=1) @ F.normalize(hits.regions, dim=2).mT


def _pair(query: Representation, hits: Representation, hit: int, own: int, other: int) -> dict[str, Any]:
    shown: dict[str, Any] = {"query_region": own, "region": other}
    for field, key in (("region_boxes", "box"), ("region_hulls", "hull")):
        if getattr(query, field) is not None:
            shown[f"query_{key}"] = getattr(query, field)[0, own].tolist()
        if getattr(hits, field) is not None:
            shown[key] = getattr(hits, field)[hit, other].tolist()
    return shown


export = RegionalQueryExpansion
