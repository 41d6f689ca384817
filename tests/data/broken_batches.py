"""Data in memory that keep the contract, and such whose batches break a clause of it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch

from zoo.data.base import SplitDataModule
from zoo.types import Batch, PairBatch, ShortlistBatch


class Dots:
    """Pictures of one grey each."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitems__(self, indices):
        index = torch.tensor([int(place) for place in indices])
        return Batch(index, ((index + 1) / 20).float()[:, None, None, None].expand(-1, 3, 5, 6).contiguous())


class Chosen(Dots):
    """Some of them, in the order in which they were asked for."""

    def __init__(self, places):
        super().__init__(len(places))
        self.places = torch.tensor(places)

    def __getitems__(self, indices):
        found = super().__getitems__(indices)
        return replace(found, images=super().__getitems__(self.places[found.index]).images)


class Good(SplitDataModule):
    """Data that keep the contract."""

    splits = ("train", "val", "gallery")
    gallery_split = query_split = "gallery"
    made = Dots

    def __init__(self):
        super().__init__(batch_size=4, num_workers=0)

    def dataset(self, split):
        self.check_split(split)
        return self.made(10)

    def size(self, split):
        return len(self.ids(split))

    def ids(self, split):
        return [f"{split} {place}" for place in range(len(self.dataset(split)))]

    def picture(self, split, position):
        return np.full((5, 6, 3), 255 * position // 20, np.uint8)

    def selection(self, split, names, boxes=None, tolerant=False):
        chosen = Chosen([self.position(split, name) for name in names])
        return self._loader(chosen, self.loader(split).sampler.__class__(len(names), *self._shard()), 4)

    def train_dataloader(self):
        return self.shuffled_loader("train", 0)

    def val_dataloader(self):
        return self.loader("val")


CHANGES = []  # a function itself can't be pickled


class Changed(Dots):
    """Changes every batch."""

    def __init__(self, change, count):
        super().__init__(count)
        self.change = change

    def __getitems__(self, indices):
        return CHANGES[self.change](super().__getitems__(indices))


def with_batches(change):
    """Returns data whose batches are changed."""
    CHANGES.append(change)
    return type("Data", (Good,), {"made": partial(Changed, len(CHANGES) - 1)})


def with_images(change):
    return with_batches(lambda batch: replace(batch, images=change(batch.images)))


def with_fields(**given):
    made = {name: value if callable(value) else (lambda batch, value=value: value) for name, value in given.items()}
    return with_batches(lambda batch: replace(batch, **{name: value(batch) for name, value in made.items()}))


def asked(batch, **changed):
    """Returns the fields of a batch with two questions an image."""
    shape = (len(batch), 2)
    known = {
        "questions": torch.zeros(*shape, 3), "answers": torch.zeros(shape, dtype=torch.int64),
        "question_types": torch.zeros(shape, dtype=torch.int64), "question_type_names": ("a/b",),
    }  # fmt: skip
    return replace(batch, **{**known, **changed})


class Asked(Good):
    question_types = ("a/b",)
    answers = ("yes", "no")


def with_questions(base=Asked, **changed):
    return type("Data", (base,), {"made": with_batches(lambda batch: asked(batch, **_called(changed, batch))).made})


def _called(changed, batch):
    return {name: value(batch) if callable(value) else value for name, value in changed.items()}


class Mapped(Good):
    classes = ("sky", "ground")

    def label_map(self, split, position):
        return np.zeros((5, 6), np.int64)


def with_labels(low, high, **methods):
    def labelled(batch):
        labels = torch.full((len(batch), 5, 6), low)
        labels[:, 0] = high
        return replace(batch, label_map=labels)

    return type("Data", (Mapped,), {"made": with_batches(labelled).made, **methods})


BATCHES = [
    (with_batches(lambda batch: {"images": batch.images}), "batches must be Batch, PairBatch, ShortlistBatch"),
    (with_fields(index=lambda batch: batch.index.int()), r"index must be int64 \(B,\)"),
    (with_fields(index=lambda batch: batch.index + 10), "index must lie in 0 … 9"),
    (with_fields(index=lambda batch: batch.index.flip(0)), "index must hold the positions that were asked for"),
    (with_images(lambda images: images[:1].contiguous()), "images: one row an image, got 1 for 4 images"),
    (with_images(lambda images: images * torch.nan), "images: values must be finite"),
    (with_images(lambda images: (255 * images).byte()), r"images must be float32 \(B, 3, H, W\)"),
    (with_images(lambda images: 255 * images), "images must lie in 0 … 1"),
    (with_images(lambda images: images.movedim(1, 3)), r"images must be float32 \(B, 3, H, W\)"),
    (
        with_fields(original_size=lambda batch: torch.zeros(len(batch), 2).long()),
        r"original_size must be int64 \(B, 2\)",
    ),
    (with_fields(descriptors=lambda batch: torch.zeros(len(batch), 2, 2)), "descriptors must be floating point"),
    (with_fields(distances=lambda batch: torch.zeros(1, len(batch), 1)), r"distances must be \(G, B, B\)"),
    (with_fields(questions=lambda batch: torch.zeros(len(batch), 1, 3)), "all or none, got .*questions"),
    (with_questions(Good), "must name their types in question_types"),
    (with_questions(questions=lambda batch: torch.zeros(len(batch), 2, 3).double()), "float32 vectors or int64 word"),
    (with_questions(questions=lambda batch: torch.zeros(len(batch), 2, 3).long()), "must name their vocabulary"),
    (with_questions(answers=lambda batch: torch.full((len(batch), 2), 2)), "answers must lie in -1 … 1"),
    (with_questions(answers=lambda batch: torch.zeros(len(batch), 1).long()), r"answers must be int64 \(B, S\)"),
    (with_questions(question_types=lambda batch: torch.full((len(batch), 2), -1)), "question_types must lie in 0 … 0"),
    (with_labels(-2, 1), r"label_map must hold -1 … 1, the positions in data\.classes"),
    (with_labels(0, 2), "label_map must hold -1 … 1"),
    (with_labels(0, 0, label_map=lambda self, s, p: np.zeros((5, 6))), r"label_map\(\) must be \(H, W\) int64"),
    (with_labels(0, 0, label_map=lambda self, s, p: np.full((5, 6), 2)), r"label_map\(\) must hold -1 … 1"),
    (with_labels(0, 0, label_map=lambda self, s, p: np.zeros((2, 6), int)), "must be as large as its picture"),
]


def pairs(**changed):
    def made(batch):
        known = {"queries": batch.images, "galleries": batch.images, "objects": batch.index}
        boxes = torch.tensor([[0.0, 0, 4, 4]]).repeat(len(batch), 1)
        return PairBatch(**{"index": batch.index, **known, "boxes": boxes, **_called(changed, batch)})

    return type("Data", (with_batches(made),), {"gives": ("queries", "galleries"), "selection": property()})


def shortlists(**changed):
    def made(batch):
        rows = torch.tensor([[0, 1, 2, -1]]).repeat(len(batch), 1)
        relevant = rows[:, 1:] == 1
        known = {"relevant": relevant, "positives": relevant.sum(1), "rows": rows}
        return ShortlistBatch(**{"index": batch.index, **known, **_called(changed, batch)})

    return type("Data", (with_batches(made),), {"gives": (), "selection": property()})


OTHERS = [
    (
        pairs(boxes=lambda batch: torch.tensor([[0.0, 0, 7, 4]]).repeat(len(batch), 1)),
        "boxes must be x0, y0, x1, y1 in",
    ),
    (pairs(galleries=lambda batch: 2 + batch.images), "galleries must lie in 0 … 1"),
    (pairs(objects=lambda batch: batch.index.float()), "objects must be int64"),
    (shortlists(rows=None), "a shortlist holds rows or descriptors, one of both"),
    (shortlists(relevant=lambda batch: torch.ones(len(batch), 3)), "relevant must be bool"),
    (shortlists(relevant=lambda batch: torch.zeros(len(batch), 2) > 0), "must hold the query and 2 hits"),
    (shortlists(positives=lambda batch: torch.zeros(len(batch)).long()), "positives must count all relevant images"),
    (
        shortlists(relevant=lambda b: torch.ones(len(b), 3) > 0, positives=lambda b: torch.full((len(b),), 3)),
        "relevant must be False where a list has ended",
    ),
    (shortlists(rows=lambda batch: torch.full((len(batch), 4), -1)), "rows must begin with that of the query"),
]
