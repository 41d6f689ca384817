"""Pairs of objects: building them, and summing a question's view of them without a copy per question."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


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


def chunk_shape(questions: int, chunk: int) -> tuple[int, int]:
    """Return (images, questions of each) of a block that holds at most ``chunk`` questions.

    Blocks hold whole images where ``chunk`` allows it, otherwise a part of one image's questions.

    Raises:
        ValueError: ``chunk`` is below 1.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1 question, got {chunk}")
    return max(1, chunk // max(questions, 1)), min(chunk, max(questions, 1))


def question_chunks(images: int, questions: int, chunk: int) -> list[tuple[slice, slice]]:
    """Cut a grid of B images × S questions into blocks of ``chunk_shape``.

    Raises:
        ValueError: ``chunk`` is below 1.
    """
    rows, columns = chunk_shape(questions, chunk)
    return [
        (slice(i, min(i + rows, images)), slice(j, min(j + columns, questions)))
        for i in range(0, images, rows)
        for j in range(0, questions, columns)
    ]


class _ShiftedReluSum(torch.autograd.Function):
    """Σ_p relu(pairs_p + shift_s), recomputed in the backward pass so that no (B, S, P, H) tensor is ever kept."""

    @staticmethod
    def forward(ctx, pairs: Tensor, shifts: Tensor, chunk: int) -> Tensor:
        batch, questions, width = shifts.shape
        total = pairs.new_empty(batch, questions, width, dtype=torch.promote_types(pairs.dtype, torch.float32))
        for rows, columns in question_chunks(batch, questions, chunk):
            hidden = (pairs[rows, None] + shifts[rows, columns, None]).relu_()
            torch.sum(hidden, dim=2, dtype=total.dtype, out=total[rows, columns])
        ctx.save_for_backward(pairs, shifts)
        ctx.chunk = chunk
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        pairs, shifts = ctx.saved_tensors
        batch, questions, _ = shifts.shape
        grad_pairs = torch.zeros_like(pairs, dtype=grad.dtype)
        grad_shifts = torch.empty_like(shifts, dtype=grad.dtype)
        local = grad.to(pairs.dtype)
        for rows, columns in question_chunks(batch, questions, ctx.chunk):
            active = (pairs[rows, None] + shifts[rows, columns, None]).gt_(0)
            # 0/1 counts are exact in fp32 only: bf16 stops counting at 256.
            grad_shifts[rows, columns] = grad[rows, columns] * active.sum(dim=2, dtype=grad.dtype)
            grad_pairs[rows] += active.mul_(local[rows, columns, None]).sum(dim=1, dtype=grad.dtype)
        return grad_pairs.to(pairs.dtype), grad_shifts.to(shifts.dtype), None


def shifted_relu_sum(pairs: Tensor, shifts: Tensor, chunk: int) -> Tensor:
    """Sum relu(pair + shift) over the pairs of an image, once for each of its questions.

    The questions of an image share its pair projections, so that only this cheap step is repeated per question.

    Args:
        pairs: (B, P, H) projected pairs.
        shifts: (B, S, H) projected questions, of the same dtype.
        chunk: how many (image, question) rows are expanded to (P, H) at a time; it bounds memory, forward and backward.

    Returns:
        (B, S, H) in at least fp32.

    Raises:
        ValueError: shapes or dtypes differ, or ``chunk`` is below 1.
    """
    if pairs.dim() != 3 or shifts.dim() != 3 or pairs.shape[::2] != shifts.shape[::2]:
        raise ValueError(f"pairs (B, P, H) and shifts (B, S, H) must share B and H, got {pairs.shape}, {shifts.shape}")
    if pairs.dtype != shifts.dtype:
        raise ValueError(f"pairs and shifts must have one dtype, got {pairs.dtype} and {shifts.dtype}")
    return _ShiftedReluSum.apply(pairs, shifts, chunk)
