"""The base of data modules whose splits are picture files: named, prepared, and loaded in batches of one size."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from zoo.checks import check_integers
from zoo.data._loading import SameSizeBatches, SplitDataModule
from zoo.data._pictures import SUFFIXES, UNREAD_SUFFIXES, Box, Picture, is_picture, read_picture
from zoo.data.preparing import Preparation, PreparedFiles, prepare, turned
from zoo.files import natural

if TYPE_CHECKING:
    from PIL import Image
    from torch.utils.data import DataLoader

    from zoo.truth import RelevanceLists
    from zoo.types import Batch

log = logging.getLogger("zoo")

NAMES = ("path", "stem", "file")


class ImageSplits(SplitDataModule):
    """Splits of picture files, for evaluation, embedding and fitting; a subclass finds the files.

    Shared parameters, of `Preparation`: `image_size`, `longest_side`, `enlarge`, `upright`. A batch holds images of one
    size: their files are grouped by the size that their headers promise, read once; order inside a group is the
    split's. Raises ValueError for a value outside its range.
    """

    gives_training = False
    gallery_split = "gallery"
    splits: tuple[str, ...] = ("gallery",)

    def __init__(
        self,
        *,
        upright: bool,
        image_size: int | Sequence[int] | None,
        longest_side: int | None,
        enlarge: bool,
        batch_size: int,
        num_workers: int,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers)
        self._preparation = Preparation(image_size, longest_side, enlarge, upright)
        self._files: dict[str, dict[str, Path]] = {}
        self._sizes: dict[Path, tuple[int, int] | None] = {}

    def find(self) -> dict[str, dict[str, Path]]:
        """Returns the splits' files, name → path in order; raises FileNotFoundError or BadFile where there are none."""
        raise NotImplementedError

    def ground_truth(self) -> RelevanceLists | None:
        """Returns what is relevant to which query, as the data itself says; None where it says nothing."""
        return None

    def turn(self, path: Path) -> int:
        """Returns by how many clockwise quarters a file is turned, beyond what its EXIF orientation says."""
        return 0

    @property
    def query_split(self) -> str:
        """Returns the split in which queries are found: query, or gallery where they are images of it."""
        return self.splits[-1]

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Returns as plain values what is done to every picture; `zoo.data.preparing.prepare` does the same."""
        return self._preparation.plain()

    def prepare_picture(self, picture: Path | str | Image.Image, box: Box | None = None) -> Batch:
        """Returns a picture of one's own, prepared like those of the splits; raises as `prepare` does."""
        return prepare(picture, self.preprocessing, box)

    def setup(self, stage: str | None = None) -> None:
        """Finds the files; raises what `find` raises."""
        if not self._files:
            self._files = self.find()

    def size(self, split: str) -> int:
        """Returns the number of images of a split."""
        return len(self._named(split))

    def ids(self, split: str) -> list[str]:
        """Returns the names of a split's images in order."""
        return list(self._named(split))

    def path(self, split: str, name: str) -> Path:
        """Returns the file of a name; raises ValueError for a name that the split doesn't have."""
        self.position(split, name)
        return self._named(split)[name]

    def labels(self, split: str) -> list[str]:
        """Returns the folder that each image lies in, a name for its class; raises ValueError if all lie in one."""
        labels = [path.parent.name for path in self._named(split).values()]
        if len(set(labels)) < 2:
            raise ValueError(f"root must have a sub-folder for each class, got all images in folder '{labels[0]}'")
        return labels

    def picture(self, split: str, position: int) -> np.ndarray:
        """Returns one image at its own size as (H, W, 3) uint8 RGB."""
        return np.array(self._picture(list(self._named(split).values())[position]).pixels)

    def picture_by_id(self, split: str, name: str, box: Sequence[float] | None = None) -> np.ndarray:
        """Returns the image of a name, cut to `box` (x0, y0, x1, y1 px), as (H, W, 3) uint8 RGB.

        Raises ValueError for a name that the split doesn't have.
        """
        path = self.path(split, name)
        return np.array(self._picture(path).cut(box, path))

    def dataset(self, split: str) -> PreparedFiles:
        """Returns the dataset of a split; raises ValueError for another name, RuntimeError before `setup`."""
        return self._dataset(list(self._named(split).values()))

    def loader(self, split: str, batch_size: int | None = None) -> DataLoader:
        """Returns a loader of a split, every image once over all ranks; `batch_size` None takes the module's."""
        if batch_size is not None:
            check_integers(1, batch_size=batch_size)
        return self._grouped(self.dataset(split), batch_size or self.batch_size)

    def selection(
        self, split: str, names: Sequence[str], boxes: Sequence[Box | None] | None = None, tolerant: bool = False
    ) -> DataLoader:
        """Returns a loader of the named images, cut to their boxes (x0, y0, x1, y1 px).

        `index` of a batch is the position in `names`; under DDP every rank gets its own share. With `tolerant` files
        that can't be read are named in `Batch.unreadable`, and a batch may have no image; otherwise they raise BadFile.
        Raises ValueError for a name that the split doesn't have.
        """
        chosen = [self.path(split, name) for name in names]
        return self._grouped(self._dataset(chosen, boxes, tolerant), self.batch_size)

    def test_dataloader(self) -> DataLoader:
        """Returns the loader of the gallery."""
        return self.loader(self.gallery_split)

    def train_dataloader(self) -> NoReturn:
        """Raises NotImplementedError: files alone say nothing to train on by gradient."""
        _no_training("train")

    def val_dataloader(self) -> NoReturn:
        """Raises NotImplementedError, as `train_dataloader` does."""
        _no_training("val")

    def _dataset(
        self, paths: list[Path], boxes: Sequence[Box | None] | None = None, tolerant: bool = False
    ) -> PreparedFiles:
        return PreparedFiles(paths, self._preparation, boxes, [self.turn(path) for path in paths], tolerant)

    def _grouped(self, dataset: PreparedFiles, batch_size: int) -> DataLoader:
        batches = SameSizeBatches(dataset.sizes(self._sizes), batch_size, *self._shard())
        return self._load(dataset, batch_sampler=batches)

    def _picture(self, path: Path) -> Picture:
        return turned(read_picture(path, self._preparation.upright), self.turn(path))

    def _named(self, split: str) -> dict[str, Path]:
        self.check_split(split)
        if not self._files:
            raise RuntimeError(f"split {split!r} is not open: call setup() first")
        return self._files[split]


