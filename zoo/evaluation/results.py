"""Reads the runs that `zoo eval` and `zoo score` left, and refuses to compare those of different protocols."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from zoo.evaluation.rankings import RankedItem, RankedQuery, Rankings, Verdict
from zoo.evaluation.report import SCHEMA
from zoo.registry import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_AGAIN = "run `zoo eval` again"


class RunError(UsageError):
    """A run can't be read, or can't be compared with another; the message says which, why and what to do."""


@dataclass(frozen=True)
class Score:
    """A mean over queries and the half-width of its 95 % interval, NaN where undefined; `per_query (Q,)` likewise."""

    mean: float
    half_width: float
    per_query: np.ndarray


@dataclass(frozen=True)
class Row:
    """One descriptor of a run: its name, whether it was L2-normalised, and a score per metric, the main one first."""

    descriptor: str
    normalised: bool | None
    scores: dict[str, Score]

    @property
    def label(self) -> str:
        """Returns the descriptor's name, marked where it was L2-normalised."""
        return self.descriptor + (", L2" if self.normalised else "")


@dataclass(frozen=True)
class Run:
    """A results.json: `name` in tables, `folder` it lies in, `about` as written (model, data, versions, command …)."""

    name: str
    folder: Path
    about: Mapping[str, Any]
    fingerprint: Mapping[str, Any]
    query_ids: Sequence[str]
    rows: Sequence[Row]
    own: Row


def read_runs(words: Sequence[str]) -> list[Run]:
    """Reads `[NAME=]RUN` words, gives every run a name of its own, and checks that all share one protocol.

    RUN is a run's folder, or that of a multirun for all of its runs. A name that isn't given is the run's own; equal
    ones are told apart by what was overridden, else by their folders. Raises RunError.
    """
    parsed = [(name, run) for name, path in map(_parse, words) for run in _runs_of(path, name)]
    runs = [read_run(path, name) for name, path in parsed]
    folders = [run.folder for run in runs]
    for folder in folders:
        unnamed = [name is None for (name, _), other in zip(parsed, folders, strict=True) if other == folder]
        if len(unnamed) > 1 and any(unnamed):
            raise RunError(f"the run {folder} is given twice; leave one out, or name both as NAME=RUN")
    runs = _distinct(runs, [name is not None for name, _ in parsed])
    check_comparable(runs)
    return runs


def _parse(word: str) -> tuple[str | None, Path]:
    """Splits `NAME=RUN`; a path that exists is a path, since Hydra writes `=` into folder names."""
    name, equals, path = word.partition("=")
    if Path(word).exists() or not equals or "/" in name:
        return None, Path(word)
    if not name or not path:
        raise RunError(f"a run is given as RUN or NAME=RUN, got '{word}'")
    return name, Path(path)


def _runs_of(path: Path, name: str | None) -> list[Path]:
    """Returns the path of a run, or the folders of a multirun's, by their numbers."""
    if not path.is_dir() or (path / "results.json").exists():
        return [path]
    jobs = sorted((file.parent for file in path.glob("*/results.json")), key=lambda job: (len(job.name), job.name))
    if jobs and name is not None:
        raise RunError(f"{path} holds {len(jobs)} runs, which can't all be called '{name}'; give {path} alone")
    return jobs or [path]


def read_run(path: Path, name: str | None = None) -> Run:
    """Reads a run's folder or its results.json; raises RunError where it's missing, damaged, foreign or older."""
    file = path / "results.json" if path.is_dir() else path
    content = _read_json(file, "a run is the folder that `zoo eval` or `zoo score` wrote, or its results.json")
    _check_schema(content, file)
    try:
        query_ids = tuple(str(query) for query in content["query_ids"])
        fingerprint = _fingerprint(content["fingerprint"], len(query_ids))
        rows = tuple(_row(row, len(query_ids)) for row in content["rows"])
        own = rows[_position(content["own"], len(rows), "own")]
        _check_about(content)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise RunError(f"{file} is damaged: {_reason(error)}; {_AGAIN}") from error
    about = {key: value for key, value in content.items() if key not in ("rows", "query_ids", "fingerprint")}
    folder = file.resolve().parent
    return Run(name or str(content.get("run_name") or folder.name), folder, about, fingerprint, query_ids, rows, own)


