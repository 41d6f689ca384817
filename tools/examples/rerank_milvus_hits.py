"""Re-ranks the hits of a Milvus collection that the zoo knows nothing of: `zoo.load_model(FILE).rerank(…)` is all.

    python tools/examples/rerank_milvus_hits.py [FILE.safetensors]

FILE is what `zoo train model=gnn_rerank` wrote. Without one a tiny model with random weights takes its place. Pictures
are made up: 400 along a street, whose descriptors change with place and heading. Needs the extra `milvus`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from pymilvus import MilvusClient

import zoo
from zoo.checkpoints import save_weights

COUNT, HITS, QUERY = 400, 30, 123
KNOWN = ["easting", "northing", "heading", "captured_at"]


def street(dimension: int) -> list[dict]:
    """Returns made-up pictures: what is seen, where, in which direction and when."""
    generator = np.random.default_rng(0)
    easting, heading = np.sort(generator.uniform(0, 2000, COUNT)), generator.choice([90.0, 270.0], COUNT)
    northing, captured_at = generator.normal(0, 3, COUNT), 1.7e12 + 60_000.0 * np.arange(COUNT)
    seen = np.column_stack([easting / 30, np.cos(np.radians(heading)), np.sin(np.radians(heading))])
    vectors = np.cos(seen @ generator.normal(size=(3, dimension)) + generator.uniform(0, 6.3, dimension))
    vectors += generator.normal(0, 0.5, vectors.shape)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    poses = zip(easting, northing, heading, captured_at, strict=True)
    return [
        {"id": number, "vector": vectors[number].tolist(), **dict(zip(KNOWN, map(float, pose), strict=True))}
        for number, pose in enumerate(poses)
    ]


def found(folder: Path, pictures: list[dict]) -> list[dict]:
    """Returns the hits of one picture in a collection of all others, nearest first, with their descriptors."""
    client = MilvusClient(str(folder / "street.db"))
    client.create_collection("street", dimension=len(pictures[0]["vector"]), metric_type="COSINE")
    client.insert("street", [picture for picture in pictures if picture["id"] != QUERY])
    (hits,) = client.search(
        "street", data=[pictures[QUERY]["vector"]], limit=HITS, output_fields=["id", "vector", *KNOWN]
    )
    found = [dict(hit["entity"]) for hit in hits]
    client.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Re-ranks the hits of a Milvus collection.")
    parser.add_argument("weights", nargs="?", help="a file of zoo train model=gnn_rerank")
    weights = parser.parse_args().weights
    with tempfile.TemporaryDirectory() as folder:
        if weights is None:
            print("no weights are given: a tiny model with random ones, whose order means nothing")
            weights = Path(folder) / "random.safetensors"
            save_weights(zoo.create_model("gnn_rerank", dimension=64, projection=32, anchors=15), weights)
        model = zoo.load_model(str(weights))
        pictures = street(model.dimension)
        hits = found(Path(folder), pictures)
    vectors = np.array([hit["vector"] for hit in hits], np.float32)
    order, scores = model.rerank(pictures[QUERY]["vector"], vectors, metadata=hits)
    place = pictures[QUERY]["easting"]
    print("rank  by Milvus         re-ranked          score   (id, and m from the query)")
    for rank, (old, new) in enumerate(zip(hits, (hits[k] for k in order), strict=True), start=1):
        cells = [f"{hit['id']:4d} {hit['easting'] - place:+7.0f} m" for hit in (old, new)]
        print(f"{rank:4d}  {cells[0]}   {cells[1]}   {scores[rank - 1]:.4f}")


if __name__ == "__main__":
    main()
