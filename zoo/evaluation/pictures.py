"""Contact sheets: a query and its ranked lists, with the distance under every picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

TILE, GAP, CAPTION, TITLE = 110, 8, 16, 22
INK, PAPER, LINE = (30, 30, 30), (250, 250, 250), (190, 190, 190)


@dataclass(frozen=True)
class SheetRow:
    """One line of a sheet: a title and tiles (picture (H, W, 3) uint8, caption)."""

    title: str
    tiles: Sequence[tuple[np.ndarray, str]]


def contact_sheet(rows: Sequence[SheetRow]) -> Image.Image:
    """Returns the rows below one another as one picture; tiles are scaled to a common height, shape kept."""
    columns = max(len(row.tiles) for row in rows)
    width = GAP + columns * (TILE + GAP)
    height = len(rows) * (TITLE + TILE + CAPTION + GAP) + GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        top = GAP + number * (TITLE + TILE + CAPTION + GAP)
        pen.text((GAP, top), row.title, fill=INK, font=ImageFont.load_default(15))
        for column, (picture, caption) in enumerate(row.tiles):
            _tile(sheet, pen, (GAP + column * (TILE + GAP), top + TITLE), picture, caption)
    return sheet


def _tile(sheet: Image.Image, pen: ImageDraw.ImageDraw, at: tuple[int, int], picture: np.ndarray, caption: str) -> None:
    image = Image.fromarray(picture)
    scale = TILE / max(image.size)
    image = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)
    left, top = at[0] + (TILE - image.width) // 2, at[1] + (TILE - image.height) // 2
    sheet.paste(image, (left, top))
    pen.rectangle((left - 1, top - 1, left + image.width, top + image.height), outline=LINE)
    pen.text((at[0] + TILE // 2, at[1] + TILE + 1), caption, fill=INK, anchor="ma", font=ImageFont.load_default(12))


def ranked_sheet(
    data: Any, split: str, distances: Tensor, truth: Tensor, queries: int, top: int, titles: tuple[str, str]
) -> Image.Image:
    """Returns, for the first `queries` of a split, query and nearest items by `distances` and by `truth`, both (Q, N).

    Query q is gallery item q, and left out of its own lists; `titles` name the two distances. The captions give both,
    so that a reader sees what the model's choice costs.
    """
    rows = []
    for query in range(min(queries, len(distances))):
        for name, order_by in zip(titles, (distances, truth), strict=True):
            nearest = [item for item in order_by[query].argsort(stable=True).tolist() if item != query][:top]
            tiles = [(data.picture(split, query), "query")]
            tiles += [
                (data.picture(split, item), f"d {distances[query, item]:.3g} | gt {truth[query, item]:.3g}")
                for item in nearest
            ]
            rows.append(SheetRow(f"{data.ids(split)[query]}: top {top} by {name}", tiles))
    return contact_sheet(rows)
