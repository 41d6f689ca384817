"""Pairs of views of objects: made from objects and backgrounds, planned for training and for validation, in batches."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from zoo.data._compose import DRAWS, SOLID, CutOut, Recipe, View, cut_out, extent, paste
from zoo.data._objects import Gathered, Masked, Object, Photographed
from zoo.data._pictures import read_picture, rectangle, resized, stacked
from zoo.data._procedural import drawn_ground, numbers
from zoo.types import PairBatch

_ASPECTS = (0.65, 1.0)  # shorter by longer side of a drawn ground


class Cached:
    """Keeps what was made last, up to `limit` bytes; travels to loader processes empty."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._kept: OrderedDict[Any, tuple[Any, int]] = OrderedDict()
        self._held = 0

    def __reduce__(self) -> tuple[type[Cached], tuple[int]]:
        return Cached, (self.limit,)

    def get(self, key: Any, make: Callable[[], tuple[Any, int]]) -> Any:
        """Returns what `make` gave for a key, a value and its bytes."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][0]
        value, size = make()
        self._kept[key] = value, size
        self._held += size
        while self._held > self.limit and len(self._kept) > 1:
            self._held -= self._kept.popitem(last=False)[1][1]
        return value


class Workshop:
    """Makes the views of objects: view 0 is the original, the others are pasted on a background.

    `recipes` are those of the sources by name, `backgrounds` a split's files, None where grounds are drawn. What a view
    looks like depends on seed, split, object, view and, where the caller names one, the moment; on nothing else.
    """

    def __init__(
        self,
        recipes: Mapping[str, Recipe],
        backgrounds: Mapping[str, Sequence[Path]] | None,
        copies: int,
        seed: int,
        cache: int,
    ) -> None:
        self.recipes, self.backgrounds, self.copies, self.seed = recipes, backgrounds, copies, seed
        self.canvas = next(iter(recipes.values())).canvas
        self._cache = Cached(cache)

    def pair(self, item: Object, stream: str, turn: int = 0) -> tuple[int, int]:
        """Returns two views of an object, the query's and the gallery's, as a stream of numbers decides."""
        draws = numbers(f"cut_paste {self.seed} pair {item.split} {item.name} {stream}", 2)
        if isinstance(item, Photographed):
            row = (int(draws[0] * len(item.rows)) + turn) % len(item.rows)
            return 2 * row, 2 * row + 1
        others = self.variants(item) - 1
        query, gallery = int(draws[0] * (1 + others)), int(draws[1] * others)
        return query, gallery + (gallery >= query)

    def variants(self, item: Object) -> int:
        """Returns how many views an object has; of real pairs two a pair, its query and its positive."""
        if isinstance(item, Photographed):
            return 2 * len(item.rows)
        return len(item.photos) if isinstance(item, Gathered) else 1 + self.copies

    def view(self, item: Object, variant: int, moment: str = "") -> View:
        """Returns a view; raises BadFile where a file can't be used."""
        if isinstance(item, Photographed):
            return self._photographed(item, variant)
        if isinstance(item, Gathered):
            picture = read_picture(item.photos[variant], upright=True).pixels
            return View(picture, (0, 0, *picture.size))
        if variant == 0 and isinstance(item, Masked):
            return self._cache.get((item.name, 0), lambda: self._original(item))
        recipe = self.recipes[item.source]
        recipe = recipe if variant else recipe.plain()
        stream = f"cut_paste {self.seed} {item.split} {item.name} {variant} {moment if variant else ''}"
        draws = numbers(stream, DRAWS + 2)
        cutout = self._cache.get(item.name, lambda: self._cut_out(item))
        return paste(cutout, self._background(item.split, stream, draws[DRAWS:]), recipe, draws[:DRAWS])

    def _photographed(self, item: Photographed, variant: int) -> View:
        row = item.rows[variant // 2]
        image, box = (row.positive, row.positive_box) if variant % 2 else (row.query, row.query_box)
        picture = read_picture(item.root / image, upright=True).pixels
        return View(picture, rectangle(box or (0, 0, *picture.size), picture.size, item.root / image))

    def _original(self, item: Masked) -> tuple[View, int]:
        picture, mask = item.layers()
        share = self.canvas / max(picture.size)
        if share < 1:
            size = tuple(max(1, round(side * share)) for side in picture.size)
            picture, mask = resized(picture, size), resized(mask, size)
        box = extent(np.asarray(mask) >= SOLID) or mask.getbbox()
        return View(picture, box), 3 * picture.width * picture.height

    def _cut_out(self, item: Object) -> tuple[CutOut, int]:
        found = cut_out(*item.layers(), self.canvas)
        return found, 4 * found.mask.width * found.mask.height

    def _background(self, split: str, stream: str, draws: np.ndarray) -> Image.Image:
        if self.backgrounds is not None:
            path = self.backgrounds[split][int(draws[0] * len(self.backgrounds[split]))]
            return self._cache.get(path, lambda: self._ground(path))
        sides = self.canvas, round(self.canvas * (_ASPECTS[0] + draws[1] * (_ASPECTS[1] - _ASPECTS[0])))
        return drawn_ground(stream, sides if draws[0] < 0.5 else sides[::-1])

    def _ground(self, path: Path) -> tuple[Image.Image, int]:
        picture = read_picture(path, upright=True).pixels
        share = self.canvas / max(picture.size)
        picture = resized(picture, tuple(max(1, round(side * share)) for side in picture.size))
        return picture, 3 * picture.width * picture.height


class Sides(NamedTuple):
    """Longest sides in px of a batch's galleries and queries, and whether smaller queries are enlarged to theirs."""

    gallery: int
    query: int
    enlarge: bool


class PairSet(Dataset):
    """Pairs of a split in a fixed order: `turns` pairs of every object, the first of each before any second."""

    def __init__(self, workshop: Workshop, objects: Sequence[Object], turns: int, sides: Sides) -> None:
        self.workshop, self.objects, self.turns, self.sides = workshop, objects, turns, sides
        images = {image: number for number, image in enumerate(dict.fromkeys(item.image for item in objects))}
        # Of the image, not of the object: the original of one object shows the others of its photo as well.
        self.numbers = [images[item.image] for item in objects]

    def __len__(self) -> int:
        return len(self.objects) * self.turns

    def __getitems__(self, indices: Sequence[int]) -> PairBatch:
        pairs = [self.pair(index) for index in indices]
        queries = [query.picture.crop(query.box) for query, _, _ in pairs]
        galleries = [gallery for _, gallery, _ in pairs]
        size = _common([query.size for query in queries], self.sides.query, self.sides.enlarge)
        width, height = _common([view.picture.size for view in galleries], self.sides.gallery, False)
        boxes = [np.array(view.box) / np.tile(view.picture.size, 2) for view in galleries]
        return PairBatch(
            index=torch.as_tensor([int(index) for index in indices]),
            queries=stacked([resized(query, size) for query in queries]),
            galleries=stacked([resized(view.picture, (width, height)) for view in galleries]),
            boxes=torch.from_numpy(np.stack(boxes) * [width, height, width, height]).float(),
            objects=torch.as_tensor([self.numbers[number] for _, _, number in pairs]),
        )

    def pair(self, index: int) -> tuple[View, View, int]:
        """Returns the views of query and gallery at a position, and the object's number in the split."""
        turn, number = divmod(int(index), len(self.objects))
        item = self.objects[number]
        query, gallery = self.workshop.pair(item, f"fixed {turn}", turn)
        return self.workshop.view(item, query), self.workshop.view(item, gallery), number


class TrainingPairs(PairSet):
    """Pairs that `EpochSampler` draws: every epoch has a plan of its own, `length` positions long.

    The source of each position is drawn by weight, and a source's objects come in a random order, none again before all
    have been: so neighbours are different objects as long as their source has enough. With `fresh` every epoch, and
    every time that an object comes again in it, has other views. `sources` are weights and positions in `objects`.
    """

    def __init__(self, *shared: Any, sources: Sequence[tuple[float, np.ndarray]], length: int, fresh: bool) -> None:
        super().__init__(*shared)
        self.sources, self.length, self.fresh = sources, length, fresh
        self._plan: tuple[int, np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        return self.length

    def pair(self, index: int) -> tuple[View, View, int]:
        """Returns the views of query and gallery at a position, and the object's number in the split."""
        epoch = getattr(index, "epoch", 0)
        members, turns = self.plan(epoch)
        number, turn = int(members[index]), int(turns[index])
        item, moment = self.objects[number], f"{epoch}.{turn}"
        query, gallery = self.workshop.pair(item, moment)
        moment = moment if self.fresh else ""
        return self.workshop.view(item, query, moment), self.workshop.view(item, gallery, moment), number

    def plan(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the object of every position of an epoch, and how often it has been there before, both (N,)."""
        if self._plan is None or self._plan[0] != epoch:
            self._plan = (epoch, *self._planned(f"cut_paste {self.workshop.seed} plan {epoch}"))
        return self._plan[1:]

    def _planned(self, stream: str) -> tuple[np.ndarray, np.ndarray]:
        ends = np.cumsum([weight for weight, _ in self.sources])
        drawn = np.searchsorted(ends / ends[-1], numbers(stream, self.length), side="right")
        members, turns = np.zeros((2, self.length), np.int64)
        for source, (_, own) in enumerate(self.sources):
            places = (drawn == source).nonzero()[0]
            order = own[np.argsort(numbers(f"{stream} {source}", len(own)), kind="stable")]
            turn, place = np.divmod(np.arange(len(places)), len(own))
            members[places], turns[places] = order[place], turn
        return members, turns


def _common(sizes: Sequence[tuple[int, int]], longest: int, enlarge: bool) -> tuple[int, int]:
    """Returns the mean (width, height) of a batch, with its longer side at most `longest`, or just that."""
    mean = np.mean(sizes, axis=0)
    share = longest / mean.max()
    width, height = mean * (share if enlarge else min(share, 1))
    return max(1, round(width)), max(1, round(height))
