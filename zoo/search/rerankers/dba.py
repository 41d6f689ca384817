"""Database augmentation inside the shortlist."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.checks import check_integers
from zoo.search.expansion import augment_database
from zoo.search.reranking import HitReranker, cosines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from zoo.search.reranking import Evidence
    from zoo.types import Representation


class DatabaseAugmentation(HitReranker):
    """Averages every hit with its k nearest other hits and compares these with the query.

    A whole gallery is augmented before it is indexed by `zoo.search.augment_database`. Descriptors count by their
    length, see `aqe`. Raises ValueError for k below 1 and a negative alpha.
    """

    def __init__(self, *, k: int, alpha: float) -> None:
        check_integers(1, k=k)
        if alpha < 0:
            raise ValueError(f"alpha must be at least 0, got {alpha}")
        self.k, self.alpha = k, alpha

    def score(
        self,
        query: Representation,
        hits: Representation,
        query_metadata: Mapping[str, Any],
        hit_metadata: Sequence[Mapping[str, Any]],
    ) -> tuple[Tensor, Evidence | None]:
        """Returns cosine similarities of the augmented hits."""
        return cosines(query.vector, augment_database(hits.vector, self.k, self.alpha)), None


export = DatabaseAugmentation
