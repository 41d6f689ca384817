from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest
from truth_helpers import random_graph

from zoo.truth import PackedGraphs, SceneGraph, clevr_graph, sort_of_clevr_graphs

ONE = np.zeros((3, 2), int)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((3, 2)), []), r"attributes must be integers of shape \(O, A\), got float64"),
        ((np.zeros(3, int), []), r"attributes must be integers of shape \(O, A\), got int64 of shape \(3,\)"),
        ((np.zeros((3, 0), int), []), "at least one attribute per node"),
        ((ONE, [(0, 1)]), r"edges must have shape \(E, 3\)"),
        ((ONE, [(0, 3, 0)]), r"edges must name nodes in 0…2, got \[0, 3, 0\]"),
        ((ONE, [(0, 1, 0), (-1, 1, 0)]), r"edges must name nodes in 0…2, got \[-1, 1, 0\]"),
        ((ONE, [(0, 1, -1)]), "relation id of at least 0"),
        ((ONE, [(1, 1, 0)]), r"two different nodes, got \[1, 1, 0\]"),
        ((ONE, [(0, 1, 0), (0, 1, 1), (0, 1, 0)]), r"once, got \[0, 1, 0\] twice"),
        ((ONE, [(0, 1, 0), (1, 0, 0)], (0,)), "exclude their reverse"),
        ((ONE, [(0, 1, 8)]), r"relations must lie in 9…8"),
        ((ONE, [(0, 1, 1)], (), 1), r"relations must lie in 2…8 .* got 1"),
        ((ONE, [], (9,)), r"antisymmetric must hold relation ids in 0…7, got \(9,\)"),
    ],
)
def test_scene_graph_refuses_what_breaks_a_rule(arguments, message):
    with pytest.raises(ValueError, match=message):
        SceneGraph(*arguments)


def test_scene_graph_is_read_only_and_keeps_no_reference_to_its_arguments():
    attributes = np.zeros((2, 1), int)
    graph = SceneGraph(attributes, [(0, 1, 2)], antisymmetric=(3,))
    attributes[0, 0] = 5
    assert graph.attributes[0, 0] == 0
    assert (len(graph), graph.relations) == (2, 4)
    with pytest.raises(ValueError, match="read-only"):
        graph.edges[0, 0] = 1


def test_a_relation_may_run_both_ways_unless_antisymmetric():
    assert len(SceneGraph(ONE, [(0, 1, 0), (1, 0, 0)], (1,)).edges) == 2


def test_packing_keeps_every_graph(rng):
    graphs = [random_graph(rng, nodes, relations=3, antisymmetric=(1,)) for nodes in (3, 0, 64, 1, 7)]
    packed = PackedGraphs.from_graphs(graphs)
    assert packed.sizes.tolist() == [3, 0, 64, 1, 7]
    for graph, back in zip(graphs, packed, strict=True):
        assert np.array_equal(graph.attributes, back.attributes)
        assert {*map(tuple, graph.edges.tolist())} == {*map(tuple, back.edges.tolist())}
        assert (back.antisymmetric, back.relations) == ((1,), 3)
    some = packed[[4, 0, 4]]
    assert np.array_equal(some[2].edges, packed[4].edges)
    assert packed[1:3].fingerprint == PackedGraphs.from_graphs(graphs[1:3]).fingerprint


def test_padded_arrays_pack_like_single_graphs(rng):
    count = np.array([4, 0, 1, 3])
    attributes, adjacency = rng.integers(0, 5, (4, 4, 2)), rng.random((4, 2, 4, 4)) < 0.5
    adjacency &= ~np.eye(4, dtype=bool)
    packed = PackedGraphs.from_padded(attributes, adjacency, count)
    graphs = []
    for n, table, edges in zip(count, attributes, adjacency, strict=True):
        triples = [(i, j, r) for r, i, j in np.argwhere(edges) if max(i, j) < n]
        graphs.append(SceneGraph(table[:n], triples, relations=2))
    assert packed.fingerprint == PackedGraphs.from_graphs(graphs).fingerprint


