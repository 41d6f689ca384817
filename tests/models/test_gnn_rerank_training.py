"""Training in two phases: what moves when, going on between the phases, and two processes."""

from __future__ import annotations

import lightning
import pytest
import torch
from own_process import Saving, apart, saved
from sklearn.metrics import average_precision_score

import zoo
from zoo.models.gnn_rerank.losses import ContrastiveMse
from zoo.training import EpochSeed

MODEL = {
    "dimension": 84, "projection": 8, "anchors": 7, "affinities": ["field_of_view"], "hits": 15, "projection_hits": 11,
    "width": 16, "heads": 2, "projection_epochs": 2, "learning_rate": 1e-2,
}  # fmt: skip
CITIES = {"train_count": 2, "val_count": 1, "database": 90, "queries": 36, "dimension": 84, "batch_size": 8}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("cities")


def built(root, **changed):
    torch.manual_seed(0)
    model = zoo.create_model("gnn_rerank", **{**MODEL, **changed})
    data = zoo.create("data", "simulated_city", root=str(root), **CITIES)
    model.check_data(data)
    return model, data


def trainer(folder, epochs, *callbacks, **changed):
    return lightning.Trainer(**{
        "accelerator": "cpu", "max_epochs": epochs, "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "use_distributed_sampler": False,
        "num_sanity_val_steps": 0, "default_root_dir": folder, "callbacks": [EpochSeed(0), *callbacks], **changed,
    })  # fmt: skip


class Watch(lightning.Callback):
    """Keeps the weights and metrics at the end of every epoch."""

    def __init__(self):
        self.states, self.metrics = [], []

    def on_train_epoch_end(self, trainer, pl_module):
        self.states.append({name: value.clone() for name, value in pl_module.state_dict().items()})
        self.metrics.append({name: value.item() for name, value in trainer.callback_metrics.items()})


def moved(before, after):
    return {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}


def test_first_the_projection_moves_then_all_else(root, tmp_path):
    model, data = built(root)
    begun = {name: value.clone() for name, value in model.state_dict().items()}
    watch = Watch()
    trainer(tmp_path, 4, watch).fit(model, datamodule=data)
    first, second, third, fourth = watch.states
    assert moved(begun, first) == moved(first, second) == {"projection"}
    assert moved(third, fourth) == {"embedding", "layers"}
    found = [each["val/projection_map@10"] for each in watch.metrics]
    assert found[2] == found[3] == max(found[:2])  # the best of the first phase
    assert [each["val/map@10"] > 0 for each in watch.metrics] == [False, False, True, True]


def test_the_best_projection_is_taken_where_the_last_is_worse(root, tmp_path):
    model, data = built(root, learning_rate=3.0)  # which spoils what the first epoch has found
    watch = Watch()
    trainer(tmp_path, 3, watch).fit(model, datamodule=data)
    best = max(watch.metrics[:2], key=lambda each: each["val/projection_map@10"])
    chosen = watch.states[watch.metrics.index(best)]
    assert torch.equal(watch.states[2]["net.projection.weight"], chosen["net.projection.weight"])


@pytest.mark.parametrize("pause", [1, 2, 3])
def test_a_run_goes_on_from_within_and_between_its_phases(root, tmp_path, pause):
    whole = built(root)
    trainer(tmp_path, 4).fit(whole[0], datamodule=whole[1])
    part = built(root)
    stopped = trainer(tmp_path, pause)
    stopped.fit(part[0], datamodule=part[1])
    stopped.save_checkpoint(tmp_path / "part.ckpt")
    resumed = built(root)
    trainer(tmp_path, 4).fit(resumed[0], datamodule=resumed[1], ckpt_path=tmp_path / "part.ckpt", weights_only=True)
    for name, value in whole[0].state_dict().items():
        assert torch.equal(value, resumed[0].state_dict()[name]), name


