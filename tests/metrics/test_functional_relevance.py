"""Average precision, precision and recall against their definitions, scikit-learn and torchmetrics."""

from __future__ import annotations

import functools
from contextlib import nullcontext

import metric_references as plain
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score
from torchmetrics.retrieval import RetrievalMAP, RetrievalPrecision, RetrievalRecall

from zoo.metrics.functional import average_precision, precision_at_k, recall_at_k

PATHS = pytest.mark.parametrize("path", [nullcontext, plain.batched])
CUTOFFS = st.sampled_from([1, 2, 3, 5, 10, 100])
# Each metric at a cut-off with its definition.
AT_K = [
    (average_precision, plain.average_precision),
    (functools.partial(precision_at_k, capped=True), functools.partial(plain.precision, capped=True)),
    (functools.partial(precision_at_k, capped=False), functools.partial(plain.precision, capped=False)),
    (functools.partial(recall_at_k, any_hit=True), functools.partial(plain.recall, any_hit=True)),
    (functools.partial(recall_at_k, any_hit=False), functools.partial(plain.recall, any_hit=False)),
]
WHOLE = [
    (average_precision, plain.average_precision),
    (functools.partial(average_precision, convention="trapezoid"), plain.trapezoid),
]


def same(values, expected):
    assert values.dtype == torch.float64
    assert values.numpy() == pytest.approx(np.asarray(expected), abs=1e-12, nan_ok=True)


def every_metric(scores, relevant, k, **arguments):
    whole = [function(scores, relevant, **arguments) for function, _ in WHOLE]
    return torch.stack([*whole, *(function(scores, relevant, k=k, **arguments) for function, _ in AT_K)])


def every_definition(scores, relevant, k, **arguments):
    whole = [plain.by_query(function, scores, relevant, **arguments) for _, function in WHOLE]
    return [*whole, *(plain.by_query(function, scores, relevant, k=k, **arguments) for _, function in AT_K)]


@PATHS
@given(rows=plain.rankings(), k=CUTOFFS)
@settings(max_examples=150)
def test_equals_the_definitions_with_and_without_junk(path, rows, k):
    scores, relevant, ignore = rows
    with path():
        same(every_metric(scores, relevant, k), every_definition(scores, relevant, k))
        same(
            every_metric(scores, relevant, k, ignore=ignore),
            every_definition(scores, relevant, k, ignore=ignore),
        )


@PATHS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int32, torch.int64, torch.bfloat16])
@pytest.mark.parametrize("share", [0.01, 0.6])  # relevant items compared with the row, and rows sorted
def test_equals_the_definitions_on_long_rows(path, dtype, share):
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.normal(0, 100, (4, 700)).round()).to(dtype)
    scores[1] = torch.linspace(-1e4, 1e4, 700).to(dtype)
    scores[2] = -scores[1]
    relevant, ignore = (torch.from_numpy(rng.random(scores.shape) < p) for p in (share, 0.2))
    with path():
        for k in (10, 64, 65, 699, 10_000):
            for junk in (None, ignore):
                same(
                    every_metric(scores, relevant, k, ignore=junk),
                    every_definition(scores, relevant, k, ignore=junk),
                )


