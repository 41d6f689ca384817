"""Sort-of-CLEVR: coloured squares and circles with questions about single objects and about relations.

Santoro et al. 2017, "A simple neural network module for relational reasoning", section 4; used for retrieval by Messina
et al. 2018.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from zoo.checks import check_integers
from zoo.data._cache import cache_path, ensure_records, open_records
from zoo.data._generator import Recipe, generate_chunks
from zoo.data._loading import BatchDataset, SplitDataModule
from zoo.data._questions import ANSWERS, QUESTION_TYPES
from zoo.data._scenes import COLOURS, has_room
from zoo.data._truth import WithDistances, check_truth
from zoo.progress import progress_bar
from zoo.truth import PackedGraphs, sort_of_clevr_graphs
from zoo.types import Batch

# To be raised with any change of what the generator makes from a recipe: files of another number are left alone.
_FORMAT = 1


class SortOfClevr(SplitDataModule):
    """Sort-of-CLEVR, generated on first use and cached under `root`, one memory-mapped file per split.

    Splits are warmup, train, val, test and gallery; every image of every split has a seed of its own. Batches hold
    `questions (B, S, 11)` with S = 2 * `questions`, the non-relational half first, and `answers` that point into
    `answers`.

    `root` is the cache folder; `objects` the number per image, one integer or a uniform range such as "1-6"; the first
    `warmup_epochs` epochs of training see as many other images, with `warmup_objects` objects;
    `image_size`, `object_size` (half-side, radius) are pixels; `questions` counts each kind, relational and
    non-relational; `truth` lists ground truths nodes/method between the images of a training batch; `batch_size` counts
    images. Raises ValueError for a value outside its range.
    """

    splits = ("warmup", "train", "val", "test", "gallery")
    gallery_split = "gallery"
    question_types = QUESTION_TYPES
    answers = ANSWERS

    def __init__(
        self,
        *,
        root: str,
        train_size: int,
        val_size: int,
        test_size: int,
        gallery_size: int,
        seed: int,
        objects: int | str,
        warmup_objects: int | str,
        warmup_epochs: int,
        image_size: int,
        object_size: int,
        questions: int,
        truth: Sequence[str],
        batch_size: int,
        num_workers: int,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers)
        sizes = (train_size, train_size, val_size, test_size, gallery_size)
        self._sizes = dict(zip(self.splits, sizes, strict=True))
        for split in self.splits[1:]:
            check_integers(1, **{f"{split}_size": self._sizes[split]})
        check_integers(0, seed=seed)
        check_integers(0, warmup_epochs=warmup_epochs)
        check_integers(1, image_size=image_size)
        check_integers(1, object_size=object_size)
        check_integers(1, questions=questions)
        low, high = _parse_objects("objects", objects)
        warm_low, warm_high = _parse_objects("warmup_objects", warmup_objects)
        most = max(high, warm_high)
        if not has_room(most, image_size, object_size):
            raise ValueError(
                f"image_size must leave room for {most} objects of object_size {object_size}, got {image_size}"
            )
        self.root = Path(root).expanduser()
        self.recipe = Recipe(seed, low, high, image_size, object_size, questions)
        self._warmup = replace(self.recipe, low=warm_low, high=warm_high)
        self._warmup_epochs = warmup_epochs
        self.truth = check_truth(truth)
        self._datasets: dict[str, _Records] = {}

    def prepare_data(self) -> None:
        """Generates the splits that the cache lacks, verifies the others and rebuilds the damaged ones."""
        for split in self._used_splits():
            self._ensure(split)

    def setup(self, stage: str | None = None) -> None:
        """Opens every split, verified once per process."""
        for split in self._used_splits():
            if split not in self._datasets:
                self._datasets[split] = _Records(self._ensure(split))

    def train_dataloader(self) -> DataLoader:
        """Returns the shuffled loader of the train split, or of warmup in the first epochs."""
        epoch = self.trainer.current_epoch if self.trainer and self._warmup_epochs else 0
        warm = epoch < self._warmup_epochs
        return self.shuffled_loader("warmup" if warm else "train", self.recipe.seed)

    def val_dataloader(self) -> DataLoader:
        """Returns the loader of the val split, in order; raises ValueError where a rank would stay without an image.

        Validation runs inside DDP, whose first forward pass waits for every rank.
        """
        world = self.trainer.world_size if self.trainer else 1
        if self.size("val") < world:
            raise ValueError(f"val_size must be at least the number of processes {world}, got {self.size('val')}")
        return self.loader("val")

    def test_dataloader(self) -> DataLoader:
        """Returns the loader of the test split, in order."""
        return self.loader("test")

    def size(self, split: str) -> int:
        """Returns the number of images of a split."""
        self.check_split(split)
        return self._sizes[split]

    def ids(self, split: str) -> list[str]:
        """Returns the names of a split's images in order."""
        return [f"{split}_{position:06d}" for position in range(self.size(split))]

    def scene_graphs(self, split: str) -> PackedGraphs:
        """Returns the scene graphs of a split in order."""
        records = self.dataset(split).records
        columns = (records[name] for name in ("colour", "shape", "x", "y", "count"))
        return sort_of_clevr_graphs(*columns, size=self.recipe.image_size)

    def compositions(self, split: str) -> np.ndarray:
        """Returns (N, 6) float32: 1 where a colour is present, 0 elsewhere."""
        colour = self.dataset(split).records["colour"]
        return (colour[:, :, None] == np.arange(len(COLOURS))).any(axis=1).astype(np.float32)

    def picture(self, split: str, position: int) -> np.ndarray:
        """Returns one image as (H, W, 3) uint8 RGB."""
        return self.dataset(split).records["image"][position].transpose(1, 2, 0).copy()

    def dataset(self, split: str) -> _Records:
        """Returns the dataset of a split; raises ValueError for another name, RuntimeError before `setup`."""
        self.check_split(split)
        if split not in self._datasets:
            raise RuntimeError(f"split {split!r} is not open: call prepare_data() and setup() first")
        return self._datasets[split]

    def training_dataset(self, split: str) -> BatchDataset:
        """Returns the dataset of a split as training sees it: with distances if configured."""
        dataset = self.dataset(split)
        return WithDistances(dataset, self.scene_graphs(split), self.truth) if self.truth else dataset

    def _used_splits(self) -> Sequence[str]:
        return self.splits if self._warmup_epochs else self.splits[1:]

    def _recipe(self, split: str) -> Recipe:
        return self._warmup if split == "warmup" else self.recipe

    def _ensure(self, split: str) -> Path:
        size, recipe = self._sizes[split], self._recipe(split)
        parameters = {"format": _FORMAT, "data": "sort_of_clevr", "split": split, "size": size, **asdict(recipe)}
        path = cache_path(self.root, f"{split}_{size}", parameters)
        ensure_records(path, parameters, recipe.dtype, size, partial(self._chunks, split))
        return path

    def _chunks(self, split: str) -> Iterator[np.ndarray]:
        with progress_bar(f"sort_of_clevr {split}", self._sizes[split]) as advance:
            for chunk in generate_chunks(self._recipe(split), split, self._sizes[split]):
                yield chunk
                advance(len(chunk))


class _Records(Dataset):
    """Batches of a cache file; travels to loader processes as a path, since a pickled memory map is a copy."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def records(self) -> np.ndarray:
        return open_records(self._path)

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path}

    def __len__(self) -> int:
        return len(self.records)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        records = self.records[np.asarray(indices)]
        return Batch(
            index=torch.as_tensor(indices),
            images=torch.from_numpy(records["image"]).float().div_(255),
            questions=torch.from_numpy(records["questions"]).float(),
            answers=torch.from_numpy(records["answers"]).long(),
            question_types=torch.from_numpy(records["question_types"]).long(),
            question_type_names=QUESTION_TYPES,
        )


def _parse_objects(name: str, objects: int | str) -> tuple[int, int]:
    """Returns the least and the largest number of objects that the argument `name` stands for."""
    rule = f'{name} must be an integer in 1 … {len(COLOURS)} or a range in it such as "1-{len(COLOURS)}"'
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", str(objects))
    if match is None:
        raise ValueError(f"{rule}, got {objects!r}")
    low, high = int(match[1]), int(match[2] or match[1])
    if not 1 <= low <= high <= len(COLOURS):
        raise ValueError(f"{rule}, got {objects!r}")
    return low, high


export = SortOfClevr
