from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.evaluation.predictions import Predictions, read_predictions
from zoo.truth.readers import read_gnd

DATA = Path(os.environ.get("ZOO_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
PLACES = DATA / "vpr_bench"
MATRIX = np.array([[0.5, -1, 2], [3, 0, 0.25]], np.float16)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32, np.uint8])
def test_npy(tmp_path, dtype):
    matrix = np.abs(MATRIX).astype(dtype)
    np.save(tmp_path / "scores.npy", matrix)
    predictions = read_predictions(tmp_path / "scores.npy")
    assert (predictions.query_ids, predictions.gallery_ids, predictions.ranked) == (None, None, None)
    assert (predictions.scores.dtype, len(predictions)) == (dtype, 2)
    np.testing.assert_array_equal(predictions.scores, matrix)


def test_npy_stays_on_disk(tmp_path):
    matrix = np.lib.format.open_memmap(tmp_path / "scores.npy", "w+", np.float16, (2_000, 50_000))
    matrix.flush()
    tracemalloc.start()
    predictions = read_predictions(tmp_path / "scores.npy")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(predictions.scores, np.memmap)
    assert peak < 40e6  # 200 MB on disk, looked through for NaN in pieces


def test_npz_with_names(tmp_path):
    np.savez(tmp_path / "one.npz", s=MATRIX, query_ids=["q0", "q1"], gallery_ids=np.array(["a", "b", "c"]))
    predictions = read_predictions(tmp_path / "one.npz")
    assert (predictions.query_ids, predictions.gallery_ids) == (("q0", "q1"), ("a", "b", "c"))
    np.testing.assert_array_equal(predictions.scores, MATRIX)


def test_npz_with_several(tmp_path):
    np.savez_compressed(tmp_path / "two.npz", NetVLAD=MATRIX, HOG=-MATRIX)
    np.testing.assert_array_equal(read_predictions(tmp_path / "two.npz", "HOG").scores, -MATRIX)
    with pytest.raises(ValueError, match=r"array must be one of \['NetVLAD', 'HOG'\], got None"):
        read_predictions(tmp_path / "two.npz")
    with pytest.raises(ValueError, match=r"got 'NetVlad'; did you mean 'NetVLAD'\?"):
        read_predictions(tmp_path / "two.npz", "NetVlad")


@pytest.mark.skipif(not PLACES.exists(), reason=f"{PLACES} is absent; ZOO_DATA names the folder of real data")
@pytest.mark.parametrize(
    ("dataset", "method", "published"),
    [
        ("corridor", "NetVLAD", 0.676),
        ("corridor", "ap-gem-r101", 0.532),
        ("corridor", "HybridNet", 0.901),
        ("SPEDTEST", "NetVLAD", 0.679),
    ],
)
def test_published_first_places(dataset, method, published):
    scores = read_predictions(PLACES / "scores" / f"{dataset}.npz", method).scores
    names = [str(place) for place in range(len(scores))]
    truth = read_gnd(PLACES / "ground_truth" / f"{dataset}.json").name_positions(names, names).pack(names)
    first = truth.mask(["relevant"], np.arange(len(scores))).numpy()[np.arange(len(scores)), scores.argmax(axis=1)]
    assert round(first.mean(), 3) == published


