from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clevr_trees import REAL, clevr, question, scene, write, write_tree
from PIL import Image

from zoo.files import BadFile
from zoo.truth import PackedGraphs, clevr_graph

REAL267 = {"images": "images", "scenes": "scenes/CLEVR_train_scenes_1000.json", "questions": None}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "tree")


def test_scenes_without_an_image_are_left_out_and_order_is_the_files(tree):
    data = clevr(tree)
    data.prepare_data()
    data.setup()
    assert data.ids("val") == ["CLEVR_0", "CLEVR_1", "CLEVR_3"]
    assert (data.gallery_split, data.size("val"), data.splits) == ("val", 3, ("train", "val"))
    graphs = data.scene_graphs("val")
    assert graphs.sizes.tolist() == [1, 2, 0]
    assert graphs[1].edges.tolist() == [[0, 1, 0], [0, 1, 1]]
    compositions = data.compositions("val")
    assert (compositions.shape, compositions.dtype) == ((3, 15), np.float32)
    # gray red blue green brown purple cyan yellow | cube sphere cylinder | rubber metal | small large
    assert compositions[1].tolist() == [0, 2, 0, 0, 0, 0, 0, 0, 1, 1, 0, 1, 1, 1, 1]
    assert compositions[2].sum() == 0
    assert clevr(tree, limit=2).ids("val") == ["CLEVR_0", "CLEVR_1"]
    assert clevr(tree, limit=2).scene_graphs("val").sizes.tolist() == [1, 2]


def test_images_are_resized_rgb_in_0_to_1_and_png_comes_before_jpg(tree):
    data = clevr(tree, questions=None)
    data.setup()
    batches = list(data.test_dataloader())
    assert [batch.index.tolist() for batch in batches] == [[0, 1], [2]]
    images = torch.cat([batch.images for batch in batches])
    assert (images.shape, images.dtype) == ((3, 3, 20, 20), torch.float32)
    assert images.is_contiguous()
    assert batches[0].questions is batches[0].answers is batches[0].question_types is batches[0].vocabulary is None
    torch.testing.assert_close(images[1, :, 0, 0] * 255, torch.tensor([10.0, 20.0, 30.0]))
    assert images[2, 2].min() > 0.98
    picture = data.picture("val", 0)
    assert (picture.shape, picture.dtype) == ((30, 40, 3), np.uint8)
    whole = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
    smooth = F.interpolate(whole, (20, 20), mode="bilinear", antialias=True, align_corners=False)
    assert (images[:1] - smooth).abs().max() < 1.01 / 255
    oblong = clevr(tree, image_size=[12, 16]).dataset("val").__getitems__([0]).images
    smooth = F.interpolate(whole, (12, 16), mode="bilinear", antialias=True, align_corners=False)
    assert (oblong - smooth).abs().max() < 1.01 / 255


def test_a_split_without_scenes_serves_what_needs_none(tree):
    for scenes, said in ((None, "null"), ("scenes/{split}.json", str(tree / "scenes" / "val.json"))):
        data = clevr(tree, scenes=scenes)
        data.setup()
        assert data.ids("val") == ["CLEVR_0", "CLEVR_1", "CLEVR_3"]
        assert data.dataset("val").__getitems__([2]).answers.tolist() == [[data.answers.index("no")]]
        assert not data.has_scene_graphs("val")
        for wanted in (data.scene_graphs, data.compositions):
            with pytest.raises(BadFile, match=rf"split 'val' has no scene graphs: .* got {said}.* set data\.scenes"):
                wanted("val")
    assert clevr(tree).has_scene_graphs("val")