def _read_json(file: Path, hint: str) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"there is no {file}; {hint}") from None
    except OSError as error:
        raise RunError(f"{file} can't be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{file} is damaged or no JSON ({error}); {_AGAIN}") from error


def _check_schema(content: Any, file: Path) -> None:
    if not isinstance(content, dict) or not {"rows", "fingerprint"} <= set(content):
        raise RunError(f"{file} is not a results.json of `zoo eval` or `zoo score`")
    schema = content.get("schema", 1)
    if schema == SCHEMA:
        return
    if isinstance(schema, int) and schema > SCHEMA:
        raise RunError(f"{file} was written by a newer zoo (schema {schema}, this one reads {SCHEMA}); update the zoo")
    raise RunError(f"{file} was written by an older zoo (schema {schema!r}, this one reads {SCHEMA}); {_AGAIN}")


def _check_about(content: Mapping[str, Any]) -> None:
    for key, kind in (("model", dict), ("data", dict), ("command", list), ("cwd", str)):
        if not isinstance(content.get(key), (kind, type(None))):
            raise ValueError(f"{key} must be a {kind.__name__}, got {content[key]!r}")


def _fingerprint(content: Any, queries: int) -> dict[str, Any]:
    if content["queries"] != queries:
        raise ValueError(f"the fingerprint counts {content['queries']} queries, query_ids names {queries}")
    known = {"benchmark": str(content["benchmark"]), "gallery": int(content["gallery"]), "hash": str(content["hash"])}
    return {**content, **known}


def _row(content: Any, queries: int) -> Row:
    scores = {str(name): _score(name, cell, queries) for name, cell in content["metrics"].items()}
    if not scores:
        raise ValueError(f"row '{content['descriptor']}' has no metric")
    return Row(str(content["descriptor"]), content.get("l2_normalised"), scores)


def _score(name: str, cell: Any, queries: int) -> Score:
    values = np.array(cell["per_query"], dtype=np.float64)
    if values.shape != (queries,):
        raise ValueError(f"metric '{name}' has {values.size} per-query values for {queries} queries")
    mean, defined = _number(cell["mean"]), values[~np.isnan(values)]
    if not np.isclose(mean, defined.mean() if defined.size else np.nan, rtol=0, atol=1e-6, equal_nan=True):
        raise ValueError(f"metric '{name}' has the mean {mean:g}, which is not that of its per-query values")
    return Score(mean, _number(cell["half_width"]), values)


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _position(value: Any, size: int, what: str) -> int:
    if not isinstance(value, int) or not 0 <= value < size:
        raise ValueError(f"{what} must be a position below {size}, got {value!r}")
    return value


def _reason(error: Exception) -> str:
    return f"it lacks {error}" if isinstance(error, KeyError) else str(error)


def _distinct(runs: Sequence[Run], given: Sequence[bool]) -> list[Run]:
    """Adds to equal names that nobody gave what tells the runs apart: their overrides, else the end of the folder."""
    named = []
    for run, own_choice in zip(runs, given, strict=True):
        alike = [other for other in runs if other.name == run.name and other.folder != run.folder]
        named.append(
            run
            if own_choice or not alike
            else replace(run, name=f"{run.name} ({_own_overrides(run, alike) or _ending(run, alike)})")
        )
    names = [run.name for run in named]
    for name in names:
        if names.count(name) > 1:
            raise RunError(f"two runs are called '{name}'; give each its own name as NAME=RUN")
    return named


