"""Pairs made by cutting objects out of their photos and pasting them elsewhere.

Chen et al. 2019, "Local similarity with spatial relations for object retrieval", section 3.4; beside them drawn
objects, which need no download, and real pairs from a table.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from zoo.checks import check_flags, check_integers, is_number
from zoo.data._compose import RECIPE, View, checked_recipe
from zoo.data._images import folders_of, named_pictures
from zoo.data._loading import SplitDataModule
from zoo.data._object_sources import check_sources, find_objects
from zoo.data._objects import Masked, Object, Selection
from zoo.data._pair_sets import PairSet, Sides, TrainingPairs, Workshop
from zoo.data._pairs_table import SPLITS
from zoo.data._procedural import numbers
from zoo.files import BadFile

log = logging.getLogger("zoo")

PROCEDURAL = "procedural"
LEAST_AREA = 16  # px; what is smaller may vanish when it is shrunk


class CutPaste(SplitDataModule):
    """Pairs of views of objects, as `PairBatch`; splits train, val and test share no photo, object or background.

    `sources` lists mappings with a `kind` (procedural, masks, coco, photos, pairs or folders), a `weight` (default 1),
    with which its pairs are drawn for training, the kind's own keys, and what of the recipe differs for it; instance
    masks below `min_area` px are left out, all but the largest of a photo too with `one_per_image`. `backgrounds` is
    "procedural", a folder or a list of folders. A photo belongs to test or val by a hash of its name, with probability
    `test_share` or `val_share`, else to train.

    An object has `1 + copies` views: the photo itself, shrunk to `canvas` px, and copies on backgrounds, as `Recipe`
    says of the other parameters; with `fresh` other ones in every epoch of training. A training epoch has
    `pairs_per_epoch` pairs (None: one for each object), val and test have `pairs_per_object` of each. In a batch
    galleries have one size, the mean of their own, at most `gallery_side` px a side, and so have queries with
    `query_side`, up to which `enlarge_queries` enlarges them. `cache_mb` bounds the decoded pixels that each loader
    process keeps. Raises ValueError for a value outside its range.
    """

    splits = SPLITS
    gallery_split = "test"
    gives = ("queries", "galleries")
    gives_pairs = True  # what models that learn from `PairBatch` look for

    def __init__(
        self,
        *,
        sources: Sequence[Mapping[str, Any]],
        min_area: float,
        one_per_image: bool,
        val_share: float,
        test_share: float,
        backgrounds: str | Sequence[str],
        copies: int,
        fresh: bool,
        pairs_per_epoch: int | None,
        pairs_per_object: int,
        canvas: int,
        rotation: float,
        perspective: float,
        scale: Sequence[float],
        enlargement: float,
        jitter: float,
        crop: Sequence[float],
        border: Sequence[float],
        visible: float,
        gallery_side: int,
        query_side: int,
        enlarge_queries: bool,
        cache_mb: int,
        seed: int,
        batch_size: int,
        num_workers: int,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers)
        least = {"copies": 1, "pairs_per_object": 1, "canvas": 32, "gallery_side": 1, "query_side": 1}
        for name, low in {**least, "cache_mb": 0, "seed": 0}.items():
            check_integers(low, **{name: locals()[name]})
        if pairs_per_epoch is not None:
            check_integers(1, pairs_per_epoch=pairs_per_epoch)
        check_flags(one_per_image=one_per_image, fresh=fresh, enlarge_queries=enlarge_queries)
        if not is_number(min_area) or min_area < LEAST_AREA:
            raise ValueError(f"min_area must be a number of at least {LEAST_AREA} px, got {min_area!r}")
        _check_shares(val_share, test_share)
        self.sources = check_sources(sources)
        shared = {name: value for name, value in locals().items() if name in RECIPE}
        checked_recipe(canvas, shared)
        self.recipes = {
            source.name: checked_recipe(canvas, {**shared, **source.recipe}, f" of source {source.name}")
            for source in self.sources
        }
        self.seed, self.copies = seed, copies
        self._selection = Selection(min_area, one_per_image, val_share, test_share)
        self._backgrounds, self._cache = backgrounds, cache_mb * 2**20
        self._fresh, self._pairs = fresh, (pairs_per_epoch, pairs_per_object)
        self._sides = Sides(gallery_side, query_side, enlarge_queries)
        self._objects: dict[str, list[Object]] = {}

    def setup(self, stage: str | None = None) -> None:
        """Finds objects and backgrounds; raises FileNotFoundError, BadFile, or ValueError where there are none."""
        if self._objects:
            return
        found = [item for source in self.sources for item in find_objects(source, self._selection, self.seed)]
        grounds = self._grounds({item.split for item in found})
        self._workshop = Workshop(self.recipes, grounds, self.copies, self.seed, self._cache)
        _check_names([item.name for item in found])
        # Mixed, so that a batch in order holds objects of all sources.
        order = np.argsort([numbers(f"cut_paste order {item.name}", 1)[0] for item in found], kind="stable")
        self._objects = {split: [found[k] for k in order if found[k].split == split] for split in SPLITS}

    def train_dataloader(self) -> DataLoader:
        """Returns the loader of training pairs: their order depends on seed and epoch alone."""
        dataset = self.training_dataset("train")
        # In order: the plan of an epoch is shuffled already, with different objects beside one another.
        return self._loader(dataset, self._epoch_sampler(dataset, shuffle=False), self.batch_size)

    def val_dataloader(self) -> DataLoader:
        """Returns the loader of the val pairs, always the same; raises ValueError where a rank would stay without."""
        world = self.trainer.world_size if self.trainer else 1
        pairs = len(self.dataset("val"))
        if pairs < world:
            raise ValueError(f"split 'val' must have a pair for each of {world} processes, got {pairs}")
        return self.loader("val")

    def test_dataloader(self) -> DataLoader:
        """Returns the loader of the test pairs."""
        return self.loader("test")

    def dataset(self, split: str) -> PairSet:
        """Returns the fixed pairs of a split; raises ValueError for another name or an empty split."""
        return PairSet(self._workshop, self._some(split), self._pairs[1], self._sides)

    def training_dataset(self, split: str) -> TrainingPairs:
        """Returns the pairs of a split as `EpochSampler` draws them; raises ValueError for an empty split."""
        objects = self._some(split)
        sources = []
        for source in self.sources:
            own = [k for k, item in enumerate(objects) if item.source == source.name]
            if own:
                sources.append((source.weight, np.array(own)))
            else:
                log.warning("sources: %s has no object in split %s", source.name, split)
        shared = (self._workshop, objects, 1, self._sides)
        return TrainingPairs(*shared, sources=sources, length=self._pairs[0] or len(objects), fresh=self._fresh)

    def objects(self, split: str) -> list[Object]:
        """Returns a split's objects; raises ValueError for another name, RuntimeError before `setup`."""
        self.check_split(split)
        if not self._objects:
            raise RuntimeError(f"split {split!r} is not open: call setup() first")
        return self._objects[split]

    def views(self, split: str) -> dict[str, tuple[Object, int]]:
        """Returns the pictures of a split by name: an object that it shows, and which of its views it is.

        Copies are called `OBJECT_VARIANT`; the original is the photo, which its objects share, `SOURCE-PHOTO_0`.
        """
        found: dict[str, tuple[Object, int]] = {}
        for item in self.objects(split):
            for variant in range(self.variants(item)):
                found.setdefault(self.view_name(item, variant), (item, variant))
        return found

    def view(self, item: Object, variant: int) -> View:
        """Returns a view of an object as val and test show it: 0 the original, 1 … `copies` those on backgrounds."""
        return self._workshop.view(item, variant)

    def view_name(self, item: Object, variant: int) -> str:
        """Returns what the picture of a view is called."""
        shared = isinstance(item, Masked) and variant == 0
        return f"{item.photo if shared else item.name}_{variant}"

    def variants(self, item: Object) -> int:
        """Returns how many views an object has; of real pairs two a pair, its query and its positive."""
        return self._workshop.variants(item)

    def size(self, split: str) -> int:
        """Returns the number of pictures of a split."""
        return len(self.views(split))

    def ids(self, split: str) -> list[str]:
        """Returns the names of a split's pictures in order."""
        return list(self.views(split))

    def picture(self, split: str, position: int) -> np.ndarray:
        """Returns a whole picture as (H, W, 3) uint8 RGB."""
        return np.array(self.view(*list(self.views(split).values())[position]).picture)

    def _some(self, split: str) -> list[Object]:
        if not self.objects(split):
            raise BadFile(
                f"split '{split}' must have an object, got none: add sources, or change data.val_share, "
                "data.test_share (a table of pairs may say it itself, in its column split)"
            )
        return self.objects(split)

    def _grounds(self, splits: set[str]) -> dict[str, list] | None:
        if self._backgrounds == PROCEDURAL:
            return None
        named = named_pictures("backgrounds", folders_of("backgrounds", self._backgrounds), "path")
        grounds: dict[str, list] = {split: [] for split in SPLITS}
        for name, path in named.items():
            grounds[self._selection.split(name)].append(path)
        for split in splits:
            if not grounds[split]:
                raise BadFile(
                    f"backgrounds must have an image for split '{split}', got none of {len(named)}: add some, or "
                    "change data.val_share, data.test_share"
                )
        return grounds


def _check_names(names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"sources must name every object differently, got {twice[0]} twice: rename its photo")


def _check_shares(val: float, test: float) -> None:
    for name, share in (("val_share", val), ("test_share", test)):
        if not isinstance(share, int | float) or not 0 <= share < 1:
            raise ValueError(f"{name} must be a share in [0, 1), got {share!r}")
    if val + test >= 1:
        raise ValueError(f"val_share + test_share must leave something to train, got {val} + {test}")


export = CutPaste
