"""A metric over its cut-offs: as a table, and as a picture."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from zoo.evaluation.pictures import CAPTION_FONT, GAP, INK, LINE, PAPER, TITLE, TITLE_FONT, font, legend
from zoo.evaluation.tables import Table
from zoo.files import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from zoo.evaluation.report import Cell, Report

FILE = "curve.png"
_SIZE, _LEFT, _BELOW = (640, 400), 56, 44  # px of the plot with its axes, and of the margins that hold numbers
_SHADES = ((31, 119, 180), (214, 39, 40), (44, 160, 44), (148, 103, 189), (255, 127, 14), (90, 90, 90))
_WIDTH, _DOT, _STEPS = 2, 3, 6

Points = list[tuple[int | None, "Cell"]]


def points_of(report: Report, metric: str) -> dict[str, Points]:
    """Returns for each row, by its label, the cells of `metric` at its cut-offs, the smallest first.

    The whole gallery, whose cut-off is None, comes last.
    """
    curves = {}
    for row in report.rows:
        found = ((re.fullmatch(rf"{re.escape(metric)}(?:@(\d+))?", label), cell) for label, cell in row.cells.items())
        points = [(None if match[1] is None else int(match[1]), cell) for match, cell in found if match]
        curves[row.label] = sorted(points, key=lambda point: math.inf if point[0] is None else point[0])
    return curves


def curve_table(report: Report, metric: str) -> Table:
    """Returns one line for each cut-off, one column for each row of the report."""
    curves = points_of(report, metric)
    cut_offs = [k for k, _ in curves[report.own.label]]
    rows = [
        ["all" if k is None else str(k), *(str(points[line][1]) for points in curves.values())]
        for line, k in enumerate(cut_offs)
    ]
    return Table(f"{metric} over k, mean ± 95 % interval", ["k", *curves], rows)


def write_curve(report: Report, metric: str, folder: Path) -> None:
    """Writes the curves of all rows over k to curve.png, their 95 % intervals as bars; needs two cut-offs."""
    curves = {
        label: [(k, cell) for k, cell in points if k is not None and not math.isnan(cell.mean)]
        for label, points in points_of(report, metric).items()
    }
    if min(map(len, curves.values())) < 2:
        return
    with replacing(folder / FILE) as file:
        _drawn(curves, f"{report.title}: {metric} over k").save(file, format="PNG")


def _drawn(curves: Mapping[str, Points], title: str) -> Image.Image:
    shades = [_SHADES[place % len(_SHADES)] for place in range(len(curves))]
    below = legend(list(curves), shades, _SIZE[0])
    sheet = Image.new("RGB", (_SIZE[0], _SIZE[1] + TITLE + GAP + below.height), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, GAP), title, fill=INK, font=font(TITLE_FONT))
    frame = _Frame(curves)
    frame.draw(pen)
    for shade, points in zip(shades, curves.values(), strict=True):
        spots = [frame.place(k, cell.mean) for k, cell in points]
        pen.line(spots, fill=shade, width=_WIDTH)
        for (k, cell), (x, y) in zip(points, spots, strict=True):
            if not math.isnan(cell.half_width):
                ends = [frame.place(k, cell.mean + sign * cell.half_width) for sign in (-1, 1)]
                pen.line(ends, fill=shade, width=1)
            pen.ellipse((x - _DOT, y - _DOT, x + _DOT, y + _DOT), fill=shade)
    sheet.paste(below, (0, sheet.height - below.height))
    return sheet


class _Frame:
    """The axes: where a cut-off and a value stand. Values reach over all that is drawn, within 0 and 1."""

    def __init__(self, curves: Mapping[str, Points]) -> None:
        every = [point for points in curves.values() for point in points]
        self.cut_offs = sorted({k for k, _ in every})
        spread = [(cell.mean, 0 if math.isnan(cell.half_width) else cell.half_width) for _, cell in every]
        low = max(0.0, min(mean - half for mean, half in spread))
        high = min(1.0, max(mean + half for mean, half in spread))
        step = next(step for step in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2) if (high - low) / step <= _STEPS)
        first = math.floor(low / step)
        self.ticks = [tick * step for tick in range(first, max(first + 1, math.ceil(high / step - 1e-9)) + 1)]
        self.top, self.bottom = TITLE + 2 * GAP, _SIZE[1] + TITLE - _BELOW
        self.right = _SIZE[0] - 2 * GAP

    def place(self, k: int, value: float) -> tuple[float, float]:
        """Returns px (x, y) of a value, moved to the nearer edge where it lies outside."""
        across = (k - self.cut_offs[0]) / (self.cut_offs[-1] - self.cut_offs[0])
        up = min(1.0, max(0.0, (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])))
        return _LEFT + across * (self.right - _LEFT), self.bottom - up * (self.bottom - self.top)

    def draw(self, pen: ImageDraw.ImageDraw) -> None:
        """Draws lines and numbers; of cut-offs that lie close the later ones go without."""
        letters, taken = font(CAPTION_FONT), -math.inf
        for tick in self.ticks:
            y = self.place(self.cut_offs[0], tick)[1]
            pen.line([(_LEFT, y), (self.right, y)], fill=LINE)
            pen.text((_LEFT - 6, y), f"{tick:.3f}".rstrip("0").rstrip("."), fill=INK, anchor="rm", font=letters)
        for k in self.cut_offs:
            x, half = self.place(k, self.ticks[0])[0], letters.getlength(str(k)) / 2
            pen.line([(x, self.bottom), (x, self.bottom + 4)], fill=INK)
            if x - half > taken:
                pen.text((x, self.bottom + 8), str(k), fill=INK, anchor="mt", font=letters)
                taken = x + half + 4
        pen.text(((_LEFT + self.right) / 2, self.bottom + 26), "k", fill=INK, anchor="mt", font=letters)
