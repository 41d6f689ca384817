"""Times `zoo serve`: from a drawing that is sent to the hits that have come back, over HTTP, one worker, one thread.

python tools/benchmarks/serve.py [requests]

100,000 images of 60 classes, maps of 64 x 64, 256 centroids a class, codes and codebook random (seed 0). Every request
draws three classes elsewhere and asks for 48 hits. The last row is the page's own: in Chromium, if there is one, from
the last movement of a brush to the frame that shows the hits. Wall time, since that is what somebody who draws waits
for: on a busy machine the 95th percentile is that of its other work.
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
GOAL = 150  # ms from stroke to results, of which the page waits 40 for the next movement
CHROMIUM = Path("/usr/bin/chromium")
WATCH = """
  window.taken = [];
  addEventListener("pointermove", () => (window.moved = performance.now()), true);
  addEventListener("DOMContentLoaded", () => {
    const hits = document.getElementById("hits");
    new MutationObserver(() => {
      if (!window.moved || hits.classList.contains("stale")) return;
      const since = window.moved;
      window.moved = 0;
      requestAnimationFrame(() => window.taken.push(performance.now() - since));
    }).observe(hits, { attributes: true, attributeFilter: ["class"] });
  });
"""


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
    return _row("drawing of 3 classes" + (", explained" if explain else ""), taken, inside)


def drawn(port: int, strokes: int) -> dict[str, object]:
    """Returns a row: milliseconds from the end of a stroke to the hits on the page, of strokes of different classes."""
    from playwright.sync_api import sync_playwright

    random = np.random.default_rng(2)
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1200, "height": 900})
        tab.add_init_script(WATCH)
        tab.goto(f"http://127.0.0.1:{port}")
        tab.wait_for_selector("#hits li")
        box = tab.locator("#canvas").bounding_box()
        for stroke in range(strokes + 3):
            tab.locator("[name=class]").nth(int(random.integers(CLASSES))).check(force=True)
            x, y = box["x"] + random.random(2) * box["width"], box["y"] + random.random(2) * box["height"]
            tab.mouse.move(x[0], y[0])
            tab.mouse.down()
            tab.mouse.move(x[1], y[1], steps=8)
            tab.mouse.up()
            tab.wait_for_function(f"() => window.taken.length > {stroke}")
        taken = tab.evaluate("() => window.taken")[3:]
        browser.close()
    return _row("stroke on the page, explained", taken, None)


def _row(request: str, taken: list[float], inside: list[float] | None) -> dict[str, object]:
    return {
        "request": request,
        "median": f"{np.median(taken):.1f} ms",
        "95 %": f"{np.percentile(taken, 95):.1f} ms",
        "search alone, median": "" if inside is None else f"{np.median(inside):.1f} ms",
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
                if CHROMIUM.is_file():
                    rows.append(drawn(port, requests // 4))
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
