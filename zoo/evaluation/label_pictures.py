"""Label maps laid over their pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from zoo.evaluation.pictures import PAPER, SheetRow, Tile, contact_sheet, legend

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SIDE = 240  # px, the longer side of a picture on the sheet
_OPACITY = 0.6


def overlaid_labels(picture: np.ndarray, labels: np.ndarray, colours: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """Returns `picture (H, W, 3)` uint8 under the colours of `labels (H, W)`; void (-1) shows the picture as it is."""
    shades = np.array([*colours, (0, 0, 0)], np.float32)[labels]
    opacity = np.where(labels[..., None] >= 0, np.float32(_OPACITY), np.float32(0))
    return (picture * (1 - opacity) + shades * opacity).round().astype(np.uint8)


def label_sheet(
    data: Any, split: str, predicted: Mapping[int, np.ndarray], colours: Sequence[tuple[int, int, int]]
) -> Image.Image | None:
    """Returns each image of `predicted` (position → (H, W)) beside its true and its predicted label map, and a legend.

    A title says which share of the pixels is right. None for no images.
    """
    rows, names = [], data.ids(split)
    for position, labels in sorted(predicted.items()):
        picture, truth = data.picture(split, position), data.label_map(split, position)
        counted = truth >= 0
        share = f", {100 * (labels == truth)[counted].mean():.1f} % of the pixels right" if counted.any() else ""
        tiles = [
            Tile(picture, "image"),
            Tile(overlaid_labels(picture, truth, colours), "truth"),
            Tile(overlaid_labels(picture, labels, colours), "prediction"),
        ]
        rows.append(SheetRow(f"{names[position]}{share}", tiles))
    if not rows:
        return None
    sheet = contact_sheet(rows, SIDE)
    below = legend(data.classes.names, colours, sheet.width)
    whole = Image.new("RGB", (sheet.width, sheet.height + below.height), PAPER)
    whole.paste(sheet, (0, 0))
    whole.paste(below, (0, sheet.height))
    return whole
