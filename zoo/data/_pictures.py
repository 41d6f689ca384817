"""Picture files: finding, measuring, decoding and cutting them, however odd or damaged they are."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, JpegImagePlugin
from torch.utils.data import Dataset

from zoo.files import BadFile
from zoo.types import Batch

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".gif", ".tif", ".tiff")
# What cameras and phones write and isn't read; Pillow reads AVIF from 11.3 on, and the oldest supported is 11.0.
UNREAD_SUFFIXES = (".heic", ".heif", ".avif", ".jxl", ".cr2", ".cr3", ".nef", ".arw", ".dng")
MOST_PIXELS = 90_000_000  # decoded at once, 360 MB; Pillow warns at about as many
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
_SIDEWAYS = (5, 6, 7, 8)
_TRANSPARENT = ("RGBA", "LA", "PA", "La", "RGBa")
_PNG_NOTES = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")  # chunks that may hold an orientation


@dataclass(frozen=True)
class Picture:
    """A decoded RGB picture, and the (width, height) in px that it has in full.

    A huge JPEG is decoded at a half, quarter or eighth; boxes refer to its full size all the same.
    """

    pixels: Image.Image
    size: tuple[int, int]

    def cut(self, box: Box | None, name: str | Path) -> Image.Image:
        """Returns the part in `box` (x0, y0, x1, y1 px of the full size), all of it without one.

        Raises BadFile if they don't overlap.
        """
        if box is None:
            return self.pixels
        edges = rectangle(box, self.size, name)
        if self.pixels.size != self.size:
            x, y = (small / full for small, full in zip(self.pixels.size, self.size, strict=True))
            edges = rectangle([edges[0] * x, edges[1] * y, edges[2] * x, edges[3] * y], self.pixels.size, name)
        return self.pixels.crop(edges)


class ImageFiles(Dataset):
    """Batches of image files, decoded and resized to one size when asked for.

    `image_size` is px (height, width), whatever the aspect; `upright` turns pictures as their EXIF orientation says.
    """

    def __init__(self, paths: Sequence[Path], image_size: tuple[int, int], upright: bool) -> None:
        self.paths, self.upright = paths, upright
        self._size = image_size[::-1]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        return self.batch(indices, self.pictures(indices))

    def pictures(self, indices: Sequence[int]) -> list[Image.Image]:
        """Returns pictures at the dataset's size."""
        pictures = (open_picture(self.paths[index], self.upright) for index in indices)
        return [resized(picture, self._size) for picture in pictures]

    @staticmethod
    def batch(indices: Sequence[int], pictures: Sequence[Image.Image]) -> Batch:
        """Returns pictures of one size as a batch, `indices` being their positions."""
        return Batch(index=torch.as_tensor(indices), images=stacked(pictures))


def resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Returns a picture at another (width, height) in px."""
    # Pillow's BILINEAR widens its filter when it shrinks, which is what "antialiased" means elsewhere.
    return picture if picture.size == size else picture.resize(size, Image.Resampling.BILINEAR)


def stacked(pictures: Sequence[Image.Image]) -> torch.Tensor:
    """Returns RGB pictures of one size as (B, 3, H, W) float in [0, 1]."""
    # Written in place: stacking bytes first and turning them afterwards takes twice the memory, and longer.
    images = torch.empty(len(pictures), 3, pictures[0].height, pictures[0].width)
    for image, picture in zip(images, pictures, strict=True):
        for channel, band in zip(image, picture.split(), strict=True):
            channel.copy_(torch.from_numpy(np.array(band)))
    return images.div_(255)


def is_picture(path: Path) -> bool:
    """Tells by its name whether a file is a picture; hidden ones aren't (macOS leaves them beside the real ones)."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def measure(path: Path, upright: bool) -> tuple[int, int]:
    """Returns the (width, height) in px that `read_picture` will find, without decoding; raises BadFile as it does."""
    with opened_picture(path) as image:
        _divisor(image, path)
        sideways = upright and _orientation_in_header(image, path) in _SIDEWAYS
        return image.size[::-1] if sideways else image.size


def open_picture(path: Path, upright: bool) -> Image.Image:
    """Returns the pixels of `read_picture`."""
    return read_picture(path, upright).pixels


def read_picture(path: Path, upright: bool) -> Picture:
    """Returns an image file as RGB: its first frame, 16 bits a channel become 8, what is transparent lies on white.

    Raises BadFile if it can't be read, holds floating-point numbers, or has more pixels than are decoded at once.
    """
    with opened_picture(path) as image:
        return _decoded(image, upright, path)


def read_values(path: Path) -> np.ndarray:
    """Returns the numbers in an image file as they stand, neither turned nor scaled.

    (H, W) of grey levels or palette entries, (H, W, 3) uint8 of colours. Raises BadFile if it can't be read.
    """
    with opened_picture(path) as image:
        if image.mode in ("RGBA", "CMYK", "YCbCr", "LAB", "HSV"):
            return np.array(image.convert("RGB"))
        values = np.array(image.getchannel(0) if image.mode in ("LA", "PA") else image)
    return values.astype(np.uint8) if values.dtype == bool else values


def convert_picture(image: Image.Image, upright: bool) -> Picture:
    """Returns what `read_picture` does of an image that Pillow has opened."""
    name = getattr(image, "filename", "") or "given"
    with _naming(name):
        return _decoded(image, upright, name)


