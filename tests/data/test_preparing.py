"""Pictures at their own shape: how large they become, and batches of one size over ranks."""

from __future__ import annotations

import io

import lightning
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import zoo
from zoo.data._loading import SameSizeBatches
from zoo.data._pictures import rectangle
from zoo.data.preparing import Preparation, prepare
from zoo.files import BadFile

OWN_SHAPE = {"image_size": None, "longest_side": 40, "enlarge": False, "upright": True}


def noise(path, width, height, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(width).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return pixels


def folder(root, **changed):
    data = zoo.create("data", "folder", **{"root": str(root), "longest_side": 40, "batch_size": 2, **changed})
    data.setup()
    return data


@pytest.fixture
def mixed(tmp_path):
    """Seven pictures of three shapes once they are at most 40 px long; c is turned, d is damaged."""
    for name, width, height in (("a", 80, 60), ("b", 60, 80), ("e", 40, 30), ("f", 8, 6), ("g", 160, 120)):
        noise(tmp_path / f"{name}.png", width, height)
    exif = Image.Exif()
    exif[0x0112] = 6
    noise(tmp_path / "c.jpg", 60, 80, exif=exif)
    (tmp_path / "d.png").write_bytes(b"no picture")
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "whole", "part", "wanted"),
    [
        ({}, (80, 60), (80, 60), (40, 30)),
        ({}, (60, 81), (60, 81), (30, 40)),
        ({}, (20, 10), (20, 10), (20, 10)),
        ({"enlarge": True}, (20, 10), (20, 10), (40, 20)),
        ({}, (80, 60), (20, 30), (10, 15)),
        ({}, (20, 10), (5, 5), (5, 5)),
        ({"enlarge": True}, (20, 10), (5, 5), (10, 10)),
        ({"longest_side": None}, (5000, 10), (5000, 10), (5000, 10)),
        ({"image_size": 12}, (80, 60), (20, 30), (12, 12)),
        ({"image_size": [10, 20]}, (80, 60), (80, 60), (20, 10)),
    ],
)
def test_a_part_is_scaled_as_its_whole_picture(changed, whole, part, wanted):
    assert Preparation(**{**OWN_SHAPE, **changed}).target(whole, part) == wanted


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"longest_side": 0}, "longest_side must be an integer of at least 1, got 0"),
        ({"longest_side": None, "enlarge": True}, "enlarge needs a longest_side"),
        ({"enlarge": "yes"}, "enlarge must be true or false, got 'yes'"),
        ({"image_size": [3, 4, 5]}, "image_size must be one integer or"),
    ],
)
def test_wrong_preparations_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        Preparation(**{**OWN_SHAPE, **changed})


def test_batches_hold_one_size_and_every_picture_once(mixed):
    data = folder(mixed)
    names = [name for name in data.ids("gallery") if name != "d"]
    batches = list(data.selection("gallery", names))
    found = {int(i): batch.images[row] for batch in batches for row, i in enumerate(batch.index)}
    sizes = {
        int(i): size.tolist() for batch in batches for i, size in zip(batch.index, batch.original_size, strict=True)
    }
    assert sorted(found) == list(range(6))
    assert [tuple(found[place].shape[1:]) for place in range(6)] == [
        (30, 40),
        (40, 30),
        (30, 40),
        (30, 40),
        (6, 8),
        (30, 40),
    ]
    assert [sizes[place] for place in range(6)] == [[60, 80], [80, 60], [60, 80], [30, 40], [6, 8], [120, 160]]
    assert [batch.index.tolist() for batch in batches] == [[0, 2], [3, 5], [1], [4]]
    wanted = Image.open(mixed / "a.png").resize((40, 30), Image.Resampling.BILINEAR)
    assert torch.equal(found[0].mul(255).round().byte(), torch.from_numpy(np.array(wanted)).movedim(2, 0))


def test_a_box_is_cut_first_and_scaled_as_the_whole(mixed):
    batch = next(iter(folder(mixed).selection("gallery", ["a"], [[10, 20, 50, 60]])))
    wanted = Image.open(mixed / "a.png").crop((10, 20, 50, 60)).resize((20, 20), Image.Resampling.BILINEAR)
    assert torch.equal(batch.images[0].mul(255).round().byte(), torch.from_numpy(np.array(wanted)).movedim(2, 0))
    assert batch.original_size.tolist() == [[40, 40]]


@pytest.mark.parametrize(
    ("box", "edges"),
    [
        ([-5.0, 20.4, 50.6, 1e9], (0, 20, 51, 60)),
        ([10.2, 10.6, 10.4, 10.7], (10, 10, 11, 11)),
        ([79.8, 0.0, 90.0, 0.3], (79, 0, 80, 1)),
        ([float("-inf"), 0, float("inf"), 7], (0, 0, 80, 7)),
        ([80.0, 0, 90, 10], None),
        ([20, 30, 20, 40], None),
        ([float("nan"), 0, 10, 10], None),
    ],
)
def test_boxes_become_whole_pixels_at_least_one(box, edges):
    if edges is None:
        with pytest.raises(BadFile, match="box must overlap the image x of 80 × 60 px, got"):
            rectangle(box, (80, 60), "x")
    else:
        assert rectangle(box, (80, 60), "x") == edges


