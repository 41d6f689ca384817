"""What of an index in memory stands in a folder, segment by segment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.search.rows import pack

if TYPE_CHECKING:
    from pathlib import Path

    from zoo.search.storage import Commit


@dataclass
class Saved:
    """What of the rows in memory stands in which folder: the first `kept`, which are all its rows but `removed`.

    `stale` says that payloads of kept rows have changed since.
    """

    folder: Path
    generation: int
    segments: list[dict[str, Any]] = field(default_factory=list)
    removed: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    stale: bool = False

    @property
    def stored(self) -> int:
        """Returns the number of rows in the folder, removed ones among them."""
        return sum(segment["count"] for segment in self.segments)

    @property
    def kept(self) -> int:
        """Returns the number of rows in the folder that are in memory."""
        return self.stored - len(self.removed)

    def rows(self) -> np.ndarray:
        """Returns the numbers (kept,) in the folder of the rows that are in memory."""
        return np.delete(np.arange(self.stored), self.removed)

    def drop(self, mask: np.ndarray) -> None:
        """Takes note that of the kept rows only those where `mask (kept,)` holds are in memory now."""
        if not mask.all():
            self.removed = np.union1d(self.removed, self.rows()[~mask])

    def with_payloads(self, commit: Commit, texts: np.ndarray) -> list[dict[str, Any]]:
        """Writes the payloads of all segments anew, `texts (kept,)` and nothing for removed rows; other files stay."""
        rows, start, segments = self.rows(), 0, []
        for number, segment in enumerate(self.segments):
            end = start + segment["count"]
            own = slice(*np.searchsorted(rows, [start, end]))
            written = np.full(segment["count"], "", object)
            written[rows[own] - start] = texts[own]
            entry = commit.array(f"payloads-{number}", pack(written))
            segments.append({**segment, "files": {**segment["files"], "payloads": entry}})
            start = end
        return segments
