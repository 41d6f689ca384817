"""Node maps behind the distances, what they say in words, and the cost of a query as a part of a scene."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from truth_helpers import random_graph, shuffled

from zoo.truth import SceneGraph, edit_distance, edit_distances, sample_clevr_graphs
from zoo.truth.edits import edit_map, edits
from zoo.truth.reference import authors_distance, mapping_cost, node_costs
from zoo.truth.scene_words import ANY, CLEVR_WORDS

KINDS = ((), (0,), (0, 1))
GRAPHS = (st.integers(0, 10**6), st.integers(0, 6), st.integers(0, 6), st.sampled_from(KINDS))


def two(seed, n, m, antisymmetric, values=2):
    rng = np.random.default_rng(seed)
    kind = {"values": values, "antisymmetric": antisymmetric, "attributes": 3}
    return random_graph(rng, n, **kind), random_graph(rng, m, **kind), rng


@settings(max_examples=80)
@given(*GRAPHS, st.sampled_from(["soft", "hard"]))
def test_the_map_costs_what_the_distance_says(seed, n, m, antisymmetric, nodes):
    a, b, _ = two(seed, n, m, antisymmetric)
    for method in ("bipartite", "exact"):
        cost = mapping_cost(a, b, edit_map(a, b, nodes, method), nodes)
        assert cost == pytest.approx(edit_distance(a, b, nodes, method), rel=1e-6)


@settings(max_examples=40)
@given(*GRAPHS)
def test_the_map_of_authors_explains_their_distance(seed, n, m, antisymmetric):
    a, b, _ = two(seed, n, m, antisymmetric)
    mapping = edit_map(a, b, "soft", "authors")
    there = {tuple(edge) for edge in b.edges.tolist()}
    inverted = 0
    for source, target, relation in a.edges.tolist():
        if source in mapping and target in mapping:
            image = mapping[source], mapping[target], relation
            inverted += image not in there and (image[1], image[0], relation) in there
    node = sum(node_costs(a, b, "soft")[i, k] for i, k in mapping.items()) + n + m - 2 * len(mapping)
    expected = authors_distance(a, b, "soft")
    # A lost and a new node cost 1 each where they pair off with their own places, 5 where not: see `pad_square`.
    assert 2 * node + inverted <= expected + 1e-6
    if n == m == len(mapping):
        assert 2 * node + inverted == pytest.approx(expected)


def part_cost(query, graph, nodes):
    """Least over all placements by trying each; the query's -1 fits anything."""
    n, m = len(query), len(graph)
    differ = (query.attributes[:, None] != graph.attributes[None]) & (query.attributes[:, None] != ANY)
    table = differ.mean(axis=2) if nodes == "soft" else differ.any(axis=2).astype(float)
    there = {tuple(edge) for edge in graph.edges.tolist()}
    best = np.inf
    for images in permutations([*range(m), *[None] * max(0, n - m)], n):
        total = sum(1 if k is None else table[i, k] for i, k in enumerate(images))
        total += sum((images[i], images[j], r) not in there for i, j, r in query.edges.tolist())
        best = min(best, total)
    return best


@settings(max_examples=80)
@given(st.integers(0, 10**6), st.integers(0, 4), st.integers(0, 5), st.sampled_from(KINDS))
def test_part_is_the_best_of_all_placements(seed, n, m, antisymmetric):
    a, b, rng = two(seed, n, m, antisymmetric, values=3)
    open_ones = np.where(rng.random(a.attributes.shape) < 0.3, ANY, a.attributes)
    query = SceneGraph(open_ones, a.edges, antisymmetric, 2)
    for nodes in ("soft", "hard"):
        found = edit_distance(query, b, nodes, "part")
        assert found == pytest.approx(part_cost(query, b, nodes), rel=1e-6)
        assert edit_distance(query, shuffled(b, rng), nodes, "part") == found
        assert edit_distance(a, b, nodes, "part") <= edit_distance(a, b, nodes, "exact") + 1e-6


def test_part_is_the_best_of_all_placements_in_a_larger_scene():
    """Six objects in eight and eight in six, by 20,160 placements at once."""
    for seed in range(6):
        a, b, rng = two(seed, *((6, 8) if seed % 2 else (8, 6)), (0,), values=3)
        query = SceneGraph(np.where(rng.random(a.attributes.shape) < 0.5, ANY, a.attributes), a.edges, (0,), 2)
        small, large = sorted((len(a), len(b)))
        chosen = np.array(list(permutations(range(large), small)))  # (P, small)
        images = chosen if len(a) == small else np.full((len(chosen), large), -1)
        if len(a) > small:
            np.put_along_axis(images, chosen, np.arange(small), axis=1)
        differ = ((query.attributes[:, None] != b.attributes[None]) & (query.attributes[:, None] != ANY)).mean(axis=2)
        table = np.c_[differ, np.ones(len(a))]  # the last column, -1, stands for a lost object
        there = np.zeros((len(b) + 1, len(b) + 1, 2), bool)
        there[tuple(b.edges.T)] = True
        cost = table[np.arange(len(a)), images].sum(axis=1)
        for i, j, relation in query.edges.tolist():
            cost += ~there[images[:, i], images[:, j], relation]
        assert edit_distance(query, b, method="part") == pytest.approx(cost.min())


