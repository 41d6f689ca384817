"""Photos of anybody: what is one is searched by, whatever else is refused, and nothing is without bounds."""

from __future__ import annotations

import io
import struct
import threading
import time
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.search.index import open_index
from zoo.serve.decoding import Decoder
from zoo.serve.gate import Gate
from zoo.serve.problems import Refused


def png(width, height, mode="RGB"):
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(file, "PNG")
    return file.getvalue()


def bomb(width, height):
    """Returns a PNG of a few hundred bytes that says it has so many pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def send(served, content, name="photo.png"):
    return served.post("/api/photos", files={"photo": (name, content)})


def test_a_photo_of_the_index_finds_itself(client, described):
    served, index = client(described), open_index(described)
    assert served.get("/api/index").json()["photos"]
    file = index.payloads(["a/1"])[0]["path"]
    with open(file, "rb") as photo:
        content = photo.read()
    token = send(served, content).json()
    assert (token["width"], token["height"]) == (48, 40)
    hits = served.post("/api/search", json={"photo": token["token"], "k": 3}).json()["hits"]
    assert hits[0]["id"] == "a/1"
    assert send(served, content).json() == token
    maps = index.get(["a/1"]).probability_map
    assert torch.isfinite(maps).all()
    grid = served.get("/api/index").json()["map_size"]
    drawn = {"size": grid, "runs": [2, grid[0] * grid[1]]}
    both = served.post("/api/search", json={"photo": token["token"], "drawing": drawn, "k": 3}).json()["hits"]
    assert both[0]["distance"] > hits[0]["distance"]  # the photo isn't all of one class


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "photo"),
        (b"no picture at all", "photo"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "photo"),
        (png(40, 30)[:200], "photo"),
        (bomb(60_000, 60_000), "pixels"),
    ],
)
def test_what_is_no_photo_is_refused(client, described, content, message):
    answer = send(client(described, megapixels=1.0), content)
    assert 400 <= answer.status_code < 500
    problem = answer.json()["error"]
    assert problem["argument"] == "photo"
    assert message in problem["message"]


def test_a_large_photo_is_refused_by_its_bytes_and_by_its_pixels(client, described):
    served = client(described, upload_mb=0.02, megapixels=0.01)
    assert send(served, png(200, 200)).status_code == 413
    few = io.BytesIO()
    Image.new("RGB", (200, 100)).save(few, "PNG")
    answer = send(served, few.getvalue())
    assert "pixels" in answer.json()["error"]["message"]
    assert send(served, png(48, 40)).status_code == 200


def test_an_index_without_a_model_takes_no_photos(client, drawn):
    answer = send(client(drawn), png(40, 30))
    assert answer.status_code == 409
    assert "brings no model" in answer.json()["error"]["message"]


def test_photos_that_nobody_asked_for_are_forgotten(client, described):
    served = client(described, photos_mb=0.0001)
    tokens = [send(served, png(40 + number, 30)).json()["token"] for number in range(20)]
    answers = [served.post("/api/search", json={"photo": token, "k": 1}).status_code for token in tokens]
    assert answers[0] == 404
    assert answers[-1] == 200


def test_a_damaged_file_of_a_photo_is_a_forgotten_photo(client, described, tmp_path):
    served = client(described)
    token = send(served, png(40, 30)).json()["token"]
    (file,) = (tmp_path / "photos").iterdir()
    file.write_bytes(file.read_bytes()[:20])
    another = client(described)  # which holds nothing in memory
    assert another.post("/api/search", json={"photo": token, "k": 1}).status_code == 404
    assert send(another, png(40, 30)).json()["token"] == token
    assert another.post("/api/search", json={"photo": token, "k": 1}).status_code == 200


def test_decoding_ends_when_its_time_is_over():
    decoder = Decoder(upright=True, pixels=10**8, seconds=1e-6)
    with pytest.raises(Refused, match="decoded within 1e-06 s"):
        decoder(png(2000, 2000))
    decoder.seconds = 20
    assert decoder(png(30, 20)).size == (30, 20)
    process = decoder._process
    decoder.close()
    assert process.poll() is not None


def test_too_many_at_once_are_told_to_come_again(client, drawn):
    served = client(drawn, running=1, waiting=1)
    release, begun = threading.Event(), threading.Event()

    def slow(*_):
        begun.set()
        release.wait(20)
        return {"size": (1, 1), "runs": [0, 1]}

    service = served.app.service
    service.map_of = slow
    # The routes look their function up when they are called.
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(served.get("/api/items/scenes/1/map"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert begun.wait(20)
    deadline = time.monotonic() + 20
    while service.searches.inside < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    refused = served.post("/api/search", json={"k": 1})
    release.set()
    for thread in threads:
        thread.join(20)
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert [answer.status_code for answer in answers] == [200, 200]
    assert 'zoo_requests_refused_total{queue="searches"' in served.get("/metrics").text


def test_a_closed_gate_has_finished_what_it_began():
    import asyncio

    done = []
    gate = Gate("x", 1, 1)

    async def work():
        return await gate.run(lambda: (time.sleep(0.2), done.append(1)))

    asyncio.run(work())
    gate.close()
    assert done == [1]
    assert gate.inside == 0


def test_a_body_without_end_is_cut_off(client, drawn):
    answer = client(drawn).post("/api/search", content=b"x" * 2_000_000, headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert answer.json()["error"]["argument"] == "body"


def test_another_hosts_name_is_refused(client, drawn):
    served = client(drawn, hosts=["localhost"])
    assert served.get("/healthz", headers={"host": "evil.example"}).status_code >= 400
    assert served.get("/healthz", headers={"host": "localhost:8000"}).status_code == 200
