"""`zoo eval`: evaluate a trained model on a benchmark."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from zoo.commands import _app, report

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """Runs the command."""
    _app.run("eval", evaluate)


def evaluate(cfg: DictConfig) -> float | None:
    """Evaluates as configured and returns the first metric of the model's own row."""
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    from zoo import training
    from zoo.commands import _setup
    from zoo.evaluation import runner

    _setup.prepare(cfg)
    model, source = _setup.trained_model(cfg)
    trainer = _setup.trainer(cfg, callbacks=[], logger=_setup.loggers(cfg))
    data, companions = _setup.build(cfg.data), _setup.companions(cfg)
    benchmark = _setup.opened_benchmark(cfg, data)
    run_dir = _setup.made_folder(cfg)
    try:
        about = _setup.about(cfg, model, source, companions)
        metrics = runner.evaluate(model, data, benchmark, trainer, run_dir, about, companions)
    except SIGTERMException:  # a SystemExit with code 0, as if all had been done
        sys.exit(143)
    except SystemExit:  # how Lightning ends on Ctrl-C
        if trainer.interrupted:
            sys.exit(130)
        raise
    finally:
        training.finish_loggers(trainer)
    if trainer.is_global_zero:
        if cfg.report:
            problem = report.write_page([str(run_dir)], run_dir / "report.html")
            if problem:
                _setup.log.warning("report.html: %s", problem)
        _setup.log.info("written: %s", run_dir)
    return next(iter(metrics.values()), None)


if __name__ == "__main__":
    main()
