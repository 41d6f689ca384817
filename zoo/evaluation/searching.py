"""Ranked lists as a search gives them: an index filled with the gallery, and the re-rankers behind it."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from zoo.checks import check_integers
from zoo.evaluation.judge import Lists
from zoo.evaluation.ranked_lists import with_progress
from zoo.search.fit import check_search
from zoo.search.pipeline import Pipeline
from zoo.types import Representation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from zoo.evaluation.collect import Collected
    from zoo.evaluation.protocol import Shard
    from zoo.types import Ranking

_QUERIES_AT_ONCE = 16  # after which the progress bar moves
_MASKS = {"regions": "region_mask", "keypoint_descriptors": "keypoint_mask"}  # what else is kept of a field


class Searching:
    """How an evaluation searches the gallery: `make_index` builds the empty index, `stages` are name → re-ranker.

    `index_name` is None where the user chose none and the index is as good as comparing all descriptors; `shortlist` is
    how many hits re-rankers see, None for all. Raises ValueError for a shortlist below 1 or an index that holds items.
    """

    def __init__(
        self,
        make_index: Callable[[], Any],
        index_name: str | None,
        stages: Mapping[str, Any],
        shortlist: int | None,
    ) -> None:
        if shortlist is not None:
            check_integers(1, shortlist=shortlist)
        empty = make_index()
        if len(empty):
            raise ValueError(f"index: an evaluation fills an empty one, got one that holds {len(empty)} items")
        self.make_index, self.index_name, self.stages, self.shortlist = make_index, index_name, stages, shortlist
        users = (empty, *stages.values())
        # Not the index itself: one in a database may be open once only.
        self._asked = SimpleNamespace(needs=empty.needs, searched_by=empty.searched_by, registered=empty.registered)
        self._index_needs = tuple(empty.needs)
        self.heads: Lists | None = None
        self.needs = tuple(dict.fromkeys(kind for user in users for kind in user.needs))

    def check(self, kinds: Sequence[str]) -> None:
        """Raises ValueError, naming both lists, where index and re-rankers don't fit a model that fills `kinds`."""
        check_search(self._asked, self.stages, kinds, "the model fills", self.index_name)

    def label(self, descriptor: str) -> str:
        """Returns what the row of the chain's result is called: "GeM > superglobal > aqe"."""
        return " > ".join(filter(None, (descriptor, self.index_name, *self.stages)))

    @property
    def fields(self) -> tuple[str, ...]:
        """Returns the fields to keep of every image: what is needed, and the masks that go with it."""
        return (*self.needs, *(mask for name, mask in _MASKS.items() if name in self.needs))

    def fields_of(self, model: Any, batch: Any, role: Any, own: Tensor) -> dict[str, Tensor]:
        """Returns those fields of a batch; `own` is the model's own row of `descriptors`, which may do."""
        kind = "vector" if own.dim() == 2 else "regions"
        if self.needs == (kind,):
            return {kind: own.float()}
        found = model.represent(batch, role)
        found.require(self.needs, "the search")
        return {name: tensor for name, tensor in found.filled().items() if name in self.fields}

    def lists(
        self,
        collected: Mapping[str, Collected],
        shard: Shard,
        own: Tensor,
        kept: int,
        payloads: Sequence[Mapping[str, Any]] | None = None,
        words: Sequence[Sequence[str]] | None = None,
    ) -> Iterator[Lists]:
        """Yields what is found in the whole gallery for this rank's queries, some at a time, behind a progress bar.

        `payloads` say what is known of each gallery item, which re-rankers may read. `own (Q,)` is the gallery position
        that a query's search leaves out before anything else, or -1; `words` are those that each query looks for in
        the payloads' captions. Collective: once all ranks are through, `heads` holds the first `kept` items of every
        query's list. Raises ValueError where the index or the re-rankers go with no words.
        """
        queries, gallery = (Representation(**collected[role].fields) for role in ("query", "gallery"))
        rows = shard.rows(len(queries))
        heads = []
        parts = self._found(queries, gallery, rows, own, payloads, words)
        for part in with_progress(parts, len(rows), "searching") if shard.rank == 0 else parts:
            heads.append(Lists(part.rows, part.scores[:, :kept].clone(), part.items[:, :kept].clone()))
            yield part
        self.heads = self._of_all_ranks(heads)

    def _of_all_ranks(self, parts: list[Lists]) -> Lists:
        gathered = [parts]
        if dist.is_available() and dist.is_initialized():
            gathered = [[] for _ in range(dist.get_world_size())]
            dist.all_gather_object(gathered, parts)
        every = [part for share in gathered for part in share]
        width = max(part.items.shape[1] for part in every)
        rows = torch.cat([part.rows for part in every])
        scores = torch.cat([_widened(part.scores, width, -torch.inf) for part in every])
        items = torch.cat([_widened(part.items, width, -1) for part in every])
        order = rows.argsort()
        return Lists(rows[order], scores[order], items[order])

    def _found(
        self,
        queries: Representation,
        gallery: Representation,
        rows: Tensor,
        own: Tensor,
        payloads: Sequence[Mapping[str, Any]] | None,
        words: Sequence[Sequence[str]] | None,
    ) -> Iterator[Lists]:
        ids = range(len(gallery))
        index = self.make_index()
        index.add(ids, gallery, payloads)
        pipeline = Pipeline(index, list(self.stages.values()), self.shortlist)
        # What the index holds is read from there, as it keeps it: an item's codes, not its map.
        beside = {name: tensor for name, tensor in gallery.filled().items() if name not in self._index_needs}
        further = bool(beside)
        extra = _Gathered(ids, tuple(beside), Representation(**beside)) if further else None
        for part in rows.split(_QUERIES_AT_ONCE) if len(rows) else ():
            asked = queries.rows(part)
            exclude = [position if position >= 0 else None for position in own[part].tolist()]
            extra_queries = asked if further else None
            text = None if words is None else [words[row] for row in part.tolist()]
            found = pipeline.search(
                asked, len(gallery), exclude=exclude, extra=extra, extra_queries=extra_queries, words=text
            )
            yield _as_lists(part, found)


@dataclass(frozen=True)
class _Gathered:
    """The gallery's fields in memory, as re-rankers ask features on disk for them."""

    ids: Sequence[int]
    kinds: tuple[str, ...]
    items: Representation
    fingerprint: str | None = None

    def get(self, ids: Sequence[int]) -> Representation:
        """Returns the fields of the items with these ids, their positions."""
        return self.items.rows(torch.as_tensor(list(ids), dtype=torch.int64))


def _as_lists(rows: Tensor, found: Sequence[Ranking]) -> Lists:
    """Puts rankings of different lengths side by side; their order stands, whatever the scores say."""
    longest = max(map(len, found))
    items = torch.full((len(rows), longest), -1)
    scores = torch.full((len(rows), longest), -torch.inf, dtype=torch.float64)
    for line, ranking in enumerate(found):
        if len(ranking):
            items[line, : len(ranking)] = torch.as_tensor(list(ranking.ids), dtype=torch.int64)
            scores[line, : len(ranking)] = torch.as_tensor(ranking.scores).double().cpu().cummin(0).values
    return Lists(rows, scores, items)


def _widened(rows: Tensor, width: int, value: float) -> Tensor:
    return torch.nn.functional.pad(rows, (0, width - rows.shape[1]), value=value)
