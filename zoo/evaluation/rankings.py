"""The top of every query's ranked list, kept for people who would rather look than read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

Verdict = Literal["relevant", "irrelevant", "junk"]


@dataclass(frozen=True)
class RankedItem:
    """A gallery item, its score, what the ground truth says of it (None: nothing of that kind), and a remark."""

    id: str
    score: float
    relevance: Verdict | None = None
    note: str | None = None


@dataclass(frozen=True)
class RankedQuery:
    """One query: position, name, the image it shows, the box (x0, y0, x1, y1 px) it is cut to, and its list."""

    query: int
    id: str
    image: str
    box: Sequence[float] | None
    relevant_total: int | None
    ranked: Sequence[RankedItem]


@dataclass(frozen=True)
class Rankings:
    """The lists of one descriptor; `score` says what the scores are, `setting` by which of several truths items count.

    `query_split` and `gallery_split` say where the data module finds the pictures.
    """

    descriptor: str
    score: str
    query_split: str
    gallery_split: str
    queries: Sequence[RankedQuery]
    setting: str | None = None

    def as_json(self, fingerprint: str) -> dict[str, Any]:
        """Returns plain values, in the layout of rankings.json; `fingerprint` is the hash of the protocol."""
        content = {"fingerprint": fingerprint, **asdict(self)}
        if self.setting is None:
            del content["setting"]
        return content
