"""What the ground truth says of ranked items: relevant, junk, or how good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from zoo.truth.packing import PackedGains, PackedRelevance


@dataclass(frozen=True)
class Lists:
    """Scored items of some queries: `rows (q,)` int64 positions of the queries, `scores (q, K)`, higher = nearer.

    `items (q, K)` int64 are gallery positions, -1 for what is not in the gallery (padding, excluded images), which
    counts as junk; None means the whole gallery in order.
    """

    rows: Tensor
    scores: Tensor
    items: Tensor | None = None


@dataclass(frozen=True)
class Setting:
    """One reading of the truth: which groups of its lists count as relevant, and which are junk."""

    relevant: Sequence[str]
    ignored: Sequence[str] = ()


@dataclass(frozen=True)
class Judgement:
    """Keywords for the metrics, as in `zoo.metrics.functional`; the last two are None for whole galleries."""

    relevant: Tensor
    ignore: Tensor
    gains: Tensor
    n_relevant: Tensor | None
    ideal: Tensor | None

    def to(self, device: torch.device) -> dict[str, Any]:
        """Returns the keywords, tensors on `device`."""
        return {name: value if value is None else value.to(device) for name, value in vars(self).items()}


class Judge(Protocol):
    """A ground truth that knows the gallery's positions; `own (Q,)` as in `RelevanceJudge`."""

    settings: Mapping[str, Setting]
    graded: bool
    own: Tensor

    def judge(self, setting: str, lists: Lists) -> Judgement:
        """Returns what the metrics need to know of the items."""

    def total(self, setting: str, rows: Tensor) -> Tensor:
        """Returns (q,) int64: how many items of the gallery are relevant."""


class RelevanceJudge:
    """Relevance lists in one or several settings; `own (Q,)`: the query's own gallery position, left out, or -1."""

    graded = False

    def __init__(self, packed: PackedRelevance, settings: Mapping[str, Setting], own: Tensor) -> None:
        self.packed, self.settings, self.own = packed, settings, own

    def judge(self, setting: str, lists: Lists) -> Judgement:
        """See `Judge`."""
        groups = self.settings[setting]
        relevant = self.packed.mask(groups.relevant, lists.rows, lists.items)
        ignore = (
            self.packed.mask(groups.ignored, lists.rows, lists.items) if groups.ignored else torch.zeros_like(relevant)
        )
        ignore |= _left_out(lists, self.own)
        n_relevant = ideal = None
        if lists.items is not None:
            n_relevant = self.total(setting, lists.rows)
            # As wide as the gallery allows: a short list is no reason to expect less of it.
            ideal = (torch.arange(max(1, int(n_relevant.max()))) < n_relevant[:, None]).double()
        return Judgement(relevant, ignore, relevant, n_relevant, ideal)

    def total(self, setting: str, rows: Tensor) -> Tensor:
        """See `Judge`; lists never hold the query's own image where it is left out."""
        return self.packed.count(self.settings[setting].relevant)[rows]


class GradedJudge:
    """Graded relevance: a gain per item, 0 where none is stated; any gain above 0 counts as relevant.

    With `listed_only` each query ranks the items that are stated for it, gain 0 among them; others are left out.
    """

    graded = True

    def __init__(self, packed: PackedGains, own: Tensor, listed_only: bool = False) -> None:
        self.packed, self.own, self.listed_only = packed, own, listed_only
        self.settings = {"": Setting(("gain",))}
        self._ideal = packed.ideal(max(1, packed.longest))

    def judge(self, setting: str, lists: Lists) -> Judgement:
        """See `Judge`."""
        gains = self.packed.gains(lists.rows, lists.items)
        n_relevant = ideal = None
        if lists.items is not None:
            n_relevant, ideal = self.total(setting, lists.rows), self._ideal[lists.rows]
        ignore = _left_out(lists, self.own)
        if self.listed_only:
            ignore = ignore | ~self.packed.listed(lists.rows, lists.items)
        return Judgement(gains > 0, ignore, gains, n_relevant, ideal)

    def total(self, setting: str, rows: Tensor) -> Tensor:
        """See `Judge`."""
        return (self._ideal[rows] > 0).sum(1)


def _left_out(lists: Lists, own: Tensor) -> Tensor:
    own = own[lists.rows][:, None]
    if lists.items is not None:
        return (lists.items < 0) | (lists.items == own)
    return (torch.arange(lists.scores.shape[1]) == own) & (own >= 0)
