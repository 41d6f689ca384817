"""Image files: finding, opening, cutting, and reading whole batches of them at one size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from zoo.files import BadFile
from zoo.types import Batch

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".gif", ".tif", ".tiff")
Box = Sequence[float]

_TURNS = {  # EXIF orientation → what makes it upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageFiles(Dataset):
    """Batches of image files, decoded, cut to their boxes (x0, y0, x1, y1 px) and resized when asked for.

    `image_size` is px, one number for a square or (height, width); `upright` turns pictures as their EXIF orientation
    says, before they are cut.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        image_size: int | tuple[int, int],
        upright: bool,
        boxes: Sequence[Box | None] | None = None,
    ) -> None:
        self.paths, self.upright, self.boxes = paths, upright, boxes or [None] * len(paths)
        height, width = image_size if isinstance(image_size, tuple) else (image_size, image_size)
        self._size = (width, height)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        return self.batch(indices, self.pictures(indices))

    def pictures(self, indices: Sequence[int]) -> list[Image.Image]:
        """Returns pictures at the dataset's size."""
        # Pillow's BILINEAR widens its filter when it shrinks, which is what "antialiased" means elsewhere.
        pictures = (open_picture(self.paths[index], self.upright, self.boxes[index]) for index in indices)
        return [picture.resize(self._size, Image.Resampling.BILINEAR) for picture in pictures]

    @staticmethod
    def batch(indices: Sequence[int], pictures: Sequence[Image.Image]) -> Batch:
        """Returns pictures of one size as a batch, `indices` being their positions."""
        stacked = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
        return Batch(index=torch.as_tensor(indices), images=stacked.movedim(3, 1).contiguous().float().div_(255))


def is_picture(path: Path) -> bool:
    """Tells by its name whether a file is a picture; hidden ones aren't (macOS leaves them beside the real ones)."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def open_picture(path: Path, upright: bool, box: Box | None = None) -> Image.Image:
    """Returns an image file as RGB (its first frame), cut to `box`; 16 bits a channel become 8.

    Raises BadFile if it can't be read, holds floating-point numbers, or the box leaves nothing.
    """
    try:
        with Image.open(path) as image:
            turn = _TURNS.get(_orientation(image)) if upright else None
            picture = _eight_bits(image, path).convert("RGB")
    except BadFile:
        raise
    except Exception as error:  # damaged bytes can fail anywhere in Pillow, and in any way
        raise BadFile(f"image {path} can't be read ({error}); fetch it again or remove it") from error
    picture = picture if turn is None else picture.transpose(turn)
    return picture if box is None else cut(picture, box, path)


def _orientation(image: Image.Image) -> int:
    """Returns how the camera was held as EXIF says, 1 (upright) where it says nothing that can be read."""
    try:
        return image.getexif().get(0x0112, 1)
    except Exception:  # of a damaged block; the pixels may be fine
        return 1


def _eight_bits(image: Image.Image, path: Path) -> Image.Image:
    # Pillow's own conversion would cut everything above 255 off.
    if image.mode == "F":
        raise BadFile(f"image {path} holds floating-point numbers, whose range nothing states; convert it to 8 bits")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.int64)
    if image.mode == "I" and values.min() >= 0 and values.max() <= 0xFF:
        return Image.fromarray(values.astype(np.uint8))  # 8 bits, written wider
    if values.min() < 0 or values.max() > 0xFFFF:
        raise BadFile(f"image {path} holds values from {values.min()} to {values.max()}; convert it to 8 bits")
    return Image.fromarray((values // 257).astype(np.uint8))


def cut(picture: Image.Image, box: Box, name: str | Path) -> Image.Image:
    """Returns the part of a picture in a box (x0, y0, x1, y1 px); raises BadFile if they don't overlap."""
    # Published boxes have fractions, and some reach a little beyond the image.
    left, top = (max(0, round(value)) for value in box[:2])
    right, bottom = min(picture.width, round(box[2])), min(picture.height, round(box[3]))
    if right <= left or bottom <= top:
        raise BadFile(f"box must overlap the image {name} of {picture.width} × {picture.height} px, got {list(box)}")
    return picture.crop((left, top, right, bottom))
