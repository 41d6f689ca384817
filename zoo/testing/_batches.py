"""What the contract test of data asks of a batch."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import torch

from zoo.testing.models import _require
from zoo.types import Batch, PairBatch, ShortlistBatch

if TYPE_CHECKING:
    from torch import Tensor

_QUESTIONS = ("questions", "answers", "question_types")


def check_batch(batch: Any, data: Any, size: int, gives: tuple[str, ...] = ()) -> None:
    """Checks a batch of a split of `size` positions: its type, the fields that `gives` names, shapes, types, ranges."""
    kinds = {Batch: _check_images, PairBatch: _check_pairs, ShortlistBatch: _check_shortlists}
    _require(type(batch) in kinds, f"batches must be {_names(kinds)} of zoo.types, got {type(batch).__name__}")
    index = batch.index
    _require(index.dtype == torch.int64 and index.dim() == 1, f"index must be int64 (B,), got {_told(index)}")
    _require(bool(((index >= 0) & (index < size)).all()), f"index must lie in 0 … {size - 1}, got {index.tolist()}")
    lacking = [name for name in gives if getattr(batch, name, None) is None]
    _require(not lacking, f"batches must fill what `gives` names, {', '.join(lacking)} is None")
    for name, value in tensors(batch).items():
        rows = value.shape[1] if name == "distances" else len(value)
        _require(rows == len(index), f"{name}: one row an image, got {rows} for {len(index)} images")
        whole = not value.is_floating_point() or bool(value.isfinite().all())
        _require(whole, f"{name}: values must be finite")
    kinds[type(batch)](batch, data)


def tensors(batch: Any) -> dict[str, Tensor]:
    """Returns the fields of a batch that hold tensors."""
    return {f.name: getattr(batch, f.name) for f in fields(batch) if isinstance(getattr(batch, f.name), torch.Tensor)}


def same_batches(one: Any, other: Any) -> bool:
    """Tells whether two batches hold the same."""
    left, right = tensors(one), tensors(other)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def _check_images(batch: Batch, data: Any) -> None:
    _pictures("images", batch.images)
    if batch.descriptors is not None:
        made = batch.descriptors.is_floating_point() and batch.descriptors.dim() == 2
        _require(made, f"descriptors must be floating point (B, D), got {_told(batch.descriptors)}")
    if batch.original_size is not None:
        sizes = batch.original_size
        fits = sizes.dtype == torch.int64 and sizes.shape[1:] == (2,) and bool((sizes > 0).all())
        _require(fits, f"original_size must be int64 (B, 2), height and width in px, got {_told(sizes)}")
    _check_questions(batch, data)
    if batch.distances is not None:
        square = batch.distances.shape[1:] == (len(batch), len(batch)) and bool((batch.distances >= 0).all())
        _require(square, f"distances must be (G, B, B) and not negative, got {_told(batch.distances)}")
    if batch.label_map is not None:
        labels, most = batch.label_map, len(data.classes)
        like = labels.dtype == torch.int64 and labels.shape[1:] == batch.images.shape[2:]
        _require(like, f"label_map must be int64 (B, H, W), H and W those of images, got {_told(labels)}")
        within = bool(((labels >= -1) & (labels < most)).all())
        _require(within, f"label_map must hold -1 … {most - 1}, the positions in data.classes")


def _check_questions(batch: Batch, data: Any) -> None:
    there = [name for name in (*_QUESTIONS, "question_type_names") if _filled(getattr(batch, name))]
    _require(len(there) in (0, 4), f"questions, answers, question_types and their names: all or none, got {there}")
    if not there:
        return
    _require(hasattr(data, "question_types"), "data with questions must name their types in question_types")
    words = batch.questions.dtype == torch.int64
    _require(words or batch.questions.dtype == torch.float32, "questions must be float32 vectors or int64 word ids")
    _require(not words or batch.vocabulary is not None, "questions in words must name their vocabulary")
    for name, most in (("answers", len(data.answers)), ("question_types", len(batch.question_type_names))):
        values = getattr(batch, name)
        shaped = values.dtype == torch.int64 and values.shape == batch.questions.shape[:2]
        _require(shaped, f"{name} must be int64 (B, S), S as in questions, got {_told(values)}")
        low = -1 if name == "answers" else 0
        within = bool(((values >= low) & (values < most)).all())
        _require(within, f"{name} must lie in {low} … {most - 1}")


def _check_pairs(batch: PairBatch, data: Any) -> None:
    _pictures("queries", batch.queries)
    _pictures("galleries", batch.galleries)
    height, width = batch.galleries.shape[2:]
    left, top, right, bottom = batch.boxes.unbind(1)
    inside = (left >= 0) & (top >= 0) & (left < right) & (top < bottom) & (right <= width) & (bottom <= height)
    _require(bool(inside.all()), "boxes must be x0, y0, x1, y1 inside the gallery image")
    _require(batch.objects.dtype == torch.int64, f"objects must be int64 (B,), got {_told(batch.objects)}")


def _check_shortlists(batch: ShortlistBatch, data: Any) -> None:
    _require((batch.rows is None) != (batch.descriptors is None), "a shortlist holds rows or descriptors, one of both")
    hits = batch.relevant.shape[1]
    _require(batch.relevant.dtype == torch.bool, f"relevant must be bool (B, K), got {_told(batch.relevant)}")
    listed = batch.rows if batch.rows is not None else batch.descriptors
    _require(
        listed.shape[1] == 1 + hits, f"rows or descriptors must hold the query and {hits} hits, got {_told(listed)}"
    )
    fewer = bool((batch.positives < batch.relevant.sum(1)).any())
    _require(not fewer, "positives must count all relevant images, those among the hits included")
    if batch.rows is not None:
        _require(bool((batch.rows[:, 0] >= 0).all()), "rows must begin with that of the query")
        ended = bool((batch.relevant & (batch.rows[:, 1:] < 0)).any())
        _require(not ended, "relevant must be False where a list has ended")


def _pictures(name: str, images: Tensor) -> None:
    shaped = images.dim() == 4 and images.shape[1] == 3 and images.dtype == torch.float32
    _require(shaped, f"{name} must be float32 (B, 3, H, W), got {_told(images)}")
    if images.numel():
        low, high = float(images.min()), float(images.max())
        _require(low >= 0 and high <= 1, f"{name} must lie in 0 … 1, got {low:g} … {high:g}")


def _filled(value: Any) -> bool:
    return value is not None and not (isinstance(value, tuple) and not value)


def _names(kinds: Any) -> str:
    return ", ".join(kind.__name__ for kind in kinds)


def _told(value: Tensor) -> str:
    return f"{value.dtype} of shape {tuple(value.shape)}"
