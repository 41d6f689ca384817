"""What a benchmark found: rows, their table, and the file that keeps them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from zoo.evaluation.tables import Table
from zoo.files import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Cell:
    """A mean over queries, the half-width of its 95 % t-interval, and the value of each query by its position."""

    mean: float
    half_width: float
    per_query: dict[int, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.half_width:.3f}"


@dataclass(frozen=True)
class Row:
    """One descriptor: its label, whether it was L2-normalised, a cell per (method, nodes), the published numbers."""

    label: str
    normalised: bool
    cells: dict[tuple[str, str], Cell]
    published: Sequence[float] | None


@dataclass(frozen=True)
class Report:
    """All rows, how well the ground truths agree, task scores, the protocol, and the model's own row."""

    rows: list[Row]
    agreement: dict[str, Cell]
    scores: dict[str, float]
    fingerprint: dict[str, Any]
    own: Row

    def tables(self) -> list[Table]:
        """Returns the tables to print: Spearman, agreement of the ground truths, task scores."""
        size = f"{self.fingerprint['queries']} queries, gallery of {self.fingerprint['gallery']}"
        tables = [self._spearman(f"Mean Spearman's rho ± 95 % interval ({size})")]
        if self.agreement:
            rows = [[name, str(cell), "0.89"] for name, cell in self.agreement.items()]
            headers = ["ground truths, soft", "mean Spearman's rho", "published"]
            tables.append(Table("Exact against approximate edit distance", headers, rows))
        if self.scores:
            rows = [[name, f"{100 * value:.1f} %"] for name, value in sorted(self.scores.items())]
            tables.append(Table("Questions answered rightly", ["questions", "share"], rows))
        return tables

    def _spearman(self, title: str) -> Table:
        columns = list(self.rows[0].cells)
        published = any(row.published for row in self.rows)
        headers = ["descriptor", "L2", *(f"{nodes}, {method}" for method, nodes in columns)]
        rows = []
        for row in self.rows:
            line = [row.label, "yes" if row.normalised else "no", *(str(row.cells[column]) for column in columns)]
            rows.append(line + ([_published(row.published)] if published else []))
        return Table(title, headers + (["published soft / hard"] if published else []), rows)

    def as_json(self) -> dict[str, Any]:
        """Returns the report as plain values."""
        return {
            "fingerprint": self.fingerprint,
            "rows": [
                {
                    "descriptor": row.label,
                    "l2_normalised": row.normalised,
                    "spearman": {f"{nodes}, {method}": vars(cell) for (method, nodes), cell in row.cells.items()},
                    "published": list(row.published) if row.published else None,
                }
                for row in self.rows
            ],
            "agreement": {name: vars(cell) for name, cell in self.agreement.items()},
            "scores": self.scores,
        }


def _published(numbers: Sequence[float] | None) -> str:
    return " / ".join(f"{number:.2f}" for number in numbers) if numbers else "–"


def write_text(path: Path, text: str) -> None:
    """Writes a file under a temporary name, then renames it."""
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: Path, content: Any) -> None:
    """Writes plain values as indented JSON, atomically; NaN becomes null."""
    write_text(path, json.dumps(_without_nan(content), indent=1, ensure_ascii=False) + "\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and value != value else value
