"""Features on disk: every form reads back what was written, by id and in blocks, whatever wrote the shards."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from zoo.files import BadFile
from zoo.registry import UsageError
from zoo.search import _features_files
from zoo.search._features_folder import begin, plan
from zoo.search._features_join import joined, to_original
from zoo.search._features_shards import ShardWriter, natural
from zoo.search.features import SHARDS, open_features
from zoo.types import Representation

ABOUT = {"model": {"name": "m", "parameters": {"p": 1}}, "preprocessing": {"size": 3}, "roots": ["/photos"]}


def vectors(start, count):
    return Representation(vector=torch.arange(start * 4.0, (start + count) * 4.0).reshape(count, 4))


def payload(id_):
    return {"path": f"/photos/{id_}.jpg", "bytes": 7, "modified": 11, "width": 40, "height": 30}


def write(folder, batches, size=3, kinds=("vector",), run=1, rank=0):
    begin(folder, kinds, "f" * 16, ABOUT)
    writer = ShardWriter(folder / SHARDS, run, rank, size)
    for ids, items in batches:
        writer.add(ids, items, [payload(id_) for id_ in ids])
    writer.flush()
    return open_features(folder)


@pytest.fixture
def features(tmp_path):
    return write(
        tmp_path / "f", [(["a/q10", "a/q2"], vectors(0, 2)), (["b", "c"], vectors(2, 2)), (["d"], vectors(4, 1))]
    )


def test_ids_are_in_natural_order_and_rows_come_by_id(features):
    assert features.ids == ["a/q2", "a/q10", "b", "c", "d"]
    assert (features.kinds, features.fingerprint, features.about) == (("vector",), "f" * 16, ABOUT)
    found = features.get(["d", "a/q10", "a/q2", "d"])
    assert found.vector[:, 0].tolist() == [16, 0, 4, 16]
    assert found.fingerprint == "f" * 16
    assert features.payloads(["c"]) == [payload("c")]
    assert "b" in features
    assert "e" not in features
    with pytest.raises(ValueError, match="of 5 images have none called 'e'"):
        features.get(["e"])


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(1, 7), st.integers(1, 9), st.randoms())
@settings(max_examples=25)
def test_blocks_hold_every_image_once_however_it_was_written(tmp_path_factory, batches, size, block, random):
    folder, start = tmp_path_factory.mktemp("f"), 0
    names = [f"n{number}" for number in range(sum(batches))]
    random.shuffle(names)
    for rank in range(2):
        for count in batches[rank::2]:
            write(folder, [(names[start : start + count], vectors(start, count))], size, rank=rank)
            start += count
    seen = [
        pair for ids, items, _ in open_features(folder).blocks(block) for pair in zip(ids, items.vector, strict=True)
    ]
    assert [id_ for id_, _ in seen] == sorted(names, key=natural)
    assert all(row[0] == 4 * names.index(id_) for id_, row in seen)


def test_a_later_run_replaces_what_it_embeds_again(tmp_path):
    write(tmp_path, [(["a", "b"], vectors(0, 2))])
    features = write(tmp_path, [(["b"], vectors(9, 1))], run=2)
    assert features.get(["a", "b"]).vector[:, 0].tolist() == [0, 36]
    assert len(features) == 2


def test_ctrl_c_while_the_device_is_waited_for_parts_no_ids_from_their_items(tmp_path, monkeypatch):
    begin(tmp_path, ("vector",), "f" * 16, ABOUT)
    writer = ShardWriter(tmp_path / SHARDS, 1, 0, 9)
    writer.add(["a"], vectors(0, 1), [payload("a")])

    def interrupted(tensor):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.Tensor, "cpu", interrupted)
    with pytest.raises(KeyboardInterrupt):
        writer.add(["b"], vectors(1, 1), [payload("b")])
    monkeypatch.undo()
    writer.flush()
    features = open_features(tmp_path)
    assert features.ids == ["a"]
    assert features.get(["a"]).vector.tolist() == [[0, 1, 2, 3]]


def test_a_folder_that_was_begun_and_killed_is_begun_again(tmp_path):
    (tmp_path / ".manifest.json.7.ab.tmp").write_text("{")
    assert write(tmp_path, [(["a"], vectors(0, 1))]).ids == ["a"]


def test_a_plan_names_new_changed_and_gone_images(tmp_path):
    write(tmp_path, [(["a", "b", "c"], vectors(0, 3))])
    stamps = {"a": {"bytes": 7, "modified": 11}, "b": {"bytes": 7, "modified": 12}, "new": {"bytes": 1, "modified": 1}}
    found = plan(tmp_path, stamps)
    assert (found.todo, found.changed, found.gone, found.run) == (["b", "new"], ["b"], ["c"], 2)


@pytest.mark.parametrize(
    ("fingerprint", "about", "says"),
    [
        ("e" * 16, {}, f"fingerprint {'f' * 16} \\(other weights\\), not {'e' * 16} \\(these\\)"),
        ("e" * 16, {"model": {"name": "m", "parameters": {"p": 2}}}, "\\(p=1\\), not e+ \\(p=2\\)"),
        ("f" * 16, {"preprocessing": {"size": 4}}, "preprocessing size=3, not size=4: choose another out="),
        ("f" * 16, {"roots": ["/other"]}, "roots \\['/photos'\\], not \\['/other'\\]"),
    ],
)
def test_features_of_something_else_are_refused_with_both_values(tmp_path, fingerprint, about, says):
    write(tmp_path, [(["a"], vectors(0, 1))])
    with pytest.raises(UsageError, match=says):
        begin(tmp_path, ("vector",), fingerprint, {**ABOUT, **about})


def test_a_folder_of_anything_else_stays_as_it_is(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="must be a folder of zoo embed, a new or an empty one"):
        begin(tmp_path, ("vector",), "f", ABOUT)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_damaged_and_foreign_files_are_named(features, tmp_path):
    shard = sorted((features.path / SHARDS).glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(BadFile, match=f"{shard.name} is damaged"):
        open_features(features.path)
    for name, content, says in (
        ("none", None, "no such file or folder"),
        ("a.txt", b"", "must be a folder of zoo embed or one of .h5"),
        ("a.h5", b"no", "can't be read as HDF5"),
        ("a.npz", b"no", "can't be read as .npz"),
        ("a.parquet", b"no", "can't be read as Parquet"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(BadFile, match=says):
            open_features(tmp_path / name)
    shard.write_bytes(save({"vector": torch.zeros(1, 4)}))
    with pytest.raises(BadFile, match=f"{shard.name} doesn't name its ids"):
        open_features(features.path)
    manifest = json.loads((features.path / "manifest.json").read_text())
    (features.path / "manifest.json").write_text(json.dumps({**manifest, "version": 9}))
    with pytest.raises(BadFile, match="reads format 1, the file has 9"):
        open_features(features.path)


def test_pickles_are_never_loaded(tmp_path):
    np.savez(tmp_path / "a.npz", vectors=np.zeros((1, 2)), ids=np.array([{}], dtype=object))
    with pytest.raises(BadFile, match=r"can't be read as \.npz"):
        open_features(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["hdf5", "parquet", "numpy"])
def test_exports_read_back_what_they_were_made_of(features, name):
    if name == "parquet":
        pytest.importorskip("pyarrow")
    again = open_features(_features_files.export(features, name))
    assert (again.ids, again.fingerprint, again.about) == (features.ids, features.fingerprint, ABOUT)
    order = ["d", "a/q2", "c"]
    torch.testing.assert_close(again.get(order).vector, features.get(order).vector, rtol=0, atol=0)
    torch.testing.assert_close(
        joined([items for _, items, _ in again.blocks(2)]).vector, features.get(features.ids).vector
    )
    if name != "numpy":
        assert again.payloads(order) == features.payloads(order)


@pytest.mark.parametrize("name", [None, "hdf5", "parquet", "numpy"])
def test_none_of_the_images_is_none(features, name):
    if name == "parquet":
        pytest.importorskip("pyarrow")
    read = features if name is None else open_features(_features_files.export(features, name))
    assert read.get([]).vector.shape == (0, 4)
    assert read.payloads([]) == []
    with pytest.raises(ValueError, match="have none called 'x': they hold 'a/q2', 'a/q10', 'b', …"):
        read.get(["x"])


@given(
    st.lists(st.lists(st.sampled_from("abcdef"), unique=True, max_size=4), min_size=1, max_size=5),
    st.sets(st.sampled_from("abcdef")),
    st.integers(1, 4),
)
@settings(max_examples=40)
def test_dropped_images_are_gone_and_the_others_as_they_were(tmp_path_factory, runs, dropped, size):
    folder, rows = tmp_path_factory.mktemp("f"), {}
    for number, ids in enumerate(runs, start=1):
        write(folder, [(ids, vectors(number * 10, len(ids)))] if ids else [], run=number)
        rows |= {id_: (number * 10 + row) * 4 for row, id_ in enumerate(ids)}
    shards = open_features(folder).shards
    shards.drop(dropped, size)
    after = open_features(folder)
    assert after.ids == sorted(rows.keys() - dropped)
    assert after.get(after.ids).vector[:, 0].tolist() == [rows[id_] for id_ in after.ids] if after.ids else True
    assert after.payloads(after.ids) == [payload(id_) for id_ in after.ids]


def test_a_killed_drop_loses_nothing_and_is_done_again(tmp_path, monkeypatch):
    before = write(tmp_path, [(["a", "b"], vectors(0, 2)), (["c", "d"], vectors(2, 2))], size=2)
    unlink, calls = Path.unlink, []

    def stopping(path, **options):
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", stopping)
    with pytest.raises(KeyboardInterrupt):
        before.shards.drop(["a", "c"], 2)
    monkeypatch.undo()
    assert {"b", "d"} <= set(open_features(tmp_path).ids)
    open_features(tmp_path).shards.drop(["a", "c"], 2)
    after = open_features(tmp_path)
    assert after.get(["b", "d"]).vector[:, 0].tolist() == [4, 12]
    assert after.ids == ["b", "d"]


def test_exports_are_what_other_programs_expect(features):
    path = _features_files.export(features, "hdf5")
    with h5py.File(path, "r") as file:
        assert file["a/q2.jpg/global_descriptor"][()].tolist() == [4, 5, 6, 7]
        assert file["a/q2.jpg/image_size"][()].tolist() == [40, 30]
    arrays = np.load(_features_files.export(features, "numpy"), allow_pickle=False)
    assert arrays["vectors"].shape == (5, 4)
    assert arrays["ids"].tolist() == features.ids
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(_features_files.export(features, "parquet"))
    assert table.column("vector").to_pylist()[0] == [4, 5, 6, 7]
    assert table.column_names == ["id", "vector", "path", "bytes", "modified", "width", "height"]


def test_key_points_go_to_hloc_and_back(tmp_path):
    points = Representation(
        keypoints=torch.rand(2, 3, 2),
        keypoint_descriptors=torch.rand(2, 3, 8),
        keypoint_mask=torch.tensor([[True, True, True], [True, False, False]]),
    )
    kinds = tuple(points.filled())
    path = _features_files.export(write(tmp_path, [(["a", "b"], points)], kinds=kinds), "hdf5")
    with h5py.File(path, "r") as file:
        # hloc calls the centre of the first pixel 0, 0.
        np.testing.assert_allclose(file["b.jpg/keypoints"][()], points.keypoints[1, :1] - 0.5, atol=1e-6)
        assert file["a.jpg/descriptors"].shape == (8, 3)  # hloc's layout: a column for each key point
    found = open_features(path).get(["b", "a"])
    assert found.keypoint_mask.tolist() == [[True, False, False], [True, True, True]]
    torch.testing.assert_close(found.keypoints[1], points.keypoints[0])
    torch.testing.assert_close(found.keypoint_descriptors[0, :1], points.keypoint_descriptors[1, :1])
    with pytest.raises(UsageError, match="export=numpy writes vector, the model fills keypoints"):
        _features_files.check_export("numpy", kinds)


def test_files_of_hloc_itself_have_no_fingerprint(tmp_path):
    with h5py.File(tmp_path / "global.h5", "w") as file:  # as hloc.extract_features writes it
        for number, name in enumerate(("db/1.jpg", "query/night/2.jpg")):
            group = file.create_group(name)
            group.create_dataset("global_descriptor", data=np.full(4, number, np.float16))
            group.create_dataset("image_size", data=np.array([640, 480]))
    features = open_features(tmp_path / "global.h5")
    assert (features.ids, features.kinds, features.fingerprint) == (
        ["db/1.jpg", "query/night/2.jpg"],
        ("vector",),
        None,
    )
    assert features.get(["query/night/2.jpg"]).vector.tolist() == [[1, 1, 1, 1]]
    assert features.payloads(["db/1.jpg"]) == [{"width": 640, "height": 480}]


def test_regions_of_different_numbers_are_joined_without_new_maxima():
    whole = torch.rand(1, 1, 4)
    one = Representation(
        regions=whole, region_mask=torch.ones(1, 1, dtype=torch.bool), region_hulls=torch.rand(1, 1, 3, 2)
    )
    two = Representation(
        regions=torch.rand(1, 2, 4), region_mask=torch.ones(1, 2, dtype=torch.bool), region_hulls=torch.rand(1, 2, 5, 2)
    )
    both = joined([one, two])
    assert torch.equal(both.regions[0, 1], whole[0, 0])
    assert both.region_mask.tolist() == [[True, False], [True, True]]
    assert torch.equal(both.region_hulls[0, 0, 3:], one.region_hulls[0, 0, 2:].expand(2, 2))
    maps = [replace(Representation(), local_map=torch.zeros(1, 2, side, 3)) for side in (4, 5)]
    with pytest.raises(
        ValueError, match=r"local_map must have one size for all images, got \(2, 4, 3\) and \(2, 5, 3\)"
    ):
        joined(maps)


def test_pixels_become_those_of_the_original():
    corners = torch.tensor([[[[0.0, 0.0], [20.0, 10.0]]]])
    items = Representation(
        region_boxes=torch.tensor([[[0.0, 0.0, 20.0, 10.0]]]),
        region_hulls=corners,
        keypoints=torch.tensor([[[0.5, 9.5]]]),  # the centres of the first pixel, and of the last row's first
    )
    found = to_original(items, (10, 20), torch.tensor([[30, 80]]))
    assert found.region_boxes.tolist() == [[[0, 0, 80, 30]]]
    assert found.region_hulls.tolist() == [[[[0, 0], [80, 30]]]]
    assert found.keypoints.tolist() == [[[2.0, 28.5]]]
