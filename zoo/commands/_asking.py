"""What a search is asked: pictures or items, a drawing, alone or over them, and words."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from zoo.commands._queries import Queries, Query, read_queries
from zoo.commands._searching import log
from zoo.registry import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig

    from zoo.search.features import Features
    from zoo.search.index import Index


def check(cfg: DictConfig) -> None:
    """Raises UsageError where nothing is asked for, or two things that can't be asked for at once."""
    asked = [key for key in ("query", "query_id", "drawing", "text") if cfg[key] is not None]
    if not asked:
        raise UsageError(
            "name either a picture, zoo search photo.jpg …, or query_id=…, drawing=… or text=…; see zoo search --help"
        )
    if "query" in asked and "query_id" in asked:
        raise UsageError("name either a picture, zoo search photo.jpg …, or query_id=…; see zoo search --help")
    stages = [name for name, node in cfg.reranker.items() if node]
    if "text" in asked and stages:
        raise UsageError(f"text ranks before anything else, so that no reranker can follow, got {', '.join(stages)}")
    if cfg.box is not None and "query" not in asked:
        raise UsageError("box is for a picture; what the index holds of query_id, or a drawing, is of the whole image")


def read(cfg: DictConfig, index: Index, folder: Path, extra: Features | None) -> Queries:
    """Returns the queries of the command line; raises UsageError or BadFile for what can't be one."""
    words = None if cfg.text is None else _words(str(cfg.text), index, folder)
    queries = None
    if cfg.query is not None or cfg.query_id is not None:
        queries = read_queries(cfg, index, folder, extra)
    classes = _classes(index, folder, queries)
    if cfg.drawing is not None:
        queries = _drawn(cfg, index, queries, classes)
    if queries is None:
        queries = Queries([Query(str(cfg.text), None)], None, None, [None], [{}])
    return replace(queries, words=words, classes=None if classes is None else classes.class_names)


def _drawn(cfg: DictConfig, index: Index, below: Queries | None, classes: Any) -> Queries:
    from zoo.commands._drawings import read_drawing
    from zoo.commands._ending import usage_errors

    drawing = read_drawing(cfg.drawing, index, None if classes is None else classes.class_colours)
    with usage_errors():  # the photo's maps may be of another size
        count = index.get(index.ids[:1]).probability_map.shape[1]
        items = drawing.query(None if below is None else below.items, count, index.fingerprint)
    if below is None:
        return Queries([Query(drawing.path.name, None, drawing=drawing)], items, None, [None], [{}])
    return replace(below, each=[replace(query, drawing=drawing) for query in below.each], items=items)


def _words(text: str, index: Index, folder: Path) -> list[str]:
    from zoo.commands._ending import usage_errors
    from zoo.search.captions import words_of

    words = words_of(text)
    if not words:
        raise UsageError(f"text must hold at least one word, got {text!r}")
    if not index.reads_captions:
        name = index.registered["name"]
        raise UsageError(f"text needs an index that reads captions, which {name} doesn't: build another one")
    with usage_errors():  # captions of one's own payloads may be anything
        if not index.captioned:
            raise UsageError(f"text needs captions, which index {folder} lacks: zoo index … captions=FILE adds them")
        unknown = [word for word in words if not index.word_counts([word]).any()]
    if unknown:
        log.warning("text: no caption holds %s", ", ".join(map(repr, unknown)))
    return words


def _classes(index: Index, folder: Path, queries: Queries | None) -> Any:
    """Returns the model whose classes the index' maps tell apart; None for other indexes, and without a model."""
    from zoo import checkpoints
    from zoo.search.features import MODEL

    if "probability_map" not in index.needs:
        return None
    models = [] if queries is None else list(queries.models)
    if not models and (folder / MODEL).is_file():
        models = [checkpoints.load_model(str(folder / MODEL))]
    return next((model for model in models if hasattr(model, "class_names")), None)
