"""Shows what a search found: a table, results.json, a contact sheet."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.checks import is_number
from zoo.commands._searching import log
from zoo.search._names import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL import Image
    from rich.console import Console
    from rich.table import Table

    from zoo.commands._queries import Queries, Query
    from zoo.search.index import Index
    from zoo.types import Ranking

SHOWN = 20  # queries in the printed tables and on the contact sheet
TILES = 50  # hits of each on the contact sheet
_SHORTEST = 16  # characters of a path that a narrow terminal still shows
SIDE, COLUMNS = 160, 10  # px of a tile; hits in a row
PIXELS = 480  # px of the longer side of a picture that a tile is made of
QUERY_INK, FOUND_INK = (255, 190, 0), (80, 220, 255)


def show(queries: Queries, rankings: Sequence[Ranking], index: Index, folder: Path, about: Mapping[str, Any]) -> None:
    """Prints a table for each query; writes results.json with all of them and contact_sheet.png with the first."""
    from zoo.evaluation.record import write_sheet
    from zoo.evaluation.report import write_json

    found = [
        {
            "query": query.name,
            "path": _text(query.path),
            "id": query.id,
            "box": query.box,
            "drawing": _text(query.drawing and query.drawing.path),
            "text": about.get("text"),
            "hits": _hits(index, ranking, queries.classes),
        }
        for query, ranking in zip(queries.each, rankings, strict=True)
    ]
    for one in found[:SHOWN]:
        _print(one)
    write_json(folder / "results.json", {**about, "queries": found})
    write_sheet(lambda: _sheet(queries.each[:SHOWN], found, index), folder)
    if len(found) > SHOWN:
        log.info("%d more queries are in results.json", len(found) - SHOWN)
    log.info("written: %s", folder)


def _hits(index: Index, ranking: Ranking, classes: Sequence[str] | None) -> list[dict[str, Any]]:
    ids = list(ranking.ids)
    evidence = ranking.evidence or [None] * len(ids)
    rows = zip(ids, ranking.scores.tolist(), evidence, index.payloads(ids) if ids else [], strict=True)
    hits = []
    for rank, (id_, score, seen, payload) in enumerate(rows, start=1):
        hit = {"rank": rank, "id": id_, "score": score, "path": payload.get("path"), "label": payload.get("label")}
        hits.append({**hit, "evidence": _by_class(_plain(seen), classes) if seen else None})
    return hits


def _by_class(seen: dict[str, Any], classes: Sequence[str] | None) -> dict[str, Any]:
    """Returns evidence with the names of classes, where these are known, before what each adds to the distance."""
    if classes is None or "class_distances" not in seen:
        return seen
    shares = zip(seen["classes"], seen["class_distances"], strict=True)
    rest = {key: value for key, value in seen.items() if key != "classes"}
    return {**rest, "class_distances": {classes[number]: share for number, share in shares}}


def _plain(value: Any) -> Any:
    """Returns what evidence holds as JSON has it."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if hasattr(value, "tolist"):
        return value.tolist()
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def score_words(hit: Mapping[str, Any], digits: int) -> str:
    """Returns a hit's score: a count whole, anything else with so many digits."""
    score, counted = hit["score"], "inliers" in (hit["evidence"] or {})
    if abs(score) >= 10 ** (digits - 1) or (score.is_integer() and (counted or abs(score) > 1)):
        return f"{score:.0f}"
    return f"{score:#.{digits}g}"


# Keys of evidence that have words of their own below, or none.
_TOLD = ("inliers", "matches", "local", "global", "region", "query_region", "words")


