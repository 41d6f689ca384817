from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import zlib
from functools import cache

import numpy as np
import pytest
import torch

import zoo
from zoo.files import BadFile
from zoo.registry import UsageError
from zoo.search import storage, stored
from zoo.search.index import open_index
from zoo.types import Representation

DIMENSION, BATCH, BATCHES = 16, 20, 6
KINDS = {
    "flat": {"metric": "l2"},
    "regions": {"metric": "dot", "shortlist": 30},  # so that there is a snapshot, too
    "ivf_pq": {"lists": 2, "subquantizers": 4, "bits": 4, "probes": 2, "metric": "l2"},
    "local_maps": {"subquantizers": 4, "centroids": 8, "train_size": 200, "metric": "l2"},
}


def gallery(count):
    generator = torch.Generator().manual_seed(0)
    regions = torch.randn(count, 2, DIMENSION, generator=generator)
    maps = torch.randn(count, DIMENSION, 3, 2, generator=generator)
    return Representation(vector=regions[:, 0], regions=regions, local_map=maps, fingerprint="f" * 16)


@cache
def described(kind):
    """Composing a config takes longer than most of these tests."""
    return zoo.create("index", kind, **KINDS[kind])


def empty(kind):
    index = type(described(kind))(**described(kind).registered["parameters"])
    index.registered = described(kind).registered
    return index


