"""What an edit distance is made of: which objects correspond, and what differs, in words."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.truth.graphs import PackedGraphs, SceneGraph
from zoo.truth.scene_words import ANY, SceneVocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence


def edit_map(query: SceneGraph, item: SceneGraph, nodes: str, method: str) -> dict[int, int]:
    """Find the node map behind an edit distance: nodes of the query → nodes of the item; the rest is lost or new.

    Arguments as in `edit_distance`, which checks them.
    """
    from zoo.truth import pairs

    sides = PackedGraphs.from_graphs([query]), PackedGraphs.from_graphs([item])
    (own, theirs), orders = pairs.ready(*sides, method)
    costs = pairs.edit_costs(sides[0], own, nodes, method)
    finders = {"exact": _exact_map, "bipartite": _bipartite_map, "authors": _authors_map, "part": _exact_map}
    found = finders[method](own, theirs, costs)
    return {int(orders[0][i]): int(orders[1][k]) for i, k in sorted(found.items())}


def _table(own: Any, theirs: Any, costs: Any) -> np.ndarray:
    from zoo.truth.kernels import substitutions

    table = np.empty((64, len(theirs.tuples)), np.int64)
    substitutions(own, 0, theirs, costs, table)
    return table


def _turned(image: np.ndarray, n: int, turn: bool) -> dict[int, int]:
    pairs = [(i, int(image[i])) for i in range(n)]
    return {k: i for i, k in pairs} if turn else dict(pairs)


def _bipartite_map(own: Any, theirs: Any, costs: Any) -> dict[int, int]:
    from zoo.truth import kernels

    n, m = own.offsets[1], theirs.offsets[1]
    if own.ranks[0] == theirs.ranks[0]:
        return {i: i for i in range(n)}
    turn = bool(own.ranks[0] > theirs.ranks[0])
    sub, matching = np.empty((64, 64), np.int64), kernels.open_matching()
    kernels.pair_costs(own, 0, theirs, 0, _table(own, theirs, costs), turn, sub)
    small, large = (theirs, own) if turn else (own, theirs)
    kernels.bipartite_pair(small, 0, large, 0, sub, costs, matching)
    return _turned(matching.image, min(n, m), turn)


def _exact_map(own: Any, theirs: Any, costs: Any) -> dict[int, int]:
    from zoo.truth import exact, kernels

    n, m = own.offsets[1], theirs.offsets[1]
    size, turn, going = max(n, m, 1), bool(n > m), np.zeros(1, np.int64)
    sub, square, none = np.empty((size, size), np.int64), np.empty((size, size), np.int64), 2 * costs.relations
    kernels.pair_costs(own, 0, theirs, 0, _table(own, theirs, costs), turn, sub)
    image, work = np.empty(size, np.int64), np.empty((6, size), np.int64)
    small, large = (theirs, own) if turn else (own, theirs)
    search, rules = exact.open_search(size, costs.relations), exact.rules_of(costs, turn)
    unmatched = np.zeros(none, np.int64)
    exact.exact_pair(small, 0, large, 0, sub, costs, rules, search, unmatched, square, image, work, going)
    return _turned(image, min(n, m), turn)


def _authors_map(own: Any, theirs: Any, costs: Any) -> dict[int, int]:
    from zoo.truth import kernels

    n, m = int(own.offsets[1]), int(theirs.offsets[1])
    cost, work, image = np.empty((128, 128), np.int64), np.empty((6, 128), np.int64), np.empty(128, np.int64)
    kernels.pair_costs(own, 0, theirs, 0, _table(own, theirs, costs), False, cost)
    kernels.pad_square(cost, n, m, costs.unit)
    kernels.assign(cost, n + m, n + m, image, work)
    return {i: int(image[i]) for i in range(n) if image[i] < m}


@dataclass(frozen=True)
class Edits:
    """What turns a query into an item, in words.

    alike: objects that stay. changed: pairs of before and after. lost and added: objects. turned: relations whose
    opposite holds. missing and new: relations, where both objects stay.
    """

    alike: int
    changed: tuple[tuple[str, str], ...]
    lost: tuple[str, ...]
    added: tuple[str, ...]
    turned: tuple[str, ...]
    missing: tuple[str, ...]
    new: tuple[str, ...]

    def text(self) -> str:
        """One line; what occurs several times is counted."""
        parts = [f"{self.alike} alike"]
        parts += [f"{name}: {_counted(words)}" for name, words in self._lists() if words]
        return "; ".join(parts)

    def record(self) -> dict[str, Any]:
        """The same as plain values for JSON."""
        return {"alike": self.alike, "changed": [list(pair) for pair in self.changed]} | {
            name: list(words) for name, words in self._lists() if name != "changed"
        }

    def _lists(self) -> list[tuple[str, Sequence[str]]]:
        changed = [f"{before} → {after}" for before, after in self.changed]
        return [
            ("changed", changed),
            ("lost", self.lost),
            ("added", self.added),
            ("turned", self.turned),
            ("missing", self.missing),
            ("new", self.new),
        ]


def edits(
    query: SceneGraph, item: SceneGraph, mapping: dict[int, int], vocabulary: SceneVocabulary, method: str
) -> Edits:
    """Say what differs under a node map, as far as it costs in `method` ("part": nothing that the item has beyond)."""
    whole, any_edge = method != "part", method != "authors"
    changed, alike = [], 0
    for i, k in mapping.items():
        own, theirs = query.attributes[i], item.attributes[k]
        if ((own != theirs) & ((own != ANY) | whole)).any():
            changed.append((vocabulary.describe(own), vocabulary.describe(theirs)))
        else:
            alike += 1
    relations = _relations(query, item, mapping, vocabulary)
    image = set(mapping.values())
    return Edits(
        alike,
        tuple(changed),
        tuple(vocabulary.describe(row) for i, row in enumerate(query.attributes) if i not in mapping),
        tuple(vocabulary.describe(row) for k, row in enumerate(item.attributes) if k not in image) if whole else (),
        tuple(relations["turned"]),
        tuple(relations["missing"]) if any_edge else (),
        tuple(relations["new"]) if whole and any_edge else (),
    )


def _relations(
    query: SceneGraph, item: SceneGraph, mapping: dict[int, int], vocabulary: SceneVocabulary
) -> dict[str, list[str]]:
    """Relations between objects that stay which are turned, missing or new, in the item's words."""
    there = {tuple(edge) for edge in item.edges.tolist()}
    found: dict[str, list[str]] = {"turned": [], "missing": [], "new": []}
    kept = set()
    for source, target, relation in query.edges.tolist():
        if source not in mapping or target not in mapping:
            continue
        forward, back = (mapping[source], mapping[target], relation), (mapping[target], mapping[source], relation)
        single = relation in query.antisymmetric
        if forward in there:
            kept.add(forward)
        elif single and back in there:
            kept.add(back)
            found["turned"].append(_said(item, back, vocabulary))
        else:
            found["missing"].append(_said(item, forward, vocabulary))
    image = set(mapping.values())
    new = [edge for edge in sorted(there - kept) if edge[0] in image and edge[1] in image]
    found["new"] = [_said(item, edge, vocabulary) for edge in new]
    return found


def _said(graph: SceneGraph, edge: tuple[int, int, int], vocabulary: SceneVocabulary) -> str:
    source, target, relation = edge
    first, second = vocabulary.describe(graph.attributes[target]), vocabulary.describe(graph.attributes[source])
    word = vocabulary.relations[relation]
    joined = {"right": "right of", "front": "in front of", "overlap": "overlapping"}.get(word, word)
    return f"{first} {joined} {second}"


def _counted(words: Sequence[str], most: int = 4) -> str:
    counts = Counter(words)
    shown = [word if count == 1 else f"{count} × {word}" for word, count in list(counts.items())[:most]]
    rest = sum(list(counts.values())[most:])
    return ", ".join([*shown, f"{rest} more"] if rest else shown)
