from __future__ import annotations

import json
import pickle
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import torch
from clevr_trees import REAL, clevr, question, write, write_tree

from zoo.files import BadFile
from zoo.vocabulary import vocabulary

WORDS = vocabulary("clevr")
MINI = REAL / "clevr_mini"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "tree")


def ask(tree: Path, *questions: dict) -> Path:
    return write(tree / "questions" / "CLEVR_val_questions.json", {"questions": list(questions)})


def test_a_batch_holds_all_questions_of_its_images(tree):
    data = clevr(tree)
    batch = data.dataset("val").__getitems__([2, 0, 1])
    texts = [["Are there any things?"], ["How many cubes are there?", "What size is the red cube?"], []]
    ids = [[WORDS.encode(text) for text in asked] for asked in texts]
    assert batch.questions.shape == (3, 2, max(len(row) for asked in ids for row in asked))
    for image, asked in enumerate(ids):
        padded = [row + [0] * (batch.questions.shape[2] - len(row)) for row in asked]
        assert batch.questions[image, : len(asked)].tolist() == padded
        assert batch.questions[image, len(asked) :].sum() == 0
    names = [[data.answers[a] if a >= 0 else None for a in row] for row in batch.answers.tolist()]
    assert names == [["no", None], ["1", "small"], [None, None]]
    types = [[batch.question_type_names[t] if t >= 0 else None for t in row] for row in batch.question_types.tolist()]
    assert types == [["exist", None], ["count", "query/size"], [None, None]]
    assert (batch.vocabulary, batch.question_type_names) == ("clevr", data.question_types)
    assert {batch.questions.dtype, batch.answers.dtype, batch.question_types.dtype} == {torch.int64}
    alone = data.dataset("val").__getitems__([1])
    assert alone.questions.tolist() == [[[0]]]
    assert alone.answers.tolist() == alone.question_types.tolist() == [[-1]]


def test_questions_may_lack_answers_and_programs(tree):
    ask(tree, question(0, "How many cubes are there?"), question(1, "Are there any cubes?"))
    batch = clevr(tree, scenes=None).dataset("val").__getitems__([0, 1])
    assert batch.answers.tolist() == batch.question_types.tolist() == [[-1], [-1]]
    assert batch.questions.bool().any(2).all()


def test_a_missing_or_unusable_file_says_what_to_do(tree):
    file = tree / "questions" / "CLEVR_val_questions.json"
    whole = file.read_text()
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"CLEVR_val_questions\.json, which .* data\.questions=null"):
        clevr(tree).setup()
    for end in (len(whole) // 2, -1, 1):
        file.write_text(whole[:end])
        with pytest.raises(BadFile, match=r"CLEVR_val_questions\.json is damaged .*fetch it.* data\.questions=null"):
            clevr(tree).setup()
    file.write_bytes(whole.encode().replace(b"cube", b"\xff\xfe", 1))
    with pytest.raises(BadFile, match=r"CLEVR_val_questions\.json is damaged"):
        clevr(tree).setup()
    for content in ({"scenes": []}, [], {"questions": []}):
        write(file, content)
        with pytest.raises(BadFile, match=r"CLEVR_val_questions\.json must hold .* is it a questions file"):
            clevr(tree).setup()
    ask(tree, question(2, "How many cubes are there?"))
    with pytest.raises(BadFile, match=r"questions must ask about images of split 'val', got .* none of the 3 in .*val"):
        clevr(tree).setup()
    assert [path.name[:9] for path in (tree / "cache").glob("questions*")] == ["questions"]  # that of the last, whole


@pytest.mark.parametrize("read", [0, 1, 3])
def test_a_truncated_file_says_how_many_questions_are_before_the_cut(tree, read):
    file = tree / "questions" / "CLEVR_val_questions.json"
    starts = [match.start() for match in re.finditer(r'{"image_filename"', file.read_text())]
    file.write_text(file.read_text()[: starts[read] + 30])
    with pytest.raises(BadFile, match=rf"truncated behind {read} questions \("):
        clevr(tree).setup()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (question(0, "How many dragons are there?"), "'How many dragons are there.' holds 'dragons'"),
        (question(0, "  "), "is empty"),
        (question(0, "How many cubes are there?", "eleven"), "answer must be one of .* got 'eleven'"),
        (question(0, "How many cubes are there?", "1", "sum"), "a program must end in one of .* got 'sum'"),
        (
            {**question(0, "How many cubes are there?"), "program": [3]},
            r"a program must be a list of objects, got \[3\]",
        ),
        ({"image_filename": "CLEVR_0.png"}, "a question must be an object with the text 'question'"),
        ({"question": "How many cubes are there?"}, "with the text 'image_filename'"),
        (["How many cubes are there?"], "a question must be an object"),
    ],
)
def test_a_question_that_is_not_understood_is_named(tree, wrong, said):
    ask(tree, question(0, "How many cubes are there?", "1", "count"), wrong)
    with pytest.raises(BadFile, match=rf"CLEVR_val_questions\.json, question 1: .*{said}"):
        clevr(tree).setup()


def test_reading_it_again_from_the_cache_gives_the_same(tree):
    first, second = (clevr(tree).dataset("val") for _ in range(2))
    assert len(list((tree / "cache").iterdir())) == 2
    for dataset in (second, pickle.loads(pickle.dumps(first))):
        assert_equal(first.__getitems__([0, 1, 2]), dataset.__getitems__([0, 1, 2]))


def assert_equal(one, other):
    for name in ("index", "images", "questions", "answers", "question_types"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.skipif(not MINI.is_dir(), reason=f"{MINI} is absent (set ZOO_DATA)")
def test_every_question_of_clevr_mini_comes_back(tmp_path):
    data = clevr(MINI, cache=str(tmp_path), batch_size=64)
    entries = json.loads((MINI / "questions" / "CLEVR_val_questions.json").read_text())["questions"]
    wanted = defaultdict(list)
    for entry in entries:
        wanted[Path(entry["image_filename"]).stem].append(entry)
    dataset, names, counted = data.dataset("val"), data.ids("val"), Counter()
    assert len(dataset.questions) == 4000
    for start in range(0, 400, 100):
        images = range(start, start + 100)
        questions, answers, types = dataset.questions.batch(torch.tensor(images).numpy())
        for row, image in enumerate(images):
            asked = wanted[names[image]]
            read = [[word for word in words if word] for words in questions[row].tolist()]
            assert read == [WORDS.encode(entry["question"]) for entry in asked]
            assert [data.answers[answer] for answer in answers[row]] == [entry["answer"] for entry in asked]
            counted.update(data.question_types[kind] for kind in types[row])
    last = Counter(entry["program"][-1]["function"] for entry in entries)
    assert counted["count"] == last["count"]
    assert counted["compare_number/less"] == last["less_than"]
    assert counted["compare_attribute/shape"] == last["equal_shape"]
    assert counted["query/material"] == last["query_material"]
    assert set(counted) == set(data.question_types)
