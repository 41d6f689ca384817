"""nDCG against its definition and scikit-learn."""

from __future__ import annotations

from contextlib import nullcontext

import metric_references as plain
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import ndcg_score

from zoo.metrics.functional import ndcg

PATHS = pytest.mark.parametrize("path", [nullcontext, plain.batched])
CUTOFFS = st.sampled_from([None, 1, 2, 5, 100])
GRADES = {
    "int64": st.integers(0, 5),
    "uint8": st.integers(0, 5),
    "float32": st.floats(0, 30, width=32, allow_subnormal=False),
    "float64": st.sampled_from([0.0, 0.25, 1.0, 1.5, 1e-3]),
    "bool": st.booleans(),
}


def same(values, expected):
    assert values.dtype == torch.float64
    assert values.numpy() == pytest.approx(np.asarray(expected), rel=1e-9, abs=1e-12, nan_ok=True)


@st.composite
def graded(draw):
    scores, _, ignore = draw(plain.rankings())
    kind = draw(st.sampled_from(sorted(GRADES)))
    return scores, torch.from_numpy(draw(hnp.arrays(kind, tuple(scores.shape), elements=GRADES[kind]))), ignore


@PATHS
@given(rows=graded(), k=CUTOFFS, gain=st.sampled_from(["linear", "exponential"]))
@settings(max_examples=120)
def test_equals_the_definition_with_and_without_junk(path, rows, k, gain):
    scores, gains, ignore = rows
    with path():
        same(ndcg(scores, gains, k, gain=gain), plain.by_query(plain.ndcg, scores, gains, k=k, gain=gain))
        for junk in (gains, gains.masked_fill(ignore, torch.nan)) if gains.is_floating_point() else (gains,):
            expected = plain.by_query(plain.ndcg, scores, gains, ignore, k=k, gain=gain)
            same(ndcg(scores, junk, k, ignore, gain), expected)


