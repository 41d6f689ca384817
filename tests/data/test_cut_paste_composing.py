"""Pasted objects: a flat colour on a flat ground is the alpha itself, from which everything is recomputed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from zoo.data._compose import DRAWS, MARGIN, Recipe, cut_out, paste

PLAIN = {
    **{"canvas": 240, "rotation": 0.0, "perspective": 0.0, "scale": (0.5, 0.5), "enlargement": 9.0, "jitter": 0.0},
    **{"crop": (1.0, 1.0), "border": (0.0, 0.0), "visible": 0.6},
}
WILD = {**PLAIN, "rotation": 180.0, "perspective": 0.3, "scale": (0.1, 1.4), "crop": (0.3, 1.0), "border": (0.0, 8.0)}


def red_cutout(shape, size=(150, 120), longest=480):
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).polygon(shape, fill=255)
    return cut_out(Image.new("RGB", size, (255, 0, 0)), mask, longest)


def pasted(cutout, draws, **changes):
    view = paste(cutout, Image.new("RGB", (240, 180)), Recipe(**{**PLAIN, **changes}), np.asarray(draws))
    return view, np.asarray(view.picture)[..., 0] >= 128


def extent(solid):
    y, x = solid.nonzero()
    return x.min(), y.min(), x.max() + 1, y.max() + 1


def draws_of(seed):
    return np.random.default_rng(seed).random(DRAWS)


CORNERS = st.lists(st.tuples(st.integers(0, 149), st.integers(0, 119)), min_size=3, max_size=7, unique=True)


@settings(max_examples=80)
@given(CORNERS, st.integers(0, 10**6))
def test_boxes_are_exact_to_the_pixel(corners, seed):
    box = Image.new("L", (150, 120))
    ImageDraw.Draw(box).polygon(corners, fill=255)
    if np.asarray(box).astype(bool).sum() < 16:
        return
    view, solid = pasted(red_cutout(corners), draws_of(seed), **WILD)
    red = np.asarray(view.picture)[..., 0]
    assert view.box == extent(solid if solid.any() else red == red.max())


@settings(max_examples=50)
@given(st.integers(0, 10**6))
def test_a_crop_leaves_the_visible_share(seed):
    cutout = red_cutout([(20, 20), (130, 40), (60, 110)])
    changes = {**WILD, "crop": (0.3, 0.9)}
    _, cut = pasted(cutout, draws_of(seed), **changes)
    _, whole = pasted(cutout, draws_of(seed), **{**changes, "crop": (1.0, 1.0)})
    assert cut.shape <= whole.shape
    # 1 % for a turned object that reaches beyond the background by a px or two.
    assert cut.sum() >= (0.6 - 0.01) * whole.sum()


def test_crops_do_cut_objects():
    cutout = red_cutout([(20, 20), (130, 40), (60, 110)])
    views = [pasted(cutout, draws_of(seed), **{**WILD, "border": (0, 0)}) for seed in range(60)]
    on_border = [solid[0].any() or solid[-1].any() or solid[:, 0].any() or solid[:, -1].any() for _, solid in views]
    assert 10 < sum(on_border) < 60


def test_scale_is_the_share_of_the_background_that_the_turned_object_fills():
    upright = red_cutout([(20, 20), (119, 20), (119, 69), (20, 69)])  # 100 × 50
    draws = draws_of(1)
    view, _ = pasted(upright, draws)
    x0, y0, x1, y1 = view.box
    assert (x1 - x0, y1 - y0) == pytest.approx((120, 60), abs=1)  # half of 240 before half of 180
    draws[0] = 1.0
    x0, y0, x1, y1 = pasted(upright, draws, rotation=90.0)[0].box
    assert (x1 - x0, y1 - y0) == pytest.approx((45, 90), abs=1)
    x0, y0, x1, y1 = pasted(upright, draws, enlargement=0.5)[0].box
    assert (x1 - x0, y1 - y0) == pytest.approx((50, 25), abs=1)


def test_colours_arrive_as_they_are_and_turn_the_right_way():
    """Halves of two colours show the direction: clockwise on the screen."""
    picture = Image.new("RGB", (100, 100), (200, 0, 0))
    picture.paste((0, 0, 200), (50, 0, 100, 100))
    cutout = cut_out(picture, Image.new("L", (100, 100), 255), 480)
    draws = draws_of(3)
    draws[0] = 1.0
    view, _ = pasted(cutout, draws, rotation=90.0)
    x0, y0, x1, y1 = view.box
    turned = np.asarray(view.picture)[y0:y1, x0:x1]
    expected = np.asarray(picture.rotate(-90).resize((x1 - x0, y1 - y0)))
    assert np.abs(turned.astype(int) - expected)[3:-3, 3:-3].mean() < 3


def test_borders_are_blended_as_wide_as_asked():
    cutout = red_cutout([(20, 20), (119, 20), (119, 69), (20, 69)])
    widths = []
    for border in (0.0, 4.0, 10.0):
        red = np.asarray(pasted(cutout, draws_of(5), border=(border, border))[0].picture)[..., 0]
        row = red[red.sum(axis=1).argmax()]
        widths.append(int(((row > 12) & (row < 243)).sum()) / 2)
    assert widths[0] <= 2
    assert widths[1:] == pytest.approx([4, 10], abs=1.5)


def test_the_photo_s_border_leaves_no_dark_seam():
    """An object that its photo cuts off is continued beyond, else black would show in the blended border."""
    cutout = cut_out(Image.new("RGB", (60, 60), (250, 250, 250)), Image.new("L", (60, 60), 255), 480)
    assert cutout.mask.size == (60 + 2 * MARGIN, 60 + 2 * MARGIN)
    white = Image.new("RGB", (240, 180), (250, 250, 250))
    view = paste(cutout, white, Recipe(**{**PLAIN, "border": (8.0, 8.0)}), draws_of(2))
    assert np.asarray(view.picture).min() >= 249


def test_jitter_changes_the_object_alone():
    cutout = red_cutout([(20, 20), (119, 20), (119, 69), (20, 69)])
    calm, wild = (np.asarray(pasted(cutout, draws_of(7), jitter=jitter)[0].picture) for jitter in (0.0, 0.5))
    inside = calm[..., 0] > 0
    assert (wild[~inside] == calm[~inside]).all()
    assert (wild[inside] != calm[inside]).any(axis=1).mean() > 0.9


def test_large_cut_outs_are_shrunk():
    cutout = red_cutout([(0, 0), (149, 0), (149, 119), (0, 119)], longest=50)
    left, top, right, bottom = cutout.mask.getbbox()
    assert 48 <= right - left <= 52
    assert 38 <= bottom - top <= 42
