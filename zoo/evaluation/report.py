"""What a benchmark found: rows of metrics, their table, and the files that keep them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from zoo.evaluation.tables import Table, mean_and_interval
from zoo.files import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SCHEMA = 2  # of results.json; to be raised with any change that readers of older files would misread


@dataclass(frozen=True)
class Cell:
    """A mean over queries, the half-width of its 95 % t-interval, and the value of each query, NaN where undefined."""

    mean: float
    half_width: float
    per_query: Sequence[float]

    @classmethod
    def of(cls, metric: Any, queries: int) -> Cell:
        """Reads a metric that knows the values of queries 0 … `queries` - 1; collective, all ranks must call it."""
        ids, values = metric.per_query_values()
        per_query = [math.nan] * queries
        for query, value in zip(ids.tolist(), values.tolist(), strict=True):
            per_query[query] = value
        return cls(metric.compute().item(), metric.half_width().item(), per_query)

    def __str__(self) -> str:
        return mean_and_interval(self.mean, self.half_width)


@dataclass(frozen=True)
class Row:
    """One descriptor: its label, whether it was L2-normalised, a cell per metric label, the published numbers.

    `normalised` is None where the question does not arise (scores read from a file, results of a search).
    """

    label: str
    normalised: bool | None
    cells: Mapping[str, Cell]
    published: Sequence[float] | None = None


@dataclass(frozen=True)
class Report:
    """All rows and the model's own, the protocol, the queries' names; ground truths' agreement and task scores if any.

    The fingerprint holds what makes two reports comparable, and under "hash" the hash of all that. `curve` names the
    metric that is shown over its cut-offs, None for none.
    """

    title: str
    rows: Sequence[Row]
    own: Row
    fingerprint: Mapping[str, Any]
    query_ids: Sequence[str]
    agreement: Mapping[str, Cell] = field(default_factory=dict)
    agreement_published: Mapping[str, Sequence[float]] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    curve: str | None = None

    def query_table(self) -> tuple[list[str], list[list[Any]]]:
        """Returns columns and rows of the model's own values, a row a query; None where a value is undefined."""
        values = [[None if math.isnan(one) else one for one in cell.per_query] for cell in self.own.cells.values()]
        rows = [[name, *own] for name, *own in zip(self.query_ids, *values, strict=True)]
        return ["query", *self.own.cells], rows

    def tables(self) -> list[Table]:
        """Returns the tables to print: metrics, agreement of the ground truths, task scores."""
        size = f"{self.fingerprint['queries']} queries, gallery of {self.fingerprint['gallery']}"
        tables = [self._metrics(f"{self.title}, mean ± 95 % interval ({size})")]
        if self.agreement:
            tables.append(self._agreement())
        if self.scores:
            rows = [[name, f"{100 * value:.1f} %"] for name, value in sorted(self.scores.items())]
            tables.append(Table("Questions answered rightly", ["questions", "share"], rows))
        return tables

    def _metrics(self, title: str) -> Table:
        normalised = any(row.normalised is not None for row in self.rows)
        published = any(row.published for row in self.rows)
        headers = ["descriptor", *(["L2"] if normalised else []), *self.own.cells]
        rows = []
        for row in self.rows:
            line = [row.label, *([_yes_no(row.normalised)] if normalised else []), *map(str, row.cells.values())]
            rows.append(line + ([_published(row.published)] if published else []))
        columns = headers + (["published soft / hard"] if published else [])
        return Table(title, columns, rows, *self._own_in_bold(len(columns), normalised))

    def _own_in_bold(self, columns: int, normalised: bool) -> tuple[list[tuple[int, int]], list[str]]:
        """Returns the cells of the own row and what to say of them; nothing where there is no other."""
        notes = ["L2: whether descriptors were L2-normalised (cosine)"] if normalised else []
        if len(self.rows) == 1:
            return [], notes
        name = self.own.label + (", L2-normalised" if self.own.normalised else "")
        what = "what the search finds" if self.own.normalised is None else "the model's own descriptor"
        notes.insert(0, f"Bold: {name}, {what}, by which zoo compare and zoo report judge the run")
        return [(self._own_position(), column) for column in range(columns)], notes

    def _own_position(self) -> int:
        return next(position for position, row in enumerate(self.rows) if row is self.own)

    def _agreement(self) -> Table:
        headers = ["ground truths, soft", "mean Spearman's rho"]
        rows = [[name, str(cell)] for name, cell in self.agreement.items()]
        if any(name in self.agreement_published for name in self.agreement):
            headers.append("published")
            for row in rows:
                row.append(_published(self.agreement_published.get(row[0])))
        return Table("Exact against approximate edit distance", headers, rows)

    def as_json(self) -> dict[str, Any]:
        """Returns the report as plain values, in the layout of results.json."""
        return {
            "fingerprint": self.fingerprint,
            "query_ids": list(self.query_ids),
            "own": self._own_position(),
            "rows": [
                {
                    "descriptor": row.label,
                    "l2_normalised": row.normalised,
                    "published": list(row.published) if row.published else None,
                    "metrics": {label: vars(cell) for label, cell in row.cells.items()},
                }
                for row in self.rows
            ],
            "agreement": {name: vars(cell) for name, cell in self.agreement.items()},
            "scores": self.scores,
        }


def _yes_no(value: bool | None) -> str:
    return "–" if value is None else "yes" if value else "no"


def _published(numbers: Sequence[float] | None) -> str:
    return " / ".join(f"{number:.2f}" for number in numbers) if numbers else "–"


def write_text(path: Path, text: str) -> None:
    """Writes a file under a temporary name, then renames it."""
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: Path, content: Any, indent: int | None = 1) -> None:
    """Writes plain values as JSON, atomically; NaN becomes null."""
    write_text(path, json.dumps(_without_nan(content), indent=indent, allow_nan=False) + "\n")


def _without_nan(value: Any) -> Any:
    if hasattr(value, "items"):
        return {str(key): _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
