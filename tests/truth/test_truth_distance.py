from __future__ import annotations

from itertools import permutations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from truth_helpers import random_graph, shuffled

from zoo.truth import PackedGraphs, SceneGraph, edit_distance, edit_distances, sample_clevr_graphs
from zoo.truth.reference import authors_distance, exact_distance, mapping_cost, node_costs

KINDS = ((), (0,), (0, 1))


def sets_of_graphs(seed, count, sizes, **kind):
    rng = np.random.default_rng(seed)
    return [random_graph(rng, int(rng.integers(*sizes)), **kind) for _ in range(count)]


@pytest.mark.parametrize(
    ("method", "soft", "hard"), [("exact", 1.5, 2.0), ("bipartite", 1.5, 2.0), ("authors", 2.0, 3.0)]
)
def test_worked_example_of_the_paper(example, method, soft, hard):
    assert edit_distance(*example, nodes="soft", method=method) == soft
    assert edit_distance(*example, nodes="hard", method=method) == hard


@pytest.mark.parametrize("nodes", ["soft", "hard"])
@pytest.mark.parametrize("antisymmetric", KINDS)
def test_exact_equals_brute_force(nodes, antisymmetric):
    kind = {"antisymmetric": antisymmetric, "values": 2, "attributes": 3}
    queries, gallery = sets_of_graphs(1, 12, (0, 5), **kind), sets_of_graphs(2, 12, (0, 5), **kind)
    expected = [[exact_distance(a, b, nodes) for b in gallery] for a in queries]
    np.testing.assert_allclose(edit_distances(queries, gallery, nodes, "exact"), expected, rtol=1e-6)


@pytest.mark.parametrize("nodes", ["soft", "hard"])
def test_exact_equals_the_best_permutation_of_six_nodes(nodes):
    for antisymmetric, density in (((), 0.4), ((0, 1), 1.0)):
        kind = {"antisymmetric": antisymmetric, "density": density, "values": 3}
        a, b = sets_of_graphs(3, 2, (6, 7), **kind)
        maps = (dict(enumerate(order)) for order in permutations(range(6)))
        best = min(mapping_cost(a, b, mapping, nodes) for mapping in maps)
        assert edit_distance(a, b, nodes, "exact") == pytest.approx(best)


def as_networkx(graph):
    """One directed edge per ordered pair with its relations; an antisymmetric one is a + there and a - back."""
    result = nx.DiGraph()
    result.add_nodes_from((i, {"attributes": tuple(row)}) for i, row in enumerate(graph.attributes.tolist()))
    for source, target, relation in graph.edges.tolist():
        ends = [(source, target, "+")]
        if relation in graph.antisymmetric:
            ends.append((target, source, "-"))
        for i, j, sign in ends:
            known = result.edges[i, j]["labels"] if result.has_edge(i, j) else frozenset()
            result.add_edge(i, j, labels=known | {(relation, sign)})
    return result


def networkx_distance(a, b, nodes):
    half = set(a.antisymmetric)

    def node_cost(p, q):
        differ = np.not_equal(p["attributes"], q["attributes"])
        return differ.mean() if nodes == "soft" else float(differ.any())

    def edge_cost(p, q=frozenset()):
        changed = {relation for relation, _ in p ^ q if relation in half}
        return len(changed) / 2 + sum(relation not in half for relation, _ in p ^ q)

    return nx.graph_edit_distance(
        as_networkx(a),
        as_networkx(b),
        node_subst_cost=node_cost,
        node_del_cost=lambda _: 1,
        node_ins_cost=lambda _: 1,
        edge_subst_cost=lambda p, q: edge_cost(p["labels"], q["labels"]),
        edge_del_cost=lambda p: edge_cost(p["labels"]),
        edge_ins_cost=lambda p: edge_cost(p["labels"]),
    )


