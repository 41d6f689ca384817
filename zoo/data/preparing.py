"""What is done to a picture before a model sees it: turned upright, cut to a box, scaled. One place for all."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch.utils.data import Dataset

from zoo.checks import check_flags, check_integers
from zoo.data._loading import check_size
from zoo.data._pictures import (
    Box,
    Picture,
    convert_picture,
    measure,
    read_picture,
    rectangle,
    resized,
    stacked,
)
from zoo.files import BadFile
from zoo.types import Batch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Preparation:
    """How pictures are prepared.

    `image_size` is px: one number for a square, (height, width), or None for each picture's own shape. Then
    `longest_side` is px of the longer side of the whole picture, to which larger ones are shrunk, None for never, and
    with `enlarge` smaller ones enlarged; a box is cut out first and scaled by the same factor as the whole picture, so
    that an object keeps its size. `upright` turns pictures as their EXIF orientation says; boxes refer to what that
    gives. Raises ValueError for a value outside its range.
    """

    image_size: tuple[int, int] | None
    longest_side: int | None
    enlarge: bool
    upright: bool

    def __post_init__(self) -> None:
        if self.image_size is not None:
            object.__setattr__(self, "image_size", check_size("image_size", self.image_size))
        if self.longest_side is not None:
            check_integers(1, longest_side=self.longest_side)
        check_flags(enlarge=self.enlarge)
        check_flags(upright=self.upright)
        if self.enlarge and self.longest_side is None:
            raise ValueError("enlarge needs a longest_side to enlarge to, got null")

    def plain(self) -> dict[str, Any]:
        """Returns the preparation as plain values, from which `prepare` does the same again."""
        return {**asdict(self), "image_size": None if self.image_size is None else list(self.image_size)}

    def target(self, whole: tuple[int, int], part: tuple[int, int]) -> tuple[int, int]:
        """Returns the (width, height) to which a part of a picture of (width, height) is scaled."""
        if self.image_size is not None:
            return self.image_size[1], self.image_size[0]
        if self.longest_side is None or (max(whole) <= self.longest_side and not self.enlarge):
            return part
        scale = self.longest_side / max(whole)
        return max(1, round(part[0] * scale)), max(1, round(part[1] * scale))

    def prepare(self, picture: Picture, box: Box | None, name: str | Path) -> tuple[Image.Image, tuple[int, int]]:
        """Returns the prepared picture, and the (width, height) before scaling; raises BadFile for a box beside it."""
        part = part_size(picture.size, box, name)
        return resized(picture.cut(box, name), self.target(picture.size, part)), part


class PreparedFiles(Dataset):
    """Batches of picture files, decoded and prepared when asked for; the positions asked for at once share one size.

    `boxes` and `turns` (clockwise quarters beyond what EXIF says) belong to the files. With `tolerant` a file that
    can't be read is named in `Batch.unreadable`, otherwise it raises BadFile.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        preparation: Preparation,
        boxes: Sequence[Box | None] | None = None,
        turns: Sequence[int] | None = None,
        tolerant: bool = False,
    ) -> None:
        self.paths, self.preparation, self.tolerant = paths, preparation, tolerant
        self.boxes, self.turns = boxes or [None] * len(paths), turns or [0] * len(paths)
        self._sizes: list[tuple[int, int] | None] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def sizes(self, known: dict[Path, tuple[int, int] | None]) -> list[tuple[int, int] | None]:
        """Returns each file's (width, height) in px when prepared, None for one that can't be read.

        Reads headers only; `known` keeps the sizes of whole files as they are measured.
        """
        if self.preparation.image_size is None:
            self._sizes = [self._size(place, known) for place in range(len(self.paths))]
        else:
            self._sizes = [self.preparation.target((1, 1), (1, 1))] * len(self.paths)
        return self._sizes

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        places, pictures, originals, unreadable = [], [], [], []
        for place in indices:
            try:
                picture, original = self._read(place)
            except BadFile as error:
                if not self.tolerant:
                    raise
                unreadable.append((int(place), str(error)))
                continue
            places.append(place)
            pictures.append(picture)
            originals.append(original[::-1])
        images = stacked(pictures) if pictures else torch.empty(0, 3, *self._empty(indices))
        return Batch(
            index=torch.tensor(places, dtype=torch.int64),
            images=images,
            original_size=torch.tensor(originals, dtype=torch.int64).reshape(-1, 2),
            unreadable=tuple(unreadable),
        )

    def _read(self, place: int) -> tuple[Image.Image, tuple[int, int]]:
        path = self.paths[place]
        picture = turned(read_picture(path, self.preparation.upright), self.turns[place])
        prepared, original = self.preparation.prepare(picture, self.boxes[place], path)
        if self._sizes is not None and self._sizes[place] != prepared.size:
            raise BadFile(f"image {path} was changed while it was read; run again")
        return prepared, original

    def _size(self, place: int, known: dict[Path, tuple[int, int] | None]) -> tuple[int, int] | None:
        path = self.paths[place]
        if path not in known:
            known[path] = _measured(path, self.preparation.upright)
        if known[path] is None:
            return None
        whole = known[path][::-1] if self.turns[place] % 2 else known[path]
        try:
            return self.preparation.target(whole, part_size(whole, self.boxes[place], path))
        except BadFile:
            return None

    def _empty(self, indices: Sequence[int]) -> tuple[int, int]:
        size = self._sizes[indices[0]] if self._sizes is not None else None
        return (1, 1) if size is None else size[::-1]


def prepare(picture: Path | str | Image.Image, preprocessing: Mapping[str, Any], box: Box | None = None) -> Batch:
    """Returns one picture, a file or opened by Pillow, as a batch, prepared as `Preparation.plain` says.

    `box` is x0, y0, x1, y1 in px of the upright picture. Raises BadFile for a file that can't be read or a box beside
    the picture, ValueError where `preprocessing` has other keys than a preparation or values outside their range.
    """
    wanted = Preparation.__dataclass_fields__
    if set(preprocessing) != set(wanted):
        raise ValueError(f"preprocessing must have the keys {', '.join(wanted)}, got {', '.join(preprocessing)}")
    preparation = Preparation(**preprocessing)
    if isinstance(picture, Image.Image):
        name, opened = "given", convert_picture(picture, preparation.upright)
    else:
        name, opened = picture, read_picture(Path(picture), preparation.upright)
    prepared, original = preparation.prepare(opened, box, name)
    size = torch.tensor([original[::-1]])
    return Batch(index=torch.zeros(1, dtype=torch.int64), images=stacked([prepared]), original_size=size)


def turned(picture: Picture, quarters: int) -> Picture:
    """Returns a picture turned clockwise by so many quarters."""
    turns = (None, Image.Transpose.ROTATE_270, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_90)
    turn = turns[quarters % 4]
    if turn is None:
        return picture
    return replace(
        picture, pixels=picture.pixels.transpose(turn), size=picture.size[::-1] if quarters % 2 else picture.size
    )


def part_size(whole: tuple[int, int], box: Box | None, name: str | Path) -> tuple[int, int]:
    """Returns the (width, height) in px of a box in a picture of (width, height), of all of it without a box."""
    if box is None:
        return whole
    left, top, right, bottom = rectangle(box, whole, name)
    return right - left, bottom - top


def _measured(path: Path, upright: bool) -> tuple[int, int] | None:
    try:
        return measure(path, upright)
    except BadFile:  # said again when the picture itself is asked for
        return None
