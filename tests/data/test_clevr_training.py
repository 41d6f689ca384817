"""What only training batches have: augmentation, and ground-truth distances, of clevr and sort_of_clevr."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import lightning
import numpy as np
import pytest
import torch
from clevr_trees import REAL, clevr, write_tree
from omegaconf import OmegaConf
from PIL import Image
from torchvision.transforms.v2 import functional as V

from zoo.data._clevr_split import jitter
from zoo.data.sort_of_clevr import SortOfClevr
from zoo.files import BadFile
from zoo.truth import edit_distances


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write_tree(tmp_path / "tree", "train")
    return write_tree(tmp_path / "tree", "val")


def epoch_of(module, epoch):
    loader = module.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return {int(i): image for batch in loader for i, image in zip(batch.index, batch.images, strict=True)}


class Recorder(lightning.LightningModule):
    """Sees batches go by."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = {}

    def training_step(self, batch, batch_idx):
        self.seen[self.current_epoch, batch_idx] = (batch.index.tolist(), batch.images.clone())
        return self.weight * batch.images.mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fitted(data, folder, epochs, ckpt_path=None):
    model = Recorder()
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    settings = {"accelerator": "cpu", "default_root_dir": folder, "use_distributed_sampler": False, **quiet}
    trainer = lightning.Trainer(**settings, max_epochs=epochs, limit_val_batches=0, enable_checkpointing=False)
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    trainer.save_checkpoint(folder / f"{epochs}.ckpt")
    return model.seen


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_training_sees_the_images_that_it_would_have_seen(tree, tmp_path, workers):
    keys = {"augment": True, "batch_size": 1, "num_workers": workers}
    through = fitted(clevr(tree, **keys), tmp_path, 3)
    fitted(clevr(tree, **keys), tmp_path, 2)
    resumed = fitted(clevr(tree, **keys), tmp_path, 3, str(tmp_path / "2.ckpt"))
    assert sorted(resumed) == [(2, 0), (2, 1), (2, 2)]
    for step, (index, images) in resumed.items():
        assert through[step][0] == index
        assert torch.equal(through[step][1], images)


