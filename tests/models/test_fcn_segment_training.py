"""Loss, weights of classes, rates, validation on one process and two."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from label_map_trees import CLASSES, NAMES, write_tree
from own_process import Saving, apart, saved
from sklearn.metrics import jaccard_score

import zoo
from zoo.models.fcn_segment.module import FCNSegment
from zoo.models.fcn_segment.training import log_weights, lovasz_softmax, poly_factor, segmentation_loss

SIZES = {"train": 6, "val": 5}


def built(root, **parameters):
    torch.manual_seed(0)
    model = zoo.create_model("fcn_segment", **{**FCNSegment.tiny, "classes": CLASSES, **parameters})
    sizes = {"image_size": [48, 64], "crop_size": 32, "batch_size": 2}
    return model, zoo.create("data", "label_maps", root=str(root), classes=CLASSES, **sizes)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("label_maps"), SIZES)


def trainer(folder, epochs=1, **changed):
    return lightning.Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, use_distributed_sampler=False, num_sanity_val_steps=0,
        **changed,
    )  # fmt: skip


def one_hot(labels, classes):
    return F.one_hot(labels, classes).movedim(-1, 1).double()


@given(st.integers(0, 2**20), st.integers(1, 4), st.floats(0, 0.9))
@settings(max_examples=40)
def test_the_lovasz_loss_of_certain_maps_is_one_less_their_iou(seed, classes, void):
    generator = np.random.default_rng(seed)
    truth, found = generator.integers(0, classes, (2, 2, 4, 5))
    hidden = generator.random(truth.shape) < void
    known = ~hidden
    loss = lovasz_softmax(one_hot(torch.from_numpy(found), classes), torch.from_numpy(np.where(hidden, -1, truth)))
    if not known.any():
        assert loss == 0
        return
    overlaps = jaccard_score(truth[known], found[known], labels=np.unique(truth[known]), average=None, zero_division=0)
    assert loss.item() == pytest.approx(1 - overlaps.mean(), abs=1e-6)


@given(st.integers(0, 2**20))
@settings(max_examples=20)
def test_the_lovasz_loss_is_convex_in_what_is_found_and_its_gradient_that_of_differences(seed):
    generator = torch.Generator().manual_seed(seed)
    one, other = (torch.randn(1, 3, 3, 4, generator=generator, dtype=torch.double).softmax(1) for _ in range(2))
    labels = torch.randint(-1, 3, (1, 3, 4), generator=generator)
    middle = lovasz_softmax((one + other) / 2, labels)
    assert middle <= (lovasz_softmax(one, labels) + lovasz_softmax(other, labels)) / 2 + 1e-9
    if (labels >= 0).any():
        assert torch.autograd.gradcheck(lambda found: lovasz_softmax(found, labels), one.clone().requires_grad_())


def test_the_last_steps_train_what_is_embedded(root, tmp_path):
    """Of three epochs of three steps, the last three have another loss: that of the corrected maps."""
    model, data = built(root, class_weighting="log", prior_correction=0.5, finish=0.4)
    finishing, steps = model._finishing_loss, []
    model._finishing_loss = lambda *given: steps.append(model.global_step) or finishing(*given)
    trainer(tmp_path, 3).fit(model, datamodule=data)
    assert steps == [6, 7, 8]
    batch = FCNSegment.tiny_batch()
    labels = batch.label_map.clamp(max=2)
    logits, maps = model._corrected(batch.images), model.embed(batch).probability_map
    large = [F.interpolate(each, labels.shape[1:], mode="bilinear") for each in (logits, logits.softmax(1), maps)]
    wanted = F.cross_entropy(large[0], labels, ignore_index=-1)
    wanted = wanted + sum(lovasz_softmax(each, labels) for each in large[1:])
    torch.testing.assert_close(finishing(batch.images, labels), wanted)


def test_the_loss_is_the_weighted_mean_over_pixels_that_have_a_class():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator, requires_grad=True)
    labels = torch.randint(-1, 3, (2, 8, 10), generator=generator)
    weights = torch.tensor([1.0, 3.0, 0.5])
    large = F.interpolate(logits, (8, 10), mode="bilinear").movedim(1, 3)
    chance = large.log_softmax(-1)
    total = counted = 0.0
    for place in (labels >= 0).nonzero().tolist():
        label = labels[tuple(place)]
        total, counted = total - weights[label] * chance[tuple(place)][label], counted + weights[label]
    torch.testing.assert_close(segmentation_loss(logits, labels, weights), total / counted)
    nothing = segmentation_loss(logits, torch.full_like(labels, -1), weights)
    nothing.backward()
    assert nothing == 0
    assert logits.grad.eq(0).all()


def test_rates_fall_by_the_poly_schedule():
    assert [poly_factor(step, 20_000, 0.9) for step in (0, 10_000, 20_000, 30_000)] == [1, 0.5**0.9, 0, 0]
    assert poly_factor(19_999, 20_000, 0.9) == pytest.approx((1 / 20_000) ** 0.9)


def test_rare_classes_weigh_more():
    found = log_weights([0.0, 0.01, 0.99])
    assert found.tolist() == pytest.approx([1 / math.log(1.02), 1 / math.log(1.03), 1 / math.log(2.01)])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_head_has_a_rate_of_its_own_and_both_fall_to_nothing(root, tmp_path, optimizer):
    model, data = built(root, optimizer=optimizer, learning_rate=1e-3, head_learning_rate=1e-2, momentum=0.8)
    seen = []

    class Watch(lightning.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    runner = trainer(tmp_path, epochs=2, callbacks=[Watch()], limit_val_batches=0)
    runner.fit(model, datamodule=data)
    factors = [(1 - step / 6) ** 0.9 for step in range(6)]
    assert np.array(seen) == pytest.approx(np.outer(factors, [1e-3, 1e-2]))
    (groups,) = [optimizer.param_groups for optimizer in runner.optimizers]
    assert sum(len(group["params"]) for group in groups) == sum(each.requires_grad for each in model.parameters())
    assert groups[0]["weight_decay"] == 5e-4
    assert groups[0].get("momentum") == (0.8 if optimizer == "sgd" else None)


def test_a_schedule_without_an_end_is_refused(root, tmp_path):
    model, data = built(root)
    with pytest.raises(ValueError, match=r"set trainer\.max_epochs or trainer\.max_steps, got neither"):
        trainer(tmp_path, epochs=-1).fit(model, datamodule=data)


def by_hand(model, data, scales):
    data.setup()
    truth, predicted, own = [], [], []
    for place in range(SIZES["val"]):
        batch = next(iter(data.selection("val", [f"s{place}"])))
        with torch.no_grad():
            looks = [model.net(F.interpolate(batch.images, scale_factor=scale, mode="bilinear")) for scale in scales]
            found = [model.embed(batch).probability_map], [logits.softmax(1) for logits in looks]
        for each, rows in zip(found, (predicted, own), strict=True):
            large = sum(F.interpolate(probabilities, (48, 64), mode="bilinear") for probabilities in each)
            rows.append(large[0].argmax(0).numpy().ravel())
        truth.append(data.label_map("val", place).ravel())
    truth, predicted, own = map(np.concatenate, (truth, predicted, own))
    seen = truth >= 0
    overlap, fine = (jaccard_score(truth[seen], rows[seen], labels=range(3), average=None) for rows in (predicted, own))
    values = {"val/miou": overlap.mean(), "val/pixel_accuracy": (truth == predicted)[seen].mean()}
    values["val/own_miou"] = fine.mean()
    return values | {f"val/iou/{name}": value for name, value in zip(NAMES, overlap, strict=True)}


@pytest.mark.parametrize("scales", [[1], [1, 1.5]])
def test_validation_logs_the_overlap_of_every_class(root, tmp_path, scales):
    model, data = built(root, scales=scales)
    with torch.no_grad():  # what it begins with takes everything for one class
        torch.nn.init.normal_(model.net.head.classifier.weight)
        model.net.head.classifier.bias.zero_()
    wanted = by_hand(model.eval(), data, scales)
    assert 0 < wanted["val/miou"] < 1
    assert wanted["val/own_miou"] != wanted["val/miou"]
    found = trainer(tmp_path).validate(model, datamodule=data, verbose=False)[0]
    assert found == {name: pytest.approx(value, abs=1e-6) for name, value in wanted.items()}


def two_processes(folder, root):
    model, data = built(Path(root), class_weighting="log", freeze_norm=False)
    trainer(folder, devices=2, strategy="ddp_fork", callbacks=[Saving(folder)]).fit(model, datamodule=data)


def test_two_processes_train_one_model_and_find_what_one_finds(root, tmp_path):
    """Five images on two ranks; each rank's batch normalisation has seen other images."""
    apart(two_processes, tmp_path, root)
    states = saved(tmp_path)
    assert states[0]["metrics"] == states[1]["metrics"]
    for name, value in states[0]["weights"].items():
        assert torch.equal(value, states[1]["weights"][name]), name
    model, data = built(root, class_weighting="log", freeze_norm=False)
    model.load_state_dict(states[0]["weights"])
    alone = trainer(tmp_path).validate(model.eval(), datamodule=data, verbose=False)[0]
    assert alone == {name: pytest.approx(value, abs=1e-6) for name, value in states[0]["metrics"].items()}
    assert torch.equal(model.class_weights, log_weights(data.class_shares("train")))


