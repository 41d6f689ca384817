"""Ranked lists, part by part: from descriptors of queries and gallery, or from a file of predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from zoo.evaluation.judge import Lists
from zoo.evaluation.rankings import RankedItem, RankedQuery
from zoo.ops.distances import cosine_similarities, dot_products, l2_distances
from zoo.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Sequence

    from torch import Tensor

    from zoo.evaluation.judge import Judge, Judgement
    from zoo.evaluation.predictions import Predictions
    from zoo.evaluation.ranked import RankedBenchmark
    from zoo.evaluation.rankings import Verdict
    from zoo.evaluation.source import Source

SIMILARITIES = {"cosine": "cosine similarity", "dot": "dot product", "l2": "L2 distance, negative"}
_SIMILARITY = {
    "cosine": cosine_similarities,
    "dot": dot_products,
    "l2": lambda queries, gallery: -l2_distances(queries, gallery),
}
_CELLS = 1 << 22  # scores held at once


def check_similarity(similarity: str) -> None:
    """Raises ValueError for a similarity that doesn't exist."""
    if similarity not in SIMILARITIES:
        raise ValueError(f"similarity must be one of {', '.join(SIMILARITIES)}, got {similarity!r}")


def from_vectors(queries: Tensor, gallery: Tensor, rows: Tensor, similarity: str) -> Iterator[Lists]:
    """Yields the scores of the whole gallery (N, D) for the queries (Q, D) at `rows`, some at a time.

    Where an image has several descriptors, (N, R, D) or (Q, R, D), its score is the best over all pairs of them.
    """
    for role, vectors in (("query", queries), ("gallery", gallery)):
        if not vectors.isfinite().all():
            raise ValueError(f"descriptors must be finite, got others for {role} {_first_infinite(vectors)}")
    regions = [vectors if vectors.dim() == 3 else vectors[:, None] for vectors in (queries, gallery)]
    cells = len(gallery) * regions[0].shape[1] * regions[1].shape[1]
    for part in rows.split(max(1, _CELLS // max(1, cells))):
        chosen = regions[0][part.to(queries.device)]
        yield Lists(part, _best_pairs(chosen, regions[1], _SIMILARITY[similarity]))


def _best_pairs(queries: Tensor, gallery: Tensor, similarity: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Returns (Q, N): the largest similarity between any of `queries (Q, R, D)` and any of `gallery (N, S, D)`."""
    scores = similarity(queries.flatten(0, 1), gallery.flatten(0, 1))
    return scores.view(*queries.shape[:2], *gallery.shape[:2]).amax(dim=(1, 3))


def _first_infinite(vectors: Tensor) -> int:
    return int((~vectors.isfinite()).flatten(1).any(dim=1).nonzero()[0])


def from_predictions(
    predictions: Predictions,
    query_ids: Sequence[str],
    gallery_ids: Sequence[str],
    excluded: Container[str],
    source: Source,
) -> Iterator[Lists]:
    """Yields a file's lists for the protocol's queries, in its order, items as positions in its gallery.

    Names that the file leaves open are those of `source`. Raises ValueError for a query without predictions, a listed
    item that is neither in the gallery nor among the `excluded`, and a gallery item that a score matrix lacks.
    """
    names = predictions.query_ids or source.query_ids
    if len(names) != len(predictions):
        raise ValueError(f"predictions must have a row for each of the {len(names)} queries, got {len(predictions)}")
    row_of = {name: row for row, name in enumerate(names)}
    missing = [name for name in query_ids if name not in row_of]
    if missing:
        how = "" if predictions.query_ids else "; the file names no queries: give it a string array query_ids (.npz)"
        raise ValueError(f"predictions must cover every query, {len(missing)} are missing, '{missing[0]}' first{how}")
    if predictions.scores is not None:
        yield from _dense(predictions, [row_of[name] for name in query_ids], gallery_ids, source)
    else:
        yield from _partial(predictions, [row_of[name] for name in query_ids], query_ids, gallery_ids, excluded)


def _dense(predictions: Predictions, rows: list[int], gallery_ids: Sequence[str], source: Source) -> Iterator[Lists]:
    names = predictions.gallery_ids or source.gallery_ids
    if predictions.scores.shape[1] != len(names):
        columns = predictions.scores.shape[1]
        raise ValueError(f"predictions must have a column for each of the {len(names)} gallery items, got {columns}")
    column_of = {name: column for column, name in enumerate(names)}
    missing = [name for name in gallery_ids if name not in column_of]
    if missing:
        raise ValueError(f"predictions must score every gallery item, {len(missing)} are missing, '{missing[0]}' first")
    columns = np.array([column_of[name] for name in gallery_ids])
    for part in torch.arange(len(rows)).split(max(1, _CELLS // max(1, len(columns)))):
        chosen = np.asarray(predictions.scores[[rows[query] for query in part.tolist()]])
        yield Lists(part, torch.from_numpy(np.ascontiguousarray(_sortable(chosen)[:, columns])))


def _sortable(scores: np.ndarray) -> np.ndarray:
    """Turns numbers into a type that torch sorts; half precision is widened, since every metric would do so again."""
    if scores.dtype.kind == "f":
        return scores.astype(np.float32 if scores.itemsize <= 4 else np.float64, copy=False)
    return scores.astype(np.float64 if scores.dtype == np.uint64 else np.int64, copy=False)


def _partial(
    predictions: Predictions,
    rows: list[int],
    query_ids: Sequence[str],
    gallery_ids: Sequence[str],
    excluded: Container[str],
) -> Iterator[Lists]:
    position = {name: place for place, name in enumerate(gallery_ids)}
    longest = max(len(predictions.ranked[row]) for row in rows)
    for part in torch.arange(len(rows)).split(max(1, _CELLS // max(1, longest))):
        items = torch.full((len(part), longest), -1)
        scores = torch.arange(longest, 0, -1, dtype=torch.float64).repeat(len(part), 1)
        for line, query in enumerate(part.tolist()):
            ranked = predictions.ranked[rows[query]]
            unknown = [name for name in ranked if name not in position and name not in excluded]
            if unknown:
                raise ValueError(f"predictions of query '{query_ids[query]}' name '{unknown[0]}', not in the gallery")
            items[line, : len(ranked)] = torch.tensor([position.get(name, -1) for name in ranked], dtype=torch.int64)
            if predictions.ranked_scores is not None:
                given = predictions.ranked_scores[rows[query]]
                scores[line, : len(ranked)] = torch.as_tensor(given, dtype=torch.float64)
        yield Lists(part, scores, items)


def with_progress(parts: Iterable[Lists], queries: int, title: str) -> Iterator[Lists]:
    """Yields the parts and shows on standard error how many of the queries have been judged."""
    with progress_bar(title, queries) as advance:
        for part in parts:
            yield part
            advance(len(part.rows))


def top(part: Lists, benchmark: RankedBenchmark, kept: int) -> Iterator[RankedQuery]:
    """Yields the first `kept` items of each list, junk among them, the query's own image and padding left out.

    So is whatever a query doesn't rank.
    """
    judge, setting = benchmark.judge, benchmark.shown_setting
    judgement = judge.judge(setting, part)
    scores = part.scores.double().cpu()
    items = torch.arange(scores.shape[1]).expand_as(scores) if part.items is None else part.items
    own = judge.own[part.rows][:, None]
    left_out = (items < 0) | (items == own)
    if getattr(judge, "listed_only", False):  # the rest of the gallery isn't ranked at all
        left_out |= judgement.ignore
    order = _best(scores.masked_fill(left_out, -torch.inf), kept + int(left_out.sum(1).max()))
    totals = judge.total(setting, part.rows).tolist()
    for line, query in enumerate(part.rows.tolist()):
        ranked = []
        for place in [place for place in order[line].tolist() if not left_out[line, place]][:kept]:
            verdict, note = _verdict(judge, judgement, line, place)
            name = benchmark.gallery_ids[items[line, place]]
            ranked.append(RankedItem(name, scores[line, place].item(), verdict, note))
        name, image = benchmark.query_ids[query], benchmark.query_images[query]
        yield RankedQuery(query, name, image, benchmark.boxes[query], totals[line], ranked)


def _best(scores: Tensor, kept: int) -> Tensor:
    """Returns where the largest `kept` of each row stand, in order; of equal ones the first comes first."""
    values, places = scores.topk(min(kept, scores.shape[1]), dim=1)
    if not values.shape[1]:
        return places
    places = places.sort(dim=1).values
    order = scores.gather(1, places).argsort(dim=1, descending=True, stable=True)
    places = places.gather(1, order)
    # Among items that tie with the last one, topk takes any.
    for row in ((scores >= values[:, -1:]).sum(1) > values.shape[1]).nonzero()[:, 0]:
        places[row] = scores[row].argsort(descending=True, stable=True)[: values.shape[1]]
    return places


def _verdict(judge: Judge, judgement: Judgement, line: int, place: int) -> tuple[Verdict, str | None]:
    if judgement.ignore[line, place]:
        return "junk", None
    note = f"gain {judgement.gains[line, place].item():g}" if judge.graded else None
    return "relevant" if judgement.relevant[line, place] else "irrelevant", note
