"""Parts a backbone where its last stage begins: what two branches share, and what each of them has its own copy of."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from zoo.backbones import Backbone

_BEHIND = ("global_pool", "avgpool", "head", "fc", "classifier", "pre_logits")  # where no feature map is left
_PROBE = 128  # px


def part(backbone: Backbone, name: str) -> tuple[nn.Sequential, nn.Sequential]:
    """Returns (trunk, last stage) of a backbone, the layers themselves and not copies.

    The last stage begins with the last layer that makes maps smaller and has layers with weights in or behind it:
    `layer4` of a ResNet, `blocks.5` of MobileNetV2, the fourth pooling of VGG. Layers keep their names. Raises
    ValueError for a network that is no sequence of layers, or has no such layer.
    """
    layers = dict(_layers(backbone.network, ""))
    images = torch.rand(1, 3, _PROBE, _PROBE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = _sides(layers, images)
        if maps is None or backbone.channels_last or not _same(maps[-1], backbone.features(images)):
            raise ValueError(
                f"backbone must be a sequence of layers to be parted into trunk and branches, {name} isn't"
            )
    names = list(layers)
    sides = [_PROBE, *(each.shape[-1] for each in maps)]
    weighted = max(place for place, layer in enumerate(layers.values()) if any(True for _ in layer.parameters()))
    cuts = [place for place in range(1, weighted + 1) if sides[place + 1] < sides[place]]
    if not cuts:
        raise ValueError(f"backbone must have a last stage that makes maps smaller, {name} has none")
    return tuple(_sequence({key: layers[key] for key in part}) for part in (names[: cuts[-1]], names[cuts[-1] :]))


def _layers(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """Yields the layers of a network in order, those of sequences one by one."""
    for name, child in module.named_children():
        if not prefix and name in _BEHIND:
            return
        if isinstance(child, nn.Sequential):
            yield from _layers(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def _sides(layers: dict[str, nn.Module], images: Tensor) -> list[Tensor] | None:
    """Returns the output of every layer; None where one can't take that of the layer before."""
    maps = [images]
    try:
        for layer in layers.values():
            maps.append(layer(maps[-1]))
    except (RuntimeError, TypeError):
        return None
    return maps[1:]


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, atol=1e-4, rtol=1e-3)


def _sequence(layers: dict[str, nn.Module]) -> nn.Sequential:
    return nn.Sequential(OrderedDict((key.replace(".", "_"), layer) for key, layer in layers.items()))
