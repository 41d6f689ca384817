"""Times `zoo serve`: from a drawing that is sent to the hits that have come back, over HTTP, one worker, one thread.

python tools/benchmarks/serve.py [requests]

100,000 images of 60 classes, maps of 64 x 64, 256 centroids a class, codes and codebook random (seed 0). Every request
draws three classes elsewhere and asks for 48 hits. Wall time, since that is what somebody who draws waits for: on a
busy machine the 95th percentile is that of its other work.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CLASSES, GRID, CENTROIDS, IMAGES, FOUND = 60, (64, 64), 256, 100_000, 48
GOAL = 150  # ms from stroke to results; the page itself waits up to 50 of them for the next stroke


def write_index(folder: Path) -> None:
    """Writes the index; codes are put where `append` would put those of real maps."""
    import zoo
    from zoo.search.map_codebook import MapCodebook

    random = np.random.default_rng(0)
    centroids = random.integers(0, 256, (CLASSES, GRID[0] * GRID[1], CENTROIDS), dtype=np.uint8)
    centroids[:, :, 0] = 0
    index = zoo.create("index", "probability_maps")
    index.codebook = MapCodebook(centroids, GRID)
    index._columns.append(random.integers(0, CENTROIDS, (CLASSES, IMAGES), dtype=np.uint8))
    index._ids.append(np.array([f"image/{number}" for number in range(IMAGES)], object))
    index._payloads.append(np.array(['{"label": "random"}'] * IMAGES, object))
    index.save(folder)


def drawing(random: np.random.Generator, explain: bool) -> bytes:
    """Returns the body of a request: three rectangles of different classes."""
    labels = np.full(GRID, -1)
    for number in random.choice(CLASSES, 3, replace=False):
        top, left = random.integers(0, 40, 2)
        labels[top : top + 24, left : left + 24] = number
    flat = labels.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=-2))
    runs = np.stack([flat[starts], np.diff(starts, append=flat.size)], axis=1).ravel().tolist()
    return json.dumps({"drawing": {"size": GRID, "runs": runs}, "k": FOUND, "explain": explain}).encode()


def timed(port: int, requests: int, explain: bool) -> dict[str, object]:
    """Returns a row: milliseconds of requests over one connection, and those that the search itself says it took."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    random, taken, inside = np.random.default_rng(1), [], []
    for place in range(requests + 10):  # the first ones compile and read the files into memory
        body = drawing(random, explain)
        start = time.perf_counter()
        connection.request("POST", "/api/search", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = json.loads(answer.read())
        if answer.status != 200 or len(content["hits"]) != FOUND:
            raise SystemExit(f"the server answers {answer.status}: {content}")
        if place >= 10:
            taken.append(1e3 * (time.perf_counter() - start))
            inside.append(content["milliseconds"])
    return {
        "request": "drawing of 3 classes" + (", explained" if explain else ""),
        "median": f"{np.median(taken):.1f} ms",
        "95 %": f"{np.percentile(taken, 95):.1f} ms",
        "search alone, median": f"{np.median(inside):.1f} ms",
        "goal": f"< {GOAL} ms",
    }


def main() -> None:
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as folder:
        write_index(Path(folder) / "index")
        words = ["-m", "zoo.commands.serve", "port=0", f"index_path={folder}/index", "threads=1"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        log = Path(folder) / "log"
        with (
            log.open("wb") as written,
            subprocess.Popen(
                [sys.executable, *words], cwd=folder, env=environment, stdout=written, stderr=subprocess.STDOUT
            ) as server,
        ):
            try:
                port = _port(server, log)
                rows = [timed(port, requests, explain) for explain in (False, True)]
            finally:
                server.terminate()
    print(f"{requests} requests, {IMAGES:,} images, {CLASSES} classes, {GRID[0]} x {GRID[1]}, k={FOUND}")
    print("| " + " | ".join(rows[0]) + " |\n|---|--:|--:|--:|---|")
    for row in rows:
        print("| " + " | ".join(map(str, row.values())) + " |")


def _port(server: subprocess.Popen, log: Path) -> int:
    """Waits for the server, and returns its port."""
    while server.poll() is None:
        found = re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text())
        if found:
            return int(found[1])
        time.sleep(0.2)
    raise SystemExit(f"the server has ended:\n{log.read_text()}")


if __name__ == "__main__":
    main()
