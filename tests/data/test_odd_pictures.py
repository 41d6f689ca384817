"""Odd, damaged and hostile picture files: what is read of them, and what is said of those that can't be."""

from __future__ import annotations

import os
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

import zoo
from zoo.data._pictures import measure, read_picture
from zoo.files import BadFile

RNG = np.random.default_rng(0)
SMOOTH = cv2.GaussianBlur(RNG.integers(0, 255, (40, 56, 3), dtype=np.uint8), (0, 0), 4)  # survives JPEG


def pixels(path, upright=True):
    """Reads a file, and checks that its header promised the size that it has."""
    picture = read_picture(path, upright)
    assert measure(path, upright) == picture.size == picture.pixels.size
    return np.asarray(picture.pixels).astype(int)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, colour_type=0, notes=b""):
    """Returns a PNG of one-bit or 8-bit zeros, small on disk whatever its size, `notes` behind the pixels."""
    line = 1 + (width + 7) // 8
    squeezer = zlib.compressobj(9)
    rows = b"".join(squeezer.compress(bytes(line * 1000)) for _ in range(height // 1000))
    rows += squeezer.compress(bytes(line * (height % 1000))) + squeezer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, colour_type, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", rows), notes, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.jpg", b""),
        ("text.png", b"no picture"),
        ("page.jpg", b"<html><title>302 Found</title></html>"),
        ("magic.png", b"\x89PNG\r\n\x1a\n and no more"),
        ("magic.gif", b"GIF89a"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    for function in (read_picture, measure):
        with pytest.raises(BadFile, match=rf"{name} can't be read"):
            function(path, True)


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif", "gif", "bmp"])
def test_a_truncated_picture_is_named(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    Image.fromarray(SMOOTH).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BadFile, match="can't be read"):
        read_picture(path, True)


def test_cmyk_of_adobe_is_read_as_opencv_reads_it(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(SMOOTH).convert("CMYK").save(path, quality=98)
    assert b"Adobe" in path.read_bytes()[:200]  # which means that its values are inverted
    assert abs(pixels(path) - SMOOTH).mean() < 3
    assert abs(pixels(path) - cv2.imread(str(path))[:, :, ::-1]).mean() < 3


def test_sixteen_bits_of_grey_and_colour_become_eight(tmp_path):
    colour = RNG.integers(0, 65536, (9, 7, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "colour.png"), colour)
    cv2.imwrite(str(tmp_path / "grey.png"), colour[:, :, 0])
    assert abs(pixels(tmp_path / "colour.png") - colour[:, :, ::-1] / 257).max() <= 1
    assert abs(pixels(tmp_path / "grey.png") - colour[:, :, :1] / 257).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_what_is_transparent_lies_on_white(tmp_path, mode):
    picture = Image.new("RGBA", (8, 4), (200, 100, 0, 255))
    picture.paste((200, 100, 0, 0), (0, 0, 4, 4))
    options = {}
    if mode == "P":
        picture = Image.fromarray(np.repeat([[0, 1]], 4, axis=1).repeat(4, axis=0).astype(np.uint8), "P")
        picture.putpalette([10, 20, 30, 200, 100, 0])
        options = {"transparency": 0}
    elif mode == "RGB":
        flat = np.zeros((4, 8, 3), np.uint8)
        flat[:, 4:] = 200, 100, 0
        picture, options = Image.fromarray(flat), {"transparency": (0, 0, 0)}
    else:
        picture = picture.convert(mode)
    picture.save(tmp_path / "a.png", **options)
    found = pixels(tmp_path / "a.png")
    opaque = [200, 100, 0] if mode != "LA" else [118] * 3
    assert (found[:, :4] == 255).all()
    assert (found[:, 4:] == opaque).all()


def test_half_transparency_is_mixed_with_white(tmp_path):
    Image.new("RGBA", (2, 2), (0, 0, 0, 128)).save(tmp_path / "a.webp", lossless=True)
    assert (pixels(tmp_path / "a.webp") == 127).all()


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_undone_in_every_format(tmp_path, kind, orientation):
    picture = Image.fromarray(SMOOTH)
    exif = picture.getexif()
    exif[0x0112] = orientation
    picture.save(tmp_path / f"a.{kind}", exif=exif)
    with Image.open(tmp_path / f"a.{kind}") as opened:
        opened.load()  # Pillow turns a TIFF here
        wanted = np.asarray(ImageOps.exif_transpose(opened)).astype(int)
    assert wanted.shape[:2] == (SMOOTH.shape[:2] if orientation < 5 else SMOOTH.shape[1::-1])
    assert np.array_equal(pixels(tmp_path / f"a.{kind}"), wanted)
    assert pixels(tmp_path / f"a.{kind}", upright=False).shape[2] == 3


def test_an_orientation_behind_the_pixels_of_a_png_counts(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a.png").write_bytes(png(30, 20, notes=chunk(b"eXIf", exif.tobytes()[6:])))
    assert pixels(tmp_path / "a.png").shape == (30, 20, 3)
    (tmp_path / "b.png").write_bytes(png(30, 20, notes=chunk(b"tEXt", b"Comment\0taken upside down")))
    assert pixels(tmp_path / "b.png").shape == (20, 30, 3)


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_a_damaged_exif_block_costs_nothing(tmp_path, kind):
    Image.new("RGB", (8, 6), (9, 9, 9)).save(tmp_path / f"a.{kind}", exif=b"Exif\0\0no exif at all", lossless=True)
    assert pixels(tmp_path / f"a.{kind}").mean() == 9


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_the_first_frame_of_an_animation_counts(tmp_path, kind):
    frames = [Image.new("RGB", (6, 4), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    frames[0].save(tmp_path / f"a.{kind}", save_all=True, append_images=frames[1:], lossless=True)
    assert (pixels(tmp_path / f"a.{kind}").mean((0, 1)) == [255, 0, 0]).all()


@pytest.mark.parametrize("side", [20_000, 10_000])
def test_a_huge_picture_is_refused_before_it_fills_the_memory(tmp_path, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(side, side))
    assert path.stat().st_size < 100_000
    tracemalloc.start()
    for function in (read_picture, measure):
        with pytest.raises(BadFile, match=rf"bomb.png must have at most 90 million pixels .* got {side**2 // 10**6} m"):
            function(path, True)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_a_huge_jpeg_is_decoded_smaller_and_keeps_its_size_for_boxes(tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.data._pictures.MOST_PIXELS", 40 * 40)
    halves = np.zeros((120, 100, 3), np.uint8)
    halves[:, 50:] = 255
    Image.fromarray(halves).save(tmp_path / "a.jpg", quality=95)
    picture = read_picture(tmp_path / "a.jpg", True)
    assert measure(tmp_path / "a.jpg", True) == picture.size == (100, 120)
    assert picture.pixels.size == (25, 30)
    assert np.asarray(picture.cut([60, 8, 100, 48], "a")).shape == (10, 10, 3)
    assert np.asarray(picture.cut([60, 8, 100, 48], "a")).mean() > 250
    data = zoo.create("data", "folder", root=str(tmp_path), longest_side=60)
    data.setup()
    batch = next(iter(data.selection("gallery", ["a"], [[60, 8, 100, 48]])))
    assert batch.images.shape == (1, 3, 20, 20)
    assert batch.original_size.tolist() == [[40, 40]]
    Image.fromarray(halves).save(tmp_path / "a.jpg", progressive=True)
    with pytest.raises(BadFile, match="a JPEG that isn't progressive"):
        read_picture(tmp_path / "a.jpg", True)


def test_a_jpeg_beyond_pillows_own_limit_is_read_too(tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.data._pictures.MOST_PIXELS", 40 * 40)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50 * 50)
    Image.fromarray(SMOOTH).resize((112, 80)).save(tmp_path / "a.jpg", quality=95)
    assert read_picture(tmp_path / "a.jpg", True).pixels.size == (28, 20)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
def test_tiny_and_thin_pictures_keep_a_pixel_a_side(tmp_path, size):
    Image.new("RGB", size, (7, 7, 7)).save(tmp_path / "a.png")
    data = zoo.create("data", "folder", root=str(tmp_path), longest_side=16, enlarge=True)
    data.setup()
    batch = next(iter(data.loader("gallery")))
    scale = 16 / max(size)
    assert batch.images.shape[2:] == tuple(max(1, round(side * scale)) for side in size[::-1])
    assert batch.original_size.tolist() == [list(size[::-1])]


def test_names_and_suffixes_may_be_odd(tmp_path):
    names = ["ein Bild (1)", "größer, ça", "写真", "a=b", "x.y"]
    for name in names:
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.jpg", "PNG")  # and none of them is a JPEG
    data = zoo.create("data", "folder", root=str(tmp_path))
    data.setup()
    assert sorted(data.ids("gallery")) == sorted(names)
    assert sum(len(batch) for batch in data.loader("gallery")) == len(names)


def test_links_to_themselves_and_to_nowhere_are_named_when_they_are_read(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    data = zoo.create("data", "folder", root=str(tmp_path))
    data.setup()
    seen = list(data.selection("gallery", data.ids("gallery"), tolerant=True))
    assert sum(map(len, seen)) == 1
    reasons = dict(pair for batch in seen for pair in batch.unreadable)
    assert sorted(reasons) == [1, 2]
    assert all("can't be read" in reason for reason in reasons.values())


def test_what_may_not_be_read_is_named(tmp_path, monkeypatch):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "closed").mkdir()
    data = zoo.create("data", "folder", root=str(tmp_path))
    list_folder, open_file = os.scandir, Image.open

    def refuse(function, part):
        def refusing(path, *rest):
            if part in str(path):
                raise PermissionError(13, "Permission denied", str(path))
            return function(path, *rest)

        return refusing

    monkeypatch.setattr(os, "scandir", refuse(list_folder, "closed"))
    with pytest.raises(ValueError, match=r"root: .*closed can't be listed \(Permission denied\)"):
        data.setup()
    monkeypatch.setattr(os, "scandir", list_folder)
    data.setup()
    monkeypatch.setattr(Image, "open", refuse(open_file, "a.png"))
    with pytest.raises(BadFile, match=r"a\.png can't be read .*Permission denied"):
        list(data.loader("gallery"))
