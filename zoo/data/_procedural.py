"""Objects and grounds that are drawn from numbers alone: shapes of several textured parts, and textured grounds.

Objects share a small set of textures, so that two of them often have the same parts and differ in how these are
arranged. Everything is a function of its stream's name (see `zoo.data._scenes.uniforms`).
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from zoo.data._scenes import uniforms

SIDE = 224  # px of an object's square
TEXTURES = 40  # that all objects of a seed share
_PARTS = (4, 9)  # of an object, least and most
_SHADES = 2
_OCTAVES = ((5, 0.55), (17, 0.35), (60, 0.3))  # cells of a ground's longer side, and how strongly they are mixed in
_CLUTTER = 7  # shapes on a ground


def numbers(stream: str, count: int) -> np.ndarray:
    """Returns the (count,) float64 numbers in [0, 1) of a stream."""
    return uniforms(stream, 0, 1, count)[0]


def drawn_object(seed: int, number: int) -> tuple[Image.Image, Image.Image]:
    """Returns an object's pixels (RGB) and its mask (L, 0 or 255), both `SIDE` px square."""
    draws = numbers(f"cut_paste object {seed} {number}", 64)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32) / (SIDE / 2) - 1 + 1 / SIDE
    count = _PARTS[0] + int(draws[0] * (_PARTS[1] - _PARTS[0] + 1))
    centres = draws[1 : 1 + 2 * count].reshape(count, 2).astype(np.float32) * 1.5 - 0.75
    away = np.stack([(x - cx) ** 2 + (y - cy) ** 2 for cx, cy in centres])
    part = away.argmin(axis=0)
    pixels = np.empty((SIDE, SIDE, 3), np.float32)
    for place in range(count):
        inside = part == place
        texture = int(draws[20 + place] * TEXTURES)
        pixels[inside] = _texture(seed, texture, x[inside], y[inside])
    inside = _polygon(draws[32:], x, y) if draws[31] < 0.5 else _blob(draws[32:], x, y)
    mask = Image.fromarray((inside * 255).astype(np.uint8))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), mask


def drawn_ground(stream: str, size: tuple[int, int]) -> Image.Image:
    """Returns a ground of (width, height) px: clouds of colour, shapes of one colour on them, and grain."""
    draws = numbers(f"{stream} ground", 200)
    half = [max(1, side // 2) for side in size]  # clouds are smooth: at half the size they take a quarter of the time
    ground = Image.new("RGB", half, tuple(int(value * 255) for value in draws[:3]))
    for octave, (cells, strength) in enumerate(_OCTAVES):
        columns, rows = (max(2, round(cells * side / max(size))) for side in size)
        cloud = (numbers(f"{stream} cloud {octave}", rows * columns * 3) * 255).astype(np.uint8)
        cloud = Image.fromarray(cloud.reshape(rows, columns, 3)).resize(half, Image.Resampling.BICUBIC)
        ground = Image.blend(ground, cloud, strength)
    ground = ground.resize(size, Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(ground)
    for shape in draws[3 : 3 + int(draws[199] * (_CLUTTER + 1)) * 16].reshape(-1, 16):
        _clutter(pen, shape, size)
    grain = np.random.Philox(key=int(draws[198] * 2**53)).random_raw(-(-size[0] * size[1] // 8)).view(np.uint8)
    grain = Image.fromarray(grain[: size[0] * size[1]].reshape(size[::-1])).convert("RGB")
    return Image.blend(ground, grain, 0.02 + 0.08 * draws[197])


def _texture(seed: int, texture: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the (N, 3) colours of a texture at points of [-1, 1]²: stripes, checks, dots or rings of two shades."""
    draws = numbers(f"cut_paste texture {seed} {texture}", 12).astype(np.float32)
    shades = draws[:6].reshape(_SHADES, 3) * 255
    turn, period = draws[6] * np.float32(np.pi), 0.1 + 0.22 * draws[7]
    u = (np.cos(turn) * x + np.sin(turn) * y) * (np.float32(2 * np.pi) / period)
    v = (np.cos(turn) * y - np.sin(turn) * x) * (np.float32(2 * np.pi) / period)
    kind = int(draws[8] * 5)
    if kind == 0:
        wave = np.sin(u)
    elif kind == 1:
        wave = np.sin(u) * np.sin(v) * 3
    elif kind == 2:
        wave = np.sin(u) + np.sin(v) - 0.6
    elif kind == 3:
        wave = np.sin(np.hypot(u, v))
    else:
        wave = np.full_like(u, -1) + 0.4 * np.sin(u / 3)
    share = np.clip(wave * 2 + 0.5, 0, 1)[:, None]
    return shades[0] * (1 - share) + shades[1] * share


def _polygon(draws: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    corners = 4 + int(draws[0] * 6)
    angles = (np.arange(corners) + 0.6 * draws[1 : 1 + corners]) * 2 * np.pi / corners
    radii = 0.55 + 0.4 * draws[12 : 12 + corners]
    points = (np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None] + 1) * (SIDE / 2)
    shape = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(shape).polygon([tuple(point) for point in points], fill=1)
    return np.asarray(shape, bool)


def _blob(draws: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    angle, radius = np.arctan2(y, x), np.full_like(x, 0.7)
    for wave, (height, phase) in enumerate(draws[:8].reshape(-1, 2), start=1):
        radius += 0.22 * height / wave * np.sin(wave * angle + 2 * np.pi * phase)
    return np.hypot(x, y) < radius.clip(0.3, 0.97)


def _clutter(pen: ImageDraw.ImageDraw, draws: np.ndarray, size: tuple[int, int]) -> None:
    corners, reach = 3 + int(draws[0] * 4), 0.04 + 0.16 * draws[1]
    angles = (np.arange(corners) + draws[2]) * 2 * np.pi / corners
    radii = reach * max(size) * (0.4 + 0.6 * draws[3 : 3 + corners])
    x, y = np.cos(angles) * radii + draws[10] * size[0], np.sin(angles) * radii + draws[11] * size[1]
    pen.polygon(list(zip(x, y, strict=True)), fill=tuple(int(v * 255) for v in draws[12:15]))