def test_what_class_weights_add_is_taken_back_outside_training(root):
    shares, share = [0.2, 0.3, 0.5], 0.5
    batch = FCNSegment.tiny_batch()
    found = {}
    for correction in (0.0, share):
        torch.manual_seed(0)
        model, _ = built(root, class_weighting="log", class_shares=shares, prior_correction=correction)
        loss = segmentation_loss(model.net(batch.images), batch.label_map.clamp(max=2), model.class_weights)
        found[correction] = model.eval().embed(batch).probability_map, loss
    plain, corrected = found[0.0][0], found[share][0]
    assert found[0.0][1] == found[share][1]
    assert (plain - corrected).abs().max() > 1e-3
    logits = model.net(batch.images).detach() - share * log_weights(shares).log()[:, None, None]
    wanted = torch.nn.functional.interpolate(
        logits.softmax(1), corrected.shape[2:], mode="bilinear", align_corners=False, antialias=True
    )
    assert torch.allclose(corrected, wanted, atol=1e-6)


def test_shares_that_are_given_are_not_counted(root, tmp_path):
    model, data = built(root, class_weighting="log", class_shares=[0.2, 0.3, 0.5])
    data.class_shares = None
    trainer(tmp_path, limit_train_batches=1, limit_val_batches=0).fit(model, datamodule=data)
    assert torch.equal(model.class_weights, log_weights([0.2, 0.3, 0.5]))
    plain, data = built(root)
    data.class_shares = None
    trainer(tmp_path, limit_train_batches=1, limit_val_batches=0).fit(plain, datamodule=data)
    assert plain.class_weights.eq(1).all()
    assert plain.fingerprint() != model.fingerprint()


