"""The frames of CamVid that lie in shared data."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zoo

ROOT = Path(os.environ.get("ZOO_DATA", Path(__file__).parents[3] / "shared" / "data")) / "camvid"

pytestmark = pytest.mark.skipif(not ROOT.is_dir(), reason=f"needs camvid, absent in {ROOT.parent} (ZOO_DATA)")


@pytest.fixture(scope="module")
def data():
    found = zoo.create("data", "camvid", root=str(ROOT), batch_size=4)
    found.setup()
    return found


def test_the_splits_are_those_of_segnet_in_their_order(data):
    assert (data.splits, data.size("train"), data.size("val")) == (("train", "val"), 367, 101)
    assert data.ids("val")[:2] == ["0016E5_07959", "0016E5_07961"]
    assert not set(data.ids("train")) & set(data.ids("val"))


def test_classes_have_the_shares_that_the_files_say(data):
    ids = np.concatenate([np.asarray(Image.open(file)).ravel() for file in (ROOT / "labels" / "val").glob("*.png")])
    assert data.class_shares("val") == pytest.approx(np.bincount(ids, minlength=12)[:11] / (ids < 11).sum())


def test_batches_hold_pictures_with_their_label_maps(data):
    batch = next(iter(data.val_dataloader()))
    assert (batch.images.shape, batch.label_map.shape) == ((4, 3, 360, 480), (4, 360, 480))
    assert set(batch.label_map.unique().tolist()) <= set(range(-1, 11))
    assert np.array_equal(batch.label_map[2].numpy(), data.label_map("val", 2))
    sky = batch.label_map == data.classes.position("Sky")
    means = batch.images.movedim(1, 3)
    assert means[sky].mean() > means[~sky].mean() + 0.2  # labels lie where their things are
    view = next(iter(data.train_dataloader()))
    assert (view.images.shape, view.label_map.shape) == ((4, 3, 288, 288), (4, 288, 288))
