"""Drawings of what is where, from image files: as queries of an index of probability maps, and as pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.commands._searching import log
from zoo.files import BadFile
from zoo.ops.label_maps import resampled
from zoo.registry import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo.search.index import Index
    from zoo.types import Representation

    Colours = Sequence[tuple[int, int, int]]

UNDRAWN = 255  # in a file of class numbers
_SIDE = 480  # px of the longer side of a drawing that is shown without a photo
_PAPER = 255


@dataclass(frozen=True)
class Drawing:
    """The classes drawn in a file, `labels (H, W)` int64 of the size of the index' maps, -1 where nothing is.

    `colours` (R, G, B) are those of the classes, where they are known.
    """

    path: Path
    labels: np.ndarray
    colours: Colours | None

    def query(self, below: Representation | None, classes: int, fingerprint: str | None) -> Representation:
        """Returns what it asks for: alone (eq. 5 of Furuta et al. 2018), or over each of the images `below` (eq. 7)."""
        import torch

        from zoo.ops.sketches import combined_query, sketch_query
        from zoo.types import Representation

        labels = torch.from_numpy(self.labels)[None]
        if below is None:
            maps, mask = sketch_query(labels, classes)
            return Representation(probability_map=maps, class_mask=mask, fingerprint=fingerprint)
        photos = below.probability_map
        maps = combined_query(labels.expand(len(photos), -1, -1), photos)
        return Representation(probability_map=maps, fingerprint=below.fingerprint)

    def picture(self, below: np.ndarray | None) -> np.ndarray:
        """Returns it in colours over a picture (H, W, 3) uint8, or over white; the picture alone without colours."""
        from zoo.evaluation.label_pictures import overlaid_labels

        if below is None:
            scale = max(1, _SIDE // max(self.labels.shape))
            below = np.full((*(side * scale for side in self.labels.shape), 3), _PAPER, np.uint8)
        if self.colours is None:
            return below
        return overlaid_labels(below, resampled(self.labels, below.shape[:2]), self.colours)


def read_drawing(file: Any, index: Index, colours: Colours | None) -> Drawing:
    """Returns the drawing in a file of any size, brought to that of the index' maps: the class at each cell's centre.

    Grey levels and palette entries are class numbers in the order of the model, 255 is not drawn. A picture in colours
    holds those of the classes; whatever has another colour, or is transparent, is not drawn, and how many other colours
    there are is said. Raises UsageError for an index without probability maps or without images, no file, or a file in
    which nothing is drawn; BadFile for one that can't be read or holds a number that is no class.
    """
    if "probability_map" not in index.needs:
        raise UsageError(f"drawing needs an index of probability maps, got one that holds {', '.join(index.needs)}")
    if not len(index):
        raise UsageError("drawing needs an index with images, whose maps say how large it is; this one is empty")
    path = Path(str(file)).expanduser()
    if not path.is_file():
        raise UsageError(f"drawing: no such file, '{path}'")
    classes, *grid = index.get(index.ids[:1]).probability_map.shape[1:]
    pixels = _pixels(path)
    labels = _of_numbers(pixels, classes, path) if pixels.ndim == 2 else _of_colours(pixels, colours, path)
    if not (labels >= 0).any():
        raise UsageError(f"drawing must show at least one class, got {path}, in which nothing is drawn")
    resized = resampled(labels, grid)
    lost = np.setdiff1d(labels, resized)
    if lost.size:
        size = f"{grid[0]} × {grid[1]}"
        log.warning("drawing: %d classes are too small to be seen in maps of %s cells", lost.size, size)
    return Drawing(path, resized, colours)


def _pixels(path: Path) -> np.ndarray:
    """Returns numbers (H, W), or colours (H, W, 4) uint8 with their opacity."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode in ("1", "L", "P", "I", "I;16", "I;16B", "I;16L"):
                return np.array(image).astype(np.int64)
            return np.array(image.convert("RGBA"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadFile(f"drawing {path} can't be read: {error}") from None


def _of_numbers(values: np.ndarray, classes: int, path: Path) -> np.ndarray:
    wrong = np.argwhere((values < 0) | (values >= classes) & (values != UNDRAWN))
    if len(wrong):
        row, column = wrong[0]
        raise BadFile(
            f"drawing {path} must hold class numbers below {classes}, or {UNDRAWN} for not drawn, got "
            f"{values[row, column]} at row {row}, column {column}; a picture in the classes' colours must be RGB"
        )
    return np.where(values == UNDRAWN, -1, values)


def _of_colours(pixels: np.ndarray, colours: Colours | None, path: Path) -> np.ndarray:
    if colours is None:
        raise UsageError(f"drawing {path} is in colours, and the index brings no model that says which class has which")
    red, green, blue, opacity = np.moveaxis(pixels.astype(np.int64), -1, 0)
    known, places = np.unique(red << 16 | green << 8 | blue, return_inverse=True)
    numbers = {r << 16 | g << 8 | b: number for number, (r, g, b) in reversed(list(enumerate(colours)))}
    found = np.array([numbers.get(colour, -1) for colour in known.tolist()], np.int64)
    labels = np.where(opacity < 128, -1, found[places].reshape(opacity.shape))
    if (found < 0).any():
        share = f"{(labels < 0).mean():.0%}"
        log.info("drawing: %d colours that no class has count as not drawn; %s is", int((found < 0).sum()), share)
    return labels
