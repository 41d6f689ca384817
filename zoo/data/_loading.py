"""Samplers, loaders and the base class of data modules that read named splits in ready-made batches."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby, islice
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from lightning import LightningDataModule
from PIL import Image
from torch.utils.data import DataLoader, DistributedSampler, Sampler

from zoo.checks import check_integers
from zoo.data._pictures import Picture
from zoo.progress import batches_done
from zoo.types import Batch


class BatchDataset(Protocol):
    """A map-style dataset that reads a whole batch at once."""

    def __len__(self) -> int:
        """Returns the number of images."""

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Returns the batch of these positions."""


class UnrepeatedSampler(Sampler[int]):
    """Gives rank r the positions r, r + world, r + 2 * world …: every position once over all ranks, none repeated.

    `DistributedSampler` pads the last round with repeats, which falsifies metrics. A rank may get one position less
    than another, or none at all.
    """

    def __init__(self, size: int, rank: int = 0, world: int = 1) -> None:
        if not 0 <= rank < world:
            raise ValueError(f"rank must lie in 0 … world - 1 = {world - 1}, got {rank}")
        self.positions = range(rank, size, world)

    def __iter__(self) -> Iterator[int]:
        return iter(self.positions)

    def __len__(self) -> int:
        return len(self.positions)


class SameSizeBatches(Sampler[list[int]]):
    """Gives rank r batches of at most `batch_size` positions, in each only positions of one size.

    `sizes` says of each position what its batch must share. Sizes come in the order of their first position, positions
    of a size in order; every position once over all ranks, and none gets more than one position above another.
    """

    def __init__(self, sizes: Sequence[Hashable], batch_size: int, rank: int = 0, world: int = 1) -> None:
        groups: dict[Hashable, list[int]] = {}
        for position, size in enumerate(sizes):
            groups.setdefault(size, []).append(position)
        grouped = [position for members in groups.values() for position in members]
        share = [grouped[place] for place in UnrepeatedSampler(len(grouped), rank, world)]
        self.batches = [
            members[start : start + batch_size]
            for _, same in groupby(share, key=lambda position: sizes[position])
            for members in [list(same)]
            for start in range(0, len(members), batch_size)
        ]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class Draw(int):
    """A position that was drawn for training, with the `epoch` it was drawn for."""

    epoch: int

    def __new__(cls, position: int, epoch: int) -> Draw:
        """Makes the position."""
        draw = super().__new__(cls, position)
        draw.epoch = epoch
        return draw

    def __reduce__(self) -> tuple[type[Draw], tuple[int, int]]:
        """Travels to loader processes."""
        return Draw, (int(self), self.epoch)


class EpochSampler(DistributedSampler):
    """Shuffles by seed and epoch, and tells with every position the epoch.

    So what is drawn at random for an image can depend on seed, epoch and position alone: it is the same in any loader
    process and after a run has been resumed, where the random numbers of a process are not.
    """

    _behind = (0, 0)

    def begin(self, epoch: int, start: int) -> None:
        """Goes on in `epoch`, whose first `start` positions have been drawn."""
        self.set_epoch(epoch)
        self._behind = (epoch, start)

    def __iter__(self) -> Iterator[Draw]:
        epoch, behind = self._behind
        drawn = islice(super().__iter__(), behind if epoch == self.epoch else 0, None)
        return (Draw(position, self.epoch) for position in drawn)


