"""Text first: words, captions of files, and rankings by both, against counting by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo
from zoo import registry
from zoo.files import BadFile
from zoo.search import Pipeline, open_index
from zoo.search.caption_files import read_captions
from zoo.search.captions import CaptionWords, words_of
from zoo.types import Representation

WORDS = ["a", "red", "car", "bus", "street", "tree"]
CAPTIONS = st.lists(st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join), max_size=3)
QUERY = st.lists(st.sampled_from([*WORDS, "unknown"]), max_size=6)
KINDS = ["flat", "ivf_pq", "regions", "local_maps", "probability_maps"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A red car, a RED bus.", ["a", "red", "car", "bus"]),
        ("the man's hat", ["the", "man", "s", "hat"]),
        ("über Straße", ["über", "straße"]),
        ("cafe\u0301", ["café"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("route_66 24/7", ["route", "66", "24", "7"]),
        ("!? …", []),
    ],
)
def test_words_are_lower_case_and_each_comes_once(text, words):
    assert words_of(text) == words


@given(st.text())
def test_the_words_of_words_are_the_same(text):
    words = words_of(text)
    assert words_of(" ".join(words)) == words
    assert len(set(words)) == len(words)


def by_hand(captions, words):
    """Counts, item by item, which of the words stand in its captions."""
    held = [set().union(*(caption.lower().split() for caption in own), ()) for own in captions]
    return [len(set(words) & own) for own in held]


@given(st.data())
def test_counts_are_those_by_hand_however_items_come_and_go(data):
    counted, there = CaptionWords(), []
    for _ in range(data.draw(st.integers(1, 5))):
        if there and data.draw(st.booleans()):
            mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(there), max_size=len(there))), bool)
            counted.keep(mask)
            there = [own for own, kept in zip(there, mask, strict=True) if kept]
        more = data.draw(st.lists(CAPTIONS, max_size=6))
        counted.append(more)
        there += more
        words = data.draw(QUERY)
        assert counted.counts(words).tolist() == by_hand(there, words)
        assert counted.counts(words[::-1]).tolist() == by_hand(there, words)
        assert counted.captioned == sum(any(own) for own in there)
        assert len(counted) == len(there)


def filled(name, captions, folder):
    """Returns an index of as many items as there are `captions`, some of them the same, and queries for it."""
    generator = torch.Generator().manual_seed(0)
    count, same = len(captions), torch.arange(len(captions)) // 2

    def some(*shape):
        return torch.randn(len(same), *shape, generator=generator)[same]

    regions = some(2, 8)
    items = Representation(
        vector=regions[:, 0],
        regions=regions,
        region_mask=torch.ones(count, 2, dtype=torch.bool),
        region_boxes=torch.rand(count, 2, 4, generator=generator),
        region_hulls=torch.rand(count, 2, 4, 2, generator=generator),
        local_map=some(8, 2, 3),
        probability_map=some(3, 4, 4).softmax(1),
    )
    index = zoo.create("index", name, **registry.load("index", name).tiny)
    index.add(list(range(count)), items, [{"captions": own} if own else {} for own in captions])
    return index, items.rows(slice(0, 3))


def all_captions(count=60):
    drawn = np.random.default_rng(0)
    return [[" ".join(drawn.choice(WORDS, size=drawn.integers(0, 4)))] if n % 5 else [] for n in range(count)]


@pytest.mark.parametrize("name", KINDS)
def test_most_words_come_first_and_of_equally_many_the_nearest(name, tmp_path):
    captions = all_captions()
    index, queries = filled(name, captions, tmp_path)
    alone = index.search(queries, len(captions))
    for words in (["red", "bus", "street"], ["unknown"], ["red", "red", "unknown"]):
        counts = by_hand(captions, words)
        found = index.search(queries, len(captions), words=[words] * 3)
        few = index.search(queries, 7, words=[words] * 3)
        for ranking, before, first in zip(found, alone, few, strict=True):
            wanted = sorted(before.ids, key=lambda place: -counts[place])  # stable: equal ones keep their order
            assert ranking.ids == wanted
            assert [shown["words"] for shown in ranking.evidence] == [counts[place] for place in wanted]
            scores = dict(zip(before.ids, before.scores.tolist(), strict=True))
            assert ranking.scores.tolist() == pytest.approx([scores[place] for place in wanted], abs=1e-4)
            assert first.ids == wanted[:7]


@settings(max_examples=40)
@given(st.lists(CAPTIONS, min_size=1, max_size=12), QUERY, st.integers(1, 14), st.booleans())
def test_words_rank_any_captions(captions, words, k, filtered):
    index = zoo.create("index", "flat", metric="l2")
    vectors = torch.arange(len(captions)).div(2, rounding_mode="floor")[:, None].float()
    payloads = [{"captions": own, "half": place % 2} for place, own in enumerate(captions)]
    index.add(list(range(len(captions))), Representation(vector=vectors), payloads)
    query, where = Representation(vector=torch.full((1, 1), 2.2)), {"half": 1} if filtered else None
    counts, fits = by_hand(captions, words), [p for p in range(len(captions)) if not filtered or p % 2]
    wanted = sorted(fits, key=lambda place: (-counts[place], abs(place // 2 - 2.2), place))
    ranking = index.search(query, k, where, words=[words])[0]
    assert list(ranking.ids) == wanted[:k]
    mixed = index.search(query, k, where, words=[words[::-1] + words])[0]
    assert list(mixed.ids) == wanted[:k]
    if words:
        alone = index.search(None, k, where, words=[words])[0]
        assert alone.ids == sorted(fits, key=lambda place: (-counts[place], place))[:k]
        assert len(alone.scores) == len(alone.ids) == len(alone.evidence)


def test_a_query_without_words_is_searched_as_before():
    index, queries = filled("flat", all_captions(), None)
    plain, text = index.search(queries, 9), index.search(queries, 9, words=[[], ["red"], []])
    for one, other in ((plain[0], text[0]), (plain[2], text[2])):
        assert one.ids == other.ids
        assert other.evidence is None
    assert "words" in text[1].evidence[0]
    assert [ranking.ids for ranking in index.search(queries, 9, words=[[]] * 3)] == [one.ids for one in plain]


def test_a_drawing_of_nothing_leaves_the_words_alone():
    captions = all_captions()
    index, _ = filled("probability_maps", captions, None)
    nothing = Representation(probability_map=torch.zeros(1, 3, 4, 4), class_mask=torch.zeros(1, 3, dtype=torch.bool))
    ranking = index.search(nothing, 20, words=[["red", "bus"]])[0]
    assert ranking.ids == index.search(None, 20, words=[["red", "bus"]])[0].ids
    counts = by_hand(captions, ["red", "bus"])
    assert ranking.ids == sorted(range(len(captions)), key=lambda place: (-counts[place], place))[:20]


def test_captions_change_are_saved_and_come_back(tmp_path):
    index, queries = filled("flat", all_captions(), None)
    index.save(tmp_path / "index")
    index.remove([0, 7])
    index.search(queries, 3, words=[["red"]] * 3)
    index.annotate([30, 3], [{"captions": ["zebra red"], "more": 1}, {}])
    index.add([7], Representation(vector=torch.zeros(1, 8)), [{"captions": ["Zebra"]}])
    for _ in range(2):
        assert index.search(None, 3, words=[["zebra"]])[0].ids[:2] == [30, 7]
        assert index.payloads([30, 3, 4]) == [
            {"captions": ["zebra red"], "more": 1},
            {},
            {"captions": all_captions()[4]},
        ]
        index.save(tmp_path / "index")
        files = {path.name for path in (tmp_path / "index").iterdir()}
        index = open_index(tmp_path / "index")
    assert sum("vector" in name for name in files) == 2  # descriptors of the first commit weren't written again
    index.annotate([7], [{"captions": ["nothing"]}])
    index.save(tmp_path / "index")
    assert open_index(tmp_path / "index").search(None, 1, words=[["zebra"]])[0].ids == [30]
    with pytest.raises(ValueError, match="no item with the id 99"):
        index.annotate([30, 99], [{}, {}])
    with pytest.raises(ValueError, match="one mapping per id, got 1 for 2 ids"):
        index.annotate([30, 7], [{}])
    assert index.payloads([30])[0]["more"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([["red"]], "words must be one list per query, got 1 for 3 queries"),
        ("red", "words must be a list of words for each query, got 'red'"),
        ([["red"], "car", []], "words must be a list of words for each query"),
        ([[1], [], []], "words must be a list of words for each query"),
    ],
)
def test_words_that_are_none_are_refused(words, said):
    index, queries = filled("flat", all_captions(), None)
    for search in (index.search, Pipeline(index, [], None).search):
        with pytest.raises(ValueError, match=said):
            search(queries, 3, words=words)


def test_without_queries_there_must_be_words_or_lists_of_none():
    index, _ = filled("flat", all_captions(), None)
    for words in (None, "red", [["red"], None]):
        with pytest.raises(ValueError, match="words must"):
            index.search(None, 3, words=words)
    plain, tiered = index.search(None, 3, words=[[], ["red"]])
    assert (list(plain.ids), plain.evidence, plain.scores.tolist()) == (index.ids[:3], None, [0.0] * 3)
    assert tiered.ids == index.search(None, 3, words=[["red"]])[0].ids


def test_captions_of_a_payload_must_be_a_list_of_strings():
    index, queries = filled("flat", all_captions(), None)
    index.add([99], Representation(vector=torch.zeros(1, 8)), [{"captions": "a red car"}])
    with pytest.raises(ValueError, match="captions of a payload must be a list of strings, got 'a red car'"):
        index.search(queries, 3, words=[["red"]] * 3)
    assert len(index.search(queries, 3)[0]) == 3


def test_a_pipeline_passes_words_on_but_not_to_rerankers():
    captions = all_captions()
    index, queries = filled("flat", captions, None)
    words = [["red", "bus"], [], ["car"]]
    found = Pipeline(index, [], None).search(queries, 5, exclude=[4, None, None], words=words)
    assert found[1].ids == index.search(queries, 5)[1].ids
    assert found[2].ids == index.search(queries, 5, words=words)[2].ids
    assert found[0].ids == [id_ for id_ in index.search(queries, 6, words=words)[0].ids if id_ != 4][:5]
    aqe = zoo.create("reranker", "aqe")
    with pytest.raises(ValueError, match="no re-ranker may follow them, got aqe"):
        Pipeline(index, [aqe], None).search(queries, 5, words=words)
    assert len(Pipeline(index, [aqe], None).search(queries, 5, words=[[]] * 3)) == 3


def test_milvus_refuses_words(tmp_path):
    pytest.importorskip("milvus_lite")
    index = zoo.create("index", "milvus", uri=str(tmp_path / "m.db"), metric="dot")
    index.add(["a"], Representation(vector=torch.ones(1, 4)))
    query = Representation(vector=torch.ones(1, 4))
    for search in (index.search, Pipeline(index, [], None).search):
        with pytest.raises(
            ValueError, match=r"words need an index that reads captions, which milvus doesn't.*\['red'\]"
        ):
            search(query, 1, words=[["red"]])
        assert search(query, 1, words=[[]])[0].ids == ["a"]
    with pytest.raises(ValueError, match="can't search by words alone"):
        index.search(None, 1)
    index.close()


COCO = {
    "images": [{"id": 9, "file_name": "train/COCO_000009.jpg"}, {"id": 25, "file_name": "train/COCO_000025.jpg"}],
    "annotations": [
        {"id": 1, "image_id": 9, "caption": "A red car.\n"},
        {"id": 2, "image_id": 9, "caption": "Street with a bus"},
        {"id": 3, "image_id": 25, "caption": "   "},
    ],
}


def written(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("id_", "path"),
    [
        (9, None),
        ("train/COCO_000009.jpg", None),
        ("COCO_000009", None),
        ("x", "/data/coco/train/COCO_000009.jpg"),
        ("COCO_000009.jpg", "COCO_000009.jpg"),
    ],
)
def test_captions_are_found_by_id_by_path_and_by_file_name(tmp_path, id_, path):
    captions = read_captions(written(tmp_path / "c.json", COCO))
    assert captions.texts[captions.find(id_, path)] == ["A red car.", "Street with a bus"]
    assert len(captions) == 1
    assert captions.find("COCO_000010", "/data/COCO_000010.jpg") is None


def test_a_csv_has_any_number_of_lines_an_image(tmp_path):
    file = written(tmp_path / "c.csv", 'file,caption\na/1.jpg,"One, two"\nb/1.jpg,three\na/1.jpg,four\n')
    captions = read_captions(file)
    assert captions.texts == [["One, two", "four"], ["three"]]
    assert captions.find("1", "/photos/b/1.jpg") == 1
    assert captions.find("1", "/photos/c/1.jpg") is None  # another folder
    assert captions.find("1", None) is None  # two images are called so
    bare = read_captions(written(tmp_path / "e.csv", "file,caption\n7.jpg,red\n8.jpg,car\n"))
    found = [bare.find("x", "/p/b/7.jpg"), bare.find("train/8", None), bare.find("7", None), bare.find("x", "/p/7.png")]
    assert found == [0, 1, 0, 0]
    both = read_captions(written(tmp_path / "d.csv", "id,file,caption\n7,a/x.jpg,red\n8,b/y.jpg,car\n"))
    assert [both.find(7, None), both.find("x", None), both.find("?", "/p/b/y.jpg")] == [0, 0, 1]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("c.txt", "", "must be a .json or .csv file"),
        ("c.json", "{", "Expecting property name"),
        ("c.json", "[]", r"must hold a mapping with images and annotations, got \[\]"),
        ("c.json", {"images": []}, "annotations must be a list, got None"),
        ("c.json", {**COCO, "images": [{"id": "9"}]}, r"images\[0\]: id must be a whole number, got '9'"),
        ("c.json", {**COCO, "images": [{"id": 9}]}, r"images\[0\]: file_name must be text, got None"),
        ("c.json", {**COCO, "images": [COCO["images"][0]] * 2}, r"images\[1\]: id and file_name .* got 9"),
        ("c.json", {**COCO, "images": COCO["images"][:1]}, r"annotations\[2\]: image_id must be .* got 25"),
        ("c.json", {**COCO, "annotations": [{"image_id": 9}]}, r"annotations\[0\]: caption must be text, got None"),
        ("c.csv", "name,caption\na,b\n", "columns must be id or file, and caption, got name, caption"),
        ("c.csv", "id,caption\na\n", "line 2: there must be as many cells as columns, 2"),
        ("c.csv", "id,caption\n ,b\n", "line 2: id must name an image, got an empty cell"),
        ("c.csv", "id,file,caption\n1,a,b\n2,a,c\n", "line 3: file must belong to one image, got 'a' of 1 / a and"),
        ("c.csv", "", "got none"),
    ],
)
def test_what_holds_no_captions_is_refused_with_the_place(tmp_path, name, content, said):
    file = written(tmp_path / name, content)
    with pytest.raises(BadFile, match=said) as refused:
        read_captions(file)
    assert name in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadFile, match=r"none\.json can't be read: No such file"):
        read_captions(tmp_path / "none.json")
