"""A search in stages: an index gives a shortlist, re-rankers put it into order, expansions search again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from zoo.checks import check_integers
from zoo.search._tiers import check_words, has_text
from zoo.search.reranking import ExpandingReranker
from zoo.types import Ranking, Representation, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from zoo.search.features import Features
    from zoo.search.index import Index

    Id = str | int

_COMPARED = ("vector", "regions")  # what indexes with a metric compare


@dataclass
class _State:
    """Where one query stands: what it is now, its hits so far (nearest first) and what stages told of them."""

    query: Representation
    metadata: Mapping[str, Any]
    ids: list[Id]
    scores: torch.Tensor
    evidence: dict[Id, dict[str, Any]]
    numbers: dict[str, dict[Id, float]]  # what the first search ("score") and every stage gave each item


class Pipeline:
    """Searches `index` and hands the first `shortlist` hits (None: all) through `rerankers`, one after the other.

    A re-ranker that has `expand` gets the shortlist, and the index is searched again with the query that it returns;
    the next stages go on with that query and its hits. Any other one puts the shortlist into a new order; items behind
    it keep theirs. A stage finds in `hit_metadata` the item's payload, its `id`, its `score` in the first search, and
    its score in every stage before, under that stage's name. Descriptors of queries are L2-normalised where the index
    has `metric` "cosine" and therefore holds its items so. Raises ValueError for a shortlist below 1.
    """

    def __init__(self, index: Index, rerankers: Sequence[Callable[..., Ranking]], shortlist: int | None) -> None:
        if shortlist is not None:
            check_integers(1, shortlist=shortlist)
        self.index, self.rerankers, self.shortlist = index, list(rerankers), shortlist

    def search(
        self,
        queries: Representation,
        k: int,
        where: Mapping[str, Any] | None = None,
        exclude: Sequence[Id | None] | None = None,
        query_metadata: Sequence[Mapping[str, Any]] | None = None,
        extra: Features | None = None,
        extra_queries: Representation | None = None,
        words: Sequence[Sequence[str]] | None = None,
    ) -> list[Ranking]:
        """Returns the (at most) k best items of each query, nearest first.

        `where` filters by payload, as in `Index.search`. `exclude` names for each query the id that is left out before
        anything else (leave one out), or None. `query_metadata` holds a mapping for each query. `extra` holds further
        fields of the index's items, by the same ids, and `extra_queries` those of the queries; fields that the index or
        the queries have come from there. `words` holds each query's, as in `Index.search`; they go with no re-ranker,
        whose order would undo theirs. Raises ValueError for k below 1, arguments that aren't one per query, a stage
        that needs fields which are not there (naming both lists), descriptors of different models, words together with
        re-rankers, and words for an index that doesn't read captions.
        """
        check_integers(1, k=k)
        self._check_words(words, len(queries))
        exclude = [None] * len(queries) if exclude is None else list(exclude)
        metadata = [{}] * len(queries) if query_metadata is None else list(query_metadata)
        for name, given in (("exclude", exclude), ("query_metadata", metadata)):
            if len(given) != len(queries):
                raise ValueError(f"{name} must be one per query, got {len(given)} for {len(queries)} queries")
        count = k if not self.rerankers else max(k, self._reach())
        source = _Source(self.index, where, exclude, count, extra, words)
        _check_beside(queries, extra_queries, extra)
        states = self._first(source, queries, extra_queries or Representation(), metadata)
        for stage in self.rerankers:
            if hasattr(stage, "expand"):
                self._search_again(stage, states, source)
            else:
                for state in states:
                    self._reorder(stage, state, source)
        return [_ranking(state, k) for state in states]

    def _check_words(self, words: Sequence[Sequence[str]] | None, queries: int) -> None:
        if words is not None:
            check_words(words, queries)
        self.index.refuse_words(words)
        if self.rerankers and has_text(words):
            names = ", ".join(map(name_of, self.rerankers))
            raise ValueError(f"words rank before anything else, so that no re-ranker may follow them, got {names}")

    def _reach(self) -> int:
        return len(self.index) if self.shortlist is None else self.shortlist

    def _first(
        self,
        source: _Source,
        queries: Representation,
        further: Representation,
        metadata: Sequence[Mapping[str, Any]],
    ) -> list[_State]:
        whole = joined_fields(_as_stored(self.index, queries), further)
        for stage in self.rerankers:
            whole.require(stage.needs, f"the query of the reranker {name_of(stage)}")
        states = []
        for row, found in enumerate(source.search(queries, range(len(queries)))):
            state = _State(whole.rows(slice(row, row + 1)), metadata[row], [], torch.empty(0), {}, {})
            _take(state, found)
            _note(state, "score", found)
            states.append(state)
        source.check(self.rerankers, next((state.ids for state in states if state.ids), []))
        return states

    def _search_again(self, stage: Any, states: Sequence[_State], source: _Source) -> None:
        rows = [row for row, state in enumerate(states) if state.ids]
        if not rows:
            return
        count = stage.k if isinstance(stage, ExpandingReranker) else None  # of the hits that it reads
        expanded = [stage.expand(states[row].query, *self._arguments(states[row], source, count)) for row in rows]
        try:
            found = source.search(_stacked(expanded), rows)
        except ValueError as error:
            why = f"the index can't be searched by what the reranker {name_of(stage)} returns"
            raise ValueError(f"{why}: {error}") from error
        for row, query, hits in zip(rows, expanded, found, strict=True):
            states[row].query = replace(states[row].query, **_as_stored(self.index, query).filled())
            _take(states[row], hits)
            _note(states[row], name_of(stage), hits)

    def _reorder(self, stage: Callable[..., Ranking], state: _State, source: _Source) -> None:
        first = state.ids[: self.shortlist]
        if not first:
            return
        found = stage(state.query, *self._arguments(state, source))
        if len(found) != len(first) or set(found.ids) != set(first):
            raise ValueError(f"the reranker {name_of(stage)} must return every hit of the shortlist once")
        _note(state, name_of(stage), found)
        scores = _continued(found.scores, state.scores[len(first) :])
        _take(state, Ranking([*found.ids, *state.ids[len(first) :]], scores))
        _show(state, found)

    def _arguments(
        self, state: _State, source: _Source, count: int | None = None
    ) -> tuple[Representation, Mapping[str, Any], list[dict]]:
        ids = state.ids[: self.shortlist][:count]
        payloads = self.index.payloads(ids)
        tables = state.numbers.items()
        described = [
            {**payload, **{name: table[key] for name, table in tables if key in table}, "id": key}
            for key, payload in zip(ids, payloads, strict=True)
        ]
        return source.get(ids), state.metadata, described


class _Source:
    """The items to search and to read: the index without what is left out, and the features beside it."""

    def __init__(
        self,
        index: Index,
        where: Any,
        exclude: Sequence[Id | None],
        count: int,
        extra: Features | None,
        words: Sequence[Sequence[str]] | None,
    ) -> None:
        self.index, self.where, self.exclude, self.count, self.extra = index, where, exclude, count, extra
        self.words = words if has_text(words) else None

    def search(self, queries: Representation, rows: Sequence[int]) -> list[Ranking]:
        """Returns the first `count` items for the queries that have the numbers `rows`, without those left out."""
        left_out = [self.exclude[row] for row in rows]
        more = any(key is not None for key in left_out)
        # Indexes that don't read captions need not know the argument.
        text = {} if self.words is None else {"words": [self.words[row] for row in rows]}
        found = self.index.search(queries, self.count + more, self.where, **text)
        return [_without(ranking, key, self.count) for ranking, key in zip(found, left_out, strict=True)]

    def get(self, ids: Sequence[Id]) -> Representation:
        """Returns what index and features hold of items; the index's own fields come first."""
        stored = self.index.get(ids)
        if self.extra is None:
            return stored
        return joined_fields(stored, self.extra.get(ids))

    def check(self, stages: Sequence[Any], ids: Sequence[Id]) -> None:
        """Raises ValueError where a stage needs fields that neither index nor features hold of items."""
        if not stages or not ids:
            return
        held = {*self.index.get(ids[:1]).held(), *(() if self.extra is None else self.extra.kinds)}
        for stage in stages:
            if not held.issuperset(stage.needs):
                needs = (
                    f"the reranker {name_of(stage)} needs the representation fields {list(stage.needs)} of the items"
                )
                raise ValueError(f"{needs}, the index and the features beside it hold {sorted(held)}")


