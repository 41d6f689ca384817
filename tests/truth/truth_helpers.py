from __future__ import annotations

import numpy as np

from zoo.truth import SceneGraph


def random_graph(rng, nodes, attributes=4, values=2, relations=2, antisymmetric=(), density=0.5):
    """A graph with independent edges; an antisymmetric relation keeps at most one direction of a pair."""
    edges = []
    for relation in range(relations):
        for i in range(nodes):
            for j in range(nodes):
                taken = relation in antisymmetric and (j, i, relation) in edges
                if i != j and not taken and rng.random() < density:
                    edges.append((i, j, relation))
    table = rng.integers(0, values, (nodes, attributes))
    return SceneGraph(table, edges, antisymmetric, relations)


def shuffled(graph, rng):
    """The same graph with its nodes and edges in another order."""
    order = rng.permutation(len(graph))
    place = np.argsort(order)
    edges = graph.edges.copy()
    edges[:, :2] = place[edges[:, :2]]
    return SceneGraph(graph.attributes[order], rng.permutation(edges), graph.antisymmetric, graph.relations)
