"""Puts runs of one protocol into one table, with paired tests of every run against the first."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoo.evaluation.glossary import lower_is_better
from zoo.evaluation.permutation import RESAMPLES, SEED, paired_permutation_test
from zoo.evaluation.results import RunError
from zoo.evaluation.tables import Table, mean_and_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo.evaluation.results import Row, Run

_NONE = "–"
_DECIMALS = 3


@dataclass(frozen=True)
class Line:
    """One row of a run beside the reference; arrays (M,), one number per metric, NaN where undefined.

    `queries` counts those with a value, `pairs` those with a value here and in the reference; `difference` is the mean
    over pairs of this minus the reference, `p` its p-value. The reference has neither.
    """

    run: str
    row: Row
    mean: np.ndarray
    half_width: np.ndarray
    queries: np.ndarray
    pairs: np.ndarray
    difference: np.ndarray
    p: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """Lines of several runs; `metrics` label the columns, the reference is the first run's own row."""

    runs: Sequence[Run]
    metrics: Sequence[str]
    lines: Sequence[Line]
    all_rows: bool

    def table(self) -> Table:
        """Returns what to read: mean ± half-width, the best of each metric in bold, p-values, and the protocol."""
        tested = len(self.lines) > 1
        headers = ["run", *(["descriptor"] if self.all_rows else [])]
        names, bold = len(headers), set()
        for position, metric in enumerate(self.metrics):
            bold |= {(line, len(headers)) for line in self._best(position)}
            headers += [metric, "p"] if tested else [metric]
        rows = [self._cells(line, tested) for line in self.lines]
        title = "Comparison of runs" if tested else "One run"
        return Table(title, headers, rows, frozenset(bold), self._notes(tested), names)

    def records(self) -> Table:
        """Returns plain numbers, a row per run and metric, for other programs; nothing stands for undefined ones."""
        about_row = ["descriptor", "l2_normalised"] if self.all_rows else []
        headers = ["run", *about_row, "metric", "mean", "half_width", "queries", "difference", "p", "pairs"]
        return Table("", headers, [record for line in self.lines for record in self._records(line)])

    def _cells(self, line: Line, tested: bool) -> list[str]:
        cells = [line.run, *([line.row.label] if self.all_rows else [])]
        for mean, half_width, p in zip(line.mean, line.half_width, line.p, strict=True):
            cells.append(mean_and_interval(mean, half_width, _DECIMALS))
            cells += [_p(p)] if tested else []
        return cells

    def _best(self, position: int) -> list[int]:
        """Returns the lines with the best mean as the table shows it: equal numbers are equally bold."""
        means = np.array([round(line.mean[position], _DECIMALS) for line in self.lines])
        means = -means if lower_is_better(self.metrics[position]) else means
        if len(means) == 1 or np.isnan(means).all():
            return []
        return np.flatnonzero(means == np.nanmax(means)).tolist()

    def _records(self, line: Line) -> list[list[str]]:
        about_row = [line.row.descriptor, _plain(line.row.normalised)] if self.all_rows else []
        columns = (line.mean, line.half_width, line.queries, line.difference, line.p, line.pairs)
        return [
            [line.run, *about_row, metric, *map(_plain, numbers)]
            for metric, *numbers in zip(self.metrics, *(column.tolist() for column in columns), strict=True)
        ]

    def _notes(self, tested: bool) -> list[str]:
        parts = self.runs[0].fingerprint
        notes = [
            f"Benchmark {parts['benchmark']}: {parts['queries']:,} queries, gallery of {parts['gallery']:,}, "
            f"fingerprint {parts['hash']}.",
            f"Mean over queries ± half-width of its 95 % interval; {self._sense()} is better.",
        ]
        if tested:
            reference = f"{self.lines[0].run}" + (f", {self.lines[0].row.label}" if self.all_rows else "")
            notes.append(
                f"p: two-sided paired permutation test over queries against {reference} (all assignments of signs, or "
                f"{RESAMPLES:,} random ones, seed {SEED}); not corrected for several comparisons."
            )
        return [*notes, *self._left_out()]

    def _sense(self) -> str:
        lower = [metric for metric in self.metrics if lower_is_better(metric)]
        return "higher" + (f", of {', '.join(lower)} lower," if lower else "")

    def _left_out(self) -> list[str]:
        """Says of which metrics and runs queries are undefined, and over how many pairs the tests go."""
        metrics_of: dict[str, list[str]] = {}
        for position, metric in enumerate(self.metrics):
            said = self._undefined(position)
            if said:
                metrics_of.setdefault(said, []).append(metric)
        return [f"{', '.join(metrics)}: {said}" for said, metrics in metrics_of.items()]

    def _undefined(self, position: int) -> str:
        total = len(self.runs[0].query_ids)
        defined = [int(line.queries[position]) for line in self.lines]
        pairs = [int(line.pairs[position]) for line in self.lines]
        if set(defined + pairs) == {total}:
            return ""
        if len(set(defined + pairs)) == 1:
            return f"{total - pairs[0]:,} of {total:,} queries are undefined and left out."
        names = [line.run + (f", {line.row.label}" if self.all_rows else "") for line in self.lines]
        without = ", ".join(f"{name} {total - n:,}" for n, name in zip(defined, names, strict=True))
        tested = ", ".join(f"{name} {n:,}" for n, name in zip(pairs[1:], names[1:], strict=True))
        return f"undefined queries of {total:,}, left out: {without}; pairs tested: {tested}."


