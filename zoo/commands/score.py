"""`zoo score`: judge a file of ranked lists or scores by a benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.commands import _app
from zoo.commands._ending import usage_errors

if TYPE_CHECKING:
    from omegaconf import DictConfig

UNNAMED = "predictions"  # the run_name of conf/score.yaml


def main() -> None:
    """Runs the command."""
    _app.run("score", score)


def score(cfg: DictConfig) -> float:
    """Judges as configured and returns the first metric."""
    from omegaconf import OmegaConf

    from zoo.commands import _setup
    from zoo.evaluation.pictures import ranking_sheet
    from zoo.evaluation.predictions import read_predictions
    from zoo.evaluation.record import write_run, write_sheet
    from zoo.evaluation.source import Source
    from zoo.registry import UsageError

    if OmegaConf.is_missing(cfg, "predictions"):
        raise UsageError("predictions must name the file to judge: zoo score predictions=FILE …; see zoo score --help")
    data = _setup.build(cfg.data) if cfg.get("data") else None
    benchmark = _setup.benchmark(cfg)
    if not hasattr(benchmark, "score_predictions"):
        raise UsageError(f"benchmark '{cfg.benchmark.name}' judges descriptors, not ranked lists: use zoo eval")
    with usage_errors():
        predictions = read_predictions(Path(cfg.predictions).expanduser(), cfg.array)
        benchmark.open_source(Source.of_predictions(predictions, data, cfg.benchmark.name))
        run_dir = _setup.made_folder(cfg)
        report = benchmark.score_predictions(predictions)
    _setup.log_notes(benchmark)
    rankings = benchmark.rankings_of(benchmark.prediction_lists(predictions, "ranked lists"), "predictions")
    write_run(report, rankings, run_dir, {**_about(cfg), **_setup.about_protocol(cfg)})
    write_sheet(lambda: ranking_sheet(rankings, data, benchmark.sheet_queries), run_dir)
    _setup.log.info("written: %s", run_dir)
    return report.own.cells[next(iter(report.own.cells))].mean


def _about(cfg: DictConfig) -> dict[str, Any]:
    import hashlib

    path = Path(cfg.predictions).expanduser().resolve()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    name = cfg.run_name if cfg.run_name != UNNAMED else cfg.array or path.stem
    return {
        "run_name": name,
        "model": {"predictions": str(path), "array": cfg.array, "predictions_hash": digest},
    }


if __name__ == "__main__":
    main()
