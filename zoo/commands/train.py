"""`zoo train`: train a model on a data set."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.commands import _app
from zoo.commands._ending import usage_errors

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """Runs the command."""
    _app.run("train", train)


def train(cfg: DictConfig) -> float | None:
    """Trains as configured and returns the best value of the model's own metric (what a sweep optimises)."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from zoo import checkpoints, training
    from zoo.commands import _fitting, _setup, _trainer
    from zoo.search.fit import check_training

    run_dir = Path(cfg.paths.run_dir)
    # The folders beside a job of a multirun are the other jobs'.
    alone = HydraConfig.get().mode != RunMode.MULTIRUN
    resume = training.resume_path(cfg.ckpt_path, run_dir, beside=alone)
    _setup.prepare(cfg)
    data, model = _setup.build(cfg.data), _setup.new_model(cfg)
    _refuse_untrained(cfg, model)
    with usage_errors():
        check_training(model, data)
    if model.needs_fitting:
        _fitting.open_data(model, data)
    # Their mistakes should not cost a training.
    tested = _tested(cfg, model, data) if cfg.test else None
    if not model.trained:
        _only_fit(cfg, model, data, tested, run_dir)
        return None
    if resume:
        checkpoints.read(Path(resume))  # a damaged file is told before anything is written
        _setup.log.info("resuming %s", resume)
    loggers = _setup.loggers(cfg, training.logger_ids(Path(resume)) if resume else {})
    trainer = _trainer.trainer(cfg, callbacks=_setup.callbacks(cfg, model), logger=loggers)
    with training.finished_loggers(trainer):
        trainer.fit(model, datamodule=data, ckpt_path=resume, weights_only=True)
        return _conclude(cfg, model, data, tested, trainer, run_dir)


def _refuse_untrained(cfg: DictConfig, model: Any) -> None:
    from zoo import training
    from zoo.registry import UsageError

    name = cfg.model.name
    if model.trained:
        return
    if not model.needs_fitting:
        fitted = f"statistics are fitted with {model.fitted_with}; otherwise " if model.fitted_with else ""
        raise UsageError(f"model '{name}' has nothing to train: {fitted}evaluate it as it is: zoo eval model={name} …")
    if cfg.ckpt_path not in (None, training.AUTO):
        raise UsageError(f"ckpt_path={cfg.ckpt_path}: model '{name}' is fitted in one go, there is nothing to resume")


def _tested(cfg: DictConfig, model: Any, data: Any) -> tuple[Any, Any]:
    from zoo.commands import _setup

    benchmark = _setup.benchmark(cfg)
    companions = _setup.companions(cfg)
    _setup.check_judged(benchmark, model, data, companions)
    return _setup.opened(benchmark, data), companions


def _only_fit(cfg: DictConfig, model: Any, data: Any, tested: tuple[Any, Any] | None, run_dir: Path) -> None:
    """Fits the statistics of a model that isn't trained by gradient."""
    from zoo import training
    from zoo.commands import _fitting, _setup, _trainer

    _setup.made_folder(cfg)
    trainer = _trainer.trainer(cfg, callbacks=[], logger=[] if tested is None else _setup.loggers(cfg))
    with training.finished_loggers(trainer):
        path = _fitting.fit(cfg, model, data, trainer, run_dir, ("last", "best"))
        if trainer.is_global_zero:
            _setup.log.info("use it with: zoo embed FOLDER weights=%s, or zoo eval … weights=…", shlex.quote(str(path)))
        if tested is not None:
            _test(cfg, str(path), model, data, *tested, trainer, run_dir)


def _conclude(
    cfg: DictConfig, model: Any, data: Any, tested: tuple[Any, Any] | None, trainer: Any, run_dir: Path
) -> float | None:
    from zoo import checkpoints, training
    from zoo.commands import _fitting

    best, last = trainer.checkpoint_callback, run_dir / "checkpoints" / "last.ckpt"
    path = (best.best_model_path if best else "") or (str(last) if last.is_file() else "")
    score = training.best_score(best.best_model_path) if best and best.best_model_path else None
    if model.needs_fitting:
        trained = checkpoints.load_model(path) if path else model
        path = str(_fitting.fit(cfg, trained, data, trainer, run_dir, ("best",)))
    if trainer.is_global_zero:
        _tell(cfg, path, model, score)
    if tested is not None:
        _test(cfg, path, model, data, *tested, trainer, run_dir)
    return score


def _tell(cfg: DictConfig, path: str, model: Any, score: float | None) -> None:
    """Says where the checkpoint is, what it reached, and how it is evaluated on the data of its training, or used."""
    from hydra.core.hydra_config import HydraConfig

    from zoo.commands import _setup

    if path:
        typed = [word for word in HydraConfig.get().overrides.task if word.startswith(("experiment=", "data"))]
        words = [*typed, *(["weights=null"] if cfg.weights else []), f"ckpt_path={path}"]
        reached = "" if score is None else f" ({model.monitor} {score:.4f})"
        _setup.log.info("%s checkpoint: %s%s", Path(path).stem, path, reached)
        how = f"evaluate it with: zoo eval {shlex.join(words)}"
        if hasattr(model, "rerank"):
            words = (
                "QUERIES.npy",
                "HITS.npy",
                f"reranker={cfg.model.name}",
                f"reranker.{cfg.model.name}.weights={path}",
                *(["metadata=HITS.csv"] if model.reads else []),
            )
            columns = f" with the columns {', '.join(model.reads)}" if model.reads else ""
            how = f"use it with: {shlex.join(['zoo', 'rerank', *words])}{columns}"
        elif model.judges_itself:  # no benchmark of `zoo eval` is like its validation
            how = f"use it with: {shlex.join(['zoo', 'embed', 'FOLDER', f'ckpt_path={path}'])}"
        _setup.log.info("%s", how)


def _test(
    cfg: DictConfig, path: str, model: Any, data: Any, benchmark: Any, companions: Any, trainer: Any, run_dir: Path
) -> None:
    from zoo import checkpoints
    from zoo.commands import _setup
    from zoo.evaluation.runner import evaluate

    if path:
        model = checkpoints.load_model(path)
    about = _setup.about(cfg, model, path or None, companions)
    evaluate(model, data, benchmark, trainer, run_dir, about, companions)


if __name__ == "__main__":
    main()