def compare(runs: Sequence[Run], metrics: Sequence[str] = (), all_rows: bool = False) -> Comparison:
    """Compares the runs' own rows, or with `all_rows` each of their rows, with the first run's own row.

    `metrics` chooses columns; without, those that every row has, in the first run's order. Raises RunError for a metric
    that a row lacks, naming the nearest, and where no metric is common to all.
    """
    pairs = [(run, row) for run in runs for row in (run.rows if all_rows else [run.own])]
    # The reference goes first, wherever it stands in its run.
    pairs.sort(key=lambda pair: pair[1] is not runs[0].own)
    chosen = _chosen(pairs, metrics)
    reference = _values(runs[0].own, chosen)
    lines = [_line(run.name, row, chosen, None if row is runs[0].own else reference) for run, row in pairs]
    return Comparison(runs, chosen, lines, all_rows)


def _chosen(pairs: Sequence[tuple[Run, Row]], metrics: Sequence[str]) -> list[str]:
    for metric in metrics:
        for run, row in pairs:
            if metric not in row.scores:
                known = list(row.scores)
                near = difflib.get_close_matches(metric, known, n=1, cutoff=0.5)
                hint = f" Did you mean '{near[0]}'?" if near else ""
                raise RunError(f"run '{run.name}' has no metric '{metric}'; it has {', '.join(known)}.{hint}")
    first = pairs[0][1]
    common = [name for name in first.scores if all(name in row.scores for _, row in pairs)]
    if not common:
        found = "; ".join(f"'{run.name}' {', '.join(row.scores)}" for run, row in pairs)
        raise RunError(f"the runs have no metric in common: {found}")
    return list(dict.fromkeys(metrics)) or common


def _values(row: Row, metrics: Sequence[str]) -> np.ndarray:
    """Returns per-query values (Q, M)."""
    return np.stack([row.scores[metric].per_query for metric in metrics], axis=1)


def _line(name: str, row: Row, metrics: Sequence[str], reference: np.ndarray | None) -> Line:
    values = _values(row, metrics)
    mean = np.array([row.scores[metric].mean for metric in metrics])
    half_width = np.array([row.scores[metric].half_width for metric in metrics])
    queries = np.count_nonzero(~np.isnan(values), axis=0)
    if reference is None:
        nothing = np.full(len(metrics), np.nan)
        return Line(name, row, mean, half_width, queries, queries, nothing, nothing)
    differences = values - reference
    pairs = np.count_nonzero(~np.isnan(differences), axis=0)
    difference = np.where(pairs > 0, np.nansum(differences, axis=0) / np.maximum(pairs, 1), np.nan)
    return Line(name, row, mean, half_width, queries, pairs, difference, paired_permutation_test(differences))


def _p(value: float) -> str:
    if np.isnan(value):
        return _NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _plain(value: float | bool | None) -> str:
    return "" if value is None or value != value else str(value).lower() if isinstance(value, bool) else repr(value)
