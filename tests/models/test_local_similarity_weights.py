"""Files of what was trained alone, whose other weights are borrowed from a backbone's file; fingerprints."""

from __future__ import annotations

import logging

import pytest
import torch
from safetensors.torch import save_file

import zoo
from zoo import checkpoints
from zoo.backbones import create_backbone
from zoo.models.local_similarity.module import LocalSimilarity
from zoo.registry import UsageError

TRAINING = {
    "trained": "all", "loss": "cls", "location_weight": 0.3, "margin": 0.2, "negatives": 5, "shuffled_negatives": 0,
    "shuffled_block": 1, "learning_rate": 0.1, "momentum": 0.1, "weight_decay": 0.1, "schedule": "cosine",
    "channels": [6, 5], "match_score": False,
}  # fmt: skip


def backbone_file(path, seed):
    torch.manual_seed(seed)
    network = create_backbone("test_resnet", "random").network
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return backbone_file(tmp_path_factory.mktemp("backbones") / "one.safetensors", 1)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return backbone_file(tmp_path_factory.mktemp("backbones") / "two.safetensors", 2)


def made(backbone, seed=0, **changed):
    torch.manual_seed(seed)
    parameters = {**LocalSimilarity.tiny, "backbone_weights": str(backbone), **changed}
    return zoo.create_model("local_similarity", **parameters).eval()


def trained(backbone, **changed):
    """Returns a model after a training that moved all it may move."""
    model = made(backbone, **changed)
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.add_(0.1 * torch.randn(value.shape))
    return model


def assert_same(model, again):
    state = again.state_dict()
    assert state.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert again.fingerprint() == model.fingerprint()


def test_the_fingerprint_is_that_of_what_embeds(backbone, other):
    plain = made(backbone).fingerprint()
    assert made(backbone, seed=5).fingerprint() == plain  # another head
    assert made(backbone, **TRAINING).fingerprint() == plain
    head = trained(backbone, trained="head")
    assert head.fingerprint() == plain
    changed = [made(other), trained(backbone), made(backbone, gallery_grid=7), made(backbone, query_grid=2)]
    assert len({plain, *(each.fingerprint() for each in [*changed, made(backbone, levels=2)])}) == 6


def test_no_parameter_is_forgotten_by_the_fingerprint(backbone):
    embedding = {"backbone", "gallery_grid", "query_grid", "levels"}
    sources = {"backbone_weights", "quantizer"}
    assert made(backbone).registered["parameters"].keys() == embedding | sources | TRAINING.keys()


@pytest.mark.parametrize("part", ["head", "local", "all"])
def test_a_file_of_what_was_trained_is_small_and_gives_the_model_back(part, backbone, tmp_path, caplog):
    model = trained(backbone, trained=part)
    checkpoints.save_weights(model, tmp_path / "small.safetensors", trained_only=True)
    checkpoints.save_weights(model, tmp_path / "full.safetensors")
    small, full = ((tmp_path / f"{name}.safetensors").stat().st_size for name in ("small", "full"))
    held = {name.split(".")[1] for name in checkpoints.read(tmp_path / "small.safetensors")[1]}
    assert held & {"head", "local", "trunk", "regional"} == {
        "head": {"head"}, "local": {"head", "local"}, "all": {"head", "local", "trunk"},
    }[part]  # fmt: skip
    assert small < {"head": 0.1, "local": 0.8, "all": 1}[part] * full
    caplog.clear()
    again = zoo.load_model(str(tmp_path / "small.safetensors"))
    assert_same(model, again)
    assert again.registered == model.registered
    assert not caplog.records
    batch = LocalSimilarity.tiny_batch()
    assert torch.equal(again.embed(batch).local_map, model.embed(batch).local_map)


def test_a_file_that_was_loaded_can_be_written_again(backbone, tmp_path):
    model, file = trained(backbone), tmp_path / "small.safetensors"
    checkpoints.save_weights(model, file, trained_only=True)
    content = file.read_bytes()
    checkpoints.save_weights(zoo.load_model(str(file)), file, trained_only=True)
    assert file.read_bytes() == content


@pytest.mark.parametrize("typed", ["head", "local", "all"])
def test_a_file_can_be_loaded_to_train_other_parts(typed, backbone, tmp_path, caplog):
    model = trained(backbone)
    checkpoints.save_weights(model, tmp_path / "local.safetensors", trained_only=True)
    again = zoo.load_model(str(tmp_path / "local.safetensors"), trained=typed)
    assert_same(model, again)
    assert not caplog.records
    # As `zoo train weights=…` begins.
    begun = made(backbone, seed=3, trained=typed)
    described, state = checkpoints.read(tmp_path / "local.safetensors")
    checkpoints.fill(begun, state, "local.safetensors", start=True, described=described)
    assert_same(model, begun)