def test_ten_objects_are_found_among_many_scenes():
    """A whole scene, and its relations alone, in 1,000 scenes of up to ten objects; by trying maps blindly, hours."""
    gallery = sample_clevr_graphs(1_000, seed=1)
    (place, *_) = np.flatnonzero(gallery.sizes == 10)
    query = gallery[int(place)]
    relations = SceneGraph(np.full_like(query.attributes, ANY), query.edges, query.antisymmetric, 2)
    found = edit_distances([query, relations], gallery, method="part")
    assert (found[:, place] == 0).all()
    assert np.all(found[1] <= found[0])
    assert np.all(found >= np.maximum(0, 10 - gallery.sizes))


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 7))
def test_part_of_a_graph_costs_nothing(seed, n):
    rng = np.random.default_rng(seed)
    whole = random_graph(rng, n, values=3, antisymmetric=(0, 1))
    kept = rng.permutation(n)[: rng.integers(1, n + 1)]
    place = {node: i for i, node in enumerate(kept.tolist())}
    pairs = [(place[i], place[j], r) for i, j, r in whole.edges.tolist() if i in place and j in place]
    part = SceneGraph(whole.attributes[kept], pairs[::2], whole.antisymmetric, 2)
    assert edit_distance(part, whole, method="part") == 0


def scene(objects, edges):
    """Objects as (color, shape, material, size) and edges of CLEVR's relations."""
    return SceneGraph(np.array(objects, int).reshape(-1, 4), edges, (0, 1), 2)


RED_CUBE, BLUE_CUBE, GREEN_BALL = (1, 0, 1, 1), (2, 0, 1, 1), (3, 1, 0, 0)


def test_differences_in_words():
    query = scene([RED_CUBE, GREEN_BALL, RED_CUBE], [(0, 1, 0), (0, 1, 1), (1, 2, 1)])
    item = scene([GREEN_BALL, BLUE_CUBE], [(0, 1, 0)])
    found = edits(query, item, {0: 1, 1: 0}, CLEVR_WORDS, "bipartite")
    assert found.text() == (
        "1 alike; changed: large red metal cube → large blue metal cube; lost: large red metal cube; "
        "turned: large blue metal cube right of small green rubber sphere; "
        "missing: small green rubber sphere in front of large blue metal cube"
    )
    back = edits(item, query, {1: 0, 0: 1}, CLEVR_WORDS, "bipartite")
    assert (back.added, back.lost) == (("large red metal cube",), ())
    assert back.new == ("small green rubber sphere in front of large red metal cube",)
    assert edits(item, query, {1: 0, 0: 1}, CLEVR_WORDS, "part").added == ()
    assert found.record()["changed"] == [["large red metal cube", "large blue metal cube"]]


def test_the_number_of_differences_is_the_hard_distance():
    for seed in range(30):
        a, b, _ = two(seed, 4, 5, (0, 1))
        words = type(CLEVR_WORDS)({"p": ("0", "1"), "q": ("0", "1"), "r": ("0", "1")}, ("right", "front"))
        found = edits(a, b, edit_map(a, b, "hard", "exact"), words, "exact")
        stay = len(found.changed) + len(found.lost) + len(found.added)
        stay += len(found.turned) + len(found.missing) + len(found.new)
        image = set(edit_map(a, b, "hard", "exact").values())
        ends = sum(i not in image or j not in image for i, j, _ in b.edges.tolist())
        assert stay + ends == edit_distance(a, b, "hard", "exact")


def test_many_differences_are_counted():
    item = scene([RED_CUBE] * 3 + [BLUE_CUBE, GREEN_BALL], [])
    assert edits(scene([], []), item, {}, CLEVR_WORDS, "bipartite").text() == (
        "0 alike; added: 3 × large red metal cube, large blue metal cube, small green rubber sphere"
    )
    assert CLEVR_WORDS.describe([ANY, 1, ANY, 0]) == "small sphere"
    assert CLEVR_WORDS.describe([ANY] * 4) == "object"
