"""What pairs are made of: objects with masks, drawn ones, and objects of which there are real photos."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from zoo.data._images import named_pictures
from zoo.data._pairs_table import PairRow
from zoo.data._pictures import read_picture
from zoo.data._procedural import drawn_object
from zoo.files import BadFile


@dataclass(frozen=True)
class Source:
    """One entry of `sources`: its kind, the weight with which pairs are drawn from it, a name, and its own keys.

    `recipe` holds the values in which its recipe differs from that of the others.
    """

    kind: str
    weight: float
    name: str
    keys: Mapping[str, Any]
    recipe: Mapping[str, Any]

    def path(self, key: str) -> Path:
        """Returns the file or folder that one of its keys names."""
        return Path(self.keys[key]).expanduser()

    def pictures(self, key: str) -> dict[str, Path]:
        """Returns the pictures of the folder that one of its keys names, as `named_pictures` does."""
        return named_pictures(f"{key} of source {self.name}", [self.path(key)], "path", key="sources")

    def object_name(self, image: str, instance: Any = None) -> str:
        """Returns what an object of an image is called, the only one or the one called `instance`."""
        return "-".join([self.name, flat(image), *([] if instance is None else [str(instance)])])


@dataclass(frozen=True)
class Masked:
    """An object of a photo: `path` is the photo's file, `mask` gives its mask (L) for a size."""

    source: str
    name: str
    image: str
    split: str
    path: Path
    area: float
    mask: Callable[[tuple[int, int]], Image.Image]

    @property
    def photo(self) -> str:
        """Returns a name for the photo, which its objects share."""
        return f"{self.source}-{flat(self.image)}"

    def layers(self) -> tuple[Image.Image, Image.Image]:
        """Returns the photo and the object's mask; raises BadFile where they don't fit each other."""
        picture = read_picture(self.path, upright=False)
        try:
            mask = self.mask(picture.size)
        except ValueError as error:
            raise BadFile(f"the mask of {self.name} doesn't fit {self.path} ({error})") from error
        if mask.size != picture.pixels.size:
            mask = mask.resize(picture.pixels.size, Image.Resampling.NEAREST)
        if mask.getbbox() is None:
            raise BadFile(f"the mask of {self.name} covers no pixel of {self.path}")
        return picture.pixels, mask


@dataclass(frozen=True)
class Drawn:
    """A procedural object: number `number` of a seed."""

    source: str
    name: str
    image: str
    split: str
    seed: int
    number: int

    def layers(self) -> tuple[Image.Image, Image.Image]:
        """Returns the object's pixels and its mask."""
        return drawn_object(self.seed, self.number)


@dataclass(frozen=True)
class Photographed:
    """An object of a table: real pairs that show it."""

    source: str
    name: str
    image: str
    split: str
    root: Path
    rows: tuple[PairRow, ...]


@dataclass(frozen=True)
class Gathered:
    """An object whose photos lie in a folder of their own; each shows all of it."""

    source: str
    name: str
    image: str
    split: str
    photos: tuple[Path, ...]


Object = Masked | Drawn | Photographed | Gathered


@dataclass(frozen=True)
class Selection:
    """Which objects count: the least area in px, whether one per image, and the shares of val and test."""

    min_area: float
    one_per_image: bool
    val_share: float
    test_share: float

    def split(self, image: str) -> str:
        """Returns the split of an image, by a hash of its name alone: all its objects go there, whatever the source."""
        digest = hashlib.blake2b(image.encode(), digest_size=8).digest()
        place = int.from_bytes(digest, "little") / 2**64
        return "test" if place < self.test_share else "val" if place < self.test_share + self.val_share else "train"


def flat(name: str) -> str:
    """Returns a name that may have folders as one without."""
    return name.replace("/", "-")
