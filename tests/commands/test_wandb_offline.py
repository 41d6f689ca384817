"""`logger=wandb` offline, read back from the run's own file."""

from __future__ import annotations

import json
import struct

import pytest
from PIL import Image

BLOCK, FILE_HEADER, RECORD_HEADER = 32 * 1024, 7, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def chunks(content):
    """Yields (kind, bytes) of the LevelDB-style log."""
    at = FILE_HEADER
    while at < len(content):
        left = BLOCK - at % BLOCK
        if left < RECORD_HEADER:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + RECORD_HEADER])
        yield kind, content[at + RECORD_HEADER : at + RECORD_HEADER + length]
        at += RECORD_HEADER + length


def records(path):
    from wandb.proto.wandb_internal_pb2 import Record

    pending = b""
    for kind, data in chunks(path.read_bytes()):
        pending = data if kind in (FULL, FIRST) else pending + data
        if kind in (FULL, LAST):
            record = Record()
            record.ParseFromString(pending)
            yield record


@pytest.fixture(scope="module")
def run(tmp_path_factory, command_in):
    folder = tmp_path_factory.mktemp("wandb")
    words = [
        "logger=wandb", "logger.wandb.offline=true", f"hydra.run.dir={folder}", f"data.root={folder / 'data'}",
        "data.train_size=32", "data.val_size=12", "data.test_size=4", "data.gallery_size=4",
        "model.g=[16,16]", "model.h=[16]", "model.f=[16,16]", "model.question_layer=2", "trainer.max_epochs=2",
        "trainer.enable_progress_bar=false",
    ]  # fmt: skip
    command_in(folder, "zoo", "train", *words)
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    return file.parent, list(records(file))


def test_metrics_have_the_zoos_names(run):
    rows = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in run[1]
        if record.WhichOneof("record_type") == "history"
    ]
    spearman = [row["val/spearman"] for row in rows if "val/spearman" in row]
    assert len(spearman) == 2
    assert all(-1 <= value <= 1 for value in spearman)
    assert any("train/loss" in row for row in rows)
    assert any("val/accuracy/relational/count" in row for row in rows)


def test_config_is_the_resolved_one(run):
    config = {}
    for record in run[1]:
        updates = record.run.config.update if record.WhichOneof("record_type") == "run" else record.config.update
        for item in updates:
            config[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
    assert config["model"]["g"] == [16, 16]
    assert config["data"]["root"].endswith("/data")
    assert "${" not in json.dumps(config)


def test_ranked_results_are_a_picture(run):
    pictures = sorted(run[0].glob("files/media/images/val/ranked_*.png"))
    assert len(pictures) == 2
    assert Image.open(pictures[0]).width > 1000
