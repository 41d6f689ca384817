"""Pictures with their label maps: whole, or as training sees them, scaled, cut and flipped together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as transforms

from zoo.checks import check_flags, is_number
from zoo.data._loading import check_size
from zoo.data._pictures import read_picture
from zoo.data.preparing import Preparation, PreparedFiles
from zoo.files import BadFile
from zoo.ops.label_maps import VOID, resampled
from zoo.types import Batch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from zoo.data._label_maps import LabelReader
    from zoo.data._loading import Draw

_GREY = 127  # beside a picture that is smaller than the crop


@dataclass(frozen=True)
class Views:
    """How training varies pictures with their label maps.

    `scale` is the least and largest factor on a picture's sides, drawn uniformly; then a crop of `crop_size` px
    (height, width) is cut at random, void beside the picture; `flip` mirrors half of them left to right; `jitter` is
    the largest relative change of brightness, contrast and saturation, each drawn uniformly. Raises ValueError for a
    value outside its range.
    """

    crop_size: tuple[int, int]
    scale: tuple[float, float]
    flip: bool
    jitter: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "crop_size", check_size("crop_size", self.crop_size))
        check_flags(flip=self.flip)
        numbers = self.scale if isinstance(self.scale, (list, tuple)) else ()
        if len(numbers) != 2 or not all(map(is_number, numbers)) or not 0 < numbers[0] <= numbers[1]:
            raise ValueError(f"scale must be two numbers above 0, the smaller first, got {self.scale!r}")
        if not is_number(self.jitter) or not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter must lie in 0 … 1, got {self.jitter!r}")

    def view(self, image: Tensor, labels: np.ndarray, draws: np.ndarray) -> tuple[Tensor, np.ndarray]:
        """Returns an image (3, H, W) uint8 and its labels (H, W) as one view (3, h, w) uint8, (h, w).

        `draws (7,)` are numbers in [0, 1), which settle everything.
        """
        low, high = self.scale
        size = tuple(max(1, round(side * (low + (high - low) * draws[0]))) for side in labels.shape)
        image = transforms.resize(image, list(size), antialias=True)
        image, labels = self._cut(image, resampled(labels, size), draws[1:3])
        if self.flip and draws[3] < 0.5:
            image, labels = image.flip(2), labels[:, ::-1]
        if self.jitter:
            factors = 1 + self.jitter * (2 * draws[4:7] - 1)
            image = transforms.adjust_brightness(image, factors[0])
            image = transforms.adjust_contrast(image, factors[1])
            image = transforms.adjust_saturation(image, factors[2])
        return image, labels

    def _cut(self, image: Tensor, labels: np.ndarray, draws: np.ndarray) -> tuple[Tensor, np.ndarray]:
        """Cuts the crop out; where the picture is smaller, it lies somewhere in the crop."""
        spare = [side - crop for side, crop in zip(labels.shape, self.crop_size, strict=True)]
        starts = [int(np.floor(draw * (abs(room) + 1))) for draw, room in zip(draws, spare, strict=True)]
        cut = [start if room >= 0 else 0 for start, room in zip(starts, spare, strict=True)]
        pad = [0 if room >= 0 else start for start, room in zip(starts, spare, strict=True)]
        pixels = torch.full((3, *self.crop_size), _GREY, dtype=torch.uint8)
        found = np.full(self.crop_size, VOID, labels.dtype)
        shape = [min(side, crop) for side, crop in zip(labels.shape, self.crop_size, strict=True)]
        source = tuple(slice(start, start + length) for start, length in zip(cut, shape, strict=True))
        target = tuple(slice(start, start + length) for start, length in zip(pad, shape, strict=True))
        pixels[:, *target] = image[:, *source]
        found[target] = labels[source]
        return pixels, found


class LabelledFiles(PreparedFiles):
    """Batches of prepared pictures with their label maps at the pictures' size."""

    def __init__(
        self, paths: Sequence[Path], labels: Sequence[Path], reader: LabelReader, preparation: Preparation
    ) -> None:
        super().__init__(paths, preparation)
        self.labels, self.reader = labels, reader

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        batch = super().__getitems__(indices)
        maps = []
        for place, size in zip(indices, batch.original_size.tolist(), strict=True):
            labels = self.reader.read(self.labels[place])
            check_fit(labels, tuple(size), self.labels[place], self.paths[place])
            maps.append(torch.from_numpy(resampled(labels, tuple(batch.images.shape[2:]))))
        return replace(batch, label_map=torch.stack(maps))


class LabelledViews(Dataset):
    """Batches of views for training; what is drawn for a picture depends on seed, epoch and position alone."""

    def __init__(
        self,
        paths: Sequence[Path],
        labels: Sequence[Path],
        reader: LabelReader,
        upright: bool,
        views: Views,
        seed: int,
    ) -> None:
        self.paths, self.labels, self.reader = paths, labels, reader
        self.upright, self.views, self.seed = upright, views, seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitems__(self, indices: Sequence[Draw]) -> Batch:
        found = [self._view(int(draw), draw.epoch) for draw in indices]
        return Batch(
            index=torch.tensor([int(draw) for draw in indices]),
            images=torch.stack([image for image, _ in found]).float().div_(255),
            label_map=torch.from_numpy(np.stack([labels for _, labels in found])),
        )

    def _view(self, place: int, epoch: int) -> tuple[Tensor, np.ndarray]:
        picture = read_picture(self.paths[place], self.upright).pixels
        labels = self.reader.read(self.labels[place])
        check_fit(labels, picture.size[::-1], self.labels[place], self.paths[place])
        draws = np.random.default_rng([self.seed, epoch, place]).random(7)
        return self.views.view(transforms.pil_to_tensor(picture), labels, draws)


def check_fit(labels: np.ndarray, size: tuple[int, int], file: Path, picture: Path) -> None:
    """Raises BadFile unless a label map has the (height, width) of its picture."""
    if labels.shape != size:
        told, wanted = ("{1} × {0} px".format(*each) for each in (labels.shape, size))
        raise BadFile(f"label map {file} must have the size of {picture}, {wanted}, got {told}")
