"""`zoo eval`: evaluate a trained model on a benchmark."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from zoo.commands import _app, report
from zoo.commands._ending import usage_errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from omegaconf import DictConfig


def main() -> None:
    """Runs the command."""
    _app.run("eval", evaluate)


def evaluate(cfg: DictConfig) -> float | None:
    """Evaluates as configured and returns the first metric of the model's own row."""
    from zoo import training
    from zoo.commands import _setup, _trainer
    from zoo.evaluation import runner

    _setup.prepare(cfg)
    model, source = _setup.trained_model(cfg)
    _refuse_reranker(model, source)
    trainer = _trainer.trainer(cfg, callbacks=[], logger=_setup.loggers(cfg))
    data, companions = _setup.build(cfg.data), _setup.companions(cfg)
    benchmark = _setup.benchmark(cfg)
    _setup.check_judged(benchmark, model, data, companions)
    search = searching(cfg, model, data, benchmark)
    _setup.opened(benchmark, data)
    check_columns(benchmark, data)
    run_dir = _setup.made_folder(cfg)
    with training.finished_loggers(trainer):
        about = {**_setup.about(cfg, model, source, companions), "search": search}
        metrics = runner.evaluate(model, data, benchmark, trainer, run_dir, about, companions)
    if trainer.is_global_zero:
        if cfg.report:
            problem = report.write_page([str(run_dir)], run_dir / "report.html")
            if problem:
                _setup.log.warning("report.html: %s", problem)
        _setup.log.info("written: %s", run_dir)
    return next(iter(metrics.values()), None)


def _refuse_reranker(model: Any, source: str | None) -> None:
    from zoo.registry import UsageError
    from zoo.types import name_of

    if not hasattr(model, "represent"):
        name = name_of(model)
        words = f"reranker={name} reranker.{name}.weights={source or 'FILE'}"
        raise UsageError(f"model '{name}' re-orders hits, it describes no images: name it as {words} beside a model")


def searching(cfg: DictConfig, model: Any, data: Any, benchmark: Any) -> dict[str, Any] | None:
    """Lets the benchmark search by the chosen index and re-rankers; returns what results.json says of them.

    None where none is chosen. Raises UsageError where benchmark, model and search don't fit.
    """
    from zoo.commands import _setup

    stages = {name: _setup.build(node) for name, node in (cfg.get("reranker") or {}).items() if node}
    chosen = cfg.get("index")
    if not (stages or chosen):
        return None
    from zoo.evaluation.searching import Searching

    for name, stage in stages.items():
        if hasattr(stage, "use_model"):
            stage.use_model(model)
        with usage_errors():
            check_dimension(name, stage, data)
    with usage_errors():
        make = partial(_setup.build, chosen) if chosen else _exact_index(model, benchmark)
        search = Searching(make, chosen.name if chosen else None, stages, cfg.shortlist)
        search.check(model.kinds)
        benchmark.search_with(search)
    described = {name: stage.registered for name, stage in stages.items()}
    return {"index": make().registered, "rerankers": described, "shortlist": cfg.shortlist}


def check_dimension(name: str, stage: Any, data: Any) -> None:
    """Raises UsageError where data bring descriptors of another D than a re-ranker was trained with."""
    from zoo.registry import UsageError

    wanted, given = getattr(stage, "dimension", None), getattr(data, "dimension", None)
    if wanted is not None and given is not None and wanted != given:
        raise UsageError(f"reranker '{name}' was trained with descriptors of D = {wanted}, data bring some of {given}")


def check_columns(benchmark: Any, data: Any) -> None:
    """Raises UsageError where a re-ranker reads what the opened data doesn't know of its images."""
    from zoo.registry import UsageError
    from zoo.types import name_of

    for name, stage in ({} if benchmark.search is None else benchmark.search.stages).items():
        wanted, split = getattr(stage, "reads", ()), data.gallery_split
        if not wanted:
            continue
        known = data.payloads(split, data.ids(split)[:1]) if hasattr(data, "payloads") else []
        columns = list(known[0]) if known else []
        if not set(wanted) <= set(columns):
            what = f"reads {list(wanted)} of every hit, data '{name_of(data)}' knows {columns}"
            raise UsageError(f"reranker '{name}' {what}")


def _exact_index(model: Any, benchmark: Any) -> Callable[[], Any]:
    """Returns what builds the index whose order is that of the descriptors themselves."""
    from zoo import config

    name = "regions" if "regions" in model.kinds else "flat"
    return partial(config.create, "index", name, metric=getattr(benchmark, "similarity", "cosine"))


if __name__ == "__main__":
    main()