def evidence_words(evidence: Mapping[str, Any] | None) -> str:
    """Returns in words why an item was found; of what a plugin tells, the numbers and texts."""
    evidence = evidence or {}
    words = [
        f"{key} {value if isinstance(value, str) else format(value, '.4g')}"
        for key, value in evidence.items()
        if key not in _TOLD and (isinstance(value, str) or is_number(value))
    ]
    if "inliers" in evidence:
        words.append(f"{evidence['inliers']} inliers")
    if "local" in evidence:
        words.append(f"local {evidence['local']:.3f}, global {evidence['global']:.3f}")
    if evidence.get("region") is not None:
        asked = evidence.get("query_region")
        words.append(f"region {evidence['region']}" + ("" if asked is None else f" (query's {asked})"))
    if "words" in evidence:
        words.append(f"{evidence['words']} word{'' if evidence['words'] == 1 else 's'}")
    return ", ".join(words)


def _print(one: Mapping[str, Any]) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:  # a file or another program, which has lines as long as need be
        console.width = 1 << 16
    name = _title(one)
    console.print(_table(one, console) if one["hits"] else f"{name}: nothing found", markup=False, highlight=False)


def _table(one: Mapping[str, Any], console: Console) -> Table:
    """Returns a query's hits, paths shortened from the left to what the console has room for."""
    longest = max(len(hit["path"] or "") for hit in one["hits"])
    table = _table_of(one, longest)
    excess = console.measure(table, options=console.options.update(max_width=1 << 16)).maximum - console.width
    return table if excess <= 0 else _table_of(one, max(_SHORTEST, longest - excess))


def _table_of(one: Mapping[str, Any], longest: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    rows = [
        {
            **hit,
            "score": score_words(hit, 4),
            "why": evidence_words(hit["evidence"]),
            "path": _short(one_line(hit["path"] or ""), longest),
        }
        for hit in one["hits"]
    ]
    always, known = ["rank", "id", "score"], ("label", "why", "path")
    columns = always + [key for key in known if any(row[key] for row in rows)]
    table = Table(title=Text(_title(one)), title_justify="left")
    for key in columns:
        table.add_column(key, no_wrap=key != "id", overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if row[key] is None else one_line(str(row[key]))) for key in columns))
    return table


def _title(one: Mapping[str, Any]) -> str:
    """Returns what was asked for, in one line."""
    parts = [one["query"] if one["box"] is None else f"{one['query']} {one['box']}"]
    if one.get("drawing") is not None and Path(one["drawing"]).name != one["query"]:
        parts.append(Path(one["drawing"]).name)
    if one.get("text") is not None and str(one["text"]) != one["query"]:
        parts.append(f"“{one['text']}”")
    return one_line(" + ".join(parts))


def _sheet(queries: Sequence[Query], found: Sequence[Mapping[str, Any]], index: Index) -> Image.Image | None:
    """Returns query and first hits of every query, what matched outlined; None where no picture is known."""
    from zoo.evaluation.pictures import SheetRow, contact_sheet
    from zoo.serve.describing import preparing

    if not any(hit["path"] for one in found for hit in one["hits"]) and not any(query.path for query in queries):
        known = any(one["hits"] for one in found)
        log.info("no contact sheet: %s", "the index knows no paths of pictures" if known else "nothing was found")
        return None
    pictures = Pictures(preparing(index.about))
    rows = []
    for query, one in zip(queries, found, strict=False):
        hits = one["hits"][:TILES]
        tiles = [pictures.tile(hit["path"], _caption(hit), _outlines(hit["evidence"])) for hit in hits]
        for start in range(0, max(1, len(tiles)), COLUMNS):
            first = pictures.query(query, _query_outlines(query, one["hits"]))
            name = _title(one)
            title = name if not start else f"{name}, from rank {start + 1}"
            rows.append(SheetRow(title, [first, *tiles[start : start + COLUMNS]]))
    return contact_sheet(rows, SIDE)


def _caption(hit: Mapping[str, Any]) -> str:
    lines = [
        f"{hit['rank']}: {score_words(hit, 3)}",
        evidence_words(hit["evidence"]),
        _short(one_line(str(hit["id"])), 24),
    ]
    return "\n".join(line for line in lines if line)


