from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.vocabulary import vocabulary

WORDS = vocabulary("clevr")
ROOT = Path(__file__).parents[1]
MINI = Path(os.environ.get("ZOO_DATA", ROOT.parent / "shared" / "data")) / "clevr_mini" / "questions"
MARKS = ".,;:!?()"


def questions() -> list[dict]:
    files = [MINI / f"CLEVR_{split}_questions.json" for split in ("train", "val")]
    return [entry for file in files for entry in json.loads(file.read_text())["questions"]]


def test_clevr_has_82_words_and_28_answers_all_different():
    assert (len(WORDS.words), len(set(WORDS.words))) == (82, 82)
    assert (len(WORDS.answers), len(set(WORDS.answers))) == (28, 28)
    assert {"yes", "no", *map(str, range(11))} < set(WORDS.answers)
    assert all(word == word.lower() and " " not in word for word in WORDS.words)


def test_ids_of_words_count_from_1_and_those_of_answers_from_0():
    assert [WORDS.encode(word) for word in WORDS.words] == [[number] for number in range(1, 83)]
    assert [WORDS.answer_id(answer) for answer in WORDS.answers] == list(range(28))
    assert vocabulary("clevr") is WORDS


@pytest.mark.skipif(not MINI.is_dir(), reason=f"{MINI} is absent (set ZOO_DATA)")
def test_the_questions_of_clevr_mini_use_all_words_and_answers_and_no_other():
    seen, answered = set(), set()
    for entry in questions():
        ids = WORDS.encode(entry["question"])
        # The rule in words: every punctuation mark is a token, the rest is split at spaces, case doesn't matter.
        spaced = re.sub(r"([.,;:!?()])", r" \1 ", entry["question"].lower()).split()
        assert [WORDS.words[number - 1] for number in ids] == spaced
        seen.update(ids)
        answered.add(WORDS.answer_id(entry["answer"]))
    assert seen == set(range(1, 83))
    assert all(WORDS.answers[number].isdecimal() for number in set(range(28)) - answered)  # of large counts are few


@given(st.lists(st.sampled_from(WORDS.words), min_size=1, max_size=50), st.booleans())
def test_what_is_encoded_comes_back(words, loud):
    text = " ".join(words)
    for mark in MARKS:
        text = text.replace(f" {mark}", mark)
    ids = WORDS.encode(text.upper() if loud else text)
    assert [WORDS.words[number - 1] for number in ids] == words


def test_unknown_words_and_answers_are_named():
    with pytest.raises(ValueError, match=r"the 82 words of 'clevr', 'How many dragons.' holds 'dragons'"):
        WORDS.encode("How many dragons?")
    with pytest.raises(ValueError, match="'  ' is empty"):
        WORDS.encode("  ")
    with pytest.raises(ValueError, match=r"answer must be one of .*, got 'maybe'"):
        WORDS.answer_id("maybe")


@pytest.mark.parametrize("name", ["../clevr", "../vocabularies/clevr", "./clevr", "clevr.json", "", None, ["clevr"]])
def test_vocabularies_are_known_by_the_names_of_their_files_alone(name):
    with pytest.raises(ValueError, match="vocabulary must be one of clevr, got ") as caught:
        vocabulary(name)
    assert str(caught.value).endswith(repr(name))


def test_vocabularies_are_found_in_a_wheel(tmp_path):
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site, [name for name in archive.namelist() if name.startswith("zoo/vocabular")])
    (site / "zoo" / "__init__.py").touch()
    code = "import zoo.vocabulary as v; print(v.__file__, len(v.vocabulary('clevr').words))"
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(site)!r}); {code}"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [str(site / "zoo" / "vocabulary.py"), "82"]
