"""Runs a model over a benchmark's images through the Lightning Trainer, on one process or many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lightning
import torch

from zoo.evaluation.collect import Collected, Collector
from zoo.evaluation.protocol import Shard
from zoo.evaluation.record import write_run, write_sheet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from zoo.evaluation.rankings import Rankings
    from zoo.evaluation.report import Report
    from zoo.types import Batch


@dataclass(frozen=True)
class Companion:
    """Another model whose own descriptor is a row, called `label`, of the same table; `data` shows it the images."""

    label: str
    model: Any
    data: Any


class EvaluationData(lightning.LightningDataModule):
    """A data module's images and, prepared by rank 0 alone, the ground truth that the benchmark needs of them.

    `others` are the companions' data, which must hold the same images.
    """

    def __init__(self, data: Any, benchmark: Any, others: Sequence[Any] = ()) -> None:
        super().__init__()
        self.data, self.benchmark, self.others = data, benchmark, others
        self.allow_zero_length_dataloader_with_multiple_devices = True  # more processes than images is no error

    def prepare_data(self) -> None:
        """Makes the images and the ground truth."""
        for data in (self.data, *self.others):
            data.prepare_data()
            data.setup("test")
        self.benchmark.prepare(self.data)

    def setup(self, stage: str) -> None:
        """Opens them on every rank; raises ValueError where a companion would see other images."""
        for data in (self.data, *self.others):
            data.trainer = self.trainer
            data.setup("test")
        for data in self.others:
            if data.ids(data.gallery_split) != self.data.ids(self.data.gallery_split):
                raise ValueError("beside: its data must hold the same images in the same order as the model's")

    def test_dataloader(self) -> Any:
        """Returns this rank's share of the images: a loader for each role, then the same for every companion."""
        return [loader for data in (self.data, *self.others) for loader in self.benchmark.loaders(data)]


class EvaluationLoop(lightning.LightningModule):
    """Embeds the benchmark's images, lets it score them, and writes what rank 0 found to `folder`."""

    def __init__(
        self,
        model: Any,
        data: Any,
        benchmark: Any,
        folder: Path,
        about: dict[str, Any],
        companions: Sequence[Companion] = (),
    ) -> None:
        super().__init__()
        self.model, self.data, self.benchmark, self.folder, self.about = model, data, benchmark, folder, about
        self._labels = [companion.label for companion in companions]
        self.others = torch.nn.ModuleList(companion.model for companion in companions)
        self._collectors: list[Collector] = []

    def on_test_epoch_start(self) -> None:
        """Starts anew."""
        self._collectors = [Collector() for _ in range((1 + len(self.others)) * len(self.benchmark.roles))]

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Keeps the batch's descriptors and tally, and of the model itself baselines and task scores."""
        number, place = divmod(dataloader_idx, len(self.benchmark.roles))
        role = self.benchmark.roles[place]
        model = self.others[number - 1] if number else self.model
        label = self._labels[number - 1] if number else model.descriptor_name
        with torch.autocast(self.device.type, enabled=False):  # descriptors of mixed precision tie and misrank
            rows = self.benchmark.described(model, batch, role)
            tally = self.benchmark.tally(model, batch, self.data)
        if number:
            vectors, scores = ({label: rows[model.descriptor_name].float()} if rows else {}), {}
        else:
            vectors = {name: row.float() for name, row in rows.items()} | self.benchmark.extra_vectors(batch)
            scores = self.model.task_scores(batch)
        search = None if number else self.benchmark.search
        fields = {} if search is None else search.fields_of(model, batch, role, rows[model.descriptor_name])
        sums = {} if tally is None else {label: tally}
        self._collectors[dataloader_idx].add(batch.index, vectors, scores, fields, sums)

    def on_test_epoch_end(self) -> None:
        """Scores on every rank, logs the metrics, writes and prints on rank 0."""
        collected = self._gather()
        shard = Shard(self.global_rank, self.trainer.world_size, self.device)
        report = self.benchmark.score(collected, self.data, self.model.descriptor_name, shard)
        self._log(report)
        if self.trainer.is_global_zero:
            rankings = self.benchmark.rankings(collected, self.data, report)
            write_run(report, rankings, self.folder, self.about)
            self._draw(collected, report, rankings)

    def _gather(self) -> dict[str, Collected]:
        """Returns what all ranks collected, by role; collective."""
        roles = self.benchmark.roles
        gathered = [collector.gather(self.device) for collector in self._collectors]
        collected = dict(zip(roles, gathered, strict=False))
        for place, part in enumerate(gathered[len(roles) :]):
            own = collected[roles[place % len(roles)]]
            if not torch.equal(part.index, own.index):
                raise ValueError("beside: its model saw other images than the evaluated one (limit_test_batches?)")
            taken = [label for label in (*part.vectors, *part.sums) if label in (*own.vectors, *own.sums)]
            if taken:
                raise ValueError(f"beside: the model has a row '{taken[0]}' of its own; choose another label")
            own.vectors.update(part.vectors)
            own.sums.update(part.sums)
        return collected

    def _log(self, report: Report) -> None:
        values = {f"test/{label}": cell.mean for label, cell in report.own.cells.items()}
        values |= {f"test/{name}": value for name, value in report.scores.items()}
        for name, value in values.items():
            self.log(name, value, sync_dist=True)
        tabled = [logger for logger in self.trainer.loggers if hasattr(logger, "log_table")]
        if tabled and self.trainer.is_global_zero:
            columns, rows = report.query_table()
            for logger in tabled:
                logger.log_table("test/queries", columns=columns, data=rows)

    def _draw(self, collected: dict[str, Any], report: Report, rankings: Rankings | None) -> None:
        sheet = write_sheet(lambda: self.benchmark.sheet(collected, self.data, report, rankings), self.folder)
        for logger in self.trainer.loggers if sheet is not None else ():
            if hasattr(logger, "log_image"):
                logger.log_image("test/ranked", [sheet])


def evaluate(
    model: Any,
    data: Any,
    benchmark: Any,
    trainer: Any,
    folder: Path,
    about: dict[str, Any],
    companions: Sequence[Companion] = (),
) -> dict[str, float]:
    """Evaluates a model and returns the logged metrics; `folder` receives the files of `record.write_run` and pictures.

    `about` goes into results.json beside the environment (model, data, weights, seed, command).
    """
    folder.mkdir(parents=True, exist_ok=True)
    loop = EvaluationLoop(model, data, benchmark, folder, about, companions)
    others = [companion.data for companion in companions]
    trainer.test(loop, datamodule=EvaluationData(data, benchmark, others), verbose=False)
    return {name: value.item() for name, value in trainer.callback_metrics.items()}
