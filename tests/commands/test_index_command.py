"""`zoo index`: what features hold is in the index once, however often the command was called or killed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from photo_runs import embed, photos, run
from PIL import Image

from zoo.files import BadFile
from zoo.registry import UsageError
from zoo.search.features import open_features
from zoo.search.index import open_index
from zoo.search.indexes.flat import export as FlatIndex


@pytest.fixture
def vectors(tmp_path):
    def write(count, name="v.npz", dimension=8, seed=0):
        rows = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
        np.savez(tmp_path / name, vectors=rows, ids=np.array([f"item {number}" for number in range(count)]))
        return tmp_path / name

    return write


def counts(capsys):
    """Returns items, added, replaced and kept as the table shows them."""
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("│"))
    return [cell.strip() for cell in row.strip("│").split("│")][:4]


def test_photos_become_an_index_that_follows_them(tmp_path, capsys, caplog):
    caplog.set_level("INFO", "zoo")
    root = photos(tmp_path / "photos", 6)
    embed(tmp_path, root)
    run("index", tmp_path)
    folder = tmp_path / "outputs/indexes/photos-global_descriptor-flat"
    assert f"features={tmp_path / 'outputs/features/photos-global_descriptor'}" in caplog.text
    assert counts(capsys) == ["6", "6", "0", "0"]
    features, index = open_features(tmp_path / "outputs/features/photos-global_descriptor"), open_index(folder)
    assert (index.ids, index.fingerprint) == (features.ids, features.fingerprint)
    assert index.payloads(["b/2"]) == features.payloads(["b/2"])
    assert (folder / "model.safetensors").samefile(features.path / "model.safetensors")
    Image.new("RGB", (48, 40), "red").save(root / "a/1.png")
    Image.new("RGB", (48, 40), "blue").save(root / "c.png")
    embed(tmp_path, root)
    run("index", tmp_path)
    assert counts(capsys) == ["7", "1", "1", "5"]
    features, index = open_features(features.path), open_index(folder)
    found = index.search(features.get(["a/1"]), 1)[0]
    assert list(found.ids) == ["a/1"]
    assert found.scores[0] > 0.9999
    embed(tmp_path, root, "model.levels=2", "run_name=other")
    with pytest.raises(UsageError, match=f"of the model {index.fingerprint}, features .*other are of "):
        run("index", tmp_path, f"features={tmp_path / 'outputs/features/photos-other'}", f"out={folder}")


def test_a_file_that_was_written_anew_replaces_what_it_shares(tmp_path, vectors, capsys):
    overrides = [f"features={vectors(30)}", f"out={tmp_path / 'i'}", "block=7"]
    run("index", tmp_path, *overrides)
    capsys.readouterr()
    run("index", tmp_path, *overrides)
    assert counts(capsys) == ["30", "0", "0", "30"]
    vectors(32, seed=1)
    run("index", tmp_path, *overrides)
    assert counts(capsys) == ["32", "2", "30", "0"]
    features, index = open_features(tmp_path / "v.npz"), open_index(tmp_path / "i")
    assert sorted(index.ids) == sorted(features.ids)
    assert [list(found.ids) for found in index.search(features.get(features.ids), 1)] == [[id_] for id_ in features.ids]


@pytest.mark.parametrize("kind", ["flat", "milvus"])
def test_items_that_the_features_no_longer_hold_leave_when_asked(tmp_path, vectors, caplog, kind):
    if kind == "milvus":
        pytest.importorskip("milvus_lite", reason="extra milvus")
    overrides = [f"features={vectors(30)}", f"out={tmp_path / 'i'}", f"index={kind}"]
    run("index", tmp_path, *overrides)
    vectors(20)
    caplog.set_level("INFO", "zoo")
    run("index", tmp_path, *overrides)
    assert (
        "10 items of the index aren't in the features (item 20, item 21, item 22, item 23, item 24, …)" in caplog.text
    )
    assert "prune=true removes them" in caplog.text
    assert len(open_index(tmp_path / "i")) == 30
    run("index", tmp_path, *overrides, "prune=true")
    assert sorted(open_index(tmp_path / "i").ids) == sorted(open_features(tmp_path / "v.npz").ids)
    np.savez(tmp_path / "w.npz", vectors=np.eye(2, 8, dtype=np.float32), ids=np.array(["x", "y"]))
    with pytest.raises(UsageError, match=r"prune=true would remove all 20 items: features .*w\.npz hold none of them"):
        run("index", tmp_path, f"features={tmp_path / 'w.npz'}", *overrides[1:], "prune=true")
    assert len(open_index(tmp_path / "i")) == 20


def test_a_parquet_file_with_payloads_becomes_an_index(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {"id": ["a", "b", "c"], "vector": np.eye(3, 4).tolist(), "label": ["x", None, "y"]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "v.parquet")
    run("index", tmp_path, f"features={tmp_path / 'v.parquet'}", f"out={tmp_path / 'i'}")
    index = open_index(tmp_path / "i")
    assert index.payloads(["a", "b", "c"]) == [{"label": "x"}, {}, {"label": "y"}]


def test_an_index_that_is_trained_waits_for_its_vectors(tmp_path, vectors):
    small = ["index.lists=2", "index.subquantizers=2", "index.bits=4", "index.probes=2", "index.train_size=700"]
    run("index", tmp_path, f"features={vectors(900)}", f"out={tmp_path / 'i'}", "block=10", "index=ivf_pq", *small)
    assert len(open_index(tmp_path / "i")) == 900
    with pytest.raises(UsageError, match="needs at least"):
        run("index", tmp_path, f"features={vectors(10)}", f"out={tmp_path / 'j'}", "index=ivf_pq", *small)


@pytest.mark.parametrize(
    ("overrides", "error", "says"),
    [
        (["index=regions"], UsageError, "needs .*; features .* hold vector: choose another index="),
        (["index.metric=l2"], UsageError, "holds an index with metric=cosine, not metric=l2: choose another out="),
        (["block=0"], UsageError, "block must be an integer of at least 1, got 0"),
        (["features=nowhere"], BadFile, "features nowhere: no such file or folder"),
        (["out=."], UsageError, "out must be an index, a new or an empty folder"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, vectors, overrides, error, says):
    own = [f"features={vectors(5)}", f"out={tmp_path / 'i'}"]
    run("index", tmp_path, *own)
    with pytest.raises(error, match=says):
        run("index", tmp_path, *own, *overrides)
    assert len(open_index(tmp_path / "i")) == 5


def test_images_of_another_size_are_refused(tmp_path):
    for size in (100, 200):
        said = {"fingerprint": "f" * 16, "about": {"preprocessing": {"image_size": size, "upright": True}}}
        rows = {"vectors": np.eye(2, dtype=np.float32), "ids": np.array([size, size + 1])}
        np.savez(tmp_path / f"{size}.npz", **rows, spatial_zoo=np.array(json.dumps(said)))
    run("index", tmp_path, f"features={tmp_path / '100.npz'}", f"out={tmp_path / 'i'}")
    with pytest.raises(UsageError, match=r"preprocessing image_size=100, .*200\.npz image_size=200: choose another"):
        run("index", tmp_path, f"features={tmp_path / '200.npz'}", f"out={tmp_path / 'i'}")


def test_milvus_keeps_its_file_in_the_index_and_goes_on_after_a_stop(tmp_path, vectors, monkeypatch, capsys):
    pytest.importorskip("milvus_lite", reason="extra milvus")
    from zoo.search.indexes.milvus import export as MilvusIndex

    overrides = [f"features={vectors(30)}", f"out={tmp_path / 'i'}", "index=milvus", "block=10"]
    add, calls = MilvusIndex.add, []

    def stopping(self, *arguments):
        add(self, *arguments)
        calls.append(arguments)
        if len(calls) == 2:
            self.close()
            raise KeyboardInterrupt

    monkeypatch.setattr(MilvusIndex, "add", stopping)
    with pytest.raises(KeyboardInterrupt):
        run("index", tmp_path, *overrides)
    monkeypatch.undo()
    run("index", tmp_path, *overrides)
    assert counts(capsys) == ["30", "10", "0", "20"]
    assert (tmp_path / "i/milvus.db").exists()


def test_without_features_it_says_how_to_make_some(tmp_path):
    with pytest.raises(UsageError, match=r"there are none in .*zoo embed FOLDER makes some"):
        run("index", tmp_path)


def test_a_stopped_build_goes_on_without_loss_or_duplicates(tmp_path, vectors, monkeypatch, capsys):
    overrides = [f"features={vectors(90)}", f"out={tmp_path / 'i'}"]
    save, commits = FlatIndex.save, []

    def stopping(*arguments):
        save(*arguments)
        commits.append(arguments)
        if len(commits) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(FlatIndex, "save", stopping)
    with pytest.raises(KeyboardInterrupt):
        run("index", tmp_path, *overrides, "block=10")
    assert len(open_index(tmp_path / "i")) == 30
    run("index", tmp_path, *overrides)
    assert counts(capsys) == ["90", "60", "0", "30"]
    features, index = open_features(tmp_path / "v.npz"), open_index(tmp_path / "i")
    assert sorted(index.ids) == sorted(features.ids)
    assert [found.ids[0] for found in index.search(features.get(features.ids), 1)] == features.ids
