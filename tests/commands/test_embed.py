"""`zoo embed`: every readable image once, however often it is stopped, on however many processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from photo_runs import MODEL, embed, photos, run
from PIL import Image

import zoo
from zoo.module import Embedder
from zoo.registry import UsageError
from zoo.search.features import open_features
from zoo.types import Batch

QUIET = ("trainer.enable_progress_bar=false", "trainer.enable_model_summary=false")


def same(a, b):
    assert a.ids == b.ids
    torch.testing.assert_close(a.get(a.ids).vector, b.get(a.ids).vector, rtol=1e-5, atol=1e-6)
    assert a.payloads(a.ids) == b.payloads(a.ids)


def test_features_are_what_the_model_says_of_each_picture(tmp_path):
    root = photos(tmp_path / "photos", 5)
    embed(tmp_path, root, "shard_size=2", "data.batch_size=2")
    features = open_features(tmp_path / "outputs/features/photos-global_descriptor")
    assert features.ids == ["a/0", "a/1", "a/2", "b/0", "b/1"]
    model = zoo.load_model(str(features.model_file))
    assert model.fingerprint() == features.fingerprint
    pixels = torch.tensor(list(Image.open(root / "b/1.png").get_flattened_data())).reshape(1, 40, 48, 3)
    batch = Batch(index=torch.tensor([0]), images=pixels.movedim(3, 1).float() / 255)
    torch.testing.assert_close(features.get(["b/1"]).vector, model.represent(batch).vector, rtol=1e-5, atol=1e-6)
    payload = features.payloads(["b/1"])[0]
    assert (payload["path"], payload["label"], payload["width"], payload["height"]) == (
        str(root / "b/1.png"),
        "b",
        48,
        40,
    )
    assert len(list((features.path / "shards").iterdir())) == 3
    assert features.about["preprocessing"]["upright"] is True


def test_a_second_run_embeds_what_is_new_or_changed_and_names_what_is_gone(tmp_path, caplog):
    root, out = photos(tmp_path / "photos", 6), tmp_path / "f"
    embed(tmp_path, root, f"out={out}")
    before = open_features(out).get(["a/0", "b/1"]).vector
    Image.new("RGB", (48, 40), "red").save(root / "b/1.png")
    Image.new("RGB", (48, 40), "blue").save(root / "c.png")
    (root / "a/2.png").unlink()
    caplog.set_level("INFO", "zoo")
    embed(tmp_path, root, f"out={out}")
    after = open_features(out)
    assert "2 images to embed, 4 are there already" in caplog.text
    assert "1 of them have changed since (b/1)" in caplog.text
    assert "1 embedded images are gone (a/2); their features stay: prune=true drops them" in caplog.text
    assert after.ids == ["a/0", "a/1", "a/2", "b/0", "b/1", "b/2", "c"]
    assert torch.equal(after.get(["a/0"]).vector[0], before[0])
    assert not torch.equal(after.get(["b/1"]).vector[0], before[1])


def test_pruning_drops_what_is_gone_unless_a_disk_may_be_missing(tmp_path, caplog):
    roots = [photos(tmp_path / name, 4) for name in ("here", "there")]
    overrides = [f"data.root=[{roots[0]},{roots[1]}]", f"out={tmp_path / 'f'}", *MODEL, *QUIET]
    for number, path in enumerate(sorted(roots[1].rglob("*.png"))):
        path.rename(path.with_name(f"other{number}.png"))
    run("embed", tmp_path, *overrides)
    (roots[0] / "a/1.png").unlink()
    run("embed", tmp_path, *overrides, "prune=true", "export=[numpy]")
    assert "1 embedded images are gone (a/1); their features are dropped" in caplog.text
    for features in (open_features(tmp_path / "f"), open_features(tmp_path / "f/features.npz")):
        assert len(features) == 7
        assert "a/1" not in features
    for path in roots[1].rglob("*.png"):
        path.unlink()
    with pytest.raises(UsageError, match=f"prune=true would drop all images of {roots[1]}, where there is none now"):
        run("embed", tmp_path, *overrides, "prune=true")
    assert len(open_features(tmp_path / "f")) == 7


def test_unreadable_pictures_are_named_and_the_others_embedded(tmp_path, caplog):
    root, out = photos(tmp_path / "photos", 4), tmp_path / "f"
    (root / "a/0.png").write_bytes(b"no picture")
    (root / "b/1.png").write_bytes((root / "b/1.png").read_bytes()[:60])
    embed(tmp_path, root, f"out={out}", "data.batch_size=1")
    assert open_features(out).ids == ["a/1", "b/0"]
    lines = (out / "unreadable.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["a/0", "b/1"]
    assert "2 images could not be read (a/0, b/1)" in caplog.text
    photos(root, 4)  # repaired
    embed(tmp_path, root, f"out={out}")
    assert len(open_features(out)) == 4
    assert not (out / "unreadable.txt").exists()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/x.png").write_bytes(b"")
    with pytest.raises(UsageError, match="no image could be read"):
        embed(tmp_path, tmp_path / "bad")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("shard_size=0", "shard_size must be an integer of at least 1, got 0"),
        ("export=[csv]", "export must be some of hdf5, parquet, numpy, got 'csv'"),
        ("data=sort_of_clevr", "choose data=folder, got data=sort_of_clevr"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(tmp_path, override, says):
    root = [f"data.root={photos(tmp_path / 'photos', 2)}"] if "data=" not in override else []
    with pytest.raises(UsageError, match=says):
        run("embed", tmp_path, *MODEL, *root, f"out={tmp_path / 'f'}", override)
    assert not (tmp_path / "f").exists()


def test_two_processes_write_what_one_does(command, tmp_path):
    root = photos(tmp_path / "my photos, (1)=x", 9)
    (root / "a/1.png").write_bytes(b"")
    embed(tmp_path, root, f"out={tmp_path / 'one'}", "export=[hdf5]")
    done = command("zoo", "embed", root, *MODEL, "out=two", "trainer=ddp_cpu", *QUIET)
    assert "1 images could not be read (a/1)" in done.stdout
    two = open_features(tmp_path / "two")
    same(open_features(tmp_path / "one"), two)
    ranks = {path.name.split("-")[1] for path in (two.path / "shards").iterdir()}
    assert ranks == {"000", "001"}
    assert open_features(tmp_path / "one/features.h5").ids == two.ids


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    root, out = photos(tmp_path / "photos", 200), tmp_path / "f"
    overrides = [*MODEL, *QUIET, f"out={out}", "shard_size=2", "data.batch_size=1"]
    words = [sys.executable, "-m", "zoo.commands.embed", f"data.root={root}", *overrides]
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list((out / "shards").glob("*.safetensors"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 6 <= len(open_features(out)) < 200
    embed(tmp_path, root, f"out={out}", "data.batch_size=1")
    embed(tmp_path, root, f"out={tmp_path / 'whole'}", "data.batch_size=1")
    same(open_features(tmp_path / "whole"), open_features(out))
    rows = sum(len(open_features(out).shards.payloads(n)) for n in range(len(open_features(out).shards.files)))
    assert rows == 200  # nothing was embedded twice


def test_ctrl_c_keeps_what_is_embedded_and_ends_with_130(tmp_path, monkeypatch, caplog):
    root, out = photos(tmp_path / "photos", 6), tmp_path / "f"
    represent, seen = Embedder.represent, []

    def stopping(*arguments):
        seen.append(arguments)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return represent(*arguments)

    caplog.set_level("INFO", "zoo")
    monkeypatch.setattr(Embedder, "represent", stopping)
    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as end:
            embed(tmp_path, root, f"out={out}", "data.batch_size=1")
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning ignores it from then on
    assert end.value.code == 130
    assert "the same command goes on there" in caplog.text
    assert len(open_features(out)) == 3
    embed(tmp_path, root, f"out={out}")
    assert "3 images to embed, 3 are there already" in caplog.text
