"""α-weighted query expansion."""

from __future__ import annotations

from zoo.checks import check_positive
from zoo.search.expansion import expand_query
from zoo.search.reranking import ExpandingReranker
from zoo.types import Representation


class AlphaQueryExpansion(ExpandingReranker):
    """Averages the query with the first k hits, weighted by similarity; `conf/reranker/alpha_qe.yaml` explains them.

    Descriptors count by their length, see `aqe`. Raises ValueError for k below 1 and alpha of 0 or below.
    """

    def __init__(self, *, k: int, alpha: float) -> None:
        super().__init__(k=k)
        check_positive(alpha=alpha)
        self.alpha = alpha

    def expanded(self, query: Representation, hits: Representation) -> Representation:
        """Returns the averaged vector (1, D)."""
        vector = expand_query(query.vector, hits.vector[None, : self.k], self.alpha)
        return Representation(vector=vector, fingerprint=query.fingerprint)


export = AlphaQueryExpansion
