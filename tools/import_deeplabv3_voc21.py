"""Turns a DeepLab-v3 with MobileNetV2 for PASCAL VOC, as TensorFlow published it, into a weights file of the zoo.

    python tools/import_deeplabv3_voc21.py [FILE.safetensors] [--output FILE.safetensors]

Without FILE that of ../shared/data/weights (ZOO_DATA moves it) is taken. It is an `fcn_segment` with the light head:
one 1×1 branch, the image's mean, no finer map. It was trained on VOC's trainval set, so don't report VOC figures of it.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import zoo
from zoo import checkpoints
from zoo.files import BadFile
from zoo.pretrained import import_folder

if TYPE_CHECKING:
    from torch import Tensor

    State = dict[str, Tensor]

PARAMETERS = {
    "backbone": "mobilenetv2_100",
    "backbone_weights": None,
    "backbone_options": {"pad_type": "same"},  # TensorFlow's
    "output_stride": 8,
    "head": "light",
    "dilations": [0],
    "image_pooling": True,
    "width": 256,
    "skip_stride": None,
    "classes": "voc21",
}
_SPREAD = 0.5  # of pixels in [0, 1] that become numbers in [-1, 1], and their middle


def load(path: Path) -> Any:
    """Returns the model of a published file, every tensor of it used once.

    Raises BadFile for a file that can't be read, lacks a tensor, holds one too many, or one of another shape.
    """
    from safetensors.torch import load_file

    try:
        published = {name: value.float() for name, value in load_file(path).items()}
    except Exception as error:
        raise BadFile(f"{path} can't be read ({error})") from error
    model = zoo.create_model("fcn_segment", **PARAMETERS)
    try:
        model.load_state_dict(translate(published, model.state_dict()), strict=True)
    except (KeyError, RuntimeError) as error:
        reason = f"it lacks the tensor {error}" if isinstance(error, KeyError) else error
        raise BadFile(f"{path} isn't a DeepLab-v3 with MobileNetV2 and 21 classes: {reason}") from error
    return model.eval()


def translate(published: State, own: State) -> State:
    """Returns our names → tensors; convolutions that come with their normalisation folded in get one that does nothing.

    Raises KeyError for a missing tensor; names that have no place stay as they are.
    """
    rest = dict(published)
    ours = {
        f"net.trunk.network.{name.removeprefix('backbone.')}": rest.pop(name)
        for name in published
        if name.startswith("backbone.")
    }
    ours |= {f"net.head.pooling.{part}": rest.pop(f"image_pooling.{part}") for part in ("weight", "bias")}
    ours |= {f"net.head.classifier.{part}": rest.pop(f"logits.{part}") for part in ("weight", "bias")}
    ours |= _folded(rest, "aspp0", "net.head.branches.0")
    ours |= _folded(rest, "projection", "net.head.projection")
    # TensorFlow concatenates the image's mean first, we last.
    weight = ours["net.head.projection.0.weight"]
    ours["net.head.projection.0.weight"] = weight.roll(weight.shape[1] // 2, dims=1)
    for name in ("mean", "std"):
        ours[f"net.trunk.{name}"] = torch.full((3, 1, 1), _SPREAD)
    return {**ours, "class_weights": own["class_weights"], **rest}


def _folded(rest: State, name: str, ours: str) -> State:
    bias = rest.pop(f"{name}.bias")
    one, zero = torch.ones_like(bias), torch.zeros_like(bias)
    return {
        f"{ours}.0.weight": rest.pop(f"{name}.weight"),
        f"{ours}.1.weight": one,
        f"{ours}.1.bias": bias,
        f"{ours}.1.running_mean": zero,
        f"{ours}.1.running_var": one - torch.nn.BatchNorm2d(1).eps,
        f"{ours}.1.num_batches_tracked": torch.tensor(0),
    }


def default_input() -> Path:
    """Returns the published file of shared data."""
    data = os.environ.get("ZOO_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(data) / "weights" / "deeplabv3_mobilenetv2_voc21.fp16.safetensors"


def default_output() -> Path:
    """Returns where the converted file goes."""
    return import_folder() / "fcn_segment_voc21.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=default_input(), help="what was published")
    parser.add_argument("--output", type=Path, default=default_output(), help="what is written")
    words = parser.parse_args()
    try:
        model = load(words.file)
    except BadFile as error:
        parser.error(str(error))
    words.output.parent.mkdir(parents=True, exist_ok=True)
    checkpoints.save_weights(model, words.output, half=True)
    print(f"written: {words.output}; use it with: zoo embed FOLDER model=fcn_segment weights={words.output}")


if __name__ == "__main__":
    main()
