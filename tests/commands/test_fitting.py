"""`zoo train` of statistics: one process fits for all, the file alone brings them, mistakes end in one line."""

from __future__ import annotations

import json
import os
import shutil
import signal
from types import SimpleNamespace

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from PIL import Image

import zoo
import zoo.testing
from zoo import config
from zoo.commands import _fitting, _setup
from zoo.models.global_descriptor.module import GlobalDescriptor
from zoo.registry import UsageError

QUIET = SimpleNamespace(trainer=SimpleNamespace(enable_progress_bar=False))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Eighteen noisy pictures of three colours, in two sizes, and a damaged one."""
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for label, colour in {"red": (200, 40, 40), "green": (40, 180, 40), "blue": (40, 40, 220)}.items():
        (root / label).mkdir()
        for number in range(6):
            noise = random.integers(-40, 40, (48 + 16 * (number % 2), 64, 3))
            Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(
                root / label / f"{number}.png"
            )
    (root / "red" / "damaged.png").write_bytes((root / "red" / "0.png").read_bytes()[:200])
    return root


def built(photos, **parameters):
    torch.manual_seed(0)
    model = zoo.create_model("global_descriptor", **{**GlobalDescriptor.tiny, **parameters})
    data = zoo.create("data", "folder", root=str(photos), batch_size=4)
    _fitting.open_data(model, data)
    return model, data


def trainer(devices, folder):
    return lightning.Trainer(
        accelerator="cpu", devices=devices, strategy="ddp_fork" if devices > 1 else "auto", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, use_distributed_sampler=False, default_root_dir=folder,
    )  # fmt: skip


def test_two_processes_leave_with_the_statistics_of_one(photos, tmp_path, monkeypatch):
    def tell(self):
        path = tmp_path / f"rank {self.global_rank} of {self.trainer.world_size}"
        path.write_text(json.dumps([self.model.fingerprint(), self.model.registered["fitted_on"]["images"]]))

    monkeypatch.setattr(_fitting.FittingLoop, "on_test_end", tell)
    for devices in (1, 2):
        parameters = {"pooling": "netvlad", "clusters": 3, "whitening": "learned", "dimension": 4}
        model, data = built(photos, **parameters)
        path = _fitting.fit(QUIET, model, data, trainer(devices, tmp_path), tmp_path / str(devices), ("last", "best"))
        assert path == tmp_path / str(devices) / "checkpoints" / "best.safetensors"
    told = {path.name: json.loads(path.read_text()) for path in tmp_path.glob("rank *")}
    assert list(told.values()) == [told["rank 0 of 1"]] * 3
    assert sorted(told) == ["rank 0 of 1", "rank 0 of 2", "rank 1 of 2"]
    for devices in (1, 2):
        for name in ("last", "best"):
            again = zoo.load_model(str(tmp_path / str(devices) / "checkpoints" / f"{name}.safetensors"))
            assert again.fingerprint() == told["rank 0 of 1"][0]
            fitted_on = again.registered["fitted_on"]
            assert (fitted_on["data"], fitted_on["split"], fitted_on["images"]) == ("folder", "gallery", 18)
            assert fitted_on["parameters"]["root"] == str(photos)


def test_what_fails_on_one_process_ends_the_others(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(GlobalDescriptor, "check_fitting", lambda *arguments: None)
    model, data = built(photos, whitening="pca", dimension=18)
    with pytest.raises(Exception, match="'global_descriptor': a projection to 18 dimensions must be fitted on more"):
        _fitting.fit(QUIET, model, data, trainer(2, tmp_path), tmp_path, ("best",))
    with pytest.raises(UsageError, match="'global_descriptor': a projection to 18 dimensions must be fitted on more"):
        _fitting.fit(QUIET, model, data, trainer(1, tmp_path), tmp_path, ("best",))
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_fit_that_is_told_to_stop_stops(photos, tmp_path, monkeypatch):
    model, data = built(photos, whitening="pca", dimension=4)
    seen, selection = [], data.selection

    def stopping(*arguments, **options):
        for batch in selection(*arguments, **options):
            os.kill(os.getpid(), signal.SIGTERM)
            seen.append(batch)
            yield batch

    monkeypatch.setattr(data, "selection", stopping)
    with pytest.raises(SIGTERMException):
        _fitting.fit(QUIET, model, data, trainer(1, tmp_path), tmp_path, ("best",))
    assert len(seen) == 1
    assert not list(tmp_path.rglob("*.safetensors"))


def test_too_few_images_and_missing_labels_are_told_before_anything_is_read(photos):
    for root, parameters, said in (
        (photos, {"whitening": "pca", "dimension": 19}, "number of images that whitening is fitted on, 19, got 19"),
        (photos / "red", {"whitening": "learned", "dimension": 3}, "whitening=learned needs labels"),
    ):
        with pytest.raises(UsageError, match=said):
            built(root, **parameters)


def test_the_split_of_training_is_fitted_on_where_there_is_one(tmp_path):
    sizes = {
        f"{split}_size": size for split, size in zip(("train", "val", "test", "gallery"), (9, 2, 2, 5), strict=True)
    }
    data = zoo.create("data", "sort_of_clevr", root=str(tmp_path), **sizes)
    model = zoo.create_model("global_descriptor", **GlobalDescriptor.tiny, whitening="pca", dimension=4)
    _fitting.open_data(model, data)
    _fitting.fit(QUIET, model, data, trainer(1, tmp_path), tmp_path, ("best",))
    fitted_on = model.registered["fitted_on"]
    assert (fitted_on["data"], fitted_on["split"], fitted_on["images"]) == ("sort_of_clevr", "train", 9)


def test_a_damaged_file_is_named_once_and_left_out(photos, tmp_path, caplog):
    model, data = built(photos, pooling="netvlad", clusters=3, whitening="pca", dimension=4)
    _fitting.fit(QUIET, model, data, trainer(1, tmp_path), tmp_path, ("best",))
    (left_out,) = [line for line in caplog.messages if "left out" in line]
    assert "damaged.png" in left_out


def test_the_command_fits_and_evaluates(command, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "whole", ignore=shutil.ignore_patterns("damaged*"))
    words = ["model=global_descriptor", "model.backbone=test_resnet", "model.backbone_weights=random"]
    fitted = [*words, "model.whitening=learned", "model.dimension=4", "data=folder", f"data.root={tmp_path / 'whole'}"]
    run = ["test=true", "benchmark=instances", f"hydra.run.dir={tmp_path / 'run'}"]
    done = command("zoo", "train", *fitted, *run)
    assert "fitting the statistics of global_descriptor on" in done.stdout
    path = tmp_path / "run" / "checkpoints" / "best.safetensors"
    assert f"weights={path}" in done.stdout
    assert "GeM, learned whitening" in done.stdout
    told = json.loads((tmp_path / "run" / "results.json").read_text())["model"]
    assert (told["weights"], told["fitted_on"]["images"]) == (str(path), 18)


def test_a_model_that_nothing_has_fitted_is_not_evaluated():
    words = ["backbone: test_resnet", "backbone_weights: random", "whitening: pca", "dimension: 4"]
    said = "'global_descriptor' has statistics that must be fitted on images first: zoo train model=global_descriptor"
    typed = [f"model.{word.replace(': ', '=')}" for word in words]
    with pytest.raises(UsageError, match=said):
        _setup.trained_model(config.compose("eval", ["model=global_descriptor", *typed]))
    entry = f"+beside.white={{label: white, name: global_descriptor, parameters: {{{', '.join(words)}}}}}"
    with pytest.raises(UsageError, match=f"beside 'white': model {said}"):
        _setup.companions(config.compose("eval", [entry]))


CODE = """
import torch
from torch import nn

