"""Embeds images that a features folder lacks, through the Lightning Trainer, on one process or many."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import lightning
import torch.distributed as dist

from zoo.files import replacing
from zoo.search._features_join import to_original
from zoo.search._features_shards import ShardWriter
from zoo.search._names import named
from zoo.search.features import SHARDS, UNREADABLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from zoo.types import Batch

log = logging.getLogger("zoo")


@dataclass
class Share:
    """What one process has done: `unreadable` holds (id, reason) pairs."""

    images: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)


class EmbeddingLoop(lightning.LightningModule):
    """Writes the representations of images as shards; `payloads` says of each id what is kept beside it.

    Width and height of the original are added to a payload, and pixels turned into those of the original.
    """

    def __init__(
        self,
        model: Any,
        ids: Sequence[str],
        payloads: Mapping[str, Mapping[str, Any]],
        folder: Path,
        run: int,
        size: int,
    ) -> None:
        super().__init__()
        self.model, self.ids, self.payloads = model, ids, payloads
        self.folder, self._run, self._size = folder, run, size
        self.share = Share()

    def on_test_start(self) -> None:
        """Begins this process' shards."""
        self.writer = ShardWriter(self.folder / SHARDS, self._run, self.global_rank, self._size)
        self._start = time.perf_counter()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Embeds a batch; names the files that could not be read and goes on."""
        for position, reason in batch.unreadable:
            self.share.unreadable.append((self.ids[position], reason))
            log.warning("left out: %s", reason)
        if not len(batch):
            return
        items = to_original(self.model.represent(batch, "gallery"), batch.images.shape[2:], batch.original_size)
        ids = [self.ids[position] for position in batch.index.tolist()]
        sizes = batch.original_size.tolist()
        payloads = [
            {**self.payloads[id_], "width": width, "height": height}
            for id_, (height, width) in zip(ids, sizes, strict=True)
        ]
        self.writer.add(ids, items, payloads)
        self.share.images += len(batch)

    def on_test_epoch_end(self) -> None:
        """Writes the last shards; rank 0 writes unreadable.txt and says what all did."""
        self.writer.flush()
        shares = [self.share]
        if dist.is_available() and dist.is_initialized():
            shares = [None] * self.trainer.world_size
            dist.all_gather_object(shares, self.share)
        if self.trainer.is_global_zero:
            write_unreadable(self.folder, [pair for share in shares for pair in share.unreadable])
            images, seconds = sum(share.images for share in shares), time.perf_counter() - self._start
            log.info("embedded %s images in %.1f s, %.1f a second", f"{images:,}", seconds, images / max(seconds, 1e-9))


class KeepFinished(lightning.Callback):
    """Writes what was embedded so far when a run is stopped (Ctrl-C) or fails."""

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Writes the shard that isn't full yet."""
        if getattr(pl_module, "writer", None) is not None:
            pl_module.writer.flush()


class ImagesProgress(lightning.Callback):
    """Shows on stderr how many images are done, of how many, how fast and for how long still; rank 0 alone."""

    def __init__(self, total: int) -> None:
        self._total, self._progress = total, None

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """Shows the bar."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        if not trainer.is_global_zero:
            return
        rate = TextColumn("{task.fields[rate]:.1f} images/s")
        columns = (TextColumn("embedding"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
        console = Console(stderr=True)
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=self._total, rate=0.0)
        self._progress.start()
        self._start = time.perf_counter()

    def on_test_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Counts the batch, those of the other processes being about as many."""
        if self._progress is not None:
            share = pl_module.share
            done = min(self._total, (share.images + len(share.unreadable)) * trainer.world_size)
            rate = done / (time.perf_counter() - self._start)
            self._progress.update(self._task, completed=done, rate=rate)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Takes the bar down."""
        self._stop()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Takes the bar down."""
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()


class Selected(lightning.LightningDataModule):
    """The named images of a data module's split, unreadable ones reported instead of raised."""

    def __init__(self, data: Any, split: str, ids: Sequence[str]) -> None:
        super().__init__()
        self.data, self._split, self._ids = data, split, ids
        self.allow_zero_length_dataloader_with_multiple_devices = True  # more processes than images is no error

    def setup(self, stage: str) -> None:
        """Opens the data on every rank."""
        self.data.trainer = self.trainer
        self.data.setup("test")

    def test_dataloader(self) -> Any:
        """Returns this rank's share of the images."""
        return self.data.selection(self._split, self._ids, tolerant=True)


def write_unreadable(folder: Path, pairs: Sequence[tuple[str, str]]) -> None:
    """Writes a line for each image that could not be read, sums them up in a warning; no file where there are none."""
    path = folder / UNREADABLE
    if not pairs:
        path.unlink(missing_ok=True)
        return
    lines = sorted(f"{id_}\t{' '.join(reason.split())}\n" for id_, reason in pairs)
    with replacing(path) as file:
        file.write("".join(lines).encode("utf-8", "surrogateescape"))
    log.warning("%d images could not be read (%s): see %s", len(pairs), named([id_ for id_, _ in pairs]), path)