def test_data_without_label_maps_or_with_other_classes_is_refused(root, tmp_path):
    model, data = built(root)
    model.check_data(data)
    with pytest.raises(ValueError, match="data must give label maps, data=sort_of_clevr doesn't: label_maps, camvid"):
        model.check_data(zoo.create("data", "sort_of_clevr"))
    other = zoo.create("data", "label_maps", root=str(root), classes=["sky", "thing", "ground"])
    with pytest.raises(ValueError, match=r"must be .* \(given, 3\), got 3, 'ground' in the place of 'thing'"):
        model.check_data(other)
    bare = replace(FCNSegment.tiny_batch(), label_map=None)
    with pytest.raises(ValueError, match="label maps, this batch has none"):
        model.training_step(bare, 0)


COMMAND = [
    "model=fcn_segment", "data=label_maps", "benchmark=segmentation", "model.backbone=test_resnet",
    "model.backbone_weights=random", "model.head=light", "model.output_stride=16", "model.dilations=[1,2]",
    "model.width=16", "model.skip_stride=4", "model.skip_width=8", "model.optimizer=adamw",
    "model.learning_rate=0.003", "model.head_learning_rate=0.01", "data.image_size=[48,64]", "data.crop_size=48",
    "data.batch_size=2", "trainer.max_epochs=4", "trainer.enable_progress_bar=false", "test=true",
]  # fmt: skip


def test_one_command_trains_and_judges_on_files_of_ones_own(root, tmp_path):
    (tmp_path / "own.csv").write_text("name,colour\n" + "".join(f"{c['name']},{c['colour']}\n" for c in CLASSES))
    words = [f"model.classes={tmp_path / 'own.csv'}", f"data.classes={tmp_path / 'own.csv'}", f"data.root={root}"]
    done = subprocess.run(
        [sys.executable, "-m", "zoo.commands.train", *COMMAND, *words, f"hydra.run.dir={tmp_path / 'run'}"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mean IoU" in done.stdout
    result = json.loads((tmp_path / "run" / "results.json").read_text())
    assert result["query_ids"] == list(NAMES)
    reached = max(logged_miou(tmp_path / "run" / "csv" / "version_0" / "metrics.csv"))
    assert result["rows"][0]["metrics"]["miou"]["mean"] == pytest.approx(reached, abs=1e-5)
    assert reached > 0.4
    assert (tmp_path / "run" / "contact_sheet.png").is_file()
    model = zoo.load_model(str(tmp_path / "run" / "checkpoints" / "best.ckpt"))
    assert model.class_names == NAMES


def logged_miou(file):
    rows = np.genfromtxt(file, delimiter=",", names=True, deletechars="")
    return rows["val/miou"][~np.isnan(rows["val/miou"])]
