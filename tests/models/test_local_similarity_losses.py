"""Boxes, their overlap, and the losses, against formulas written out."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from zoo.models.local_similarity.boxes import box_overlap, decode_boxes, encode_boxes
from zoo.models.local_similarity.head import Found
from zoo.models.local_similarity.losses import negative_pairs, pair_loss


@settings(max_examples=60)
@given(
    st.integers(8, 900), st.integers(8, 900),
    st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=1, max_size=4),
)  # fmt: skip
def test_boxes_come_back_from_their_encoding(height, width, corners):
    rows_ = [(min(a, c), min(b, d), max(a, c) + 0.01, max(b, d) + 0.01) for a, b, c, d in corners]
    shares = torch.tensor(rows_, dtype=torch.float64) / 1.01
    boxes = shares * torch.tensor([width, height, width, height])
    encoded = encode_boxes(boxes, height, width)
    torch.testing.assert_close(decode_boxes(encoded), shares, rtol=0, atol=1e-9)
    x0, y0, x1, y1 = boxes[0].tolist()
    # Faster R-CNN's t, the anchor being the image: centre (W/2, H/2), size (W, H).
    wanted = [(x0 + x1 - width) / 2 / width, (y0 + y1 - height) / 2 / height, (x1 - x0) / width, (y1 - y0) / height]
    assert encoded[0].tolist() == pytest.approx([*wanted[:2], *map(math.log, wanted[2:])], abs=1e-9)


def test_boxes_are_cut_to_the_image():
    wild = torch.tensor([[0.4, -0.4, 0.0, 50.0], [3.0, 0.0, -1.0, -1.0]])
    found = decode_boxes(wild)
    assert found[0].tolist() == pytest.approx([0.4, 0, 1, 1])
    assert found[1, 0] == found[1, 2] == 1
    assert encode_boxes(torch.tensor([[3.0, 3, 3, 3]]), 10, 10).isfinite().all()


def test_overlap_is_that_of_torchvision():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(200, 2, 2, generator=generator).sort(dim=1).values.flatten(1) for _ in range(2))
    a[0], b[0], a[1] = torch.tensor([0, 0, 0.2, 0.2]), torch.tensor([0.5, 0.5, 1, 1]), b[1]
    found = box_overlap(a, b)
    torch.testing.assert_close(found, box_iou(a, b).diagonal())
    assert (found[0], found[1]) == (0, 1)
    assert box_overlap(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0


@pytest.fixture
def found():
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 2), (3, 4), (5, 2), (5, 4), (3, 4))
    a, b, c, d, targets = (3 * torch.randn(*shape, generator=generator) for shape in shapes)
    return Found(a, b), Found(c, d), targets


def smooth(error):
    return 0.5 * error**2 if abs(error) < 1 else abs(error) - 0.5


def test_losses_are_those_of_eq_8(found):
    positives, negatives, targets = found
    classified = 0.0
    for (absent, present), wrong in [*((row, 0) for row in positives.logits), *((row, 1) for row in negatives.logits)]:
        chances = [math.exp(absent), math.exp(present)]
        classified -= math.log(chances[1 - wrong] / sum(chances)) / 8
    errors = (positives.boxes - targets).flatten().tolist()
    assert any(abs(error) > 1 for error in errors)
    assert any(abs(error) < 1 for error in errors)
    located = sum(map(smooth, errors)) / 3  # Nloc: the positive pairs, not their four numbers
    assert pair_loss(*found, "cls", weight=0.3, margin=0.1).item() == pytest.approx(classified, rel=1e-5)
    assert pair_loss(*found, "cls+loc", 0.3, 0.1).item() == pytest.approx(classified + 0.3 * located, rel=1e-5)


def test_triplet_asks_for_a_margin_between_probabilities(found):
    chance = [[1 / (1 + math.exp(absent - present)) for absent, present in each.logits] for each in found[:2]]
    terms = [max(0.0, low - high + 0.1) for high, low in itertools.product(*chance)]
    assert pair_loss(*found, "triplet", weight=0.3, margin=0.1).item() == pytest.approx(sum(terms) / 15, rel=1e-5)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 3), max_size=9))
def test_negatives_are_all_pairs_of_different_objects(objects):
    found = set(zip(*map(torch.Tensor.tolist, negative_pairs(torch.tensor(objects, dtype=torch.int64))), strict=True))
    places = range(len(objects))
    assert found == {(a, b) for a in places for b in places if objects[a] != objects[b]}
