"""cut_paste: the same pairs wherever and whenever they are made, splits that share nothing, sources mixed by weight."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from cut_paste_trees import SMALL, drawn, module, photos
from PIL import Image

from zoo.config import create
from zoo.data._loading import Draw, EpochSampler, UnrepeatedSampler
from zoo.files import BadFile

DATA = Path(os.environ.get("ZOO_DATA", Path(__file__).resolve().parents[2].parent / "shared" / "data"))
PEDESTRIANS, FRUITS = DATA / "pennfudan", DATA / "fruits_nuts_coco"


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    return module(sources=[photos(root, 40), drawn(60)])


def same(a, b):
    names = ("index", "queries", "galleries", "boxes", "objects")
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in names)


def epoch_of(data, epoch):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def test_batches_hold_a_crop_and_the_picture_that_the_box_lies_in(mixed):
    batches = list(mixed.train_dataloader())
    assert sum(map(len, batches)) == len(mixed.objects("train"))
    for batch in batches:
        for images, side in ((batch.queries, 64), (batch.galleries, 96)):
            assert images.shape[:2] == (len(batch), 3)
            assert images.dtype == torch.float32
            assert max(images.shape[2:]) <= side
            assert 0 <= images.min() < images.max() <= 1
        height, width = batch.galleries.shape[2:]
        low, high = batch.boxes[:, :2], batch.boxes[:, 2:]
        assert (low >= 0).all()
        assert (high <= torch.tensor([width, height])).all()
        assert (high > low + 2).all()


def test_sizes_are_the_mean_of_the_batch_and_boxes_follow(mixed):
    data = mixed.dataset("train")
    batch = data.__getitems__([0, 1, 2])
    pairs = [data.pair(position) for position in range(3)]
    mean = np.mean([gallery.picture.size for _, gallery, _ in pairs], axis=0)
    assert tuple(batch.galleries.shape[:1:-1]) == pytest.approx(mean, abs=0.5)
    for (_, gallery, _), box in zip(pairs, batch.boxes, strict=True):
        share = np.array(batch.galleries.shape[:1:-1]) / gallery.picture.size
        assert box.numpy() == pytest.approx(np.array(gallery.box) * np.tile(share, 2), rel=1e-5)
    query = pairs[0][0]
    alone = data.__getitems__([0]).queries[0]
    crop = np.asarray(query.picture.crop(query.box)).astype(np.float32) / 255
    if max(crop.shape) <= 64:
        assert np.array_equal(alone.permute(1, 2, 0), crop)


def test_queries_are_enlarged_when_asked_for():
    batch = next(iter(module(sources=[drawn(10)], enlarge_queries=True, query_side=200).train_dataloader()))
    assert max(batch.queries.shape[2:]) == 200


def test_loader_processes_other_objects_and_a_resumed_run_make_the_same_pairs(mixed):
    once = epoch_of(mixed, 3)
    again = module(sources=[dict(source.keys, kind=source.kind) for source in mixed.sources], num_workers=2)
    assert all(same(a, b) for a, b in zip(once, epoch_of(again, 3), strict=True))
    alone = mixed.training_dataset("train").__getitems__([Draw(int(k), 3) for k in once[2].index])
    assert same(alone, once[2])


def test_epochs_differ_and_val_doesn_t(mixed):
    first, second = (epoch_of(mixed, epoch)[0] for epoch in (0, 1))
    assert not torch.equal(first.objects, second.objects)
    assert all(same(a, b) for a, b in zip(mixed.val_dataloader(), mixed.val_dataloader(), strict=True))


@pytest.mark.parametrize("fresh", [True, False])
def test_views_are_fresh_or_those_of_a_written_set(fresh):
    data = module(sources=[drawn(6)], fresh=fresh, val_share=0.0, test_share=0.0, pairs_per_epoch=24)
    pairs = data.training_dataset("train")
    known = {data.view(item, v).picture.tobytes() for item in data.objects("train") for v in range(3)}
    seen = {view.picture.tobytes() for e in range(3) for k in range(24) for view in pairs.pair(Draw(k, e))[:2]}
    assert (seen <= known) is not fresh
    # 6 originals stay as they are; of 72 pairs a third of the views are originals.
    assert len(seen) > 80 if fresh else len(seen) == 18


def test_a_pair_is_two_views_of_an_object(mixed):
    for item in mixed.objects("train")[:20]:
        for turn in range(8):
            query, gallery = mixed._workshop.pair(item, f"{turn}")
            assert query != gallery
            assert {query, gallery} <= {0, 1, 2}


def test_sources_are_mixed_by_weight_and_objects_come_in_turn(tmp_path):
    sources = [dict(photos(tmp_path, 30), weight=3), drawn(50, weight=1)]
    data = module(sources=sources, pairs_per_epoch=4000)
    pairs, objects = data.training_dataset("train"), data.objects("train")
    members, turns = pairs.plan(5)
    names = np.array([objects[member].source for member in members])
    # 4000 draws of probability 3/4: standard deviation 27.
    assert abs((names == "masks").sum() - 3000) < 110
    assert abs((names[:400] == "masks").sum() - 300) < 40
    for source in ("masks", "procedural"):
        own = sum(item.source == source for item in objects)
        order = members[names == source]
        windows = np.lib.stride_tricks.sliding_window_view(order, own)
        assert all(len(set(window)) == own for window in windows)
        assert np.array_equal(turns[names == source], np.arange(len(order)) // own)


def test_a_batch_holds_different_objects(mixed):
    for epoch in range(10):
        members, _ = mixed.training_dataset("train").plan(epoch)
        windows = np.lib.stride_tricks.sliding_window_view(members, 8)
        assert all(len(set(window)) == 8 for window in windows)


def test_ranks_share_the_plan_without_overlap(mixed):
    pairs = mixed.training_dataset("train")
    ranks = [list(EpochSampler(pairs, 2, rank, shuffle=False, drop_last=True)) for rank in (0, 1)]
    assert len(ranks[0]) == len(ranks[1]) == len(pairs) // 2
    assert not set(ranks[0]) & set(ranks[1])
    val = mixed.dataset("val")
    shares = [list(UnrepeatedSampler(len(val), rank, 2)) for rank in (0, 1)]
    assert sorted([*shares[0], *shares[1]]) == list(range(len(val)))


def test_splits_share_no_photo_and_no_background(tmp_path):
    sources = [photos(tmp_path / "a", 60), photos(tmp_path / "b", 60), drawn(40)]
    data = module(sources=sources, backgrounds=str(tmp_path / "a" / "images"))
    images = {split: {item.image for item in data.objects(split)} for split in data.splits}
    grounds = {split: set(paths) for split, paths in data._workshop.backgrounds.items()}
    for shared in (images, grounds):
        assert all(shared.values())
        assert sum(map(len, shared.values())) == len(set.union(*shared.values()))
    # Photos of one name in two sources go to one split too, and their two instances each.
    assert sum(len(data.objects(split)) for split in data.splits) == 60 * 4 + 40
    assert set.union(*images.values()) >= {"p0_0", "p0_59", "procedural-000039"}


def test_objects_of_one_photo_are_no_negatives_of_each_other(mixed):
    data = mixed.dataset("train")
    of_image = {}
    for item, number in zip(data.objects, data.numbers, strict=True):
        assert of_image.setdefault(item.image, number) == number
    assert len(set(of_image.values())) == len(of_image) < len(data.objects)


def test_one_per_image_keeps_the_largest_and_small_ones_are_left_out(tmp_path):
    source = photos(tmp_path, 10)
    for item in module(sources=[source], one_per_image=True, val_share=0, test_share=0).objects("train"):
        assert item.area == 35 * 30
        assert item.name.endswith("-2")
    everything = module(sources=[source], val_share=0, test_share=0).objects("train")
    assert sorted({item.area for item in everything}) == [26 * 21, 35 * 30]
    assert len(module(sources=[source], min_area=600, val_share=0, test_share=0).objects("train")) == 10
    with pytest.raises(ValueError, match="source masks must have an object of min_area 2000 px, got 20 objects, all"):
        module(sources=[source], min_area=2000)


def test_the_original_is_the_photo_with_the_extent_of_the_mask(tmp_path):
    data = module(sources=[photos(tmp_path, 5)], val_share=0, test_share=0)
    for item in data.objects("train"):
        view = data.view(item, 0)
        assert np.array_equal(view.picture, Image.open(item.path))
        assert view.box == ((7, 12, 28, 38) if item.name.endswith("-1") else (45, 20, 75, 55))
    assert len(data.ids("train")) == data.size("train") == 5 + 10 * 2
    assert np.array_equal(data.picture_by_id("train", "masks-p0_3_0"), Image.open(tmp_path / "images" / "p0_3.png"))


def test_coco_annotations_are_read_without_crowds(tmp_path):
    source = photos(tmp_path, 3)
    ring = [10, 10, 40, 10, 40, 40, 10, 40]
    items = [{"id": k, "image_id": k % 3, "iscrowd": int(k == 4), "segmentation": [ring]} for k in range(6)]
    content = {"images": [{"id": k, "file_name": f"p0_{k}.png"} for k in range(3)], "annotations": items}
    (tmp_path / "a.json").write_text(json.dumps(content))
    coco = {"kind": "coco", "annotations": str(tmp_path / "a.json"), "images": source["images"]}
    data = module(sources=[coco], val_share=0, test_share=0)
    assert sorted(item.name for item in data.objects("train")) == [
        *("coco-p0_0-0", "coco-p0_0-3", "coco-p0_1-1", "coco-p0_2-2", "coco-p0_2-5"),
    ]
    assert all(data.view(item, 0).box == (10, 10, 40, 40) for item in data.objects("train"))
    items[1]["segmentation"] = [[1, 2]]
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(BadFile, match=r"a\.json: annotation 1 can't be used \(a polygon"):
        module(sources=[coco])


def test_a_mask_of_another_size_names_both_files(tmp_path):
    source = photos(tmp_path, 1)
    Image.new("L", (20, 20), 1).save(tmp_path / "masks" / "p0_0.png")
    data = module(sources=[source], val_share=0, test_share=0)
    with pytest.raises(BadFile, match=r"mask of masks-p0_0-1 .*p0_0\.png.* 20 × 20 px, not 80 × 60"):
        data.view(data.objects("train")[0], 1)
    Image.new("RGB", (80, 60)).save(tmp_path / "masks" / "p0_0.png")
    with pytest.raises(BadFile, match="must hold one number a pixel"):
        module(sources=[source])


def test_procedural_objects_lose_something_when_their_patches_are_shuffled():
    """Parts differ from one another: the colours of the four quarters are not the same."""
    data = module(sources=[drawn(20)], val_share=0, test_share=0)
    differences = []
    for item in data.objects("train"):
        pixels, mask = item.layers()
        assert np.asarray(mask).astype(bool).mean() > 0.15
        quarters = [np.asarray(pixels)[y : y + 112, x : x + 112].mean(axis=(0, 1)) for y in (0, 112) for x in (0, 112)]
        differences.append(np.ptp(quarters, axis=0).max())
    assert np.median(differences) > 25


def test_datasets_travel_without_their_pixels(mixed):
    pairs = mixed.dataset("train")
    pairs.__getitems__([0, 1])
    assert len(pickle.dumps(pairs)) < 2000 * len(pairs.objects)
    assert same(pickle.loads(pickle.dumps(pairs)).__getitems__([0, 1]), pairs.__getitems__([0, 1]))


def test_the_memory_that_is_kept_is_bounded(tmp_path):
    data = module(sources=[photos(tmp_path, 30)], cache_mb=0)
    list(data.train_dataloader())
    assert len(data._workshop._cache._kept) == 1


@pytest.mark.skipif(not PEDESTRIANS.is_dir() or not FRUITS.is_dir(), reason=f"needs pennfudan in {DATA} (ZOO_DATA)")
def test_real_masks_give_the_extent_of_their_pixels():
    masks = {"kind": "masks", "images": str(PEDESTRIANS / "images"), "masks": str(PEDESTRIANS / "masks")}
    coco = {"kind": "coco", "annotations": str(FRUITS / "trainval.json"), "images": str(FRUITS / "images")}
    data = create("data", "cut_paste", sources=[masks, coco], min_area=1600, one_per_image=False, canvas=640)
    data.setup()
    chosen = [item for item in data.objects("test") if item.source == "masks"][:5]
    for item in chosen:
        values = np.asarray(Image.open(PEDESTRIANS / "masks" / f"{item.image}.png"))
        y, x = (values == int(item.name.rsplit("-")[-1])).nonzero()
        assert len(y) == item.area
        assert data.view(item, 0).box == (x.min(), y.min(), x.max() + 1, y.max() + 1)
    assert {item.source for split in data.splits for item in data.objects(split)} == {"masks", "coco"}


@pytest.mark.parametrize(
    ("parameters", "rule"),
    [
        ({"sources": []}, "sources must be a list of at least one mapping"),
        ({"sources": [{"kind": "video"}]}, "kind, one of procedural, coco, masks, photos, folders, pairs"),
        ({"sources": [{"kind": "procedural", "number": 3}]}, "keys kind, count, got none for count"),
        ({"sources": [drawn(3, colour=2)]}, "and may have weight, rotation, .*; got colour as well"),
        ({"sources": [{"kind": "procedural", "count": 3, "weight": 0}]}, "must be a finite number above 0, got 0"),
        ({"scale": [0.8, 0.2]}, r"scale must be \[least, most\] in 0.02 … 4, got \[0.8, 0.2\]"),
        ({"sources": [drawn(3, jitter=2)]}, "jitter of source procedural must be a number in 0 … 0.9, got 2"),
        ({"sources": [{"kind": "pairs", "table": "x", "root": "y", "scale": [1, 1]}]}, "weight; got scale as well"),
        ({"rotation": -4}, "rotation must be a number in 0 … 180, got -4"),
        ({"min_area": 0}, "min_area must be a number of at least 16 px, got 0"),
        ({"val_share": 0.7, "test_share": 0.4}, "must leave something to train"),
        ({"copies": 0}, "copies must be an integer of at least 1, got 0"),
        ({"fresh": "yes"}, "fresh must be true or false"),
    ],
)
def test_parameters_are_checked(parameters, rule):
    with pytest.raises(ValueError, match=rule):
        create("data", "cut_paste", **{**SMALL, **parameters})


def test_what_is_asked_too_early_or_isn_t_there_is_named(tmp_path):
    data = create("data", "cut_paste", **SMALL)
    with pytest.raises(RuntimeError, match="call setup"):
        data.train_dataloader()
    data = module(sources=[drawn(3)], val_share=0, test_share=0)
    with pytest.raises(ValueError, match="split 'val' must have an object"):
        data.val_dataloader()
    with pytest.raises(ValueError, match="must be one of train, val, test"):
        data.ids("gallery")
    photos(tmp_path, 1)
    with pytest.raises(ValueError, match="backgrounds must have an image for split"):
        module(sources=[drawn(3)], backgrounds=str(tmp_path / "images"))
    with pytest.raises(FileNotFoundError, match=r"images of source photos must be .* set data\.sources"):
        module(sources=[{"kind": "photos", "images": str(tmp_path / "none")}])


def test_whole_photos_are_objects_that_may_fill_the_gallery(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    for number in range(20):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    data = create("data", "cut_paste", sources=[{"kind": "photos", "images": str(tmp_path)}], canvas=96)
    data.setup()
    item = data.objects("train")[0]
    assert data.view(item, 0).box == (0, 0, 80, 60)
    left, top, right, bottom = data.view(item, 1).box
    assert 0 < (right - left) * (bottom - top) < 96 * 96
    assert len(data.objects("train")) + len(data.objects("val")) + len(data.objects("test")) == 20


def test_a_source_may_have_a_recipe_of_its_own(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    for number in range(20):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    photos = {"kind": "photos", "images": str(tmp_path), "scale": [1.5, 1.5], "rotation": 0, "visible": 0.3}
    data = module(sources=[photos, drawn(20, scale=[0.3, 0.3])], rotation=0, crop=[1.0, 1.0], border=[0, 0])
    for item in data.objects("train"):
        picture, (left, top, right, bottom) = data.view(item, 1)
        share = max((right - left) / picture.width, (bottom - top) / picture.height)
        if item.source == "photos":
            assert share == 1  # larger than the gallery: seen in part
        else:
            assert share < 0.4


def test_a_larger_object_is_seen_in_other_parts(tmp_path):
    ramp = np.repeat(np.linspace(0, 255, 80, dtype=np.uint8)[None, :, None], 60, axis=0).repeat(3, axis=2)
    for number in range(20):
        Image.fromarray(ramp).save(tmp_path / f"{number}.png")
    photos = {"kind": "photos", "images": str(tmp_path), "scale": [2.0, 2.0], "visible": 0.1}
    data = module(sources=[photos], rotation=0, jitter=0, crop=[1.0, 1.0], enlargement=9.0)
    means = [np.asarray(data.view(item, 1).picture).mean() for item in data.objects("train")]
    assert min(means) < 100 < 155 < max(means)


def test_photos_of_one_folder_are_real_pairs(tmp_path):
    rng = np.random.default_rng(0)
    for folder in range(12):
        (tmp_path / f"place {folder}").mkdir()
        for number in range(3):
            pixels = rng.integers(0, 255, (30, 40, 3), np.uint8)
            pixels[:, :, 2] = folder
            Image.fromarray(pixels).save(tmp_path / f"place {folder}" / f"{number}.png")
    Image.fromarray(pixels).save(tmp_path / "alone.png")
    data = module(sources=[{"kind": "folders", "images": str(tmp_path)}], pairs_per_epoch=40)
    kinds = {split: {item.image for item in data.objects(split)} for split in ("train", "val", "test")}
    assert sum(map(len, kinds.values())) == len(set.union(*kinds.values())) == 12
    pairs = data.training_dataset("train")
    for position in range(len(pairs)):
        query, gallery, number = pairs.pair(position)
        colours = [np.asarray(view.picture)[..., 2] for view in (query, gallery)]
        assert f"place {np.unique(colours).item()}" == pairs.objects[number].image
        assert (np.asarray(query.picture) != np.asarray(gallery.picture)).any()  # two photos, not one twice
        assert query.box == gallery.box == (0, 0, 40, 30)
    assert len(data.ids("test")) == 3 * len(kinds["test"])
