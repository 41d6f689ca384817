"""Scene graphs with words: what attributes and relations are called, and sets of named scenes."""

from __future__ import annotations

import difflib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from zoo.truth.graphs import MAX_NODES, MAX_RELATIONS, PackedGraphs
from zoo.truth.scenes import CLEVR_VOCABULARY, related

ANY = -1  # an attribute that a query leaves open
# A relation is stored under one of its two names; the one that has an opposite is antisymmetric.
OPPOSITES = {"left": "right", "behind": "front", "above": "below", "contains": "inside"}
SYMMETRIC = frozenset({"overlap"})
SCENE_KEYS = ("name", "objects", "relations")


@dataclass(frozen=True)
class SceneVocabulary:
    """What the numbers of scene graphs stand for.

    attributes: name → words, in the order of the graphs' columns. relations: names in the order of their ids; an edge
    i→j of a relation reads "j is `relation` of i".
    """

    attributes: Mapping[str, tuple[str, ...]]
    relations: tuple[str, ...]

    @property
    def antisymmetric(self) -> tuple[int, ...]:
        """Ids of the relations that have an opposite."""
        return tuple(number for number, word in enumerate(self.relations) if word in OPPOSITES.values())

    def describe(self, attributes: Sequence[int]) -> str:
        """Name an object by its attributes, those left open skipped: "large green metal cube"."""
        words = {
            name: known[value]
            for (name, known), value in zip(self.attributes.items(), attributes, strict=True)
            if value != ANY
        }
        first = [words.pop(name) for name in ("size", "color", "material") if name in words]
        return " ".join([*first, *words.values()]) or "object"


CLEVR_WORDS = SceneVocabulary(CLEVR_VOCABULARY, ("right", "front"))


