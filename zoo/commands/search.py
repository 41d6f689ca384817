"""`zoo search`: find the images of an index that are nearest to a picture or a drawing, or whose captions fit."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.commands import _app
from zoo.commands._searching import check_count, check_switch, log, newest
from zoo.registry import UsageError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """Runs the command."""
    _app.run("search", search, files="query", text="text")


def search(cfg: DictConfig) -> None:
    """Describes the queries as the index was described, searches, re-ranks, and shows what was found."""
    from zoo.commands import _asking, _explaining, _found, _queries, _setup
    from zoo.search.features import open_features
    from zoo.search.index import open_index

    _check(cfg)
    _asking.check(cfg)
    rerankers = [_setup.build(node) for node in cfg.reranker.values() if node]
    how = "zoo index makes one of what zoo embed wrote"
    folder = Path(cfg.index_path or newest(cfg.paths.output_dir, "indexes", "index_path", how)).expanduser()
    index = open_index(folder)
    extra = open_features(cfg.features) if cfg.features else None
    _check_stages(rerankers, index, extra, cfg)
    explained = _explaining.explaining(rerankers) if cfg.explain else None
    queries = _asking.read(cfg, index, folder, extra)
    _queries.hand_over_models(queries, rerankers, folder, extra)
    if rerankers:
        _queries.tell_of_themselves(queries, index)
    start = time.perf_counter()
    rankings = _rankings(cfg, index, rerankers, queries, extra)
    log.info(
        "queries: %d, images: %s, searched in %.2f s", len(queries), f"{len(index):,}", time.perf_counter() - start
    )
    if cfg.where and not any(map(len, rankings)):
        known = sorted({key for payload in index.payloads(index.ids[:100]) for key in payload})
        log.warning("where=%s fits no image; payloads have the keys %s", cfg.where, ", ".join(known) or "none")
    run_dir = _setup.made_folder(cfg)
    _found.show(queries, rankings, index, run_dir, _about(cfg, folder))
    if explained is not None:
        _explaining.show(queries, rankings, index, extra, explained, run_dir)


def _check(cfg: DictConfig) -> None:
    check_count("k", cfg.k)
    check_switch("explain", cfg.explain)
    if cfg.shortlist is not None:
        check_count("shortlist", cfg.shortlist)


def _check_stages(rerankers: list[Any], index: Any, extra: Any, cfg: DictConfig) -> None:
    """Raises UsageError for a re-ranker that doesn't fit what is held; says what a short shortlist does."""
    from zoo.search.fit import check_expansions, lacking_fields
    from zoo.types import name_of

    if not len(index):
        return
    check_expansions(index, {f"reranker {name_of(stage)}": stage for stage in rerankers})
    held = {*index.get(index.ids[:1]).held(), *(extra.kinds if extra is not None else ())}
    for stage in rerankers:
        missing = lacking_fields(stage, held)
        if missing:
            model = "local_features" if any(field.startswith("keypoint") for field in missing) else "MODEL"
            what = "KEYPOINTS" if model == "local_features" else "FOLDER"
            where = "index" if extra is None else f"index and features {extra.path}"
            local = ", or search one of zoo index index=local_maps" if "local_map" in missing else ""
            raise UsageError(
                f"reranker {name_of(stage)} needs {', '.join(stage.needs)}, {where} hold {', '.join(sorted(held))}: "
                f"features={what}, a folder of zoo embed model={model}{local}"
            )
    if cfg.shortlist is not None and cfg.shortlist < cfg.k and any(not hasattr(stage, "expand") for stage in rerankers):
        log.info(
            "shortlist=%d is below k=%d: ranks behind %d keep their first order", cfg.shortlist, cfg.k, cfg.shortlist
        )


def _rankings(cfg: DictConfig, index: Any, rerankers: list[Any], queries: Any, extra: Any) -> list[Any]:
    from omegaconf import OmegaConf

    from zoo.commands._ending import usage_errors
    from zoo.search.pipeline import Pipeline

    if not (cfg.where is None or OmegaConf.is_dict(cfg.where)):
        raise UsageError(f"where must be a mapping such as '{{label: cat}}', got {cfg.where}")
    where = None if cfg.where is None else OmegaConf.to_container(cfg.where)
    words = None if queries.words is None else [queries.words] * len(queries)
    with usage_errors():
        if queries.items is None:
            return _by_words(index.search(None, cfg.k, where, words), cfg.text)
        return Pipeline(index, rerankers, cfg.shortlist).search(
            queries.items, cfg.k, where, queries.exclude, queries.metadata, extra, queries.extra, words
        )


def _by_words(rankings: list[Any], text: str) -> list[Any]:
    """Returns the hits whose captions hold a word at least; says so where there are none."""
    from zoo.search.captions import with_words

    found = [with_words(ranking) for ranking in rankings]
    if not any(map(len, found)):
        log.warning("text=%s: no caption holds a word of it", text)
    return found


def _about(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    from omegaconf import OmegaConf

    from zoo.evaluation.record import environment

    keys = "k", "text", "drawing", "where", "shortlist", "features", "reranker"
    whole = OmegaConf.to_container(cfg)
    return {"index": str(folder.resolve()), **{key: whole[key] for key in keys}, **environment()}


if __name__ == "__main__":
    main()
