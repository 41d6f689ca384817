"""Every registered benchmark keeps the contract, and one that breaks a clause of it is told which."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from data_trees import TREES, pictures

import zoo
from zoo import registry
from zoo.evaluation.benchmarks.instances import Instances
from zoo.evaluation.report import Cell
from zoo.testing import check_benchmark

NAMES = [f"{label}/{number}" for label in "abc" for number in range(3)]


def photos(root, batch_size=4):
    pictures(root / "photos", NAMES, "png")
    return zoo.create("data", "folder", root=str(root / "photos"), image_size=16, batch_size=batch_size)


def written(root, content):
    (root / "truth.json").write_text(json.dumps(content))
    return str(root / "truth.json")


def published(name, **changed):
    """Returns the data of a published set in a small tree, and what its benchmark is built with."""
    return lambda root: (zoo.create("data", name, **{**TREES[name](root), "batch_size": 2}), changed)


def lists(root):
    return photos(root), {"ground_truth": written(root, {"a/0": ["a/1", "b/1"], "b/0": ["c/2"]})}


def graded(root):
    return photos(root), {"ground_truth": written(root, {"a/0": {"a/1": 2, "b/1": 1}, "b/0": {"c/2": 3}})}


def coco_captions(root):
    words = ("red car", "blue sky", "red sky", "old house")
    lines = [f"{name},{words[place % 4]}" for place, name in enumerate(NAMES)]
    (root / "captions.csv").write_text("\n".join(["id,caption", *lines]))
    data, parameters = graded(root)
    return data, {**parameters, "captions": str(root / "captions.csv"), "texts": str(root / "captions.csv")}


def shuffled(root):
    data = photos(root)
    pictures(root / "photos" / "made", ["x", "y"], "png")
    truth = {"a/0": {"relevant": ["a/1", "a/2"]}, "b/0": {"relevant": ["b/1"]}}
    return data, {"ground_truth": written(root, truth), "distractors": str(root / "photos" / "made")}


def msls_leaderboard(root):
    data = zoo.create("data", "street_level", **TREES["street_level"](root))
    return data, {"root": str(root), "cities": ["b"]}


CASES = {
    "coco_captions": coco_captions,
    "graded": graded,
    "holidays": published("holidays"),
    "instances": lambda root: (photos(root), {}),
    "instre": published("instre"),
    "lists": lists,
    "msls": published("street_level"),
    "msls_leaderboard": msls_leaderboard,
    "oxford": published("paris"),
    "oxford_leave_one_out": published("paris"),
    "relational": published("sort_of_clevr", queries=5),
    "revisited": published("revisited"),
    "segmentation": published("label_maps"),
    "shuffled": shuffled,
}


def test_there_is_a_case_for_every_benchmark():
    assert sorted(CASES) == list(registry.entries("benchmark"))


@pytest.mark.parametrize("name", registry.entries("benchmark"))
def test_every_benchmark_keeps_the_contract(name, tmp_path):
    data, parameters = CASES[name](tmp_path)
    check_benchmark(name, tmp_path / "out", data=data, **parameters)


def test_a_plugins_benchmark_is_held_to_it_too(plugins, tmp_path):
    pictures(tmp_path / "photos", [f"{shelf}-{number}" for shelf in "ab" for number in range(3)])
    data = zoo.create("data", "acme_photos", root=str(tmp_path / "photos"), batch_size=4)
    check_benchmark("acme_shelves", tmp_path / "out", data=data)


class Grown(Instances):
    """Gives a model of its own another protocol."""

    def score(self, collected, data, shown, shard):
        report = super().score(collected, data, shown, shard)
        odd = str(collected["gallery"].vectors["vector"].sum().item())
        return replace(report, fingerprint={**report.fingerprint, "hash": odd})


class Lucky(Instances):
    def score(self, collected, data, shown, shard):
        for part in collected.values():
            part.vectors["vector"] += 9 * torch.randn(part.vectors["vector"].shape, generator=GENERATOR)
        return super().score(collected, data, shown, shard)


GENERATOR = torch.Generator().manual_seed(0)


class Halved(Instances):
    """Counts on one process alone what was seen there."""

    def cells(self, lists, device):
        found = super().cells(lists, device)
        if torch.distributed.is_initialized():
            return {
                name: Cell(cell.mean / 2, 0, [value / 2 for value in cell.per_query]) for name, cell in found.items()
            }
        return found


class Averaged(Instances):
    def cells(self, lists, device):
        return {name: Cell(1.5, 0, cell.per_query) for name, cell in super().cells(lists, device).items()}


class Fewer(Instances):
    def cells(self, lists, device):
        return {name: Cell(0.5, 0, [0.5]) for name in super().cells(lists, device)}


class Content(Instances):
    """Judges what there is."""

    def check_all_embedded(self, collected):
        rows = collected["gallery"].vectors["vector"]
        whole = torch.zeros(len(self.gallery_ids), rows.shape[1])
        whole[: len(rows)] = rows
        collected["gallery"].vectors["vector"] = collected["query"].vectors["vector"] = whole


class Backwards(Instances):
    def rankings_of(self, lists, descriptor, score=""):
        found = super().rankings_of(lists, descriptor, score)
        return replace(found, queries=[replace(query, ranked=query.ranked[::-1]) for query in found.queries])


class Strange(Instances):
    def rankings_of(self, lists, descriptor, score=""):
        found = super().rankings_of(lists, descriptor, score)
        made = [replace(q, ranked=[replace(item, id="nobody") for item in q.ranked]) for q in found.queries]
        return replace(found, queries=made)


class Unordered(Instances):
    def rankings_of(self, lists, descriptor, score=""):
        found = super().rankings_of(lists, descriptor, score)
        return replace(found, queries=found.queries[::-1])


class Hidden(Instances):
    """Takes a search, and shows something else."""

    def report(self, rows, own):
        return super().report(rows, rows[0])


def made(**members):
    return type("Made", (Instances,), members)


BROKEN = [
    (object, "must derive from zoo.evaluation.protocol.Benchmark"),
    (made(name="others"), "name must be 'instances', got 'others'"),
    (made(check=lambda self, model, data: None), r"check\(\) must raise ValueError for a model without anything"),
    (made(roles=("query",)), r"roles must be gallery, or gallery and query, got \('query',\)"),
    (made(loaders=lambda self, data: [data.loader("gallery")]), "loaders must be one for each of"),
    (made(notes=property(lambda self: [1], lambda self, value: None)), "notes must be texts"),
    (made(fingerprint=lambda self: {"hash": "0", "gallery": 9, "queries": 9}), "benchmark, metrics is missing"),
    (Averaged, "the mean must be that of the queries' values"),
    (Fewer, "one value a query, got 1 for 9"),
    (Lucky, "the same model must get the same figures again"),
    (Grown, "fingerprint must not depend on the model"),
    (Halved, "two processes must find what one does"),
    (Content, "images that weren't described must raise ValueError"),
    (Unordered, "ranked lists must be those of the queries, in their order"),
    (Strange, "ranked lists must hold images of the gallery, got"),
    (Backwards, "scores must not rise along a list"),
    (made(search_with=lambda self, search: None), "search_with must keep the search, or raise ValueError"),
    (Hidden, "the search must be the shown row, 'vector > flat', got 'vector'"),
]


@pytest.mark.parametrize(("broken", "clause"), BROKEN)
def test_a_broken_clause_is_named(broken, clause, tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.testing.benchmarks.check_signature", lambda kind, name: None)
    monkeypatch.setattr(registry, "load", lambda kind, name, load=registry.load: pick(kind, name, load, broken))
    with pytest.raises(AssertionError, match=clause):
        check_benchmark("instances", tmp_path / "out", data=photos(tmp_path))


def pick(kind, name, load, broken):
    return broken if (kind, name) == ("benchmark", "instances") else load(kind, name)
