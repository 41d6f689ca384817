"""Re-ranks hits by local similarity, with hits from any database that has their local maps, or codes of these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F

from zoo import checkpoints
from zoo.checks import check_integers
from zoo.models.local_similarity.boxes import decode_boxes
from zoo.models.local_similarity.explaining import explain
from zoo.models.local_similarity.head import CorrelationHead
from zoo.models.local_similarity.losses import similarity
from zoo.models.local_similarity.scoring import PairScorer, check_precision
from zoo.search.local_maps import correlations, local_map_of
from zoo.search.reranking import HitReranker, cosines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from zoo.search.reranking import Evidence
    from zoo.types import Representation

_FOUND = 0.5  # probability from which the box is shown


class LocalSimilarityReranker(HitReranker):
    """Scores a hit by (1 - weight) · global + weight · local similarity (Sec. 4.4 of Chen et al. 2019).

    Global is the cosine of the vectors, local the probability that the head finds the query in the hit. With `expand`
    = n the n best hits and the query are averaged, and the global similarity is that to the mean: query expansion, of
    which the paper doesn't say how it was done. Evidence: `local`, `global`, and where the query is found `box`, px of
    the hit (shares of its sides where `width` and `height` aren't in its metadata); found is what has a probability
    above 0.5, by a head that was taught boxes. The head is that of `weights`, else
    of the model that the search hands over (`use_model`). `conf/reranker/local_similarity.yaml` explains the rest.
    Raises ValueError where there is no head, or one of other grids than the maps.
    """

    needs: ClassVar[tuple[str, ...]] = ("vector", "local_map")
    tiny: ClassVar[Mapping[str, Any]] = {"weights": "cut_paste"}

    def __init__(self, *, weights: str | None, weight: float, expand: int, renormalise: bool, precision: str) -> None:
        if not isinstance(weight, (int, float)) or not 0 <= weight <= 1:
            raise ValueError(f"weight must lie in 0 … 1, got {weight!r}")
        if expand != 0:
            check_integers(1, expand=expand)
        check_precision(precision)
        self.weight, self.count, self.renormalise, self.precision = weight, expand, renormalise, precision
        self._head: CorrelationHead | None = None
        self._own = weights is not None
        if weights is not None:
            self._use(*_read_head(weights))

    def use_model(self, model: Any) -> None:
        """Takes the head of the model that made the index, unless `weights` named one; other models have none."""
        head = getattr(model, "head", None)
        if not self._own and isinstance(head, CorrelationHead):
            self._use(head, model.locates)

    def score(
        self,
        query: Representation,
        hits: Representation,
        query_metadata: Mapping[str, Any],
        hit_metadata: Sequence[Mapping[str, Any]],
    ) -> tuple[Tensor, Evidence | None]:
        """Returns fused similarities, and what they are made of."""
        self._check_grid(hits)
        found = self._scorer.score(correlations(self._query_map(query), hits, self.renormalise))
        local = similarity(found.logits.double()).to(hits.vector.device)  # the head may be on another
        vectors = cosines(query.vector, hits.vector).to(local)
        if self.count:
            best = self._fused(vectors, local).argsort(descending=True, stable=True)[: self.count]
            mean = torch.cat([F.normalize(each, dim=1) for each in (query.vector, hits.vector[best])]).mean(0)
            vectors = cosines(mean[None], hits.vector).to(local)
        return self._fused(vectors, local), self._evidence(vectors, local, found.boxes, hit_metadata)

    def explain(self, query: Representation, hit: Representation) -> dict[str, Tensor]:
        """Returns for each layer (H, W) in [0, 1]: how much each place of the hit (one image) speaks for the query."""
        hit = self.read(hit)
        query = self.fitting(self.read(query, one=True), hit)
        self._check_grid(hit)
        (_, volume), *_ = correlations(self._query_map(query), hit, self.renormalise)
        return explain(self._head, volume)

    def _use(self, head: CorrelationHead, locates: bool) -> None:
        self._head, self._scorer, self._shows_boxes = head.eval(), PairScorer(head, self.precision), locates

    def _check_grid(self, hits: Representation) -> None:
        if self._head is None:
            raise ValueError(
                "reranker local_similarity has no head: set reranker.local_similarity.weights, or search what a "
                "model=local_similarity has embedded"
            )
        grid, maps = self._head.gallery_grid, hits.local_map
        found = tuple(hits.local_codes.shape[1:3] if maps is None else maps.shape[2:])
        if found != (grid, grid):
            raise ValueError(f"hits must have local maps of {(grid, grid)} cells, as the head has, got {found}")

    def _query_map(self, query: Representation) -> Tensor:
        """Returns (D, Hq, Wq); an item of the index that is asked with has a finer map, which is pooled."""
        own, grid = local_map_of(query)[0], self._head.query_grid
        found = tuple(own.shape[1:])
        if found == (grid, grid):
            return own
        if min(found) < grid:
            raise ValueError(f"query must have a local map of {(grid, grid)} cells, as the head has, got {found}")
        return F.normalize(F.adaptive_max_pool2d(own, grid), dim=0)

    def _fused(self, vectors: Tensor, local: Tensor) -> Tensor:
        return (1 - self.weight) * vectors + self.weight * local

    def _evidence(
        self, vectors: Tensor, local: Tensor, boxes: Tensor, metadata: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        rows = zip(vectors.tolist(), local.tolist(), decode_boxes(boxes.double()).tolist(), metadata, strict=True)
        evidence = []
        for by_vector, by_map, (left, top, right, bottom), known in rows:
            shown: dict[str, Any] = {"local": by_map, "global": by_vector}
            if self._shows_boxes and by_map > _FOUND:
                width, height = (known["width"], known["height"]) if {"width", "height"} <= known.keys() else (1, 1)
                shown["box"] = [left * width, top * height, right * width, bottom * height]
            evidence.append(shown)
        return evidence


def _read_head(weights: str) -> tuple[CorrelationHead, bool]:
    """Returns the head of a weights file, which needs no backbone, and whether it was taught boxes."""
    path = checkpoints.weights_file("local_similarity", weights)
    described, state = checkpoints.read(path)
    if described["name"] != "local_similarity":
        raise ValueError(f"weights must be of the model local_similarity, '{path}' is of {described['name']}")
    said = described["parameters"]
    head = CorrelationHead(said["query_grid"] ** 2, said["gallery_grid"], said["channels"], said["match_score"])
    prefix = "net.head."
    head.load_state_dict({key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)})
    return head, said["loss"] == "cls+loc"


export = LocalSimilarityReranker
