"""The base of data modules whose pictures have label maps: to train and judge segmentation, and as galleries."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from zoo.checks import check_integers
from zoo.data._images import ImageSplits, named_pictures
from zoo.data._label_views import LabelledFiles, LabelledViews, Views
from zoo.files import BadFile
from zoo.progress import tracked

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from zoo.classes import ClassList
    from zoo.data._label_maps import LabelReader

SPLIT = "{split}"


class Labelled(NamedTuple):
    """A picture and the file of its label map."""

    picture: Path
    labels: Path


class SegmentationSplits(ImageSplits):
    """Splits of pictures with a label map each; a subclass gives the `reader` and finds the files.

    `train_split`, `val_split`, `gallery_split` and `query_split` name the splits that serve these ends, None for none
    (queries: those of the gallery). Training sees views as `Views` says, of pictures at their own size; whatever else
    reads pictures gets them prepared as `ImageSplits` says. `seed` is that of order and views. Raises ValueError for a
    value outside its range.
    """

    gives_training = True
    reader: LabelReader

    def __init__(
        self,
        *,
        train_split: str | None,
        val_split: str | None,
        gallery_split: str,
        query_split: str | None,
        crop_size: int | Sequence[int],
        scale: Sequence[float],
        flip: bool,
        jitter: float,
        seed: int,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        named = {"train": train_split, "val": val_split, "gallery": gallery_split, "query": query_split}
        for end, split in named.items():
            if not (split is None and end != "gallery") and not (isinstance(split, str) and split):
                raise ValueError(f"{end}_split must be the name of a split, got {split!r}")
        self.train_split, self.val_split, self.gallery_split = train_split, val_split, gallery_split
        self._query_split = query_split or gallery_split
        self.splits = tuple(dict.fromkeys(split for split in named.values() if split))
        self.views = Views(crop_size, scale, flip, jitter)
        check_integers(0, seed=seed)
        self.seed = seed
        self._labels: dict[str, list[Path]] = {}

    def pairs(self, split: str) -> dict[str, Labelled]:
        """Returns a split's pictures with their label maps, name → files; raises FileNotFoundError or BadFile."""
        raise NotImplementedError

    @property
    def classes(self) -> ClassList:
        """Returns the classes whose positions label maps hold."""
        return self.reader.classes

    @property
    def query_split(self) -> str:
        """Returns the split in which queries are found."""
        return self._query_split

    def find(self) -> dict[str, dict[str, Path]]:
        """Lists every split; raises what `pairs` raises."""
        found = {split: self.pairs(split) for split in self.splits}
        self._labels = {split: [each.labels for each in files.values()] for split, files in found.items()}
        return {split: {name: each.picture for name, each in files.items()} for split, files in found.items()}

    def label_map(self, split: str, position: int) -> np.ndarray:
        """Returns the label map of an image at its own size, (H, W) int64, -1 = void; raises BadFile if damaged."""
        self._named(split)
        return self.reader.read(self._labels[split][position])

    def class_shares(self, split: str) -> np.ndarray:
        """Returns (C,) float64: which share of a split's pixels each class has, void left out. Reads all label maps.

        Raises BadFile where no pixel has a class.
        """
        counts = np.zeros(len(self.classes), np.int64)
        self._named(split)
        for path in tracked(self._labels[split], "counting classes"):
            labels = self.reader.read(path)
            counts += np.bincount(labels[labels >= 0], minlength=len(counts))
        if not counts.sum():
            raise BadFile(f"split '{split}': no pixel of {len(self._labels[split])} label maps has a class")
        return counts / counts.sum()

    def labels(self, split: str) -> list[str]:
        """Raises ValueError: pictures with label maps show several classes each."""
        raise ValueError("labels: pictures with label maps have no class of their own")

    def payloads(self, split: str, names: Sequence[str]) -> list[dict[str, str]]:
        """Returns what is known of the named images: the path of the file."""
        return [{"path": os.fspath(self.path(split, name))} for name in names]

    def labelled_loader(self, split: str) -> DataLoader:
        """Returns a loader of a split, whole and prepared, with `label_map`; every image once over all ranks."""
        paths = list(self._named(split).values())
        dataset = LabelledFiles(paths, self._labels[split], self.reader, self._preparation)
        return self._grouped(dataset, self.batch_size)

    def training_dataset(self, split: str) -> LabelledViews:
        """Returns the views of a split; `EpochSampler` draws their positions."""
        paths, upright = list(self._named(split).values()), self._preparation.upright
        return LabelledViews(paths, self._labels[split], self.reader, upright, self.views, self.seed)

    def train_dataloader(self) -> DataLoader:
        """Returns the shuffled loader of views; raises ValueError where there is no split for training."""
        return self.shuffled_loader(self._asked("train_split"), self.seed)

    def val_dataloader(self) -> DataLoader:
        """Returns the labelled loader of the validation split; raises ValueError where there is none."""
        return self.labelled_loader(self._asked("val_split"))

    def test_dataloader(self) -> DataLoader:
        """Returns the loader of the gallery."""
        return self.loader(self.gallery_split)

    def _asked(self, key: str) -> str:
        split = getattr(self, key)
        if split is None:
            raise ValueError(f"{key} must name a split to train or validate on, got null")
        return split


