"""Mixed precision on a CPU that can't compute it."""

from __future__ import annotations

import logging

import pytest

from zoo import config
from zoo.commands import _setup


@pytest.mark.parametrize(("able", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_bf16_is_given_up_with_a_warning_where_the_cpu_lacks_it(able, precision, monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(_setup, "cpu_computes_bf16", lambda: able)
    cfg = config.compose("train", ["trainer.precision=bf16-mixed", f"paths.run_dir={tmp_path}"])
    with caplog.at_level(logging.WARNING, "zoo"):
        built = _setup.trainer(cfg, callbacks=[], logger=[])
    assert built.precision == precision
    assert ("no bf16 instructions" in caplog.text) is not able