def build(folder, kind, after_batch=lambda number: None):
    """Adds what is missing of a gallery, batch by batch, and saves after each: what `zoo index` does."""
    here = (folder / storage.MANIFEST).exists()
    index = open_index(folder) if here else empty(kind)
    items, names = gallery(BATCH * BATCHES), [f"{i}.jpg" for i in range(BATCH * BATCHES)]
    for number in range(BATCHES):
        rows = [i for i in range(number * BATCH, (number + 1) * BATCH) if names[i] not in index]
        after_batch(number)
        if rows:
            index.add([names[i] for i in rows], items.rows(rows), [{"row": i} for i in rows])
            index.save(folder, {"set": "test"})
    return index


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def build_and_die(folder, kind, point, at):
    write = storage._Counted.write

    def write_half(self, data):
        write(self, memoryview(data)[: len(data) // 2])
        self._raw.flush()
        if self.size > 600:  # not in the first small file
            die()

    def arm(number):
        if number == at and point == "segment":
            storage._Counted.write = write_half
        elif number == at:
            setattr(storage, {"manifest": "_write_manifest", "clean-up": "_clean_up"}[point], die)

    build(folder, kind, arm)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("point", ["segment", "manifest", "clean-up"])
@pytest.mark.parametrize("at", [0, 4])
def test_a_killed_build_goes_on_without_loss_or_duplicates(kind, point, at, tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "_SEGMENTS", 3)  # so that files are replaced, too
    whole = build(tmp_path / "whole", kind)
    folder = tmp_path / "killed"
    child = multiprocessing.get_context("fork").Process(target=build_and_die, args=(folder, kind, point, at))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    committed = at + (point == "clean-up")
    assert (folder / storage.MANIFEST).exists() == (committed > 0)
    assert storage.is_unused(folder) == (committed == 0)
    if committed:
        assert open_index(folder).ids == whole.ids[: committed * BATCH]
    build(folder, kind)
    resumed = open_index(folder)
    assert resumed.ids == whole.ids
    assert resumed.payloads(resumed.ids) == whole.payloads(whole.ids)
    for field, rows in whole.get(whole.ids).filled().items():
        assert torch.equal(getattr(resumed.get(whole.ids), field), rows)
    for one, other in zip(resumed.search(gallery(8), 9), whole.search(gallery(8), 9), strict=True):
        assert one.ids == other.ids
        assert torch.equal(one.scores, other.scores)
    named = {entry["file"] for entry in storage.entries(storage.read_manifest(folder))}
    assert {path.name for path in folder.iterdir()} == {*named, storage.MANIFEST, ".lock"}


# What a commit writes


def made(folder, kind="flat", count=40):
    index = empty(kind)
    index.add(range(count), gallery(count), [{"row": i} for i in range(count)])
    index.save(folder, {"set": "test"})
    return index


@pytest.mark.parametrize("kind", ["flat", "regions"])
def test_an_append_writes_its_own_rows_only(kind, tmp_path):
    index = zoo.create("index", kind, metric="dot")
    index.add(range(40), gallery(40))
    index.save(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("000001-*")}
    index.add([100], gallery(1))
    index.remove([3])
    index.save(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("000001-*")} == before
    assert sum(path.stat().st_size for path in tmp_path.glob("000002-*")) < 2000
    assert open_index(tmp_path).ids == index.ids


def test_many_segments_or_removals_are_written_anew(tmp_path):
    index = made(tmp_path)
    for number in range(stored._SEGMENTS):
        index.add([100 + number], gallery(1))
        index.save(tmp_path)
    assert len(storage.read_manifest(tmp_path)["segments"]) == 1
    index.remove(range(30))
    index.save(tmp_path)
    manifest = storage.read_manifest(tmp_path)
    assert [segment["count"] for segment in manifest["segments"]] == [26]
    assert manifest["removed"] is None
    assert open_index(tmp_path).ids == index.ids == [*range(30, 40), *range(100, 116)]


def test_an_empty_index_is_saved_and_filled_later(tmp_path):
    index = zoo.create("index", "flat", metric="dot")
    index.save(tmp_path, {"set": "none"})
    opened = open_index(tmp_path)
    assert (len(opened), opened.about) == (0, {"set": "none"})
    opened.add(["a"], gallery(1))
    opened.save(tmp_path)
    opened.remove(["a"])
    opened.add([1], gallery(1))
    opened.save(tmp_path)
    assert open_index(tmp_path).ids == [1]


def test_an_index_moves_with_its_folder(tmp_path):
    made(tmp_path / "here")
    shutil.move(tmp_path / "here", tmp_path / "there")
    index = open_index(tmp_path / "there")
    index.add([100], gallery(1))
    index.save(tmp_path / "there")
    index.save(tmp_path / "copy")
    assert open_index(tmp_path / "there").ids == open_index(tmp_path / "copy").ids


def test_names_that_are_no_text_survive(tmp_path):
    index = zoo.create("index", "flat")
    index.add(["a\udcff.jpg"], Representation(vector=torch.ones(1, 4)), [{"path": "/a\udcff.jpg"}])
    index.save(tmp_path)
    again = open_index(tmp_path)
    assert (again.ids, again.payloads(again.ids)) == (["a\udcff.jpg"], [{"path": "/a\udcff.jpg"}])


def test_files_of_others_stay(tmp_path):
    (tmp_path / "notes.npy").write_text("mine")
    assert not storage.is_unused(tmp_path)
    assert not storage.is_unused(tmp_path / "notes.npy")
    (tmp_path / "000001-orphan.npy").write_text("of a killed commit")
    made(tmp_path)
    assert (tmp_path / "notes.npy").exists()
    assert not (tmp_path / "000001-orphan.npy").exists()


def test_an_index_that_no_config_describes_is_not_saved(tmp_path):
    from zoo.search.indexes.flat import FlatIndex

    with pytest.raises(ValueError, match=r"only an index made by zoo.create\('index', …\) can be saved"):
        FlatIndex(metric="dot").save(tmp_path)


def test_a_full_disk_leaves_the_former_state(tmp_path, monkeypatch):
    index = made(tmp_path)
    index.add([100], gallery(1))

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(storage._Counted, "write", full)
        with pytest.raises(OSError, match="No space left"):
            index.save(tmp_path)
    assert len(open_index(tmp_path)) == 40
    index.save(tmp_path)
    assert len(open_index(tmp_path)) == 41


# Two writers


def test_the_later_of_two_writers_is_told(tmp_path):
    made(tmp_path)
    first, second = open_index(tmp_path), open_index(tmp_path)
    first.add([100], gallery(1))
    second.add([101], gallery(1))
    first.save(tmp_path)
    with pytest.raises(ValueError, match=r"written by another process since it was opened .*2, the opened one 1"):
        second.save(tmp_path)
    with pytest.raises(ValueError, match="already holds an index: open it with open_index"):
        made(tmp_path)
    with storage._only_writer(tmp_path), pytest.raises(ValueError, match="another process is writing to the index"):
        first.save(tmp_path)
    assert open_index(tmp_path).ids[-1] == 100


# Damage


def vector_file(folder):
    return next(folder.glob("*-vector.npy"))


def cut(folder):
    path = vector_file(folder)
    path.write_bytes(path.read_bytes()[:-1])


def flip(folder):
    content = bytearray(vector_file(folder).read_bytes())
    content[-1] ^= 1
    vector_file(folder).write_bytes(content)


def forge(folder, change):
    """Changes a manifest as somebody would who wants to deceive: with a right checksum."""
    manifest = storage.read_manifest(folder)
    change(manifest)
    storage._write_manifest(folder, manifest)


def entry_of(manifest, name="vector"):
    return manifest["segments"][0]["files"][name]


def pickled(folder):
    path = vector_file(folder)
    np.save(path, np.array([{"a": 1}], object), allow_pickle=True)
    content = path.read_bytes()
    forge(folder, lambda manifest: entry_of(manifest).update(bytes=len(content), crc32=zlib.crc32(content)))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "is no index: it has no manifest.json"),
        (lambda folder: (folder / "manifest.json").write_text("{"), r"manifest.json can't be read"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "is not the manifest of an index"),
        (lambda folder: vector_file(folder).unlink(), r"vector.npy can't be read: No such file"),
        (cut, r"vector.npy is damaged: it has \d+ bytes instead of \d+"),
        (flip, r"vector.npy is damaged: its checksum differs"),
        (pickled, r"vector.npy can't be read: .*Python objects"),
        (lambda folder: forge(folder, lambda m: entry_of(m).update(file="../secret.npy")), "that is no data file"),
        (lambda folder: forge(folder, lambda m: m["segments"][0].update(count=39)), "40 values instead of 39"),
        (lambda folder: forge(folder, lambda m: m.update(count=41)), "holds 40 items instead of 41"),
        (lambda folder: forge(folder, lambda m: m.update(version=2)), "format version 2, this zoo reads version 1"),
        (lambda folder: forge(folder, lambda m: m.update(index=None)), "does not say which index it is"),
        (lambda folder: forge(folder, lambda m: m["index"]["parameters"].update(a=1)), "other parameters than 'flat'"),
    ],
)
def test_damage_is_named_and_nothing_is_run(damage, message, tmp_path):
    made(tmp_path)
    damage(tmp_path)
    with pytest.raises(BadFile, match=message):
        open_index(tmp_path)


