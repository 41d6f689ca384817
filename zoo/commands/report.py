"""`zoo report`: one self-contained HTML page about one or several runs."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.commands import until_reader_leaves
from zoo.commands._ending import one_line_errors
from zoo.commands._parsing import RunParser, count, output_file
from zoo.progress import tracked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo.evaluation.html import Page, PictureKey
    from zoo.evaluation.results import Run

QUERIES, TOP = 20, 10
_HELP = """\
Writes one HTML page that needs no network: the table of `zoo compare`, the values of every query, and the ranked
lists of the worst queries of the first run, with pictures and their relevance, and the runs' contact sheets."""
_EXAMPLES = """\
examples:
  zoo report outputs/oxford/gem                              one run → report.html
  zoo report gem=outputs/a rmac=outputs/b --output page.html two runs, side by side
  zoo report RUN RUN --metric hard/map --queries 50 --top 20 the 50 worst by that metric, 20 items each
"""


@until_reader_leaves()
def main() -> None:
    """Runs the command."""
    arguments = _parse()
    with one_line_errors():
        problem = write_page(arguments.runs, arguments.output, arguments.metric, arguments.queries, arguments.top)
    if problem:
        print(f"zoo: {problem}", file=sys.stderr)
    print(f"wrote {arguments.output} ({arguments.output.stat().st_size / 1e6:.1f} MB)")


def write_page(
    runs: Sequence[str], output: Path, metric: str | None = None, queries: int = QUERIES, top: int = TOP
) -> str:
    """Writes the page about runs (`[NAME=]RUN` words) and returns why pictures are missing, empty if none is.

    Raises RunError for runs that can't be read or compared.
    """
    from zoo.evaluation.results import read_runs

    found = read_runs(runs)
    page = _page(found, metric, queries, top)
    path = output.resolve()  # before the folder changes
    pictures, problem = _pictures(page, found)
    _write(path, page.html(pictures, problem))
    return problem


def _parse() -> argparse.Namespace:
    parser = RunParser("report", "[--metric NAME] [--queries N] [--top K] [--output FILE]", _HELP, _EXAMPLES)
    parser.add_argument(
        "--output", type=output_file, default="report.html", metavar="FILE", help="default: %(default)s"
    )
    parser.add_argument("--metric", metavar="NAME", help="what worst means, and the plots show; default the main one")
    parser.add_argument(
        "--queries", type=count, default=QUERIES, metavar="N", help="ranked lists; default: %(default)s"
    )
    parser.add_argument("--top", type=count, default=TOP, metavar="K", help="items of a list; default: %(default)s")
    return parser.parse()


def _page(runs: Sequence[Run], metric: str | None, queries: int, top: int) -> Page:
    from zoo.evaluation.compare import compare
    from zoo.evaluation.html import Page, worst_queries
    from zoo.evaluation.results import read_rankings

    if metric:
        compare(runs, [metric])  # raises for a metric that a run lacks
    comparison = compare(runs)
    metric = metric or comparison.metrics[0]
    worst = worst_queries(runs[0], metric, queries)
    rankings = [read_rankings(run, worst, top) for run in runs]
    return Page(comparison, metric, worst, rankings)


def _write(path: Path, html: str) -> None:
    from zoo.files import replacing

    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(html.encode("utf-8", "replace"))  # ids made of file names may hold what UTF-8 can't


def _pictures(page: Page, runs: Sequence[Run]) -> tuple[dict[PictureKey, str], str]:
    """Returns the page's pictures as data URIs, and why some are missing (empty where none is)."""
    wanted, problems = page.pictures(), []
    if not wanted:
        return {}, "No ranked lists: no run has a rankings.json beside its results.json; run `zoo eval` again."
    for run in runs:
        try:
            with _folder_of(run):
                return _read(wanted, _data(run))
        except Exception as error:  # of a plugin, too: a page without pictures is better than none
            problems.append(f"{run.name}: {_one_line(error)}")
    return {}, f"No pictures, since the data can't be opened ({'; '.join(problems)})."


def _folder_of(run: Run) -> contextlib.AbstractContextManager:
    """Returns what changes to the folder that relative paths of the run's data refer to, if it still exists."""
    folder = run.about.get("cwd")
    return contextlib.chdir(folder) if folder and Path(folder).is_dir() else contextlib.nullcontext()


def _data(run: Run) -> Any:
    """Builds the run's data module and opens it; raises whatever it raises."""
    from zoo import config

    node = run.about.get("data")
    if not node:
        raise ValueError("results.json names no data")
    parameters = {key: value for key, value in node.items() if not key.startswith("_") and key not in ("kind", "name")}
    data = config.create("data", node["name"], **parameters)
    if not hasattr(data, "picture_by_id"):
        raise ValueError(f"data '{node['name']}' offers no pictures by id")
    data.setup("test")
    return data


def _read(wanted: Sequence[PictureKey], data: Any) -> tuple[dict[PictureKey, str], str]:
    from zoo.evaluation.html import thumbnail

    found, problems = {}, []
    for key in tracked(wanted, "pictures"):
        try:
            found[key] = thumbnail(data.picture_by_id(key.split, key.id), key)
        except Exception as error:  # one image that was moved or is damaged
            problems.append(_one_line(error))
    if not problems:
        return found, ""
    if not found:  # data such as a tree of tables and descriptors
        return found, f"No pictures: none of the {len(wanted):,} is there, such as {problems[0]}."
    return found, f"{len(problems):,} of {len(wanted):,} pictures can't be read ({problems[0]})."


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


if __name__ == "__main__":
    main()