def test_trees_are_joined_and_their_names_kept_apart(tree, tmp_path):
    other = write_tree(tmp_path / "other", "extra")
    joined = clevr(
        tree,
        images={"train": ["images/val", str(other / "images" / "extra")], "val": "images/{split}"},
        scenes={"train": ["scenes/CLEVR_val_scenes.json", str(other / "scenes" / "CLEVR_extra_scenes.json")]},
        questions={"train": ["questions/CLEVR_val_questions.json", None], "val": None},
    )
    names = ["CLEVR_0", "CLEVR_1", "CLEVR_3"]
    assert joined.ids("train") == [f"{part}/{name}" for part in (0, 1) for name in names]
    assert joined.scene_graphs("train").sizes.tolist() == [1, 2, 0] * 2
    assert joined.scene_graphs("train")[4].edges.tolist() == [[0, 1, 0], [0, 1, 1]]
    assert joined.dataset("train").__getitems__([0, 3]).answers.ge(0).sum(1).tolist() == [2, 0]
    assert joined.dataset("train").files.paths[3] == other / "images" / "extra" / "CLEVR_0.png"
    assert joined.dataset("val").questions is None
    assert not joined.has_scene_graphs("val")
    with pytest.raises(ValueError, match="images must name a folder for split 'val', got"):
        clevr(tree, images={"train": "images/val"})
    with pytest.raises(ValueError, match=r"scenes must name a file, or null, for each of the 2 folders .* got 'one'"):
        clevr(tree, images=["a", "b"], scenes="one")


def joined(tree, other, **changed):
    """Joins two trees of three images each as split val."""
    keys = {"images": "images/val", "scenes": "scenes/CLEVR_val_scenes.json"}
    both = {key: {"val": [str(root / path) for root in (tree, other)]} for key, path in keys.items()}
    return clevr(tree, train_split="val", **both, **changed)


def test_a_limit_within_the_first_tree_leaves_the_others_alone(tree, tmp_path):
    other = write_tree(tmp_path / "other")
    only_second = {"val": [None, str(other / "questions" / "CLEVR_val_questions.json")]}
    both = {"val": [str(tree / "questions" / "CLEVR_val_questions.json"), only_second["val"][1]]}
    for limit in (2, 3):
        data = joined(tree, other, questions=only_second, limit=limit)
        assert data.ids("val") == ["0/CLEVR_0", "0/CLEVR_1", "0/CLEVR_3"][:limit]
        assert data.scene_graphs("val").sizes.tolist() == [1, 2, 0][:limit]
        assert data.dataset("val").questions is None
    longer = joined(tree, other, questions=only_second, limit=4).dataset("val")
    assert (longer.names[3], len(longer.questions)) == ("1/CLEVR_0", 2)
    assert longer.__getitems__([0, 3]).answers.ge(0).sum(1).tolist() == [0, 2]
    assert joined(tree, other, questions=both, limit=5).dataset("val").graphs.sizes.tolist() == [1, 2, 0, 1, 2]
    asked = joined(tree, other, questions=both, limit=5).dataset("val").__getitems__(range(5))
    assert asked.answers.ge(0).sum(1).tolist() == [2, 0, 1, 2, 0]
    shutil.rmtree(other)
    assert joined(tree, other, questions=both, limit=3).size("val") == 3
    with pytest.raises(FileNotFoundError, match="other"):
        joined(tree, other, questions=both, limit=4).size("val")


def test_a_limit_may_keep_images_that_no_question_is_about(tree):
    write(tree / "questions" / "CLEVR_val_questions.json", {"questions": [question(1, "Are there any things?", "yes")]})
    batch = clevr(tree, limit=1).dataset("val").__getitems__([0])
    assert (batch.questions.tolist(), batch.answers.tolist()) == ([[[0]]], [[-1]])


def test_a_tree_whose_questions_are_about_other_images_is_refused(tree, tmp_path):
    other = write_tree(tmp_path / "other")
    file = write(
        other / "questions" / "CLEVR_val_questions.json", {"questions": [question(9, "Are there any things?")]}
    )
    questions = {"val": [str(tree / "questions" / "CLEVR_val_questions.json"), str(file)]}
    with pytest.raises(BadFile, match=r"split 'val', got .*other.*json, which asks about none of the 3 in .*other"):
        joined(tree, other, questions=questions).setup()


