"""What `zoo rerank` reads: queries, their hits from any vector database, and what is known of these."""

from __future__ import annotations

import csv
import logging
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.registry import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

log = logging.getLogger("zoo")

ID = "id"
_QUERIES, _HITS = "queries", "hits"
_FORMS = "queries.npy and hits.npy, or one .npz with the arrays queries and hits"
_UNREADABLE = (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, eq=False)
class HitLists:
    """Q queries `(Q, D)` with K hits each `(Q, K, D)`, nearest first, of any real type and perhaps mapped files.

    `columns` holds numbers (Q, K) float64 by their names, `ids (Q, K)` the hits' names, or None.
    """

    queries: np.ndarray
    hits: np.ndarray
    columns: Mapping[str, np.ndarray]
    ids: np.ndarray | None

    def __len__(self) -> int:
        """Returns Q."""
        return len(self.queries)

    def vectors(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns copies of a query (1, D) and its hits (K, D) as floats; UsageError where one isn't finite."""
        found = []
        for name, rows in ((_QUERIES, self.queries[number][None]), (_HITS, self.hits[number])):
            rows = np.array(rows, np.float64 if rows.dtype.kind == "f" and rows.dtype.itemsize == 8 else np.float32)
            if not np.isfinite(rows).all():
                raise UsageError(f"{name} must be finite, those of query {number} hold NaN or infinite values")
            found.append(rows)
        return found[0], found[1]

    def metadata(self, number: int) -> list[dict[str, Any]]:
        """Returns a mapping for each hit of a query."""
        columns = {name: column[number].tolist() for name, column in self.columns.items()}
        return [{name: column[k] for name, column in columns.items()} for k in range(self.hits.shape[1])]


def read_hit_lists(files: str | Sequence[str] | None, metadata: str | None) -> HitLists:
    """Reads `queries.npy (Q, D)` and `hits.npy (Q, K, D)`, or one .npz that may hold columns as well.

    One query may be (D,), its hits (K, D). `metadata` is an .npz with columns (Q, K), or a .csv with a row for each
    hit. Nothing pickled is read. Raises UsageError, naming file, rule and value, for what can't be read or doesn't fit.
    """
    paths = [Path(file).expanduser() for file in ([files] if isinstance(files, str) else files or ())]
    if len(paths) == 1 and paths[0].suffix == ".npz":
        further = _arrays(paths[0], "files")
        missing = [name for name in (_QUERIES, _HITS) if name not in further]
        if missing:
            raise UsageError(f"{paths[0]} must hold the arrays queries and hits, got {', '.join(further) or 'none'}")
        queries, hits = further.pop(_QUERIES), further.pop(_HITS)
    elif len(paths) == 2 and all(path.suffix == ".npy" for path in paths):
        queries, hits, further = _mapped(paths[0], _QUERIES), _mapped(paths[1], _HITS), {}
    else:
        got = ", ".join(map(str, paths)) or "none"
        raise UsageError(f"files must be {_FORMS}, got {got}; see zoo rerank --help")
    queries, hits = _fitting(queries, hits)
    shape, columns = hits.shape[:2], {name: _shaped(name, column, hits.shape[:2]) for name, column in further.items()}
    given = {} if metadata is None else _metadata(Path(metadata).expanduser(), shape)
    twice = sorted(columns.keys() & given.keys())
    if twice:
        raise UsageError(f"metadata {metadata} holds {', '.join(twice)}, which {paths[0]} holds too: leave one out")
    columns |= given
    ids = _named(columns.pop(ID, None))
    numbers = {name: column.astype(np.float64) for name, column in columns.items() if column.dtype.kind in "fiub"}
    return HitLists(queries, hits, numbers, ids)


def _mapped(path: Path, name: str) -> np.ndarray:
    try:
        content = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise UsageError(f"{name} '{path}': no such file") from error
    except _UNREADABLE as error:
        raise UsageError(f"{name} '{path}' isn't a readable .npy file: {_reason(error)}") from error
    if not isinstance(content, np.ndarray):
        raise UsageError(f"{name} '{path}' isn't a .npy file, its content is that of an .npz")
    return content


def _arrays(path: Path, name: str) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as content:
            return {key: content[key] for key in content.files}
    except FileNotFoundError as error:
        raise UsageError(f"{name} '{path}': no such file") from error
    except (*_UNREADABLE, AttributeError, TypeError) as error:  # the last two: it is a .npy
        raise UsageError(f"{name} '{path}' isn't a readable .npz file: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _fitting(queries: np.ndarray, hits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns queries (Q, D) and hits (Q, K, D); UsageError where these are none, or don't belong together."""
    for name, array in ((_QUERIES, queries), (_HITS, hits)):
        if array.dtype.kind not in "fiu":
            raise UsageError(f"{name} must be real numbers, got {array.dtype}")
    got = f"got {queries.shape} and {hits.shape}"
    if queries.ndim not in (1, 2) or hits.ndim not in (2, 3):
        raise UsageError(f"queries must be (Q, D) or (D,), hits (Q, K, D) or (K, D), {got}")
    queries, hits = np.atleast_2d(queries), hits[None] if hits.ndim == 2 else hits
    if len(queries) != len(hits):
        raise UsageError(f"hits must be those of each query, (Q, K, D) for queries (Q, D), {got}")
    if queries.shape[1] != hits.shape[2]:
        raise UsageError(f"queries and hits must have the same D, {got}")
    if not (queries.size and hits.size):
        raise UsageError(f"queries and hits must hold at least one query with one hit, {got}")
    return queries, hits


def _metadata(path: Path, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    if path.suffix == ".npz":
        return {name: _shaped(name, column, shape) for name, column in _arrays(path, "metadata").items()}
    if path.suffix == ".csv":
        return _table(path, shape)
    raise UsageError(f"metadata must be an .npz or a .csv file, got '{path}'")


def _shaped(name: str, column: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    if column.shape == shape or (shape[0] == 1 and column.shape == shape[1:]):
        return column.reshape(shape)
    one = f" or {shape[1:]}" if shape[0] == 1 else ""
    raise UsageError(f"metadata {name} must be one value a hit, (Q, K) = {shape}{one}, got {column.shape}")


def _table(path: Path, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Returns the columns of a .csv; those that hold no numbers are texts."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = [row for row in csv.reader(file) if row] or [[]]
    except FileNotFoundError as error:
        raise UsageError(f"metadata '{path}': no such file") from error
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"metadata '{path}' can't be read as CSV in UTF-8: {_reason(error)}") from error
    if not header or len(set(header)) < len(header):
        raise UsageError(
            f"metadata '{path}' must begin with a line of different names, got {','.join(header) or 'none'}"
        )
    if len(rows) != shape[0] * shape[1]:
        hits = f"{shape[0]} x {shape[1]} = {shape[0] * shape[1]}"
        raise UsageError(f"metadata '{path}' must have one row for each hit, in order, {hits}, got {len(rows)}")
    wrong = next((number for number, row in enumerate(rows, start=1) if len(row) != len(header)), None)
    if wrong:
        cells = len(rows[wrong - 1])
        raise UsageError(f"metadata '{path}' must have {len(header)} cells in every row, row {wrong} has {cells}")
    columns = dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))
    return {name: _cells(path, name, cells).reshape(shape) for name, cells in columns.items()}


def _cells(path: Path, name: str, cells: list[str]) -> np.ndarray:
    """Returns numbers where some cells are, NaN for the others, which it names; else texts."""
    text = np.array(cells)
    if name == ID:
        return text
    numbers = [_number(cell) for cell in cells]
    wrong = [row for row, number in enumerate(numbers) if number is None]
    if not wrong:
        return np.array(numbers)
    if len(wrong) < len(cells):
        where = f"row {wrong[0] + 1} has {cells[wrong[0]]!r}"
        log.warning("metadata '%s': the column %s isn't all numbers: %s", path, name, where)
        return np.array([np.nan if number is None else number for number in numbers])
    return text


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _named(ids: np.ndarray | None) -> np.ndarray | None:
    if ids is not None and ids.dtype.kind not in "Uiu":
        raise UsageError(f"metadata id must be texts or whole numbers, got {ids.dtype}")
    return ids
