"""Fits what isn't trained by gradient (PCA, whitening, k-means) on one process, for all, and writes the weights."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import lightning
import torch
import torch.distributed as dist
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data import DataLoader

from zoo import checkpoints
from zoo.commands._ending import usage_errors
from zoo.progress import progress_bar
from zoo.registry import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from omegaconf import DictConfig

    from zoo.types import Batch

log = logging.getLogger("zoo")

_PATIENCE = timedelta(days=30)  # for which the other processes wait for the one that fits


class Images:
    """The batches of a split in order, as often as they are gone through, without the files that can't be read.

    `shown` shows a bar of each pass on stderr. A pass ends with SIGTERMException once `trainer` was told to stop:
    Lightning itself would look only after its single step.
    """

    def __init__(self, data: Any, split: str, shown: bool, trainer: Any) -> None:
        self.data, self.split, self.shown, self.trainer = data, split, shown, trainer
        self.ids = data.ids(split)
        self.unreadable: dict[int, str] = {}

    def __iter__(self) -> Iterator[Batch]:
        with progress_bar("fitting", len(self.ids), "images", self.shown) as advance:
            for batch in self._loader():
                if self.trainer.received_sigterm:
                    raise SIGTERMException
                for position, reason in batch.unreadable:
                    if position not in self.unreadable:
                        log.warning("left out: %s", reason)
                    self.unreadable[position] = reason
                if len(batch):
                    yield batch
                advance(len(batch) + len(batch.unreadable))

    @property
    def readable(self) -> int:
        """Returns the number of images that were there in the last pass."""
        return len(self.ids) - len(self.unreadable)

    def _loader(self) -> DataLoader:
        if hasattr(self.data, "selection"):
            return self.data.selection(self.split, self.ids, tolerant=True)
        return self.data.loader(self.split)


class FittingLoop(lightning.LightningModule):
    """Lets rank 0 fit a model on all images and write it; all ranks leave with the same statistics."""

    def __init__(self, model: Any, images: Images, labels: Sequence[str] | None, paths: Sequence[Path]) -> None:
        super().__init__()
        self.model, self.images, self.labels, self.paths = model.eval(), images, labels, paths

    def test_dataloader(self) -> DataLoader:
        """Returns a single step, so that the Trainer starts the processes and moves the model."""
        return DataLoader(range(1))

    # Tensors of inference mode could be changed by nobody later.
    @torch.inference_mode(False)
    @torch.no_grad()
    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Fits on rank 0; where that fails, raises on every rank."""
        error = self._fit() if self.trainer.is_global_zero else None
        if self.trainer.world_size > 1:
            error, self.model.registered = _told([error, self.model.registered])
        if error is not None:
            raise error
        for value in self.model.state_dict().values() if self.trainer.world_size > 1 else ():
            dist.broadcast(value, src=0)

    def _fit(self) -> Exception | None:
        try:
            with torch.autocast(self.device.type, enabled=False):
                self.model.fit_statistics(self.images, self.labels)
            self._save()
        except (ValueError, OSError) as error:
            return UsageError(f"model '{self.model.registered['name']}': {error}")
        except Exception as error:  # whatever it is, the others must not wait for it
            return error
        return None

    def _save(self) -> None:
        data = self.images.data.registered
        told = {"data": data["name"], "parameters": data["parameters"], "split": self.images.split}
        self.model.registered["fitted_on"] = {**told, "images": self.images.readable}
        for path in self.paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            checkpoints.save_weights(self.model, path)


def open_data(model: Any, data: Any) -> None:
    """Opens the images that statistics are fitted on; UsageError where there are too few, or no labels."""
    with usage_errors():
        data.prepare_data()
        data.setup("test")
        model.check_fitting(len(data.ids(_split(data))), _labels(data))


def fit(cfg: DictConfig, model: Any, data: Any, trainer: Any, run_dir: Path, names: Sequence[str]) -> Path:
    """Fits a model on opened data and writes checkpoints/NAME.safetensors for each name; returns the last one's path.

    Other processes than those that the Trainer keeps don't see the fitted model: read it from there.
    """
    paths = [run_dir / "checkpoints" / f"{name}.safetensors" for name in names]
    data.trainer = None  # one process sees all images, not its share
    images = Images(data, _split(data), shown=cfg.trainer.enable_progress_bar, trainer=trainer)
    log.info("fitting the statistics of %s on %s images", model.registered["name"], f"{len(images.ids):,}")
    bar = trainer.progress_bar_callback
    if bar is not None:
        bar.disable()  # it would count a single step
    trainer.test(FittingLoop(model, images, _labels(data), paths), verbose=False)
    return paths[-1]


def _split(data: Any) -> str:
    """Returns the split to fit on: that of training, where there is one."""
    named = getattr(data, "train_split", "train")
    return named if named in data.splits else data.gallery_split


def _labels(data: Any) -> Sequence[str] | None:
    if not hasattr(data, "labels"):
        return None
    try:
        return data.labels(_split(data))
    except ValueError:  # a single folder without a table
        return None


def _told(what: list[Any]) -> list[Any]:
    """Returns on all ranks what rank 0 says, which may come only after hours."""
    group = dist.new_group(backend="gloo", timeout=_PATIENCE)
    dist.broadcast_object_list(what, src=0, group=group, device=torch.device("cpu"))
    return what
