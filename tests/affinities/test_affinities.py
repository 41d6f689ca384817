"""Affinities beside the visual one, and the columns they read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zoo import registry
from zoo.affinities import Affinity, columns_of, create_affinity
from zoo.ops.field_of_view import field_of_view_overlap
from zoo.testing import check_affinity

COLUMNS = {
    "easting": torch.tensor([0.0, 10, 30, 500]), "northing": torch.tensor([0.0, 0, 20, 0]),
    "heading": torch.tensor([350.0, 10, 180, 90]), "captured_at": torch.tensor([0.0, 1000, 3_600_000, 1e12]),
}  # fmt: skip


def block(affinity):
    a = {name: values[:, None].double() for name, values in COLUMNS.items()}
    return affinity(a, {name: values[None].double() for name, values in COLUMNS.items()})


@pytest.mark.parametrize("name", registry.entries("affinity"))
def test_every_affinity_keeps_its_contract(name):
    check_affinity(name)
    values = block(create_affinity(name))
    assert values.shape == (4, 4)
    assert values.dtype == torch.float32
    assert ((values >= 0) & (values <= 1)).all()
    assert torch.allclose(values, values.T)
    assert torch.allclose(values.diagonal(), torch.ones(4))


def test_a_plugins_affinity_is_held_to_it_too(plugins):
    check_affinity("acme_floor")


@pytest.mark.parametrize(
    ("broken", "clause"),
    [
        (lambda self, a, b: (a["heading"] * b["heading"]).float(), "must lie in 0 … 1"),
        (lambda self, a, b: torch.ones(7, 1), r"must give \(N, N\), got \(7, 1\)"),
        (lambda self, a, b: (a["heading"] == b["heading"]).double(), "must be float32"),
    ],
)
def test_a_broken_clause_is_named(broken, clause, monkeypatch):
    from zoo.affinities.heading import Heading

    monkeypatch.setattr(Heading, "__call__", broken)
    with pytest.raises(AssertionError, match=clause):
        check_affinity("heading")


def test_headings_are_compared_around_the_circle():
    values = block(create_affinity({"name": "heading", "span": 90}))
    assert values[0, 1].item() == pytest.approx(1 - 20 / 90)
    assert values[0, 2].item() == 0


def test_times_fall_off():
    values = block(create_affinity({"name": "time", "scale": 3600}))
    assert values[0, 2].item() == pytest.approx(np.exp(-1))
    assert values[0, 3].item() == 0


def test_fields_of_view_are_those_of_the_op_also_as_a_table():
    affinity = create_affinity({"name": "field_of_view", "radius": 40})
    poses = torch.stack([COLUMNS[name] for name in affinity.fields], dim=1).double()
    wanted = field_of_view_overlap(poses[:, None], poses[None], radius=40).float()
    assert torch.allclose(block(affinity), wanted)
    starts, columns, values = affinity.table(COLUMNS)
    dense = np.zeros((4, 4), np.float32)
    for row in range(4):
        own = slice(int(starts[row]), int(starts[row + 1]))
        dense[row, np.asarray(columns[own])] = values[own]
    assert np.allclose(dense, wanted.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        ({"name": "heading", "span": 0}, "span must lie in 0 … 180 °, got 0"),
        ({"name": "time", "scale": -1}, "scale must be a positive number of seconds, got -1"),
        ({"name": "field_of_view", "radius": 0}, "radius must be above 0"),
        ({"name": "field_of_view", "mode": "both"}, "mode must be one of area, iou, got 'both'"),
    ],
)
def test_parameters_are_checked(entry, rule):
    with pytest.raises(ValueError, match=rule):
        create_affinity(entry)


def test_a_plugins_affinity_is_found_by_name(distribution):
    code = (
        "from zoo.affinities import Affinity\n"
        "class Floor(Affinity):\n"
        "    fields = ('floor',)\n"
        "    def __call__(self, a, b):\n"
        "        return (a['floor'] == b['floor']).float()\n"
    )
    distribution("acme-floors", "1", {"floor": "acme_floors:Floor"}, {"acme_floors.py": code}, kind="zoo.affinities")
    affinity = create_affinity("floor")
    assert isinstance(affinity, Affinity)
    floors = torch.tensor([1.0, 1, 2])
    assert affinity({"floor": floors[:, None]}, {"floor": floors[None]}).tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]


def test_columns_come_from_arrays_or_rows():
    given = {"heading": np.array([1, 2]), "easting": [3.0, 4.0], "name": ["a", "b"]}
    rows = [{"heading": 1, "easting": 3.0}, {"heading": 2, "easting": 4.0, "other": None}]
    for metadata in (given, rows):
        found = columns_of(metadata, ("heading", "easting"))
        assert found["heading"].tolist() == [1, 2]
        assert found["easting"].dtype == torch.float64
    with pytest.raises(ValueError, match="metadata must hold heading, northing of every hit, northing is missing"):
        columns_of(given, ("heading", "northing"))
