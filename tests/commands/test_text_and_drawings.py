"""`zoo search text=… drawing=…`: captions come with the index, drawings from files, and results say what fits."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from photo_runs import embed, photos, run
from PIL import Image

from zoo import load_model
from zoo.commands._app import _text_quoted
from zoo.files import BadFile
from zoo.ops.sketches import combined_query, sketch_query
from zoo.registry import UsageError
from zoo.search.index import open_index
from zoo.types import Representation

NETWORK = [
    "model=fcn_segment", "model.backbone=test_resnet", "model.backbone_weights=random", "model.head=light",
    "model.dilations=[1,2]", "model.width=8", "model.output_stride=16", "model.classes=[sky,ground,thing]",
    "data.image_size=64", "index=probability_maps", "index.centroids=8",
]  # fmt: skip
TEXTS = {"a/0": ["A red car.", "a street"], "a/1": ["a bus in the street"], "b/0": ["Red bus, red street"]}


def coco(file, texts):
    names = list(texts)
    images = [{"id": number, "file_name": f"{name}.png"} for number, name in enumerate(names)]
    notes = [{"image_id": names.index(name), "caption": text} for name in names for text in texts[name]]
    file.write_text(json.dumps({"images": images, "annotations": notes}))
    return file


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    """Returns a folder with photos, their index of probability maps with captions, and class colours."""
    folder = tmp_path_factory.mktemp("maps")
    photos(folder / "photos", 8)
    captions = coco(folder / "captions.json", {**TEXTS, "elsewhere/9": ["a tree"]})
    run("index", folder, f"data.root={folder / 'photos'}", *NETWORK, f"out={folder / 'index'}", f"captions={captions}")
    return folder


@pytest.fixture
def found(maps, tmp_path):
    def search(*overrides):
        run("search", tmp_path, f"index_path={maps / 'index'}", *overrides)
        return json.loads((tmp_path / "run/results.json").read_text())["queries"]

    return search


def ids(one):
    return [hit["id"] for hit in one["hits"]]


def words(one):
    return [hit["evidence"]["words"] for hit in one["hits"]]


def drawn(file, size=(16, 24), mode="L"):
    """Writes a drawing: the upper half sky, a thing below on the left, nothing on the right."""
    labels = np.full(size, 255, np.uint8)
    labels[: size[0] // 2] = 0
    labels[size[0] // 2 :, : size[1] // 2] = 2
    Image.fromarray(labels, "L").convert(mode).save(file)
    return file, labels


def on_grid(index, labels):
    """Returns labels at the centres of the index' cells, -1 where nothing is drawn."""
    height, width = index.get(index.ids[:1]).probability_map.shape[2:]
    rows = [int((row + 0.5) * labels.shape[0] / height) for row in range(height)]
    columns = [int((column + 0.5) * labels.shape[1] / width) for column in range(width)]
    grid = labels[np.ix_(rows, columns)].astype(np.int64)
    return torch.from_numpy(np.where(grid == 255, -1, grid))[None]


def test_captions_are_matched_and_what_is_not_is_counted(maps, tmp_path, caplog):
    caplog.set_level("INFO", "zoo")
    index = open_index(maps / "index")
    assert index.captioned == 3
    assert index.payloads(["b/0", "b/1"])[0]["captions"] == ["Red bus, red street"]
    assert "captions" not in index.payloads(["b/1"])[0]
    photos(tmp_path / "photos", 8)
    captions = coco(tmp_path / "c.json", {**TEXTS, "elsewhere/9": ["a tree"]})
    run(
        "index", tmp_path, f"data.root={tmp_path / 'photos'}", *NETWORK, f"out={tmp_path / 'i'}", f"captions={captions}"
    )
    assert "captions: 3 of 8 images have some" in caplog.text
    assert "captions: 5 images have none (a/2, a/3, b/1, b/2, b/3)" in caplog.text
    assert "captions: those of 1 images fit no image of the index (elsewhere/9.png)" in caplog.text
    bare = coco(tmp_path / "bare.json", {"0": ["a tree"], "3": ["a wall"]})
    run("index", tmp_path, f"data.root={tmp_path / 'photos'}", *NETWORK, f"out={tmp_path / 'i'}", f"captions={bare}")
    assert "captions: 4 images share the file name by which theirs are found" in caplog.text


def test_text_alone_ranks_by_words_and_the_older_first(found, maps, capsys):
    one = found("text=RED street bus", "k=5")[0]
    assert ids(one) == ["b/0", "a/0", "a/1"]
    assert words(one) == [3, 2, 2]
    assert one["query"] == one["text"] == "RED street bus"
    assert "3 words" in capsys.readouterr().out


def test_a_text_that_no_caption_holds_finds_nothing_and_says_so(found, caplog):
    caplog.set_level("INFO", "zoo")
    assert ids(found("text=zebra", "k=5")[0]) == []
    assert "text=zebra: no caption holds a word of it" in caplog.text
    assert "no contact sheet: nothing was found" in caplog.text


