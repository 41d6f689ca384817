"""`zoo index model=…`: images are described and coded at once, searched by a photo, and followed as they change."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from photo_runs import photos, run
from PIL import Image

from zoo.registry import UsageError
from zoo.search import live
from zoo.search.index import open_index

NETWORK = [
    "model=fcn_segment", "model.backbone=test_resnet", "model.backbone_weights=random", "model.head=light",
    "model.dilations=[1,2]", "model.width=8", "model.output_stride=16", "model.classes=[sky,ground,thing]",
    "data.image_size=64", "index=probability_maps", "index.centroids=8",
]  # fmt: skip


@pytest.fixture
def index(tmp_path):
    """Indexes tmp_path/photos in this process, and returns the index."""

    def build(*words):
        run("index", tmp_path, f"data.root={tmp_path / 'photos'}", *NETWORK, f"out={tmp_path / 'index'}", *words)
        return open_index(tmp_path / "index")

    return build


def test_photos_are_coded_and_found_without_features(tmp_path, index, caplog):
    caplog.set_level("INFO", "zoo")
    root = photos(tmp_path / "photos", 6)
    (root / "a" / "broken.png").write_bytes(b"no picture")
    built = index()
    assert sorted(built.ids) == ["a/0", "a/1", "a/2", "b/0", "b/1", "b/2"]
    assert "1 images could not be read, and aren't in the index (a/broken)" in caplog.text
    assert built.payloads(["b/2"])[0]["width"] == 48
    run("search", tmp_path, f"query={root / 'b/1.png'}", f"index_path={tmp_path / 'index'}", "k=2")
    hits = json.loads((tmp_path / "run/results.json").read_text())["queries"][0]["hits"]
    assert hits[0]["id"] == "b/1"
    assert list(hits[0]["evidence"]["class_distances"]) == ["sky", "ground", "thing"]
    assert sum(hits[1]["evidence"]["class_distances"].values()) == pytest.approx(-hits[1]["score"], rel=1e-4)


@pytest.mark.parametrize(("room", "described"), [(live._KEPT, 6), (3 * 4 * 3 * 8 * 8, 9)])  # room for all, for three
def test_what_was_learnt_from_is_described_once_where_there_is_room(tmp_path, index, monkeypatch, room, described):
    from zoo.models.fcn_segment.module import FCNSegment

    photos(tmp_path / "photos", 6)
    expected = index()
    shutil.rmtree(tmp_path / "index")
    seen = []
    embed = FCNSegment.embed
    monkeypatch.setattr(
        FCNSegment, "embed", lambda self, batch, role: seen.append(len(batch)) or embed(self, batch, role)
    )
    monkeypatch.setattr(live, "_KEPT", room)
    built = index()
    assert sum(seen) == described
    assert torch.equal(built.get(built.ids).probability_map, expected.get(expected.ids).probability_map)


def test_what_has_changed_is_coded_again(tmp_path, index, capsys):
    root = photos(tmp_path / "photos", 5)
    before = index().payloads(["a/1", "b/0"])
    Image.new("RGB", (48, 40), "red").save(root / "a/1.png")
    Image.new("RGB", (48, 40), "blue").save(root / "b/9.png")
    capsys.readouterr()
    after = index()
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("│"))
    assert [cell.strip() for cell in row.strip("│").split("│")][:4] == ["6", "1", "1", "4"]
    now = after.payloads(["a/1", "b/0"])
    assert now[0]["bytes"] != before[0]["bytes"]
    assert now[1] == before[1]


def test_what_was_learnt_outlives_an_interruption(tmp_path, index, monkeypatch):
    from zoo.search.indexes.probability_maps import export

    photos(tmp_path / "photos", 6)
    with monkeypatch.context() as patched:
        patched.setattr(export, "add", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            index()
    learnt = open_index(tmp_path / "index")
    assert len(learnt) == 0
    with pytest.raises(UsageError, match=f"holds vectors of the model {learnt.fingerprint}, features"):
        index("model.width=16")
    monkeypatch.setattr(export, "learn", lambda *_: pytest.fail("it has learnt already"))
    built = index()
    assert len(built) == 6
    assert built.codebook.fingerprint() == learnt.codebook.fingerprint()


def test_features_and_a_model_are_not_named_together(tmp_path, index):
    photos(tmp_path / "photos", 2)
    with pytest.raises(UsageError, match="features=f and model=fcn_segment are both given; name one"):
        index("features=f")
