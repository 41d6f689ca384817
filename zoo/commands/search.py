"""`zoo search`: find the images of an index that are nearest to a picture."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.commands import _app
from zoo.commands._searching import check_count, log, newest, quiet
from zoo.registry import UsageError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """Runs the command."""
    _app.run("search", search, files="query")


def search(cfg: DictConfig) -> None:
    """Describes the queries as the index was described, searches, re-ranks, and shows what was found."""
    from zoo.commands import _found, _queries, _setup
    from zoo.search.features import open_features
    from zoo.search.index import open_index

    quiet()
    _check(cfg)
    rerankers = [_setup.build(node) for node in cfg.reranker.values() if node]
    how = "zoo index makes one of what zoo embed wrote"
    folder = Path(cfg.index_path or newest(cfg.paths.output_dir, "indexes", "index_path", how)).expanduser()
    index = open_index(folder)
    extra = open_features(cfg.features) if cfg.features else None
    queries = _queries.read_queries(cfg, index, folder, extra)
    start = time.perf_counter()
    rankings = _rankings(cfg, index, rerankers, queries, extra)
    log.info(
        "queries: %d, images: %s, searched in %.2f s", len(queries), f"{len(index):,}", time.perf_counter() - start
    )
    if cfg.where and not any(map(len, rankings)):
        known = sorted({key for payload in index.payloads(index.ids[:100]) for key in payload})
        log.warning("where=%s fits no image; payloads have the keys %s", cfg.where, ", ".join(known) or "none")
    _found.show(queries, rankings, index, _setup.made_folder(cfg), _about(cfg, folder))


def _check(cfg: DictConfig) -> None:
    check_count("k", cfg.k)
    if cfg.shortlist is not None:
        check_count("shortlist", cfg.shortlist)
    if (cfg.query is None) == (cfg.query_id is None):
        raise UsageError("name either a picture, zoo search photo.jpg …, or query_id=…; see zoo search --help")


def _rankings(cfg: DictConfig, index: Any, rerankers: list[Any], queries: Any, extra: Any) -> list[Any]:
    from omegaconf import OmegaConf

    from zoo.commands._setup import usage_errors
    from zoo.search.pipeline import Pipeline

    if not (cfg.where is None or OmegaConf.is_dict(cfg.where)):
        raise UsageError(f"where must be a mapping such as '{{label: cat}}', got {cfg.where}")
    where = None if cfg.where is None else OmegaConf.to_container(cfg.where)
    with usage_errors():
        return Pipeline(index, rerankers, cfg.shortlist).search(
            queries.items, cfg.k, where, queries.exclude, queries.metadata, extra, queries.extra
        )


def _about(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    from omegaconf import OmegaConf

    from zoo.evaluation.record import environment

    asked = {key: OmegaConf.to_container(cfg)[key] for key in ("k", "where", "shortlist", "features", "reranker")}
    return {"index": str(folder.resolve()), **asked, **environment()}


if __name__ == "__main__":
    main()
