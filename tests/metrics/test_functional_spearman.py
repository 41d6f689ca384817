"""`spearman` against SciPy, and its row-wise and batched paths against each other."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from zoo.metrics.functional import spearman
from zoo.metrics.functional.correlation import _spearman_batched

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=25)
ELEMENTS = {
    "float32": st.floats(width=32, allow_nan=False),
    "float64": st.floats(allow_nan=False),
    "float16": st.floats(width=16, allow_nan=False),
    "int64": st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "uint8": st.integers(0, 255),
    "quarters": st.integers(-20, 20).map(lambda i: i / 4),
    "thirds": st.integers(-20, 20).map(lambda i: i / 3),
    "zeros": st.sampled_from([-0.0, 0.0, 1.0]),
    # Neighbours in float64 and int64 that float32 can't tell apart.
    "near": st.integers(0, 6).map(lambda i: 1.0 + i * 2.0**-50),
}
DTYPES = {"quarters": "float32", "thirds": "float64", "zeros": "float32", "near": "float64"}


def reference(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 2 or (a == a[0]).all() or (b == b[0]).all():
        return np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return stats.pearsonr(stats.rankdata(a), stats.rankdata(b)).statistic


@st.composite
def rows(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    shape = draw(SHAPES)
    pair = []
    for _ in range(2):
        kind = draw(st.sampled_from(sorted(ELEMENTS)))
        pair.append(torch.from_numpy(draw(hnp.arrays(DTYPES.get(kind, kind), shape, elements=ELEMENTS[kind]))))
    return pair[0], pair[1]


@given(rows(), st.randoms(use_true_random=False))
@settings(max_examples=120)
def test_equals_scipy_on_both_paths_with_and_without_ignore(pair, random):
    a, b = pair
    ignore = torch.tensor([[random.random() < 0.3 for _ in range(a.shape[1])] for _ in range(len(a))])
    kept = [torch.ones(a.shape[1], dtype=torch.bool)] * len(a)
    for mask, keeps in ((None, kept), (ignore, list(~ignore))):
        expected = [reference(x[keep].numpy(), y[keep].numpy()) for x, y, keep in zip(a, b, keeps, strict=True)]
        assert spearman(a, b, mask).numpy() == pytest.approx(expected, abs=1e-12, nan_ok=True)
        assert _spearman_batched(a, b, mask).numpy() == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("spread", [1.0, 1e-6, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_scipy_spearmanr_on_long_rows(dtype, spread):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 40, (3, 5000)) / 4
    distances = (truth + rng.normal(0, 3, truth.shape)) * spread + 1
    a, b = torch.tensor(distances, dtype=dtype), torch.tensor(truth, dtype=torch.float32)
    expected = [stats.spearmanr(x, y).statistic for x, y in zip(a.numpy(), b.numpy(), strict=True)]
    assert min(expected) > 0.3
    assert spearman(a, b).numpy() == pytest.approx(expected, abs=1e-12)
    assert _spearman_batched(a, b, None).numpy() == pytest.approx(expected, abs=1e-12)


def test_float64_that_float32_would_merge_keeps_its_order():
    a = 1 + torch.arange(1000, dtype=torch.float64).flip(0)[None] * 2**-50
    assert spearman(a, torch.arange(1000)[None]).item() == -1


def test_float64_beyond_the_range_of_float32():
    half = [1e-61, 1e-60, 1e299, 1e300, torch.inf]
    a = torch.tensor([[0.0, -0.0, *half, *(-value for value in half)]], dtype=torch.float64)
    b = torch.tensor([[0, 0, *range(1, 6), *range(-1, -6, -1)]])
    for rho in (spearman(a, b), _spearman_batched(a, b, None)):
        assert rho.item() == 1


def test_a_row_that_leaves_the_grid_late_is_not_counted():
    a = torch.cat([torch.arange(200.0) % 5, torch.tensor([3.03, 3.02, 3.01])])[None]
    b = torch.linspace(0, 1, a.shape[1]).square()[None]
    assert spearman(a, b).item() == pytest.approx(reference(a[0].numpy(), b[0].numpy()), abs=1e-12)


def test_negative_zero_equals_zero():
    a = torch.tensor([[0.0, -0.0, 5.3, 0.0]])  # off the grid, so that the row is sorted, not counted
    b = torch.tensor([[0, 1, 2, 3]])
    for rho in (spearman(a, b), _spearman_batched(a, b, None)):
        assert rho.item() == pytest.approx(reference(a[0].numpy(), b[0].numpy()), abs=1e-12)


def test_large_integers_keep_their_order():
    a = 2**62 + torch.arange(50)[None]
    assert spearman(a, torch.arange(50)[None]).item() == 1


@given(st.lists(st.integers(-30, 30), min_size=2, max_size=60), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_invariant_to_permutation_and_monotone_transform(numbers, random):
    a = torch.tensor([numbers], dtype=torch.float64)
    b = torch.tensor([[random.randint(-1000, 1000) for _ in numbers]])
    order = torch.tensor(random.sample(range(len(numbers)), len(numbers)))
    rho = spearman(a, b)
    for other in (spearman(a[:, order], b[:, order]), spearman((a / 10).exp(), b**3), spearman(b, a), -spearman(-a, b)):
        assert torch.equal(rho, other) or (rho.isnan().all() and other.isnan().all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.uint8, torch.int16, torch.bool])
def test_narrow_dtypes_rank_as_their_values(dtype):
    generator = torch.Generator().manual_seed(1)
    a = (torch.randn(4, 80, generator=generator) * 3).relu().to(dtype)
    b = torch.randn(4, 80, generator=generator)
    expected = [reference(x.double().numpy(), y.numpy()) for x, y in zip(a, b, strict=True)]
    assert spearman(a, b).numpy() == pytest.approx(expected, abs=1e-12)
    assert _spearman_batched(a, b, None).numpy() == pytest.approx(expected, abs=1e-12)


def test_transposed_rows_and_gradients_are_accepted():
    a = torch.randn(30, 4, generator=torch.Generator().manual_seed(2), requires_grad=True).T
    assert torch.equal(spearman(a, a), torch.ones(4, dtype=torch.float64))


def test_input_is_left_as_it_was():
    a, b = torch.tensor([[3.0, -0.0, 1.0]]), torch.tensor([[2, 1, 1]])
    spearman(a, b)
    assert a.tolist() == [[3.0, -0.0, 1.0]]
    assert a[0, 1].signbit()
    assert b.tolist() == [[2, 1, 1]]


@pytest.mark.parametrize(("queries", "items"), [(0, 5), (3, 0), (3, 1)])
def test_too_few_items_or_queries(queries, items):
    for path in (spearman, lambda a, b: _spearman_batched(a, b, None)):
        rho = path(torch.zeros(queries, items), torch.zeros(queries, items))
        assert rho.shape == (queries,)
        assert rho.isnan().all()


def test_everything_ignored_is_undefined():
    a = torch.arange(6.0).view(2, 3)
    ignore = torch.tensor([[True, True, True], [False, False, True]])
    for rho in (spearman(a, a, ignore), _spearman_batched(a, a, ignore)):
        assert rho[0].isnan()
        assert rho[1] == 1


def test_chunks_of_rows_do_not_change_the_batched_path(monkeypatch):
    a, b = torch.randn(2, 7, 20, generator=torch.Generator().manual_seed(3))
    whole = _spearman_batched(a, b, None)
    monkeypatch.setattr("zoo.metrics.functional.rows._CPU_BLOCK", 41)
    assert torch.equal(_spearman_batched(a, b, None), whole)


def test_nan_is_refused_with_argument_and_query_unless_ignored():
    a, b = torch.randn(3, 5), torch.randn(3, 5)
    b[2, 1] = torch.nan
    with pytest.raises(ValueError, match=r"^b must not hold NaN.*in query 2$"):
        spearman(a, b)
    with pytest.raises(ValueError, match=r"^a must not hold NaN.*in query 2$"):
        spearman(b, a)
    ignore = b.isnan()
    keep = [0, 2, 3, 4]
    assert spearman(a, b, ignore)[2] == spearman(a[:, keep], b[:, keep])[2]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.zeros(3), torch.zeros(3)), ValueError, r"a must have the shape \(Q, N\), got \(3,\)"),
        ((torch.zeros(2, 3), torch.zeros(3, 2)), ValueError, r"b must have the shape of a, \(2, 3\), got \(3, 2\)"),
        ((torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(3) > 0), ValueError, "ignore must have the shape of a"),
        ((torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 3)), TypeError, "ignore must be bool, got torch.float"),
        ((torch.zeros(2, 3), torch.zeros(2, 3, device="meta")), ValueError, "b must be on the device of a, cpu"),
        ((torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.cfloat)), TypeError, "b must hold real .* torch.complex64"),
    ],
)
def test_misfits_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        spearman(*arguments)
