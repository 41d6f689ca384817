"""RN and 2S-RN as one pure network: the layer at which the question joins tells them apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.models.two_stage_rn.pooling import FEATURES, LEARNED, Pooling, pool
from zoo.ops.relations import add_pairs, add_sampled_pairs, shifted_relu_sum

MOST_OBJECTS = 1024  # 32 × 32, a million pairs; photos at their own shape would take hours each


class TwoStageRNNet(nn.Module):
    """Answer questions about an image from all pairs of its objects, a pair being related before the question is read.

    The pair layers are ``g`` followed by ``h``. The question is concatenated to the input of layer ``question_layer``
    of that chain: 0 is the plain RN (the question joins the pair vector, every layer runs per question), ``len(g)`` the
    2S-RN (all of g is question-free). What lies before runs once per image, however many questions it has.

    Args:
        conv: channels of the 3×3, stride-2 convolutions (paper: 24, 24, 24, 24).
        g: widths of the pair layers (Sort-of-CLEVR: 2048, 1024, 512, 256).
        h: widths of the layers behind g, summed over the pairs (Sort-of-CLEVR: 256).
        f: widths of the hidden answer layers (256, 256); dropout follows the last of them.
        question_layer: 0 … len(g), see above.
        question_dim: width of a question (Sort-of-CLEVR: 11), or of what ``text`` makes of its words.
        answers: number of answers (Sort-of-CLEVR: 10).
        coordinate_range: the two coordinate channels go from minus to plus this value (authors' code: 4).
        pair_scale: factor on the sum over pairs; a power of ten or so below 1 steadies bf16 (PITFALLS.md).
        dropout: probability, paper .5.
        chunk: images, or (image, question) rows, expanded to all pairs at a time; bounds memory, changes no result.
        text: turns word ids (B, S, T) into questions (B, S, question_dim); None = questions are vectors already.
        attention: aggregates relations (B, P, D) to (B, D') where ``learned`` is asked for; None = it isn't.

    Raises:
        ValueError: a width list is empty, ``question_layer`` is outside g, or ``chunk`` is below 1.

    Source: Sec. 3 of Messina et al. 2018; Santoro et al. 2017 for ``question_layer=0``.
    """

    def __init__(
        self,
        conv: Sequence[int],
        g: Sequence[int],
        h: Sequence[int],
        f: Sequence[int],
        question_layer: int,
        question_dim: int,
        answers: int,
        coordinate_range: float,
        pair_scale: float,
        dropout: float,
        chunk: int,
        text: nn.Module | None = None,
        attention: nn.Module | None = None,
    ) -> None:
        super().__init__()
        _check(conv=conv, g=g, h=h, f=f, question_layer=question_layer, chunk=chunk)
        self.coordinate_range, self.pair_scale, self.chunk = coordinate_range, pair_scale, chunk
        widths = [2 * (conv[-1] + 2), *g, *h]
        before, after = widths[: question_layer + 1], widths[question_layer + 1 :]
        self.conv = nn.Sequential(*(_conv_block(a, b) for a, b in pairwise([3, *conv])))
        self.g = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(before))
        self.h_pair = nn.Linear(before[-1], after[0])
        self.h_question = nn.Linear(question_dim, after[0], bias=False)
        self.h = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(after))
        self.f = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise([after[-1], *f, answers]))
        self.dropout = nn.Dropout(dropout)
        self.text, self.attention = text, attention

    def forward(self, images: Tensor, questions: Tensor, pair_shifts: int | None = None) -> Tensor:
        """Answer S questions on each image.

        Args:
            images: (B, 3, H, W).
            questions: (B, S, question_dim), or word ids (B, S, T) with 0 behind the last word.
            pair_shifts: relate every object to that many random objects instead of all O of them, and scale the sum
                up by O / pair_shifts. A training step then costs that much less; see ``add_sampled_pairs``.

        Returns:
            Logits (B, S, answers).

        Raises:
            ValueError: ``pair_shifts`` is outside 1 … O, or a question is too long.
        """
        objects = self._objects(self.conv(images))
        pairs = self._relate(objects, [*self.g, self.h_pair], pair_shifts)
        scale = self.pair_scale * objects.shape[1] ** 2 / pairs.shape[1]
        questions = questions.to(images.dtype) if self.text is None else self.text(questions)
        state = scale * shifted_relu_sum(pairs, self.h_question(questions), self.chunk, self.h)
        for layer in self.f[:-1]:
            state = F.relu(layer(state))
        return self.f[-1](self.dropout(state))

    def describe(self, images: Tensor, poolings: Sequence[Pooling]) -> list[Tensor]:
        """Read descriptors off images, several at the price of one.

        Args:
            images: (B, 3, H, W).
            poolings: what to return, in order.

        Returns:
            (B, D) for every pooling: D is conv[-1] for conv features, the width of the last layer of g for the others.

        Raises:
            ValueError: an unknown feature or aggregation, or relation features where no layer is question-free (RN).
        """
        maps = self.conv(images)
        # Block by block: the pairs of a whole batch fall out of the caches, which costs three times the time.
        blocks = [self._describe(block, poolings) for block in maps.split(self.chunk)]
        return [torch.cat(parts) for parts in zip(*blocks, strict=True)]

    def _describe(self, maps: Tensor, poolings: Sequence[Pooling]) -> list[Tensor]:
        items = {feature: self._items(maps, feature) for feature in {pooling.feature for pooling in poolings}}
        return [self._pool(items[pooling.feature], pooling) for pooling in poolings]

    def _pool(self, items: Tensor, pooling: Pooling) -> Tensor:
        if pooling.aggregation == LEARNED and self.attention is not None:
            return self.attention(items)
        return pool(items, pooling.aggregation, pooling.pair_norm)

    def attend(self, images: Tensor, pair_shifts: int | None) -> Tensor:
        """Aggregate relations by attention as in ``describe``, with gradients for the attention alone.

        Args:
            images: (B, 3, H, W).
            pair_shifts: as in ``forward``.

        Returns:
            (B, D), D being what the attention puts out.
        """
        with torch.no_grad():
            pairs = self._relate(self._objects(self.conv(images)), self.g, pair_shifts).relu_()
        return self.attention(pairs)

    def _items(self, maps: Tensor, feature: str) -> Tensor:
        """Return what a feature is pooled over, (B, C, H, W) to (B, N, D)."""
        if feature not in FEATURES:
            raise ValueError(f"feature must be one of {', '.join(FEATURES)}, got {feature!r}")
        if feature == "conv":
            return maps.flatten(2).transpose(1, 2)
        if not self.g:
            raise ValueError("relation features need a question-free layer, but question_layer is 0 (RN)")
        return self._relate(self._objects(maps), self.g).relu_()

    def _objects(self, maps: Tensor) -> Tensor:
        """Return the map's positions with their coordinates as objects: (B, C, H, W) to (B, H*W, C + 2)."""
        height, width = maps.shape[2:]
        if height * width > MOST_OBJECTS:
            raise ValueError(
                f"images must give at most {MOST_OBJECTS} objects, got {height} × {width}: set data.image_size to what "
                "the model was trained on (75 for Sort-of-CLEVR, 128 for CLEVR)"
            )
        return torch.cat([maps, self._coordinates(maps)], dim=1).flatten(2).transpose(1, 2)

    def _relate(self, objects: Tensor, layers: Sequence[nn.Linear], shifts: int | None = None) -> Tensor:
        """Run layers on pairs of (B, O, D) objects, ReLU between them, to (B, P, width of the last)."""
        first_half, second_half = layers[0].weight.chunk(2, dim=1)
        projected = F.linear(objects, first_half, layers[0].bias), F.linear(objects, second_half)
        pairs = add_pairs(*projected) if shifts is None else add_sampled_pairs(*projected, shifts)
        for layer in layers[1:]:
            pairs = layer(pairs.relu_())
        return pairs

    def _coordinates(self, maps: Tensor) -> Tensor:
        """Return the coordinate channels x, y of the map's positions, (B, 2, H, W)."""
        batch, _, height, width = maps.shape
        y, x = (torch.linspace(-self.coordinate_range, self.coordinate_range, n).to(maps) for n in (height, width))
        return torch.stack([x.expand(height, width), y[:, None].expand(height, width)]).expand(batch, -1, -1, -1)


def _conv_block(channels: int, width: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, kernel_size=3, stride=2, padding=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))


def _check(question_layer: int, chunk: int, **widths: Sequence[int]) -> None:
    for name, values in widths.items():
        if not isinstance(values, Sequence) or not values or min(values) < 1:
            raise ValueError(f"{name} must be a non-empty list of positive widths, got {values!r}")
    if not 0 <= question_layer <= len(widths["g"]):
        raise ValueError(f"question_layer must lie in 0 … len(g) = {len(widths['g'])}, got {question_layer}")
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1 question, got {chunk}")
