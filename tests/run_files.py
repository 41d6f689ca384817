"""Makes up runs as `zoo eval` writes them."""

from __future__ import annotations

import json

import numpy as np


def value(numbers):
    """Returns a metric's entry of results.json; None in `numbers` means undefined."""
    defined = [number for number in numbers if number is not None]
    mean = float(np.mean(defined)) if defined else None
    half_width = float(1.96 * np.std(defined) / len(defined) ** 0.5) if len(defined) > 1 else None
    return {"mean": mean, "half_width": half_width, "per_query": list(numbers)}


def row(metrics, descriptor="vector", normalised=True):
    """Returns a row of results.json from metric → per-query numbers."""
    cells = {name: value(numbers) for name, numbers in metrics.items()}
    return {"descriptor": descriptor, "l2_normalised": normalised, "published": None, "metrics": cells}


def write_run(folder, metrics, query_ids=None, rows=(), fingerprint=None, rankings=None, **more):
    """Writes results.json, and rankings.json if given; returns the folder. `metrics` is the own row's."""
    folder.mkdir(parents=True, exist_ok=True)
    size = len(next(iter(metrics.values())))
    query_ids = list(query_ids or (f"q{number}" for number in range(size)))
    parts = {"benchmark": "toy", "gallery": 5063, "gallery_ids": "00aa", "queries": size, "query_ids": "11bb"}
    parts |= {"truth": "22cc", "metrics": {name: {"k": None} for name in metrics}, "hash": "feedface"}
    content = {
        "schema": 2,
        "run_name": "toy_run",
        "model": {"kind": "model", "name": "two_stage_rn", "origin": "spatial-zoo 0.1.0", "weights_hash": "abcd"},
        "data": None,
        "versions": {"torch": "2.15.0"},
        "command": ["zoo", "eval"],
        "cwd": str(folder),
        "fingerprint": parts | (fingerprint or {}),
        "query_ids": query_ids,
        "own": len(rows),
        "rows": [*rows, row(metrics)],
        **more,
    }
    (folder / "results.json").write_text(json.dumps(content), encoding="utf-8")
    if rankings is not None:
        about = {"descriptor": "vector", "fingerprint": content["fingerprint"]["hash"], "score": "cosine similarity"}
        about |= {"query_split": "gallery", "gallery_split": "gallery", "queries": rankings}
        (folder / "rankings.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


def ranked(query, name, items, image=None, box=None, relevant_total=None):
    """Returns a query of rankings.json; `items` are (id, score, relevance, note)."""
    keys = ("id", "score", "relevance", "note")
    hits = [dict(zip(keys, item, strict=True)) for item in items]
    place = {"query": query, "id": name, "image": image or name, "box": box, "relevant_total": relevant_total}
    return {**place, "ranked": hits}
