"""Times the index of probability maps against faiss: one thread, CPU time, interleaved, median.

python tools/benchmarks/search/probability_maps.py [repeats]

82,783 images of 60 classes, maps of 64 x 64, 256 centroids a class: codebooks and codes are random (seed 0), the same
for both; faiss holds the centroids as fp32. The photo's maps are a softmax over smooth random fields, as peaked as a
network's. "k-means" learns one class from 20,000 smooth maps; "memory" opens an index of a million images in a process
of its own, searches it, and says what that took beyond the codebook.
"""

from __future__ import annotations

import os
import sys

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import subprocess
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np
import torch
import torch.nn.functional as F

sys.path.append(str(Path(__file__).resolve().parents[1]))
from timing import measured

import zoo
from zoo.search.map_codebook import STEPS, MapCodebook
from zoo.types import Representation

CLASSES, GRID, CENTROIDS, IMAGES, MILLION, FOUND = 60, (64, 64), 256, 82_783, 1_000_000, 100
CELLS = GRID[0] * GRID[1]
SAMPLE = 20_000
DRAWN = ((0, 0, 20, 40), (7, 20, 40, 20), (31, 40, 64, 64))  # class, first row, last row, columns


def smooth(count: int, channels: int, seed: int, sharpness: float) -> torch.Tensor:
    """Returns (count, channels, 64, 64): softmax over smooth random fields, some classes being rarer than others."""
    generator = torch.Generator().manual_seed(seed)
    fields = F.interpolate(torch.randn(count, channels, 6, 6, generator=generator), GRID, mode="bicubic")
    return (sharpness * (fields + torch.randn(count, channels, 1, 1, generator=generator))).softmax(dim=1)


def book() -> MapCodebook:
    centroids = np.random.default_rng(0).integers(0, 256, (CLASSES, CELLS, CENTROIDS), dtype=np.uint8)
    centroids[:, :, 0] = 0
    return MapCodebook(centroids, GRID)


def coded(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, CENTROIDS, (CLASSES, count), dtype=np.uint8)


def index_of(codebook: MapCodebook, codes: np.ndarray, rounded: bool) -> zoo.search.index.Index:
    index = zoo.create("index", "probability_maps", rounded=rounded)
    index.codebook = codebook
    index._columns.append(codes)
    index._ids.append(np.arange(codes.shape[1]))
    index._payloads.append(np.full(codes.shape[1], "", object))
    return index


def faiss_index(codebook: MapCodebook, codes: np.ndarray) -> faiss.IndexPQ:
    peer = faiss.IndexPQ(CLASSES * CELLS, CLASSES, 8)
    centroids = np.ascontiguousarray(codebook.centroids.transpose(0, 2, 1), np.float32) / STEPS
    faiss.copy_array_to_vector(centroids.ravel(), peer.pq.centroids)
    faiss.copy_array_to_vector(np.ascontiguousarray(codes.T).ravel(), peer.codes)
    peer.is_trained, peer.ntotal = True, codes.shape[1]
    return peer


def search_rows(repeats: int) -> list[dict[str, object]]:
    codebook, codes = book(), coded(IMAGES)
    exact, rounded, peer = (
        index_of(codebook, codes, False),
        index_of(codebook, codes, True),
        faiss_index(codebook, codes),
    )
    photo = smooth(1, CLASSES, 2, 4.0)
    flat = photo.flatten(1).numpy()
    labels = torch.full((1, *GRID), -1)
    for name, top, bottom, right in DRAWN:
        labels[0, top:bottom, :right] = name
    from zoo.ops.sketches import sketch_query

    maps, counts = sketch_query(labels, CLASSES)
    drawing = Representation(probability_map=maps, class_mask=counts)
    classes, tables = exact.tables(photo[0])
    sums, theirs = np.empty(IMAGES, np.float32), np.empty((CLASSES, CENTROIDS), np.float32)
    from zoo.search.map_kernels import add_up

    taken = measured(
        {
            "faiss": lambda: peer.search(flat, FOUND),
            "faiss, tables": lambda: peer.pq.compute_distance_table(faiss.swig_ptr(flat), faiss.swig_ptr(theirs)),
            "photo": lambda: exact.search(Representation(probability_map=photo), FOUND),
            "rounded": lambda: rounded.search(Representation(probability_map=photo), FOUND),
            "sketch": lambda: exact.search(drawing, FOUND),
            "tables": lambda: exact.tables(photo[0]),
            "scan": lambda: add_up(tables, classes, codes, 0, sums),
        },
        repeats,
    )
    scan = taken["faiss"] - taken["faiss, tables"]
    distances, ids = peer.search(flat, FOUND)
    same = _same(exact.search(Representation(probability_map=photo), FOUND)[0], distances[0], ids[0])
    near = len(set(rounded.search(Representation(probability_map=photo), FOUND)[0].ids) & set(ids[0].tolist()))
    return [
        _row("photo, exact", taken["photo"], taken["faiss"], "2.5", f"{same} of {FOUND} the same"),
        _row("photo, rounded", taken["rounded"], taken["faiss"], "6", f"{near} of {FOUND} the same"),
        _row("scan alone", taken["scan"], scan, "1.5", ""),
        _row("tables alone", taken["tables"], taken["faiss, tables"], "", ""),
        _row("drawing of 3 classes", taken["sketch"], taken["faiss"], "40", f"{int((labels >= 0).sum())} cells drawn"),
    ]


