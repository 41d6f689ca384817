"""What the head learns from, and validation on one and two processes; pairs are maps in which the query is copied."""

from __future__ import annotations

import itertools

import lightning
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score
from torch import nn
from torchvision.ops import box_iou

import zoo
from zoo.models.local_similarity.boxes import box_overlap, decode_boxes, encode_boxes
from zoo.models.local_similarity.losses import pair_loss, similarity
from zoo.models.local_similarity.module import LocalSimilarity
from zoo.search.quantizer import ProductQuantizer
from zoo.training import EpochSeed
from zoo.types import PairBatch

GRID, QUERY, D = 8, 3, 16


def made(**changed):
    torch.manual_seed(0)
    tiny = {**LocalSimilarity.tiny, "gallery_grid": GRID, "query_grid": QUERY, "shuffled_negatives": 0}
    return zoo.create_model("local_similarity", **{**tiny, **changed})


def pairs(count, seed=0, objects=None):
    """Returns pairs of maps: the query's cells stand somewhere in the gallery's, once or twice as large."""
    generator = torch.Generator().manual_seed(seed)
    queries = F.normalize(torch.randn(count, D, QUERY, QUERY, generator=generator), dim=1)
    galleries = F.normalize(torch.randn(count, D, GRID, GRID, generator=generator), dim=1)
    boxes = torch.empty(count, 4)
    for k in range(count):
        times = 1 + int(torch.randint(0, 2, (1,), generator=generator))
        side = QUERY * times
        x, y = torch.randint(0, GRID - side + 1, (2,), generator=generator).tolist()
        own = queries[k].repeat_interleave(times, 1).repeat_interleave(times, 2)
        galleries[k, :, y : y + side, x : x + side] = own
        boxes[k] = torch.tensor([x, y, x + side, y + side])
    index = torch.arange(count)
    return PairBatch(index, queries, galleries, boxes, index if objects is None else torch.tensor(objects))


def rows(batch, chosen):
    return batch._map(lambda tensor: tensor[chosen])


def loader(batches):
    # A generator of its own: otherwise it takes a number from torch's, which the epoch's order of events decides on.
    return torch.utils.data.DataLoader(batches, batch_size=None, generator=torch.Generator())


class Pairs(lightning.LightningDataModule):
    """Two batches an epoch; of the batches to validate every rank has its own."""

    gives_pairs = True

    def __init__(self, train, val=None):
        super().__init__()
        self.train, self.val = train, val

    def train_dataloader(self):
        half = len(self.train) // 2
        return loader([rows(self.train, slice(half)), rows(self.train, slice(half, None))])

    def val_dataloader(self):
        parts = [rows(self.val, slice(start, start + 2)) for start in range(0, len(self.val), 2)]
        return loader(parts[self.trainer.global_rank :: self.trainer.world_size])


def trainer(folder, **changed):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    alone = {"accelerator": "cpu", "use_distributed_sampler": False, "enable_checkpointing": False}
    return lightning.Trainer(**{**quiet, **alone, "default_root_dir": folder, **changed})


def fit(model, data, folder, ckpt_path=None, **changed):
    trainer(folder, limit_val_batches=0, **changed).fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return model


@pytest.mark.parametrize("loss", ["triplet", "cls", "cls+loc"])
def test_a_batch_of_one_object_has_no_negatives_and_a_finite_loss(loss, tmp_path):
    model = fit(made(loss=loss), Pairs(pairs(4, objects=[7, 7, 7, 7])), tmp_path, max_epochs=1)
    assert all(value.isfinite().all() for value in model.parameters())


def volume_of(gallery, query):
    return torch.einsum("dq,dyx->qyx", query.flatten(1), gallery)