def _own_overrides(run: Run, others: Sequence[Run]) -> str:
    """Returns the overrides that not all runs share; nothing where another run has just the same."""
    every = [dict.fromkeys(map(str, each.about.get("overrides") or ())) for each in (run, *others)]
    shared = set.intersection(*map(set, every))
    own, *rest = [" ".join(word for word in words if word not in shared) for words in every]
    return "" if own in rest else own


def _ending(run: Run, others: Sequence[Run]) -> str:
    parts = run.folder.parts
    for length in range(1, len(parts)):
        ending = parts[-length:]
        if all(other.folder.parts[-length:] != ending for other in others):
            return "/".join(ending)
    return str(run.folder)


def check_comparable(runs: Sequence[Run]) -> None:
    """Raises RunError, naming runs, parts and both values, unless all runs share the first one's fingerprint."""
    first = runs[0]
    expected = dict(_flat(first.fingerprint))
    for run in runs[1:]:
        found = dict(_flat(run.fingerprint))
        parts = [
            part
            for part in {**expected, **found}
            if (part in expected, expected.get(part)) != (part in found, found.get(part))
        ]
        # The hash follows from the other parts, so it tells nothing where one of them differs.
        parts = [part for part in parts if part != "hash"] or parts
        if parts or run.query_ids != first.query_ids:
            unlike = "; ".join(_difference(part, expected, found) for part in parts) or "the names of the queries"
            raise RunError(
                f"'{run.name}' can't be compared with '{first.name}', it was evaluated differently ('{first.name}' "
                f"against '{run.name}'): {unlike}. Evaluate both on the same benchmark and data"
            )


def _flat(parts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in parts.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _difference(part: str, expected: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    return f"{part}: {_shown(part, expected)} against {_shown(part, found)}"


def _shown(part: str, parts: Mapping[str, Any]) -> str:
    if part not in parts:
        return "nothing"
    value = parts[part]
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def read_rankings(run: Run, positions: Sequence[int], top: int) -> Rankings | None:
    """Reads the first `top` items of the queries at `positions`; None where the run has no rankings.json.

    Raises RunError where the file is damaged or was written by another evaluation than the results.json beside it.
    """
    file = run.folder / "rankings.json"
    if not file.exists():
        return None
    content = _read_json(file, "")
    try:
        if content["fingerprint"] != run.fingerprint["hash"]:
            raise RunError(f"{file} and the results.json beside it are of different evaluations; {_AGAIN}")
        wanted = set(positions)
        queries = [_ranked_query(query, run, top) for query in content["queries"] if query["query"] in wanted]
        names = (str(content[key]) for key in ("descriptor", "score", "query_split", "gallery_split"))
        return Rankings(*names, queries, content.get("setting"))
    except RunError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise RunError(f"{file} is damaged: {_reason(error)}; {_AGAIN}") from error


def _ranked_query(content: Any, run: Run, top: int) -> RankedQuery:
    position, name = _position(content["query"], len(run.query_ids), "query"), str(content["id"])
    if name != run.query_ids[position]:
        raise ValueError(f"query {position} is '{name}', but '{run.query_ids[position]}' in results.json")
    box, total = content.get("box"), content.get("relevant_total")
    if box is not None and len(box) != 4:
        raise ValueError(f"query '{name}' needs a box of 4 numbers, got {box!r}")
    box = None if box is None else tuple(float(side) for side in box)
    ranked = [_item(item, name) for item in content["ranked"][:top]]
    return RankedQuery(position, name, str(content["image"]), box, None if total is None else int(total), ranked)


def _item(content: Any, query: str) -> RankedItem:
    relevance, note = content.get("relevance"), content.get("note")
    if relevance not in (*get_args(Verdict), None):
        known = ", ".join(get_args(Verdict))
        raise ValueError(f"query '{query}': relevance must be one of {known} or null, got {relevance!r}")
    return RankedItem(str(content["id"]), _number(content.get("score")), relevance, None if note is None else str(note))
