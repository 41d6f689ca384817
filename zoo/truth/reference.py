"""Plain edit distances of one pair, as the definitions read: what tests and benchmarks compare the kernels with."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np

from zoo.truth.graphs import SceneGraph


def node_costs(a: SceneGraph, b: SceneGraph, nodes: str) -> np.ndarray:
    """Substitution cost of every pair of nodes, (O_a, O_b): share of attributes that differ, or whether any does."""
    differ = a.attributes[:, None, :] != b.attributes[None, :, :]
    return differ.mean(axis=2) if nodes == "soft" else differ.any(axis=2).astype(float)


def mapping_cost(a: SceneGraph, b: SceneGraph, mapping: dict[int, int], nodes: str) -> float:
    """Cost of the edit that maps nodes of a to nodes of b, deletes a's other nodes and inserts b's."""
    table = node_costs(a, b, nodes)
    total = sum(table[i, k] for i, k in mapping.items()) + len(a) + len(b) - 2 * len(mapping)
    wanted = {tuple(edge) for edge in b.edges.tolist()}
    kept = set()
    for source, target, relation in a.edges.tolist():
        image = (mapping.get(source), mapping.get(target), relation)
        reverse = (image[1], image[0], relation)
        if image in wanted:
            kept.add(image)
        elif relation in a.antisymmetric and reverse in wanted:
            kept.add(reverse)
            total += 1
        else:
            total += 1
    return float(total + len(wanted - kept))


def exact_distance(a: SceneGraph, b: SceneGraph, nodes: str = "soft") -> float:
    """Least cost over every partial map of a's nodes to b's; for graphs of about four nodes."""
    best = np.inf
    for size in range(min(len(a), len(b)) + 1):
        for sources in combinations(range(len(a)), size):
            for targets in permutations(range(len(b)), size):
                best = min(best, mapping_cost(a, b, dict(zip(sources, targets, strict=True)), nodes))
    return best


def authors_distance(a: SceneGraph, b: SceneGraph, nodes: str = "soft") -> float:
    """Distance of the public code: SciPy's assignment on the square matrix, per relation, plus inverted edges.

    Costs are integers (multiplied by the number of attributes), so that rounding decides no tie.
    """
    from scipy.optimize import linear_sum_assignment

    unit = a.attributes.shape[1] if nodes == "soft" else 1
    n, m = len(a), len(b)
    matrix = np.zeros((n + m, n + m))
    matrix[:n, :m] = np.rint(node_costs(a, b, nodes) * unit)
    matrix[:n, m:] = np.where(np.eye(n, dtype=bool), unit, 5 * unit)
    matrix[n:, :m] = np.where(np.eye(m, dtype=bool), unit, 5 * unit)
    total = 0.0
    for relation in range(max(a.relations, b.relations)):
        rows, columns = linear_sum_assignment(matrix)
        image = {i: k for i, k in zip(rows.tolist(), columns.tolist(), strict=True) if i < n and k < m}
        total += matrix[rows, columns].sum() / unit
        present = {(source, target) for source, target, kind in b.edges.tolist() if kind == relation}
        for source, target, kind in a.edges.tolist():
            if kind == relation and source in image and target in image:
                forward = image[source], image[target]
                total += forward not in present and forward[::-1] in present
    return total
