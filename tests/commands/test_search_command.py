"""`zoo search`: finds the picture itself first, shows it, and says plainly what can't be done."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from photo_runs import embed, photos, run
from PIL import Image

from zoo.commands._app import _files_as_override, quoted
from zoo.commands._found import SIDE, evidence_words, score_words
from zoo.evaluation.pictures import GAP, TITLE
from zoo.files import BadFile
from zoo.registry import UsageError
from zoo.search.index import open_index


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    embed(folder, photos(folder / "photos", 8, size=(64, 48)))
    run("index", folder)
    return folder


@pytest.fixture
def found(built, tmp_path):
    def search(*overrides):
        index = f"index_path={built / 'outputs/indexes/photos-global_descriptor-flat'}"
        run("search", tmp_path, index, *overrides)
        return json.loads((tmp_path / "run/results.json").read_text())

    return search


def ids(result, query=0):
    return [hit["id"] for hit in result["queries"][query]["hits"]]


def test_a_picture_finds_itself_first_and_its_tile_shows_it(built, found, tmp_path, capsys):
    path = built / "photos/b/2.png"
    result = found(f"query={quoted(str(path))}", "k=3")
    first = result["queries"][0]["hits"][0]
    assert (first["rank"], first["id"], first["label"], first["path"]) == (1, "b/2", "b", str(path))
    assert first["score"] == pytest.approx(1, abs=1e-4)
    assert len(result["queries"][0]["hits"]) == 3
    shown = capsys.readouterr().out
    assert "b/2" in shown
    sheet = np.asarray(Image.open(tmp_path / "run/contact_sheet.png"))
    top = GAP + TITLE
    query, hit = (sheet[top + 22 : top + SIDE - 22, left : left + SIDE] for left in (GAP, GAP + SIDE + GAP))
    assert np.array_equal(query, hit)
    assert query.std() > 20


def test_a_box_is_a_query_of_its_own(built, found, tmp_path):
    picture = Image.open(built / "photos/a/1.png")
    picture.crop((8, 8, 56, 40)).save(tmp_path / "part.png")
    by_box = found(f"query={built / 'photos/a/1.png'}", "box=[8,8,56,40]", "k=8")
    by_part = found(f"query={tmp_path / 'part.png'}", "k=8")
    scores = [[hit["score"] for hit in result["queries"][0]["hits"]] for result in (by_box, by_part)]
    np.testing.assert_allclose(*scores, atol=1e-5)
    assert ids(by_box) == ids(by_part)
    assert by_box["queries"][0]["box"] == [8, 8, 56, 40]


def test_a_box_of_a_few_px_is_warned_of(built, found, caplog):
    found(f"query={built / 'photos/a/1.png'}", "box=[8,8,56,40]")
    assert "show little" not in caplog.text
    found(f"query={built / 'photos/a/1.png'}", "box=[8,8,56,12]")
    assert "box is 48 × 4 px: so few show little" in caplog.text


def test_items_of_the_index_are_queries_that_leave_themselves_out(found):
    result = found("query_id=[a/0,b/3]", "k=100")
    assert [query["query"] for query in result["queries"]] == ["a/0", "b/3"]
    assert len(ids(result, 0)) == 7
    assert "a/0" not in ids(result, 0)
    assert "b/3" not in ids(result, 1)


def test_a_filter_keeps_what_it_names(found, caplog):
    assert {id_[0] for id_ in ids(found("query_id=a/0", "k=100", "where={label: b}"))} == {"b"}
    assert {id_[0] for id_ in ids(found("query_id=a/0", "k=100", "where={label: [a, b]}"))} == {"a", "b"}
    assert ids(found("query_id=a/0", "where={lable: b}")) == []
    assert "where={'lable': 'b'} fits no image; payloads have the keys bytes, height, label," in caplog.text


def test_a_folder_of_pictures_is_a_query_for_each(built, found, tmp_path, caplog):
    root = photos(tmp_path / "queries", 3, size=(64, 48))
    (root / "a/0.png").write_bytes(b"nothing")
    result = found(f"query={root}", "k=1")
    assert [ids(result, number) for number in range(2)] == [["a/1"], ["b/0"]]
    assert "left out: image" in caplog.text


def test_rerankers_work_in_the_order_they_are_named(built, found):
    plain = found("query_id=a/0", "k=7")
    chained = found("query_id=a/0", "k=7", "reranker=[superglobal,aqe]")
    assert sorted(ids(plain)) == sorted(ids(chained))
    assert list(chained["reranker"]) == ["superglobal", "aqe"]
    scores = [hit["score"] for hit in chained["queries"][0]["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert scores != [hit["score"] for hit in plain["queries"][0]["hits"]]


def test_a_picture_of_the_index_is_told_how_to_leave_itself_out(built, found, caplog):
    caplog.set_level("INFO", "zoo")
    path = built / "photos/b/2.png"
    found(f"query={path}", "k=3")
    assert "is itself in the index" not in caplog.text
    result = found(f"query={path}", "k=3", "reranker=aqe")
    assert ids(result)[0] == "b/2"
    hint = "2.png is itself in the index as b/2: query_id=b/2 leaves it out, expansions then average other images"
    assert hint in caplog.text
    caplog.clear()
    found(f"query={built / 'photos'}", "k=1", "reranker=aqe")
    assert "(so are 7 others)" in caplog.text


def test_a_short_shortlist_is_told_of_where_it_matters(found, caplog):
    caplog.set_level("INFO", "zoo")
    found("query_id=a/0", "k=5", "shortlist=3", "reranker=aqe")
    assert "first order" not in caplog.text
    found("query_id=a/0", "k=5", "shortlist=3", "reranker=superglobal")
    told = "shortlist=3 is below k=5: ranks behind 3 keep their first order" in caplog.text
    from zoo.search.rerankers.superglobal import export as SuperGlobal

    assert told != hasattr(SuperGlobal, "expand")


def shown(hits, **console):
    from rich.console import Console

    from zoo.commands._found import _table

    out = io.StringIO()
    to = Console(file=out, **console)
    to.print(_table({"query": "line\nend.jpg", "box": None, "hits": hits}, to))
    return out.getvalue()


def test_paths_stay_in_one_line_and_line_ends_are_escaped():
    path = "/data/" + "folder with a name/" * 8 + "photo.jpg"
    hit = {"rank": 1, "id": "a\nb", "score": 0.95123, "path": path, "label": None, "evidence": None}
    narrow, wide = (shown([hit], width=width, force_terminal=True, color_system=None) for width in (60, 400))
    assert max(map(len, narrow.splitlines())) <= 60
    assert "name/photo.jpg │" in narrow
    assert "…" in narrow
    assert path in wide
    assert "line\\nend.jpg" in wide
    assert "a\\nb" in wide
    assert len(narrow.splitlines()) == len(wide.splitlines()) == 6


@pytest.mark.parametrize(
    ("score", "evidence", "words"),
    [
        (1000.0, {"inliers": 1000}, ["1000", "1000"]),
        (123456.0, None, ["123456", "123456"]),
        (0.0, {"inliers": 0}, ["0", "0"]),
        (1.0, None, ["1.000", "1.00"]),
        (0.951234, None, ["0.9512", "0.951"]),
        (2345.6, None, ["2346", "2346"]),
    ],
)
def test_scores_are_counts_or_a_few_digits(score, evidence, words):
    assert [score_words({"score": score, "evidence": evidence}, digits) for digits in (4, 3)] == words


def test_pictures_that_are_gone_are_grey_tiles(tmp_path):
    embed(tmp_path, photos(tmp_path / "photos", 3))
    run("index", tmp_path)
    (tmp_path / "photos/a/1.png").unlink()
    run("search", tmp_path, f"query={tmp_path / 'photos/a/0.png'}", "k=3")
    result = json.loads((tmp_path / "run/results.json").read_text())
    sheet = np.asarray(Image.open(tmp_path / "run/contact_sheet.png"))
    left = GAP + (1 + ids(result).index("a/1")) * (SIDE + GAP)
    middle = sheet[GAP + TITLE + SIDE // 2, left + SIDE // 2]
    assert middle.tolist() == [200, 200, 200]


@pytest.mark.parametrize(
    ("overrides", "error", "says"),
    [
        ([], UsageError, "name either a picture"),
        (["query=x.jpg", "query_id=a/0"], UsageError, "name either a picture"),
        (["query=x.jpg"], UsageError, "query: no such file or folder, 'x.jpg'"),
        (["query_id=a/9"], UsageError, r"of 8 images has none called 'a/9'\. Did you mean 'a/\d'\?"),
        (["query_id=a/0", "k=0"], UsageError, "k must be an integer of at least 1, got 0"),
        (["query_id=a/0", "shortlist=-1"], UsageError, "shortlist must be an integer of at least 1, got -1"),
        (["query_id=a/0", "where=cat"], UsageError, "where must be a mapping such as '{label: cat}', got cat"),
        (["query_id=a/0", "box=[1,2,3,4]"], UsageError, "box is for a picture"),
        (["query=PHOTO", "box=[5,1,3,4]"], UsageError, r"box must be \[x0, y0, x1, y1\] in px, .* got \[5, 1, 3, 4\]"),
        (["query=PHOTO", "box=[1,1,inf,4]"], UsageError, "box must be"),
        (["query_id=[]"], UsageError, "query_id must name at least one id"),
        (["query=PHOTO", "box=[900,900,990,990]"], BadFile, "box must overlap the image"),
        (
            ["query_id=a/0", "reranker=geometric_verification"],
            UsageError,
            "needs keypoints, .*: features=KEYPOINTS, a folder of zoo embed model=local_features",
        ),
        (["query_id=a/0", "index_path=nowhere"], BadFile, "nowhere"),
        (["query_id=a/0", "features=OTHERS"], UsageError, "none called 'a/0': they hold 'x'"),
    ],
)
def test_what_cannot_be_done_is_said(built, found, overrides, error, says):
    if "geometric" in str(overrides):
        pytest.importorskip("cv2")
    np.savez(built / "others.npz", vectors=np.eye(1), ids=np.array(["x"]))
    files = {"PHOTO": built / "photos/a/0.png", "OTHERS": built / "others.npz"}
    for name, file in files.items():
        overrides = [override.replace(name, str(file)) for override in overrides]
    with pytest.raises(error, match=says):
        found(*overrides)


def test_another_models_index_is_refused(built, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(built / "outputs/indexes/photos-global_descriptor-flat", copy)
    embed(tmp_path, photos(tmp_path / "photos", 2), "model.levels=1")
    shutil.copy(tmp_path / "outputs/features/photos-global_descriptor/model.safetensors", copy)
    fingerprint = open_index(copy).fingerprint
    with pytest.raises(BadFile, match=f"is the model .* was made by {fingerprint}"):
        run("search", tmp_path, f"index_path={copy}", f"query={built / 'photos/a/0.png'}")


def test_vectors_of_unknown_origin_are_searched_by_id_alone(tmp_path, caplog):
    np.savez(tmp_path / "v.npz", vectors=np.eye(4, 6, dtype=np.float32), ids=np.array([7, 8, 9, 10]))
    run("index", tmp_path, f"features={tmp_path / 'v.npz'}", f"out={tmp_path / 'i'}")
    caplog.set_level("INFO", "zoo")
    run("search", tmp_path, f"index_path={tmp_path / 'i'}", "query_id=8", "k=5")
    assert ids(json.loads((tmp_path / "run/results.json").read_text())) == [7, 9, 10]
    run("index", tmp_path, f"features={tmp_path / 'v.npz'}", f"out={tmp_path / 'i'}")
    assert f"next: zoo search query_id=ID index_path={tmp_path / 'i'}" in caplog.text
    assert "no contact sheet: the index knows no paths" in caplog.text
    picture = photos(tmp_path / "photos", 1) / "a/0.png"
    with pytest.raises(UsageError, match="brings no model, so that a picture can't be compared with it"):
        run("search", tmp_path, f"index_path={tmp_path / 'i'}", f"query={picture}")


def test_the_whole_command_line_works_on_any_file_name(command, built, tmp_path):
    name = "my photo, (1) [x]=ü 'é\".png"
    (tmp_path / name).write_bytes((built / "photos/b/1.png").read_bytes())
    done = command("zoo", "search", name, "k=2", f"paths.output_dir={built / 'outputs'}")
    assert name in done.stdout
    assert "b/1" in done.stdout
    assert f"index_path={built / 'outputs/indexes/photos-global_descriptor-flat'}" in done.stdout


@given(st.text(st.one_of(st.sampled_from("\\\"'${}[],= ()%:"), st.characters(exclude_categories=["Cs"])), min_size=1))
def test_quoted_texts_arrive_as_they_are(text):
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    text = text.replace("\0", "").replace("???", "") or "x"
    override = OverridesParser.create().parse_overrides([f"query={quoted(text)}"])[0]
    assert OmegaConf.create({"query": override.value()}).query == text


def test_plain_arguments_become_one_override(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b.jpg").touch()
    assert _files_as_override(["x.jpg", "k=3"], "query") == ['query="x.jpg"', "k=3"]
    assert _files_as_override(["a=b.jpg", "c d", "k=3"], "query") == ['query=["a=b.jpg","c d"]', "k=3"]
    assert _files_as_override(["k=3", "--cfg", "job"], "query") == ["k=3", "--cfg", "job"]
    assert _files_as_override(["-m", "seed=1,2"], "query") == ["-m", "seed=1,2"]
    assert _files_as_override(["x.jpg"], None) == ["x.jpg"]
    (tmp_path / "c d").touch()
    with pytest.raises(SystemExit):
        _files_as_override(["k=3", "c d"], "query")
    assert capsys.readouterr().err == "zoo: 'c d' stands behind 'k=3': files and folders come before everything else\n"


def test_evidence_has_words():
    assert evidence_words({"inliers": 12, "matches": 40}) == "12 inliers"
    assert evidence_words({"region": 3, "query_region": 0}) == "region 3 (query's 0)"
    told = {"aspect": torch.tensor(0.123456).item(), "by": "hue", "seen": True, "votes": 3, "cells": [1, 2]}
    assert evidence_words(told) == "aspect 0.1235, by hue, votes 3"
    assert evidence_words(None) == evidence_words({"box": torch.zeros(4)}) == ""
