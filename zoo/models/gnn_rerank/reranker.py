"""Re-ranks hits by the trained network, with hits from any index that has their descriptors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from zoo import checkpoints
from zoo.search.reranking import HitReranker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from zoo.search.reranking import Evidence
    from zoo.types import Representation


class GnnReranker(HitReranker):
    """Scores hits by the cosines of refined affinities (Hanning 2024).

    `weights` is a file that `zoo train model=gnn_rerank` wrote, or the name of weights that come along. A model with
    affinities beside the visual one reads what it needs, such as easting, northing and heading, from hits' metadata.
    Raises ValueError where the descriptors have another D than the network was trained with, or metadata lack a field.
    """

    tiny: ClassVar[Mapping[str, Any]] = {"weights": "simulated_city"}

    def __init__(self, *, weights: str | None) -> None:
        path = checkpoints.weights_file("gnn_rerank", weights)
        described, _ = checkpoints.read(path)
        if described["name"] != "gnn_rerank":
            raise ValueError(f"weights must be of the model gnn_rerank, '{path}' is of {described['name']}")
        self.model = checkpoints.load_model(str(path))

    @property
    def dimension(self) -> int | None:
        """Returns the D of descriptors that it was trained with; None where any will do."""
        return None if self.model.net.projection is None else self.model.dimension

    @property
    def reads(self) -> tuple[str, ...]:
        """Returns the columns of metadata that it reads."""
        return self.model.reads

    def score(
        self,
        query: Representation,
        hits: Representation,
        query_metadata: Mapping[str, Any],
        hit_metadata: Sequence[Mapping[str, Any]],
    ) -> tuple[Tensor, Evidence | None]:
        """Returns the new cosines in the order of the hits."""
        order, ranked = self.model.rerank(query.vector[0], hits.vector, hit_metadata)
        scores = torch.empty_like(ranked)
        scores[order] = ranked
        return scores, None


export = GnnReranker
