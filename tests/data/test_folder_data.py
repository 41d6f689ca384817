"""Folders of images: names, labels, selections, boxes, and what is refused."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

import zoo
from zoo.data._loading import UnrepeatedSampler
from zoo.files import BadFile
from zoo.registry import UsageError


def write(path, colour, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def images(root, **changed):
    data = zoo.create("data", "folder", root=str(root), **{"image_size": 10, "batch_size": 2}, **changed)
    data.setup()
    return data


@pytest.fixture
def root(tmp_path):
    for number, colour in enumerate(((255, 0, 0), (0, 255, 0), (0, 0, 255))):
        write(tmp_path / "gallery" / f"b{2 - number}.png", colour)
    (tmp_path / "gallery" / "notes.txt").write_text("no image")
    return tmp_path / "gallery"


def test_names_are_stems_in_order_and_batches_follow(root):
    data = images(root)
    assert data.ids("gallery") == ["b0", "b1", "b2"]
    assert (data.query_split, data.size("gallery")) == ("gallery", 3)
    batches = list(data.loader("gallery"))
    assert [batch.index.tolist() for batch in batches] == [[0, 1], [2]]
    means = torch.cat([batch.images for batch in batches]).mean((2, 3))
    assert torch.equal(means, torch.eye(3).flip(0))


def test_names_are_paths_or_stems(tmp_path):
    for folder in ("cat", "dog"):
        write(tmp_path / folder / "1.jpg", (0, 0, 0))
    data = images(tmp_path)
    assert data.ids("gallery") == ["cat/1", "dog/1"]
    assert data.labels("gallery") == ["cat", "dog"]
    assert images(tmp_path / "dog", names="stem").ids("gallery") == ["1"]
    with pytest.raises(ValueError, match=r"root: names=stem calls both .*cat/1\.jpg and .*dog/1\.jpg '1'"):
        images(tmp_path, names="stem")


def test_several_folders_and_queries_of_their_own(root, tmp_path):
    write(tmp_path / "more" / "c.jpg", (9, 9, 9))
    write(tmp_path / "asked" / "b0.webp", (100, 100, 100))
    data = zoo.create("data", "folder", root=[str(root), str(tmp_path / "more")], queries=str(tmp_path / "asked"))
    data.setup()
    assert data.ids("gallery") == ["b0", "b1", "b2", "c"]
    assert (data.query_split, data.ids("query")) == ("query", ["b0"])
    assert abs(int(data.picture_by_id("query", "b0").mean()) - 100) <= 1
    assert data.picture_by_id("gallery", "b0").mean() == 85


def test_a_selection_keeps_order_and_cuts_boxes(tmp_path):
    left_black = np.zeros((30, 40, 3), np.uint8)
    left_black[:, 20:] = 255
    tmp_path.joinpath("g").mkdir()
    Image.fromarray(left_black).save(tmp_path / "g" / "a.png")
    write(tmp_path / "g" / "b.png", (255, 255, 255))
    data = images(tmp_path / "g")
    boxes = [None, [0.4, 0.0, 19.6, 30.0], [20.2, -3.0, 99.0, 15.0]]
    batches = list(data.selection("gallery", ["b", "a", "a"], boxes))
    assert torch.cat([batch.index for batch in batches]).tolist() == [0, 1, 2]
    assert torch.cat([batch.images for batch in batches]).mean((1, 2, 3)).tolist() == [1.0, 0.0, 1.0]
    assert data.picture_by_id("gallery", "a", boxes[1]).shape == (30, 20, 3)
    assert data.picture_by_id("gallery", "a", boxes[2]).shape == (15, 20, 3)


def test_resizing_is_antialiased_bilinear(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    found = next(iter(images(tmp_path).loader("gallery"))).images
    pixels = torch.from_numpy(noise).movedim(2, 0)[None].float()
    wanted = F.interpolate(pixels, (10, 10), mode="bilinear", antialias=True) / 255
    assert torch.allclose(found, wanted, atol=1.5 / 255)


def test_ranks_share_a_selection(root):
    assert [list(UnrepeatedSampler(3, rank, 2)) for rank in (0, 1)] == [[0, 2], [1]]


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"root": "/nowhere"}, FileNotFoundError, r"root must be a folder of images, got /nowhere"),
        ({"queries": "/nowhere"}, FileNotFoundError, r"set data\.queries"),
        ({"root": []}, ValueError, "root must name at least one folder"),
        ({"names": "key"}, ValueError, "names must be one of path, stem, file, got 'key'"),
        ({"image_size": 0}, ValueError, "image_size must be an integer of at least 1, got 0"),
        ({"upright": "no"}, ValueError, "upright must be true or false, got 'no'"),
    ],
)
def test_wrong_arguments_are_named(root, changed, error, message):
    with pytest.raises(error, match=message):
        zoo.create("data", "folder", **{"root": str(root), **changed}).setup()


def test_empty_flat_damaged_and_unknown(root, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="got none below"):
        images(tmp_path / "empty")
    data = images(root)
    with pytest.raises(ValueError, match="a sub-folder for each class"):
        data.labels("gallery")
    with pytest.raises(ValueError, match=r"split 'gallery' of 3 images has none called 'b9'"):
        data.selection("gallery", ["b9"])
    with pytest.raises(ValueError, match="box must overlap"):
        list(data.selection("gallery", ["b0"], [[100.0, 0.0, 120.0, 10.0]]))
    (root / "b1.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"b1\.png can't be read"):
        list(data.loader("gallery"))
    write(root / "b0.jpg", (0, 0, 0))
    with pytest.raises(ValueError, match=r"names=path calls both .*b0\.jpg and .*b0\.png 'b0'; data\.names=file"):
        images(root)
    assert images(root, names="file").ids("gallery")[:2] == ["b0.jpg", "b0.png"]


def test_a_folder_is_asked_for():
    with pytest.raises(UsageError, match=r"what only you can know: data\.root=… \(folder of your images, or a list"):
        zoo.create("data", "folder")


def test_paths_are_absolute_without_dots_and_by_the_links_that_were_named(root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    (tmp_path / "link").symlink_to(root)
    for named, found in ((".", root), ("../gallery/../link", tmp_path / "link"), (f"{root}/../gallery/", root)):
        assert os.fspath(images(named).path("gallery", "b0")) == f"{found}/b0.png"
    (tmp_path / "deep" / "in").mkdir(parents=True)
    (tmp_path / "in").symlink_to(tmp_path / "deep" / "in")
    (tmp_path / "deep" / "gallery").symlink_to(root)
    write(tmp_path / "gallery" / "c.png", (0, 0, 0))
    assert images("../in/../gallery").ids("gallery") == ["b0", "b1", "b2", "c"]  # not what stands beside the link


def test_files_of_kinds_that_are_not_read_are_counted_in_one_warning(root, caplog):
    for name in ("a.heic", "sub/b.HEIC", "c.dng", ".hidden.heic"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    data = images(root)
    assert data.ids("gallery") == ["b0", "b1", "b2"]
    assert [record.getMessage() for record in caplog.records] == [
        "root: left out: 1 .dng, 2 .heic (kinds that aren't read); convert them to JPEG or PNG"
    ]


def test_numbers_in_names_are_sorted_as_numbers_and_links_are_followed_once(tmp_path):
    for number in (1, 2, 10):
        write(tmp_path / "g" / f"q{number}.png", (0, 0, 0))
    (tmp_path / "g" / "again").symlink_to(tmp_path / "g")
    write(tmp_path / "elsewhere" / "r.png", (0, 0, 0))
    (tmp_path / "g" / "more").symlink_to(tmp_path / "elsewhere")
    assert images(tmp_path / "g").ids("gallery") == ["more/r", "q1", "q2", "q10"]


def mean_of(path, **changed):
    return images(path.parent, **changed).picture("gallery", 0).mean((0, 1)).tolist()


def test_sixteen_bits_become_eight_and_other_ranges_are_refused(tmp_path):
    gradient = np.linspace(0, 65535, 256 * 20).astype(np.uint16).reshape(20, 256)
    (tmp_path / "wide").mkdir()
    Image.fromarray(gradient).save(tmp_path / "wide" / "a.png")
    assert mean_of(tmp_path / "wide" / "a.png") == pytest.approx([127.5] * 3, abs=1)
    for name, values in (("float", gradient.astype(np.float32)), ("large", gradient.astype(np.int32) * 100)):
        (tmp_path / name).mkdir()
        Image.fromarray(values).save(tmp_path / name / "a.tiff")
        with pytest.raises(BadFile, match="convert it to 8 bits"):
            mean_of(tmp_path / name / "a.tiff")


def test_pictures_are_turned_upright_on_demand_and_hidden_files_left_out(tmp_path):
    picture = Image.new("RGB", (40, 20), (255, 255, 255))
    exif = picture.getexif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    picture.save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "._a.jpg").write_bytes(b"what macOS leaves beside a picture")
    write(tmp_path / ".thumbnails" / "b.jpg", (0, 0, 0))
    assert images(tmp_path).picture("gallery", 0).shape == (40, 20, 3)
    assert images(tmp_path, upright=False).picture("gallery", 0).shape == (20, 40, 3)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "CMYK", "RGBA"])
def test_every_usual_mode_is_read(tmp_path, mode):
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new("L", (8, 8), 255).convert("RGB").convert(mode).save(tmp_path / f"a.{suffix}")
    assert mean_of(tmp_path / f"a.{suffix}") == pytest.approx([255] * 3, abs=1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_undone_as_pillow_does(tmp_path, orientation):
    picture = Image.fromarray(np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3) * 3)
    exif = picture.getexif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "a.png", exif=exif)
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    assert np.array_equal(images(tmp_path).picture("gallery", 0), wanted)


def test_a_damaged_exif_block_does_not_cost_the_picture(tmp_path):
    Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / "a.png", exif=b"no exif at all")
    assert images(tmp_path).picture("gallery", 0).mean() == 9
