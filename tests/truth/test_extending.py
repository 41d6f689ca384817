"""Ground truth extended by images that were made: groups, files, and what comes back from them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from zoo.truth import RelevanceLists, read_gnd
from zoo.truth.extending import positives, with_copies, with_distractors
from zoo.truth.readers.json_lists import lists_from_json, lists_to_json
from zoo.truth.regroup import merged

OXFORD = {
    "a": {"query": "x", "bbox": [0, 1, 2, 3.5], "good": ["x", "y"], "ok": ["z"], "junk": ["w"]},
    "b": {"query": "y", "bbox": [0, 0, 2, 3], "good": ["y"], "ok": [], "junk": []},
}
OWN = {"a": {"relevant": ["x", "y"], "box": [0, 0, 1, 1]}, "b": {"relevant": [], "junk": ["x"]}, "c": ["z"]}
LEVELS = {"a": {"easy": ["x"], "hard": ["y"], "junk": []}, "b": {"easy": [], "hard": ["z"], "image": "q"}}


@pytest.mark.parametrize("content", [OXFORD, OWN, LEVELS])
@pytest.mark.parametrize("made", [(), ("m0", "m1")])
def test_written_lists_are_read_again(content, made, tmp_path):
    lists = lists_from_json(content)
    lists = with_distractors(lists, made) if made else lists
    (tmp_path / "gnd.json").write_text(json.dumps(lists_to_json(lists), allow_nan=False))
    again = read_gnd(tmp_path / "gnd.json")
    assert again.fingerprint() == lists.fingerprint()
    assert (again.query_ids, again.query_images) == (lists.query_ids, lists.query_images)
    assert dict(again.groups) == dict(lists.groups)
    assert (again.boxes is None) == (lists.boxes is None)
    assert again.boxes is None or np.array_equal(again.boxes, lists.boxes, equal_nan=True)
    assert ("distractor" in again.groups) == bool(made)


def test_oxford_keeps_its_form_and_other_groups_get_one_of_their_own():
    assert lists_to_json(lists_from_json(OXFORD)) == OXFORD
    classic = RelevanceLists(("a",), ("x",), {"ok": (("x",),), "junk": ((),)}, [[0, 0, 1, 1]], ("x", "y"))
    assert lists_to_json(classic) == {"a": {"query": "x", "bbox": [0, 0, 1, 1], "good": [], "ok": ["x"], "junk": []}}
    assert lists_to_json(lists_from_json(LEVELS))["b"] == {"image": "q", "easy": [], "hard": ["z"], "junk": []}
    with pytest.raises(ValueError, match="the ids are positions"):
        lists_to_json(lists_from_json([[0, [1]]]))


def test_positives_are_named_once_and_copies_follow_their_images():
    lists = lists_from_json(OXFORD)
    assert positives(lists) == ("x", "y", "z")
    assert positives(with_distractors(lists_from_json(LEVELS), ["m"])) == ("x", "y", "z")
    copied = with_copies(lists, {"y": ["y0", "y1"], "w": ["w0"], "nowhere": ["n0"]})
    assert copied.groups["good"] == (("x", "y", "y0", "y1"), ("y", "y0", "y1"))
    assert copied.groups["junk"] == (("w", "w0"), ())
    assert positives(copied) == ("x", "y", "y0", "y1", "z")


def test_the_gallery_grows_and_earlier_distractors_stay():
    lists = RelevanceLists(("a",), ("a",), {"relevant": (("x",),), "distractor": (("m",),)}, None, ("x", "m"))
    more = with_distractors(lists, ["n", "m"])
    assert more.groups["distractor"] == (("m", "n"),)
    assert more.gallery_ids == ("x", "m", "n")
    with pytest.raises(ValueError, match="an id may be listed once, got 'x' in relevant and distractor"):
        with_distractors(lists, ["x"])


def test_a_benchmark_without_distractors_leaves_their_group_out():
    lists = with_distractors(lists_from_json(OXFORD), ["m"])
    assert list(merged(lists, {"relevant": ("good", "ok"), "junk": ("junk",)}).groups) == ["relevant", "junk"]
    with pytest.raises(ValueError, match="is it another benchmark's"):
        merged(lists, {"relevant": ("good",)})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": {**OXFORD["a"], "distractors": []}, "b": OXFORD["b"]}, "query 'a': the keys must be"),
        ({**LEVELS, "c": {"easy": []}}, "query 'c': an object with 'easy' and 'hard' is needed"),
        ({"a": {"relevant": []}, **{"b": LEVELS["b"]}}, "query 'b': a list of ids or an object with 'relevant'"),
        ({"a": {"relevant": [], "distractor": "m"}}, "query 'a': distractor must be a list of strings"),
    ],
)
def test_other_forms_are_refused(content, message):
    with pytest.raises(ValueError, match=message):
        lists_from_json(content)
