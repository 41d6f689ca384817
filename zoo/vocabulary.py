"""The words of questions and the answers to them, fixed, so that a network's embedding means the same everywhere."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent / "vocabularies"
_TOKEN = re.compile(r"[.,;:!?()]|[^\s.,;:!?()]+")


@dataclass(frozen=True)
class Vocabulary:
    """Words and answers in a fixed order, which is what the rows of a word embedding and the classes stand for.

    Word ids count from 1, 0 is padding; answer ids count from 0.
    """

    name: str
    words: tuple[str, ...]
    answers: tuple[str, ...]
    _word_ids: dict[str, int] = field(init=False, repr=False, compare=False)
    _answer_ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_word_ids", {word: number for number, word in enumerate(self.words, start=1)})
        object.__setattr__(self, "_answer_ids", {answer: number for number, answer in enumerate(self.answers)})

    def encode(self, question: str) -> list[int]:
        """Returns the word ids of a question: lower case, every punctuation mark a word of its own.

        Raises ValueError for a word that the vocabulary lacks, or a question without words.
        """
        words = _TOKEN.findall(question.lower())
        unknown = [word for word in words if word not in self._word_ids]
        if unknown or not words:
            what = f"holds {unknown[0]!r}" if unknown else "is empty"
            raise ValueError(
                f"question must be made of the {len(self.words)} words of '{self.name}', {question!r} {what}"
            )
        return [self._word_ids[word] for word in words]

    def answer_id(self, answer: str) -> int:
        """Returns the class of an answer; raises ValueError for one that the vocabulary lacks."""
        if answer not in self._answer_ids:
            raise ValueError(f"answer must be one of {', '.join(self.answers)}, got {answer!r}")
        return self._answer_ids[answer]


def vocabulary(name: str) -> Vocabulary:
    """Returns the vocabulary of a name ("clevr": 82 words, 28 answers); raises ValueError naming those that exist."""
    files = _files()
    if not isinstance(name, str) or name not in files:
        raise ValueError(f"vocabulary must be one of {', '.join(files)}, got {name!r}")
    return _read(files[name])


@cache
def _files() -> dict[str, Path]:
    return {file.stem: file for file in sorted(_FOLDER.glob("*.json"))}


@cache
def _read(file: Path) -> Vocabulary:
    content = json.loads(file.read_text(encoding="utf-8"))
    return Vocabulary(file.stem, tuple(content["words"]), tuple(content["answers"]))
