"""One table: printed in a terminal, or written as Markdown, CSV or LaTeX."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from rich.console import Console

_WIDEST = 400  # characters; a wrapped table of numbers can't be read
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # after `\\`, a bracket or star would be taken as its argument
    "*": "{*}",
    "±": r"$\pm$",
    "ρ": r"$\rho$",
    "–": "--",
    "…": r"\dots{}",
    **{character: f"\\{character}" for character in "{}$&#%_"},
}


@dataclass(frozen=True)
class Table:
    """A title, column headers and rows of cells, all text; `bold` (row, column) cells; `notes` to stand below.

    The first `names` columns hold names and are set flush left, the others numbers.
    """

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    bold: Collection[tuple[int, int]] = ()
    notes: Sequence[str] = ()
    names: int = 1

    def markdown(self) -> str:
        """Returns the table as GitHub Markdown with its title as a heading and its notes as a list."""
        rows = [
            [f"**{_md(cell)}**" if (row, column) in self.bold else _md(cell) for column, cell in enumerate(cells)]
            for row, cells in enumerate(self.rows)
        ]
        lines = [[_md(header) for header in self.headers], ["---"] * len(self.headers), *rows]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
        notes = "".join(f"- {_md(note)}\n" for note in self.notes)
        return f"### {_md(self.title)}\n\n{table}" + (f"\n{notes}" if notes else "")

    def csv(self) -> str:
        """Returns headers and rows as CSV, without title and notes; line breaks in cells become spaces."""
        text = io.StringIO()
        rows = ([_one_line(cell) for cell in cells] for cells in (self.headers, *self.rows))
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue()

    def latex(self) -> str:
        """Returns a `table` with `booktabs` rules; title and notes are its caption."""
        rows = [
            [rf"\textbf{{{_tex(cell)}}}" if (row, column) in self.bold else _tex(cell) for column, cell in enumerate(c)]
            for row, c in enumerate(self.rows)
        ]
        body = "\n".join(" & ".join(cells) + r" \\" for cells in rows)
        caption = " ".join(re.sub(r"([^.])$", r"\1.", _tex(text)) for text in (self.title, *self.notes))
        columns = "l" * self.names + "r" * (len(self.headers) - self.names)
        return (
            "% needs \\usepackage{booktabs}\n\\begin{table}\n\\centering\n"
            f"\\caption{{{caption}}}\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n"
            f"{' & '.join(map(_tex, self.headers))} \\\\\n\\midrule\n{body}\n\\bottomrule\n"
            "\\end{tabular}\n\\end{table}\n"
        )

    def text(self) -> str:
        """Returns the table as it is printed, without colours or bold type."""
        from rich.console import Console

        file = io.StringIO()
        self._draw(Console(file=file, color_system=None))
        return file.getvalue()

    def print(self) -> None:
        """Prints the table, as wide as it needs to be."""
        from rich.console import Console

        console = Console()
        with console.capture() as captured:  # rich itself would end the process with 1 once its reader has left
            self._draw(console)
        print(captured.get(), end="")

    def _draw(self, console: Console) -> None:
        # Text, since plain strings may hold rich's markup: a run called "[x]" would vanish.
        from rich.table import Table as RichTable
        from rich.text import Text

        drawn = RichTable(title=Text(self.title, style="bold"), title_justify="left")
        for position, header in enumerate(self.headers):
            drawn.add_column(Text(header), justify="left" if position < self.names else "right", no_wrap=True)
        for row, cells in enumerate(self.rows):
            marked = ((cell, "bold" if (row, column) in self.bold else "") for column, cell in enumerate(cells))
            drawn.add_row(*(Text(cell, style=style) for cell, style in marked))
        needed = console.measure(drawn, options=console.options.update(width=_WIDEST)).maximum
        console.width = max(console.width, needed)
        console.print(drawn)
        for note in self.notes:
            console.print(Text(note))


def mean_and_interval(mean: float, half_width: float, decimals: int = 3) -> str:
    """Returns `mean ± half_width` as every table shows it; a dash where there is no mean."""
    if math.isnan(mean):
        return "–"
    return f"{mean:.{decimals}f}" + ("" if math.isnan(half_width) else f" ± {half_width:.{decimals}f}")


def _md(text: str) -> str:
    return re.sub(r"([\\|<>\[])", r"\\\1", _one_line(text))


def _tex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in _one_line(text))


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())
