"""The paper's learning rate for CLEVR, doubled every few epochs up to a limit, and the optimisers."""

from __future__ import annotations

import lightning
import pytest
import torch
from torch.utils.data import DataLoader

import zoo
from zoo.models.two_stage_rn.module import TwoStageRN
from zoo.models.two_stage_rn.rates import SteppedRate

STEPPED = {**TwoStageRN.tiny, "schedule": "stepped", "step_epochs": 2, "learning_rate": 1e-4, "step_limit": 3.5e-4}


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [
        (0, 5e-6), (19, 5e-6), (20, 1e-5), (39, 1e-5), (40, 2e-5), (60, 4e-5), (80, 8e-5), (100, 1.6e-4),
        (120, 3.2e-4), (139, 3.2e-4), (140, 6.4e-4), (160, 6.4e-4), (200, 6.4e-4), (10_000, 6.4e-4),
    ],
)  # fmt: skip
def test_the_rate_of_the_paper(epoch, rate):
    assert 5e-6 * SteppedRate(5e-6, step_epochs=20, limit=5e-4)(epoch) == pytest.approx(rate)


def test_a_rate_at_the_limit_is_not_doubled():
    assert [SteppedRate(1.0, 1, 4.0)(epoch) for epoch in range(5)] == [1, 2, 4, 4, 4]
    assert SteppedRate(1.0, 1, 0.5)(50) == 1


class Rates(lightning.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


def fit(folder, epochs, resume=None):
    rates = Rates()
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=epochs, callbacks=[rates], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    model = zoo.create_model("two_stage_rn", **STEPPED)
    loader = DataLoader([TwoStageRN.tiny_batch()] * 2, batch_size=None)
    trainer.fit(model, loader, ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(folder / f"{epochs}.ckpt")
    return rates.seen


def test_the_rate_steps_with_the_epochs_and_goes_on_after_a_stop(tmp_path):
    expected = [1e-4] * 4 + [2e-4] * 4 + [4e-4] * 8  # two batches an epoch
    assert fit(tmp_path, 8) == pytest.approx(expected)
    assert fit(tmp_path, 3) == pytest.approx(expected[:6])
    assert fit(tmp_path, 8, tmp_path / "3.ckpt") == pytest.approx(expected[6:])


def test_weight_decay_is_a_penalty_with_adam_and_a_shrinkage_with_adamw():
    for name, cls in (("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
        model = zoo.create_model("two_stage_rn", **STEPPED, optimizer=name, weight_decay=1e-4)
        optimizer = model.configure_optimizers()["optimizer"]
        assert type(optimizer) is cls
        assert optimizer.param_groups[0]["weight_decay"] == 1e-4
        assert optimizer.param_groups[0]["lr"] == 1e-4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"optimizer": "sgd"}, "optimizer must be one of adamw, adam, got 'sgd'"),
        ({"step_epochs": 0}, "step_epochs must be an integer of at least 1, got 0"),
        ({"step_limit": "high"}, "step_limit must be a finite number of at least 0, got 'high'"),
    ],
)
def test_wrong_settings_are_named(changed, message):
    with pytest.raises(ValueError, match=message):
        zoo.create_model("two_stage_rn", **{**STEPPED, **changed})
