"""Runs a model over a benchmark's gallery through the Lightning Trainer, on one process or many."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import torch

from zoo.evaluation.collect import Collector
from zoo.evaluation.pictures import ranked_sheet
from zoo.evaluation.report import Report, write_json, write_text
from zoo.files import replacing

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.types import Batch

PACKAGES = ("spatial-zoo", "torch", "torchvision", "lightning", "torchmetrics", "hydra-core", "numpy")


class EvaluationData(lightning.LightningDataModule):
    """A data module's gallery and, prepared by rank 0 alone, the ground truth that the benchmark needs of it."""

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
        """Returns this rank's share of the gallery."""
        return self.data.loader(self.data.gallery_split)


class EvaluationLoop(lightning.LightningModule):
    """Embeds the gallery, lets the benchmark score it, and writes what rank 0 found to `folder`."""

    def __init__(self, model: Any, data: Any, benchmark: Any, folder: Path, about: dict[str, Any]) -> None:
        super().__init__()
        self.model, self.data, self.benchmark, self.folder, self.about = model, data, benchmark, folder, about
        self._collector = Collector()

    def on_test_epoch_start(self) -> None:
        """Starts anew."""
        self._collector = Collector()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Keeps the batch's descriptors, baselines and task scores."""
        with torch.autocast(self.device.type, enabled=False):  # descriptors of mixed precision tie and misrank
            vectors: dict[str, Tensor] = {name: rows.float() for name, rows in self.model.descriptors(batch).items()}
        self._collector.add(
            batch.index, {**vectors, **self.benchmark.extra_vectors(batch)}, self.model.task_scores(batch)
        )

    def on_test_epoch_end(self) -> None:
        """Scores on every rank, logs the metrics, writes and prints on rank 0."""
        collected = self._collector.gather(self.device)
        ranks = self.global_rank, self.trainer.world_size
        report = self.benchmark.score(collected, self.data, self.model.descriptor_name, *ranks, self.device)
        self._log(report)
        if self.trainer.is_global_zero:
            write_report(report, self.folder, self.about)
            self._draw(collected, report)

    def _log(self, report: Report) -> None:
        cells = report.own.cells.items()
        values = {f"test/spearman/{method}_{nodes}": cell.mean for (method, nodes), cell in cells}
        values |= {f"test/{name}": value for name, value in report.scores.items()}
        for name, value in values.items():
            self.log(name, value, sync_dist=True)

    def _draw(self, collected: Any, report: Report) -> None:
        benchmark, split = self.benchmark, self.data.gallery_split
        if not benchmark.sheet_queries:
            return
        distances = benchmark.sheet_distances(collected, report.own)
        method, nodes = benchmark.columns[0]
        truth = benchmark.truth(self.data, method, nodes)[: len(distances)]
        label = report.own.label + (", L2-normalised" if report.own.normalised else "")
        titles = (label, f"ground truth (edit distance: {nodes}, {method})")
        sheet = ranked_sheet(
            self.data,
            split,
            distances,
            torch.from_numpy(truth.copy()),
            benchmark.sheet_queries,
            benchmark.sheet_top,
            titles,
        )
        with replacing(self.folder / "contact_sheet.png") as file:
            sheet.save(file, format="PNG")
        for logger in (logger for logger in self.trainer.loggers if hasattr(logger, "log_image")):
            logger.log_image("test/ranked", [sheet])


def evaluate(
    model: Any, data: Any, benchmark: Any, trainer: Any, folder: Path, about: dict[str, Any]
) -> dict[str, float]:
    """Evaluates a model and returns the logged metrics; `folder` receives results.json, table.md, contact_sheet.png.

    `about` goes into results.json beside the environment (model, data, weights, seed, command).
    """
    folder.mkdir(parents=True, exist_ok=True)
    loop = EvaluationLoop(model, data, benchmark, folder, about)
    trainer.test(loop, datamodule=EvaluationData(data, benchmark), verbose=False)
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


def write_report(report: Report, folder: Path, about: dict[str, Any]) -> None:
    """Prints the tables and writes them as Markdown and JSON."""
    tables = report.tables()
    for table in tables:
        table.print()
    write_text(folder / "table.md", "\n".join(table.markdown() for table in tables))
    write_json(folder / "results.json", {**about, **environment(), **report.as_json()})


def environment() -> dict[str, Any]:
    """Returns versions, commit, command and time of this run."""
    return {
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}},
        "commit": _commit(),
        "command": sys.argv,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _commit() -> str | None:
    """Returns the commit of the checkout that this file is tracked in; None from a wheel or without git."""
    here = Path(__file__).resolve().parent
    if shutil.which("git") is None:
        return None
    answer = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    tracked = subprocess.run(
        ["git", "ls-files", "--error-unmatch", __file__], cwd=here, capture_output=True, check=False
    )
    return answer.stdout.strip() if answer.returncode == 0 and tracked.returncode == 0 else None
