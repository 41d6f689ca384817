"""One self-contained HTML page about runs of one protocol: table, values of every query, ranked lists."""

from __future__ import annotations

import base64
import io
from collections import Counter
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.evaluation.glossary import in_words, lower_is_better
from zoo.evaluation.scatter import paired_plot, sorted_plot
from zoo.evaluation.tables import Table, mean_and_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL import Image

    from zoo.evaluation.compare import Comparison
    from zoo.evaluation.rankings import RankedQuery, Rankings
    from zoo.evaluation.results import Run

QUERY_SIDE, ITEM_SIDE = 240, 160  # pixels, the longest side of a picture in the page
_QUALITY = 75
_WEBP_SIDE = 16383  # pixels, the most that WebP holds
_SIGNS = {"relevant": "✓", "irrelevant": "✗", "junk": "○"}


@dataclass(frozen=True)
class PictureKey:
    """A picture as the page shows it: where data finds it, the query's box (drawn; None for none), its longest side."""

    split: str
    id: str
    box: tuple[float, ...] | None
    side: int


@dataclass(frozen=True)
class Page:
    """What the page is about: runs and their table, one metric, positions of the `worst` queries, their ranked lists.

    `rankings` has one element per run, None for a run that kept no lists.
    """

    comparison: Comparison
    metric: str
    worst: Sequence[int]
    rankings: Sequence[Rankings | None]

    @property
    def runs(self) -> Sequence[Run]:
        """Returns the compared runs."""
        return self.comparison.runs

    def pictures(self) -> list[PictureKey]:
        """Returns every picture that the page shows, once."""
        found: dict[PictureKey, None] = {}
        for position in self.worst:
            for rankings, ranked in self._lists(position):
                found[_query_key(rankings, ranked)] = None
                found |= {_item_key(rankings, item.id): None for item in ranked.ranked}
        return list(found)

    def html(self, pictures: Mapping[PictureKey, str], problem: str) -> str:
        """Returns the page, with `pictures` as data URIs; `problem` tells why some are missing, or is empty."""
        from jinja2 import Environment, StrictUndefined

        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        template = resources.files("zoo.evaluation").joinpath("report.html.j2").read_text(encoding="utf-8")
        return environment.from_string(template).render(
            title=" against ".join(filter(None, (self.runs[0].name, ", ".join(run.name for run in self.runs[1:])))),
            runs=[_run_details(run) for run in self.runs],
            fingerprint=self.runs[0].fingerprint,
            metric=self.metric,
            metrics=[(name, in_words(name)) for name in self.comparison.metrics],
            table=self.comparison.table(),
            all_rows=[_all_rows(run) for run in self.runs if len(run.rows) > 1],
            plots=self._plots(),
            queries=[self._query(place, pictures) for place in range(len(self.worst))],
            undefined=int(np.isnan(_values(self.runs[0], self.metric)).sum()),
            total=len(self.runs[0].query_ids),
            scores=self._score_words(),
            setting=next((rankings.setting for rankings in self.rankings if rankings and rankings.setting), ""),
            problem=problem,
            signs=_SIGNS,
            verdicts=self._verdicts(),
            sheets=[(run.name, sheet) for run in self.runs if (sheet := _sheet(run))],
        )

    def _plots(self) -> list[dict[str, Any]]:
        names, shown = self.runs[0].query_ids, set(self.worst)
        first = _values(self.runs[0], self.metric)
        if len(self.runs) == 1:
            return [sorted_plot(names, first, shown)]
        return [paired_plot(names, first, _values(run, self.metric), shown, run.name) for run in self.runs[1:]]

    def _score_words(self) -> str:
        """Says what the number below an item is, for each run where they differ."""
        words = {run.name: found.score for run, found in zip(self.runs, self.rankings, strict=True) if found}
        if len(set(words.values())) <= 1:
            return next(iter(words.values()), "")
        return "; ".join(f"{score} ({name})" for name, score in words.items())

    def _verdicts(self) -> list[str]:
        """Returns the verdicts that the page shows, in the order of its key."""
        queries = [query for rankings in self.rankings if rankings for query in rankings.queries]
        found = {item.relevance for query in queries for item in query.ranked}
        return [verdict for verdict in _SIGNS if verdict in found]

    def _lists(self, position: int) -> list[tuple[Rankings, RankedQuery]]:
        """Returns the ranked lists of a query with where they come from, of the runs that kept it."""
        kept = [rankings for rankings in self.rankings if rankings]
        return [(rankings, query) for rankings in kept for query in rankings.queries if query.query == position]

    def _query(self, place: int, pictures: Mapping[PictureKey, str]) -> dict[str, Any]:
        """Returns what the section of the query at `worst[place]` shows."""
        position = self.worst[place]
        lists = self._lists(position)
        rankings, query = lists[0] if lists else (None, None)
        return {
            "position": position,
            "number": place + 1,
            "id": self.runs[0].query_ids[position],
            "values": [_shown(_values(run, self.metric)[position]) for run in self.runs],
            "shows": query,
            "picture": query and pictures.get(_query_key(rankings, query)),
            "lists": [
                next((_list(*found, pictures) for found in lists if found[0] is rankings), None)
                for rankings in self.rankings
            ],
        }