def test_pictures_of_any_usual_kind_are_found_and_hidden_ones_left_out(tree):
    images = tree / "images" / "val"
    Image.new("RGB", (40, 30)).save(images / "CLEVR_2.JPEG", "jpeg")
    Image.new("RGB", (40, 30)).save(images / "CLEVR_3.webp")
    (images / "._CLEVR_9.png").write_bytes(b"what macOS leaves")
    data = clevr(tree, scenes=None, questions=None)
    assert data.ids("val") == ["CLEVR_0", "CLEVR_1", "CLEVR_2", "CLEVR_3"]
    names = [path.name for path in data.dataset("val").files.paths]
    assert names == ["CLEVR_0.png", "CLEVR_1.png", "CLEVR_2.JPEG", "CLEVR_3.jpg"]


def test_missing_and_damaged_files_name_themselves(tree, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"images of split 'val' must .*nowhere.* set data\.root"):
        clevr(tmp_path / "nowhere").setup()
    with pytest.raises(FileNotFoundError, match=r"images of split 'train' must .*train, which doesn't exist"):
        clevr(tree).setup("fit")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadFile, match=r"folder without any: .*empty"):
        clevr(tree, images=str(tmp_path / "empty")).setup()
    scenes = tree / "scenes" / "CLEVR_val_scenes.json"
    cut, whole = tmp_path / "cut.json", scenes.read_text()
    cut.write_text(whole[:-30])
    with pytest.raises(BadFile, match=r"cut\.json.*damaged or truncated"):
        clevr(tree, scenes=str(cut)).setup()
    nameless, pink = ({**scene(0), **change} for change in ({"image_filename": 3}, {"objects": [{"color": "pink"}]}))
    for content in ([1, 2], {"questions": []}, {"scenes": [nameless]}, {"scenes": [pink]}):
        write(cut, content)
        with pytest.raises(BadFile, match=r"cut\.json"):
            clevr(tree, scenes=str(cut)).setup()
    write(cut, {"scenes": json.loads(whole)["scenes"][:1] * 2})
    with pytest.raises(BadFile, match="scenes must describe every image once, got CLEVR_0 twice"):
        clevr(tree, scenes=str(cut)).setup()
    write(cut, {"scenes": [scene(7)]})
    with pytest.raises(BadFile, match=r"got 3 images in .* and 1 scenes in .*, none of the same name"):
        clevr(tree, scenes=str(cut)).setup()
    (tree / "images" / "val" / "CLEVR_0.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    broken = clevr(tree)
    broken.setup()
    with pytest.raises(BadFile, match=r"CLEVR_0\.png can't be read"):
        next(iter(broken.loader("val")))


def test_only_the_splits_of_the_stage_are_read(tree):
    clevr(tree, train_split="none").setup("test")
    data = clevr(tree, gallery_split="none", train_split="val")
    data.setup("fit")
    assert len(data.val_dataloader()) == 2
    with pytest.raises(FileNotFoundError, match="split 'none'"):
        data.prepare_data()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"image_size": 0}, "image_size must .* got 0"),
        ({"image_size": [3]}, r"image_size must be one integer or \[height, width\], got \[3\]"),
        ({"image_size": [3, 0.5]}, "image_size must .* got 0.5"),
        ({"limit": 0}, "limit must .* got 0"),
        ({"seed": -1}, "seed must .* got -1"),
        ({"batch_size": 0}, "batch_size must .* got 0"),
        ({"num_workers": -1}, "num_workers must .* got -1"),
        ({"images": None}, "images must name a folder for split 'train', got None"),
        ({"images": []}, r"images must be a path .* got \[\]"),
        ({"scenes": 3}, "scenes must be a path .* got 3"),
        ({"questions": {"val": [1]}}, r"questions must be a path .* got \{'val': \[1\]\}"),
        ({"vocabulary": "klingon"}, "vocabulary must be one of clevr, got 'klingon'"),
        ({"vocabulary": ["clevr"]}, r"vocabulary must be one of clevr, got \['clevr'\]"),
        ({"augment": "no"}, "augment must be true or false, got 'no'"),
        ({"truth": 3}, "truth must be a list of ground truths .* got 3"),
        ({"truth": ["soft/part"]}, "truth must .* got 'soft/part'"),
        ({"truth": ["soft"]}, "truth must list ground truths nodes/method .* got 'soft'"),
        ({"truth": "medium/authors"}, "truth must .* got 'medium/authors'"),
        ({"truth": ["soft/best"]}, "truth must .* got 'soft/best'"),
    ],
)
def test_arguments_outside_their_range_are_refused(tree, changed, said):
    with pytest.raises(ValueError, match=said):
        clevr(tree, **changed)


