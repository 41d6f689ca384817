"""What someone's system retrieved, read from a file: a matrix of scores, or ranked lists of ids."""

from __future__ import annotations

import re
import sys
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.truth.readers.files import naming, read_json
from zoo.truth.relevance import first_repeated

if TYPE_CHECKING:
    from pathlib import Path

DAMAGED = (EOFError, zipfile.BadZipFile, zlib.error)
ID_ARRAYS = ("query_ids", "gallery_ids")
LARGEST = sys.float_info.max
NUMBERS_AT_ONCE = 1 << 24  # while a matrix is looked through: a memory-mapped one need not fit into memory


@dataclass(frozen=True, eq=False)
class Predictions:
    """Retrieved items of Q queries, in one of two forms, checked on construction.

    Dense: `scores (Q, N)` of any real type, higher = nearer, with `query_ids` (Q names) and `gallery_ids` (N names)
    where the file gives them. Ranked: `ranked`, per query the ids best first, with `query_ids`; `ranked_scores` holds
    their scores (falling) or is None, `gallery_ids` is None. Raises ValueError that names the query and the rule.
    """

    query_ids: tuple[str, ...] | None
    gallery_ids: tuple[str, ...] | None
    scores: np.ndarray | None = None
    ranked: tuple[tuple[str, ...], ...] | None = None
    ranked_scores: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        for name, ids in (("query_ids", self.query_ids), ("gallery_ids", self.gallery_ids)):
            repeated = first_repeated(ids or ())
            if repeated is not None:
                raise ValueError(f"{name} must be unique, got {repeated!r} twice")
        if (self.scores is None) == (self.ranked is None):
            raise ValueError("Predictions: one of scores and ranked is needed, got both or neither")
        if self.scores is not None:
            _check_scores(self.scores, self.query_ids, self.gallery_ids)
        else:
            _check_ranked(self.query_ids, self.ranked, self.ranked_scores)

    def __len__(self) -> int:
        """Returns Q."""
        return len(self.scores if self.ranked is None else self.ranked)


def read_predictions(path: Path, array: str | None = None) -> Predictions:
    """Reads predictions in the form that the file's ending says.

    - `.npy`: scores (Q, N), memory-mapped. `.npz`: the same, `array` says which where there are several matrices;
      string arrays `query_ids` and `gallery_ids` may come along;
    - `.json`: `{query: [ids, best first]}` or `{query: {id: score}}`, where equal scores keep the file's order;
    - anything else: the text form of MSLS (mapillary_sls, evaluate.py), one line per query: its key, then database
      keys best first, with white space or commas between; lines that begin with # are skipped.

    No pickle is read. Raises FileNotFoundError, or ValueError that names the file, the rule and the query.
    """
    if not path.is_file():
        raise FileNotFoundError(f"predictions must name a file, got {path}, which doesn't exist or is a folder")
    with naming(path):
        if array is not None and path.suffix != ".npz":
            raise ValueError(f"array picks a matrix of an .npz file, got array={array!r}")
        if path.suffix in (".npy", ".npz"):
            return _from_numpy(path, array)
        if path.suffix == ".json":
            return _from_json(read_json(path))
        return _from_text(path.read_text(encoding="utf-8-sig"))


def _from_numpy(path: Path, array: str | None) -> Predictions:
    try:
        content = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, *DAMAGED) as error:
        raise ValueError(f"not a readable NumPy file ({error})") from error
    if isinstance(content, np.ndarray):
        return Predictions(None, None, scores=content)
    with content:
        try:
            arrays = {name: content[name] for name in content.files if name in ID_ARRAYS}
            return Predictions(
                *(_names(name, arrays.get(name)) for name in ID_ARRAYS), scores=content[_chosen(content, array)]
            )
        except DAMAGED as error:
            raise ValueError(f"not a readable NumPy file ({error})") from error


def _chosen(content: Any, array: str | None) -> str:
    """Returns the name of the matrix to read: `array`, or the only one there is."""
    names = [name for name in content.files if name not in ID_ARRAYS]
    if array is None and len(names) == 1:
        return names[0]
    if array in names:
        return array
    by_lower_case = {name.lower(): name for name in names}
    near = get_close_matches((array or "").lower(), by_lower_case, n=1)
    guess = f"; did you mean {by_lower_case[near[0]]!r}?" if near else ""
    raise ValueError(f"array must be one of {names}, got {array!r}{guess}")


