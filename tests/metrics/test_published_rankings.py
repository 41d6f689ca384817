"""Real ground truth and published scores: Oxford Buildings' 55 queries, and matrices of VPR-Bench."""

from __future__ import annotations

import json
import os
from pathlib import Path

import metric_references as plain
import numpy as np
import pytest
import torch

from zoo.metrics.functional import average_precision, precision_at_k, recall_at_k

DATA = Path(os.environ.get("ZOO_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
GALLERY = 5063


def load(name, reader):
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"{path} is absent (set ZOO_DATA)")
    return reader(path)


@pytest.fixture(scope="module")
def oxford():
    """Relevance and junk (55, 5063) of the classic protocol: images that no query names are irrelevant to all."""
    queries = load("oxford5k_allsouls/gnd_oxford5k.json", lambda path: json.loads(path.read_text(encoding="utf-8")))
    queries = list(queries.values())
    names = sorted({name for query in queries for group in ("good", "ok", "junk") for name in query[group]})
    column = {name: place for place, name in enumerate(names)}
    assert len(queries) == 55
    assert len(names) < GALLERY
    relevant, junk = (torch.zeros(55, GALLERY, dtype=torch.bool) for _ in range(2))
    for q, query in enumerate(queries):
        relevant[q, [column[name] for name in query["good"] + query["ok"]]] = True
        junk[q, [column[name] for name in query["junk"]]] = True
    assert relevant.sum() == 2840
    return relevant, junk


@pytest.mark.parametrize("kind", ["perfect", "reversed", "random"])
def test_oxford(oxford, kind):
    relevant, junk = oxford
    noise = torch.rand(relevant.shape, generator=torch.Generator().manual_seed(0))
    scores = {"perfect": relevant + noise / 2, "reversed": noise / 2 - relevant.float(), "random": noise - 0.5}[kind]
    for convention, definition in (("trapezoid", plain.trapezoid), ("finite", plain.average_precision)):
        values = average_precision(scores, relevant, junk, convention=convention)
        assert values.numpy() == pytest.approx(plain.by_query(definition, scores, relevant, junk), abs=1e-12)
        if kind == "perfect":
            assert values.tolist() == pytest.approx([1.0] * 55, abs=1e-12)
    capped = precision_at_k(scores, relevant, 10, junk)
    assert capped.numpy() == pytest.approx(plain.by_query(plain.precision, scores, relevant, junk, k=10, capped=True))


@pytest.mark.parametrize(
    ("dataset", "method", "published"),
    [
        ("corridor", "NetVLAD", 0.676),
        ("corridor", "ap-gem", 0.532),
        ("corridor", "HybridNet", 0.901),
        ("SPEDTEST", "NetVLAD", 0.679),
    ],
)
def test_recall_at_1_of_vpr_bench(dataset, method, published):
    truth = load(f"vpr_bench/ground_truth/{dataset}.json", lambda path: json.loads(path.read_text(encoding="utf-8")))
    matrices = load(f"vpr_bench/scores/{dataset}.npz", np.load)
    name = next(name for name in matrices.files if name.lower().startswith(method.lower()))
    scores = torch.from_numpy(matrices[name])
    relevant = torch.zeros(scores.shape, dtype=torch.bool)
    for query, matches in truth:
        relevant[query, matches] = True
    values = recall_at_k(scores, relevant, 1)
    assert round(values.nanmean().item(), 3) == published
    expected = plain.by_query(plain.recall, scores, relevant, k=1, any_hit=True)
    assert np.array_equal(values.numpy(), expected, equal_nan=True)
