"""Indexes that keep their gallery in memory and in a folder: ids, payloads, filters, segments, removals, commits."""

from __future__ import annotations

import abc
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch

from zoo.checks import check_integers
from zoo.files import BadFile
from zoo.search import storage
from zoo.search._checks import all_finite
from zoo.search._saved import Saved
from zoo.search._tiers import by_words, check_words, has_text, tiered
from zoo.search.index import Index
from zoo.search.rows import Ids, Payloads, pack, payload_texts, unpack
from zoo.types import Ranking

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from zoo.types import Representation

METRICS = ("dot", "cosine", "l2")
_SEGMENTS = 16  # more are written as one
_REMOVED = 0.25  # share of removed rows from which everything is written anew


class Found(NamedTuple):
    """What a search found: `positions (Q, K)` int64, -1 behind the last hit, `scores (Q, K)` float32, not increasing.

    `evidence` holds for each query one mapping per hit, or is None.
    """

    positions: np.ndarray
    scores: np.ndarray
    evidence: list[list[dict[str, Any]]] | None = None


class StoredIndex(Index, abc.ABC):
    """Does everything but the search itself; a subclass holds the descriptors of the items, by position 0 … N - 1.

    A commit appends one segment with the new rows and lists the removed ones; after many of either it writes all anew.
    `snapshot_format` ends the names of the files that hold what `snapshot` returns; of "npy" these are arrays of any
    shape, which come back mapped, otherwise bytes.
    """

    snapshot_format: ClassVar[str] = "faiss"
    reads_captions: ClassVar[bool] = True

    def __init__(self) -> None:
        self._ids, self._payloads = Ids(), Payloads()
        self._saved: Saved | None = None

    @abc.abstractmethod
    def prepare(self, items: Representation, what: str) -> Any:
        """Returns the rows of `items`, `what` being "items" or "queries"; raises ValueError for what can't be used."""

    @abc.abstractmethod
    def append(self, rows: Any) -> None:
        """Takes rows that `prepare` returned, behind those that are there."""

    @abc.abstractmethod
    def keep(self, mask: np.ndarray) -> None:
        """Drops the rows where `mask (N,)` is False; the others keep their order."""

    @abc.abstractmethod
    def nearest(self, queries: Any, k: int, allowed: np.ndarray | None) -> Found:
        """Returns the k nearest rows of what `prepare` returned for queries, among those where `allowed (N,)` holds."""

    @abc.abstractmethod
    def take(self, positions: np.ndarray) -> Representation:
        """Returns what is stored of the rows at `positions`."""

    @abc.abstractmethod
    def segment(self, start: int) -> dict[str, np.ndarray | storage.Pieces]:
        """Returns arrays that hold the rows from `start` on, for a file each."""

    @abc.abstractmethod
    def extend(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes the rows of a segment, behind those that are there."""

    def snapshot(self) -> dict[str, np.ndarray]:
        """Returns what else has to be written, whole with every commit: bytes (n,) uint8, or arrays."""
        return {}

    def restore_snapshot(self, content: Mapping[str, np.ndarray]) -> None:
        """Takes what `snapshot` returned, when all rows are there."""

    def written(self, files: Sequence[Mapping[str, Path]], removed: np.ndarray) -> None:
        """Is told after a commit where the rows are now: for each segment the files of its arrays, by their names.

        The index is the rows of all segments, one behind the other, but for those numbered `removed`.
        """

    def add(
        self,
        ids: Sequence[str] | Sequence[int],
        items: Representation,
        payloads: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Adds items behind those that are there; see `Index.add`."""
        array, texts, rows = self._checked(ids, items, payloads)
        clash = self._ids.clash(array)
        if clash is not None:
            raise ValueError(f"the index already has an item with the id {clash!r}: use replace")
        self._append(array, texts, rows, items)

    def remove(self, ids: Sequence[str] | Sequence[int]) -> None:
        """Removes items; see `Index.remove`."""
        self._remove(self._ids.positions(self._ids.checked(ids).tolist()))

    def replace(
        self,
        ids: Sequence[str] | Sequence[int],
        items: Representation,
        payloads: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Puts other items in the place of those with the same ids; see `Index.replace`."""
        array, texts, rows = self._checked(ids, items, payloads)
        self._remove(self._ids.positions(array.tolist()))
        self._append(array, texts, rows, items)

    def annotate(self, ids: Sequence[str] | Sequence[int], payloads: Sequence[Mapping[str, Any]]) -> None:
        """Puts other payloads in the place of those of items; see `Index.annotate`."""
        positions = self._ids.positions(self._ids.checked(ids).tolist())
        self._payloads.put(positions, payload_texts(payloads, len(positions)))
        if self._saved is not None and (positions < self._saved.kept).any():
            self._saved.stale = True

    def search(
        self,
        queries: Representation | None,
        k: int,
        where: Mapping[str, Any] | None = None,
        words: Sequence[Sequence[str]] | None = None,
    ) -> list[Ranking]:
        """Returns the k nearest items of each query; see `Index.search`.

        A query with `words` finds first what holds most of them, tier by tier, each tier as exactly as the index
        searches; `queries` None, or a drawing of nothing, leaves the words alone, and without words the items, oldest
        first. Raises ValueError for words that aren't a list of strings for each query, and for captions that aren't a
        list of strings.
        """
        check_integers(1, k=k)
        if queries is None or words is not None:
            check_words(words, None if queries is None else len(queries))
        if queries is not None:
            self.check_model(queries, "queries")
        allowed = self._payloads.matching(where) if where else None
        if queries is not None and not has_text(words):
            return self._nearest(queries, min(k, len(self)), allowed)
        return [
            self._by_text(None if queries is None else queries.rows(slice(row, row + 1)), k, allowed, own)
            for row, own in enumerate(words)
        ]

    def word_counts(self, words: Sequence[str]) -> np.ndarray:
        """Returns how many different ones of `words` the captions of every item hold, (N,) int64, oldest item first."""
        return self._payloads.word_counts(words)

    @property
    def captioned(self) -> int:
        """Returns how many items have captions that text can find."""
        return self._payloads.captioned()

    def get(self, ids: Sequence[str] | Sequence[int]) -> Representation:
        """Returns what is stored of items; see `Index.get`."""
        return replace(self.take(self._ids.positions(ids)), fingerprint=self.fingerprint)

    def payloads(self, ids: Sequence[str] | Sequence[int]) -> list[dict[str, Any]]:
        """Returns the payloads of items; see `Index.payloads`."""
        return self._payloads.at(self._ids.positions(ids))

    @property
    def ids(self) -> list[str] | list[int]:
        """Returns all ids, oldest first."""
        return self._ids.array.tolist()

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, item: object) -> bool:
        return self._ids.find(item) is not None

    def save(self, folder: Path, about: Mapping[str, Any] | None = None) -> None:
        """Makes what the index holds the state of `folder`; see `Index.save`."""
        folder = Path(folder).resolve()
        if about is not None:
            self.about = dict(about)
        described, snapshot = self.described(), self.snapshot()
        before = self._saved if self._saved is not None and self._saved.folder == folder else None
        with storage.committing(folder, before.generation if before else None) as (commit, manifest):
            after = self._write_rows(commit, before)
            manifest.update(described, count=len(self), segments=after.segments)
            manifest["removed"] = commit.array("removed", after.removed) if len(after.removed) else None
            manifest["snapshot"] = {
                key: commit.array(key, value)
                if self.snapshot_format == "npy"
                else commit.content(f"{key}.{self.snapshot_format}", value)
                for key, value in snapshot.items()
            }
        self._saved = after
        files = [{key: folder / entry["file"] for key, entry in each["files"].items()} for each in after.segments]
        self.written(files, after.removed)

    def restore(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        """Fills a new index with what `folder` holds; see `Index.restore`."""
        saved = Saved(Path(folder).resolve(), manifest["generation"], list(manifest["segments"]))
        for segment in saved.segments:
            self._read_segment(folder, segment)
        if manifest["removed"]:
            saved.removed = np.array(storage.read_array(folder, manifest["removed"]))
            mask = np.ones(saved.stored, bool)
            mask[saved.removed] = False
            self._keep(mask)
        read = storage.read_array if self.snapshot_format == "npy" else storage.read_bytes
        content = {key: read(folder, entry) for key, entry in manifest["snapshot"].items()}
        try:
            self.restore_snapshot(content)
        except (RuntimeError, ValueError) as error:
            raise BadFile(f"{folder} can't be read: {error}") from error
        if len(self) != manifest["count"]:
            raise BadFile(f"{folder} is damaged: it holds {len(self)} items instead of {manifest['count']}")
        self._saved = saved

    def _checked(self, ids: Any, items: Representation, payloads: Any) -> tuple[np.ndarray, np.ndarray, Any]:
        array = self._ids.checked(ids)
        items.require(self.needs, f"the index {type(self).__name__}")
        if len(items) != len(array):
            raise ValueError(f"items must be one per id, got {len(items)} for {len(array)} ids")
        self.check_model(items, "items")
        return array, payload_texts(payloads, len(array)), self.prepare(items, "items")

    def _append(self, ids: np.ndarray, texts: np.ndarray, rows: Any, items: Representation) -> None:
        if not len(ids):
            return
        if not len(self) and self.fingerprint is None:
            self.fingerprint = items.fingerprint
        self.append(rows)
        self._ids.append(ids)
        self._payloads.append(texts)

    def _remove(self, positions: np.ndarray) -> None:
        if not len(positions):
            return
        mask = np.ones(len(self), bool)
        mask[positions] = False
        if self._saved is not None:
            self._saved.drop(mask[: self._saved.kept])
        self._keep(mask)

    def _keep(self, mask: np.ndarray) -> None:
        self.keep(mask)
        self._ids.keep(mask)
        self._payloads.keep(mask)

    def _nearest(self, queries: Representation, k: int, allowed: np.ndarray | None) -> list[Ranking]:
        rows = self.prepare(queries, "queries")
        if not len(self) or (allowed is not None and not allowed.any()):
            return [Ranking([], torch.empty(0)) for _ in range(len(queries))]
        return self._rankings(self.nearest(rows, k, allowed))

    def _by_text(
        self, query: Representation | None, k: int, allowed: np.ndarray | None, words: Sequence[str]
    ) -> Ranking:
        if not words and query is not None:
            return self._nearest(query, min(k, len(self)), allowed)[0]
        counts = self.word_counts(words) if words else np.zeros(len(self), np.int64)
        if allowed is not None:
            counts = np.where(allowed, counts, -1)
        if query is not None:
            return tiered(counts, k, lambda most, tier: self._nearest(query, most, tier)[0])
        order, scores = by_words(counts, k)
        shown = [{"words": count} for count in counts[order].tolist()] if words else None
        return Ranking(self._ids.array[order].tolist(), torch.from_numpy(scores), shown)

    def _rankings(self, found: Found) -> list[Ranking]:
        ids, scores = self._ids.array[found.positions].tolist(), torch.from_numpy(found.scores).unbind(0)
        evidence = found.evidence or [None] * len(ids)
        if found.positions.min(initial=0) >= 0:
            return [Ranking(*row) for row in zip(ids, scores, evidence, strict=True)]
        counts = (found.positions >= 0).sum(axis=1).tolist()
        rows = zip(ids, scores, evidence, counts, strict=True)
        return [Ranking(names[:n], values[:n], shown) for names, values, shown, n in rows]

    def _write_rows(self, commit: storage.Commit, before: Saved | None) -> Saved:
        """Writes the rows that the folder doesn't have; all of them when there are many segments or removed rows."""
        after = before or Saved(commit.folder, commit.generation)
        segments, removed, new = after.segments, after.removed, len(self) - after.kept
        if len(segments) + (new > 0) > _SEGMENTS or len(removed) > _REMOVED * after.stored:
            segments, removed, new = [], removed[:0], len(self)
        elif after.stale:
            segments = after.with_payloads(commit, self._payloads.texts[: after.kept])
        if new:
            start = len(self) - new
            arrays = {"ids": pack(self._ids.array[start:]), "payloads": pack(self._payloads.texts[start:])}
            files = {key: commit.array(key, value) for key, value in {**arrays, **self.segment(start)}.items()}
            segments = [*segments, {"count": new, "files": files}]
        return Saved(commit.folder, commit.generation, segments, removed)

    def _read_segment(self, folder: Path, segment: Mapping[str, Any]) -> None:
        arrays = {key: storage.read_array(folder, entry) for key, entry in segment["files"].items()}
        try:
            ids, texts = (unpack(arrays.pop(key), segment["count"]) for key in ("ids", "payloads"))
            self.extend(arrays)
        except (KeyError, ValueError) as error:
            raise BadFile(
                f"{folder / segment['files']['ids']['file']} or its segment can't be read: {error}"
            ) from error
        self._ids.append(ids)
        self._payloads.append(texts)


def check_metric(metric: str, metrics: Sequence[str] = METRICS) -> None:
    """Raises ValueError for a metric that doesn't exist."""
    if metric not in metrics:
        raise ValueError(f"metric must be one of {', '.join(metrics)}, got {metric!r}")


def rows_of(tensor: torch.Tensor, dimension: int | None, what: str, normalise: bool, axes: int = 2) -> np.ndarray:
    """Returns descriptors, (B, D) for 2 `axes` and (B, R, D) for 3, as float32, L2-normalised where asked for.

    Raises ValueError for another shape, another dimension than that of the index, or values that are not finite.
    """
    rows = np.ascontiguousarray(tensor.detach().cpu().float().numpy())
    if rows.ndim != axes:
        raise ValueError(f"{what} must be {'(B, D)' if axes == 2 else '(B, R, D)'}, got {tuple(rows.shape)}")
    if dimension is not None and rows.shape[-1] != dimension:
        raise ValueError(f"{what} must have the dimension {dimension} of the index, got {rows.shape[-1]}")
    if not all_finite(rows):
        raise ValueError(f"{what} must be finite, got NaN or infinite values")
    if normalise:
        rows = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), np.finfo(np.float32).tiny)
    return rows
