"""Text first: items by how many of a query's words their captions hold, equal ones by something else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zoo.types import Ranking

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def check_words(words: Any, queries: int | None) -> None:
    """Raises ValueError where `words` aren't a list of strings for each of so many queries (None: of any number)."""
    lists = isinstance(words, list | tuple)
    if not lists or not all(isinstance(own, list | tuple) and all(isinstance(w, str) for w in own) for own in words):
        raise ValueError(f"words must be a list of words for each query, got {words!r}")
    if queries is not None and len(words) != queries:
        raise ValueError(f"words must be one list per query, got {len(words)} for {queries} queries")


def by_words(counts: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the positions (n,) and scores (n,) of the n <= k items of most words; of equal ones the older is first.

    `counts (N,)`, -1 for what mustn't be found. Scores are zeros: the words alone say what comes first.
    """
    order = (-counts).argsort(kind="stable")[: min(k, int((counts >= 0).sum()))]
    return order, np.zeros(len(order), np.float32)


def tiered(counts: np.ndarray, k: int, nearest: Callable[[int, np.ndarray], Ranking]) -> Ranking:
    """Returns the k items of most words, equal ones as `nearest(k, allowed (N,))` puts them; `counts` as `by_words`.

    Evidence says of each how many `words` it holds.
    """
    ids, scores, evidence = [], [], []
    for words in np.unique(counts[counts >= 0])[::-1].tolist():
        allowed = counts == words
        found = nearest(min(k - len(ids), int(allowed.sum())), allowed)
        ids += found.ids
        scores.append(found.scores)
        evidence += [{**shown, "words": words} for shown in found.evidence or [{}] * len(found)]
        if len(ids) == k:
            break
    return Ranking(ids, torch.cat(scores) if scores else torch.empty(0), evidence)


def has_text(words: Sequence[Sequence[str]] | None) -> bool:
    """Says whether any query has words."""
    return words is not None and any(len(own) for own in words)
