"""`zoo compare`: one table of several runs, with paired tests of their differences."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from zoo.commands import until_reader_leaves
from zoo.commands._ending import one_line_errors
from zoo.commands._parsing import RunParser, output_file

if TYPE_CHECKING:
    from pathlib import Path

    from zoo.evaluation.compare import Comparison

FORMATS = {"terminal": ".txt", "markdown": ".md", "csv": ".csv", "latex": ".tex"}

_HELP = """\
Prints a line per run and a column per metric: mean ± half-width of the 95 % interval, the best in bold, and the
p-value of a paired permutation test over queries against the first run. Runs of different protocols (queries,
gallery, ground truth, metric settings) are refused."""
_EXAMPLES = """\
examples:
  zoo compare outputs/two_stage_rn/max outputs/two_stage_rn/avg
  zoo compare outputs/multirun/alpha                   all runs of a multirun
  zoo compare max=outputs/a avg=outputs/b              names for the table
  zoo compare RUN RUN --metric map mp@5                some metrics only (after the runs)
  zoo compare RUN RUN --format latex > table.tex       with \\usepackage{booktabs}
  zoo compare RUN RUN --output table.csv               plain numbers, a line per run and metric
  zoo compare RUN --all-rows                           every descriptor of a run, each against the run's own
"""


@until_reader_leaves()
def main() -> None:
    """Runs the command."""
    arguments = _parse()
    with one_line_errors():
        from zoo.evaluation.compare import compare
        from zoo.evaluation.results import read_runs

        comparison = compare(read_runs(arguments.runs), arguments.metric, arguments.all_rows)
        if arguments.output is None:
            _print(comparison, arguments.format)
        else:
            _write(comparison, arguments.format, arguments.output)


def _parse() -> argparse.Namespace:
    options = "[--metric NAME …] [--format FORM] [--all-rows] [--output FILE]"
    parser = RunParser("compare", options, _HELP, _EXAMPLES)
    parser.add_argument("--metric", nargs="+", action="extend", default=[], metavar="NAME", help="columns; default all")
    parser.add_argument("--format", choices=FORMATS, help="default: as --output ends (.md, .csv, .tex), else terminal")
    parser.add_argument("--all-rows", action="store_true", help="a line for every descriptor of every run")
    parser.add_argument("--output", type=output_file, metavar="FILE", help="write there instead of printing")
    arguments = parser.parse()
    suffix = arguments.output.suffix if arguments.output else ""
    endings = {ending: name for name, ending in FORMATS.items()}
    arguments.format = arguments.format or endings.get(suffix, "terminal")
    return arguments


def _print(comparison: Comparison, form: str) -> None:
    if form == "terminal":
        comparison.table().print()
    else:
        print(_text(comparison, form), end="")


def _text(comparison: Comparison, form: str) -> str:
    if form == "csv":
        return comparison.records().csv()
    table = comparison.table()
    return {"terminal": table.text, "markdown": table.markdown, "latex": table.latex}[form]()


def _write(comparison: Comparison, form: str, path: Path) -> None:
    from zoo.evaluation.report import write_text

    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, _text(comparison, form))
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
