from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.truth.relevance import GradedLists, RelevanceLists

GALLERY = tuple("abcdefgh")


def lists(**changes):
    fields = {
        "query_ids": ("q0", "q1"),
        "query_images": ("a", "x"),
        "groups": {"good": (("a", "b"), ("c",)), "ok": ((), ("d",)), "junk": (("e",), ())},
        "boxes": [[0, 0, 2, 2], [1, 1, 4, 3]],
        "gallery_ids": None,
    }
    return RelevanceLists(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query_ids": ("q", "q")}, "query_ids must be unique, got 'q' twice"),
        ({"query_ids": ()}, "at least one query"),
        ({"groups": {}}, "at least one group"),
        ({"query_images": ("a",)}, r"query_images must have one entry per query \(2\), got 1"),
        ({"groups": {"good": (("a",),)}}, r"good must have one entry per query \(2\), got 1"),
        ({"groups": {"good": (("a",), ()), "junk": (("a",), ())}}, "query 'q0'.* got 'a' in good and junk"),
        ({"groups": {"good": ((), ("b", "b"))}}, "query 'q1'.* got 'b' in good and good"),
        ({"boxes": [[0, 0, 2, 2], [3, 1, 3, 4]]}, "query 'q1': a box needs x0 < x1"),
        ({"boxes": [[0, 2, 2, 1], [0, 0, 1, 1]]}, "query 'q0': a box needs x0 < x1 and y0 < y1"),
        ({"boxes": [[0, 0, 1, np.nan], [0, 0, 1, 1]]}, "query 'q0': a box"),
        ({"boxes": [[0, 0, np.inf, 1], [0, 0, 1, 1]]}, "query 'q0': a box"),
        ({"boxes": [[0, 0, 1, 1]]}, r"boxes must have shape \(Q, 4\)"),
        ({"gallery_ids": ("a", "b", "c", "d")}, "1 are missing: e"),
        ({"gallery_ids": (*GALLERY, "a")}, "gallery_ids must be unique, got 'a' twice"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        lists(**changes)


def test_a_box_of_nan_is_the_whole_image():
    boxes = lists(boxes=[[np.nan] * 4, [1, 1, 4, 3]]).boxes
    assert np.isnan(boxes[0]).all()
    assert boxes[1].tolist() == [1, 1, 4, 3]
    with pytest.raises(ValueError, match="read-only"):
        boxes[0, 0] = 0


def test_restriction_drops_and_says_so():
    left = lists().restrict(["a", "c", "z"], {"a", "x"})
    assert left.groups == {"good": (("a",), ("c",)), "ok": ((), ()), "junk": ((), ())}
    assert left.gallery_ids == ("a", "c", "z")
    assert left.notes == (
        "good items left out because the gallery lacks them: 1 of 3",
        "ok items left out because the gallery lacks them: 1 of 1",
        "junk items left out because the gallery lacks them: 1 of 1",
    )


def test_restriction_drops_queries_without_image():
    left = lists().restrict(["e", "c", "d"], ["x"])
    assert (left.query_ids, left.query_images, left.boxes.tolist()) == (("q1",), ("x",), [[1, 1, 4, 3]])
    assert left.groups["good"] == (("c",),)
    assert left.notes == ("queries left out because their image is not available: 1",)
    with pytest.raises(ValueError, match="none of the 2 query images is available"):
        lists().restrict(GALLERY, [])


def test_restriction_counts_queries_that_lose_all_positives():
    assert "queries that have no positive left: 1" in lists().restrict(["c", "d", "e"]).notes
    assert lists().restrict(GALLERY).notes == ()


def test_missing_ids():
    assert lists().missing(["c", "a"]) == ("b", "d", "e")
    assert lists().missing(GALLERY) == ()


def test_packing_needs_every_listed_id():
    with pytest.raises(ValueError, match="query 'q1': 'd' is listed but not among the gallery ids"):
        lists().pack(["a", "b", "c", "e"])
    with pytest.raises(ValueError, match="gallery_ids must be unique, got 'b' twice"):
        lists().pack(["a", "b", "b", "c", "d", "e"])


def positional():
    groups = {"relevant": (("0", "2"), ("1",))}
    return RelevanceLists(("0", "3"), ("0", "3"), groups, None, None, positional=True)


def test_positions_are_named():
    named = positional().name_positions(["w", "x", "y", "z"], ["a", "b", "c"])
    assert (named.query_ids, named.query_images) == (("w", "z"), ("w", "z"))
    assert named.groups == {"relevant": (("a", "c"), ("b",))}
    assert (named.gallery_ids, named.positional) == (("a", "b", "c"), False)


@pytest.mark.parametrize(
    ("queries", "gallery", "message"),
    [
        ("wxy", "abc", "query position 3 lies outside the 3 query names given"),
        ("wxyz", "ab", "gallery position 2 lies outside the 2 gallery names given"),
    ],
)
def test_positions_outside_the_names(queries, gallery, message):
    with pytest.raises(ValueError, match=message):
        positional().name_positions(list(queries), list(gallery))


def test_positions_and_names_are_not_confused():
    with pytest.raises(ValueError, match="pack: the ids are positions"):
        positional().pack(["0", "1", "2"])
    with pytest.raises(ValueError, match="restrict: the ids are positions"):
        positional().restrict(["0", "1", "2"])
    with pytest.raises(ValueError, match="nothing is left to name"):
        lists().name_positions(["a"], ["b"])


@given(st.randoms(use_true_random=False))
def test_the_fingerprint_does_not_depend_on_order(chance):
    first = lists()
    order = chance.sample(range(2), 2)
    groups = {
        name: tuple(tuple(chance.sample(rows[place], len(rows[place]))) for place in order)
        for name, rows in chance.sample(list(first.groups.items()), 3)
    }
    shuffled = lists(
        query_ids=tuple(first.query_ids[place] for place in order),
        query_images=tuple(first.query_images[place] for place in order),
        groups=groups,
        boxes=first.boxes[order],
    )
    assert shuffled.fingerprint() == first.fingerprint()


@pytest.mark.parametrize(
    "changes",
    [
        {"query_ids": ("q0", "q2")},
        {"query_images": ("a", "y")},
        {"boxes": None},
        {"boxes": [[0, 0, 2, 2], [1, 1, 4, 3.5]]},
        {"boxes": [[0, 0, 2, 2], [np.nan] * 4]},
        {"groups": {"good": (("a", "b"), ("c",)), "ok": ((), ("d",)), "junk": ((), ("e",))}},
        {"groups": {"good": (("a", "b"), ("c",)), "ok": (("e",), ("d",)), "junk": ((), ())}},
        {"excluded": frozenset({"p"})},
    ],
)
def test_the_fingerprint_tells_truths_apart(changes):
    assert lists(**changes).fingerprint() != lists().fingerprint()


def test_the_fingerprint_is_stable():
    program = (
        "from zoo.truth.relevance import RelevanceLists as R, GradedLists as G;"
        "e = frozenset({'x', 'y', 'z'});"
        "print(R(('q',), ('q',), {'ok': (('a', 'b'),), 'junk': (('c',),)}, None, None, False, e).fingerprint(),"
        "G(('q',), ({'a': 1, 'b': 0.5},)).fingerprint())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    words = outputs.pop().split()
    assert [len(word) for word in words] == [16, 16]
    assert all(set(word) <= set("0123456789abcdef") for word in words)


def graded(**changes):
    fields = {"query_ids": ("q0", "q1"), "gains": ({"a": 2, "b": 0.5}, {"c": 0, "d": 1})}
    return GradedLists(**{**fields, **changes})


@pytest.mark.parametrize("gain", [-1, float("nan"), float("inf"), True, "3", None])
def test_gains_are_numbers_from_zero_up(gain):
    with pytest.raises(ValueError, match=r"query 'q1': the gain of 'c' must be a number ≥ 0"):
        graded(gains=({"a": 1}, {"c": gain}))


def test_graded_lists_are_checked():
    with pytest.raises(ValueError, match=r"gains must have one entry per query \(2\), got 1"):
        graded(gains=({"a": 1},))
    with pytest.raises(ValueError, match="2 are missing: c, d"):
        graded(gallery_ids=("a", "b"))
    with pytest.raises(ValueError, match="query 'q1': 'd' is listed"):
        graded().pack(["a", "b", "c"])


def test_graded_restriction():
    left = graded().restrict(["a", "d"], ["q1"])
    assert (left.query_ids, left.gains) == (("q1",), ({"d": 1},))
    assert left.notes == (
        "queries left out because their image is not available: 1",
        "judged items left out because the gallery lacks them: 1 of 2",
    )
    assert graded().missing(["a", "d"]) == ("b", "c")


def test_graded_fingerprints():
    shuffled = GradedLists(("q1", "q0"), ({"d": 1.0}, {"b": 0.5, "a": 2.0}))
    assert shuffled.fingerprint() == graded().fingerprint()  # no gain and a gain of 0 are the same
    assert graded(gains=({"a": 2, "b": 0.5}, {"d": 2})).fingerprint() != graded().fingerprint()


def test_notes_do_not_change_the_fingerprint():
    assert lists(notes=("something",)).fingerprint() == lists().fingerprint()