@dataclass(frozen=True, eq=False)
class SceneSet:
    """G named scenes: names, graphs (G), what their numbers mean, and what was left out, in words."""

    names: tuple[str, ...]
    graphs: PackedGraphs
    vocabulary: SceneVocabulary
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of scenes."""
        return len(self.names)


class SceneEncoder:
    """Turns scenes as JSON gives them into packed graphs, one at a time.

    vocabulary: the words that may occur; None collects them, in the order in which they appear. partial: objects may
    leave attributes out, which become `ANY`; only with a vocabulary.
    """

    def __init__(self, vocabulary: SceneVocabulary | None, partial: bool = False) -> None:
        self._grows, self._partial = vocabulary is None, partial
        known = vocabulary or SceneVocabulary({}, ())
        self._attributes = {name: {word: i for i, word in enumerate(words)} for name, words in known.attributes.items()}
        self._relations = {word: number for number, word in enumerate(known.relations)}
        self._sizes, self._values, self._masks = array("q"), array("q"), array("Q")
        self._names: dict[str, None] = {}

    def add(self, scene: dict[str, Any]) -> None:
        """Take up a scene of CLEVR's form, with the key "relationships", or of our own; `read_scenes` describes them.

        Raises ValueError for what breaks the form, and for words that the vocabulary lacks, with the nearest one.
        """
        clevr = "relationships" in scene
        objects = scene.get("objects")
        if not isinstance(objects, list) or not all(isinstance(item, dict) for item in objects):
            raise ValueError('must have a list "objects" of objects with attributes')
        if len(objects) > MAX_NODES:
            raise ValueError(f"must have at most {MAX_NODES} objects, got {len(objects)}")
        if not clevr:
            _check_keys("a scene", scene, SCENE_KEYS)
        elif self._grows:
            raise ValueError('has "relationships", as CLEVR\'s scenes have, and those before it have not')
        name = self._name(scene)
        rows = [self._row(number, item, strict=not clevr) for number, item in enumerate(objects)]
        masks = [[0] * MAX_RELATIONS for _ in objects]
        if clevr:
            self._relate_lists(scene["relationships"], masks)
        else:
            self._relate_triples(scene.get("relations", []), objects, masks)
        self._check_turned(masks)
        self._names[name] = None
        self._sizes.append(len(objects))
        self._values.extend(value for row in rows for value in row)
        self._masks.extend(mask for row in masks for mask in row)

    def scene_set(self, notes: tuple[str, ...] = ()) -> SceneSet:
        """Return all scenes taken up so far."""
        words = SceneVocabulary(
            {name: tuple(words) for name, words in self._attributes.items()}, tuple(self._relations)
        )
        offsets = np.concatenate([[0], np.cumsum(np.array(self._sizes, np.int64))])
        attributes = np.array(self._values, np.int64).reshape(-1, max(1, len(words.attributes)))
        masks = np.array(self._masks, np.uint64).reshape(-1, MAX_RELATIONS)[:, : len(words.relations)]
        return SceneSet(tuple(self._names), PackedGraphs(offsets, attributes, masks, words.antisymmetric), words, notes)

    def _name(self, scene: dict[str, Any]) -> str:
        name = scene.get("name", scene.get("image_filename", f"scene_{len(self._names)}"))
        if not isinstance(name, str) or not name:
            raise ValueError(f"its name must be a word, got {name!r}")
        if "name" not in scene:
            name = str(PurePath(name).with_suffix(""))
        if name in self._names:
            raise ValueError(f"names must be unique, got {name!r} twice")
        return name

    def _row(self, number: int, item: dict[str, Any], strict: bool) -> list[int]:
        given = {key: word for key, word in item.items() if key != "id"}
        if self._grows and not self._attributes:
            if not given:
                raise ValueError("object 0 must have attributes")
            self._attributes = {key: {} for key in given}
        if strict:
            _check_keys(f"object {number}", given, self._attributes)
        return [self._value(number, name, words, given) for name, words in self._attributes.items()]

    def _value(self, number: int, name: str, words: dict[str, int], given: dict[str, Any]) -> int:
        if name not in given:
            if self._partial:
                return ANY
            raise ValueError(f"object {number} must have {name!r}; only a query of method 'part' may leave it open")
        word = given[name]
        if not isinstance(word, str):
            raise ValueError(f"object {number}: {name} must be a word, got {word!r}")
        if self._grows:
            return words.setdefault(word, len(words))
        if word not in words:
            raise ValueError(f"object {number}: {name} {_unknown(word, words)}")
        return words[word]

    def _edge(self, subject: int, word: Any, other: int) -> tuple[int, int, int]:
        """Source, target and relation of "subject is `word` of other"."""
        if not isinstance(word, str) or not word:
            raise ValueError(f"a relation must be named by a word, got {word!r}")
        kept = OPPOSITES.get(word, word)
        if self._grows and kept not in self._relations:
            if len(self._relations) == MAX_RELATIONS:
                raise ValueError(
                    f"relation {word!r} is one too many: a file may have at most {MAX_RELATIONS} relations"
                )
            self._relations[kept] = len(self._relations)
        if kept not in self._relations:
            known = [*self._relations, *(word for word, other in OPPOSITES.items() if other in self._relations)]
            raise ValueError(f"relation {_unknown(word, known)}")
        source, target = (other, subject) if kept == word else (subject, other)
        return source, target, self._relations[kept]

    def _relate_triples(self, triples: Any, objects: list[dict[str, Any]], masks: list[list[int]]) -> None:
        for number, item in enumerate(objects):
            if type(item.get("id", 0)) not in (int, str):
                raise ValueError(f"object {number}: its id must be a word or a whole number, got {item['id']!r}")
        places: dict[Any, int] = {item["id"]: place for place, item in enumerate(objects) if "id" in item}
        if len(places) < sum("id" in item for item in objects):
            raise ValueError("objects must have different ids")
        for triple in triples if isinstance(triples, list) else [triples]:
            if not isinstance(triple, list) or len(triple) != 3:
                raise ValueError(f'a relation must read [object, "right", object], got {str(triple)[:60]}')
            subject, other = (_place(end, places, len(objects)) for end in (triple[0], triple[2]))
            if subject == other:
                raise ValueError(f"a relation must join two objects, got {triple}")
            source, target, relation = self._edge(subject, triple[1], other)
            masks[source][relation] |= 1 << target
            if triple[1] in SYMMETRIC:
                masks[target][relation] |= 1 << source

    def _relate_lists(self, lists: Any, masks: list[list[int]]) -> None:
        """Take CLEVR's lists, in which lists["right"][i] names all objects right of i; left and behind may stand in."""
        if not isinstance(lists, dict):
            raise ValueError('"relationships" must hold a list for each relation')
        relations = list(self._relations)
        for word in dict.fromkeys([*relations, *lists]):
            kept = OPPOSITES.get(word, word)
            if kept not in relations:
                raise ValueError(f"relation {_unknown(word, [*relations, *OPPOSITES])}")
            self._relate_list(word, lists, masks)

    def _relate_list(self, word: str, lists: dict[str, Any], masks: list[list[int]]) -> None:
        kept = OPPOSITES.get(word, word)
        opposite = next((other for other, name in OPPOSITES.items() if name == kept), kept)
        if word not in lists:
            if opposite not in lists:
                raise ValueError(f'"relationships" must have {kept!r} or {opposite!r}, got {sorted(lists)}')
            return
        edges = self._list_edges(word, lists[word], len(masks))
        if word != kept and kept in lists:
            if edges != self._list_edges(kept, lists[kept], len(masks)):
                raise ValueError(f"relationships {kept!r} and {word!r} contradict each other")
            return
        for source, target, relation in edges:
            masks[source][relation] |= 1 << target

    def _list_edges(self, word: str, rows: Any, nodes: int) -> set[tuple[int, int, int]]:
        return {self._edge(subject, word, place) for place, subject in related(word, rows, nodes)}

    def _check_turned(self, masks: list[list[int]]) -> None:
        for word, relation in self._relations.items():
            if word not in OPPOSITES.values():
                continue
            for i, row in enumerate(masks):
                for j in range(i):
                    if row[relation] >> j & 1 and masks[j][relation] >> i & 1:
                        raise ValueError(f"objects {j} and {i} can't each be {word!r} of the other")


def _place(end: Any, places: Mapping[Any, int], nodes: int) -> int:
    if not places and type(end) is int and 0 <= end < nodes:
        return end
    if type(end) not in (int, str) or end not in places:
        known = f"ids {', '.join(map(str, places))}" if places else f"places 0…{nodes - 1}"
        raise ValueError(f"a relation must name objects by {known}, got {end!r}")
    return places[end]


def _check_keys(owner: str, given: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    for key in given:
        if key not in known:
            raise ValueError(f"{owner} has the key {_unknown(key, known)}")


def _unknown(word: Any, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    listed = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
    return f"{word!r}, which isn't one of {listed}." + (f" Did you mean {near[0]!r}?" if near else "")
