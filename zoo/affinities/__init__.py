"""Affinities beside the visual one: how near two images are by what is known of them, such as where they were taken."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any, ClassVar

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    Columns = Mapping[str, Tensor]


class Affinity(abc.ABC):
    """Says in [0, 1] how near two images are, from columns of numbers that are known of each.

    `fields` names the columns it reads; an affinity is built from keyword arguments without defaults, which all stand
    in its YAML. Where only images within some distance have any, `table` gives all of a set's pairs at once, so that
    training needn't compute them again in every step.
    """

    fields: ClassVar[tuple[str, ...]]
    registered: dict[str, Any] | None = None

    @abc.abstractmethod
    def __call__(self, a: Columns, b: Columns) -> Tensor:
        """Returns the affinities of images `a` with images `b`: columns of shapes that broadcast to the result's."""

    def table(self, columns: Columns) -> tuple[Any, Any, Any] | None:
        """Returns all pairs of N images as rows' starts (N+1,), columns and values; None where most pairs have some."""
        return None


def create_affinity(entry: str | Mapping[str, Any]) -> Affinity:
    """Builds an affinity from its name, or from a mapping with `name` and those parameters that differ from its YAML.

    Raises ValueError for an entry without a name, UsageError for an unknown name or key.
    """
    from zoo import config

    entry = {"name": entry} if isinstance(entry, str) else dict(entry)
    if not isinstance(entry.get("name"), str):
        raise ValueError(f"an affinity must be a name, or a mapping with one and its parameters, got {entry!r}")
    return config.create("affinity", entry.pop("name"), **entry)


def hit_affinities(affinities: Sequence[Affinity], anchors: int, metadata: Any, count: int) -> Tensor:
    """Returns (1, K, A, L) of the K hits that `metadata` describes, with the first L of them.

    Raises ValueError where metadata lack what an affinity reads, or are of another number of hits.
    """
    if metadata is None:
        fields = ", ".join(dict.fromkeys(field for each in affinities for field in each.fields))
        raise ValueError(f"metadata must hold {fields} of every hit: the model was trained with them")
    return torch.stack([_of_hits(each, anchors, metadata, count) for each in affinities], dim=1)[None]


def _of_hits(affinity: Affinity, anchors: int, metadata: Any, count: int) -> Tensor:
    columns = columns_of(metadata, affinity.fields)
    for name, values in columns.items():
        if values.shape != (count,):
            raise ValueError(f"metadata {name} must be one number a hit, got {tuple(values.shape)} for {count} hits")
    first = {name: values[None, :anchors] for name, values in columns.items()}
    return affinity({name: values[:, None] for name, values in columns.items()}, first).float()


def columns_of(metadata: Mapping[str, Any] | Sequence[Mapping[str, Any]], fields: Sequence[str]) -> Columns:
    """Returns the named columns (K,) float64 of a mapping of arrays, or of one mapping for each of K images.

    Raises ValueError where an image lacks one, or it isn't a finite number.
    """
    return {field: _column(metadata, field, fields) for field in fields}


def _column(metadata: Any, field: str, fields: Sequence[str]) -> Tensor:
    rule = f"metadata must hold {', '.join(fields)} of every hit, {field} is missing"
    if not hasattr(metadata, "keys"):
        lacking = [place for place, row in enumerate(metadata) if field not in row]
        if lacking:
            raise ValueError(f"{rule}, hit {lacking[0]} has none")
        values = [row[field] for row in metadata]
    elif field in metadata:
        values = metadata[field]
    else:
        raise ValueError(rule)
    try:
        column = torch.as_tensor(values, dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata {field} must be numbers, {error}") from error
    if not column.isfinite().all():
        raise ValueError(f"metadata {field} must be finite, got NaN or infinite values")
    return column
