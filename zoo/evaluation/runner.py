"""Runs a model over a benchmark's images through the Lightning Trainer, on one process or many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning
import torch

from zoo.evaluation.collect import Collector
from zoo.evaluation.protocol import Shard
from zoo.evaluation.record import write_run, write_sheet

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from zoo.evaluation.rankings import Rankings
    from zoo.evaluation.report import Report
    from zoo.types import Batch


class EvaluationData(lightning.LightningDataModule):
    """A data module's images and, prepared by rank 0 alone, the ground truth that the benchmark needs of them."""

    def __init__(self, data: Any, benchmark: Any) -> None:
        super().__init__()
        self.data, self.benchmark = data, benchmark
        self.allow_zero_length_dataloader_with_multiple_devices = True  # more processes than images is no error

    def prepare_data(self) -> None:
        """Makes the images and the ground truth."""
        self.data.prepare_data()
        self.data.setup("test")
        self.benchmark.prepare(self.data)

    def setup(self, stage: str) -> None:
        """Opens them on every rank."""
        self.data.trainer = self.trainer
        self.data.setup("test")

    def test_dataloader(self) -> Any:
        """Returns this rank's share of the images, a loader for each role."""
        return self.benchmark.loaders(self.data)


class EvaluationLoop(lightning.LightningModule):
    """Embeds the benchmark's images, lets it score them, and writes what rank 0 found to `folder`."""

    def __init__(self, model: Any, data: Any, benchmark: Any, folder: Path, about: dict[str, Any]) -> None:
        super().__init__()
        self.model, self.data, self.benchmark, self.folder, self.about = model, data, benchmark, folder, about
        self._collectors: dict[str, Collector] = {}

    def on_test_epoch_start(self) -> None:
        """Starts anew."""
        self._collectors = {role: Collector() for role in self.benchmark.roles}

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Keeps the batch's descriptors, baselines and task scores."""
        role = self.benchmark.roles[dataloader_idx]
        with torch.autocast(self.device.type, enabled=False):  # descriptors of mixed precision tie and misrank
            rows = self.model.descriptors(batch, role)
        vectors: dict[str, Tensor] = {name: row.float() for name, row in rows.items()}
        self._collectors[role].add(
            batch.index, {**vectors, **self.benchmark.extra_vectors(batch)}, self.model.task_scores(batch)
        )

    def on_test_epoch_end(self) -> None:
        """Scores on every rank, logs the metrics, writes and prints on rank 0."""
        collected = {role: collector.gather(self.device) for role, collector in self._collectors.items()}
        shard = Shard(self.global_rank, self.trainer.world_size, self.device)
        report = self.benchmark.score(collected, self.data, self.model.descriptor_name, shard)
        self._log(report)
        if self.trainer.is_global_zero:
            rankings = self.benchmark.rankings(collected, self.data, report)
            write_run(report, rankings, self.folder, self.about)
            self._draw(collected, report, rankings)

    def _log(self, report: Report) -> None:
        values = {f"test/{label}": cell.mean for label, cell in report.own.cells.items()}
        values |= {f"test/{name}": value for name, value in report.scores.items()}
        for name, value in values.items():
            self.log(name, value, sync_dist=True)

    def _draw(self, collected: dict[str, Any], report: Report, rankings: Rankings | None) -> None:
        sheet = write_sheet(lambda: self.benchmark.sheet(collected, self.data, report, rankings), self.folder)
        for logger in self.trainer.loggers if sheet is not None else ():
            if hasattr(logger, "log_image"):
                logger.log_image("test/ranked", [sheet])


def evaluate(
    model: Any, data: Any, benchmark: Any, trainer: Any, folder: Path, about: dict[str, Any]
) -> dict[str, float]:
    """Evaluates a model and returns the logged metrics; `folder` receives the files of `record.write_run` and pictures.

    `about` goes into results.json beside the environment (model, data, weights, seed, command).
    """
    folder.mkdir(parents=True, exist_ok=True)
    loop = EvaluationLoop(model, data, benchmark, folder, about)
    trainer.test(loop, datamodule=EvaluationData(data, benchmark), verbose=False)
    return {name: value.item() for name, value in trainer.callback_metrics.items()}