def named_pictures(
    argument: str, folders: Sequence[Path], names: str, remedy: str = "", key: str | None = None
) -> dict[str, Path]:
    """Returns the pictures below folders, name → absolute path in natural order (q2 before q10).

    `names` says what a picture is called: "path", "stem" or "file". Pictures of kinds that aren't read are counted in a
    warning. Raises FileNotFoundError for a missing folder, ValueError for one that can't be listed, for no picture at
    all, and for two of one name; `argument` names them, `remedy` says what helps where only the suffixes differ, `key`
    which of the data's keys holds the folder, where that isn't `argument`.
    """
    named: dict[str, Path] = {}
    unread: Counter[str] = Counter()
    for folder in folders:
        for path, below in _files(argument, folder, key or argument):
            if not is_picture(path):
                unread[path.suffix.lower()] += 1
                continue
            name = _called(below, names)
            if name in named:
                raise ValueError(_clash(argument, names, name, (named[name], path), remedy))
            named[name] = path
    if unread:
        counts = ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(unread.items()))
        log.warning("%s: left out: %s (kinds that aren't read); convert them to JPEG or PNG", argument, counts)
    if not named:
        where = ", ".join(map(str, folders))
        raise ValueError(f"{argument} must hold images ({', '.join(SUFFIXES)}), got none below {where}")
    # A ground truth may call images by position.
    return {name: named[name] for name in sorted(named, key=natural)}


def _called(below: Path, names: str) -> str:
    return {"path": below.with_suffix("").as_posix(), "stem": below.stem, "file": below.as_posix()}[names]


def _clash(argument: str, names: str, name: str, paths: tuple[Path, Path], remedy: str) -> str:
    helps = f"; {remedy}" if remedy and paths[0].suffix != paths[1].suffix else ""
    return f"{argument}: names={names} calls both {paths[0]} and {paths[1]} '{name}'{helps}"


def folders_of(argument: str, value: str | Sequence[str]) -> list[Path]:
    """Returns one folder or several as paths, ~ expanded; raises ValueError for none."""
    folders = [value] if isinstance(value, (str, Path)) else list(value)
    if not folders:
        raise ValueError(f"{argument} must name at least one folder, got an empty list")
    return [Path(folder).expanduser() for folder in folders]


def _files(argument: str, folder: Path, key: str) -> list[tuple[Path, Path]]:
    """Returns the pictures below a folder, absolute and relative to it, and those of kinds that aren't read."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "doesn't exist"
        raise FileNotFoundError(f"{argument} must be a folder of images, got {folder}, which {what}: set data.{key}")
    try:
        top = _absolute(folder)
        return [(path, path.relative_to(top)) for path in _walk(top, ())]
    except OSError as error:
        raise ValueError(f"{argument}: {error.filename} can't be listed ({error.strerror})") from error


def _absolute(folder: Path) -> Path:
    """Returns a folder as an absolute path without "..", by the links that the user named."""
    plain = Path(os.path.abspath(folder))
    # Behind a link, ".." leads elsewhere than the path's text says.
    return plain if plain.is_dir() and plain.samefile(folder) else folder.resolve()


def _walk(folder: Path, above: tuple[str, ...]) -> Iterator[Path]:
    """Yields the images below a folder, those of kinds that aren't read included, hidden ones not.

    Links are followed, but not back up.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if os.path.isdir(entry.path):  # the entry's own is_dir() raises for a link to itself
            yield from _walk(Path(entry.path), (*above, real))
        elif entry.name.lower().endswith((*SUFFIXES, *UNREAD_SUFFIXES)):
            yield Path(entry.path)


def _no_training(split: str) -> NoReturn:
    raise NotImplementedError(f"a folder of images has no {split} loader: it serves evaluation, embedding and fitting")