def test_packing_refuses_what_does_not_fit(rng):
    small, large = random_graph(rng, 3), random_graph(rng, 65, density=0)
    with pytest.raises(ValueError, match="at most 64 nodes, graph 1 has 65"):
        PackedGraphs.from_graphs([small, large])
    with pytest.raises(ValueError, match="at most 64 nodes per graph, got O=65"):
        PackedGraphs.from_padded(np.zeros((1, 65, 2), int), np.zeros((1, 1, 65, 65)), [65])
    with pytest.raises(ValueError, match=r"agree on attributes and antisymmetric.*item 1 has A=2"):
        PackedGraphs.from_graphs([small, random_graph(rng, 3, attributes=2)])
    with pytest.raises(ValueError, match="at least one SceneGraph"):
        PackedGraphs.from_graphs([])
    with pytest.raises(ValueError, match=r"count must lie in 0…2, got 3…3"):
        PackedGraphs.from_padded(np.zeros((1, 2, 2), int), np.zeros((1, 1, 2, 2)), [3])
    with pytest.raises(ValueError, match="adjacency must join two different nodes of a graph, got 0→2"):
        PackedGraphs([0, 2], np.zeros((2, 1), int), np.array([[4], [0]], np.uint64))
    with pytest.raises(ValueError, match="excludes the reverse"):
        PackedGraphs([0, 2], np.zeros((2, 1), int), np.array([[2], [1]], np.uint64), (0,))


def test_fingerprint_sees_every_part(rng):
    graph = random_graph(rng, 4)
    other = graph.attributes.copy()
    other[3, 1] += 1
    variants = [
        [graph],
        [graph, graph],
        [SceneGraph(other, graph.edges, (), 2)],
        [SceneGraph(graph.attributes, graph.edges[1:], (), 2)],
        [SceneGraph(graph.attributes, graph.edges, (), 3)],
        [SceneGraph(graph.attributes[::-1], graph.edges, (), 2)],
    ]
    assert len({PackedGraphs.from_graphs(variant).fingerprint for variant in variants}) == len(variants)


def test_sets_are_put_one_after_another(rng):
    graphs = [random_graph(rng, int(n), antisymmetric=(1,)) for n in (0, 3, 5, 1)]
    parts = [PackedGraphs.from_graphs(graphs[:1]), PackedGraphs.from_graphs(graphs[1:])]
    assert PackedGraphs.concatenate(parts).fingerprint == PackedGraphs.from_graphs(graphs).fingerprint
    with pytest.raises(ValueError, match=r"parts must agree on .* got \[\]"):
        PackedGraphs.concatenate([])
    with pytest.raises(ValueError, match=r"got \[\(4, 1, \(0,\)\), \(4, 2, \(1,\)\)\]"):
        PackedGraphs.concatenate([parts[0], parts[1].relation(1)])


def test_sort_of_clevr_relations_on_a_hand_made_image():
    # object 1 is as near to 0 as object 2 is (first index wins); object 3 lies behind the count
    x, y = np.array([[30, 20, 40, 30], [10, 0, 0, 0]]), np.array([[30, 30, 30, 31], [60, 0, 0, 0]])
    colour, shape = np.array([[5, 1, 2, 3], [4, 0, 0, 0]]), np.array([[0, 1, 0, 1], [1, 0, 0, 0]])
    packed = sort_of_clevr_graphs(colour, shape, x, y, np.array([3, 1]), size=75)
    assert packed[0].attributes.tolist() == [[5, 0, 1, 1], [1, 1, 1, 1], [2, 0, 0, 1]]
    edges = {(0, 1, 0), (1, 0, 0), (2, 0, 0), (0, 1, 1), (1, 2, 1), (2, 1, 1)}
    assert {*map(tuple, packed[0].edges.tolist())} == edges
    assert packed[1].attributes.tolist() == [[4, 1, 1, 0]]
    assert len(packed[1].edges) == 0
    assert (packed[1].relations, packed.antisymmetric) == (2, ())


