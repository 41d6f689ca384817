"""One table, printed in a terminal or written as Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDEST = 400  # characters; a wrapped table of numbers can't be read


@dataclass(frozen=True)
class Table:
    """A title, column headers and rows of cells, all text."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Returns the table as GitHub Markdown with its title as a heading."""
        lines = [self.headers, ["---"] * len(self.headers), *self.rows]
        return f"### {self.title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"

    def print(self) -> None:
        """Prints the table, as wide as it needs to be."""
        from rich.console import Console
        from rich.table import Table as RichTable

        drawn = RichTable(title=self.title, title_justify="left", title_style="bold")
        for position, header in enumerate(self.headers):
            drawn.add_column(header, justify="left" if position == 0 else "right", no_wrap=True)
        for row in self.rows:
            drawn.add_row(*row)
        console = Console()
        needed = console.measure(drawn, options=console.options.update(width=_WIDEST)).maximum
        Console(width=max(console.width, needed)).print(drawn)
