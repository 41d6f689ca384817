"""Text beside images: captions of files, their words, and which items of an index hold how many of a query's."""

from __future__ import annotations

import re
import unicodedata
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from zoo.types import Ranking

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

KEY = "captions"  # of a payload, with the image's captions, a list of strings
_LATIN = re.compile(r"[a-z0-9]+")


def words_of(text: str) -> list[str]:
    """Returns the different words of a text, lower-case, in the order in which they come.

    A word is as many letters, digits and marks as stand side by side, of any script; anything else separates words,
    an apostrophe too, so that "the man's" holds "man". What Unicode writes in two ways counts as one (NFC).
    """
    if text.isascii():
        return list(dict.fromkeys(_LATIN.findall(text.lower())))
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())
    # Marks aren't alphanumeric to Python, yet many scripts write vowels with them.
    kept = "".join(sign if sign.isalnum() or unicodedata.category(sign)[0] == "M" else " " for sign in text)
    return list(dict.fromkeys(kept.split()))


def with_words(ranking: Ranking) -> Ranking:
    """Returns the hits of a search by words alone whose captions hold one at least; the others are in no order."""
    shown = ranking.evidence or []
    kept = sum(1 for evidence in shown if evidence["words"])  # these come first
    return Ranking(ranking.ids[:kept], ranking.scores[:kept], shown[:kept])


def captions_of(payload: object) -> list[str]:
    """Returns the captions of a payload, none for one without; raises ValueError where they aren't a list of texts."""
    captions = payload.get(KEY, []) if hasattr(payload, "get") else None
    if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
        raise ValueError(f"{KEY} of a payload must be a list of strings, got {captions!r}")
    return captions


class CaptionWords:
    """Tells for every item of a list that grows how many of some words its captions hold.

    Of each word it keeps the positions of the items, 4 bytes for every different word of an item: 118,000 images of
    five captions take some 20 MB.
    """

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._starts = np.zeros(1, np.int64)  # of each word's items, and the end of the last one's
        self._items = np.empty(0, np.int32)  # of word 0, word 1, …, each in rising order
        self._count = 0

    def __len__(self) -> int:
        """Returns N."""
        return self._count

    @property
    def captioned(self) -> int:
        """Returns how many items have captions with words in them."""
        return len(np.unique(self._items))

    def append(self, captions: Iterable[Sequence[str]]) -> None:
        """Takes the captions of further items, behind those that are there."""
        lengths, codes = [], []
        for texts in captions:
            own = dict.fromkeys(chain.from_iterable(map(words_of, texts)))
            codes += [self._codes.setdefault(word, len(self._codes)) for word in own]
            lengths.append(len(own))
        added = np.array(codes, np.int64)
        order = added.argsort(kind="stable")
        items = np.repeat(np.arange(self._count, self._count + len(lengths), dtype=np.int32), lengths)[order]
        known = np.append(self._starts, np.full(len(self._codes) + 1 - len(self._starts), self._starts[-1]))
        # Newer items have the higher positions, so that they go to the end of each word's.
        self._items = np.insert(self._items, known[added[order] + 1], items)
        self._starts = known + np.append(0, np.bincount(added, minlength=len(self._codes)).cumsum())
        self._count += len(lengths)

    def keep(self, mask: np.ndarray) -> None:
        """Drops the items where `mask (N,)` is False; the others keep their order."""
        stay = mask[self._items]
        self._starts = np.append(0, stay.cumsum())[self._starts]
        self._items = (mask.cumsum(dtype=np.int32) - 1)[self._items[stay]]
        self._count = int(mask.sum())

    def counts(self, words: Iterable[str]) -> np.ndarray:
        """Returns how many different ones of `words` the captions of every item hold, (N,) int64."""
        found = [self._codes[word] for word in dict.fromkeys(words) if word in self._codes]
        parts = [self._items[self._starts[code] : self._starts[code + 1]] for code in found]
        return np.bincount(np.concatenate([self._items[:0], *parts]), minlength=self._count)
