"""The Trainer of commands: precision that the CPU lacks, values and surroundings that can't be."""

from __future__ import annotations

import logging

import pytest

from zoo import config
from zoo.commands import _trainer
from zoo.registry import UsageError


@pytest.mark.parametrize(("able", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_bf16_is_given_up_with_a_warning_where_the_cpu_lacks_it(able, precision, monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(_trainer, "cpu_computes_bf16", lambda: able)
    cfg = config.compose("train", ["trainer.precision=bf16-mixed", f"paths.run_dir={tmp_path}"])
    with caplog.at_level(logging.WARNING, "zoo"):
        built = _trainer.trainer(cfg, callbacks=[], logger=[])
    assert built.precision == precision
    assert ("no bf16 instructions" in caplog.text) is not able


def refused(*words):
    cfg = config.compose("train", [*words, "paths.run_dir=."])
    with pytest.raises(UsageError) as raised:
        _trainer.trainer(cfg, callbacks=[], logger=[])
    return str(raised.value)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("trainer.max_epochs=many", "trainer.max_epochs must be an integer of at least -1, got 'many'"),
        ("trainer.max_epochs=1.5", "trainer.max_epochs must be an integer of at least -1, got 1.5"),
        ("trainer.max_epochs=true", "trainer.max_epochs must be an integer of at least -1, got True"),
        (
            "trainer.check_val_every_n_epoch=0",
            "trainer.check_val_every_n_epoch must be an integer of at least 1, got 0",
        ),
        ("trainer.gradient_clip_val=big", "trainer.gradient_clip_val must be a finite number of at least 0, got 'big'"),
        ("trainer.devices=two", "lightning.Trainer: `devices` selected with `CPUAccelerator` should be an int > 0."),
        (
            "trainer.limit_train_batches=-1",
            "lightning.Trainer: You have passed invalid value -1 for limit_train_batches",
        ),
    ],
)
def test_what_the_trainer_can_not_be_is_said_before_it_runs(word, said):
    assert refused(word).startswith(said)


def test_processes_that_were_started_already_start_no_more(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = refused("trainer=ddp_cpu")
    assert said.startswith("trainer.strategy=ddp_fork starts processes of its own, and 2 were started already")
    assert said.endswith("set trainer.strategy=ddp")
