"""Pairs of objects: building them, and summing a question's view of them without a copy per question."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn


def relate_pairs(objects: Tensor) -> Tensor:
    """Concatenate every object with every object, itself included.

    Args:
        objects: (B, O, D).

    Returns:
        (B, O*O, 2D); row ``i * O + j`` is object i followed by object j.

    Raises:
        ValueError: ``objects`` has not three dimensions.

    Source: the pair set of Eq. 1 of Santoro et al. 2017.
    """
    if objects.dim() != 3:
        raise ValueError(f"objects must be (B, O, D), got shape {tuple(objects.shape)}")
    batch, count, width = objects.shape
    first = objects[:, :, None, :].expand(batch, count, count, width)
    second = objects[:, None, :, :].expand(batch, count, count, width)
    return torch.cat([first, second], dim=-1).reshape(batch, count * count, 2 * width)


def add_pairs(first: Tensor, second: Tensor) -> Tensor:
    """Add every object's projection as first of a pair to every object's as second, itself included.

    A linear layer on a pair is a sum of two layers on its objects. Projecting the O objects and adding costs less than
    projecting the O*O pairs of ``relate_pairs``, which are never built.

    Args:
        first: (B, O, D), what the layer's left half of columns makes of the objects.
        second: (B, O, D), what its right half makes of them.

    Returns:
        (B, O*O, D), in the order of ``relate_pairs``.

    Raises:
        ValueError: the shapes differ or have not three dimensions.
    """
    _check_projections(first, second)
    return (first[:, :, None] + second[:, None]).flatten(1, 2)


def add_sampled_pairs(first: Tensor, second: Tensor, shifts: int) -> Tensor:
    """Pair every object with ``shifts`` others, so that each stands equally often in the first and second place.

    The objects of an image are put into a random order and paired with themselves, moved on cyclically by ``shifts``
    random steps. What depends on one object of the pair is then averaged without error, whatever ``shifts`` is; only
    what depends on both is sampled.

    Args:
        first: (B, O, D), see ``add_pairs``.
        second: (B, O, D).
        shifts: 1 … O; O gives all pairs, in another order than ``add_pairs``.

    Returns:
        (B, O*shifts, D).

    Raises:
        ValueError: the shapes differ, have not three dimensions, or ``shifts`` is outside 1 … O.
    """
    _check_projections(first, second)
    batch, count, width = first.shape
    if not 1 <= shifts <= count:
        raise ValueError(f"shifts must lie in 1 … O = {count}, got {shifts}")
    order = torch.rand(batch, count, device=first.device).argsort(dim=1)[..., None].expand(-1, -1, width)
    first, second = torch.gather(first, 1, order), torch.gather(second, 1, order)
    steps = torch.randperm(count)[:shifts].tolist()
    return torch.cat([first + second.roll(step, dims=1) for step in steps], dim=1)


def _check_projections(first: Tensor, second: Tensor) -> None:
    if first.dim() != 3 or first.shape != second.shape:
        raise ValueError(
            f"first and second must be (B, O, D) alike, got shapes {tuple(first.shape)}, {tuple(second.shape)}"
        )


def question_chunks(images: int, questions: int, chunk: int) -> list[tuple[slice, slice]]:
    """Cut a grid of B images × S questions into blocks of at most ``chunk`` questions.

    Blocks hold whole images where ``chunk`` allows it, otherwise a part of one image's questions.

    Raises:
        ValueError: ``chunk`` is below 1.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1 question, got {chunk}")
    rows = max(1, chunk // max(questions, 1))
    columns = min(chunk, max(questions, 1))
    return [
        (slice(i, min(i + rows, images)), slice(j, min(j + columns, questions)))
        for i in range(0, images, rows)
        for j in range(0, questions, columns)
    ]


class _ShiftedReluSum(torch.autograd.Function):
    """Σ_p layers(relu(pairs_p + shift_s)), recomputed in the backward pass: no (B, S, P, H) tensor is ever kept.

    Written out instead of left to `torch.utils.checkpoint`, whose small results, one for each block, lie between the
    large ones of the next and fragment the heap: it then grows by a block for every block.
    """

    @staticmethod
    def forward(ctx, pairs: Tensor, shifts: Tensor, chunk: int, *parameters: Tensor) -> Tensor:
        batch, questions, width = shifts.shape
        width = len(parameters[-1]) if parameters else width
        total = pairs.new_empty(batch, questions, width, dtype=torch.promote_types(pairs.dtype, torch.float32))
        layers = _layers(parameters, pairs.dtype)
        for rows, columns in question_chunks(batch, questions, chunk):
            hidden = _states(pairs[rows], shifts[rows, columns], layers)[-1]
            torch.sum(hidden, dim=2, dtype=total.dtype, out=total[rows, columns])
        ctx.save_for_backward(pairs, shifts, *parameters)
        ctx.chunk = chunk
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        pairs, shifts, *parameters = ctx.saved_tensors
        batch, questions, _ = shifts.shape
        # Sums over pairs and blocks are fp32 at least: bf16 stops counting at 256.
        grad_pairs = torch.zeros_like(pairs, dtype=grad.dtype)
        grad_shifts = torch.empty_like(shifts, dtype=grad.dtype)
        sums = [torch.zeros_like(parameter, dtype=grad.dtype) for parameter in parameters]
        layers, local = _layers(parameters, pairs.dtype), grad.to(pairs.dtype)
        for rows, columns in question_chunks(batch, questions, ctx.chunk):
            states = _states(pairs[rows], shifts[rows, columns], layers)
            # A unit that the ReLU cuts off passes no gradient on.
            flow = states.pop().sign_().mul_(local[rows, columns, None])
            for number, (weight, _) in reversed(list(enumerate(layers))):
                flat = flow.flatten(0, 2)
                sums[2 * number] += flat.T @ states[-1].flatten(0, 2)
                sums[2 * number + 1] += flat.sum(dim=0, dtype=grad.dtype)
                flow = states.pop().sign_().mul_(flow @ weight)
            grad_shifts[rows, columns] = flow.sum(dim=2, dtype=grad.dtype)
            grad_pairs[rows] += flow.sum(dim=1, dtype=grad.dtype)
        own = [total.to(parameter.dtype) for total, parameter in zip(sums, parameters, strict=True)]
        return grad_pairs.to(pairs.dtype), grad_shifts.to(shifts.dtype), None, *own


def _layers(parameters: Sequence[Tensor], dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """Return (weight, bias) of every layer in the dtype of the pairs, to which autocast can't bring them in here."""
    cast = [parameter.to(dtype) for parameter in parameters]
    return list(zip(cast[::2], cast[1::2], strict=True))


def _states(pairs: Tensor, shifts: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Return relu(pair + shift) and what each layer makes of the one before, all (B, S, P, ·)."""
    states = [(pairs[:, None] + shifts[:, :, None]).relu_()]
    for weight, bias in layers:
        states.append(F.linear(states[-1], weight, bias).relu_())
    return states


def shifted_relu_sum(pairs: Tensor, shifts: Tensor, chunk: int, layers: Sequence[nn.Linear] = ()) -> Tensor:
    """Sum relu(pair + shift), or what further layers make of it, over an image's pairs, once for each of its questions.

    The questions of an image share its pair projections, so that only what follows the question is repeated.

    Args:
        pairs: (B, P, H) projected pairs.
        shifts: (B, S, H) projected questions, of the same dtype.
        chunk: how many (image, question) rows are expanded to (P, H) at a time; it bounds memory, forward and backward.
        layers: linear layers with bias, each followed by a ReLU, that run on every pair.

    Returns:
        (B, S, H), or the width of the last layer, in at least fp32.

    Raises:
        ValueError: shapes or dtypes differ, or ``chunk`` is below 1.
    """
    if pairs.dim() != 3 or shifts.dim() != 3 or pairs.shape[::2] != shifts.shape[::2]:
        raise ValueError(f"pairs (B, P, H) and shifts (B, S, H) must share B and H, got {pairs.shape}, {shifts.shape}")
    if pairs.dtype != shifts.dtype:
        raise ValueError(f"pairs and shifts must have one dtype, got {pairs.dtype} and {shifts.dtype}")
    parameters = [parameter for layer in layers for parameter in (layer.weight, layer.bias)]
    return _ShiftedReluSum.apply(pairs, shifts, chunk, *parameters)
