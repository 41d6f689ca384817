"""`zoo serve` as a user starts and ends it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from photo_runs import embed, photos, run
from served_command import NETWORK, Server

from zoo.search.storage import MANIFEST


def ask(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_good_order(drawn, tmp_path, number):
    server = Server(tmp_path, f"index_path={drawn}")
    assert ask(f"{server.url}/healthz")["images"] == 60
    assert server.stop(number) == 0
    assert server.log.read_text().rstrip().endswith("stopped")
    with pytest.raises(urllib.error.URLError):
        ask(f"{server.url}/healthz")


def test_two_workers_answer_from_one_index_and_know_each_others_photos(described, tmp_path):
    server = Server(tmp_path, f"index_path={described}", "workers=2")
    try:
        content = (described.parent / "photos/a/1.png").read_bytes()
        head = b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a.png"\r\n\r\n'
        kind = {"content-type": "multipart/form-data; boundary=x"}
        request = urllib.request.Request(f"{server.url}/api/photos", head + content + b"\r\n--x--\r\n", kind)
        with urllib.request.urlopen(request, timeout=60) as answer:
            token = json.load(answer)["token"]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: ask(f"{server.url}/api/search", {"photo": token, "k": 2}), range(40)))
        assert {hit["hits"][0]["id"] for hit in found} == {"a/1"}
        workers = {line for _ in range(40) for line in _workers(server.url)}
        assert len(workers) == 2
        os.kill(int(lost := workers.pop()), signal.SIGKILL)
        deadline = time.monotonic() + 60
        while len(workers) < 2 and time.monotonic() < deadline:
            with contextlib.suppress(OSError):  # what was sent to the one that was killed
                workers |= _workers(server.url) - {lost}
            time.sleep(0.05)
        assert len(workers) == 2
        assert f"worker {lost} has ended with -9; another takes its place" in server.log.read_text(encoding="utf-8")
    finally:
        code = server.stop(signal.SIGTERM)
    assert code == 0


def _workers(url):
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    return {line.split('worker="')[1].split('"')[0] for line in text.splitlines() if 'worker="' in line}


def test_vectors_are_searched_and_re_ranked(tmp_path):
    embed(tmp_path, photos(tmp_path / "photos", 8), "model=global_descriptor")
    run("index", tmp_path, f"out={tmp_path / 'index'}")
    server = Server(tmp_path, f"index_path={tmp_path / 'index'}", "reranker=aqe")
    try:
        said = ask(f"{server.url}/api/index")
        assert (said["classes"], said["photos"], said["rerankers"]) == (None, True, ["aqe"])
        plain, expanded = (
            ask(f"{server.url}/api/search", {"item": "a/0", "k": 3, "rerankers": chosen}) for chosen in ([], None)
        )
        assert len(plain["hits"]) == len(expanded["hits"]) == 3
        assert (plain["rerankers"], expanded["rerankers"]) == ([], ["aqe"])
        assert plain["hits"][0]["score"] != expanded["hits"][0]["score"]
    finally:
        server.stop(signal.SIGTERM)


def test_an_index_is_made_when_first_called_and_kept(tmp_path):
    root = photos(tmp_path / "photos", 6)
    words = [*NETWORK, "data=folder", f"data.root={root}", "index_path=made"]
    server = Server(tmp_path, *words)
    assert ask(f"{server.url}/api/index")["images"] == 6
    assert server.stop(signal.SIGTERM) == 0
    before = (tmp_path / "made" / MANIFEST).stat().st_mtime_ns
    server = Server(tmp_path, *words)
    assert "is there already" in server.log.read_text()
    assert server.stop(signal.SIGTERM) == 0
    assert (tmp_path / "made" / MANIFEST).stat().st_mtime_ns == before


def test_misuse_ends_in_one_line(command, drawn, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = command("zoo", "serve", f"index_path={drawn}", f"port={port}", code=2)
    assert f"zoo: port must be free at host=127.0.0.1, got {port}" in done.stderr
    assert "there are none in" in command("zoo", "serve", "port=0", code=2).stderr
    assert "k must be at most most=5, got 9" in command("zoo", "serve", "k=9", "most=5", code=2).stderr
    shutil.copytree(drawn, tmp_path / "damaged")
    for file in (tmp_path / "damaged").rglob("*.npy"):
        file.write_bytes(file.read_bytes()[:-7])
    done = command("zoo", "serve", "index_path=damaged", "port=0", code=2)
    assert done.stderr.splitlines()[-1].startswith("zoo: ")
    assert "Traceback" not in done.stderr
