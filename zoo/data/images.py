"""Folders of images: one's own, or those of a benchmark whose ground truth names them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from torch.utils.data import DataLoader

from zoo.data._loading import SplitDataModule, UnrepeatedSampler, check_flag, check_integer
from zoo.data._pictures import SUFFIXES, Box, ImageFiles, is_picture, open_picture

NAMES = ("path", "stem")


class Images(SplitDataModule):
    """Image files below one or several folders, for evaluation: split gallery, and query where queries lie elsewhere.

    `root` is a folder or a list of folders, searched recursively, hidden files and folders left out; `queries`
    likewise, null where the queries are images of the gallery. `names` says what an image is called: "path", its path
    below its folder without suffix, or "stem", its file name without suffix. `upright` turns images as their EXIF
    orientation says; boxes refer to what that gives. `image_size` is the side in pixels to which images are resized,
    regardless of their aspect. Raises ValueError for a value outside its range.
    """

    gallery_split = "gallery"

    def __init__(
        self,
        *,
        root: str | Sequence[str],
        queries: str | Sequence[str] | None,
        names: str,
        upright: bool,
        image_size: int,
        batch_size: int,
        num_workers: int,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers)
        check_integer("image_size", image_size, 1)
        check_flag("upright", upright)
        if names not in NAMES:
            raise ValueError(f"names must be one of {', '.join(NAMES)}, got {names!r}")
        self.image_size, self.names, self.upright = image_size, names, upright
        self._folders = {"gallery": _folders("root", root)}
        if queries is not None:
            self._folders["query"] = _folders("queries", queries)
        self.splits = tuple(self._folders)
        self._files: dict[str, dict[str, Path]] = {}

    @property
    def query_split(self) -> str:
        """Returns the split in which queries are found: query, or gallery where they are images of it."""
        return self.splits[-1]

    def setup(self, stage: str | None = None) -> None:
        """Lists the folders; raises FileNotFoundError for a missing folder, ValueError for one without images."""
        if not self._files:
            self._files = {split: self._name(split, folders) for split, folders in self._folders.items()}

    def size(self, split: str) -> int:
        """Returns the number of images of a split."""
        return len(self._named(split))

    def ids(self, split: str) -> list[str]:
        """Returns the names of a split's images in natural order (q2 before q10)."""
        return list(self._named(split))

    def labels(self, split: str) -> list[str]:
        """Returns the folder that each image lies in, a name for its class; raises ValueError if all lie in one."""
        labels = [path.parent.name for path in self._named(split).values()]
        if len(set(labels)) < 2:
            raise ValueError(f"root must have a sub-folder for each class, got all images in folder '{labels[0]}'")
        return labels

    def picture(self, split: str, position: int) -> np.ndarray:
        """Returns one image at its own size as (H, W, 3) uint8 RGB."""
        return np.array(open_picture(list(self._named(split).values())[position], self.upright))

    def dataset(self, split: str) -> ImageFiles:
        """Returns the dataset of a split; raises ValueError for another name, RuntimeError before `setup`."""
        return ImageFiles(list(self._named(split).values()), self.image_size, self.upright)

    def selection(self, split: str, names: Sequence[str], boxes: Sequence[Box | None] | None = None) -> DataLoader:
        """Returns a loader of the named images, in this order, cut to their boxes (x0, y0, x1, y1 px).

        `index` of a batch is the position in `names`; under DDP every rank gets its own share.
        Raises ValueError for a name that the split doesn't have.
        """
        files = list(self._named(split).values())
        chosen = [files[self.position(split, name)] for name in names]
        dataset = ImageFiles(chosen, self.image_size, self.upright, boxes)
        return self._loader(dataset, UnrepeatedSampler(len(dataset), *self._shard()), self.batch_size)

    def test_dataloader(self) -> DataLoader:
        """Returns the loader of the gallery, in order."""
        return self.loader("gallery")

    def train_dataloader(self) -> NoReturn:
        """Raises NotImplementedError: a folder of images says nothing to train on."""
        _no_training("train")

    def val_dataloader(self) -> NoReturn:
        """Raises NotImplementedError, as `train_dataloader` does."""
        _no_training("val")

    def _name(self, split: str, folders: Sequence[Path]) -> dict[str, Path]:
        """Returns name → file in natural order: q2 comes before q10."""
        argument = "root" if split == "gallery" else "queries"
        named: dict[str, Path] = {}
        for folder in folders:
            for path in _files(argument, folder):
                name = path.stem if self.names == "stem" else path.relative_to(folder).with_suffix("").as_posix()
                if name in named:
                    raise ValueError(
                        f"{argument}: data.names={self.names} calls both {named[name]} and {path} '{name}'"
                    )
                named[name] = path
        if not named:
            where = ", ".join(map(str, folders))
            raise ValueError(f"{argument} must hold images ({', '.join(SUFFIXES)}), got none below {where}")
        return _ordered(named.items())

    def _named(self, split: str) -> dict[str, Path]:
        self.check_split(split)
        if not self._files:
            raise RuntimeError(f"split {split!r} is not open: call setup() first")
        return self._files[split]


def _folders(argument: str, value: str | Sequence[str]) -> list[Path]:
    folders = [value] if isinstance(value, (str, Path)) else list(value)
    if not folders:
        raise ValueError(f"{argument} must name at least one folder, got an empty list")
    return [Path(folder).expanduser() for folder in folders]


def _files(argument: str, folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{argument} must be a folder of images, got {folder}, which doesn't exist: set data.{argument}"
        )
    return list(_walk(folder, ()))


def _walk(folder: Path, above: tuple[str, ...]) -> Iterator[Path]:
    """Yields the images below a folder, hidden ones left out; links are followed, but not back up."""
    real = os.path.realpath(folder)
    if real in above:
        return
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(Path(entry.path), (*above, real))
        elif is_picture(Path(entry.path)):
            yield Path(entry.path)


def _ordered(named: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Sorts names with their numbers as numbers, since a ground truth may call images by position."""
    return dict(sorted(named, key=lambda pair: [int(t) if t.isdecimal() else t for t in re.split(r"(\d+)", pair[0])]))


def _no_training(split: str) -> NoReturn:
    raise NotImplementedError(f"data=images has no {split} loader: a folder of images serves evaluation")


export = Images