@given(st.integers(2, 30).flatmap(lambda n: st.permutations(range(-n // 2, n - n // 2))), st.data(), CUTOFFS)
@settings(max_examples=60)
def test_equals_scikit_learn_without_ties(numbers, data, k):
    grades = data.draw(hnp.arrays(np.int64, len(numbers), elements=st.integers(0, 4)))
    scores, gains = torch.tensor([numbers]), torch.from_numpy(grades)[None]
    if not grades.any():
        assert ndcg(scores, gains, k).isnan().all()  # scikit-learn calls it 0
        return
    same(ndcg(scores, gains, k), [ndcg_score([grades], [numbers], k=k)])
    same(ndcg(scores, gains, k, gain="exponential"), [ndcg_score([2**grades - 1], [numbers], k=k)])


@PATHS
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_equals_the_definition_on_long_rows(path, dtype):
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.normal(0, 100, (3, 500)).round()).to(dtype)
    scores[1], scores[2] = torch.arange(500), -torch.arange(500)
    gains = torch.from_numpy(rng.integers(0, 4, scores.shape))
    with path():
        for k in (10, 64, 65, 499, None):
            same(ndcg(scores, gains, k), plain.by_query(plain.ndcg, scores, gains, k=k, gain="linear"))


@PATHS
@given(rows=graded(), cut=st.integers(1, 25))
@settings(max_examples=60)
def test_the_first_items_and_the_ideal_give_what_the_whole_ranking_gives(path, rows, cut):
    scores, gains, ignore = rows
    listed = torch.full((len(scores), cut), torch.nan, dtype=torch.float64)
    for q in range(len(scores)):
        grades = plain.ranked(scores[q].tolist(), gains[q].tolist(), ignore[q].tolist())[:cut]
        listed[q, : len(grades)] = torch.tensor(grades, dtype=torch.float64)
    order = -torch.arange(cut).expand(len(scores), cut)
    ideal = gains.to(torch.float64).masked_fill(ignore, 0)
    with path():
        for k in {1, cut}:
            same(ndcg(order, listed, k, listed.isnan(), ideal=ideal), ndcg(scores, gains, k, ignore))
        same(
            ndcg(order, listed, None, listed.isnan(), ideal=ideal),
            [
                plain.ndcg(row[~row.isnan()].tolist(), "linear", everything=best.tolist())
                for row, best in zip(listed, ideal, strict=True)
            ],
        )


@PATHS
@pytest.mark.parametrize("shape", [(0, 4), (0, 0), (2, 0)])
def test_empty(path, shape):
    with path():
        values = ndcg(torch.zeros(shape), torch.ones(shape), 3)
        assert values.shape == shape[:1]
        assert values.isnan().all()
        if shape == (2, 0):
            assert ndcg(torch.zeros(shape), torch.ones(shape), ideal=torch.tensor([[1], [0]])).nan_to_num(
                -1
            ).tolist() == [0, -1]


def test_ties_give_the_lower_column_the_higher_rank():
    same(ndcg(torch.zeros(2, 2), torch.tensor([[1, 0], [0, 1]])), [1, np.log(2) / np.log(3)])


def test_blocks_of_rows_do_not_change_the_result(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    scores, gains = torch.randn(2, 9, 40, generator=generator).abs()
    ignore, ideal = gains > 2, gains[:, :1].expand(9, 7) * 2 + gains.amax(dim=1, keepdim=True)
    whole = ndcg(scores, gains, 5, ignore, ideal=ideal)
    monkeypatch.setattr("zoo.metrics.functional.rows._CPU_BLOCK", 81)
    assert torch.equal(ndcg(scores, gains, 5, ignore, ideal=ideal), whole)
    with pytest.raises(ValueError, match=r"ideal must hold the grades of all listed items, got too few in query 7"):
        ndcg(scores, gains, 5, ideal=ideal * (torch.arange(9) != 7)[:, None])


ROWS = torch.ones(3, 4)
ONE_BAD = {
    value: torch.ones(3, 4).index_put((torch.tensor(1), torch.tensor(2)), torch.tensor(value))
    for value in (torch.nan, torch.inf, -0.5)
}


@pytest.mark.parametrize("value", list(ONE_BAD))
def test_unfit_grades_name_the_query_unless_ignored(value):
    gains = ONE_BAD[value]
    message = r" must be finite and not negative, got 1 such values in query 1$"
    with pytest.raises(ValueError, match=f"^gains{message}"):
        ndcg(ROWS, gains)
    with pytest.raises(ValueError, match=f"^ideal{message}"):
        ndcg(ROWS, ROWS, ideal=gains)
    assert ndcg(ROWS, gains, ignore=gains != 1).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"scores": ROWS[0]}, ValueError, r"scores must have the shape \(Q, N\), got \(4,\)"),
        ({"scores": ONE_BAD[next(iter(ONE_BAD))]}, ValueError, "scores must not hold NaN outside ignore.* in query 1"),
        ({"gains": ROWS[:2]}, ValueError, "gains must have the shape of scores"),
        ({"gains": ROWS.to(torch.cfloat)}, TypeError, "gains must hold real numbers"),
        ({"gains": ROWS * 2000, "gain": "exponential"}, ValueError, "gains must be small enough .* in query 0"),
        ({"ignore": ROWS}, TypeError, "ignore must be bool"),
        ({"gain": "log"}, ValueError, "gain must be one of linear, exponential, got 'log'"),
        ({"k": 0}, ValueError, "k must be an integer of at least 1, got 0"),
        ({"ideal": ROWS[:2]}, ValueError, "ideal must have one row per query, 3, got 2"),
        ({"ideal": ROWS[0]}, ValueError, r"ideal must have the shape \(Q, N\), got \(4,\)"),
        ({"ideal": ROWS.to("meta")}, ValueError, "ideal must be on the device of scores, cpu, got meta"),
    ],
)
def test_misfits_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        ndcg(**{"scores": ROWS, "gains": ROWS, **arguments})
