"""The contract test of affinities."""

from __future__ import annotations

import torch

from zoo.affinities import Affinity, create_affinity
from zoo.testing.models import _require, check_signature

_COUNT = 7


def check_affinity(name: str) -> None:
    """Checks that the registered affinity `name` keeps the contract; raises AssertionError naming the broken clause.

    In order: signature equals YAML; `fields` names columns; of columns that broadcast it returns float32 values in
    0 … 1, each alone the same as among others, and of a `table` the same as of all pairs.
    """
    check_signature("affinity", name)
    affinity = create_affinity(name)
    _require(isinstance(affinity, Affinity), f"{type(affinity).__name__} must derive from zoo.affinities.Affinity")
    _require(bool(affinity.fields), "fields must name the columns that are read")
    generator = torch.Generator().manual_seed(0)
    columns = {field: 90 * torch.rand(_COUNT, generator=generator, dtype=torch.float64) for field in affinity.fields}
    every = affinity(*({key: value[place] for key, value in columns.items()} for place in ((..., None), (None, ...))))
    _require(every.shape == (_COUNT, _COUNT), f"columns (N, 1) and (1, N) must give (N, N), got {tuple(every.shape)}")
    _require(every.dtype == torch.float32, f"affinities must be float32, got {every.dtype}")
    _require(bool(((every >= 0) & (every <= 1)).all()), "affinities must lie in 0 … 1")
    alone = affinity({key: value[2:3] for key, value in columns.items()}, {key: v[4:5] for key, v in columns.items()})
    _require(torch.allclose(alone, every[2, 4:5]), "a pair's affinity must not depend on the others")
    _check_table(affinity, columns, every)


def _check_table(affinity: Affinity, columns: dict[str, torch.Tensor], every: torch.Tensor) -> None:
    table = affinity.table(columns)
    if table is None:
        return
    starts, places, values = (torch.as_tensor(part) for part in table)
    found = torch.zeros_like(every)
    rows = torch.repeat_interleave(torch.arange(_COUNT), (starts[1:] - starts[:-1]).long())
    found[rows, places.long()] = values.float()
    _require(torch.allclose(found, every, atol=1e-5), "table must hold the affinities of all pairs, and no others")
