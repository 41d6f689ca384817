"""Data in memory whose modules break a clause of the contract."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from broken_batches import Dots, Good, with_images
from torch.utils.data import DataLoader, DistributedSampler, RandomSampler

from zoo.truth.regroup import from_labels


def data(**members):
    return type("Data", (Good,), members)


def loader(self, split, batch_size=None, **changed):
    """Loads as the base does, but for what is changed."""
    size = self.batch_size if batch_size is None else batch_size
    if size is True or size < 1:
        raise ValueError("batch_size")
    return DataLoader(self.dataset(split), **{"batch_size": size, "collate_fn": lambda batch: batch, **changed})


class Repeating(Good):
    """Pads the last round, as DistributedSampler does."""

    def loader(self, split, batch_size=None):
        sampler = DistributedSampler(self.dataset(split), self._shard()[1], self._shard()[0], shuffle=False)
        return loader(self, split, batch_size, sampler=sampler)


class Unlike(Dots):
    """Draws from the global random numbers."""

    def __getitems__(self, indices):
        found = super().__getitems__(indices)
        return replace(found, images=torch.rand(found.images.shape))


class Counted(Dots):
    """Shows other pictures with every data set that is made."""

    sets = 0

    def __init__(self, count):
        super().__init__(count)
        Counted.sets += 1
        self.number = Counted.sets

    def __getitems__(self, indices):
        found = super().__getitems__(indices)
        return replace(found, images=found.images / self.number)


class Local(Dots):
    def __init__(self, count):
        super().__init__(count)
        self.read = lambda: None


class Lost(Dots):
    """Travels without what it holds."""

    seen = 1.0

    def __init__(self, count):
        super().__init__(count)
        self.seen = 0.5

    def __getstate__(self):
        return {"count": self.count}

    def __getitems__(self, indices):
        found = super().__getitems__(indices)
        return replace(found, images=found.images * self.seen)


def neighbours(images):
    return images / (1 + images.amax())


class Ordered(Good):
    """Trains in another order every time."""

    def train_dataloader(self):
        order = RandomSampler(self.dataset("train"), generator=torch.Generator())
        order.generator.seed()
        return loader(self, "train", sampler=order)


class Shared(Good):
    """Lets all processes train on the same."""

    def train_dataloader(self):
        return self.loader("train") if self._shard() == (0, 1) else loader(self, "train")


class Uneven(Good):
    """Gives one process more batches than the other."""

    def train_dataloader(self):
        self.batch_size = 1
        return self.loader("train") if self._shard()[1] == 1 else loader(self, "train", sampler=self._own())

    def _own(self):
        rank = self._shard()[0]
        return [0] if rank else [1, 2, 3]


class Resumed(Good):
    """Begins a resumed run with the first epoch."""

    def train_dataloader(self):
        found = self.shuffled_loader("train", 0)
        found.sampler.set_epoch(0)
        return found


def truth(**changed):
    def ground_truth(self):
        return replace(from_labels(self.ids("gallery"), ["a", "b"] * 5), **changed)

    return data(ground_truth=ground_truth)


MODULES = [
    (object, "must derive from LightningDataModule"),
    (data(loader=property()), "must have loader"),
    (data(splits=()), "splits must name at least one split"),
    (data(gallery_split="test"), r"gallery_split must be one of splits .*, got 'test'"),
    (data(query_split="query"), r"query_split must be one of splits"),
    (data(gives=("pictures",)), r"gives must be among .*, got \['pictures'\]"),
    (data(gives=("images", "descriptors")), "batches must fill what `gives` names, descriptors is None"),
    (data(ids=lambda self, split: list(range(10))), "must be the names of its images, texts"),
    (data(ids=lambda self, split: ["a"] * 10), "must name every image differently, 'a' comes again"),
    (
        data(ids=lambda self, split: [f"{place}" for place in range(10)]),
        r"ids\(\) of a split that isn't there must raise",
    ),
    (data(size=lambda self, split: 3), r"size\('gallery'\) must be 10, got 3"),
    (data(path=lambda self, split, name: f"/nowhere/{name}"), r"path\(\) must name the file of an image"),
    (data(dataset=lambda self, split: Dots(10), ids=Good.ids), r"of a split that isn't there must raise ValueError"),
    (data(loader=lambda self, split: (self.check_split(split), [1])[1]), r"loader\(\) must return a DataLoader"),
    (data(loader=lambda self, split, size=None: Good.loader(self, split)), "batch_size=0 must raise ValueError"),
    (Repeating, "loader: over 3 processes every position must come once"),
    (data(made=Unlike), "a loader must leave the global random numbers alone"),
    (data(made=Counted), "the same data, built again, must give the same batches"),
    (data(made=Local), "the data set must travel to loader processes by pickle"),
    (data(made=Lost), "a pickled data set must give the same batches"),
    (with_images(neighbours), "an image must not depend on its batch"),
    (data(picture=lambda self, s, p: np.zeros((5, 6))), r"picture\(\) must be \(H, W, 3\) uint8 RGB"),
    (data(picture_by_id=lambda self, s, n, box=None: np.zeros((5, 6, 3))), "picture_by_id must show the image of the"),
    (data(picture_by_id=lambda self, s, n, b=None: self.picture(s, 9)), "of a name that isn't there must raise"),
    (data(picture_by_id=lambda self, s, n, b=None: self.picture(s, self.position(s, n))), "must cut to a box"),
    (data(selection=lambda self, split, names: self.loader(split)), "index must lie in 0 … 2"),
    (
        data(selection=lambda self, s, names: Good.selection(self, s, names[:2])),
        "index must be the position in the names",
    ),
    (
        data(selection=lambda self, s, names: Good.selection(self, s, [*names[1:], names[0]])),
        "must be those of the names",
    ),
    (data(selection=lambda self, s, n: Good.selection(self, s, n if "such" not in n[0] else [])), "isn't there must"),
    (data(labels=lambda self, split: ["a"]), r"labels\(\) must be one text an image, got 1 for 10"),
    (data(payloads=lambda self, split, names: []), r"payloads\(\) must be one mapping a name, got 0"),
    (data(payloads=lambda self, split, names: [{"x": np.float32(1)} for _ in names]), "mappings of plain values"),
    (data(payloads=lambda self, s, names: [{"n": n} for n in sorted(names)]), "must be in the order of the names"),
    (
        data(ground_truth=lambda self: {}),
        r"ground_truth\(\) must return RelevanceLists of zoo\.truth or None, got dict",
    ),
    (truth(query_images=("a",) * 10), "must ask with images of the query split"),
    (data(gives_training=False), r"train_dataloader\(\) of data that says nothing to train on must raise Not"),
    (Ordered, "what training sees first must depend on the seed alone"),
    (Uneven, "two processes must train on equally many batches, got"),
    (Shared, "two processes must train on different positions"),
    (Resumed, "a resumed epoch must be what it would have been"),
    (
        data(val_dataloader=lambda self: loader(self, "val")),
        "val_dataloader: over 2 processes every position must come",
    ),
]