def test_truth_null_is_no_ground_truth(tree):
    assert clevr(tree, truth=None).truth == clevr(tree, truth=[]).truth == []
    assert clevr(tree, truth="soft/authors").truth == [("soft", "authors")]


def test_an_unknown_split_is_refused(tree):
    with pytest.raises(ValueError, match="split must be one of train, val, got 'test'"):
        clevr(tree).loader("test")


def test_what_is_kept_of_a_scenes_file_is_read_again_only_when_the_file_changes(tree):
    clevr(tree, questions=None).setup()
    kept = sorted((tree / "cache").iterdir())
    assert len(kept) == 1
    scenes = tree / "scenes" / "CLEVR_val_scenes.json"
    clevr(tree, questions=None).setup()
    assert sorted((tree / "cache").iterdir()) == kept
    whole = kept[0].read_bytes()
    for damaged in (whole[:-100], b"", whole.replace(b"offsets", b"offsetz")):
        kept[0].write_bytes(damaged)
        with pytest.warns(UserWarning, match="is damaged .* made again"):
            assert clevr(tree, questions=None).scene_graphs("val").sizes.tolist() == [1, 2, 0]
    content = json.loads(scenes.read_text())
    write(scenes, {"scenes": content["scenes"][1:]})
    assert clevr(tree, questions=None).ids("val") == ["CLEVR_1", "CLEVR_3"]


@pytest.mark.parametrize(
    ("name", "keys", "size", "shape"),
    [("clevr_real267", REAL267, 267, (320, 480)), ("clevr_mini", {}, 400, (240, 320))],
)
def test_real_sets_are_read_whole(tmp_path, name, keys, size, shape):
    if not (REAL / name).is_dir():
        pytest.skip(f"{REAL / name} is absent (set ZOO_DATA)")
    data = clevr(REAL / name, **{"cache": str(tmp_path), "image_size": 75, "batch_size": size, **keys})
    data.setup()
    assert data.size("val") == len(set(data.ids("val"))) == size
    assert data.picture("val", 0).shape == (*shape, 3)
    graphs, compositions = data.scene_graphs("val"), data.compositions("val")
    file = REAL / name / keys.get("scenes", "scenes/CLEVR_val_scenes.json")
    scenes = {Path(item["image_filename"]).stem: item for item in json.loads(file.read_text())["scenes"]}
    one_by_one = PackedGraphs.from_graphs([clevr_graph(scenes[stem]) for stem in data.ids("val")])
    assert graphs.fingerprint == one_by_one.fingerprint
    assert (graphs.sizes.min(), graphs.sizes.max()) == (3, 10)
    for start in (0, 8, 11, 13):
        stop = {0: 8, 8: 11, 11: 13, 13: 15}[start]
        assert (compositions[:, start:stop].sum(axis=1) == graphs.sizes).all()
    # Exactly one of right and left, and one of front and behind, holds for a pair.
    assert all(len(graph.edges) == len(graph) * (len(graph) - 1) for graph in graphs)
    batch = data.dataset("val").__getitems__([0, size - 1])
    assert batch.images.shape == (2, 3, 75, 75)
    assert 0.3 < batch.images.mean() < 0.6
