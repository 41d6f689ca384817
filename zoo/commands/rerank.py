"""`zoo rerank`: put hits that come from any vector database into a better order."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.commands import _app
from zoo.registry import UsageError

if TYPE_CHECKING:
    import numpy as np
    from omegaconf import DictConfig

    from zoo.commands._hit_files import HitLists

log = logging.getLogger("zoo")

_QUERIES, _HITS = 3, 5  # of which the printed table shows the first


def main() -> None:
    """Runs the command."""
    _app.run("rerank", rerank, files="files")


def rerank(cfg: DictConfig) -> None:
    """Re-orders every query's hits, writes the new order with its scores, and shows the beginning of it."""
    from zoo.commands._hit_files import read_hit_lists

    stages = _stages(cfg)
    lists = read_hit_lists(cfg.files, cfg.metadata)
    _check_metadata(stages, lists)
    start = time.perf_counter()
    order, scores = _reranked(stages, lists)
    queries, hits, dimension = lists.hits.shape
    seconds = time.perf_counter() - start
    log.info("queries: %d, hits of each: %d, D: %d, re-ranked in %.2f s", queries, hits, dimension, seconds)
    folder = _folder(cfg)
    _write(folder, order, scores, _about(cfg, lists))
    _print(lists, order, scores)
    log.info("written: %s", folder)


def _stages(cfg: DictConfig) -> list[Any]:
    """Builds the re-rankers; UsageError where there are none, or one needs more than vectors."""
    from zoo.commands import _setup
    from zoo.search.fit import lacking_fields
    from zoo.types import name_of

    stages = [_setup.build(node) for node in (cfg.get("reranker") or {}).values() if node]
    if not stages:
        raise UsageError("reranker must name at least one, such as reranker=superglobal; see zoo list reranker")
    for stage in stages:
        missing = lacking_fields(stage, ("vector",))
        if missing:
            raise UsageError(
                f"reranker {name_of(stage)} needs {', '.join(missing)}, zoo rerank has vectors alone: use zoo search"
            )
    return stages


def _check_metadata(stages: list[Any], lists: HitLists) -> None:
    """Raises UsageError where a re-ranker reads columns and there are none; says so where none reads those given."""
    wanted = dict.fromkeys(field for stage in stages for field in getattr(stage, "reads", ()))
    if wanted and not lists.columns:
        how = "name a file that has them, metadata=hits.csv or hits.npz"
        raise UsageError(f"metadata must hold {', '.join(wanted)} of every hit: {how}")
    if lists.columns and all(getattr(stage, "reads", None) == () for stage in stages):
        log.info("metadata counts for nothing: these weights were trained without affinities beside the visual one")


def _reranked(stages: list[Any], lists: HitLists) -> tuple[np.ndarray, np.ndarray]:
    """Returns the new order (Q, K) int64 of the hits' places, and their scores (Q, K) float32 in that order."""
    import numpy as np

    from zoo.progress import tracked

    shape = lists.hits.shape[:2]
    order, scores = np.empty(shape, np.int64), np.empty(shape, np.float32)
    for number in tracked(range(len(lists)), "re-ranking"):
        try:
            order[number], scores[number] = _one(stages, *lists.vectors(number), lists.metadata(number))
        except UsageError:
            raise
        except ValueError as error:
            raise UsageError(f"query {number}: {error}") from error
    return order, scores


def _one(stages: list[Any], query: np.ndarray, hits: np.ndarray, metadata: list[dict[str, Any]]) -> tuple[Any, Any]:
    """Returns order and scores of one query's hits, every stage beginning with the order of the one before.

    As in a search, a stage finds each hit's score of earlier stages in its metadata, under their names.
    """
    import numpy as np

    from zoo.types import Representation, name_of

    asked, places = Representation(vector=query), np.arange(len(hits))
    for stage in stages:
        found = stage(asked, Representation(vector=hits[places]), {}, [metadata[place] for place in places])
        if sorted(found.ids) != list(range(len(hits))):
            raise ValueError(f"the reranker {name_of(stage)} must return every hit once, by its place")
        places = places[list(found.ids)]
        for place, score in zip(places, found.scores.tolist(), strict=True):
            metadata[place][name_of(stage)] = score
    return places, found.scores


def _folder(cfg: DictConfig) -> Path:
    folder = Path(cfg.out or cfg.paths.run_dir).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"out: the folder can't be made: {error}") from error
    return folder


def _about(cfg: DictConfig, lists: HitLists) -> dict[str, Any]:
    from omegaconf import OmegaConf

    from zoo.evaluation.record import environment

    asked = {key: OmegaConf.to_container(cfg)[key] for key in ("files", "metadata", "reranker")}
    shapes = {"queries": list(lists.queries.shape), "hits": list(lists.hits.shape)}
    return {**asked, "shapes": shapes, "columns": sorted(lists.columns), **environment()}


def _write(folder: Path, order: np.ndarray, scores: np.ndarray, about: dict[str, Any]) -> None:
    import numpy as np

    from zoo.evaluation.report import write_json
    from zoo.files import replacing

    # Both are complete before either gets its name: they belong together.
    with replacing(folder / "order.npy") as places, replacing(folder / "scores.npy") as values:
        np.save(places, order)
        np.save(values, scores)
    write_json(folder / "results.json", about)


def _print(lists: HitLists, order: np.ndarray, scores: np.ndarray) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from zoo.search._names import one_line

    console = Console()
    if not console.is_terminal:  # a file or another program, which has lines as long as need be
        console.width = 1 << 16
    table = Table("query", "rank", "was", "score")
    if lists.ids is not None:
        table.add_column("id", overflow="fold")
    shown = min(order.shape[1], _HITS)
    for query in range(min(len(order), _QUERIES)):
        for rank, place in enumerate(order[query, :shown]):
            cells = [str(query), str(rank + 1), str(place + 1), f"{scores[query, rank]:#.4g}"]
            cells += [] if lists.ids is None else [one_line(str(lists.ids[query, place]))]
            table.add_row(*map(Text, cells), end_section=rank == shown - 1)
    console.print(table)


if __name__ == "__main__":
    main()