class Layout(NamedTuple):
    """Where a split's files lie: folders and list of names, below `root` or absolute, {split} being the split's name.

    `names` is None where all files of label maps belong to the split; these end in `ending` behind the picture's name.
    """

    root: Path
    images: str
    labels: str
    names: str | None
    ending: str

    def pairs(self, split: str) -> dict[str, Labelled]:
        """Returns the pictures with their label maps by name, in the list's order, else by name.

        A name is the picture's path below its folder without suffix. Raises FileNotFoundError for a missing folder or
        list, BadFile for a name without picture or label map, ValueError for a folder without pictures.
        """
        images, labels = self._path(self.images, split), self._path(self.labels, split)
        pictures = named_pictures("images", [images], "path", key="root")
        if not labels.is_dir():
            raise FileNotFoundError(f"labels must be a folder of label maps, got {labels}, which doesn't exist")
        if self.names is None:
            there = self._all(labels)
            names = [*(there - pictures.keys()), *(name for name in pictures if name in there)]
        else:
            names = _listed(self._path(self.names, split))
        found = {}
        for name in names:
            file = labels / f"{name}{self.ending}"
            if name not in pictures:
                raise BadFile(f"split '{split}' names '{name}', of which {images} holds no picture")
            if self.names is not None and not file.is_file():
                raise BadFile(f"split '{split}' names '{name}', whose label map {file} doesn't exist")
            found[name] = Labelled(pictures[name], file)
        if not found:
            raise BadFile(f"split '{split}' must have a picture, got none: {labels} holds no *{self.ending}")
        return found

    def check(self, splits: Sequence[str]) -> None:
        """Raises ValueError where several splits would hold the same pictures."""
        if len(splits) > 1 and not any(SPLIT in str(part) for part in (self.labels, self.names)):
            raise ValueError(
                f"labels or lists must hold {SPLIT} to tell the splits {', '.join(splits)} apart, got {self.labels!r} "
                f"and {self.names!r}; or name one split and set the others to null"
            )

    def _path(self, pattern: str, split: str) -> Path:
        return self.root / Path(pattern.replace(SPLIT, split)).expanduser()

    def _all(self, folder: Path) -> set[str]:
        files = (path.relative_to(folder) for path in folder.rglob(f"*{self.ending}"))
        return {path.as_posix().removesuffix(self.ending) for path in files if not path.name.startswith(".")}


def check_texts(values: Mapping[str, Any], optional: Sequence[str] = ()) -> None:
    """Raises ValueError unless every value is a text that isn't empty, or None where it is `optional`."""
    for name, value in values.items():
        if not (value is None and name in optional) and not (isinstance(value, str) and value):
            raise ValueError(f"{name} must be a text that isn't empty, got {value!r}")


def _listed(file: Path) -> list[str]:
    if not file.is_file():
        raise FileNotFoundError(f"lists must name a text file of pictures' names, got {file}, which doesn't exist")
    lines = [line.split() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    return list(dict.fromkeys(words[0] for words in lines if words))