@given(
    st.integers(1, 40).flatmap(lambda n: st.permutations(range(-n // 2, n - n // 2))),
    st.data(),
    CUTOFFS,
)
@settings(max_examples=80)
def test_equals_scikit_learn_and_torchmetrics_without_ties(numbers, data, k):
    relevant = data.draw(hnp.arrays(bool, len(numbers)))
    assume(relevant.any())
    scores, target = torch.tensor([numbers]), torch.from_numpy(relevant)[None]
    same(average_precision(scores, target), [average_precision_score(relevant, numbers)])
    # torchmetrics takes items with scores of 0 and below for not retrieved.
    positive, indexes = torch.tensor([numbers]) - min(numbers) + 1.0, torch.zeros(1, len(numbers), dtype=torch.int64)
    for ours, theirs in (
        (precision_at_k(scores, target, k, capped=False), RetrievalPrecision(top_k=k)),
        (recall_at_k(scores, target, k, any_hit=False), RetrievalRecall(top_k=k)),
        (average_precision(scores, target), RetrievalMAP()),
    ):
        assert ours.item() == pytest.approx(theirs(positive, target, indexes=indexes).item(), abs=1e-6)


@PATHS
def test_positives_at_ranks_0_and_2(path):
    scores, relevant = torch.tensor([[0.9, 0.5, 0.1]]), torch.tensor([[True, False, True]])
    with path():
        same(average_precision(scores, relevant, convention="trapezoid"), [0.7916666666666667])
        same(average_precision(scores, relevant), [5 / 6])


@PATHS
def test_ties_put_the_lower_column_first(path):
    scores = torch.tensor([[2.0, 5.0, 2.0, 2.0], [0.0, -0.0, 0.0, -0.0]])
    relevant = torch.tensor([[False, False, False, True], [False, True, False, False]])
    with path():
        same(average_precision(scores, relevant), [1 / 4, 1 / 2])


@PATHS
def test_capped_precision_of_the_revisited_evaluator(path):
    relevant = torch.tensor([[True, True, False, False, False], [True, False, False, True, False]])
    scores = torch.arange(5, 0, -1).expand(2, 5)
    with path():
        # The last relevant items stand at ranks 2 and 4: k = 10 becomes 2 and 4, k = 3 becomes 2 and stays 3.
        same(precision_at_k(scores, relevant, 10), [1, 1 / 2])
        same(precision_at_k(scores, relevant, 3), [1, 1 / 3])
        same(precision_at_k(scores, relevant, 10, capped=False), [2 / 10, 2 / 10])
        # Of the first query's three relevant items one is not listed, so that its rank is beyond the list.
        same(precision_at_k(scores, relevant, 10, n_relevant=torch.tensor([3, 2])), [2 / 10, 2 / 4])


@PATHS
@given(rows=plain.rankings(), data=st.data())
@settings(max_examples=60)
def test_ignored_items_are_as_good_as_removed(path, rows, data):
    scores, relevant, _ = (row[:1] for row in rows)
    size = scores.shape[1]
    places = torch.tensor(sorted(data.draw(st.permutations(range(size + 4)))[:size]), dtype=torch.int64)
    wide = torch.zeros(1, size + 4, dtype=scores.dtype)
    if scores.is_floating_point():
        wide[:] = torch.nan
    flags, ignore = torch.ones(1, size + 4, dtype=torch.bool), torch.ones(1, size + 4, dtype=torch.bool)
    wide[:, places], flags[:, places], ignore[:, places] = scores, relevant, False
    with path():
        same(every_metric(wide, flags, 3, ignore=ignore), every_metric(scores, relevant, 3))


@given(rows=plain.rankings(), random=st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_permuting_items_without_ties_and_adding_irrelevant_ones_behind(rows, random):
    _, relevant, ignore = rows
    size = relevant.shape[1]
    scores = torch.stack([torch.tensor(random.sample(range(-size, size), size)) for _ in relevant])
    order = torch.tensor(random.sample(range(size), size))
    before = every_metric(scores, relevant, 4, ignore=ignore)
    same(every_metric(scores[:, order], relevant[:, order], 4, ignore=ignore[:, order]), before)
    behind = [torch.cat([row, torch.full_like(row, value)], dim=1) for row, value in ((scores, -999), (relevant, 0))]
    same(every_metric(*behind, 4, ignore=torch.cat([ignore, torch.zeros_like(ignore)], dim=1)), before)


@PATHS
@given(rows=plain.rankings(), cut=st.integers(1, 25))
@settings(max_examples=80)
def test_the_first_items_alone_give_what_the_whole_ranking_gives_down_to_them(path, rows, cut):
    scores, relevant, ignore = rows
    everything = [plain.ranked(s.tolist(), range(len(s)), i.tolist()) for s, i in zip(scores, ignore, strict=True)]
    total = torch.tensor([int((r & ~i).sum()) for r, i in zip(relevant, ignore, strict=True)])
    first, listed = torch.full((len(scores), cut), torch.nan), torch.zeros(len(scores), cut, dtype=torch.bool)
    for q, columns in enumerate(everything):  # ragged lists, padded with what is ignored
        columns = columns[:cut]
        first[q, : len(columns)] = -torch.arange(len(columns)) - 1.0
        listed[q, : len(columns)] = relevant[q, columns]
    with path():
        for function, _ in AT_K:
            for k in {1, max(1, cut // 2), cut}:
                whole = function(scores, relevant, k=k, ignore=ignore)
                partial = function(first, listed, k=k, ignore=first.isnan(), n_relevant=total)
                same(partial, whole)
        flags = listed & ~first.isnan()
        for function, definition in WHOLE:
            expected = plain.by_query(definition, first.nan_to_num(-100), flags, first.isnan(), total)
            same(function(first, listed, ignore=first.isnan(), n_relevant=total), expected)


@PATHS
def test_undefined_and_empty(path):
    scores, relevant = torch.tensor([[0.3], [0.3], [0.3]]), torch.tensor([[True], [False], [True]])
    with path():
        values = every_metric(scores, relevant, 2, ignore=torch.tensor([[False], [False], [True]]))
        assert values[:, 1:].isnan().all()
        assert values[:, 0].tolist() == [1, 1, 1, 1, 0.5, 1, 1]
        for shape in ((0, 5), (0, 0), (3, 0)):
            empty = torch.zeros(shape)
            values = every_metric(empty, empty > 0, 2)
            assert values.shape == (7, shape[0])
            assert values.isnan().all()
        # Relevant items of which none is listed are not found.
        values = every_metric(torch.zeros(2, 0), torch.zeros(2, 0) > 0, 2, n_relevant=torch.tensor([4, 0]))
        assert values[:, 0].tolist() == [0] * 7
        assert values[:, 1].isnan().all()


def test_float64_and_int64_are_ranked_without_rounding():
    relevant = torch.arange(300)[None] == 299
    for scores in (1 + torch.arange(300, dtype=torch.float64)[None] * 2**-52, 2**62 + torch.arange(300)[None]):
        same(average_precision(scores, relevant), [1])
        same(average_precision(scores, ~relevant, convention="trapezoid"), [plain.trapezoid([0] + [1] * 299, 299)])


def test_blocks_of_rows_do_not_change_the_result(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    scores, relevant = torch.randn(9, 40, generator=generator), torch.rand(9, 40, generator=generator) < 0.2
    ignore = torch.rand(9, 40, generator=generator) < 0.2
    whole = every_metric(scores, relevant, 5, ignore=ignore)
    monkeypatch.setattr("zoo.metrics.functional.rows._CPU_BLOCK", 81)
    assert torch.equal(every_metric(scores, relevant, 5, ignore=ignore), whole)
    strided = (x.repeat_interleave(2, dim=1)[:, ::2] for x in (scores.requires_grad_(), relevant, ignore))
    scores, relevant, ignore = strided
    assert torch.equal(every_metric(scores, relevant, 5, ignore=ignore), whole)


def test_input_is_left_as_it_was():
    scores = torch.tensor([[-0.0, torch.nan, 2.0]])
    average_precision(scores, torch.tensor([[True, True, False]]), torch.tensor([[False, True, False]]))
    assert scores[0, 0].signbit()
    assert scores[0, 1].isnan()


ROWS = torch.zeros(3, 4)
FLAGS = ROWS > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_nan_outside_ignore_names_the_query(dtype, monkeypatch):
    scores = torch.zeros(3, 4, dtype=dtype)
    scores[2, 1] = torch.nan
    with pytest.raises(ValueError, match=r"^scores must not hold NaN outside ignore, got 1 such values in query 2$"):
        average_precision(scores, FLAGS)
    assert average_precision(scores, ~FLAGS, ignore=scores.isnan())[2] == 1
    monkeypatch.setattr("zoo.metrics.functional.rows._CPU_BLOCK", 4)
    with pytest.raises(ValueError, match=r"in query 2$"):
        recall_at_k(scores, FLAGS, 1)


@pytest.mark.parametrize(
    ("function", "arguments", "error", "message"),
    [
        (average_precision, {"scores": ROWS[0]}, ValueError, r"scores must have the shape \(Q, N\), got \(4,\)"),
        (average_precision, {"relevant": FLAGS[:2]}, ValueError, r"relevant must have the shape of scores, \(3, 4\)"),
        (average_precision, {"relevant": ROWS}, TypeError, "relevant must be bool, got torch.float32"),
        (average_precision, {"ignore": FLAGS[0]}, ValueError, "ignore must have the shape of scores"),
        (average_precision, {"ignore": ROWS}, TypeError, "ignore must be bool"),
        (average_precision, {"scores": ROWS.to(torch.cfloat)}, TypeError, "scores must hold real .* torch.complex64"),
        (average_precision, {"relevant": FLAGS.to("meta")}, ValueError, "relevant must be on the device of scores"),
        (average_precision, {"k": 0}, ValueError, "k must be an integer of at least 1, got 0"),
        (average_precision, {"convention": "x"}, ValueError, "convention must be one of finite, trapezoid, got 'x'"),
        (average_precision, {"k": 3, "convention": "trapezoid"}, ValueError, "k must be None with .*, got 3"),
        (precision_at_k, {"k": -1}, ValueError, "k must be an integer of at least 1, got -1"),
        (recall_at_k, {"k": None}, ValueError, "k must be an integer of at least 1, got None"),
        (
            recall_at_k,
            {"k": 2, "n_relevant": torch.ones(3)},
            ValueError,
            r"n_relevant must hold integers of shape \(3,",
        ),
        (recall_at_k, {"k": 2, "n_relevant": torch.tensor([1])}, ValueError, r"got torch.int64 of shape \(1,\)"),
        (
            average_precision,
            {"relevant": ~FLAGS, "n_relevant": torch.tensor([9, 4, 3])},
            ValueError,
            "n_relevant must count every relevant item that is listed, got 3 for 4 in query 2",
        ),
    ],
)
def test_misfits_are_refused(function, arguments, error, message):
    with pytest.raises(error, match=message):
        function(**{"scores": ROWS, "relevant": FLAGS, **arguments})
