"""CLEVR: rendered scenes with their scene graphs and questions.

Johnson et al. 2017, "CLEVR: a diagnostic dataset for compositional language and elementary visual reasoning"; used for
retrieval by Messina et al. 2018. Reads the tree of version 1.0 and what is laid out like it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zoo.checks import check_flags, check_integers
from zoo.data._clevr_files import Pattern, split_parts
from zoo.data._clevr_questions import QUESTION_TYPES
from zoo.data._clevr_scenes import compositions
from zoo.data._clevr_split import ClevrSplit, Jittered, open_split
from zoo.data._loading import BatchDataset, SplitDataModule, check_size
from zoo.data._pictures import open_picture
from zoo.data._truth import WithDistances, check_truth
from zoo.files import BadFile
from zoo.vocabulary import vocabulary as named_vocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.utils.data import DataLoader

    from zoo.truth import PackedGraphs


class Clevr(SplitDataModule):
    """CLEVR images, each with its scene graph and all its questions, where a split has them.

    A split's images are those of its scenes file that exist, in its order, or without scenes all of them, sorted.
    Batches hold `questions (B, S, T)` as word ids of `vocabulary`, and `answers` that point into `answers`. Splits are
    read when they are first needed, large files once: what is kept of them goes to `cache`.

    `images`, `scenes`, `questions` are paths below `root`, {split} standing for the split; null where there are none; a
    list joins trees (then names begin with the tree's number), a mapping gives each split its own. `limit` keeps a
    split's first so many images; trees behind them aren't opened. `image_size` is px, one number or height, width.
    `augment` shifts and turns training images as the paper's public code does. `truth` lists ground truths nodes/method
    between the images of a training batch. `seed` decides order and augmentation in training. Raises ValueError for a
    value outside its range.
    """

    question_types = QUESTION_TYPES

    def __init__(
        self,
        *,
        root: str,
        images: Pattern,
        scenes: Pattern,
        questions: Pattern,
        gallery_split: str,
        train_split: str,
        val_split: str,
        limit: int | None,
        image_size: int | Sequence[int],
        augment: bool,
        vocabulary: str,
        truth: Sequence[str],
        seed: int,
        cache: str,
        batch_size: int,
        num_workers: int,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers)
        if limit is not None:
            check_integers(1, limit=limit)
        check_integers(0, seed=seed)
        check_flags(augment=augment)
        self.gallery_split, self.train_split, self.val_split = gallery_split, train_split, val_split
        self.splits = tuple(dict.fromkeys((train_split, val_split, gallery_split)))
        self.root, self.cache = Path(root).expanduser(), Path(cache).expanduser()
        self._parts = {split: split_parts(self.root, split, images, scenes, questions) for split in self.splits}
        self.limit, self.image_size = limit, check_size("image_size", image_size)
        self.augment, self.truth, self.seed = augment, check_truth(truth), seed
        self.vocabulary = named_vocabulary(vocabulary)
        self.answers = self.vocabulary.answers
        self._opened: dict[str, ClevrSplit] = {}

    def prepare_data(self) -> None:
        """Reads what the trainer will use, so that one process alone makes the cache."""
        self.setup("fit" if self.trainer is not None and self.trainer.state.fn == "fit" else "test")

    def setup(self, stage: str | None = None) -> None:
        """Opens the splits of a stage: train and val for "fit", the gallery for any other.

        Raises FileNotFoundError for a missing file or folder, BadFile for one that is damaged or something else, or
        where `truth` is to be computed in a split of "fit" that has no scene graphs.
        """
        for split in (self.train_split, self.val_split) if stage == "fit" else (self.gallery_split,):
            self.dataset(split)
            if stage == "fit" and self.truth and not self.has_scene_graphs(split):
                # Without scenes of val there is no val/spearman, and a trainer that watches it fails after an epoch.
                words = ", ".join(map("/".join, self.truth))
                raise BadFile(
                    f"truth must be [] where split '{split}' has no scene graphs, got [{words}] and scenes "
                    f"{self._scenes_files(split)}: training compares the train split with it, and validation ranks the "
                    "val split by it; set data.scenes, or data.truth=[] to train without"
                )

    def train_dataloader(self) -> DataLoader:
        """Returns the shuffled loader of the train split, augmented and with distances as configured."""
        return self.shuffled_loader(self.train_split, self.seed)

    def val_dataloader(self) -> DataLoader:
        """Returns the loader of the val split, in order; raises ValueError where a rank would stay without an image.

        Validation runs inside DDP, whose first forward pass waits for every rank.
        """
        world, size = self.trainer.world_size if self.trainer else 1, self.size(self.val_split)
        if size < world:
            raise ValueError(f"split '{self.val_split}' must have an image for each of {world} processes, got {size}")
        return self.loader(self.val_split)

    def test_dataloader(self) -> DataLoader:
        """Returns the loader of the gallery, in order."""
        return self.loader(self.gallery_split)

    def size(self, split: str) -> int:
        """Returns the number of images of a split."""
        return len(self.dataset(split))

    def ids(self, split: str) -> list[str]:
        """Returns the names of a split's images in order: file names without suffix, "tree/name" in a joined split."""
        return list(self.dataset(split).names)

    def has_scene_graphs(self, split: str) -> bool:
        """Tells whether every image of a split has its scene graph."""
        return self.dataset(split).graphs is not None

    def scene_graphs(self, split: str) -> PackedGraphs:
        """Returns the scene graphs of a split in order; raises BadFile where it has none."""
        graphs = self.dataset(split).graphs
        if graphs is None:
            raise BadFile(
                f"split '{split}' has no scene graphs: scenes must name a CLEVR scenes file that exists, got "
                f"{self._scenes_files(split)}; fetch it or set data.scenes"
            )
        return graphs

    def compositions(self, split: str) -> np.ndarray:
        """Returns (N, 15) float32: how many objects have each colour (8), shape (3), material (2) and size (2)."""
        return compositions(self.scene_graphs(split))

    def picture(self, split: str, position: int) -> np.ndarray:
        """Returns one image at its own size as (H, W, 3) uint8 RGB."""
        return np.array(open_picture(self.dataset(split).files.paths[position], upright=False))

    def dataset(self, split: str) -> ClevrSplit:
        """Returns the dataset of a split, read on first use; raises ValueError for another name, errors of `setup`."""
        self.check_split(split)
        if split not in self._opened:
            self._opened[split] = open_split(
                split, self._parts[split], self.image_size, self.vocabulary, self.limit, self.cache
            )
        return self._opened[split]

    def training_dataset(self, split: str) -> BatchDataset:
        """Returns the dataset of a split as training sees it."""
        dataset = self.dataset(split)
        if self.augment:
            dataset = Jittered(dataset, f"{self.seed}/{split}/jitter")
        return WithDistances(dataset, self.scene_graphs(split), self.truth) if self.truth else dataset

    def _scenes_files(self, split: str) -> str:
        return ", ".join(str(part.scenes or "null (data.scenes)") for part in self._parts[split])


export = Clevr