def _decoded(image: Image.Image, upright: bool, name: str | Path) -> Picture:
    full, divisor = image.size, _divisor(image, name)
    if divisor > 1:
        image.draft(None, (image.width // divisor, image.height // divisor))
    image.load()  # first: Pillow turns a TIFF upright here, and then takes its orientation away
    picture = _over_white(_eight_bits(image, name))
    orientation = _orientation(image) if upright else 1
    if orientation not in _TURNS:
        return Picture(picture, full)
    return Picture(picture.transpose(_TURNS[orientation]), full[::-1] if orientation in _SIDEWAYS else full)


def rectangle(box: Box, size: tuple[int, int], name: str | Path) -> tuple[int, int, int, int]:
    """Returns a box as whole px, at least one, inside a picture of (width, height).

    Raises BadFile if they don't overlap.
    """
    edges = [(max(low, 0), min(high, side)) for low, high, side in zip(box[:2], box[2:], size, strict=True)]
    if not all(low < high for low, high in edges):  # nor are numbers that are none
        raise BadFile(f"box must overlap the image {name} of {size[0]} × {size[1]} px, got {list(box)}")
    (left, right), (top, bottom) = (_whole(low, high) for low, high in edges)
    return left, top, right, bottom


def _whole(low: float, high: float) -> tuple[int, int]:
    """Rounds the fractions of published boxes."""
    first, last = round(low), round(high)
    if first < last:
        return first, last
    first = math.ceil(high) - 1  # of less than a px, the px in which it ends
    return first, first + 1


@contextmanager
def opened_picture(path: Path) -> Iterator[Image.Image]:
    """Opens a file without decoding it; raises BadFile for whatever goes wrong inside."""
    with _naming(path), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `_divisor` has a rule of its own
        with _lazy(path) as image:
            yield image


@contextmanager
def _naming(name: str | Path) -> Iterator[None]:
    try:
        yield
    except BadFile:
        raise
    except Exception as error:  # damaged bytes can fail anywhere in Pillow, and in any way
        raise BadFile(f"image {name} can't be read ({error}); fetch it again or remove it") from error


def _lazy(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except Image.DecompressionBombError as error:
        # Raised for any format; of a JPEG a smaller version can be decoded.
        try:
            return JpegImagePlugin.JpegImageFile(path)
        except SyntaxError:
            raise _too_large(path, int(re.search(r"\d+", str(error))[0])) from error


def _divisor(image: Image.Image, name: str | Path) -> int:
    """Returns 1, or for a huge JPEG the part of its sides, 2, 4 or 8, at which it is decoded.

    Raises BadFile for anything else that is huge.
    """
    pixels = image.width * image.height
    divisor = next((d for d in (1, 2, 4, 8) if pixels <= MOST_PIXELS * d * d), 0)
    # Decoding a progressive one needs all its coefficients in memory, at whatever size.
    reducible = isinstance(image, JpegImagePlugin.JpegImageFile) and not image.info.get("progressive")
    if divisor != 1 and not (divisor and reducible):
        raise _too_large(name, pixels)
    return divisor


def _too_large(name: str | Path, pixels: int) -> BadFile:
    most = MOST_PIXELS // 10**6
    return BadFile(
        f"image {name} must have at most {most} million pixels (more only as a JPEG that isn't progressive), got "
        f"{pixels / 1e6:.0f} million; save it smaller"
    )


def _orientation(image: Image.Image) -> int:
    """Returns how the camera was held as EXIF says, 1 (upright) where it says nothing that can be read."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # of a damaged block; the pixels may be fine
        return 1


def _orientation_in_header(image: Image.Image, path: Path) -> int:
    if image.format == "TIFF":
        return 1  # Pillow has turned its size already
    if image.format != "PNG" or "exif" in image.info:
        return _orientation(image)
    if _notes_behind_pixels(path):
        image.load()
        return _orientation(image)
    try:
        return Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)  # PNG's own would decode the pixels
    except Exception:  # of a damaged block
        return 1


def _notes_behind_pixels(path: Path) -> bool:
    """Tells whether a PNG has chunks behind its pixels that may say how it is turned."""
    behind = False
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            behind = behind or head[4:] == b"IDAT"
            if behind and head[4:] in _PNG_NOTES:
                return True
            file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return False


def _eight_bits(image: Image.Image, name: str | Path) -> Image.Image:
    # Pillow's own conversion would cut everything above 255 off.
    if image.mode == "F":
        raise BadFile(f"image {name} holds floating-point numbers, whose range nothing states; convert it to 8 bits")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.int64)
    if image.mode == "I" and values.min() >= 0 and values.max() <= 0xFF:
        return Image.fromarray(values.astype(np.uint8))  # 8 bits, written wider
    if values.min() < 0 or values.max() > 0xFFFF:
        raise BadFile(f"image {name} holds values from {values.min()} to {values.max()}; convert it to 8 bits")
    return Image.fromarray((values // 257).astype(np.uint8))


def _over_white(image: Image.Image) -> Image.Image:
    """Returns a picture as RGB, whatever is transparent on white, as it is seen on paper and most pages."""
    if image.mode not in _TRANSPARENT and "transparency" not in image.info:
        return image.convert("RGB")
    layered = image.convert("RGBA")
    if layered.getextrema()[3][0] == 0xFF:
        return layered.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