def _short(name: str, longest: int) -> str:
    return name if len(name) <= longest else f"…{name[1 - longest :]}"


def _outlines(evidence: Mapping[str, Any] | None) -> list[Any]:
    from zoo.evaluation.pictures import Outline

    corners = _corners(evidence or {}, "")
    return [Outline(corners, FOUND_INK)] if corners else []


def _query_outlines(query: Query, hits: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Returns the query's box, and inside it what of the query the best hit matched."""
    from zoo.evaluation.pictures import Outline

    outlines = [Outline(rectangle(query.box), QUERY_INK)] if query.box else []
    corners = _corners((hits[0]["evidence"] if hits else None) or {}, "query_")
    left, top = query.box[:2] if query.box else (0, 0)
    return [*outlines, *([Outline([(x + left, y + top) for x, y in corners], FOUND_INK)] if corners else [])]


def _corners(evidence: Mapping[str, Any], prefix: str) -> list[tuple[float, float]]:
    """Returns the outline of what matched: the convex one where there is one, else the box."""
    hull, box = evidence.get(f"{prefix}hull"), evidence.get(f"{prefix}box")
    if hull:
        return [tuple(corner) for corner in hull]
    if not box:
        return []
    return [tuple(corner) for corner in box] if len(box) and isinstance(box[0], list) else rectangle(box)


def rectangle(box: Sequence[float]) -> list[tuple[float, float]]:
    """Returns the four corners of a box x0, y0, x1, y1."""
    left, top, right, bottom = box
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


class Pictures:
    """Reads pictures as the index' images were read, small; what is gone is a grey tile."""

    def __init__(self, data: Any) -> None:
        self._data = data
        self._read: OrderedDict[str, tuple[np.ndarray, float]] = OrderedDict()

    def tile(self, path: str | None, caption: str, outlines: list[Any]) -> Any:
        """Returns a tile; outlines are px of the original picture."""
        from zoo.evaluation.pictures import Outline, Tile

        try:
            picture, scale = self.picture(path)
        except (OSError, ValueError):  # gone, or damaged since
            return Tile(np.full((90, 120, 3), 200, np.uint8), f"{caption}\n(no picture)")
        drawn = [Outline([(x * scale, y * scale) for x, y in each.corners], each.colour) for each in outlines]
        return Tile(picture, caption, outlines=drawn)

    def query(self, query: Query, outlines: list[Any]) -> Any:
        """Returns the tile of a query, what is drawn over it in the classes' colours."""
        from zoo.evaluation.pictures import Tile

        if query.drawing is None:
            return self.tile(_text(query.path), "query", outlines)
        try:
            below, scale = self.picture(_text(query.path))
        except (OSError, ValueError):
            return Tile(query.drawing.picture(None), "query")
        if query.box is not None:
            left, top, right, bottom = (round(edge * scale) for edge in query.box)
            below = below[max(top, 0) : max(bottom, top + 1), max(left, 0) : max(right, left + 1)]
        return Tile(query.drawing.picture(below), "query")

    def picture(self, path: str | None) -> tuple[np.ndarray, float]:
        """Returns a picture (H, W, 3) uint8, small, and how many of its px are one of the original's.

        Raises FileNotFoundError where there is none, OSError or ValueError where it can't be read.
        """
        if path is None:
            raise FileNotFoundError
        if path not in self._read:
            self._read[path] = self._small(path)
            if len(self._read) > 200:
                self._read.popitem(last=False)
        return self._read[path]

    def _small(self, path: str) -> tuple[np.ndarray, float]:
        from PIL import Image

        batch = self._data.prepare_picture(path)
        height, width = batch.original_size[0].tolist()
        pixels = (batch.images[0] * 255).round().byte().permute(1, 2, 0).numpy()
        scale = min(1.0, PIXELS / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))  # its own shape, whatever the model sees
        return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)), scale