@pytest.mark.parametrize("nodes", ["soft", "hard"])
@pytest.mark.parametrize("antisymmetric", KINDS)
def test_exact_equals_networkx(nodes, antisymmetric):
    kind = {"antisymmetric": antisymmetric, "density": 0.35, "values": 2}
    graphs = sets_of_graphs(5, 12, (1, 5), **kind)
    for a, b in zip(graphs[::2], graphs[1::2], strict=True):
        assert edit_distance(a, b, nodes, "exact") == pytest.approx(networkx_distance(a, b, nodes))


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(0, 7), st.integers(0, 7), st.integers(1, 3), st.sampled_from(KINDS))
def test_bipartite_and_exact_properties(seed, n, m, values, antisymmetric):
    rng = np.random.default_rng(seed)
    kind = {"values": values, "antisymmetric": antisymmetric, "attributes": 2}
    a, b = random_graph(rng, n, **kind), random_graph(rng, m, **kind)
    for nodes in ("soft", "hard"):
        found = edit_distance(a, b, nodes)
        exact = edit_distance(a, b, nodes, "exact")
        for method, value in (("bipartite", found), ("exact", exact)):
            assert edit_distance(b, a, nodes, method) == value
            assert edit_distance(shuffled(a, rng), shuffled(b, rng), nodes, method) == value
            assert edit_distance(a, shuffled(a, rng), nodes, method) == 0
        assert found >= exact
        assert found >= abs(n - m)


@pytest.mark.parametrize("nodes", ["soft", "hard"])
@pytest.mark.parametrize(("count", "sizes", "values"), [(40, (2, 5), 2), (4, (5, 7), 1)])
def test_bipartite_is_the_cost_of_some_optimal_node_assignment(nodes, count, sizes, values):
    graphs = sets_of_graphs(7, count, sizes, values=values, attributes=2, antisymmetric=(1,))
    for a, b in zip(graphs[::2], graphs[1::2], strict=True):
        a, b = sorted((a, b), key=len)
        table, maps = node_costs(a, b, nodes), list(permutations(range(len(b)), len(a)))
        sums = [sum(table[i, k] for i, k in enumerate(images)) for images in maps]
        optimal = [maps[place] for place in np.flatnonzero(np.isclose(sums, min(sums)))]
        induced = [mapping_cost(a, b, dict(enumerate(images)), nodes) for images in optimal]
        assert np.isclose(edit_distance(a, b, nodes), induced).any()


def test_bipartite_prefers_structure_among_equal_nodes():
    # all nodes alike: only the edges tell the end of a chain from its middle
    chain = SceneGraph([[0]] * 4, [(0, 1, 0), (1, 2, 0), (2, 3, 0)])
    longer = SceneGraph([[0]] * 5, [(2, 1, 0), (1, 4, 0), (4, 0, 0), (0, 3, 0)])
    assert edit_distance(chain, longer, method="exact") == 2
    assert edit_distance(chain, longer) <= 4


def cycles(*lengths):
    edges, first = [], 0
    for length in lengths:
        edges += [(first + i, first + (i + step) % length, 0) for i in range(length) for step in (1, -1)]
        first += length
    return SceneGraph(np.zeros((first, 1), int), edges)


def test_bipartite_tells_symmetric_graphs_apart(rng):
    # colour refinement alone cannot tell one cycle of six from two of three
    hexagon, triangles = cycles(6), cycles(3, 3)
    assert edit_distance(triangles, shuffled(triangles, rng)) == 0
    assert edit_distance(hexagon, triangles) >= edit_distance(hexagon, triangles, method="exact") > 0
    squares = cycles(*[4] * 7)
    assert edit_distance(squares, shuffled(squares, rng)) == 0
    empty = SceneGraph(np.zeros((28, 1), int), [])
    assert edit_distance(empty, shuffled(empty, rng)) == 0


@pytest.mark.parametrize("nodes", ["soft", "hard"])
@pytest.mark.parametrize("attributes", [1, 3, 4])
def test_authors_equals_scipy_pair_by_pair(nodes, attributes):
    kind = {"values": 3, "attributes": attributes, "antisymmetric": (0,)}
    queries, gallery = sets_of_graphs(8, 25, (0, 11), **kind), sets_of_graphs(9, 25, (0, 11), **kind)
    expected = [[authors_distance(a, b, nodes) for b in gallery] for a in queries]
    np.testing.assert_allclose(edit_distances(queries, gallery, nodes, "authors"), expected, rtol=1e-6)