def test_text_goes_before_a_photo(found, maps):
    photo = f"query={maps / 'photos/b/1.png'}"
    alone = ids(found(photo, "k=8")[0])
    one = found(photo, "k=8", "text=a red bus")[0]
    counts = {"b/0": 2, "a/0": 2, "a/1": 2}
    assert ids(one) == sorted(alone, key=lambda id_: -counts.get(id_, 0))
    assert words(one) == [counts.get(id_, 0) for id_ in ids(one)]
    filtered = found("query_id=b/1", "k=8", "text=bus", "where={label: a}")[0]
    assert ids(filtered)[0] == "a/1"
    assert all(id_.startswith("a/") for id_ in ids(filtered))


@pytest.mark.parametrize("size", [(16, 24), (200, 120), (3, 3)])
def test_a_drawing_alone_is_equation_5(found, maps, tmp_path, size):
    file, labels = drawn(tmp_path / "map.png", size)
    index = open_index(maps / "index")
    query, counts = sketch_query(on_grid(index, labels), 3)
    asked = Representation(probability_map=query, class_mask=counts, fingerprint=index.fingerprint)
    wanted = index.search(asked, 8)[0]
    one = found(f"drawing={file}", "k=8")[0]
    assert ids(one) == wanted.ids
    shares = one["hits"][0]["evidence"]["class_distances"]
    assert list(shares) == ["sky", "thing"]
    assert sum(shares.values()) == pytest.approx(-one["hits"][0]["score"], rel=1e-5)
    assert one["drawing"] == str(file)


def test_a_drawing_over_an_item_or_a_photo_is_equation_7(found, maps, tmp_path):
    file, labels = drawn(tmp_path / "map.png")
    index = open_index(maps / "index")
    photo = combined_query(on_grid(index, labels), index.get(["a/2"]).probability_map)
    wanted = index.search(Representation(probability_map=photo, fingerprint=index.fingerprint), 8)[0]
    one = found("query_id=a/2", f"drawing={file}", "k=7")[0]
    assert ids(one) == [id_ for id_ in wanted.ids if id_ != "a/2"]
    assert list(one["hits"][0]["evidence"]["class_distances"]) == ["sky", "ground", "thing"]
    over = found(f"query={maps / 'photos/a/2.png'}", f"drawing={file}", "k=8", "text=bus")[0]
    assert words(over) == sorted(words(over), reverse=True)
    assert set(ids(over)[:2]) == {"a/1", "b/0"}
    box = found(f"query={maps / 'photos/a/2.png'}", f"drawing={file}", "k=8", "box=[0,0,40,40]")[0]
    assert len(box["hits"]) == 8


def test_a_drawing_in_colours_says_what_it_does_not_know(found, maps, tmp_path, caplog):
    caplog.set_level("INFO", "zoo")
    file, labels = drawn(tmp_path / "map.png")
    colours = [*load_model(str(maps / "index/model.safetensors")).class_colours, (255, 255, 255)]
    pixels = np.array(colours, np.uint8)[np.where(labels == 255, 3, labels)]
    pixels[-1, -1] = 1, 2, 3
    Image.fromarray(pixels).save(tmp_path / "colours.png")
    as_numbers, as_colours = found(f"drawing={file}")[0], found(f"drawing={tmp_path / 'colours.png'}")[0]
    assert as_numbers["hits"] == as_colours["hits"]
    assert "drawing: 2 colours that no class has count as not drawn; 25% is" in caplog.text
    opaque = np.where(labels == 255, 0, 255).astype(np.uint8)
    pixels[labels == 255] = colours[1]  # under what is transparent
    Image.fromarray(np.dstack([pixels, opaque]), "RGBA").save(tmp_path / "rgba.png")
    assert found(f"drawing={tmp_path / 'rgba.png'}")[0]["hits"] == as_numbers["hits"]
    sheet = np.asarray(Image.open(tmp_path / "run/contact_sheet.png").convert("RGB")).reshape(-1, 3)
    shown = np.round(0.6 * np.array(colours[0]) + 0.4 * 255)
    assert (np.abs(sheet - shown).max(axis=1) <= 1).sum() > 1000


