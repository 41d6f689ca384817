"""What training sees: pictures and labels stay in place on one another, whatever is drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from label_map_trees import CLASSES, COLOURS, VOID, scene, write_tree

import zoo
from zoo.data._label_views import Views

DRAWS = st.lists(st.floats(0, 1, exclude_max=True), min_size=7, max_size=7)


def inside(labels, margin):
    """Tells which pixels have their own label all around, where resizing mixes nothing in."""
    padded = np.pad(labels, margin, constant_values=-9)
    around = np.lib.stride_tricks.sliding_window_view(padded, (2 * margin + 1,) * 2)
    return (around == labels[..., None, None]).all((2, 3))


@settings(max_examples=60)
@given(number=st.integers(0, 50), draws=DRAWS, scale=st.sampled_from([(0.5, 2.0), (1.0, 1.0), (0.3, 0.4)]))
def test_a_pixel_keeps_its_label(number, draws, scale):
    labels, picture = scene(number)
    labels = np.where(labels == VOID, -1, labels.astype(np.int64))
    image, found = Views((40, 52), scale, True, 0.0).view(
        torch.from_numpy(picture).movedim(2, 0), labels, np.array(draws)
    )
    assert (image.shape, found.shape) == ((3, 40, 52), (40, 52))
    certain = inside(found, 3) & (found >= 0)
    assert np.abs(image.numpy()[:, certain].T.astype(int) - COLOURS[found[certain]]).max(initial=0) <= 1
    assert certain.any() or scale == (0.3, 0.4)


def test_a_flip_mirrors_both_and_a_small_picture_lies_in_void():
    labels, picture = scene(3)
    image = torch.from_numpy(picture).movedim(2, 0)
    views = Views((60, 70), (1.0, 1.0), True, 0.0)
    kept, flipped = (
        views.view(image, labels.astype(np.int64), np.array([0, 0.5, 0, flip, 0, 0, 0])) for flip in (0.7, 0.2)
    )
    assert torch.equal(kept[0], flipped[0].flip(2))
    assert np.array_equal(kept[1], flipped[1][:, ::-1])
    assert np.array_equal(kept[1][6:54, :64], labels)
    assert (kept[1][:6] == -1).all()
    assert (kept[1][:, 64:] == -1).all()
    assert (kept[0][:, :6] == 127).all()


def test_without_scale_flip_and_jitter_a_view_is_a_cut():
    labels, picture = scene(1)
    image = torch.from_numpy(picture).movedim(2, 0)
    view, found = Views((20, 30), (1.0, 1.0), False, 0.0).view(
        image, labels.astype(np.int64), np.array([0, 0.999, 0.5, 0, 0, 0, 0])
    )
    assert np.array_equal(found, labels[28:, 17:47])
    assert torch.equal(view, image[:, 28:, 17:47])


def test_jitter_changes_colours_alone_and_by_no_more_than_it_says():
    labels, picture = scene(2)
    image = torch.from_numpy(picture).movedim(2, 0)
    cut = {"crop_size": (48, 64), "scale": (1.0, 1.0), "flip": False}
    draws = np.array([0, 0, 0, 0, 0.999, 0.5, 0.5])  # contrast and saturation as they are
    view, found = Views(**cut, jitter=0.2).view(image, labels.astype(np.int64), draws)
    assert np.array_equal(found, labels)
    assert view.float().mean() / image.float().mean() == pytest.approx(1.2, abs=0.02)


def test_views_depend_on_seed_epoch_and_position_alone(tmp_path):
    def views(epoch, seed=0, workers=0):
        drawn = {"crop_size": 24, "jitter": 0.3, "seed": seed}
        shared = {"root": str(tmp_path), "classes": CLASSES, "batch_size": 2, "num_workers": workers}
        data = zoo.create("data", "label_maps", **drawn, **shared)
        data.setup()
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        batches = list(loader)
        order = torch.cat([batch.index for batch in batches]).argsort()
        return torch.cat([batch.images for batch in batches])[order], torch.cat([b.label_map for b in batches])[order]

    write_tree(tmp_path, {"train": 4, "val": 1})
    first = views(0)
    assert first[0].shape == (4, 3, 24, 24)
    assert 0 <= first[0].min() < first[0].max() <= 1
    assert (first[1].dtype, first[1].min() >= -1, first[1].max()) == (torch.int64, True, 2)
    for other in (views(0), views(0, workers=1)):
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    for other in (views(1), views(0, seed=1)):
        assert not torch.equal(first[0], other[0])
