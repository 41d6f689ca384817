"""One split of CLEVR: its images, their scene graphs and questions, in ready-made batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Dataset

from zoo.data._clevr_files import Part, image_files
from zoo.data._clevr_questions import QUESTION_TYPES, ImageQuestions, read_questions
from zoo.data._clevr_scenes import read_scenes
from zoo.data._pictures import ImageFiles
from zoo.data._scenes import uniforms
from zoo.files import BadFile
from zoo.truth import PackedGraphs
from zoo.types import Batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from zoo.vocabulary import Vocabulary

# The paper's public code: black around the picture, a window of its own size, a turn of up to 0.05 rad, nearest pixel.
_MARGIN, _DEGREES = 8, 2.8
_JITTER_DRAWS = 3


@dataclass(frozen=True)
class ClevrSplit(Dataset):
    """Batches of a split, with `names (N)` of its images, and `graphs` and `questions` where it has them."""

    files: ImageFiles
    names: list[str]
    graphs: PackedGraphs | None
    questions: ImageQuestions | None
    vocabulary: str

    def __len__(self) -> int:
        return len(self.names)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        return self._asked(self.files.__getitems__(indices))

    def jittered(self, indices: Sequence[int], streams: Sequence[str]) -> Batch:
        """Returns the batch with every picture shifted and turned at random, as its position in its stream says."""
        draws = [uniforms(s, int(i), int(i) + 1, _JITTER_DRAWS)[0] for i, s in zip(indices, streams, strict=True)]
        pictures = [jitter(picture, *d) for picture, d in zip(self.files.pictures(indices), draws, strict=True)]
        return self._asked(self.files.batch(indices, pictures))

    def _asked(self, batch: Batch) -> Batch:
        if self.questions is None:
            return batch
        questions, answers, types = self.questions.batch(batch.index.numpy())
        return replace(
            batch,
            questions=questions,
            answers=answers,
            question_types=types,
            question_type_names=QUESTION_TYPES,
            vocabulary=self.vocabulary,
        )


class Jittered(Dataset):
    """A split for training: a picture's shift and turn depend on `stream`, the epoch and its position alone.

    It takes the positions that `EpochSampler` draws.
    """

    def __init__(self, split: ClevrSplit, stream: str) -> None:
        self.split, self.stream = split, stream

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, indices: Sequence[Any]) -> Batch:
        return self.split.jittered(indices, [f"{self.stream}/{index.epoch}" for index in indices])


def jitter(picture: Image.Image, left: float, top: float, turn: float) -> Image.Image:
    """Returns a picture shifted by up to 8 px and turned by up to 2.8°, black where nothing was.

    `left`, `top`, `turn` are uniform in [0, 1): torchvision's Pad(8), RandomCrop(own size), RandomRotation(2.8).
    """
    x, y = (int(draw * (2 * _MARGIN + 1)) - _MARGIN for draw in (left, top))
    return picture.crop((x, y, x + picture.width, y + picture.height)).rotate((2 * turn - 1) * _DEGREES)


def open_split(
    split: str,
    parts: Sequence[Part],
    image_size: tuple[int, int],
    vocabulary: Vocabulary,
    limit: int | None,
    cache: Path,
) -> ClevrSplit:
    """Reads a split, joined of its parts; `limit` keeps the first so many images.

    Raises FileNotFoundError and BadFile for files that are missing or unusable, or that don't belong together.
    """
    names, paths, graphs, questions = [], [], [], []
    for number, part in enumerate(parts):
        room = None if limit is None else limit - len(names)
        if room == 0:
            break
        images = image_files(part.images, split)
        stems, own_graphs = _described(part, images, cache)
        kept = stems[:room]
        graphs.append(None if own_graphs is None else own_graphs[: len(kept)])
        if part.questions is not None:
            arrays = read_questions(part.questions, vocabulary, cache)
            _check_asked(split, part, arrays["names"], stems)
            questions.append((arrays, {stem: place for place, stem in enumerate(kept, start=len(names))}))
        # Stems of different trees may be the same: CLEVR's own and its imitations count from 0.
        names += [f"{number}/{stem}" if len(parts) > 1 else stem for stem in kept]
        paths += [images[stem] for stem in kept]
    packed = None if any(part is None for part in graphs) else PackedGraphs.concatenate(graphs)
    asked = ImageQuestions(questions, len(names)) if questions else None
    return ClevrSplit(ImageFiles(paths, image_size, upright=False), names, packed, asked, vocabulary.name)


def _described(part: Part, images: dict[str, Path], cache: Path) -> tuple[list[str], PackedGraphs | None]:
    """Returns the stems of a part's images in order: its scenes', where it has them, otherwise sorted."""
    if part.scenes is None or not part.scenes.is_file():
        return list(images), None
    names, graphs = read_scenes(part.scenes, cache)
    kept = [position for position, name in enumerate(names) if name in images]
    if not kept:
        raise BadFile(
            f"images must be of at least one scene, got {len(images)} images in {part.images} and {len(names)} scenes "
            f"in {part.scenes}, none of the same name; are they of the same split?"
        )
    return [names[position] for position in kept], graphs[np.array(kept)]


def _check_asked(split: str, part: Part, asked: np.ndarray, stems: list[str]) -> None:
    """Raises BadFile where a part's questions are about none of its images, whether or not a limit keeps those."""
    if set(asked.tolist()).isdisjoint(stems):
        raise BadFile(
            f"questions must ask about images of split '{split}', got {part.questions}, which asks about none of the "
            f"{len(stems)} in {part.images}"
        )
