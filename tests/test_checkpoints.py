"""Weights that describe themselves, and files that must be refused."""

from __future__ import annotations

import os
import pickle

import pytest
import torch

import zoo
from zoo import checkpoints
from zoo.models.two_stage_rn.module import TwoStageRN
from zoo.registry import UsageError

TINY = dict(TwoStageRN.tiny)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return zoo.create_model("two_stage_rn", **TINY, aggregation="avg").eval()


@pytest.fixture
def file(model, tmp_path):
    checkpoints.save_weights(model, tmp_path / "mine.safetensors")
    return tmp_path / "mine.safetensors"


def test_a_weights_file_alone_rebuilds_the_model(model, file):
    again = zoo.load_model(str(file))
    batch = TwoStageRN.tiny_batch()
    assert torch.equal(model.embed(batch).vector, again.embed(batch).vector)
    assert again.registered == model.registered
    assert not again.training
    assert checkpoints.weights_hash(again) == checkpoints.weights_hash(model)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_key_that_the_yaml_got_later_leaves_the_fingerprint(model, tmp_path):
    del model.registered["parameters"]["aggregation"]  # as if the file were older
    checkpoints.save_weights(model, tmp_path / "old.safetensors")
    again = zoo.load_model(str(tmp_path / "old.safetensors"))
    assert again.fingerprint() == model.fingerprint()
    other = zoo.load_model(str(tmp_path / "old.safetensors"), aggregation="max")
    assert other.fingerprint() != model.fingerprint()


def test_half_precision_refuses_numbers_that_it_does_not_have(model, tmp_path):
    name = next(iter(dict(model.named_parameters())))
    with torch.no_grad():
        dict(model.named_parameters())[name].view(-1)[0] = 1e5
    with pytest.raises(UsageError, match=f"numbers up to 65,504, '{name}' has 1e.05"):
        checkpoints.save_weights(model, tmp_path / "half.safetensors", half=True)
    assert not (tmp_path / "half.safetensors").exists()


def test_half_precision_is_close(model, tmp_path):
    checkpoints.save_weights(model, tmp_path / "half.safetensors", half=True)
    again = zoo.load_model(str(tmp_path / "half.safetensors"))
    batch = TwoStageRN.tiny_batch()
    torch.testing.assert_close(again.embed(batch).vector, model.embed(batch).vector, rtol=1e-2, atol=1e-2)
    assert next(again.parameters()).dtype == torch.float32
    assert checkpoints.weights_hash(again) != checkpoints.weights_hash(model)


def test_parameters_override_what_the_file_says(file):
    assert zoo.load_model(str(file), aggregation="max").aggregation == "max"
    with pytest.raises(UsageError, match=r"no parameter 'agregation'.*Did you mean 'aggregation'"):
        zoo.load_model(str(file), agregation="max")


def test_weights_of_another_shape_are_refused(file):
    with pytest.raises(UsageError, match=r"don't fit the model 'two_stage_rn'"):
        zoo.load_model(str(file), g=[16, 8])


class Touch:
    """Would create a file if it were unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mknod, (self.path,)


def test_code_in_a_checkpoint_is_not_executed(tmp_path):
    trap = tmp_path / "executed"
    torch.save({"state_dict": {}, "spatial_zoo": Touch(str(trap))}, tmp_path / "evil.ckpt")
    (tmp_path / "raw.ckpt").write_bytes(pickle.dumps(Touch(str(trap))))
    for name in ("evil.ckpt", "raw.ckpt"):
        with pytest.raises(UsageError, match="can't be read without executing it"):
            zoo.load_model(str(tmp_path / name))
    assert not trap.exists()


def test_damaged_foreign_and_missing_files_are_named(file, tmp_path):
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UsageError, match=r"mine.safetensors' can't be read"):
        zoo.load_model(str(file))
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(UsageError, match="don't say which model they belong to"):
        zoo.load_model(str(tmp_path / "foreign.ckpt"))
    with pytest.raises(UsageError, match="no such file"):
        zoo.load_model(str(tmp_path / "absent.ckpt"))


def test_weights_by_name_are_looked_for_beside_the_model():
    with pytest.raises(UsageError, match=r"no weights 'sort_of_clever'"):
        zoo.load_model("two_stage_rn", weights="sort_of_clever")
    with pytest.raises(UsageError, match="say which weights"):
        zoo.load_model("two_stage_rn")


def test_a_model_of_an_absent_plugin_names_who_wrote_it(model, tmp_path):
    model.registered = {**model.registered, "name": "acme_gone", "origin": "zoo-acme 9.9"}
    checkpoints.save_weights(model, tmp_path / "gone.safetensors")
    with pytest.raises(UsageError, match=r"written by zoo-acme 9.9: unknown model 'acme_gone'"):
        zoo.load_model(str(tmp_path / "gone.safetensors"))
