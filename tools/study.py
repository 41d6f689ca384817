"""What the studies share: where shared data lies, progress on standard error, and their tables as Markdown."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from zoo.evaluation.record import environment
from zoo.evaluation.tables import Table

DATA = Path(os.environ.get("ZOO_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def say(text: str) -> None:
    """Prints how far it is."""
    print(text, file=sys.stderr, flush=True)


def write_tables(tables: Sequence[Table], output: Path | None) -> None:
    """Writes tables to a file; None prints them."""
    about = environment()
    made = f"Made by `python {' '.join(about['command'])}` at commit {about['commit']}, {about['date']}.\n"
    text = "\n".join(table.markdown() for table in tables) + made
    if output is None:
        print(text)
    else:
        output.write_text(text, encoding="utf-8")