def _same(ranking: object, distances: np.ndarray, ids: np.ndarray) -> int:
    """Returns how many hits are faiss', or as far away as one of its but for a relative 1e-5."""
    own = -ranking.scores.numpy()
    near = np.isclose(own, distances, rtol=1e-5, atol=0)
    return int(sum(hit in set(ids.tolist()) or close for hit, close in zip(ranking.ids, near, strict=True)))


def learning_row(repeats: int) -> dict[str, object]:
    from zoo.search.map_learning import clustered

    maps = torch.cat([smooth(500, 12, seed, 4.0)[:, :1] for seed in range(SAMPLE // 500)]).flatten(1)
    rows = (maps * STEPS).round().to(torch.uint8).numpy()
    found: dict[str, np.ndarray] = {}

    def ours() -> None:
        found["zoo"] = clustered(rows, CENTROIDS, 0).T.astype(np.float32)

    def theirs() -> None:
        kmeans = faiss.Kmeans(CELLS, CENTROIDS, niter=25, seed=1)
        kmeans.train(rows.astype(np.float32))
        found["faiss"] = kmeans.centroids

    taken = measured({"zoo": ours, "faiss": theirs}, repeats)
    objective = {name: _objective(rows, centroids) for name, centroids in found.items()}
    said = f"objective {objective['zoo'] / objective['faiss']:.3f} of faiss' (goal 1.02)"
    return _row("k-means of a class", taken["zoo"], taken["faiss"], "1.8", said)


def _objective(rows: np.ndarray, centroids: np.ndarray) -> float:
    index = faiss.IndexFlatL2(CELLS)
    index.add(np.ascontiguousarray(centroids))
    return float(index.search(rows.astype(np.float32), 1)[0].sum())


def memory_row() -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, __file__, "--write", folder], check=True, capture_output=True, text=True)
        said = subprocess.run([sys.executable, __file__, "--open", folder], check=True, capture_output=True, text=True)
    before, after, ms = map(float, said.stdout.split())
    codes = MILLION * CLASSES / 1e6
    return {
        "task": f"memory, {MILLION:,} images",
        "zoo": f"{after - before:.0f} MB, {ms:.1f} ms a photo",
        "faiss": f"codes {codes:.0f} MB",
        "times": round((after - before) / codes, 2),
        "goal": "<= 1.3",
        "note": f"{after:.0f} MB in all, {before:.0f} before the index was opened, with the codebook",
    }


def write(folder: Path) -> None:
    for name, count in (("index", MILLION), ("small", 1000)):
        index_of(book(), coded(count), False).save(folder / name)


def opened(folder: Path) -> None:
    """Prints MB before an index is opened, and at most, and ms of a search."""
    from zoo.search import open_index

    photo = Representation(probability_map=smooth(1, CLASSES, 2, 4.0))
    small = open_index(folder / "small")
    small.search(photo, FOUND)  # compiles, imports, and holds a codebook
    before = _peak()
    del small
    index = open_index(folder / "index")
    index.search(photo, FOUND)
    start = time.process_time()
    index.search(photo, FOUND)
    print(before, _peak(), 1e3 * (time.process_time() - start))


def _peak() -> float:
    """Returns the MB that this process has held at most since it was started; rusage counts its parent's too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e3


def _row(task: str, ours: float, theirs: float, goal: str, note: str) -> dict[str, object]:
    return {
        "task": task,
        "zoo": f"{1e3 * ours:,.2f} ms",
        "faiss": f"{1e3 * theirs:,.2f} ms",
        "times": round(theirs / ours, 2),
        "goal": f">= {goal}" if goal else "",
        "note": note,
    }


def rows(repeats: int = 7) -> list[dict[str, object]]:
    """Measures everything."""
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    return [*search_rows(repeats), learning_row(min(repeats, 3)), memory_row()]


def main() -> None:
    if "--write" in sys.argv or "--open" in sys.argv:
        torch.set_num_threads(1)
        return (write if "--write" in sys.argv else opened)(Path(sys.argv[2]))
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    print(f"median CPU time of {repeats} runs, one thread, faiss {faiss.__version__}, torch {torch.__version__}")
    table = rows(repeats)
    print("| " + " | ".join(table[0]) + " |\n|---|--:|--:|--:|---|---|")
    for row in table:
        print("| " + " | ".join(map(str, row.values())) + " |")
    return None


if __name__ == "__main__":
    main()
