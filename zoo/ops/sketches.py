"""What a drawing asks for, as probability maps: alone, or over a photo."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

UNDRAWN = -1


def sketch_query(labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return the probability maps of drawings, and which classes count: those of which something is drawn.

    Inside a drawn class every location where it isn't drawn asks for its absence.

    Args:
        labels: (B, H, W) int64, the class drawn at each location, -1 where nothing is.
        classes: C.

    Returns:
        (B, C, H, W) float32 of zeros and ones, and (B, C) bool.

    Raises:
        ValueError: ``labels`` has not three dimensions, or holds anything but -1 … C - 1.

    Source: Eqs. 3 to 5 of Furuta et al. 2018.
    """
    maps = _one_hot(labels, classes)
    return maps, maps.flatten(2).any(dim=2)


def combined_query(labels: Tensor, photo: Tensor) -> Tensor:
    """Return the probability maps of photos with something drawn over them; all classes count.

    Where a class is drawn it has probability 1 and all others 0; where nothing is drawn the photo's stay.

    Args:
        labels: (B, H, W) int64, as for `sketch_query`.
        photo: (B, C, H, W), the photos' probability maps.

    Raises:
        ValueError: as `sketch_query`, or ``photo`` is of another size.

    Source: Eq. 6 of Furuta et al. 2018.
    """
    if photo.dim() != 4 or labels.shape != (len(photo), *photo.shape[2:]):
        raise ValueError(
            f"photo must be (B, C, H, W) of the size of labels {tuple(labels.shape)}, got {tuple(photo.shape)}"
        )
    return torch.where((labels != UNDRAWN)[:, None], _one_hot(labels, photo.shape[1]).to(photo.dtype), photo)


def _one_hot(labels: Tensor, classes: int) -> Tensor:
    if labels.dim() != 3:
        raise ValueError(f"labels must be (B, H, W), got {tuple(labels.shape)}")
    if labels.numel() and (int(labels.min()) < UNDRAWN or int(labels.max()) >= classes):
        got = f"{int(labels.min())} … {int(labels.max())}"
        raise ValueError(f"labels must lie in -1 … {classes - 1} for {classes} classes, got {got}")
    # Not F.one_hot, whose classes lie last: whoever searches by these maps reads them class by class.
    return (labels[:, None] == torch.arange(classes, device=labels.device)[:, None, None]).float()