def worst_queries(run: Run, metric: str, count: int) -> list[int]:
    """Returns the positions of the `count` queries with the worst values, worst first, none undefined."""
    values = _values(run, metric)
    values = -values if lower_is_better(metric) else values
    order = np.argsort(values, kind="stable")  # NaN goes last
    return [int(position) for position in order[:count] if not np.isnan(values[position])]


def thumbnail(picture: np.ndarray, key: PictureKey) -> str:
    """Returns a picture (H, W, 3) uint8 as a data URI of a small WebP image, never enlarged, with the key's box."""
    from PIL import Image, ImageDraw

    image = Image.fromarray(picture)
    scale = min(1.0, key.side / max(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    if key.box is not None:
        x0, y0, x1, y1 = (side * scale for side in key.box)
        corners = (max(x0, 1), max(y0, 1), min(x1, width - 2), min(y1, height - 2))
        if corners[0] < corners[2] and corners[1] < corners[3]:
            pen = ImageDraw.Draw(image)
            # Two lines, one of which stands out from whatever is below.
            pen.rectangle([c + d for c, d in zip(corners, (-1, -1, 1, 1), strict=True)], outline="black", width=4)
            pen.rectangle(corners, outline="yellow", width=2)
    return _data_uri(image)


def _all_rows(run: Run) -> Table:
    """Returns the table of every descriptor that the run judged, its own among them, in bold."""
    rows = [
        [row.label, *(mean_and_interval(score.mean, score.half_width) for score in row.scores.values())]
        for row in run.rows
    ]
    headers = ["descriptor", *run.own.scores]
    own = next(position for position, row in enumerate(run.rows) if row is run.own)
    return Table(f"All descriptors of {run.name}", headers, rows, [(own, column) for column in range(len(headers))])


def _sheet(run: Run) -> str | None:
    """Returns the run's contact sheet as a data URI, None if its folder holds none that can be read."""
    from PIL import Image

    path = run.folder / "contact_sheet.png"
    try:
        with Image.open(path) as sheet:
            if max(sheet.size) <= _WEBP_SIDE:
                return _data_uri(sheet)
        return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    except OSError:
        return None


def _data_uri(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, format="WEBP", quality=_QUALITY)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def _list(rankings: Rankings, query: RankedQuery, pictures: Mapping[PictureKey, str]) -> dict[str, Any]:
    counts = Counter(item.relevance for item in query.ranked)
    words = ", ".join(f"{counts[relevance]} {relevance}" for relevance in _SIGNS)
    items = [
        {
            "rank": rank,
            "id": item.id,
            "relevance": item.relevance,
            "score": "–" if np.isnan(item.score) else f"{item.score:.5g}",
            "note": item.note,
            "picture": pictures.get(_item_key(rankings, item.id)),
        }
        for rank, item in enumerate(query.ranked, 1)
    ]
    return {"summary": f"first {len(items)}" + ("" if None in counts else f": {words}"), "items": items}


def _query_key(rankings: Rankings, ranked: RankedQuery) -> PictureKey:
    return PictureKey(rankings.query_split, ranked.image, ranked.box and tuple(ranked.box), QUERY_SIDE)


def _item_key(rankings: Rankings, name: str) -> PictureKey:
    return PictureKey(rankings.gallery_split, name, None, ITEM_SIDE)


def _values(run: Run, metric: str) -> np.ndarray:
    return run.own.scores[metric].per_query


def _shown(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"


def _run_details(run: Run) -> dict[str, Any]:
    """Returns what a reader needs to find or repeat a run, as (label, text) pairs; what is unknown is left out."""
    model = run.about.get("model") or {}
    facts = {
        "model": model.get("name"),
        "from": model.get("origin"),
        "parameters": _pairs(model.get("parameters")),
        "descriptor": run.own.label,
        "weights": model.get("weights"),
        "weights hash": model.get("weights_hash"),
        "predictions": model.get("predictions"),
        "array": model.get("array"),
        "predictions hash": model.get("predictions_hash"),
        "beside": ", ".join(
            f"{label}: {(other or {}).get('name')}" for label, other in (run.about.get("beside") or {}).items()
        ),
        "data": _pairs(run.about.get("data")),
        "benchmark": _pairs(run.about.get("benchmark")),
        "seed": run.about.get("seed"),
        "versions": _pairs(run.about.get("versions")),
        "plugins": _pairs(run.about.get("plugins")),
        "commit": run.about.get("commit"),
        "command": " ".join(map(str, run.about.get("command") or ())),
        "date": run.about.get("date"),
        "folder": run.folder,
    }
    return {"name": run.name, "facts": [(name, str(fact)) for name, fact in facts.items() if fact not in (None, "")]}


def _pairs(values: Any) -> str:
    if not isinstance(values, dict):
        return ""
    return ", ".join(f"{name} {value}" for name, value in values.items() if not str(name).startswith("_"))