def learnt_from(model, batch):
    """Returns the volumes of the positive and of the negative pairs that a training step learns from."""
    calls = []
    handle = model.net.head.register_forward_pre_hook(lambda head, given: calls.append(given[0].detach()))
    model.training_step(batch, 0)
    handle.remove()
    return calls


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
@pytest.mark.parametrize("shuffled", [0, 2])
def test_a_step_learns_from_the_hardest_pairs_of_different_objects(shuffled):
    batch = pairs(8, objects=[0, 0, 1, 2, 3, 4, 5, 5])
    model = made(negatives=6, shuffled_negatives=shuffled, shuffled_block=2)
    positives, negatives = learnt_from(model, batch)
    volumes = {
        (q, g): volume_of(batch.galleries[g], batch.queries[q]) for q, g in itertools.product(range(8), repeat=2)
    }
    torch.testing.assert_close(positives, torch.stack([volumes[k, k] for k in range(8)]))
    different = [pair for pair in volumes if batch.objects[pair[0]] != batch.objects[pair[1]]]
    assert len(different) == 52
    with torch.no_grad():
        scores = {pair: similarity(model.net.head(volumes[pair][None]).logits).item() for pair in different}

    def nearest(volume):
        return min(volumes, key=lambda pair: (volumes[pair] - volume).abs().max())

    assert {nearest(volume) for volume in negatives[:6]} == set(sorted(scores, key=scores.get)[-6:])
    assert len(negatives) == 6 + shuffled
    owners = []
    for volume in negatives[6:]:  # the query's own gallery with its cells elsewhere
        columns = _in_order(volume)
        gaps = [(_in_order(volumes[k, k]) - columns).abs().max().item() for k in range(8)]
        assert min(gaps) < 1e-5
        owners.append(gaps.index(min(gaps)))
        assert (volumes[owners[-1], owners[-1]] - volume).abs().max() > 0.1
    assert len(set(owners)) == shuffled


def _in_order(volume):
    columns = volume.flatten(1)
    return columns[:, columns[0].argsort()]


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
@pytest.mark.parametrize(
    ("trained", "parts"), [("head", {"head"}), ("local", {"head", "local"}), ("all", {"head", "local", "trunk"})]
)
def test_gradients_reach_what_is_trained_and_statistics_stay(trained, parts):
    model = made(trained=trained, gallery_grid=6).train()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)  # timm starts the last one of a block with zeros, which stop gradients
    before = {name: value.clone() for name, value in model.named_buffers()}
    model.training_step(LocalSimilarity.tiny_training_batch(), 0).backward()
    moved = {name.split(".")[1] for name, value in model.named_parameters() if value.grad is not None}
    assert moved == parts == {name.split(".")[1] for name, value in model.named_parameters() if value.requires_grad}
    still = [name for name, value in model.named_parameters() if value.grad is not None and not value.grad.any()]
    assert not [name for name in still if name.endswith("weight")]
    assert len(before) > 10
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    modes = {layer.training for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)}
    assert modes == {False}
    optimised = model.configure_optimizers()["optimizer"].param_groups
    assert [len(group["params"]) for group in optimised] == [sum(p.requires_grad for p in model.parameters())]
    assert {key: optimised[0][key] for key in ("lr", "momentum", "weight_decay")} == {
        "lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-2,
    }  # fmt: skip


def test_the_head_learns_eight_pairs_by_heart(tmp_path):
    eight = pairs(8, seed=1)
    model = made(channels=[24, 12], negatives=8, learning_rate=0.02, weight_decay=0.0)

    def loss():
        targets = encode_boxes(eight.boxes, GRID, GRID)
        volumes = [[volume_of(gallery, query) for gallery in eight.galleries] for query in eight.queries]
        with torch.no_grad():
            mine = model.net.head(torch.stack([volumes[k][k] for k in range(8)]))
            others = model.net.head(torch.stack([volumes[q][g] for q in range(8) for g in range(8) if q != g]))
        overlap = box_overlap(decode_boxes(mine.boxes), eight.boxes / GRID)
        return pair_loss(mine, others, targets, "cls+loc", 1.0, 0.1).item(), mine, others, overlap

    before = loss()
    trainer(tmp_path, max_steps=80, limit_val_batches=0).fit(model, loader([eight]))
    after, mine, others, overlap = loss()
    assert after < 0.25 * before[0]
    assert (similarity(mine.logits) > 0.5).all()
    assert similarity(others.logits).mean() < 0.2
    assert overlap.mean() > max(0.6, before[3].mean())


def test_a_resumed_training_ends_where_one_in_one_go_does(tmp_path):
    data, changed = Pairs(pairs(8)), {"shuffled_negatives": 2, "schedule": "cosine", "learning_rate": 0.01}
    saving = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, monitor=None)
    both = {"max_epochs": 3, "enable_checkpointing": True}
    whole = fit(made(**changed), data, tmp_path, **both, callbacks=[EpochSeed(0), saving])
    assert whole.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)
    fresh = made(**changed)
    with torch.no_grad():
        for value in fresh.net.head.parameters():
            value.add_(1)
    resumed = fit(fresh, data, tmp_path, str(tmp_path / "epoch=0.ckpt"), **both, callbacks=[EpochSeed(0)])
    first = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)["state_dict"]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert not torch.equal(first["net.head.exists.weight"], whole.state_dict()["net.head.exists.weight"])


