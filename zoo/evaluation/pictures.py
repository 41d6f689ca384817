"""Contact sheets: a query and its ranked lists, with distance or score under every picture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from zoo.evaluation.rankings import RankedQuery, Rankings

TILE, GAP, CAPTION, TITLE = 110, 12, 20, 24
MORE = 15  # px of every caption line but the first
SWATCH, LEGEND = 14, 22  # px of a colour in a legend, and from one of its lines to the next
FRAME = 4
OUTLINE = 2
TOP = 10
TITLE_FONT, CAPTION_FONT = 15, 12
FONTS = ("DejaVuSans.ttf", "Arial Unicode.ttf", "arial.ttf")  # where Linux, macOS and Windows have many letters
FRAMES = {"relevant": (34, 139, 60), "irrelevant": (200, 40, 40), "junk": (140, 140, 140)}
WORDS = {"relevant": "yes", "irrelevant": "no", "junk": "junk"}
INK, PAPER, LINE = (30, 30, 30), (250, 250, 250), (190, 190, 190)


@dataclass(frozen=True)
class Outline:
    """Corners (x, y) in px of the picture that they are drawn on, and a colour (R, G, B)."""

    corners: Sequence[tuple[float, float]]
    colour: tuple[int, int, int]


@dataclass(frozen=True)
class Tile:
    """A picture (H, W, 3) uint8, the lines below it, what is drawn on it, and the colour (R, G, B) of its frame.

    `frame` None is a thin line.
    """

    picture: np.ndarray
    caption: str
    frame: tuple[int, int, int] | None = None
    outlines: Sequence[Outline] = ()


@dataclass(frozen=True)
class SheetRow:
    """One line of a sheet: a title and tiles."""

    title: str
    tiles: Sequence[Tile]


def contact_sheet(rows: Sequence[SheetRow], side: int = TILE) -> Image.Image:
    """Returns the rows below one another as one picture; tiles fit into `side` × `side` px, shape kept."""
    columns = max(len(row.tiles) for row in rows)
    lines = max(tile.caption.count("\n") for row in rows for tile in row.tiles)
    step = TITLE + side + CAPTION + lines * MORE + GAP
    sheet = Image.new("RGB", (GAP + columns * (side + GAP), len(rows) * step + GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        top = GAP + number * step
        pen.text((GAP, top), row.title, fill=INK, font=font(TITLE_FONT))
        for column, tile in enumerate(row.tiles):
            _draw(sheet, pen, (GAP + column * (side + GAP), top + TITLE), tile, side)
    return sheet


def _draw(sheet: Image.Image, pen: ImageDraw.ImageDraw, at: tuple[int, int], tile: Tile, side: int) -> None:
    image = Image.fromarray(tile.picture)
    scale = side / max(image.size)
    image = image.resize([max(1, round(length * scale)) for length in image.size], Image.Resampling.LANCZOS)
    for outline in tile.outlines:
        _outline(image, [(x * scale, y * scale) for x, y in outline.corners], outline.colour)
    left, top = at[0] + (side - image.width) // 2, at[1] + (side - image.height) // 2
    sheet.paste(image, (left, top))
    edge = FRAME if tile.frame else 1
    around = (left - edge, top - edge, left + image.width + edge - 1, top + image.height + edge - 1)
    pen.rectangle(around, outline=tile.frame or LINE, width=edge)
    below = (at[0] + side // 2, at[1] + side + FRAME)
    pen.text(below, tile.caption, fill=INK, anchor="ma", align="center", font=font(CAPTION_FONT))


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Returns a font of the system with letters of many languages, else Pillow's own, which knows ASCII only."""
    for name in FONTS:
        try:
            return ImageFont.truetype(name, round(size * 5 / 6))  # as wide as Pillow's own is at `size`
        except OSError:
            continue
    return ImageFont.load_default(size)


