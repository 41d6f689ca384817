"""The learned aggregation: attention over pairs, trained to rank on a network that stays as it is."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import zoo
from zoo import checkpoints
from zoo.models.two_stage_rn.pooling import AttentionPool
from zoo.registry import UsageError
from zoo.types import Batch

LEARNED = {"g": [16, 16], "h": [16], "f": [16, 16], "question_layer": 2, "chunk": 2, "aggregation": "learned"}
LEARNED |= {"attention_heads": 2, "attention_hidden": 8, "attention_dim": 5}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return zoo.create_model("two_stage_rn", **LEARNED)


@pytest.fixture
def batch(model):
    generator = torch.Generator().manual_seed(0)
    images, places = torch.rand(8, 3, 75, 75, generator=generator), torch.rand(2, 8, generator=generator)
    truth = (places[:, :, None] - places[:, None]).abs()  # of points on a line, which descriptors can follow
    return Batch(index=torch.arange(8), images=images, distances=truth)


def by_hand(pool, pairs):
    """One image after the other, one head after the other."""
    described = []
    for image in pairs:
        image = (image - pool.standardise.running_mean) / (pool.standardise.running_var + pool.standardise.eps).sqrt()
        heads = []
        for query in pool.query.weight:
            logits = torch.tanh(image @ pool.key.weight.T + pool.key.bias) @ query
            weights = torch.exp(logits) / torch.exp(logits).sum()
            heads.append(weights @ (image @ pool.value.weight.T + pool.value.bias))
        described.append(pool.out.weight @ torch.cat(heads) + pool.out.bias)
    return torch.stack(described)


def test_attention_equals_a_loop_and_takes_pairs_in_any_order():
    torch.manual_seed(0)
    pool = AttentionPool(width=6, heads=3, hidden=4, out=5)
    torch.nn.init.normal_(pool.query.weight)
    pool.train()(torch.randn(4, 50, 6) * 3 + 1)  # statistics
    pool.eval()
    pairs = torch.randn(2, 7, 6)
    torch.testing.assert_close(pool(pairs), by_hand(pool, pairs), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pool(pairs[:, torch.randperm(7)]), pool(pairs))


def test_attention_starts_from_the_average():
    pool = AttentionPool(width=6, heads=3, hidden=4, out=5).eval()
    pairs = torch.randn(2, 7, 6)
    torch.testing.assert_close(pool(pairs), pool(pairs.mean(dim=1, keepdim=True)))


def test_statistics_are_those_of_all_batches():
    pool = AttentionPool(width=3, heads=1, hidden=2, out=2).train()
    batches = torch.randn(5, 4, 10, 3) * 2 + 7
    for pairs in batches:
        pool(pairs)
    torch.testing.assert_close(pool.standardise.running_mean, batches.mean(dim=(0, 1, 2)))


def test_only_the_attention_is_trained(model, batch):
    assert {name.split(".")[1] for name, p in model.named_parameters() if p.requires_grad} == {"attention"}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    model.log = lambda *args, **kwargs: None
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        losses.append(model.training_step(batch, 0))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 0.3
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[1] for name in changed} == {"attention"}  # batch norm of the network below included


def test_training_mode_leaves_the_network_below_alone(model):
    for _ in range(2):
        modes = {name: module.training for name, module in model.net.named_modules() if name}
        assert {name for name, training in modes.items() if training} == {n for n in modes if n.startswith("attention")}
        model.eval()
        assert not any(module.training for module in model.modules())
        model.train()


def test_descriptors_hold_the_rows_of_the_paper_and_the_learned_one(model, batch):
    rows = model.eval().descriptors(batch)
    assert len(rows) == 7
    assert model.descriptor_name == "2S-RN learned"
    assert torch.equal(rows["2S-RN learned"], model.embed(batch).vector)
    assert rows["2S-RN learned"].shape == (8, 5)
    plain = zoo.create_model("two_stage_rn", **{**LEARNED, "aggregation": "avg"}).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "attention" not in k})
    assert all(torch.equal(row, rows[label]) for label, row in plain.descriptors(batch).items())


def test_all_pairs_by_shifts_give_the_descriptor(model, batch):
    model.eval()
    both = model.net.attend(batch.images, None), model.net.attend(batch.images, 25)
    torch.testing.assert_close(*both)
    assert F.cosine_similarity(*both).min() > 0.9999


def test_weights_without_attention_start_a_training_and_no_evaluation(model, tmp_path):
    plain = zoo.create_model("two_stage_rn", **{**LEARNED, "aggregation": "avg"})
    checkpoints.save_weights(plain, tmp_path / "plain.safetensors")
    _, state = checkpoints.read(tmp_path / "plain.safetensors")
    query = model.net.attention.value.weight.clone()
    checkpoints.fill(model, state, "plain", start=True)
    assert torch.equal(model.net.g[0].weight, plain.net.g[0].weight)
    assert torch.equal(model.net.attention.value.weight, query)
    with pytest.raises(UsageError, match="attention"):
        zoo.load_model(str(tmp_path / "plain.safetensors"), aggregation="learned")
    partly = {**state, "net.attention.out.bias": torch.zeros(5)}
    with pytest.raises(UsageError, match=r"attention\.key"):
        checkpoints.fill(model, partly, "plain", start=True)
    del state["net.g.0.weight"]
    with pytest.raises(UsageError, match=r"net\.g\.0\.weight"):
        checkpoints.fill(model, state, "plain", start=True)


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"feature": "conv"}, "feature must be relation"), ({"question_layer": 0}, "feature must be conv")],
)
def test_attention_needs_relations(changed, message):
    with pytest.raises(ValueError, match=message):
        zoo.create_model("two_stage_rn", **{**LEARNED, **changed})


def test_a_batch_without_ground_truth_is_refused(model):
    with pytest.raises(ValueError, match=r"set data\.truth"):
        model.training_step(model.tiny_batch(), 0)


def test_weights_with_attention_serve_the_other_aggregations(model, batch, tmp_path):
    checkpoints.save_weights(model, tmp_path / "learned.safetensors")
    plain = zoo.load_model(str(tmp_path / "learned.safetensors"), aggregation="avg")
    assert torch.equal(plain.embed(batch).vector, model.eval().descriptors(batch)["2S-RN avg"])


@pytest.mark.parametrize("images", [1, 2])
def test_an_epochs_remainder_teaches_nothing(model, batch, images):
    loss = model.training_step(batch._map(lambda tensor: tensor[:images]), 0)
    loss.backward()
    assert loss == 0
    assert all((p.grad == 0).all() for p in model.net.attention.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"attention_heads": 0}, "attention_heads must be an integer of at least 1, got 0"),
        ({"rank_temperature": "x"}, "rank_temperature must be a finite number"),
        ({"pair_shifts": 0}, "pair_shifts must be an integer of at least 1, got 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be a finite number of at least 0, got nan"),
    ],
)
def test_values_outside_their_range_are_named(changed, message):
    with pytest.raises(ValueError, match=message):
        zoo.create_model("two_stage_rn", **{**LEARNED, **changed})


@pytest.mark.parametrize("trainer", ["cpu", "ddp_cpu"])
def test_the_command_trains_it_on_given_weights(command, tiny, tmp_path, trainer):
    plain = zoo.create_model("two_stage_rn", **{**LEARNED, "aggregation": "avg"})
    checkpoints.save_weights(plain, tmp_path / "plain.safetensors")
    words = [*tiny, "model.aggregation=learned", "data.truth=[soft/authors,hard/bipartite]", f"trainer={trainer}"]
    words += ["weights=plain.safetensors", "hydra.run.dir=run"]
    command("zoo", "train", *words)
    trained = zoo.load_model(str(tmp_path / "run" / "checkpoints" / "best.ckpt"))
    assert torch.equal(trained.net.g[0].weight, plain.net.g[0].weight)
    assert trained.net.attention.query.weight.abs().max() > 0
    logged = next((tmp_path / "run" / "csv").rglob("metrics.csv")).read_text()
    assert "val/spearman" in logged.splitlines()[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.aggregation=learned"], "set data.truth, such as [soft/authors]"),
        (["data=clevr", "data.root=."], "model.vocabulary must be that of the data's questions, 'clevr', got None"),
        (["model.vocabulary=unknown", "model.answers=28", "model.question_groups=null"], "never published"),
    ],
)
def test_data_that_cant_train_the_model_ends_in_one_line(command, words, message):
    done = command("zoo", "train", *words, code=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
