"""Re-ranking by what the caller knows of the items beside their descriptors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.search.reranking import HitReranker, cosines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from zoo.types import Representation


class SameShelf(HitReranker):
    """Adds `bonus` to the cosine similarity of hits whose metadata name the query's shelf."""

    def __init__(self, *, bonus: float) -> None:
        self.bonus = bonus

    def score(
        self,
        query: Representation,
        hits: Representation,
        query_metadata: Mapping[str, Any],
        hit_metadata: Sequence[Mapping[str, Any]],
    ) -> tuple[Tensor, list[dict[str, Any]] | None]:
        """Returns similarities, and which hits got the bonus."""
        shelf = query_metadata.get("shelf")
        same = [shelf is not None and mapping.get("shelf") == shelf for mapping in hit_metadata]
        scores = cosines(query.vector, hits.vector)
        return scores + self.bonus * scores.new_tensor(same), [{"same shelf": hit} for hit in same]
