"""Questions of the CLEVR v1.0 layout: read one at a time, kept as word ids, grouped by image."""

from __future__ import annotations

from array import array
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zoo.data._clevr_cache import cached_arrays
from zoo.files import BadFile
from zoo.vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import BinaryIO

    from torch import Tensor

_ATTRIBUTES = ("size", "color", "material", "shape")
_TYPES = {  # last function of a question's program → its type
    "count": "count",
    "exist": "exist",
    "equal_integer": "compare_number/equal",
    "less_than": "compare_number/less",
    "greater_than": "compare_number/greater",
    **{f"query_{name}": f"query/{name}" for name in _ATTRIBUTES},
    **{f"equal_{name}": f"compare_attribute/{name}" for name in _ATTRIBUTES},
}
_TYPE_IDS = {function: number for number, function in enumerate(_TYPES)}
QUESTION_TYPES = tuple(_TYPES.values())
_FORMAT = 1  # to be raised with any change of what is kept of a questions file


class ImageQuestions:
    """The questions of N images, image by image in the order in which they stand in their files.

    Each file is what `read_questions` returned; `positions` says, for the names of its images, where those stand in the
    split; questions about other images are left out.
    """

    def __init__(self, files: Sequence[tuple[dict[str, np.ndarray], Mapping[str, int]]], images: int) -> None:
        places = [_places(arrays, positions) for arrays, positions in files]
        image = np.concatenate([place[arrays["image"]] for place, (arrays, _) in zip(places, files, strict=True)])
        order = np.argsort(np.where(image < 0, images, image), kind="stable")[: int((image >= 0).sum())]
        lengths, answers, types = (
            np.concatenate([arrays[name] for arrays, _ in files]) for name in ("lengths", "answers", "types")
        )
        self._words = np.concatenate([arrays["words"] for arrays, _ in files])
        self._first_word = (np.cumsum(lengths, dtype=np.int64) - lengths)[order]
        self._lengths, self._answers, self._types = lengths[order].astype(np.int64), answers[order], types[order]
        self._counts = np.bincount(image[order], minlength=images)
        self._first = np.cumsum(self._counts) - self._counts

    def __len__(self) -> int:
        """Returns the number of questions of all images."""
        return len(self._lengths)

    def batch(self, images: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Returns questions (B, S, T), answers (B, S), types (B, S) of images, int64, padded with 0, -1 and -1.

        S is the most questions of an image, T the most words of a question, both at least 1.
        """
        counts = self._counts[images]
        rows = _spans(self._first[images], counts)
        lengths = self._lengths[rows]
        asked = np.arange(max(1, counts.max(initial=0))) < counts[:, None]
        questions = np.zeros((*asked.shape, max(1, lengths.max(initial=0))), np.int64)
        answers, types = np.full(asked.shape, -1), np.full(asked.shape, -1)
        answers[asked], types[asked] = self._answers[rows], self._types[rows]
        filled = np.zeros(questions.shape, bool)
        filled[asked] = np.arange(questions.shape[2]) < lengths[:, None]
        questions[filled] = self._words[_spans(self._first_word[rows], lengths)]
        return tuple(torch.from_numpy(values) for values in (questions, answers, types))


def read_questions(file: Path, vocabulary: Vocabulary, cache: Path) -> dict[str, np.ndarray]:
    """Returns the questions of a file as arrays, in its order.

    `names (K,)` of the images asked about (stems of `image_filename`); for each of N questions `image (N,)` into
    `names`, `lengths (N,)` in words, `answers (N,)` and `types (N,)` with -1 where unknown; all `words` in one row.
    Raises FileNotFoundError, or BadFile where the file is damaged, isn't a questions file, or holds a word, an answer
    or a program that isn't known.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"questions must name a CLEVR questions file, got {file}, which doesn't exist: fetch it, set "
            "data.questions, or set data.questions=null for images without questions"
        )
    parameters = {"format": _FORMAT, "words": vocabulary.words, "answers": vocabulary.answers}
    return cached_arrays(cache, "questions", file, parameters, lambda: _encode(file, vocabulary))


def _encode(file: Path, vocabulary: Vocabulary) -> dict[str, np.ndarray]:
    names: dict[str, int] = {}
    columns = {"image": array("i"), "lengths": array("H"), "answers": array("h"), "types": array("b")}
    words = array("H")
    for number, question in enumerate(_questions(file)):
        try:
            row = _row(question, vocabulary)
        except ValueError as error:
            raise BadFile(f"questions file {file}, question {number}: {error}") from error
        stem, ids, answer, kind = row
        words.extend(ids)
        image = names.setdefault(stem, len(names))
        for column, value in zip(columns.values(), (image, len(ids), answer, kind), strict=True):
            column.append(value)
    if not names:
        raise BadFile(
            f'questions file {file} must hold {{"questions": [{{"image_filename": …, "question": …}}, …]}}, got none; '
            "is it a questions file? Set data.questions=null for images without questions"
        )
    return {"names": np.array(list(names)), "words": _array(words), **{k: _array(v) for k, v in columns.items()}}


def _row(question: Any, vocabulary: Vocabulary) -> tuple[str, list[int], int, int]:
    """Returns the image's name, the word ids, the class of the answer and the type of a question."""
    for key in ("image_filename", "question"):
        if not isinstance(question, dict) or not isinstance(question.get(key), str):
            raise ValueError(
                f"a question must be an object with the text {key!r}, got {str(question)[:80]}; is it a file of CLEVR "
                "v1.0? Set data.questions=null for images without questions"
            )
    answer = question.get("answer")
    if isinstance(answer, bool):  # as CLEVR's generator has it before its answers become words
        answer = "yes" if answer else "no"
    known = -1 if answer is None else vocabulary.answer_id(str(answer))
    return Path(question["image_filename"]).stem, vocabulary.encode(question["question"]), known, _type(question)


def _type(question: dict[str, Any]) -> int:
    program = question.get("program")
    if not program:
        return -1
    last = program[-1] if isinstance(program, list) else program
    if not isinstance(last, dict):
        raise ValueError(f"a program must be a list of objects, got {str(program)[:80]}")
    function = last.get("function", last.get("type"))  # the generator's own word is "type"
    if not isinstance(function, str) or function not in _TYPE_IDS:
        raise ValueError(f"a program must end in one of {', '.join(_TYPE_IDS)}, got {function!r}")
    return _TYPE_IDS[function]


def _questions(file: Path) -> Iterator[Any]:
    import ijson

    number = 0
    with _shown(file) as stream:
        try:
            for question in ijson.items(stream, "questions.item", use_float=True):
                yield question
                number += 1
        except (ijson.JSONError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise BadFile(
                f"questions file {file} is damaged or truncated behind {number} questions ({reason}); fetch it "
                "again, or set data.questions=null for images without questions"
            ) from error


@contextmanager
def _shown(file: Path) -> Iterator[BinaryIO]:
    """Opens a file and shows on standard error how much of it has been read."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with (
        Progress(*columns, console=Console(stderr=True), transient=True) as progress,
        progress.open(file, "rb", description=f"reading {file.name}") as stream,
    ):
        yield stream


def _places(arrays: dict[str, np.ndarray], positions: Mapping[str, int]) -> np.ndarray:
    return np.array([positions.get(name, -1) for name in arrays["names"].tolist()], np.int64)


def _spans(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Returns start, start + 1 … start + length - 1 for every pair, one after another."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - lengths), lengths)


def _array(values: array) -> np.ndarray:
    return np.frombuffer(values, values.typecode) if len(values) else np.zeros(0, values.typecode)
