"""Average query expansion."""

from __future__ import annotations

from zoo.search.expansion import expand_query
from zoo.search.reranking import ExpandingReranker
from zoo.types import Representation


class AverageQueryExpansion(ExpandingReranker):
    """Averages the query with the first k hits; `conf/reranker/aqe.yaml` explains the parameters.

    Descriptors count by their length, so hits from elsewhere should be L2-normalised, as the pipeline's are where the
    index compares by cosine.
    """

    def expanded(self, query: Representation, hits: Representation) -> Representation:
        """Returns the averaged vector (1, D)."""
        vector = expand_query(query.vector, hits.vector[None, : self.k])
        return Representation(vector=vector, fingerprint=query.fingerprint)


export = AverageQueryExpansion
