"""The question encoder: words to vectors, an LSTM over them, its last state."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class QuestionEncoder(nn.Module):
    """Turn the word ids of a question into a vector.

    Every question is padded with 0 to ``length`` words and read backwards, padding first, so that its vector depends on
    nothing but its words. Padding has an embedding of its own that is trained like any other.

    Args:
        words: number of words, with ids from 1.
        word_dim: width of a word's embedding (paper: 32).
        question_dim: width of the LSTM (paper: 128).
        length: words of the longest question.

    Source: Sec. 4 of Santoro et al. 2017; padding, order and the cell state as in the code of Messina et al. 2018.
    """

    def __init__(self, words: int, word_dim: int, question_dim: int, length: int) -> None:
        super().__init__()
        self.length = length
        self.embedding = nn.Embedding(words + 1, word_dim)
        self.lstm = nn.LSTM(word_dim, question_dim, batch_first=True)

    def forward(self, questions: Tensor) -> Tensor:
        """Encode (B, S, T) word ids, 0 behind the last word, as (B, S, question_dim).

        Raises:
            ValueError: ``questions`` are not integers, or T is above ``length``.
        """
        if questions.is_floating_point():
            raise ValueError(f"questions must be word ids (integers), got {questions.dtype}")
        if questions.shape[-1] > self.length:
            raise ValueError(
                f"questions must have at most question_length = {self.length} words, got {questions.shape[-1]}"
            )
        padded = F.pad(questions, (0, self.length - questions.shape[-1])).flip(-1)
        # The authors' code takes the cell state, not the output: it alone makes sense of their weights.
        _, (_, cell) = self.lstm(self.embedding(padded.flatten(0, 1)))
        return cell[-1].unflatten(0, questions.shape[:2])


def padded(questions: Sequence[Sequence[Sequence[int]]]) -> Tensor:
    """Returns (B, S, T) int64: the word ids of the questions about each image, 0 behind the last word and question."""
    most = max((len(asked) for asked in questions), default=0)
    longest = max((len(ids) for asked in questions for ids in asked), default=0)
    table = torch.zeros(len(questions), most, longest, dtype=torch.long)
    for image, asked in enumerate(questions):
        for position, ids in enumerate(asked):
            table[image, position, : len(ids)] = torch.tensor(ids)
    return table
