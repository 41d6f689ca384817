"""Turns a checkpoint of `zoo train` into the small weights file that a model's `weights/` folder holds.

python tools/export_weights.py outputs/…/best.ckpt zoo/models/two_stage_rn/weights/sort_of_clevr.safetensors aggregation=avg
python tools/export_weights.py --trained-only …/best.ckpt zoo/models/local_similarity/weights/cut_paste.safetensors 'backbone_weights=${oc.env:…}'
"""  # noqa: E501

from __future__ import annotations

import argparse
from pathlib import Path

import yaml

from zoo import checkpoints


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="Writes fp16 safetensors with the model's name and hyper-parameters.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("parameters", nargs="*", help="key=value to store instead of the checkpoint's own")
    parser.add_argument("--trained-only", action="store_true", help="leave out what `backbone_weights` brings")
    arguments = parser.parse_args()
    changed = {key: yaml.safe_load(value) for key, value in (item.split("=", 1) for item in arguments.parameters)}
    said = {key: changed.pop(key) for key in ("backbone_weights",) if key in changed}  # where others read it from
    model = checkpoints.load_model(str(arguments.checkpoint), **changed)
    model.registered["parameters"].update(said)
    arguments.weights.parent.mkdir(parents=True, exist_ok=True)
    checkpoints.save_weights(model, arguments.weights, half=True, trained_only=arguments.trained_only)
    size = arguments.weights.stat().st_size / 2**20
    print(f"{arguments.weights}: {size:.1f} MiB, weights {checkpoints.weights_hash(model)} before rounding")


if __name__ == "__main__":
    main()
