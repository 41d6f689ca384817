"""Every registered data set keeps the contract, and one that breaks a clause of it is told which."""

from __future__ import annotations

import numpy as np
import pytest
from broken_batches import BATCHES, OTHERS, Good, pairs, shortlists, with_labels, with_questions
from broken_modules import MODULES
from data_trees import TREES, pictures

from zoo import config, registry
from zoo.testing import check_data


def checked(name, tmp_path, **changed):
    for part in ("data", "out"):
        (tmp_path / part).mkdir()
    check_data(name, tmp_path / "out", **{**TREES[name](tmp_path / "data"), **changed})


def test_there_is_a_tree_for_every_data_set():
    assert sorted(TREES) == list(registry.entries("data"))


@pytest.mark.parametrize("name", registry.entries("data"))
def test_every_data_set_keeps_the_contract(name, tmp_path):
    checked(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("folder", {"longest_side": 12, "enlarge": False}),
        ("folder", {"image_size": [16, 24], "names": "file", "table": None}),
        ("sort_of_clevr", {"warmup_epochs": 2, "truth": []}),
        ("clevr", {"augment": True, "truth": ["hard/authors"]}),
        ("cut_paste", {"fresh": False, "pairs_per_epoch": 30}),
    ],
)
def test_so_it_does_with_other_settings(name, changed, tmp_path):
    checked(name, tmp_path, **changed)


def test_a_plugins_data_is_held_to_it_too(plugins, tmp_path):
    pictures(tmp_path / "photos", [f"{shelf}-{number}" for shelf in "ab" for number in range(3)])
    check_data("acme_photos", tmp_path, root=str(tmp_path / "photos"), batch_size=4)


@pytest.fixture
def check(monkeypatch, tmp_path):
    """Holds a class to the contract as if it were registered."""

    def check(cls):
        monkeypatch.setattr("zoo.testing.data.check_signature", lambda kind, name: None)
        monkeypatch.setattr(registry, "load", lambda kind, name: cls)
        monkeypatch.setattr(config, "create", lambda kind, name, **parameters: cls(**parameters))
        check_data("dots", tmp_path)

    return check


def test_good_data_keep_the_contract(check):
    check(Good)


def test_data_with_questions_keep_the_contract(check):
    check(with_questions())


def test_data_with_label_maps_keep_the_contract(check):
    check(with_labels(-1, 1))


def test_pairs_and_shortlists_keep_the_contract(check):
    check(pairs())
    check(shortlists())


@pytest.mark.parametrize(("broken", "clause"), [*MODULES, *BATCHES, *OTHERS])
def test_a_broken_clause_is_named(broken, clause, check):
    with pytest.raises(AssertionError, match=clause):
        check(broken)


def test_an_argument_beside_the_yaml_is_named(monkeypatch, tmp_path):
    class More(Good):
        def __init__(self, *, depth):
            super().__init__()

    monkeypatch.setattr(registry, "load", lambda kind, name: More)
    with pytest.raises(AssertionError, match=r"only in YAML .*'root'.*, only in code \['depth'\]"):
        check_data("folder", tmp_path)


@pytest.mark.parametrize(
    ("name", "method", "broken", "clause"),
    [
        (
            "folder",
            "preprocessing",
            property(lambda self: {"image_size": (1, 2)}),
            "preprocessing must be plain values",
        ),
        (
            "folder",
            "prepare_picture",
            lambda self, path: next(iter(self.loader("gallery", 1))),
            "must do to a file what",
        ),
        ("sort_of_clevr", "scene_graphs", lambda self, split: [1], "must hold one graph an image, got 1"),
        ("sort_of_clevr", "compositions", lambda self, split: np.zeros((1, 6)), r"compositions\(\) must be \(N, F\)"),
        ("clevr", "size", lambda self, split: 1, r"size\('val'\) must be 12, got 1"),
    ],
)
def test_a_broken_clause_of_ours_is_named(name, method, broken, clause, tmp_path, monkeypatch):
    monkeypatch.setattr(registry.load("data", name), method, broken)
    with pytest.raises(AssertionError, match=clause):
        checked(name, tmp_path)