def test_what_can_not_be_asked_for_is_said(found, maps, tmp_path):
    file, labels = drawn(tmp_path / "map.png")
    Image.fromarray(np.full((4, 4), 255, np.uint8)).save(tmp_path / "empty.png")
    labels[3, 5] = 3
    Image.fromarray(labels).save(tmp_path / "wrong.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for overrides, error, said in (
        ([], UsageError, "name either a picture, .* or text="),
        (["query_id=a/1", f"query={maps / 'photos/a/2.png'}"], UsageError, "name either a picture"),
        (["text='!?'"], UsageError, "text must hold at least one word, got '!\\?'"),
        (["text=car", "reranker=aqe"], UsageError, "no reranker can follow, got aqe"),
        ([f"drawing={tmp_path / 'none.png'}"], UsageError, "drawing: no such file"),
        ([f"drawing={tmp_path / 'empty.png'}"], UsageError, "in which nothing is drawn"),
        ([f"drawing={tmp_path / 'wrong.png'}"], BadFile, "numbers below 3, or 255 .* got 3 at row 3, column 5"),
        ([f"drawing={tmp_path / 'broken.png'}"], BadFile, "broken.png can't be read"),
        ([f"drawing={file}", "box=[0,0,9,9]"], UsageError, "box is for a picture"),
    ):
        with pytest.raises(error, match=said):
            found(*overrides)


def test_vectors_have_captions_too_which_last_while_the_index_grows(tmp_path, capsys, caplog):
    caplog.set_level("INFO", "zoo")
    root = photos(tmp_path / "photos", 6)
    embed(tmp_path, root)
    table = tmp_path / "captions.csv"
    table.write_text("id,caption\na/0,a red car\na/0,street\nb/1,bus\n")
    place = f"out={tmp_path / 'index'}"
    run("index", tmp_path, place)
    with pytest.raises(UsageError, match=r"text needs captions, which index .* lacks: zoo index"):
        run("search", tmp_path, f"index_path={tmp_path / 'index'}", "text=car")
    before = {path.name for path in (tmp_path / "index").glob("*vector*")}
    run("index", tmp_path, place, f"captions={table}")
    assert {path.name for path in (tmp_path / "index").glob("*vector*")} == before
    Image.new("RGB", (48, 40), "red").save(root / "a/0.png")  # changes
    Image.new("RGB", (48, 40), "blue").save(root / "b/9.png")
    table.write_text(table.read_text() + "b/9,a zebra\n")
    embed(tmp_path, root)
    capsys.readouterr()
    run("index", tmp_path, place)  # knows the file from the run before
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("│"))
    assert [cell.strip() for cell in row.strip("│").split("│")][:4] == ["7", "1", "1", "5"]
    index = open_index(tmp_path / "index")
    assert index.payloads(["a/0", "b/9"])[0]["captions"] == ["a red car", "street"]
    run("search", tmp_path, f"index_path={tmp_path / 'index'}", "text=zebra unicorn", "k=1")
    assert json.loads((tmp_path / "run/results.json").read_text())["queries"][0]["hits"][0]["id"] == "b/9"
    assert "text: no caption holds 'unicorn'" in caplog.text
    table.unlink()
    Image.new("RGB", (48, 40), "green").save(root / "b/1.png")
    embed(tmp_path, root)
    run("index", tmp_path, place)
    assert "captions.csv is gone" in caplog.text
    assert open_index(tmp_path / "index").payloads(["b/1"])[0]["captions"] == ["bus"]
    with pytest.raises(UsageError, match="drawing needs an index of probability maps, got one that holds vector"):
        run("search", tmp_path, f"index_path={tmp_path / 'index'}", f"drawing={root / 'a/0.png'}")
    table.write_text("id,caption\nz/0,a red car\n")
    for folder in (place, f"out={tmp_path / 'other'}"):
        with pytest.raises(UsageError, match=r"must name images of the index, such as a/[01], .*, got 1 of z/0"):
            run("index", tmp_path, folder, f"captions={table}")
    assert not (tmp_path / "other").exists()
    run("index", tmp_path, f"out={tmp_path / 'other'}")
    with pytest.raises(BadFile, match=r"captions must be a \.json or .csv file"):
        run("index", tmp_path, place, f"captions={tmp_path / 'captions.txt'}")


def test_milvus_takes_no_captions(tmp_path):
    pytest.importorskip("milvus_lite")
    embed(tmp_path, photos(tmp_path / "photos", 2))
    table = tmp_path / "captions.csv"
    table.write_text("id,caption\na/0,a red car\n")
    with pytest.raises(UsageError, match="captions are for an index that text can search, which milvus can't"):
        run("index", tmp_path, "index=milvus", f"captions={table}")


def test_text_may_hold_what_hydra_refuses(command, maps):
    text = "a red car, (bus) = 'street' ${x}"
    done = command("zoo", "search", f"text={text}", f"index_path={maps / 'index'}", "k=2")
    assert text in done.stdout
    assert [line.split("│")[2].strip() for line in done.stdout.splitlines() if line.startswith("│")] == ["a/0", "a/1"]


@given(st.text())
def test_a_text_is_quoted_once(text):
    quoted = _text_quoted([f"text={text}", "k=3"], "text")
    assert quoted[1] == "k=3"
    if text not in ("", "null"):
        assert _text_quoted(quoted, "text") == quoted
    assert _text_quoted(["-m", "text=a,b"], "text") == ["-m", "text=a,b"]