def test_unlocked_the_projection_moves_on(root, tmp_path):
    model, data = built(root, lock=False, phase2_input="raw")
    watch = Watch()
    trainer(tmp_path, 4, watch).fit(model, datamodule=data)
    assert moved(watch.states[2], watch.states[3]) == {"projection", "embedding", "layers"}


def test_projected_once_is_the_same_as_raw_without_dropout(root, tmp_path):
    states = []
    for given in ("raw", "projected"):
        model, data = built(root, phase2_input=given, dropout=0.0, projection_epochs=0)
        trainer(tmp_path, 1).fit(model, datamodule=data)
        states.append(model.state_dict())
    for name, value in states[0].items():
        assert torch.allclose(value, states[1][name], atol=1e-4), name


def two_processes(folder, root):
    model, data = built(root, dropout=0.0)
    data.prepare_data()
    trainer(folder, 3, Saving(folder), devices=2, strategy="ddp_fork").fit(model, datamodule=data)


def test_two_processes_leave_with_the_same_weights_in_both_phases(root, tmp_path):
    apart(two_processes, tmp_path, root)
    states = saved(tmp_path)
    assert states[0]["metrics"] == states[1]["metrics"]
    begun = built(root)[0].state_dict()
    for name, value in states[0]["weights"].items():
        assert torch.equal(value, states[1]["weights"][name]), name
        assert not torch.equal(value, begun[name]), name


def test_validation_is_the_mean_over_queries_of_all_hits(root, tmp_path):
    model, data = built(root, projection_epochs=0)
    watch = Watch()
    trainer(tmp_path, 1, watch).fit(model, datamodule=data)
    (city,) = [data.city(name) for name in data.cities["val"]]
    asked, there = (torch.tensor(city.images[side].poses) for side in ("query", "database"))
    near = torch.cdist(asked[:, :2], there[:, :2]) <= 25
    values = []
    for query, relevant in zip(city.descriptors["query"], near, strict=True):
        if relevant.any():
            hits = (city.descriptors["database"] @ query).argsort(descending=True)[:15]
            columns = {name: values[hits] for name, values in city.images["database"].columns.items()}
            order, _ = model.rerank(query, city.descriptors["database"][hits], columns)
            ranked = relevant[hits[order]][:10].numpy()
            share = ranked.sum() / min(10, relevant.sum())
            values.append(share * average_precision_score(ranked, -torch.arange(10)) if ranked.any() else 0)
    assert watch.metrics[0]["val/map@10"] == pytest.approx(sum(values).item() / len(values), abs=1e-5)


@pytest.mark.parametrize("convention", ["paper", "authors"])
def test_the_contrastive_and_mse_losses_train(root, tmp_path, convention):
    model, data = built(root, loss="contrastive_mse", convention=convention, projection_epochs=1)
    watch = Watch()
    trainer(tmp_path, 2, watch).fit(model, datamodule=data)
    assert all(value.isfinite().all() for value in watch.states[1].values())
    assert {"embedding", "layers"} < moved(watch.states[0], watch.states[1])


def test_the_mse_loss_is_that_of_its_equation():
    torch.manual_seed(0)
    loss = ContrastiveMse(6, 4, 2.0, 0.2, "paper")
    refined, features = torch.randn(2, 5, 6), torch.randn(2, 5, 4)
    relevant, valid = torch.zeros(2, 4, dtype=torch.bool), torch.ones(2, 5, dtype=torch.bool)
    valid[1, 3:] = False
    value = loss(torch.randn(2, 4), relevant, refined, features, valid)
    errors = (features - loss.head(refined)).square().sum(2)
    assert value.item() == pytest.approx(0.2 * (errors[0].sum() + errors[1, :3].sum()).item() / 2, abs=1e-5)


def test_data_without_shortlists_is_refused(tmp_path):
    data = zoo.create("data", "sort_of_clevr", root=str(tmp_path))
    with pytest.raises(ValueError, match="data=sort_of_clevr doesn't: street_level does"):
        zoo.create_model("gnn_rerank", **MODEL).check_data(data)