def _names(name: str, array: np.ndarray | None) -> tuple[str, ...] | None:
    if array is None:
        return None
    if array.ndim != 1 or array.dtype.kind != "U":
        raise ValueError(f"{name} must be a row of strings, got shape {array.shape} of {array.dtype}")
    return tuple(array.tolist())


def _from_json(content: Any) -> Predictions:
    if not isinstance(content, dict) or not content:
        raise ValueError("JSON predictions must read {query: [ids]} or {query: {id: score}}, with a query at least")
    kinds = {type(entry) for entry in content.values()}
    if kinds == {list}:
        ranked = tuple(_string_ids(query, ids) for query, ids in content.items())
        return Predictions(tuple(content), None, ranked=ranked)
    if kinds != {dict}:
        raise ValueError("every query of JSON predictions must have a list of ids, or every one {id: score}")
    lists = [_falling(query, scores) for query, scores in content.items()]
    return Predictions(
        query_ids=tuple(content),
        gallery_ids=None,
        ranked=tuple(tuple(item for item, _ in pairs) for pairs in lists),
        ranked_scores=tuple(tuple(score for _, score in pairs) for pairs in lists),
    )


def _string_ids(query: str, ids: list) -> tuple[str, ...]:
    if not all(isinstance(item, str) for item in ids):
        raise ValueError(f"query {query!r}: ids must be strings, got {str(ids)[:80]}")
    return tuple(ids)


def _falling(query: str, scores: Mapping[str, Any]) -> list[tuple[str, float]]:
    for item, score in scores.items():
        if type(score) not in (int, float) or score != score or (type(score) is int and abs(score) > LARGEST):
            raise ValueError(f"query {query!r}: the score of {item!r} must be a number, got {score!r}")
    return sorted(((item, float(score)) for item, score in scores.items()), key=lambda pair: -pair[1])


def _from_text(text: str) -> Predictions:
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise ValueError("the file holds no predictions")
    # MSLS joins the keys of a sequence by commas, so commas separate only where no white space does.
    joined = [re.sub(r"\s*,\s*", ",", line) for line in lines]
    commas = any("," in line for line in joined) and not any(re.search(r"\s", line) for line in joined)
    rows = [line.split(",") for line in joined] if commas else [line.split() for line in lines]
    if commas:
        rows = [[word for word in row if word] for row in rows]
    if not all(rows):
        raise ValueError("every line must begin with the key of a query, got one of commas only")
    return Predictions(tuple(row[0] for row in rows), None, ranked=tuple(tuple(row[1:]) for row in rows))


def _check_scores(scores: np.ndarray, query_ids: Sequence[str] | None, gallery_ids: Sequence[str] | None) -> None:
    if scores.ndim != 2 or 0 in scores.shape or scores.dtype.kind not in "iuf":
        raise ValueError(
            f"scores must be numbers of shape (Q, N), both at least 1, got {scores.shape} of {scores.dtype}"
        )
    for name, ids, length in (("query_ids", query_ids, len(scores)), ("gallery_ids", gallery_ids, scores.shape[1])):
        if ids is not None and len(ids) != length:
            raise ValueError(f"{name} must have one name for each of the {length} in scores, got {len(ids)}")
    rows = max(1, NUMBERS_AT_ONCE // scores.shape[1])
    for start in range(0, len(scores), rows) if scores.dtype.kind == "f" else ():
        bad = np.isnan(scores[start : start + rows]).any(axis=1)
        if bad.any():
            place = start + int(np.argmax(bad))
            name = f"query {place}" if query_ids is None else f"query {query_ids[place]!r}"
            raise ValueError(f"scores of {name} must be numbers, got NaN")


def _check_ranked(
    query_ids: Sequence[str] | None,
    ranked: Sequence[Sequence[str]],
    scores: Sequence[Sequence[float]] | None,
) -> None:
    if not query_ids or len(query_ids) != len(ranked):
        raise ValueError(f"ranked lists need one query id each, got {len(ranked)} lists, {len(query_ids or ())} ids")
    if scores is not None and list(map(len, scores)) != list(map(len, ranked)):
        raise ValueError("ranked_scores must have one score for every ranked id")
    for query, ids in zip(query_ids, ranked, strict=True):
        repeated = first_repeated(ids)
        if repeated is not None:
            raise ValueError(f"query {query!r}: an item may be ranked once, got {repeated!r} twice")
