"""Contact sheets, judged by their pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import ImageFont

from zoo.evaluation import pictures
from zoo.evaluation.pictures import FONTS, GAP, TILE, TITLE, Outline, SheetRow, Tile, contact_sheet, ranked_sheet


class ColourData:
    """Items that are plain colours, so that a sheet shows by its pixels which item stands where."""

    COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], dtype=np.uint8)

    def picture(self, split, position):
        return np.broadcast_to(self.COLOURS[position], (20, 20, 3)).copy()

    def ids(self, split):
        return [f"item {position}" for position in range(4)]


def tile_colour(sheet, row, column):
    step = sheet.height // (sheet.height // (TITLE + TILE + GAP))
    x = GAP + column * (TILE + GAP) + TILE // 2
    y = GAP + row * step + TITLE + TILE // 2
    return np.asarray(sheet)[y, x]


def test_lists_stand_in_order_and_without_the_query():
    distances = torch.tensor([[0.0, 3.0, 1.0, 2.0]])
    truth = torch.tensor([[0.0, 1.0, 3.0, 2.0]])
    sheet = ranked_sheet(ColourData(), "val", {"model": distances, "truth": truth}, truth, queries=1, top=3)
    shown = [[tuple(tile_colour(sheet, row, column)) for column in range(4)] for row in range(2)]
    colours = [tuple(colour) for colour in ColourData.COLOURS]
    assert shown == [[colours[i] for i in order] for order in ((0, 2, 3, 1), (0, 1, 3, 2))]


def test_shapes_of_pictures_are_kept():
    tall, wide = np.zeros((40, 10, 3), np.uint8), np.zeros((10, 40, 3), np.uint8)
    sheet = np.asarray(contact_sheet([SheetRow("row", [Tile(tall, "tall"), Tile(wide, "wide")])]))
    black = (sheet == 0).all(-1)
    heights = [black[:, GAP + i * (TILE + GAP) : GAP + i * (TILE + GAP) + TILE].any(1).sum() for i in range(2)]
    assert abs(heights[0] - TILE) <= 2
    assert abs(heights[1] - TILE / 4) <= 2


def test_outlines_lie_where_they_are_in_the_picture():
    grey, colour = np.full((20, 40, 3), 128, np.uint8), (255, 0, 0)
    outlines = [Outline([(10, 5), (30, 5), (30, 15), (10, 15)], colour)]
    sheet = np.asarray(contact_sheet([SheetRow("row", [Tile(grey, "two\nlines", outlines=outlines)])], side=160))
    drawn = np.argwhere((sheet == colour).all(-1)) - [GAP + TITLE + 40, GAP]  # the picture is 160 × 80, in the middle
    assert np.abs(drawn.min(0) - [20, 40]).max() <= 2
    assert np.abs(drawn.max(0) - [60, 120]).max() <= 2
    whole = [Outline([(0, 0), (40, 0), (40, 20), (0, 20)], colour)]
    sheet = np.asarray(contact_sheet([SheetRow("row", [Tile(grey, "", outlines=whole)])], side=160))
    assert (sheet == colour).all(-1).sum() > 2 * (160 + 80)  # its border is drawn inside


def titled(title):
    return np.asarray(contact_sheet([SheetRow(title, [Tile(np.zeros((9, 9, 3), np.uint8), title)])]))


def has_font(name):
    try:
        return bool(ImageFont.truetype(name, 10))
    except OSError:
        return False


def test_letters_outside_ascii_are_drawn_where_the_system_has_a_font():
    if not any(map(has_font, FONTS)):
        pytest.skip(f"the system has none of the fonts {', '.join(FONTS)}")
    drawn = [titled(letter) for letter in ("é", "я", "…", "\U0010fffe")]  # the last is a letter that no font has
    assert all(not np.array_equal(a, b) for place, a in enumerate(drawn) for b in drawn[:place])


def test_without_such_a_font_a_sheet_is_drawn_in_pillows_own(monkeypatch):
    monkeypatch.setattr(pictures, "FONTS", ("no such font.ttf",))
    pictures.font.cache_clear()
    try:
        assert not np.array_equal(titled("a"), titled("b"))
        assert np.array_equal(titled("é"), titled("я"))
    finally:
        pictures.font.cache_clear()