def test_sort_of_clevr_matches_a_loop_and_packs_quickly(rng):
    objects, images = 6, 10_000
    x, y = rng.integers(5, 70, (2, images, objects))
    count, shape = rng.integers(1, 7, images), rng.integers(0, 2, (images, objects))
    colour = np.argsort(rng.random((images, objects)), axis=1)
    start = time.process_time()
    packed = sort_of_clevr_graphs(colour, shape, x, y, count)
    assert time.process_time() - start < 1
    for image in range(200):
        n = count[image]
        for i in range(n):
            others = [((x[image, i] - x[image, j]) ** 2 + (y[image, i] - y[image, j]) ** 2, j) for j in range(n)]
            others = [pair for pair in others if pair[1] != i]
            expected = set()
            if others:
                farthest = max(distance for distance, _ in others)
                expected = {(min(others)[1], 0), (min(j for d, j in others if d == farthest), 1)}
            edges = packed[image].edges
            assert {(j, r) for _, j, r in edges[edges[:, 0] == i].tolist()} == expected


def test_sort_of_clevr_refuses_shapes_that_disagree():
    table = np.zeros((2, 3), int)
    with pytest.raises(ValueError, match=r"y must be \(N, O\) like colour"):
        sort_of_clevr_graphs(table, table, table, np.zeros((2, 4)), np.array([1, 1]))


def test_clevr_edges_follow_the_relationship_lists(clevr_scenes):
    scene = clevr_scenes[0]
    graph = clevr_graph(scene)
    assert (len(graph), graph.antisymmetric, graph.relations) == (len(scene["objects"]), (0, 1), 2)
    direction = np.array(scene["directions"]["right"])
    place = np.array([item["3d_coords"] for item in scene["objects"]]) @ direction
    for source, target, relation in graph.edges.tolist():
        assert relation == 1 or place[target] > place[source]
    assert (graph.edges[:, 2] == 0).sum() == sum(map(len, scene["relationships"]["right"]))
    assert (graph.edges[:, 2] == 1).sum() == sum(map(len, scene["relationships"]["front"]))


def test_clevr_scene_words_are_fixed_and_checked():
    item = {"color": "yellow", "shape": "sphere", "material": "metal", "size": "small"}
    scene = {"objects": [item], "relationships": {"right": [[]], "front": [[]]}}
    assert clevr_graph(scene).attributes.tolist() == [[7, 1, 1, 0]]
    with pytest.raises(ValueError, match=r"color must be one of gray, .*, got 'pink'"):
        clevr_graph({**scene, "objects": [{**item, "color": "pink"}]})
    with pytest.raises(ValueError, match="must have the key 'front'"):
        clevr_graph({**scene, "relationships": {"right": [[]]}})
    with pytest.raises(ValueError, match="must have the key 'objects'"):
        clevr_graph({})


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, zoo.truth; print([m for m in ('numba', 'scipy', 'rich', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_one_relation_keeps_nodes_and_its_own_edges():
    graph = SceneGraph(np.array([[0], [1], [2]]), np.array([[0, 1, 0], [1, 2, 1], [2, 0, 1]]), antisymmetric=(1,))
    packed = PackedGraphs.from_graphs([graph, graph])
    second = packed.relation(1)[0]
    assert second.edges.tolist() == [[1, 2, 0], [2, 0, 0]]
    assert second.attributes.tolist() == graph.attributes.tolist()
    assert tuple(second.antisymmetric) == (0,)
    assert tuple(packed.relation(0)[1].antisymmetric) == ()
    with pytest.raises(ValueError, match="number must lie in 0 … 1, got 2"):
        packed.relation(2)