def by_hand(model, batch):
    """Returns mean average precision and overlap of all queries against all galleries."""
    precisions = []
    with torch.no_grad():
        for q in range(len(batch)):
            found = [
                model.net.head(volume_of(gallery, batch.queries[q])[None]).logits[0] for gallery in batch.galleries
            ]
            scores = [(present - absent).item() for absent, present in found]
            precisions.append(average_precision_score((batch.objects == batch.objects[q]).numpy(), scores))
        own = [
            model.net.head(volume_of(*pair)[None]).boxes for pair in zip(batch.galleries, batch.queries, strict=True)
        ]
        overlaps = box_iou(decode_boxes(torch.cat(own)), batch.boxes / GRID).diagonal()
    return {"val/map": sum(precisions) / len(precisions), "val/iou": overlaps.mean().item()}


@pytest.mark.parametrize("processes", [1, 2])
def test_validation_on_one_and_two_processes(tmp_path, processes):
    batch, model = pairs(7, objects=[0, 0, 1, 2, 3, 1, 4]), made(learning_rate=0.02)
    wanted = by_hand(model, batch)
    assert 0.2 < wanted["val/map"] < 0.95
    alone = trainer(tmp_path, devices=processes, strategy="ddp_fork" if processes > 1 else "auto")
    found = alone.validate(model, datamodule=Pairs(None, batch), verbose=False)[0]
    assert found == {name: pytest.approx(value, abs=1e-5) for name, value in wanted.items()}


@pytest.fixture
def quantizer(tmp_path):
    batch = pairs(12)
    made_ = ProductQuantizer.fit(batch.galleries.permute(0, 2, 3, 1).reshape(-1, D), m=4, k=8, seed=0)
    file = tmp_path / "codebook.safetensors"
    file.write_bytes(made_.to_bytes())
    return made_, file


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_with_a_quantizer_galleries_are_what_codes_keep_of_them(quantizer, monkeypatch):
    model, batch = made(), pairs(3)
    monkeypatch.setattr(model, "quantizer", quantizer[0])
    volumes = learnt_from(model, batch)[0]
    centroids = torch.from_numpy(quantizer[0].centroids)
    cells = batch.galleries.permute(0, 2, 3, 1).reshape(-1, 4, D // 4)
    nearest = torch.stack([torch.cdist(cells[:, m], centroids[m]).argmin(dim=1) for m in range(4)], dim=1)
    decoded = torch.cat([centroids[m][nearest[:, m]] for m in range(4)], dim=1)
    wanted = (decoded / decoded.norm(dim=1, keepdim=True)).reshape(3, GRID, GRID, D).permute(0, 3, 1, 2)
    torch.testing.assert_close(volumes, torch.stack([*map(volume_of, wanted, batch.queries)]))
    assert (volumes - torch.stack([*map(volume_of, batch.galleries, batch.queries)])).abs().max() > 0.1


def test_a_quantizer_for_another_dimension_is_refused(quantizer):
    dimension = made().net.dimension
    with pytest.raises(ValueError, match=rf"quantizer must be for maps of dimension {dimension}, .* is for {D}"):
        made(quantizer=str(quantizer[1]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"trained": "trunk"}, "trained must be one of head, local, all, got 'trunk'"),
        ({"loss": "cls + loc"}, r"loss must be one of triplet, cls, cls\+loc, got 'cls \+ loc'"),
        ({"schedule": "step"}, "schedule must be one of constant, cosine, got 'step'"),
        ({"negatives": 0}, "negatives must be an integer of at least 1, got 0"),
        ({"shuffled_negatives": -1}, "shuffled_negatives must be an integer of at least 0, got -1"),
        ({"shuffled_block": True}, "shuffled_block must be an integer of at least 1, got True"),
        ({"query_grid": 7.0}, "query_grid must be an integer of at least 1, got 7.0"),
        ({"gallery_grid": 3}, "gallery_grid must be at least 4 cells, got 3"),
        ({"channels": [128]}, r"channels must be two integers of at least 1, got \[128\]"),
        ({"location_weight": -0.1}, "location_weight must be a finite number of at least 0, got -0.1"),
        ({"margin": "wide"}, "margin must be a finite number of at least 0, got 'wide'"),
        ({"learning_rate": 0}, "learning_rate must be a finite number above 0, got 0"),
        ({"momentum": -1}, "momentum must be a finite number of at least 0, got -1"),
    ],
)
def test_wrong_parameters_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        made(**wrong)


def test_data_without_pairs_is_refused():
    with pytest.raises(ValueError, match=r"must give pairs of images .* data=sort_of_clevr doesn't: cut_paste does"):
        made().check_data(zoo.create("data", "sort_of_clevr"))
    made().check_data(zoo.create("data", "cut_paste"))