def test_damage_ends_or_is_reported_as_asked(mixed):
    data = folder(mixed, batch_size=4)
    with pytest.raises(BadFile, match=r"d\.png can't be read"):
        list(data.loader("gallery"))
    names = data.ids("gallery")
    boxes = [None] * 5 + [[500, 0, 600, 10], None]
    batches = list(data.selection("gallery", names, boxes, tolerant=True))
    assert sorted(i for batch in batches for i in batch.index.tolist()) == [0, 1, 2, 4, 6]
    unread = [pair for batch in batches for pair in batch.unreadable]
    assert [place for place, _ in unread] == [3, 5]
    assert "d.png can't be read" in unread[0][1]
    assert "box must overlap the image" in unread[1][1]
    empty = next(batch for batch in batches if batch.unreadable)
    assert (len(empty), empty.images.shape[:2], empty.original_size.shape) == (0, (0, 3), (0, 2))
    square = list(folder(mixed, image_size=9, batch_size=4).selection("gallery", names, tolerant=True))
    assert [batch.index.tolist() for batch in square] == [[0, 1, 2], [4, 5, 6]]
    assert square[0].images.shape == (3, 3, 9, 9)
    assert [place for place, _ in square[0].unreadable] == [3]


def test_pictures_damaged_behind_their_headers_are_reported(mixed):
    whole = (mixed / "g.png").read_bytes()
    (mixed / "g.png").write_bytes(whole[: len(whole) // 2])
    batches = list(folder(mixed).selection("gallery", ["g", "a"], tolerant=True))
    assert [(batch.index.tolist(), [place for place, _ in batch.unreadable]) for batch in batches] == [([1], [0])]


def test_a_picture_that_changes_between_header_and_pixels_is_no_wrong_batch(mixed):
    data = folder(mixed)
    loader = data.selection("gallery", ["a", "e"])
    noise(mixed / "e.png", 33, 33)
    with pytest.raises(BadFile, match=r"e\.png was changed while it was read"):
        list(loader)


def test_one_picture_is_prepared_like_those_of_the_split(mixed):
    data = folder(mixed)
    for name, box in (("a", None), ("c", None), ("c", [10, 0, 70, 60])):
        wanted = next(iter(data.selection("gallery", [name], [box])))
        path = data.path("gallery", name)
        for picture in (path, str(path), Image.open(path)):
            found = data.prepare_picture(picture, box)
            assert torch.equal(found.images, wanted.images)
            assert torch.equal(found.original_size, wanted.original_size)
            assert torch.equal(prepare(picture, data.preprocessing, box).images, wanted.images)
    assert data.preprocessing == OWN_SHAPE
    assert folder(mixed, image_size=8).preprocessing["image_size"] == [8, 8]
    with pytest.raises(ValueError, match="preprocessing must have the keys image_size, longest_side, enlarge, upright"):
        prepare(mixed / "a.png", {"image_size": 3})
    with pytest.raises(BadFile, match=r"d\.png can't be read"):
        data.prepare_picture(mixed / "d.png")
    whole = (mixed / "a.png").read_bytes()
    with pytest.raises(BadFile, match="image given can't be read"):
        prepare(Image.open(io.BytesIO(whole[: len(whole) // 2])), data.preprocessing)


@given(
    sizes=st.lists(st.sampled_from(["wide", "high", None]), max_size=40),
    batch_size=st.integers(1, 7),
    world=st.integers(1, 4),
)
def test_ranks_share_every_position_once_evenly_in_batches_of_one_size(sizes, batch_size, world):
    ranks = [list(SameSizeBatches(sizes, batch_size, rank, world)) for rank in range(world)]
    given_out = [position for rank in ranks for batch in rank for position in batch]
    assert sorted(given_out) == list(range(len(sizes)))
    shares = [sum(map(len, rank)) for rank in ranks]
    assert max(shares) - min(shares) <= 1
    for batch in (batch for rank in ranks for batch in rank):
        assert 1 <= len(batch) <= batch_size
        assert len({sizes[position] for position in batch}) == 1
        assert batch == sorted(batch)


class Positions(lightning.LightningModule):
    """Writes which positions a rank saw."""

    def __init__(self, target):
        super().__init__()
        self.target, self.seen = target, []

    def test_step(self, batch, batch_idx):
        self.seen += [(int(i), *batch.images.shape[2:]) for i in batch.index]

    def on_test_epoch_end(self):
        torch.save(self.seen, self.target / f"rank{self.global_rank}.pt")


def test_two_processes_see_every_picture_once(mixed, tmp_path):
    (mixed / "d.png").unlink()
    data = folder(mixed, num_workers=1)
    trainer = lightning.Trainer(
        accelerator="cpu", devices=2, strategy="ddp_fork", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, use_distributed_sampler=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.test(Positions(tmp_path), datamodule=data, verbose=False)
    seen = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert [len(rank) for rank in seen] == [3, 3]
    alone = [(int(i), *b.images.shape[2:]) for b in folder(mixed).loader("gallery") for i in b.index]
    assert sorted(seen[0] + seen[1]) == sorted(alone)
