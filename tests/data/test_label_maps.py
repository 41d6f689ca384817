"""Label maps of every form become class ids, and what doesn't fit is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from label_map_trees import CLASSES, COLOURS, NAMES, VOID, scene, write_tree
from PIL import Image
from scipy.io import savemat

import zoo
from zoo.classes import class_list
from zoo.data._label_maps import LabelReader
from zoo.files import BadFile
from zoo.ops.label_maps import resampled

SMALL = {"image_size": None, "batch_size": 2, "crop_size": 32}


def made(root, name="label_maps", **changed):
    own = {"root": str(root), "classes": CLASSES} if name == "label_maps" else {"root": str(root)}
    data = zoo.create("data", name, **{**own, **SMALL, **changed})
    data.setup()
    return data


def void_as(labels, value=-1):
    return np.where(labels == VOID, value, labels.astype(np.int64))


def palette_file(labels):
    image = Image.fromarray(labels, "P")
    image.putpalette(np.random.default_rng(0).integers(0, 255, 768, np.uint8).tobytes())
    return image


def colour_file(labels):
    return Image.fromarray(np.where((labels == VOID)[..., None], 0, COLOURS[labels % 3]).astype(np.uint8))


FORMS = {
    "grey": Image.fromarray,
    "palette": palette_file,
    "colours": colour_file,
    "sixteen bits": lambda labels: Image.fromarray(labels.astype(np.uint16)),
    "colours with opacity": lambda labels: colour_file(labels).convert("RGBA"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_file_gives_the_same_class_ids(tmp_path, form):
    data = made(write_tree(tmp_path, {"train": 2, "val": 3}, FORMS[form]))
    assert (data.splits, data.ids("val"), data.query_split) == (("train", "val"), ["s0", "s1", "s2"], "val")
    for place in range(3):
        found = data.label_map("val", place)
        assert found.dtype == np.int64
        assert np.array_equal(found, void_as(scene(2 + place)[0]))


def test_validation_batches_hold_the_labels_of_their_pixels(tmp_path):
    data = made(write_tree(tmp_path, {"train": 1, "val": 3}), image_size=[24, 32])
    batches = list(data.val_dataloader())
    assert [batch.index.tolist() for batch in batches] == [[0, 1], [2]]
    whole = made(tmp_path)
    labels = torch.cat([batch.label_map for batch in whole.val_dataloader()])
    images = torch.cat([batch.images for batch in whole.val_dataloader()])
    assert torch.equal(
        (images * 255).round().byte()[labels.eq(2)[:, None].expand(-1, 3, -1, -1)].unique(),
        torch.tensor([30, 200], dtype=torch.uint8),
    )
    for batch in batches:
        assert batch.images.shape[2:] == batch.label_map.shape[1:] == (24, 32)
        for place, found in zip(batch.index.tolist(), batch.label_map, strict=True):
            assert torch.equal(found, labels[place][1::2, 1::2])


def test_the_classes_shares_leave_void_out(tmp_path):
    data = made(write_tree(tmp_path, {"train": 3, "val": 1}))
    pixels = np.concatenate([scene(number)[0].ravel() for number in range(3)])
    wanted = [(pixels == number).sum() / (pixels != VOID).sum() for number in range(3)]
    assert data.class_shares("train") == pytest.approx(wanted)


def test_ids_offset_lists_endings_and_names_of_ids(tmp_path):
    shifted = lambda labels: Image.fromarray(np.where(labels == VOID, 0, labels + 1).astype(np.uint8))  # noqa: E731
    root = write_tree(tmp_path, {"all": 4}, shifted, ending="_ids.png")
    (root / "train.txt").write_text("s3\ns1 1\n\n")
    (root / "val.txt").write_text("s0\n")
    where = {"images": "images/all", "labels": "labels/all", "lists": "{split}.txt", "ending": "_ids.png"}
    data = made(root, **where, offset=1, ignore=[0])
    assert (data.ids("train"), data.ids("val")) == (["s3", "s1"], ["s0"])
    assert np.array_equal(data.label_map("train", 1), void_as(scene(1)[0]))
    (root / "ids.txt").write_text("0: nothing\n1: sky\n2: lawn\n3: ground\n")
    renamed = made(root, **where, classes=["ground", "sky"], ignore=[], id_names=str(root / "ids.txt"))
    wanted = np.array([1, -1, 0])[scene(1)[0] % 3]
    assert np.array_equal(renamed.label_map("train", 1), np.where(scene(1)[0] == VOID, -1, wanted))
    rest = made(root, **where, classes=["ground", "sky"], ignore=[0], id_names=str(root / "ids.txt"), rest="ground")
    assert np.array_equal(
        rest.label_map("train", 1), np.where(scene(1)[0] == VOID, -1, np.array([1, 0, 0])[scene(1)[0] % 3])
    )


def test_as_a_gallery_it_offers_what_folders_do(tmp_path):
    data = made(write_tree(tmp_path, {"train": 1, "val": 3}), image_size=16, query_split="train")
    (batch,) = data.selection("val", ["s2", "s0"])
    assert (batch.index.tolist(), batch.images.shape, batch.original_size.tolist()) == (
        [0, 1],
        (2, 3, 16, 16),
        [[48, 64]] * 2,
    )
    assert np.array_equal(data.picture("val", 1), scene(2)[1])
    assert np.array_equal(data.picture_by_id("val", "s1", [0, 0, 8, 4]), scene(2)[1][:4, :8])
    assert data.payloads("val", ["s1"]) == [{"path": str(tmp_path / "images" / "val" / "s1.png")}]
    assert (data.gallery_split, data.query_split, data.preprocessing["image_size"]) == ("val", "train", [16, 16])
    with pytest.raises(ValueError, match="have no class of their own"):
        data.labels("val")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"classes": NAMES[:2]}, r"label map .*s0\.png must hold ids of given \(2 classes\), got 2 at row \d+, column"),
        ({"ignore": []}, "got 255 at row 0, column 0: name it in data.ignore"),
        ({"offset": 1}, "got 0 at row"),
    ],
)
def test_ids_that_are_no_class_are_refused_or_void(tmp_path, changed, message):
    root = write_tree(tmp_path, {"train": 1, "val": 1})
    changed = {key: list(value) if isinstance(value, tuple) else value for key, value in changed.items()}
    with pytest.raises(BadFile, match=message):
        made(root, **changed).label_map("val", 0)
    assert (made(root, **changed, unlisted="void").label_map("val", 0) == -1).any()


def test_colours_that_are_no_class_are_refused_or_void(tmp_path):
    root = write_tree(tmp_path, {"train": 1, "val": 1}, colour_file)
    with pytest.raises(BadFile, match=r"must hold colours of given, got #1e1ec8"):
        made(root, classes=CLASSES[:2]).label_map("val", 0)
    assert set(np.unique(made(root, classes=CLASSES[:2], unlisted="void").label_map("val", 0))) == {-1, 0, 1}
    twice = [{"name": name, "colour": "#010203"} for name in NAMES]
    with pytest.raises(BadFile, match="holds colours, of which classes given share some"):
        made(root, classes=twice).label_map("val", 0)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"lists": "{split}.txt"}, FileNotFoundError, r"lists must name a text file .*train\.txt, which doesn't exist"),
        ({"labels": "masks"}, ValueError, r"labels or lists must hold \{split\} to tell the splits train, val apart"),
        ({"labels": "masks/{split}"}, FileNotFoundError, "labels must be a folder of label maps"),
        ({"images": "labels/{split}2"}, FileNotFoundError, "images must be a folder of images"),
        ({"ending": ".mat"}, BadFile, r"split 'train' must have a picture, got none: .* holds no \*\.mat"),
        ({"unlisted": "skip"}, ValueError, "unlisted must be one of refuse, void, got 'skip'"),
        ({"ignore": [-1]}, ValueError, "ignore must be an integer of at least 0, got -1"),
        ({"offset": "1"}, ValueError, "offset must be a whole number, got '1'"),
        ({"rest": "sea", "id_names": "voc21"}, ValueError, "class must be one of the 3 of given, got 'sea'"),
        ({"id_names": "voc21"}, ValueError, "ids' names must hold every class of given, they lack ground, sky, thing"),
        ({"gallery_split": None}, ValueError, "gallery_split must be the name of a split, got None"),
        ({"scale": [2, 1]}, ValueError, r"scale must be two numbers above 0, the smaller first, got \[2, 1\]"),
        ({"jitter": 2}, ValueError, "jitter must lie in 0 … 1, got 2"),
        ({"crop_size": 0}, ValueError, "crop_size must be an integer of at least 1, got 0"),
        ({"flip": "no"}, ValueError, "flip must be true or false, got 'no'"),
        ({"seed": -1}, ValueError, "seed must be an integer of at least 0, got -1"),
        ({"root": ""}, ValueError, "root must be a text that isn't empty, got ''"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, changed, error, message):
    write_tree(tmp_path, {"train": 1, "val": 1})
    with pytest.raises(error, match=message):
        made(**{"root": tmp_path, **changed})


def test_missing_and_misfitting_files_are_named(tmp_path):
    root = write_tree(tmp_path, {"train": 2, "val": 1})
    (root / "images" / "train" / "s1.png").unlink()
    with pytest.raises(BadFile, match=r"split 'train' names 's1', of which .*images/train holds no picture"):
        made(root)
    Image.new("RGB", (9, 9)).save(root / "images" / "train" / "s1.png")
    data = made(root)
    with pytest.raises(BadFile, match=r"label map .*s1\.png must have the size of .*s1\.png, 9 × 9 px, got 64 × 48 px"):
        list(data.train_dataloader())
    (root / "labels" / "val" / "s0.png").write_bytes(b"no label map")
    with pytest.raises(BadFile, match=r"s0\.png can't be read"):
        data.label_map("val", 0)
    without = made(root, train_split=None)
    with pytest.raises(ValueError, match="train_split must name a split to train or validate on, got null"):
        without.train_dataloader()


def test_pascal_voc_without_lists_has_one_split(tmp_path):
    labels, picture = scene(0)
    for folder, image, end in (
        ("JPEGImages", Image.fromarray(picture), "jpg"),
        ("SegmentationClass", palette_file(labels), "png"),
    ):
        (tmp_path / folder).mkdir()
        image.save(tmp_path / folder / f"2007_1.{end}")
    with pytest.raises(ValueError, match="to tell the splits train, val apart"):
        made(tmp_path, "voc", lists=None)
    data = made(tmp_path, "voc", lists=None, train_split=None)
    assert (data.ids("val"), data.classes.name) == (["2007_1"], "voc21")
    assert np.array_equal(data.label_map("val", 0), void_as(labels))
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    for split in ("train", "val"):
        (tmp_path / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("2007_1\n")
    assert made(tmp_path, "voc").splits == ("train", "val")


def test_pascal_context_goes_by_names_whatever_the_order_of_ids(tmp_path):
    names = np.array([["background", "aeroplane", "wood"], ["bag", "bedclothes", "table"]])
    wanted = np.vectorize(class_list("pascal_context60").names.index)(names)
    (tmp_path / "labels.txt").write_text(
        "".join(
            f"{n}: {name}\n"
            for n, name in enumerate(["accordion", *class_list("pascal_context60").names[1:], "zebra"], 1)
        )
    )
    publisher = dict(zip(class_list(str(tmp_path / "labels.txt")).names, range(1, 99), strict=False))
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "ImageSets" / "SegmentationContext").mkdir(parents=True)
    (tmp_path / "ImageSets" / "SegmentationContext" / "val.txt").write_text("a\n")
    Image.new("RGB", (3, 2)).save(tmp_path / "JPEGImages" / "a.jpg")
    forms = {"alphabetical": ("SegmentationClassContext", wanted)}
    forms["voc_first"] = "59_context_labels", np.vectorize(class_list("pascal_context60_voc_first").names.index)(names)
    for form, (folder, ids) in forms.items():
        (tmp_path / folder).mkdir()
        Image.fromarray(ids.astype(np.uint8)).save(tmp_path / folder / "a.png")
        assert np.array_equal(made(tmp_path, "pascal_context", form=form, train_split=None).label_map("val", 0), wanted)
    (tmp_path / "trainval").mkdir()
    ids = np.array(
        [
            [0, publisher["aeroplane"], publisher["wood"]],
            [publisher["bag"], publisher["bedclothes"], publisher["zebra"]],
        ]
    )
    savemat(tmp_path / "trainval" / "a.mat", {"LabelMap": ids.astype(np.uint16)})
    wanted[1, 2] = 0  # what is none of the 59
    data = made(tmp_path, "pascal_context", form="matlab", train_split=None)
    assert np.array_equal(data.label_map("val", 0), wanted)
    savemat(tmp_path / "trainval" / "a.mat", {"Other": ids})
    with pytest.raises(BadFile, match=r"a\.mat must hold a matrix LabelMap"):
        data.label_map("val", 0)
    with pytest.raises(ValueError, match="form must be one of alphabetical, voc_first, matlab, got 'png'"):
        made(tmp_path, "pascal_context", form="png")


def test_nearest_takes_the_label_at_each_new_pixels_centre():
    labels = np.arange(12).reshape(3, 4)
    assert np.array_equal(resampled(labels, (6, 8)), labels.repeat(2, 0).repeat(2, 1))
    assert np.array_equal(resampled(labels, (1, 2)), [[5, 7]])
    assert resampled(labels, (3, 4)) is labels
    torch_way = torch.nn.functional.interpolate(torch.arange(35.0).reshape(1, 1, 5, 7), (8, 3), mode="nearest-exact")
    assert np.array_equal(resampled(np.arange(35).reshape(5, 7), (8, 3)), torch_way[0, 0].numpy())


def test_colours_and_labels_go_both_ways(tmp_path):
    classes = class_list("camvid11")
    labels = np.random.default_rng(0).integers(-1, 11, (5, 6))
    Image.fromarray(np.array([*classes.colours, (0, 0, 0)], np.uint8)[labels]).save(tmp_path / "a.png")
    assert np.array_equal(LabelReader(classes).read(tmp_path / "a.png"), labels)
