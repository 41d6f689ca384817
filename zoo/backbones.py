"""Networks of timm and torchvision as feature maps, with their weights and the normalisation they were trained with.

Models that have one call their keys `backbone` and `backbone_weights`; the errors here name these.
"""

from __future__ import annotations

import difflib
import logging
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

TORCHVISION = "torchvision/"

log = logging.getLogger("zoo")

_PROBE = 128  # px; large enough for every network's smallest map
_CHOICES = "name a .safetensors or .pth file, or say hub (download them) or random"


class Backbone(nn.Module):
    """A network up to its last feature map, which normalises its own input.

    `network` holds the layers under the names that timm or torchvision give them; `mean` and `std` (RGB, for images in
    [0, 1]) are saved with them. `channels` is C. Raises ValueError if what the network ends in is no feature map.
    """

    def __init__(self, name: str, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        # Convolutions of MobileNetV2 run 1.1 to 2 times as fast in this layout; results change by rounding alone.
        self.network = network.to(memory_format=torch.channels_last)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])
        self.eval()
        with torch.no_grad():
            shape = self._features(torch.zeros(1, 3, _PROBE, _PROBE)).shape
        if len(shape) != 4:
            raise ValueError(f"backbone must end in a feature map (B, C, H, W), {name} gives {tuple(shape)}")
        # Some of timm's networks give (B, H, W, C), and don't all say so.
        self._channels_last = shape[1] != getattr(network, "num_features", shape[1]) == shape[3]
        self.channels = shape[3] if self._channels_last else shape[1]

    def forward(self, images: Tensor) -> Tensor:
        """Returns the feature map (B, C, H, W) of `images` (B, 3, H', W') in [0, 1]."""
        normalised = (images - self.mean) / self.std
        maps = self._features(normalised.contiguous(memory_format=torch.channels_last))
        return maps.permute(0, 3, 1, 2).contiguous() if self._channels_last else maps

    def _features(self, images: Tensor) -> Tensor:
        return getattr(self.network, "forward_features", self.network)(images)


class _Parts(NamedTuple):
    """`classifier` lists the prefixes of tensors that a file may hold and the feature map doesn't need."""

    network: nn.Module
    mean: Sequence[float]
    std: Sequence[float]
    classifier: tuple[str, ...]
    download: Callable[[], dict[str, Tensor]]


def create_backbone(name: str, weights: str | None) -> Backbone:
    """Builds a network that turns images into a feature map, in evaluation mode.

    Args:
        name: a model of timm (``mobilenetv2_100``), or of torchvision (``torchvision/squeezenet1_1``).
        weights: ``hub`` (as timm or torchvision publish them), ``random`` (logs a warning), or a ``.safetensors`` or
            ``.pth`` file whose tensors must all fit, its classifier aside. None reads none: a checkpoint fills them.

    Raises:
        ValueError: the name is unknown or has no feature map of images of any size; the weights can't be had, can't be
            read without executing code, or don't fit.
    """
    name = str(name)
    parts = _torchvision(name.removeprefix(TORCHVISION)) if name.startswith(TORCHVISION) else _timm(name)
    backbone = Backbone(name, parts.network, parts.mean, parts.std)
    if weights == "random":
        log.warning("backbone_weights=random: %s has learnt nothing", name)
    elif weights is not None:
        _fill(parts, name, weights)
    return backbone


def _timm(name: str) -> _Parts:
    import timm
    from timm.data import resolve_model_data_config

    if not timm.is_model(name):
        raise ValueError(_unknown(name, timm.list_models(), "a model of timm"))
    try:
        network = timm.create_model(name, num_classes=0)
    except RuntimeError as error:  # a tag of weights that the network doesn't have
        raise ValueError(f"backbone {name!r}: {error}") from error
    if network.pretrained_cfg.get("fixed_input_size"):
        size = "×".join(map(str, network.pretrained_cfg["input_size"][1:]))
        raise ValueError(f"backbone must take images of any size, {name} takes {size} px only")
    classifier = network.pretrained_cfg.get("classifier") or ()
    config = resolve_model_data_config(network)
    return _Parts(
        network,
        config["mean"],
        config["std"],
        (classifier,) if isinstance(classifier, str) else tuple(classifier),
        lambda: timm.create_model(name, pretrained=True, num_classes=0).state_dict(),
    )


def _torchvision(name: str) -> _Parts:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise ValueError(_unknown(TORCHVISION + name, [TORCHVISION + each for each in known], "one of torchvision"))
    published = models.get_model_weights(name).DEFAULT
    whole = models.get_model(name, weights=None)
    children = dict(whole.named_children())
    if "features" in children:
        kept = ["features"]
    elif isinstance(whole, models.ResNet | models.RegNet):
        kept = list(children)[: list(children).index("avgpool")]
    else:
        raise ValueError(f"backbone must end in a feature map, {TORCHVISION}{name} has none; timm may have the network")
    network = nn.Sequential(OrderedDict((child, children[child]) for child in kept))
    preprocessing = published.transforms()
    return _Parts(
        network,
        preprocessing.mean,
        preprocessing.std,
        tuple(child for child in children if child not in kept),
        lambda: published.get_state_dict(progress=False, check_hash=True, weights_only=True),
    )


def _unknown(name: str, known: list[str], what: str) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"backbone must be a model of timm, or {TORCHVISION}NAME; '{name}' isn't {what}.{hint}"


def _fill(parts: _Parts, name: str, weights: str) -> None:
    """Loads every tensor of `weights` into the network; fp16 becomes fp32."""
    state = _downloaded(parts, name) if weights == "hub" else _read(Path(str(weights)).expanduser())
    own = parts.network.state_dict()
    head = tuple(f"{prefix}." for prefix in parts.classifier)
    state = {key: value for key, value in state.items() if key in own or not key.startswith(head)}
    misfits = {
        "missing": [key for key in own if key not in state],
        "not of the network": [key for key in state if key not in own],
        "of another shape": [key for key in own if key in state and state[key].shape != own[key].shape],
    }
    said = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', …' * (len(keys) > 3)})" for what, keys in misfits.items() if keys
    ]
    if said:
        raise ValueError(f"backbone_weights '{weights}' don't fit {name}: tensors {'; '.join(said)}")
    parts.network.load_state_dict(state, strict=True)


def _downloaded(parts: _Parts, name: str) -> dict[str, Tensor]:
    try:
        return parts.download()
    except Exception as error:  # each library and version has its own for "no network"
        cause = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"backbone_weights=hub: those of {name} can't be downloaded ({cause}); {_CHOICES}") from error


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix not in (".safetensors", ".pth"):
        raise ValueError(f"backbone_weights: {_CHOICES}; got '{path}'")
    if not path.is_file():
        raise ValueError(f"backbone_weights: there is no file '{path}'; {_CHOICES}")
    try:
        state = _tensors(path)
    except Exception as error:
        cause = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"backbone_weights '{path}' can't be read without executing it, or is damaged: {cause}"
        ) from error
    if not (isinstance(state, dict) and all(isinstance(value, torch.Tensor) for value in state.values())):
        raise ValueError(f"backbone_weights '{path}' must hold named tensors and nothing else")
    return state


def _tensors(path: Path) -> Any:
    if path.suffix == ".pth":
        return torch.load(path, map_location="cpu", weights_only=True)
    from safetensors.torch import load_file

    return load_file(path)
