"""RN and 2S-RN as one pure network: the layer at which the question joins tells them apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zoo.ops.relations import question_chunks, relate_pairs, sample_pairs, shifted_relu_sum

AGGREGATIONS = ("max", "avg")


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
        question_dim: width of a question (Sort-of-CLEVR: 11).
        answers: number of answers (Sort-of-CLEVR: 10).
        coordinate_range: the two coordinate channels go from minus to plus this value (authors' code: 4).
        pair_scale: factor on the sum over pairs; a power of ten or so below 1 steadies bf16 (PITFALLS.md).
        dropout: probability, paper .5.
        chunk: (image, question) rows expanded to all pairs at a time; bounds memory, changes no result.

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

    def forward(self, images: Tensor, questions: Tensor, pair_shifts: int | None = None) -> Tensor:
        """Answer S questions on each image.

        Args:
            images: (B, 3, H, W).
            questions: (B, S, question_dim).
            pair_shifts: relate every object to that many random objects instead of all O of them, and scale the sum
                up by O / pair_shifts. A training step then costs that much less; see ``sample_pairs``.

        Returns:
            Logits (B, S, answers).

        Raises:
            ValueError: ``pair_shifts`` is outside 1 … O.
        """
        objects = self._objects(self.conv(images))
        sampled = relate_pairs(objects) if pair_shifts is None else sample_pairs(objects, pair_shifts)
        pairs = self.h_pair(self._relate(sampled))
        scale = self.pair_scale * objects.shape[1] ** 2 / sampled.shape[1]
        state = scale * self._sum_over_pairs(pairs, self.h_question(questions.to(images.dtype)))
        for layer in self.f[:-1]:
            state = F.relu(layer(state))
        return self.f[-1](self.dropout(state))

    def relation_features(self, images: Tensor, aggregation: str, pair_norm: bool) -> Tensor:
        """Aggregate the question-free g over all pairs of (B, 3, H, W) to (B, D), D the width of its last layer.

        Args:
            images: (B, 3, H, W).
            aggregation: ``max`` or ``avg``.
            pair_norm: L2-normalise every pair vector first, as the authors' code does.

        Raises:
            ValueError: an unknown aggregation, or a network without question-free layer (RN).
        """
        return pool_pairs(self.relations(images), aggregation, pair_norm)

    def relations(self, images: Tensor) -> Tensor:
        """Return the question-free g of every pair, (B, 3, H, W) to (B, P, D).

        Raises:
            ValueError: a network without question-free layer (RN).
        """
        if not self.g:
            raise ValueError("relation features need a question-free layer, but question_layer is 0 (RN)")
        return self._relate(relate_pairs(self._objects(self.conv(images))))

    def conv_features(self, images: Tensor, aggregation: str) -> Tensor:
        """Aggregate the last convolution map of (B, 3, H, W) over its positions to (B, conv[-1])."""
        return pool_pairs(self.conv(images).flatten(2).transpose(1, 2), aggregation, pair_norm=False)

    def _objects(self, maps: Tensor) -> Tensor:
        """Return the map's positions with their coordinates as objects: (B, C, H, W) to (B, H*W, C + 2)."""
        return torch.cat([maps, self._coordinates(maps)], dim=1).flatten(2).transpose(1, 2)

    def _relate(self, pairs: Tensor) -> Tensor:
        """Run the question-free layers on (B, P, 2D)."""
        for layer in self.g:
            pairs = F.relu(layer(pairs))
        return pairs

    def _coordinates(self, maps: Tensor) -> Tensor:
        """Return the coordinate channels x, y of the map's positions, (B, 2, H, W)."""
        batch, _, height, width = maps.shape
        y, x = (torch.linspace(-self.coordinate_range, self.coordinate_range, n).to(maps) for n in (height, width))
        return torch.stack([x.expand(height, width), y[:, None].expand(height, width)]).expand(batch, -1, -1, -1)

    def _sum_over_pairs(self, pairs: Tensor, shifts: Tensor) -> Tensor:
        """Sum what h makes of every pair in the light of every question: (B, P, H), (B, S, H) to (B, S, H')."""
        if not self.h:
            return shifted_relu_sum(pairs, shifts, self.chunk)
        rows: dict[int, list[Tensor]] = {}
        for images, questions in question_chunks(len(shifts), shifts.shape[1], self.chunk):
            block = pairs[images], shifts[images, questions]
            # Recomputed in the backward pass: kept activations would grow with S times P.
            total = checkpoint(self._deep_block, *block, use_reentrant=False, preserve_rng_state=False)
            rows.setdefault(images.start, []).append(total)
        return torch.cat([torch.cat(blocks, dim=1) for blocks in rows.values()])

    def _deep_block(self, pairs: Tensor, shifts: Tensor) -> Tensor:
        state = F.relu(pairs[:, None] + shifts[:, :, None])
        for layer in self.h:
            state = F.relu(layer(state))
        return state.sum(dim=2, dtype=torch.promote_types(state.dtype, torch.float32))


def _conv_block(channels: int, width: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, kernel_size=3, stride=2, padding=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))


def pool_pairs(items: Tensor, aggregation: str, pair_norm: bool) -> Tensor:
    """Aggregate (B, P, D) to (B, D) by ``max`` or ``avg``, each vector L2-normalised before if ``pair_norm``.

    Raises:
        ValueError: an unknown aggregation.
    """
    items = F.normalize(items, dim=-1) if pair_norm else items
    if aggregation not in AGGREGATIONS:
        raise ValueError(f"aggregation must be one of {AGGREGATIONS}, got {aggregation!r}")
    return items.amax(dim=1) if aggregation == "max" else items.mean(dim=1)


def _check(question_layer: int, chunk: int, **widths: Sequence[int]) -> None:
    for name, values in widths.items():
        if not values or min(values) < 1:
            raise ValueError(f"{name} must be a non-empty list of positive widths, got {list(values)}")
    if not 0 <= question_layer <= len(widths["g"]):
        raise ValueError(f"question_layer must lie in 0 … len(g) = {len(widths['g'])}, got {question_layer}")
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1 question, got {chunk}")
