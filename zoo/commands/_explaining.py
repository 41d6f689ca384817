"""Shows where in a hit the layers of a re-ranker saw the query."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.commands._found import FOUND_INK, QUERY_INK, SIDE, Pictures, evidence_words, rectangle
from zoo.commands._searching import log
from zoo.registry import UsageError
from zoo.search._names import one_line
from zoo.search.pipeline import joined_fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from zoo.commands._queries import Queries, Query
    from zoo.search.features import Features
    from zoo.search.index import Index
    from zoo.types import Ranking

QUERIES, HITS = 3, 5  # that are explained
FILE = "explanations.png"


def explaining(stages: Sequence[Any]) -> Any:
    """Returns the stage that can explain its scores, the last one; raises UsageError where none can."""
    able = [stage for stage in stages if hasattr(stage, "explain")]
    if not able:
        raise UsageError("explain=true needs a reranker that tells where it looks: reranker=local_similarity")
    return able[-1]


def show(
    queries: Queries, rankings: Sequence[Ranking], index: Index, extra: Features | None, stage: Any, folder: Path
) -> None:
    """Writes explanations.png: for the first hits of the first queries what each layer of `stage` saw, as colours."""
    from zoo.evaluation.pictures import contact_sheet
    from zoo.files import replacing
    from zoo.serve.describing import preparing

    pictures, rows = Pictures(preparing(index.about)), []
    for place, (query, ranking) in enumerate(zip(queries.each[:QUERIES], rankings, strict=False)):
        one = slice(place, place + 1)
        asked = joined_fields(queries.items.rows(one), queries.extra and queries.extra.rows(one))
        for rank, id_ in enumerate(ranking.ids[:HITS]):
            maps = stage.explain(asked, joined_fields(index.get([id_]), extra and extra.get([id_])))
            rows.append(_row(pictures, index, query, ranking, rank, maps))
    rows = [row for row in rows if row is not None]
    if not rows:
        log.warning("%s isn't written: there is no hit, or no picture of one", FILE)
        return
    with replacing(folder / FILE) as file:
        contact_sheet(rows, SIDE).save(file, format="PNG")
    log.info("written: %s", folder / FILE)


def _row(pictures: Pictures, index: Index, query: Query, ranking: Ranking, rank: int, maps: Mapping[str, Any]) -> Any:
    """Returns query, hit and, layer by layer, the hit under colours; None where the hit's picture can't be read."""
    from zoo.evaluation.heat import overlaid
    from zoo.evaluation.pictures import Outline, SheetRow, Tile

    path = index.payloads([ranking.ids[rank]])[0].get("path")
    try:
        picture, scale = pictures.picture(path)
    except (OSError, ValueError):
        return None
    seen = ranking.evidence[rank] if ranking.evidence else {}
    box = seen.get("box")
    found = [Outline([(x * scale, y * scale) for x, y in rectangle(box)], FOUND_INK)] if box else []
    asked = [Outline(rectangle(query.box), QUERY_INK)] if query.box else []
    tiles = [pictures.tile(None if query.path is None else str(query.path), "query", asked)]
    words = evidence_words(seen).replace(", ", "\n")
    tiles.append(Tile(picture, f"{rank + 1}: {float(ranking.scores[rank]):.3g}\n{words}", outlines=found))
    tiles += [Tile(overlaid(picture, heat.cpu().numpy()), _caption(layer, heat)) for layer, heat in maps.items()]
    return SheetRow(f"{one_line(query.name)} in {one_line(str(ranking.ids[rank]))}", tiles)


def _caption(layer: str, heat: Any) -> str:
    return f"{layer}\n" + ("blue 0, red most" if heat.any() else "nothing speaks for it")