def test_weights_that_are_no_longer_the_backbones_are_kept(backbone, tmp_path):
    # The head is fine-tuned after its local branch was: the branch isn't trained now, and yet isn't the file's.
    before = trained(backbone, trained="local")
    model = made(backbone, trained="head")
    checkpoints.fill(model, before.state_dict(), "before", start=True)
    checkpoints.save_weights(model, tmp_path / "head.safetensors", trained_only=True)
    assert_same(model, zoo.load_model(str(tmp_path / "head.safetensors")))


@pytest.mark.parametrize("source", ["random", None])
def test_weights_that_nobody_can_borrow_are_not_left_out(source, backbone, tmp_path):
    model = made(backbone)
    model.registered["parameters"]["backbone_weights"] = source
    with pytest.raises(UsageError, match=f"has no weights that backbone_weights={source} gives: save all"):
        checkpoints.save_weights(model, tmp_path / "small.safetensors", trained_only=True)
    assert not (tmp_path / "small.safetensors").exists()
    plain = zoo.create_model("global_descriptor", backbone="test_resnet", backbone_weights=str(backbone))
    with pytest.raises(UsageError, match="model 'global_descriptor' has no weights that backbone_weights="):
        checkpoints.save_weights(plain, tmp_path / "small.safetensors", trained_only=True)


def test_other_weights_of_the_backbone_are_told(backbone, other, tmp_path, caplog):
    model = trained(backbone)
    checkpoints.save_weights(model, tmp_path / "small.safetensors", trained_only=True)
    with caplog.at_level(logging.WARNING, "zoo"):
        again = zoo.load_model(str(tmp_path / "small.safetensors"), backbone_weights=str(other))
    assert "were trained with other weights of the backbone: their figures don't hold" in caplog.text
    assert again.fingerprint() != model.fingerprint()
    for name, value in made(other).net.trunk.state_dict().items():
        assert torch.equal(again.net.trunk.state_dict()[name], value)
    assert torch.equal(again.head.exists.weight, model.head.exists.weight)
    assert again.registered["parameters"]["backbone_weights"] == str(other)


def test_a_missing_backbone_file_is_named(backbone, tmp_path):
    copy = tmp_path / "backbone.safetensors"
    copy.write_bytes(backbone.read_bytes())
    model = trained(copy)
    checkpoints.save_weights(model, tmp_path / "small.safetensors", trained_only=True)
    checkpoints.save_weights(model, tmp_path / "full.safetensors")
    copy.unlink()
    with pytest.raises(UsageError, match=r"small.safetensors': backbone_weights: there is no file '.*backbone.saf"):
        zoo.load_model(str(tmp_path / "small.safetensors"))
    assert_same(model, zoo.load_model(str(tmp_path / "full.safetensors")))


def test_a_damaged_file_of_what_was_trained_is_refused(backbone, tmp_path):
    model = trained(backbone)
    checkpoints.save_weights(model, tmp_path / "small.safetensors", trained_only=True)
    described, state = checkpoints.read(tmp_path / "small.safetensors")
    del state["net.head.exists.weight"]
    with pytest.raises(UsageError, match=r"don't fit the model 'local_similarity'.*(?s:.)*net\.head\.exists\.weight"):
        checkpoints.fill(model, state, "small.safetensors", described=described)


def test_variables_in_the_backbones_file_name_are_filled_in(backbone, tmp_path, monkeypatch):
    model = trained(backbone)
    model.registered["parameters"]["backbone_weights"] = "${oc.env:MINE_XYZ}/one.safetensors"
    monkeypatch.setenv("MINE_XYZ", str(backbone.parent))
    checkpoints.save_weights(model, tmp_path / "small.safetensors", trained_only=True)
    stored = checkpoints.read(tmp_path / "small.safetensors")[0]["parameters"]["backbone_weights"]
    assert stored == "${oc.env:MINE_XYZ}/one.safetensors"
    assert_same(model, zoo.load_model(str(tmp_path / "small.safetensors")))
    monkeypatch.delenv("MINE_XYZ")
    with pytest.raises(UsageError, match=r"MINE_XYZ.*can't be filled in: .*not found"):
        zoo.load_model(str(tmp_path / "small.safetensors"))


def test_half_precision_reads_back_to_the_same_backbone(backbone, tmp_path, caplog):
    model = trained(backbone, trained="head")
    checkpoints.save_weights(model, tmp_path / "half.safetensors", half=True, trained_only=True)
    again = zoo.load_model(str(tmp_path / "half.safetensors"))
    assert again.fingerprint() == model.fingerprint()
    torch.testing.assert_close(again.head.exists.weight, model.head.exists.weight, rtol=1e-3, atol=1e-4)
    assert not caplog.records
