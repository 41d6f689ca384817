"""A backbone up to its last feature map, with an earlier and finer one beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from zoo.backbones import at_least, create_backbone
from zoo.pretrained import read_tensors, tensor_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from zoo.backbones import Backbone

_PREFIX = "net.trunk."  # of a trunk's tensors in the weights file of a model


class Maps(NamedTuple):
    """`deep (B, C, H, W)` and the finer `fine (B, C', H', W')`, None where nobody asked for it."""

    deep: Tensor
    fine: Tensor | None


class Trunk(nn.Module):
    """The layers of a network of timm up to its last stage, those behind it taken away; normalises its own input.

    `skip_stride` is the stride in px of the finer map, the first of that stride; None for none. `channels` and
    `fine_channels` (0 for none) are those of the two maps. Raises ValueError for a network that doesn't give the maps
    of its stages, or has none of that stride.
    """

    def __init__(self, backbone: Backbone, name: str, skip_stride: int | None) -> None:
        super().__init__()
        network = backbone.network
        if not hasattr(network, "forward_intermediates") or not hasattr(network, "feature_info"):
            raise ValueError(f"backbone must be a model of timm that gives the maps of its stages, {name} doesn't")
        stages = _stages(network)
        strides = [stage["reduction"] for stage in stages]
        if skip_stride is not None and skip_stride not in strides[:-1]:
            known = ", ".join(str(stride) for stride in sorted(set(strides[:-1])))
            raise ValueError(f"skip_stride must be one of those of {name}, {known}, got {skip_stride}")
        fine = [] if skip_stride is None else [strides.index(skip_stride)]
        self.levels = [*fine, len(stages) - 1]
        self.channels, self.fine_channels = stages[-1]["num_chs"], stages[fine[0]]["num_chs"] if fine else 0
        self.smallest = backbone.smallest
        # Weights that no output depends on would make DDP wait for their gradients.
        network.prune_intermediate_layers(list(self.levels), prune_norm=True, prune_head=True)
        self.network = network
        self.register_buffer("mean", backbone.mean)
        self.register_buffer("std", backbone.std)

    def forward(self, images: Tensor) -> Maps:
        """Returns the maps of `images` (B, 3, H, W) in [0, 1]."""
        normalised = (at_least(images, self.smallest) - self.mean) / self.std
        normalised = normalised.contiguous(memory_format=torch.channels_last)
        *fine, deep = self.network.forward_intermediates(normalised, indices=list(self.levels), intermediates_only=True)
        return Maps(deep, fine[0] if fine else None)


def create_trunk(name: str, weights: str | None, options: Mapping[str, Any], skip_stride: int | None) -> Trunk:
    """Builds a trunk of timm's network `name`, which takes `options`.

    `weights` are those of `create_backbone`, or a weights file of `fcn_segment`, whose trunk is taken together with the
    normalisation of its input. Raises ValueError as `create_backbone` and `Trunk` do, and where a trunk doesn't fit.
    """
    lent = any(tensor.startswith(_PREFIX) for tensor in tensor_names(weights))
    trunk = Trunk(create_backbone(name, None if lent else weights, **options), name, skip_stride)
    if lent:
        own = {tensor: value for tensor, value in read_tensors(weights).items() if tensor.startswith(_PREFIX)}
        try:
            trunk.load_state_dict({tensor.removeprefix(_PREFIX): value for tensor, value in own.items()})
        except RuntimeError as error:
            first = str(error).splitlines()[1].strip()
            raise ValueError(
                f"backbone_weights '{weights}' is a model on another backbone than {name}: {first}"
            ) from error
    return trunk


def _stages(network: nn.Module) -> list[dict]:
    info = network.feature_info
    return info if isinstance(info, list) else info.get_dicts()
