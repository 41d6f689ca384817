"""The sample of rows that come in blocks: the same however they come, and fair."""

from __future__ import annotations

import pytest
import torch

from zoo.ops.sampling import sampled


@pytest.mark.parametrize("cut", [1, 3, 500])
def test_a_sample_depends_on_images_and_seed_alone(cut):
    images = torch.arange(1000) // 2
    rows = torch.arange(1000.0)[:, None]

    def blocks(backwards=False):
        parts = list(zip(rows.view(500, 2, 1).split(cut), images.view(500, 2).split(cut), strict=True))
        for part, number in parts[::-1] if backwards else parts:
            yield part.flatten(0, 1), number.flatten()

    drawn = sampled(blocks(), 50, seed=0)
    assert torch.equal(drawn, sampled(iter([(rows, images)]), 50, seed=0))
    assert torch.equal(drawn, sampled(blocks(backwards=True), 50, seed=0))
    assert len(drawn.unique()) == 50
    assert torch.equal(drawn, drawn.sort(0).values)
    assert not torch.equal(drawn, sampled(blocks(), 50, seed=1))
    assert torch.equal(sampled(blocks(), 2000, seed=0), rows)


def test_every_row_is_as_likely_to_be_drawn():
    rows, images = torch.arange(60.0)[:, None], torch.arange(60) // 3
    drawn = torch.cat([sampled(iter([(rows, images)]), 20, seed)[:, 0] for seed in range(300)])
    shares = drawn.long().bincount(minlength=60) / 300
    assert (shares - 1 / 3).abs().max() < 0.12  # four standard deviations


def test_no_blocks_and_empty_blocks_give_no_rows():
    nothing = (torch.empty(0, 3), torch.empty(0, dtype=torch.int64))
    assert sampled([], 5, seed=0).shape == (0, 0)
    assert sampled([nothing, nothing], 5, seed=0).shape == (0, 3)
