"""Where in the gallery image a layer of the head sees the query: Grad-CAM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from zoo.models.local_similarity.head import CorrelationHead


def explain(head: CorrelationHead, volume: Tensor) -> dict[str, Tensor]:
    """Returns layer → (H, W) in [0, 1] of one `volume` (1, Hq * Wq, Hg, Wg), for the layers of the paper's Fig. 2.

    The channels of a layer are weighed by the mean gradient of the logit "present" minus "absent", summed, and cut at
    zero; the largest value becomes 1. Zero throughout where nothing speaks for the query. Selvaraju et al. 2017, eq. 1
    and 2. Raises ValueError for more than one volume.
    """
    if len(volume) != 1:
        raise ValueError(f"volume must be of one pair, got {len(volume)}")
    kept: dict[str, Tensor] = {}
    handles = [layer.register_forward_hook(_keeper(kept, name)) for name, layer in head.layers.items()]
    try:
        with torch.inference_mode(False), torch.enable_grad():
            # The volume has gradients, too, since a head without may be asked.
            asked = volume.detach().to(head.exists.weight.device).clone().requires_grad_()
            logits = head(asked).logits
            gradients = torch.autograd.grad(logits[0, 1] - logits[0, 0], list(kept.values()))
    finally:
        for handle in handles:
            handle.remove()
    return {name: _map(kept[name].detach(), gradient) for name, gradient in zip(kept, gradients, strict=True)}


def _keeper(kept: dict[str, Tensor], name: str) -> Callable[..., None]:
    def keep(module: Any, inputs: Any, output: Tensor) -> None:
        kept[name] = output

    return keep


def _map(activations: Tensor, gradients: Tensor) -> Tensor:
    weights = gradients.mean((2, 3), keepdim=True)
    found = (weights * activations).sum(1)[0].clamp(min=0)
    return found / found.max().clamp(min=torch.finfo(found.dtype).tiny)
