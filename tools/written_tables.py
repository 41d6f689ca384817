"""Tables of a study as Markdown, with the command that made them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zoo.evaluation.record import environment
from zoo.evaluation.tables import Table


def write_tables(tables: Sequence[Table], output: Path | None) -> None:
    """Writes tables to a file; None prints them."""
    about = environment()
    made = f"Made by `python {' '.join(about['command'])}` at commit {about['commit']}, {about['date']}.\n"
    text = "\n".join(table.markdown() for table in tables) + made
    if output is None:
        print(text)
    else:
        output.write_text(text, encoding="utf-8")