from zoo.module import Embedder
from zoo.ops.whitening import Whitening
from zoo.types import Batch, Representation


class Halfway(Embedder):
    monitor = "loss"

    def __init__(self, *, width):
        super().__init__()
        self.layer, self.whitening = nn.Linear(3, width), Whitening(width, 2)

    def features(self, batch):
        return self.layer(batch.images.mean((2, 3)))

    def embed(self, batch, role="gallery"):
        return Representation(vector=self.whitening(self.features(batch)))

    def training_step(self, batch, batch_idx):
        loss = self.features(batch).square().sum()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        return {"index": batch.index, "vector": self.features(batch), "scores": {}}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)

    @property
    def needs_fitting(self):
        return True

    def fit_statistics(self, batches, labels):
        with torch.no_grad():
            self.whitening.fit_pca(torch.cat([self.features(batch) for batch in batches]))

    @classmethod
    def tiny_batch(cls):
        return Batch(torch.arange(3), torch.rand(3, 3, 4, 4))
"""
YAML = "_target_: zoo.create\n_convert_: all\nkind: model\nname: halfway\nwidth: 3\n"


def test_a_model_that_is_trained_is_fitted_afterwards(distribution, command, tmp_path):
    files = {
        "zoo_half/__init__.py": "",
        "zoo_half/module.py": CODE,
        "zoo_half/conf/model/halfway.yaml": YAML,
    }
    distribution("zoo-half", "1.0", {"halfway": "zoo_half.module:Halfway"}, files)
    zoo.testing.check_model("halfway", tmp_path)
    sizes = ["data.train_size=16", "data.val_size=4", "data.test_size=4", "data.gallery_size=8", "data.warmup_epochs=0"]
    run = [*sizes, "trainer.max_epochs=1", f"hydra.run.dir={tmp_path / 'run'}"]
    done = command("zoo", "train", "model=halfway", *run, PYTHONPATH=tmp_path / "site")
    path = tmp_path / "run" / "checkpoints" / "best.safetensors"
    assert f"ckpt_path={path}" in done.stdout
    fitted, trained = zoo.load_model(str(path)), zoo.load_model(str(path.with_suffix(".ckpt")))
    assert torch.equal(fitted.layer.weight, trained.layer.weight)
    assert fitted.registered["fitted_on"]["images"] == 16
    with pytest.raises(RuntimeError, match="must be fitted"):
        trained.embed(trained.tiny_batch())
    assert fitted.embed(fitted.tiny_batch()).vector.shape == (3, 2)