def joined_fields(items: Representation, further: Representation | None) -> Representation:
    """Returns items with those fields of `further` that they lack; a local map that they hold as codes they have."""
    if further is None:
        return items
    own = items.held()
    added = {name: value for name, value in further.filled().items() if name not in own}
    if "local_map" in own:
        added.pop("local_codes", None)
    return replace(items, **added, **({"quantizer": further.quantizer} if "local_codes" in added else {}))


def _check_beside(queries: Representation, given: Representation | None, extra: Features | None) -> None:
    if given is None:
        return
    if len(given) != len(queries):
        raise ValueError(f"extra_queries must be one per query, got {len(given)} for {len(queries)} queries")
    if extra is not None and extra.fingerprint and given.fingerprint and extra.fingerprint != given.fingerprint:
        raise ValueError(f"extra holds features of the model {extra.fingerprint}, extra_queries {given.fingerprint}")


def _as_stored(index: Index, queries: Representation) -> Representation:
    """Returns queries as the index would keep them, so that stages may average them with its items."""
    if getattr(index, "metric", None) != "cosine":
        return queries
    compared = {name: value for name, value in queries.filled().items() if name in _COMPARED}
    return replace(queries, **{name: F.normalize(value.float(), dim=-1) for name, value in compared.items()})


def _stacked(parts: Sequence[Representation]) -> Representation:
    names = parts[0].filled()
    stacked = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    return replace(parts[0], **stacked)


def _without(ranking: Ranking, key: Id | None, count: int) -> Ranking:
    kept = [place for place, other in enumerate(ranking.ids) if key is None or other != key][:count]
    shown = None if ranking.evidence is None else [ranking.evidence[place] for place in kept]
    return Ranking([ranking.ids[place] for place in kept], ranking.scores[torch.tensor(kept, dtype=torch.int64)], shown)


def _take(state: _State, found: Ranking) -> None:
    state.ids, state.scores = list(found.ids), found.scores
    _show(state, found)


def _show(state: _State, found: Ranking) -> None:
    for key, shown in zip(found.ids, found.evidence or (), strict=False):
        state.evidence[key] = {**state.evidence.get(key, {}), **shown}


def _note(state: _State, name: str, found: Ranking) -> None:
    scores = torch.as_tensor(found.scores).tolist()
    state.numbers.setdefault(name, {}).update(zip(found.ids, scores, strict=True))


def _continued(first: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
    """Returns both as one list of scores that doesn't rise: the rest keeps its steps, below the last of the first."""
    first, rest = torch.as_tensor(first).double().cpu(), rest.double().cpu()
    return torch.cat([first, rest - (rest[:1] - first[-1:]).clamp(min=0)])


def _ranking(state: _State, k: int) -> Ranking:
    ids = state.ids[:k]
    shown = [state.evidence.get(key, {}) for key in ids] if state.evidence else None
    return Ranking(ids, state.scores[:k], shown)