class SplitDataModule(LightningDataModule):
    """Loaders over named splits, sharded over the ranks of the trainer, if there is one.

    A subclass names its `splits`, those that a benchmark searches and that validation uses among them, and gives the
    `dataset` of each, and a `training_dataset` where that differs. `gives` names the fields of `zoo.types.Batch` that
    the batches of `loader` and `selection` fill; `gives_training` says whether there is a loader to train on.
    """

    gives: tuple[str, ...] = ("images",)
    gives_training = True

    splits: tuple[str, ...]
    val_split = "val"

    def __init__(self, *, batch_size: int, num_workers: int) -> None:
        super().__init__()
        check_integers(1, batch_size=batch_size)
        check_integers(0, num_workers=num_workers)
        self.batch_size, self.num_workers = batch_size, num_workers
        self._positions: dict[str, dict[str, int]] = {}
        # UnrepeatedSampler leaves a rank without a batch where there are fewer images than ranks.
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def dataset(self, split: str) -> BatchDataset:
        """Returns the dataset of a split; raises ValueError for another name, RuntimeError before `setup`."""
        raise NotImplementedError

    def training_dataset(self, split: str) -> BatchDataset:
        """Returns the dataset of a split as training sees it; `EpochSampler` draws its positions."""
        return self.dataset(split)

    def loader(self, split: str, batch_size: int | None = None) -> DataLoader:
        """Returns a loader in order, every image once over all ranks; `batch_size` None takes the module's."""
        dataset = self.dataset(split)
        if batch_size is not None:
            check_integers(1, batch_size=batch_size)
        return self._loader(dataset, UnrepeatedSampler(len(dataset), *self._shard()), batch_size or self.batch_size)

    def shuffled_loader(self, split: str, seed: int) -> DataLoader:
        """Returns a loader in an order that depends on `seed` and epoch alone; ranks get equally many images."""
        dataset = self.training_dataset(split)
        return self._loader(dataset, self._epoch_sampler(dataset, shuffle=True, seed=seed), self.batch_size)

    def ids(self, split: str) -> list[str]:
        """Returns the names of a split's images in order."""
        raise NotImplementedError

    def picture(self, split: str, position: int) -> np.ndarray:
        """Returns one image of a split at its own size as (H, W, 3) uint8 RGB."""
        raise NotImplementedError

    def picture_by_id(self, split: str, name: str, box: Sequence[float] | None = None) -> np.ndarray:
        """Returns the image of a name, cut to `box` (x0, y0, x1, y1 px), as (H, W, 3) uint8 RGB.

        Raises ValueError for a name that the split doesn't have.
        """
        picture = self.picture(split, self.position(split, name))
        return picture if box is None else _cut(picture, box, name)

    def position(self, split: str, name: str) -> int:
        """Returns where a name stands in a split; raises ValueError, with how many there are, if it isn't there."""
        if split not in self._positions:
            self._positions[split] = {known: position for position, known in enumerate(self.ids(split))}
        if name not in self._positions[split]:
            raise ValueError(f"split {split!r} of {len(self._positions[split])} images has none called {name!r}")
        return self._positions[split][name]

    def check_split(self, split: str) -> None:
        """Raises ValueError, naming the splits, where `split` is none of them."""
        if split not in self.splits:
            raise ValueError(f"split must be one of {', '.join(self.splits)}, got {split!r}")

    def _epoch_sampler(self, dataset: BatchDataset, **order: Any) -> EpochSampler:
        """Returns this rank's positions of the trainer's epoch, from the batch on at which a resumed run goes on."""
        rank, world = self._shard()
        # Also for a single rank: Lightning calls set_epoch, so a resumed run continues with the order of its epoch.
        sampler = EpochSampler(dataset, world, rank, drop_last=True, **order)
        if self.trainer is not None:
            # Lightning calls set_epoch too, but loader processes have begun by then.
            sampler.begin(getattr(self.trainer, "current_epoch", 0), batches_done(self.trainer) * self.batch_size)
        return sampler

    def _loader(self, dataset: BatchDataset, sampler: Sampler[int], batch_size: int) -> DataLoader:
        return self._load(dataset, sampler=sampler, batch_size=batch_size)

    def _load(self, dataset: BatchDataset, **batches: Any) -> DataLoader:
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return DataLoader(
            dataset,
            **batches,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=on_gpu,
            collate_fn=_as_is,
            # Without a generator of its own every pass would advance the global one, and with it the model's dropout.
            generator=torch.Generator().manual_seed(0),
        )

    def _shard(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)


@contextmanager
def rank_zero_first() -> Iterator[None]:
    """Lets the first process of a training pass before the others, so that they find on disk what it has made.

    Where it fails, they go on all the same, and say so themselves.
    """
    together = dist.is_available() and dist.is_initialized()
    if together and dist.get_rank() > 0:
        dist.barrier()
    try:
        yield
    finally:
        if together and dist.get_rank() == 0:
            dist.barrier()


def check_size(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    """Returns (height, width) in px of one number or two; raises ValueError unless they are positive integers."""
    sides = [value, value] if isinstance(value, int) else value
    if not isinstance(sides, (list, tuple)) or len(sides) != 2:
        raise ValueError(f"{name} must be one integer or [height, width], got {value!r}")
    for side in sides:
        check_integers(1, **{name: side})
    return sides[0], sides[1]


def _cut(pixels: np.ndarray, box: Sequence[float], name: str) -> np.ndarray:
    picture = Image.fromarray(pixels)
    return np.array(Picture(picture, picture.size).cut(box, name))


def _as_is(batch: Batch) -> Batch:
    return batch
