"""The API finds what the index finds, tells why, and refuses what can't be asked."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import zoo
from zoo.ops.sketches import combined_query, sketch_query
from zoo.search.index import open_index
from zoo.serve.drawings import packed, unpacked
from zoo.types import Representation

JSON = {"content-type": "application/json"}

ROOT = Path(__file__).parents[2]
GRID = (12, 16)
EMPTY = [-1, 192]


def drawing(labels):
    return {"size": list(GRID), "runs": packed(labels)}


@pytest.fixture
def labels():
    drawn = np.full(GRID, -1)
    drawn[8:, :] = 1
    drawn[2:6, 3:7] = 2
    return drawn


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_runs_are_the_drawing(seed, classes):
    labels = np.random.default_rng(seed).integers(-1, classes, GRID)
    assert np.array_equal(unpacked(packed(labels), GRID, GRID, classes), labels)


def test_it_says_what_is_served(client, drawn):
    said = client(drawn, k=7).get("/api/index").json()
    assert [each["name"] for each in said["classes"]] == ["sky", "ground", "thing"]
    assert said["classes"][2]["colour"] == "#c82828"
    assert (said["map_size"], said["images"], said["k"]) == ([12, 16], 60, 7)
    assert (said["captions"], said["pictures"], said["photos"]) == (True, True, False)


def test_a_drawing_finds_what_the_index_finds(client, drawn, labels):
    found = client(drawn).post("/api/search", json={"drawing": drawing(labels), "k": 10, "explain": True}).json()
    maps, counts = sketch_query(torch.from_numpy(labels)[None], 3)
    expected = open_index(drawn).search(Representation(probability_map=maps, class_mask=counts), 10)[0]
    assert [hit["id"] for hit in found["hits"]] == list(expected.ids)
    assert [hit["distance"] for hit in found["hits"]] == pytest.approx((-expected.scores).tolist(), abs=1e-4)
    for hit in found["hits"]:
        assert {each["name"] for each in hit["contributions"]} == {"ground", "thing"}
        assert sum(each["distance"] for each in hit["contributions"]) == pytest.approx(hit["distance"], abs=1e-3)


def test_an_item_is_asked_for_and_drawn_over(client, drawn, labels):
    served, index = client(drawn), open_index(drawn)
    item = "scenes/7"
    alone = served.post("/api/search", json={"item": item, "k": 60}).json()["hits"]
    assert item not in [hit["id"] for hit in alone]
    assert len(alone) == 59
    both = served.post("/api/search", json={"item": item, "drawing": drawing(labels), "k": 5}).json()["hits"]
    query = combined_query(torch.from_numpy(labels)[None], index.get([item]).probability_map)
    expected = [each for each in index.search(Representation(probability_map=query), 6)[0].ids if each != item]
    assert [hit["id"] for hit in both] == expected[:5]


def test_a_map_is_drawn_over_as_it_was_drawn(client, drawn):
    answer = client(drawn).get("/api/items/scenes/3/map").json()
    labels = unpacked(answer["runs"], answer["size"], GRID, 3)
    assert np.array_equal(labels, open_index(drawn).get(["scenes/3"]).probability_map[0].argmax(0).numpy())


def test_words_come_first_and_distance_among_equals(client, drawn, labels):
    served = client(drawn)
    hits = served.post("/api/search", json={"text": "Red THING", "drawing": drawing(labels), "k": 60}).json()["hits"]
    assert [hit["words"] for hit in hits] == [2] * 20 + [1] * 20 + [0] * 20
    for start in (0, 20, 40):
        distances = [hit["distance"] for hit in hits[start : start + 20]]
        assert distances == sorted(distances)
    alone = served.post("/api/search", json={"text": "red", "k": 3}).json()["hits"]
    assert served.post("/api/search", json={"text": "zzz", "k": 3}).json()["hits"] == []
    assert [(hit["id"], hit["words"], hit["distance"]) for hit in alone] == [
        (f"scenes/{number}", 1, None) for number in (0, 3, 6)
    ]


def test_pages_follow_one_another(client, drawn, labels):
    served = client(drawn)
    whole = served.post("/api/search", json={"drawing": drawing(labels), "k": 60}).json()
    parts = [
        served.post("/api/search", json={"drawing": drawing(labels), "k": 25, "offset": start}).json()
        for start in (0, 25, 50)
    ]
    assert [hit for part in parts for hit in part["hits"]] == whole["hits"]
    assert [part["more"] for part in parts] == [True, True, False]


def test_nothing_asked_for_shows_the_index_in_its_order(client, drawn):
    hits = (
        client(drawn).post("/api/search", json={"k": 3, "drawing": {"size": list(GRID), "runs": EMPTY}}).json()["hits"]
    )
    assert [(hit["id"], hit["score"]) for hit in hits] == [(f"scenes/{number}", None) for number in range(3)]


def test_nothing_asked_of_vectors_shows_the_oldest_first(client, described):
    served, index = client(described), open_index(described)
    assert [hit["id"] for hit in served.post("/api/search", json={"k": 5, "offset": 1}).json()["hits"]] == index.ids[
        1:6
    ]
    of_one = served.post("/api/search", json={"where": {"label": "b"}}).json()["hits"]
    labels = [payload["label"] for payload in index.payloads(index.ids)]
    assert [hit["id"] for hit in of_one] == [
        name for name, label in zip(index.ids, labels, strict=True) if label == "b"
    ]


def test_filters_hold_for_everything(client, drawn):
    served = client(drawn, where={"label": "a"})
    hits = served.post("/api/search", json={"k": 60}).json()["hits"]
    assert {hit["label"] for hit in hits} == {"a"}
    assert served.get("/api/thumbnails/scenes/1").status_code == 404
    assert served.post("/api/search", json={"item": "scenes/1"}).status_code == 404
    assert served.post("/api/search", json={"where": {"label": ["b", "a"]}, "k": 60}).json()["hits"] == hits


@pytest.mark.parametrize(
    ("asked", "status", "argument", "message"),
    [
        ({"drawing": {"size": [3, 3], "runs": [0, 9]}}, 400, "drawing.size", "must be [12, 16]"),
        ({"drawing": {"size": [12, 16], "runs": [0, 9]}}, 400, "drawing.runs", "add up to 192"),
        ({"drawing": {"size": [12, 16], "runs": [3, 192]}}, 400, "drawing.runs", "hold classes -1 … 2, got 3 … 3"),
        ({"drawing": {"size": [12, 16], "runs": [0]}}, 400, "drawing.runs", "pairs"),
        ({"drawing": {"size": [12, 16], "runs": [0, 2**63 - 1, 0, 2**63 - 1]}}, 400, "drawing.runs", "add up to 192"),
        ({"item": "scenes/99"}, 404, "item", "got 'scenes/99'"),
        ({"item": "../../etc/passwd"}, 404, "item", "passwd"),
        ({"photo": "0" * 64}, 404, "photo", "photo"),
        ({"k": 0}, 422, "k", "greater than or equal to 1"),
        ({"k": True}, 422, "k", "valid integer"),
        ({"offset": True}, 422, "offset", "valid integer"),
        ({"k": 900, "offset": 200}, 400, "offset + k", "at most 1000, got 200 + 900"),
        ({"rerankers": ["aqe"]}, 400, "rerankers", "be left out: the server has none, got aqe"),
        ({"rerankers": ["\ud800"]}, 400, "rerankers", r"got \ud800"),
        ({"where": {"path": "x"}}, 400, "where", "other than path"),
        ({"tekst": "x"}, 422, "tekst", "tekst"),
    ],
)
def test_what_cant_be_asked_is_told(client, drawn, asked, status, argument, message):
    # Written as ASCII: a half of a surrogate pair is JSON, and can't be sent otherwise.
    answer = client(drawn).post("/api/search", content=json.dumps(asked), headers=JSON)
    problem = answer.json()["error"]
    assert (answer.status_code, problem["argument"]) == (status, argument)
    assert message in problem["message"]


def test_what_is_no_json_and_words_without_captions_are_told(client, drawn, tmp_path):
    index, uncaptioned = zoo.create("index", "flat"), tmp_path / "plain"
    index.add(["a", "b"], Representation(vector=torch.eye(2)))
    index.save(uncaptioned, {})
    broken = client(drawn).post("/api/search", content="{", headers=JSON).json()["error"]
    assert broken["message"].startswith("body must be JSON, got Expecting property name")
    answer = client(uncaptioned).post("/api/search", json={"text": "car"})
    assert (answer.status_code, answer.json()["error"]["argument"]) == (400, "text")
    assert client(uncaptioned).post("/api/search", json={"text": " "}).status_code == 200


def test_thumbnails_are_small_and_cached(client, drawn):
    served = client(drawn)
    answer = served.get("/api/thumbnails/scenes/5")
    picture = Image.open(io.BytesIO(answer.content))
    assert picture.size == (128, 96)
    again = served.get("/api/thumbnails/scenes/5", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/api/thumbnails/../../../../etc/passwd", "/api/thumbnails/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/static/../app.py",
        "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/api/items//etc/passwd/map", "/static//etc/passwd",
    ],
)  # fmt: skip
def test_no_path_reaches_the_file_system(client, drawn, path):
    answer = client(drawn).get(path)
    assert answer.status_code == 404
    assert "error" in answer.json()


def test_the_api_describes_itself_and_asks_no_other_host(client, drawn):
    served = client(drawn)
    described = served.get("/openapi.json").json()
    assert {"/api/index", "/api/search", "/api/photos", "/healthz", "/metrics"} <= set(described["paths"])
    assert "SearchRequest" in described["components"]["schemas"]
    assert served.get("/docs").status_code == served.get("/redoc").status_code == 404
    page = served.get("/")
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    for name in ("page.js", "page.css", "drawing.js", "codec.js", "results.js", "api.js", "icon.svg"):
        assert served.get(f"/static/{name}").status_code == 200
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "zoo/serve/static").iterdir()]
    addresses = [word for text in texts for word in text.replace('"', " ").split() if "://" in word]
    assert set(addresses) == {"http://www.w3.org/2000/svg"}  # a name, which nobody fetches


def test_it_counts_what_it_does(client, drawn):
    served = client(drawn)
    assert served.get("/healthz").json() == {"status": "ok", "images": 60}
    assert served.head("/healthz").status_code == 200
    served.post("/api/search", json={"k": 0})
    text = served.get("/metrics").text
    assert 'status="422"' in text
    assert "zoo_index_images" in text