def arrays(tmp_path, **content):
    np.savez(tmp_path / "p.npz", **content)
    return tmp_path / "p.npz"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"s": MATRIX[0]}, r"scores must be numbers of shape \(Q, N\).*got \(3,\) of float16"),
        ({"s": MATRIX[:, :0]}, r"got \(2, 0\)"),
        ({"s": MATRIX.astype(str)}, r"got \(2, 3\) of <U"),
        ({"s": MATRIX.astype(complex)}, "of complex128"),
        ({"s": MATRIX * np.array([[1], [np.nan]])}, "scores of query 1 must be numbers, got NaN"),
        ({"s": MATRIX * np.nan, "query_ids": ["q0", "q1"]}, "scores of query 'q0' must be numbers, got NaN"),
        ({"s": MATRIX, "query_ids": ["q0"]}, "query_ids must have one name for each of the 2 in scores, got 1"),
        ({"s": MATRIX, "gallery_ids": ["a", "b"]}, "gallery_ids must have one name for each of the 3"),
        ({"s": MATRIX, "gallery_ids": ["a", "b", "a"]}, "gallery_ids must be unique, got 'a' twice"),
        ({"s": MATRIX, "query_ids": ["q", "q"]}, "query_ids must be unique, got 'q' twice"),
        ({"s": MATRIX, "query_ids": [1, 2]}, "query_ids must be a row of strings"),
        ({"s": MATRIX, "query_ids": [["a"], ["b"]]}, "query_ids must be a row of strings"),
        ({"s": MATRIX.astype(object)}, "allow_pickle=False"),
        ({"query_ids": ["a"]}, r"array must be one of \[\], got None"),
    ],
)
def test_damaged_matrices(tmp_path, content, message):
    path = arrays(tmp_path, **content)
    with pytest.raises(ValueError, match=message) as caught:
        read_predictions(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_nan_is_found_wherever_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.evaluation.predictions.NUMBERS_AT_ONCE", 12)
    for place in range(10):
        scores = np.zeros((10, 5), np.float32)
        scores[place, place % 5] = np.nan
        np.save(tmp_path / "p.npy", scores)
        with pytest.raises(ValueError, match=f"scores of query {place} must be"):
            read_predictions(tmp_path / "p.npy")


@pytest.mark.parametrize("name", ["p.npy", "p.npz"])
def test_damaged_numpy_files(tmp_path, name):
    path = tmp_path / name
    np.save(path, MATRIX) if name == "p.npy" else np.savez_compressed(path, s=np.tile(MATRIX, (40, 40)))
    whole = path.read_bytes()
    for content in (b"", b"\x80\x04N.", b"garbage", whole[:-20], whole[:60]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not a readable NumPy file"):
            read_predictions(path)


def test_damage_inside_an_archive(tmp_path):
    path = tmp_path / "p.npz"
    np.savez_compressed(path, s=np.random.default_rng(0).normal(size=(50, 50)))
    whole = bytearray(path.read_bytes())
    whole[5_000:5_100] = bytes(100)
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="not a readable NumPy file"):
        read_predictions(path)


def test_array_is_for_npz_only(tmp_path):
    np.save(tmp_path / "p.npy", MATRIX)
    with pytest.raises(ValueError, match=r"array picks a matrix of an .npz file, got array='a'"):
        read_predictions(tmp_path / "p.npy", "a")


MSLS = """\
# Each row contains the key of a query image or a comma-separated set of keys for a query sequence,
# followed by space-separated predicted image keys
AoD5-ZB5YrgyClbR5qmG4g AszgP_Xhs_cmcPHEoXv-Mw uwGs1pyo90OJi4hTLzGWfg rdYq1TlnttyVd7foXixW2w
gEhnDp9LMQq4SEDWgyVvQw R6M9ouF_ug1M22idwISGZw -zENAzMbJhFg--dPs5lJTw
"""
RANKED = {
    "AoD5-ZB5YrgyClbR5qmG4g": ("AszgP_Xhs_cmcPHEoXv-Mw", "uwGs1pyo90OJi4hTLzGWfg", "rdYq1TlnttyVd7foXixW2w"),
    "gEhnDp9LMQq4SEDWgyVvQw": ("R6M9ouF_ug1M22idwISGZw", "-zENAzMbJhFg--dPs5lJTw"),
}


def ranked(predictions):
    assert (predictions.scores, predictions.gallery_ids) == (None, None)
    return dict(zip(predictions.query_ids, predictions.ranked, strict=True))


@pytest.mark.parametrize(
    "text",
    [
        MSLS,
        MSLS.replace("\n", "\r\n").replace(" ", "\t"),
        "\n" + "\n\n".join(line.replace(" ", ",") for line in MSLS.splitlines()),
        "\n".join(line.replace(" ", " , ") for line in MSLS.splitlines()),
        "\n".join(line.replace(" ", ",") + ",," for line in MSLS.splitlines()),
    ],
)
def test_text_of_msls(tmp_path, text):
    (tmp_path / "prediction.csv").write_text(text, newline="")
    predictions = read_predictions(tmp_path / "prediction.csv")
    assert ranked(predictions) == RANKED
    assert predictions.ranked_scores is None
    assert len(predictions) == 2


def test_text_with_an_empty_list_and_with_sequences(tmp_path):
    (tmp_path / "p.txt").write_text("q0\nq1 a\n")
    assert ranked(read_predictions(tmp_path / "p.txt")) == {"q0": (), "q1": ("a",)}
    (tmp_path / "p.txt").write_text("q0,q1 a,b c,d\n")  # keys of a sequence stay together
    assert ranked(read_predictions(tmp_path / "p.txt")) == {"q0,q1": ("a,b", "c,d")}


def test_json_lists(tmp_path):
    (tmp_path / "p.json").write_text(json.dumps(RANKED))
    assert ranked(read_predictions(tmp_path / "p.json")) == RANKED


def test_json_scores(tmp_path):
    content = {"q0": {"a": 0.5, "b": -1, "c": 0.5, "d": 2}, "q1": {}}
    (tmp_path / "p.json").write_text(json.dumps(content))
    predictions = read_predictions(tmp_path / "p.json")
    assert ranked(predictions) == {"q0": ("d", "a", "c", "b"), "q1": ()}
    assert predictions.ranked_scores == ((2.0, 0.5, 0.5, -1.0), ())


@given(st.lists(st.floats(allow_nan=False), max_size=8))
def test_json_scores_are_sorted_stably(tmp_path_factory, scores):
    path = tmp_path_factory.mktemp("json") / "p.json"
    path.write_text(json.dumps({"q": {f"i{place}": score for place, score in enumerate(scores)}}))
    predictions = read_predictions(path)
    order = np.argsort(-np.array(scores), kind="stable")
    assert predictions.ranked == (tuple(f"i{place}" for place in order),)
    assert predictions.ranked_scores == (tuple(scores[place] for place in order),)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.txt", "", "the file holds no predictions"),
        ("p.txt", "# only a comment\n\n", "the file holds no predictions"),
        ("p.txt", "q a b a\n", "query 'q': an item may be ranked once, got 'a' twice"),
        ("p.txt", "q a\nq b\n", "query_ids must be unique, got 'q' twice"),
        ("p.txt", "q,a\n,\n", "every line must begin with the key of a query"),
        ("p.json", "", "Expecting value"),
        ("p.json", "{}", "with a query at least"),
        ("p.json", "[]", "with a query at least"),
        ("p.json", '{"q": ["a", "b", "a"]}', "query 'q': an item may be ranked once, got 'a' twice"),
        ("p.json", '{"q": [], "q": []}', "got 'q' twice"),
        ("p.json", '{"q": {"a": 1, "a": 2}}', "got 'a' twice"),
        ("p.json", '{"q": {"a": NaN}}', "query 'q': the score of 'a' must be a number, got nan"),
        ("p.json", '{"q": {"a": "1"}}', "query 'q': the score of 'a' must be a number, got '1'"),
        ("p.json", '{"q": {"a": true}}', "query 'q': the score of 'a' must be a number, got True"),
        ("p.json", '{"q": [1]}', r"query 'q': ids must be strings, got \[1\]"),
        ("p.json", '{"q": ["a"], "r": {"a": 1}}', "every query of JSON predictions must have a list"),
        ("p.json", '{"q": "a"}', "every query of JSON predictions must have a list"),
    ],
)
def test_damaged_texts(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_predictions(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "p.txt").write_bytes(b"\x93NUMPY\xff")
    with pytest.raises(ValueError, match=r"p\.txt: 'utf-8' codec can't decode"):
        read_predictions(tmp_path / "p.txt")
    for name in ("absent.txt", "absent.npy", "absent.json"):
        with pytest.raises(FileNotFoundError):
            read_predictions(tmp_path / name)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"query_ids": None, "gallery_ids": None}, "one of scores and ranked is needed"),
        ({"query_ids": ("q",), "gallery_ids": None, "ranked": ()}, "got 0 lists, 1 ids"),
        ({"query_ids": None, "gallery_ids": None, "ranked": (("a",),)}, "got 1 lists, 0 ids"),
        (
            {"query_ids": ("q",), "gallery_ids": None, "ranked": (("a",),), "ranked_scores": ((),)},
            "one score for every",
        ),
    ],
)
def test_predictions_are_checked(fields, message):
    with pytest.raises(ValueError, match=message):
        Predictions(**fields)
