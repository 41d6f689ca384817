"""What the re-rankers that aren't trained share: hits from anywhere in, their new order out."""

from __future__ import annotations

import abc
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from zoo.checks import check_integers
from zoo.search.local_maps import local_map_of
from zoo.types import Ranking, Representation, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    Evidence = list[dict[str, Any]]


class HitReranker(abc.ABC):
    """Re-orders the hits of one query by new scores; of equal ones the earlier hit comes first.

    A subclass implements `score`, names the fields it reads in `needs`, and is built from keyword arguments without
    defaults, which all stand in its YAML. Hits may come from any vector database: tensors, NumPy arrays or lists in a
    `Representation`; for a re-ranker that needs one field only, that array alone will do. They stand nearest first,
    which the re-rankers that take the first few as relevant rely on.
    """

    needs: ClassVar[tuple[str, ...]] = ("vector",)
    registered: dict[str, Any] | None = None

    @abc.abstractmethod
    def score(
        self,
        query: Representation,
        hits: Representation,
        query_metadata: Mapping[str, Any],
        hit_metadata: Sequence[Mapping[str, Any]],
    ) -> tuple[Tensor, Evidence | None]:
        """Returns the scores (K,) of K >= 1 hits, higher = nearer, and what is shown of each, or None."""

    def __call__(
        self,
        query: Representation | Any,
        hits: Representation | Any,
        query_metadata: Mapping[str, Any] | None = None,
        hit_metadata: Sequence[Mapping[str, Any]] | None = None,
    ) -> Ranking:
        """Returns the K hits (leading dimension K) in their new order for one query (leading dimension 1).

        `hit_metadata` may hold `id`, by which the ranking then calls the hits, instead of their positions 0 … K - 1.
        Raises ValueError, naming both lists, where a needed field is missing; for more than one query, another number
        of mappings than hits, values that aren't finite, or hits of another model than the query's.
        """
        ids = _ids(hit_metadata)
        hits = self.read(hits)
        count = len(hits) if self.needs or ids is None else len(ids)
        if ids is not None and len(ids) != count:
            raise ValueError(f"hit_metadata must be one mapping per hit, got {len(ids)} for {count} hits")
        if not count:
            return Ranking([], torch.empty(0))
        query = self.fitting(self.read(query, one=True), hits)
        metadata = [{} for _ in range(count)] if hit_metadata is None else hit_metadata
        scores, evidence = self.score(query, hits, query_metadata or {}, metadata)
        return ordered(range(count) if ids is None else ids, scores, evidence)

    def read(self, given: Representation | Any, one: bool = False) -> Representation:
        """Returns a representation of tensors, floating point in at least single precision, but for codes.

        An array stands for the only needed field; where it is `one` image, a vector may lack the leading dimension.
        Raises ValueError where a needed field is missing or holds values that aren't finite.
        """
        if not isinstance(given, Representation):
            if len(self.needs) != 1:
                fields_ = f"the reranker {name_of(self)} needs the representation fields {list(self.needs)}"
                raise ValueError(f"{fields_}, got {type(given).__name__}")
            array = _tensor(given)
            given = Representation(**{self.needs[0]: array[None] if one and array.dim() == 1 else array})
        values = {f.name: getattr(given, f.name) for f in fields(given) if f.name not in ("fingerprint", "quantizer")}
        filled = {name: _tensor(value, name) for name, value in values.items() if value is not None}
        items = replace(given, **filled)
        items.require(self.needs, f"the reranker {name_of(self)}")
        for field in self.needs:
            if field in filled and not filled[field].isfinite().all():
                raise ValueError(f"{field} must be finite, got NaN or infinite values")
        return items

    def fitting(self, query: Representation, hits: Representation) -> Representation:
        """Returns the query with the hits' device and precision; raises ValueError where the two don't fit.

        A query that holds codes instead of a needed local map gets what they decode to; hits keep theirs.
        """
        if query.fingerprint and hits.fingerprint and query.fingerprint != hits.fingerprint:
            raise ValueError(f"hits are of the model {hits.fingerprint}, the query of {query.fingerprint}")
        for field in self.needs:
            own, others = getattr(query, field), getattr(hits, field)
            if own is None:
                own = local_map_of(query)
            others = hits.local_codes if others is None else others
            if len(own) != 1:
                raise ValueError(f"query must be one image (leading dimension 1), got {len(own)} by its {field}")
            if len(others) and own.dim() != others.dim():
                got = f"{tuple(own.shape)} and {tuple(others.shape)}"
                raise ValueError(f"{field} must have as many dimensions in query and hits, got {got}")
            query = replace(query, **{field: own.to(others.device if others is hits.local_codes else others)})
        return query


class ExpandingReranker(HitReranker):
    """Re-orders hits by their cosine similarity to an expanded query, made of the first `k` hits.

    The pipeline takes the expanded query of `expand` to search the index again, which also finds what the first search
    missed; it hands over no more than `k` hits. `expands` names the fields of which the expanded query is made, by
    which the index must be searchable. Raises ValueError for k below 1.
    """

    expands: ClassVar[tuple[str, ...]] = ("vector",)

    def __init__(self, *, k: int) -> None:
        check_integers(1, k=k)
        self.k = k

    @abc.abstractmethod
    def expanded(self, query: Representation, hits: Representation) -> Representation:
        """Returns the expanded query, with those fields only that it changes; there may be no hits."""

    def expand(
        self,
        query: Representation | Any,
        hits: Representation | Any,
        query_metadata: Mapping[str, Any] | None = None,
        hit_metadata: Sequence[Mapping[str, Any]] | None = None,
    ) -> Representation:
        """Returns the expanded query (leading dimension 1); arguments as those of a call."""
        hits = self.read(hits)
        return self.expanded(self.fitting(self.read(query, one=True), hits), hits)

    def score(
        self,
        query: Representation,
        hits: Representation,
        query_metadata: Mapping[str, Any],
        hit_metadata: Sequence[Mapping[str, Any]],
    ) -> tuple[Tensor, Evidence | None]:
        """Returns cosine similarities to the expanded query."""
        return cosines(self.expanded(query, hits).vector, hits.vector), None


def cosines(query: Tensor, vectors: Tensor) -> Tensor:
    """Returns the cosine similarities (K,) of `vectors (K, D)` to `query (1, D)`, 0 for zeros."""
    return F.normalize(vectors, dim=1) @ F.normalize(query, dim=1)[0]


def ordered(ids: Sequence[Any], scores: Tensor, evidence: Evidence | None) -> Ranking:
    """Returns the ranking of `ids` by falling `scores (K,)`; equal ones keep their order."""
    order = scores.argsort(descending=True, stable=True)
    places = order.tolist()
    shown = None if evidence is None else [evidence[place] for place in places]
    return Ranking([ids[place] for place in places], scores[order], shown)


def _tensor(value: Any, field: str = "") -> Tensor:
    if isinstance(value, np.ndarray) and not value.flags.writeable:  # a mapped file; torch would warn
        value = value.copy()
    tensor = torch.as_tensor(value)
    if field == "local_codes":
        return tensor
    return tensor if tensor.dtype in (torch.bool, torch.float32, torch.float64) else tensor.float()


def _ids(metadata: Sequence[Mapping[str, Any]] | None) -> list[Any] | None:
    if metadata is None:
        return None
    named = sum("id" in mapping for mapping in metadata)
    if named not in (0, len(metadata)):
        raise ValueError(f"hit_metadata must hold 'id' for every hit or for none, got {named} of {len(metadata)}")
    return [mapping["id"] for mapping in metadata] if named else list(range(len(metadata)))
