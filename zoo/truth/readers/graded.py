"""Graded relevance from JSON, CSV and TREC's qrels."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from zoo.truth.readers.files import naming, read_json
from zoo.truth.relevance import GradedLists

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = ["query", "item", "gain"]


def read_graded(path: Path) -> GradedLists:
    """Reads gains: `.json` {query: {id: gain}}, `.csv` with the header query,item,gain, else TREC's qrels.

    A line of qrels reads "query 0 item gain" with white space between. Raises FileNotFoundError, or ValueError that
    names the file and the line or query.
    """
    with naming(path):
        if path.suffix == ".json":
            return _from_json(read_json(path))
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = _csv_rows(stream) if path.suffix == ".csv" else _qrels_rows(stream)
            return _from_rows(rows)


def _from_json(content: Any) -> GradedLists:
    if not isinstance(content, dict) or not all(isinstance(gains, dict) for gains in content.values()):
        raise ValueError("graded JSON must read {query: {id: gain}}")
    return GradedLists(tuple(content), tuple(content.values()))


def _csv_rows(stream: Iterable[str]) -> Iterable[tuple[int, list[str]]]:
    reader = csv.reader(stream)
    header = next(reader, [])
    if header != COLUMNS:
        raise ValueError(f"the header must be {','.join(COLUMNS)}, got {','.join(header)!r}")
    return ((reader.line_num, row) for row in reader if row)


def _qrels_rows(stream: Iterable[str]) -> Iterable[tuple[int, list[str]]]:
    for number, line in enumerate(stream, start=1):
        words = line.split()
        if words and len(words) != 4:
            raise ValueError(f"line {number}: 'query 0 item gain' is needed, got {line.strip()[:80]!r}")
        if words:
            yield number, [words[0], words[2], words[3]]


def _from_rows(rows: Iterable[tuple[int, list[str]]]) -> GradedLists:
    gains: dict[str, dict[str, float]] = {}
    for number, row in rows:
        if len(row) != len(COLUMNS):
            raise ValueError(f"line {number}: {','.join(COLUMNS)} are needed, got {','.join(row)[:80]!r}")
        query, item, text = row
        try:
            gain = float(text)
        except ValueError:
            raise ValueError(f"line {number}: the gain must be a number, got {text!r}") from None
        if item in gains.setdefault(query, {}):
            raise ValueError(f"line {number}: query {query!r} judges {item!r} twice")
        gains[query][item] = gain
    return GradedLists(tuple(gains), tuple(gains.values()))
