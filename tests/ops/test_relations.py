from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.ops.relations import add_pairs, add_sampled_pairs, question_chunks, relate_pairs, shifted_relu_sum


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_pairs_hold_every_object_with_every_object_in_row_major_order():
    objects = torch.randn(2, 5, 3)
    pairs = relate_pairs(objects)
    assert pairs.shape == (2, 25, 6)
    for i in range(5):
        for j in range(5):
            assert torch.equal(pairs[:, i * 5 + j], torch.cat([objects[:, i], objects[:, j]], dim=-1))


def test_pairs_refuse_other_than_three_dimensions():
    with pytest.raises(ValueError, match=r"objects must be .*\(4, 3\)"):
        relate_pairs(torch.zeros(4, 3))


@given(batch=st.integers(1, 3), objects=st.integers(1, 6), width=st.integers(1, 4))
def test_projected_objects_add_up_to_the_layer_of_their_pairs(batch, objects, width):
    values = torch.randn(batch, objects, width, dtype=torch.float64)
    layer = torch.nn.Linear(2 * width, 3, dtype=torch.float64)
    first, second = layer.weight.chunk(2, dim=1)
    added = add_pairs(values @ first.T + layer.bias, values @ second.T)
    torch.testing.assert_close(added, layer(relate_pairs(values)))


def test_projections_must_be_alike():
    for add in (add_pairs, lambda first, second: add_sampled_pairs(first, second, 1)):
        with pytest.raises(ValueError, match=r"first and second must be .*\(1, 2, 3\), \(1, 2, 4\)"):
            add(torch.zeros(1, 2, 3), torch.zeros(1, 2, 4))


def sample_pairs(objects, shifts):
    """Samples concatenated pairs: with zeros in the other one's place the sum of two objects is that."""
    nothing = torch.zeros_like(objects)
    return add_sampled_pairs(torch.cat([objects, nothing], dim=2), torch.cat([nothing, objects], dim=2), shifts)


def _sorted_rows(pairs):
    return sorted(map(tuple, pairs.tolist()))


def test_all_shifts_give_every_pair_once():
    objects = torch.randn(2, 5, 3)
    for sampled, pairs in zip(sample_pairs(objects, 5), relate_pairs(objects), strict=True):
        assert _sorted_rows(sampled) == _sorted_rows(pairs)


@pytest.mark.parametrize("shifts", [1, 3])
def test_sampled_pairs_are_distinct_and_hold_each_object_equally_often_in_both_places(shifts):
    objects = torch.arange(10, dtype=torch.float32).reshape(2, 5, 1)
    sampled = sample_pairs(objects, shifts)
    assert sampled.shape == (2, 5 * shifts, 2)
    for image, pairs in zip(objects, sampled, strict=True):
        assert len(set(_sorted_rows(pairs))) == 5 * shifts
        for place in (0, 1):
            assert sorted(pairs[:, place].tolist()) == sorted(image.flatten().tolist() * shifts)


def test_sampled_pairs_change_from_call_to_call_and_with_the_image():
    objects = torch.arange(25, dtype=torch.float32)[None, :, None].expand(2, -1, -1)
    first, second = sample_pairs(objects, 1), sample_pairs(objects, 1)
    assert _sorted_rows(first[0]) != _sorted_rows(second[0]) or not torch.equal(first[0], second[0])
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("shifts", [0, 6])
def test_shifts_outside_the_objects_are_refused(shifts):
    with pytest.raises(ValueError, match=f"shifts must lie in 1 … O = 5, got {shifts}"):
        sample_pairs(torch.zeros(1, 5, 2), shifts)


@given(images=st.integers(1, 6), questions=st.integers(1, 9), chunk=st.integers(1, 40))
def test_chunks_cover_every_question_once_and_respect_the_bound(images, questions, chunk):
    seen = torch.zeros(images, questions, dtype=torch.int)
    for rows, columns in question_chunks(images, questions, chunk):
        block = seen[rows, columns]
        assert 0 < block.numel() <= chunk
        block += 1
    assert torch.all(seen == 1)


