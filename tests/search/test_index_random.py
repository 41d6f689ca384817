from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import zoo
from zoo.search.index import open_index
from zoo.types import Representation

DIMENSION, REGIONS = 4, 3
STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "remove", "replace", "save", "open"]), st.integers(0, 99)), max_size=9
)


@cache
def description(kind):
    """Composing a config takes longer than a whole history."""
    parameters = {"flat": {"metric": "l2"}, "regions": {"metric": "dot"}}
    approximate = {"metric": "l2", "lists": 2, "subquantizers": 2, "bits": 4, "probes": 2}
    return zoo.create("index", kind, **parameters.get(kind, approximate))


def empty(kind):
    index = type(description(kind))(**description(kind).registered["parameters"])
    index.registered = description(kind).registered
    return index


def drawn(seed, count):
    """Integer components: equal scores are equal on any machine, and there are many."""
    rng = np.random.default_rng(seed)
    regions = torch.from_numpy(rng.integers(-2, 3, (count, REGIONS, DIMENSION))).float()
    mask = torch.from_numpy(rng.random((count, REGIONS)) < 0.6)
    mask[:, 0] = True
    return Representation(vector=regions[:, 0], regions=regions, region_mask=mask)


class Reference:
    """A dict of what is there, oldest first, and brute force."""

    def __init__(self, kind):
        self.kind, self.items = kind, {}

    def add(self, ids, items, payloads):
        for place, name in enumerate(ids):
            mask = items.region_mask[place] if self.kind == "regions" else slice(0, 1)
            self.items.pop(name, None)
            self.items[name] = items.regions[place][mask].double().numpy(), payloads[place]

    def search(self, query, k, label):
        chosen = [name for name, (_, payload) in self.items.items() if label in (None, payload.get("label"))]
        if self.kind == "flat":
            scores = [-np.linalg.norm(query[:1] - self.items[name][0]) for name in chosen]
        else:
            scores = [(query @ self.items[name][0].T).max() for name in chosen]
        order = np.argsort(-np.round(scores, 6), kind="stable")[:k]
        return [chosen[i] for i in order], [scores[i] for i in order]


def run(index, reference, steps, folder):
    """Takes the steps on both; returns the index, which may be another object by then."""
    fresh = 0
    for step, number in steps:
        there = list(reference.items)
        chosen = [there[i] for i in sorted({number % len(there), number * 7 % len(there)})] if there else []
        if step == "remove" and len(there) > 20:
            index.remove(chosen)
            for name in chosen:
                del reference.items[name]
        elif step in ("add", "replace"):
            names = [f"new{fresh + i}" for i in range(number % 5)] if step == "add" else chosen
            fresh += len(names)
            items, payloads = drawn(number, len(names)), [{"label": str(i % 2)} if i else {} for i in range(len(names))]
            getattr(index, step)(names, items, payloads)
            reference.add(names, items, payloads)
        elif step in ("save", "open"):
            index.save(folder)
            index = open_index(folder) if step == "open" else index
    return index


@pytest.mark.parametrize("kind", ["flat", "regions", "ivf_pq"])
@given(steps=STEPS, seed=st.integers(0, 99), label=st.sampled_from([None, "0", "1"]), k=st.integers(1, 30))
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
def test_any_history_gives_what_brute_force_gives(kind, steps, seed, label, k):
    index, reference = empty(kind), Reference(kind)
    names, items = [f"old{i}" for i in range(24)], drawn(seed, 24)
    payloads = [{"label": str(i % 3)} for i in range(24)]
    index.add(names, items, payloads)
    reference.add(names, items, payloads)
    with tempfile.TemporaryDirectory() as folder:
        index = run(index, reference, steps, Path(folder))
    assert index.ids == list(reference.items)
    assert index.payloads(index.ids) == [payload for _, payload in reference.items.values()]
    queries = drawn(seed + 1, 3)
    where = None if label is None else {"label": label}
    rankings = index.search(queries, k, where)
    if kind == "ivf_pq":  # exhaustive: what the codes decode to, compared by brute force
        reference.kind = "flat"
        decoded = index.get(index.ids).vector.double().numpy()
        reference.items = {n: (decoded[[i]], p) for i, (n, (_, p)) in enumerate(reference.items.items())}
    for place, ranking in enumerate(rankings):
        query = queries.regions[place][queries.region_mask[place]].double().numpy()
        wanted, scores = reference.search(query, k, label)
        # Squared, since codes are compared so: near 0 a root makes much of little.
        assert np.allclose(np.square(ranking.scores), np.square(scores), atol=1e-4)
        if kind == "ivf_pq":
            assert len(ranking.ids) == len(set(ranking.ids))
        else:
            assert ranking.ids == wanted