@pytest.mark.parametrize("draws", [(0.0, 0.0, 0.0), (0.999, 0.5, 0.999), (0.5, 0.2, 0.5), (0.3, 0.9, 0.1)])
def test_jitter_is_pad_crop_and_rotation(draws):
    noise = np.random.default_rng(1).integers(1, 255, (24, 32, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    left, top = (int(17 * draw) for draw in draws[:2])
    padded = V.crop(V.pad(picture, [8], fill=0), top, left, 24, 32)
    wanted = V.rotate(padded, (2 * draws[2] - 1) * 2.8)
    assert np.array_equal(np.asarray(jitter(picture, *draws)), np.asarray(wanted))


def test_jitter_stays_within_its_bounds():
    picture = Image.new("RGB", (64, 64), (255, 255, 255))
    draws = np.random.default_rng(0).random((200, 3))
    black = np.array([(np.asarray(jitter(picture, *draw)) == 0).all(2).mean() for draw in draws])
    assert black.max() < 1 - (56 / 64) ** 2 + 0.1
    assert len(set(black.round(4).tolist())) > 50


def test_augmentation_depends_on_seed_epoch_and_position_alone(tree):
    wanted = epoch_of(clevr(tree, augment=True), 3)
    assert sorted(wanted) == [0, 1, 2]
    torch.rand(3)  # the random numbers of the process don't matter
    for other in (clevr(tree, augment=True), clevr(tree, augment=True, batch_size=1, num_workers=1)):
        assert all(torch.equal(wanted[i], image) for i, image in epoch_of(other, 3).items() if i in wanted)
    for module, epoch in ((clevr(tree, augment=True), 4), (clevr(tree, augment=True, seed=1), 3)):
        assert not torch.equal(wanted[0], epoch_of(module, epoch)[0])
    plain = clevr(tree)
    assert torch.equal(epoch_of(plain, 3)[0], plain.dataset("train").__getitems__([0]).images[0])


def test_only_training_images_are_augmented_and_their_questions_stay(tree):
    data, plain = clevr(tree, augment=True, batch_size=3), clevr(tree, batch_size=3)
    for loader in (type(data).val_dataloader, type(data).test_dataloader):
        assert torch.equal(next(iter(loader(data))).images, next(iter(loader(plain))).images)
    one, other = (next(iter(module.train_dataloader())) for module in (data, plain))
    assert not torch.equal(one.images, other.images)
    for name in ("index", "questions", "answers", "question_types"):
        assert torch.equal(getattr(one, name), getattr(other, name))


def test_training_shuffles_by_epoch_and_shares_images_between_ranks(tree):
    data = clevr(tree, batch_size=1)
    orders = {tuple(epoch_of(data, epoch)) for epoch in range(8)}
    assert len(orders) > 1
    assert {tuple(epoch_of(clevr(tree, batch_size=1), epoch)) for epoch in range(8)} == orders
    device = SimpleNamespace(root_device=torch.device("cpu"))
    ranks = []
    for rank in range(4):
        other = copy.copy(data)
        other.trainer = SimpleNamespace(global_rank=rank, world_size=4, strategy=device)
        ranks.append(other)
    assert sorted(i for rank in ranks for batch in rank.loader("val") for i in batch.index.tolist()) == [0, 1, 2]
    with pytest.raises(ValueError, match="split 'val' must have an image for each of 4 processes, got 3"):
        ranks[0].val_dataloader()


def test_distances_of_clevr_are_those_of_the_batch(tmp_path):
    if not (REAL / "clevr_mini").is_dir():
        pytest.skip(f"{REAL / 'clevr_mini'} is absent (set ZOO_DATA)")
    words = ["soft/authors", "hard/bipartite"]
    data = clevr(REAL / "clevr_mini", cache=str(tmp_path), batch_size=9, truth=words, augment=True, limit=30)
    graphs = data.scene_graphs("train")
    batch = next(iter(data.train_dataloader()))
    own = graphs[batch.index.numpy()]
    assert (batch.distances.shape, batch.distances.dtype) == ((2, 9, 9), torch.float32)
    for found, word in zip(batch.distances, words, strict=True):
        assert np.array_equal(found.numpy(), edit_distances(own, own, *word.split("/")))
    assert not torch.equal(batch.distances[0], batch.distances[0].T)  # a row is the query; authors is not symmetric
    assert next(iter(data.val_dataloader())).distances is None


def test_distances_without_scene_graphs_are_refused(tree):
    with pytest.raises(ValueError, match="split 'train' has no scene graphs"):
        clevr(tree, scenes=None, truth=["soft/bipartite"]).train_dataloader()


@pytest.mark.parametrize("missing", ["train", "val"])
def test_training_with_ground_truth_is_refused_before_it_starts_where_a_split_has_no_scenes(tree, missing):
    scenes = {split: f"scenes/CLEVR_{split}_scenes.json" for split in {"train", "val"} - {missing}}
    said = rf"truth must be \[\] where split '{missing}' has no scene graphs, got \[soft/authors, hard/exact\]"
    module = clevr(tree, scenes=scenes, truth=["soft/authors", "hard/exact"])
    with pytest.raises(BadFile, match=said + r" and scenes null .* set data\.scenes, or data\.truth=\[\]"):
        module.setup("fit")
    clevr(tree, scenes=scenes, truth=["soft/authors"]).setup("test")
    clevr(tree, scenes=scenes).setup("fit")
    clevr(tree, truth=["soft/authors"]).setup("fit")


def test_distances_of_sort_of_clevr_are_those_of_the_batch(tmp_path):
    conf = Path(__file__).parents[2] / "conf" / "data" / "sort_of_clevr.yaml"
    known = OmegaConf.to_container(OmegaConf.load(conf), resolve=True)
    for key in ("_target_", "kind", "_convert_", "name"):
        known.pop(key)
    sizes = {"train_size": 12, "val_size": 5, "test_size": 1, "gallery_size": 1, "root": str(tmp_path), "batch_size": 6}
    data = SortOfClevr(**{**known, **sizes, "truth": ["soft/exact", "hard/authors"], "warmup_epochs": 1})
    data.prepare_data()
    data.setup()
    for split in ("train", "warmup"):
        data._warmup_epochs = int(split == "warmup")
        data.trainer = SimpleNamespace(
            current_epoch=0,
            global_rank=0,
            world_size=1,
            strategy=SimpleNamespace(root_device=torch.device("cpu")),
        )
        batch = next(iter(data.train_dataloader()))
        own = data.scene_graphs(split)[batch.index.numpy()]
        assert np.array_equal(batch.distances[0].numpy(), edit_distances(own, own, "soft", "exact"))
        assert np.array_equal(batch.distances[1].numpy(), edit_distances(own, own, "hard", "authors"))
    assert next(iter(data.val_dataloader())).distances is None
    with pytest.raises(ValueError, match=r"truth must .* got 'soft/quick'"):
        SortOfClevr(**{**known, "truth": ["soft/quick"]})