def test_chunks_refuse_zero():
    with pytest.raises(ValueError, match="chunk must be at least 1 question, got 0"):
        question_chunks(2, 3, 0)


@settings(max_examples=30)
@given(batch=st.integers(1, 3), pairs=st.integers(1, 7), questions=st.integers(1, 5), chunk=st.integers(1, 16))
def test_sum_and_gradients_equal_the_broadcast_expression(batch, pairs, questions, chunk):
    a = torch.randn(batch, pairs, 4, dtype=torch.float64, requires_grad=True)
    b = torch.randn(batch, questions, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(batch, questions, 4, dtype=torch.float64)
    expected = torch.relu(a[:, None] + b[:, :, None]).sum(dim=2)
    actual = shifted_relu_sum(a, b, chunk)
    torch.testing.assert_close(actual, expected)
    wanted = torch.autograd.grad((expected * weight).sum(), (a, b))
    got = torch.autograd.grad((actual * weight).sum(), (a, b))
    torch.testing.assert_close(got, wanted)


@settings(max_examples=20)
@given(
    batch=st.integers(1, 3),
    pairs=st.integers(1, 7),
    questions=st.integers(1, 5),
    chunk=st.integers(1, 16),
    widths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
)
def test_sum_behind_further_layers_equals_the_broadcast_expression(batch, pairs, questions, chunk, widths):
    a = torch.randn(batch, pairs, 4, dtype=torch.float64, requires_grad=True)
    b = torch.randn(batch, questions, 4, dtype=torch.float64, requires_grad=True)
    layers = [torch.nn.Linear(i, o, dtype=torch.float64) for i, o in pairwise([4, *widths])]
    weight = torch.randn(batch, questions, widths[-1], dtype=torch.float64)
    hidden = torch.relu(a[:, None] + b[:, :, None])
    for layer in layers:
        hidden = torch.relu(layer(hidden))
    expected, actual = hidden.sum(dim=2), shifted_relu_sum(a, b, chunk, layers)
    torch.testing.assert_close(actual, expected)
    variables = [a, b, *(parameter for layer in layers for parameter in layer.parameters())]
    wanted = torch.autograd.grad((expected * weight).sum(), variables)
    torch.testing.assert_close(torch.autograd.grad((actual * weight).sum(), variables), wanted)


def test_autocast_reaches_the_layers():
    layer = torch.nn.Linear(8, 4)
    pairs, shifts = torch.randn(2, 30, 8), torch.randn(2, 3, 8)
    exact = shifted_relu_sum(pairs, shifts, 2, [layer])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = shifted_relu_sum(pairs.bfloat16(), shifts.bfloat16(), 2, [layer])
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, exact, rtol=0.02, atol=0.2)
    low.sum().backward()
    assert layer.weight.grad.dtype == torch.float32
    assert layer.weight.grad.abs().sum() > 0


def test_bf16_counts_active_pairs_beyond_256_exactly():
    pairs = torch.ones(1, 625, 2, dtype=torch.bfloat16, requires_grad=True)
    shifts = torch.zeros(1, 1, 2, dtype=torch.bfloat16, requires_grad=True)
    total = shifted_relu_sum(pairs, shifts, 4)
    assert total.dtype == torch.float32
    assert torch.all(total == 625)
    total.sum().backward()
    assert torch.all(pairs.grad == 1)
    # 625 is no bf16 number; its nearest is 624. Counting in bf16 would stop at 256.
    assert torch.all(shifts.grad == 624)


def test_sum_refuses_unlike_shapes_and_dtypes():
    with pytest.raises(ValueError, match="must share B and H"):
        shifted_relu_sum(torch.zeros(2, 3, 4), torch.zeros(2, 3, 5), 1)
    with pytest.raises(ValueError, match="one dtype"):
        shifted_relu_sum(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4, dtype=torch.float64), 1)