def _outline(image: Image.Image, corners: list[tuple[float, float]], colour: tuple[int, int, int]) -> None:
    """Draws a closed line with a dark rim, so that it is seen on any picture."""
    held = [(_held(x, image.width), _held(y, image.height)) for x, y in corners]
    pen = ImageDraw.Draw(image)
    for ink, width in ((INK, OUTLINE + 2), (colour, OUTLINE)):
        pen.line([*held, held[0]], fill=ink, width=width, joint="curve")


def _held(value: float, size: int) -> float:
    """Returns a position on the picture's border as one inside it, where a line is seen; others stay."""
    return min(max(value, 1), size - 2) if -OUTLINE <= value <= size + OUTLINE else value


def legend(names: Sequence[str], colours: Sequence[tuple[int, int, int]], width: int) -> Image.Image:
    """Returns a strip of so many px with a swatch and the name of every class, in as many lines as they need."""
    letters = font(CAPTION_FONT)
    places, x, y = [], GAP, 0
    for name in names:
        needed = SWATCH + 6 + round(letters.getlength(name)) + GAP
        if x > GAP and x + needed > width:
            x, y = GAP, y + LEGEND
        places.append((x, y))
        x += needed
    strip = Image.new("RGB", (width, y + LEGEND + GAP), PAPER)
    pen = ImageDraw.Draw(strip)
    for name, colour, (x, y) in zip(names, colours, places, strict=True):
        pen.rectangle((x, y, x + SWATCH, y + SWATCH), fill=tuple(colour), outline=LINE)
        pen.text((x + SWATCH + 6, y + SWATCH // 2), name, fill=INK, anchor="lm", font=letters)
    return strip


def ranked_sheet(
    data: Any, split: str, orders: Mapping[str, Tensor], truth: Tensor, queries: int, top: int
) -> Image.Image:
    """Returns, for the first `queries` of a split, query and nearest items by each of `orders`: title → (Q, N).

    Query q is gallery item q, and left out of its own lists, as is what is infinitely far. The captions give the
    distance that ordered the row and that of the ground truth `truth` (Q, N), so that a reader sees what a model's
    choice costs.
    """
    rows = []
    for query in range(min(queries, len(truth))):
        for title, distances in orders.items():
            order = distances[query].argsort(stable=True).tolist()
            nearest = [item for item in order if item != query and distances[query, item] < np.inf][:top]
            tiles = [Tile(data.picture(split, query), "query")]
            tiles += [Tile(data.picture(split, item), _caption(distances, truth, query, item)) for item in nearest]
            key = "gt: its distance by the ground truth" + ("" if distances is truth else ", d: by the descriptor")
            rows.append(SheetRow(f"{data.ids(split)[query]}: top {top} by {title} ({key})", tiles))
    return contact_sheet(rows)


def _caption(distances: Tensor, truth: Tensor, query: int, item: int) -> str:
    known = f"gt {truth[query, item]:.3g}"
    return known if distances is truth else f"d {distances[query, item]:.3g} | {known}"


def ranking_sheet(rankings: Rankings, data: Any, queries: int) -> Image.Image | None:
    """Returns, for the first `queries`, the query and its nearest items, framed green, red or grey.

    Green is relevant, red irrelevant, grey junk. None without any query or pictures (`data` None).
    """
    rows = [_ranked_row(rankings, query, data) for query in rankings.queries[:queries] if data is not None]
    return contact_sheet(rows) if rows else None


def _ranked_row(rankings: Rankings, query: RankedQuery, data: Any) -> SheetRow:
    tiles = [Tile(data.picture_by_id(rankings.query_split, query.image, query.box), "query")]
    for item in query.ranked[:TOP]:
        caption = " | ".join(filter(None, (f"{item.score:.3g}", WORDS.get(item.relevance), item.note)))
        picture = data.picture_by_id(rankings.gallery_split, item.id)
        tiles.append(Tile(picture, caption, FRAMES.get(item.relevance)))
    found = "" if query.relevant_total is None else f", {query.relevant_total} relevant in the gallery"
    return SheetRow(f"{query.id}: top {len(tiles) - 1} by {rankings.descriptor}{found}", tiles)