def test_a_changed_number_in_the_manifest_is_seen(tmp_path):
    made(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(path.read_text().replace('"f' + "f" * 14, '"e' + "f" * 14))
    with pytest.raises(BadFile, match=r"manifest.json is damaged: its checksum differs"):
        open_index(tmp_path)


@pytest.mark.parametrize("kind", ["regions", "ivf_pq"])
def test_a_snapshot_of_another_kind_is_refused(kind, tmp_path):
    import faiss

    made(tmp_path, kind)
    path = next(tmp_path.glob("*.faiss"))
    other = faiss.serialize_index(faiss.IndexFlatL2(DIMENSION))
    for content in (other.tobytes(), b"no index at all"):
        path.write_bytes(content)
        entry = {"bytes": len(content), "crc32": zlib.crc32(content)}
        forge(tmp_path, lambda m, entry=entry: next(iter(m["snapshot"].values())).update(entry))
        with pytest.raises(BadFile, match="can't be read"):
            open_index(tmp_path)


def test_an_index_of_a_missing_plugin_names_it(tmp_path):
    made(tmp_path)
    forge(tmp_path, lambda m: m["index"].update(name="acme_gone", origin="zoo-acme 9.9"))
    with pytest.raises(UsageError, match=r"written by zoo-acme 9.9: unknown index 'acme_gone'"):
        open_index(tmp_path)


def test_the_manifest_says_what_the_index_is(tmp_path):
    made(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["index"]["name"] == "flat"
    assert manifest["index"]["parameters"] == {"metric": "l2"}
    assert (manifest["count"], manifest["fingerprint"], manifest["about"]) == (40, "f" * 16, {"set": "test"})
