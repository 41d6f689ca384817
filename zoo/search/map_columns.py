"""Codes of images, a row for each class, in several arrays, some of them mapped files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoo.search.storage import Pieces

if TYPE_CHECKING:
    from collections.abc import Iterator

_LEAST = 1024  # columns that there is room for at first


class Columns:
    """Codes (C, N) uint8: image i is column i, in the order of `parts`, whose arrays may hold further columns.

    What is added in memory grows by amortised doubling; what is mapped stays where it is.
    """

    def __init__(self) -> None:
        self._parts: list[_Part] = []
        self._growing: np.ndarray | None = None  # room behind the last part, which lies at its beginning

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    @property
    def classes(self) -> int | None:
        """Returns C, None as long as there is nothing."""
        return self._parts[0].codes.shape[0] if self._parts else None

    def append(self, codes: np.ndarray) -> None:
        """Adds `codes (C, B)` that are in memory."""
        held = 0 if self._growing is None else self._parts.pop().codes.shape[1]
        end = held + codes.shape[1]
        if self._growing is None or end > self._growing.shape[1]:
            bigger = np.empty((len(codes), max(end, _LEAST, held * 3 // 2)), np.uint8)
            if held:
                bigger[:, :held] = self._growing[:, :held]
            self._growing = bigger
        self._growing[:, held:end] = codes
        self._parts.append(_Part(self._growing[:, :end]))

    def map(self, codes: np.ndarray) -> None:
        """Adds `codes (C, B)` that stay where they are, a mapped file."""
        self._growing = None
        self._parts.append(_Part(codes))

    def keep(self, mask: np.ndarray) -> None:
        """Drops the columns where `mask (N,)` is False; the arrays stay as they are."""
        start = 0
        for part in self._parts:
            own, start = mask[start : start + len(part)], start + len(part)
            if not own.all():
                part.chosen = np.flatnonzero(own) if part.chosen is None else part.chosen[own]
        # What has lost columns can't grow in place.
        self._growing = None if any(part.chosen is not None for part in self._parts[-1:]) else self._growing

    def clear(self) -> None:
        """Forgets everything."""
        self._parts, self._growing = [], None

    def parts(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Yields arrays (C, B) with the columns that count, None for all; one behind the other they are the images."""
        for part in self._parts:
            yield part.codes, part.chosen

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Returns the codes (C, n) at `positions (n,)`."""
        taken = np.empty((self.classes or 0, len(positions)), np.uint8)
        start = 0
        for part in self._parts:
            mine = np.flatnonzero((positions >= start) & (positions < start + len(part)))
            columns = positions[mine] - start
            taken[:, mine] = part.codes[:, columns if part.chosen is None else part.chosen[columns]]
            start += len(part)
        return taken

    def since(self, start: int) -> Pieces:
        """Returns the codes (C, N - start) from column `start` on, to be written class by class."""
        return Pieces((self.classes, len(self) - start), np.dtype(np.uint8), self._rows(start))

    def _rows(self, start: int) -> Iterator[np.ndarray]:
        for row in range(self.classes):
            whole = [part.codes[row] if part.chosen is None else part.codes[row][part.chosen] for part in self._parts]
            yield np.concatenate(whole)[start:][None]


class _Part:
    """Codes (C, B) and the columns that are images, None for all."""

    def __init__(self, codes: np.ndarray, chosen: np.ndarray | None = None) -> None:
        self.codes, self.chosen = codes, chosen

    def __len__(self) -> int:
        return self.codes.shape[1] if self.chosen is None else len(self.chosen)
