"""What a drawing asks for, against the equations of Furuta et al. 2018 written out cell by cell."""

from __future__ import annotations

import pytest
import torch

from zoo.ops.sketches import combined_query, sketch_query

CLASSES = 4


def drawn(share=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES - 1, (2, 5, 6), generator=generator)  # the last class is never drawn
    return torch.where(torch.rand(2, 5, 6, generator=generator) < share, labels, -1)


def photos(seed=1):
    return torch.randn(2, CLASSES, 5, 6, generator=torch.Generator().manual_seed(seed)).softmax(dim=1)


def test_a_drawing_asks_for_what_is_drawn():
    labels = drawn()
    maps, counts = sketch_query(labels, CLASSES)
    for b in range(2):
        for c in range(CLASSES):
            assert torch.equal(maps[b, c], (labels[b] == c).float())
            assert counts[b, c] == (labels[b] == c).any()
    assert not counts[:, -1].any()


def test_over_a_photo_the_drawing_wins_where_it_is():
    labels, photo = drawn(), photos()
    maps = combined_query(labels, photo)
    for b in range(2):
        for y in range(5):
            for x in range(6):
                wanted = photo[b, :, y, x]
                if labels[b, y, x] >= 0:
                    wanted = torch.zeros(CLASSES)
                    wanted[labels[b, y, x]] = 1
                assert torch.equal(maps[b, :, y, x], wanted)


def test_nothing_drawn_leaves_the_photo_and_everything_drawn_nothing_of_it():
    photo = photos()
    assert torch.equal(combined_query(torch.full((2, 5, 6), -1), photo), photo)
    full = drawn(share=2)
    assert torch.equal(combined_query(full, photo), sketch_query(full, CLASSES)[0])
    maps, counts = sketch_query(torch.full((2, 5, 6), -1), CLASSES)
    assert not maps.any()
    assert not counts.any()


@pytest.mark.parametrize(
    ("labels", "rule"),
    [
        (torch.zeros(5, 6, dtype=torch.long), r"labels must be \(B, H, W\), got \(5, 6\)"),
        (torch.full((1, 5, 6), CLASSES), r"labels must lie in -1 … 3 for 4 classes, got 4 … 4"),
        (torch.full((1, 5, 6), -2), "got -2 … -2"),
    ],
)
def test_what_is_no_drawing_is_told(labels, rule):
    with pytest.raises(ValueError, match=rule):
        sketch_query(labels, CLASSES)


def test_a_photo_of_another_size_is_told():
    with pytest.raises(ValueError, match=r"of the size of labels \(2, 5, 6\), got \(2, 4, 5, 5\)"):
        combined_query(drawn(), photos()[..., :5])