@pytest.mark.parametrize("nodes", ["soft", "hard"])
def test_authors_equals_scipy_on_graphs_of_clevr(nodes, all_clevr_graphs, rng):
    """Every real graph as a query against some others, and sampled graphs against them."""
    sampled = sample_clevr_graphs(40, seed=5)
    for queries, gallery in ((all_clevr_graphs, all_clevr_graphs), (sampled, all_clevr_graphs)):
        chosen = rng.integers(0, len(gallery), len(queries))
        found = edit_distances(queries, gallery[np.unique(chosen)], nodes, "authors")
        places = np.searchsorted(np.unique(chosen), chosen)
        for query, (item, place) in enumerate(zip(chosen.tolist(), places.tolist(), strict=True)):
            expected = authors_distance(queries[query], gallery[item], nodes)
            assert found[query, place] == pytest.approx(expected, rel=1e-6)


def test_authors_depends_on_object_order(rng):
    a, b = sets_of_graphs(10, 2, (6, 7), values=1, antisymmetric=(0, 1))
    assert len({edit_distance(shuffled(a, rng), b, method="authors") for _ in range(20)}) > 1


def test_authors_counts_nodes_once_per_relation():
    a, b = SceneGraph([[0, 0]], [], relations=2), SceneGraph([[0, 1]], [], relations=2)
    assert edit_distance(a, b, method="authors") == 1.0
    assert edit_distance(a, b, method="exact") == 0.5


def test_assignment_equals_scipy_with_ties_and_without():
    from zoo.truth.kernels import assign

    rng = np.random.default_rng(11)
    work, image = np.empty((6, 64), np.int64), np.empty(64, np.int64)
    for _ in range(6_000):
        rows, extra = rng.integers(1, 13), rng.integers(0, 6)
        cost = rng.integers(0, rng.choice([1, 2, 3, 6, 10**6]), (rows, rows + extra), endpoint=True)
        assign(cost, rows, rows + extra, image, work)
        assert np.array_equal(image[:rows], linear_sum_assignment(cost)[1])


def test_real_scenes(clevr_graphs, rng):
    some = clevr_graphs[:40]
    exact = edit_distances(some, some, method="exact")
    found = edit_distances(some, some)
    authors = edit_distances(some, some, method="authors")
    assert np.all(found >= exact)
    assert np.all(np.diag(found) == 0)
    assert np.array_equal(found, found.T)
    assert np.array_equal(edit_distances([shuffled(graph, rng) for graph in some], some), found)
    for i, j in rng.integers(0, 40, (60, 2)):
        assert authors[i, j] == authors_distance(some[i], some[j])


def test_a_batch_equals_its_pairs_whatever_else_it_holds(rng):
    few = [random_graph(rng, 4, relations=1, values=1) for _ in range(3)]
    more = [random_graph(rng, 5, relations=3, values=1) for _ in range(3)]
    together = edit_distances(few + more, few + more)
    assert np.array_equal(together[:3, :3], edit_distances(few, few))
    assert np.array_equal(together[3:, :3], edit_distances(PackedGraphs.from_graphs(more), few))


def test_refused_arguments(rng):
    a, large = random_graph(rng, 3), random_graph(rng, 11)
    a_open = SceneGraph(np.full_like(a.attributes, -1), a.edges, relations=2)
    cases = [
        ((a, a, "softer"), "nodes must be one of soft, hard, got 'softer'"),
        ((a, a, "soft", "greedy"), "method must be one of bipartite, authors, exact, part, got 'greedy'"),
        ((a, random_graph(rng, 3, attributes=2)), "same attributes per node, got A=4, 2"),
        ((a, random_graph(rng, 3, antisymmetric=(1,))), r"agree on antisymmetric relations, got \(\) and \(1,\)"),
        (
            (a, large, "soft", "exact"),
            "'exact' takes at most max_nodes=10 nodes per graph, got 11.* method 'bipartite'",
        ),
        ((large, a, "soft", "part"), "'part' takes at most max_nodes=10 nodes per query, got 11"),
        ((a_open, a), "queries must have attributes of at least 0, got -1, method 'bipartite'"),
        ((a_open, a, "soft", "exact"), "queries must have attributes of at least 0, got -1, method 'exact'"),
        ((a, a_open, "soft", "part"), "gallery must have attributes of at least 0, got -1"),
        ((a, random_graph(rng, 65)), "queries|gallery: graphs must have at most 64 nodes"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            edit_distance(*arguments)
    assert edit_distance(large, shuffled(large, rng), method="exact", max_nodes=11) == 0
    with pytest.raises(ValueError, match="queries: graphs must hold at least one"):
        edit_distances([], [a])
