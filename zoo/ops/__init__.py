"""Functions on tensors that models share; each is imported when it is first asked for."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "affinity_features": "affinity",
    "correlation_volume": "correlation",
    "crow": "pooling",
    "crow_channel_weights": "pooling",
    "crow_spatial_weights": "pooling",
    "field_of_view_overlap": "field_of_view",
    "gem": "pooling",
    "mac": "pooling",
    "quantized_ap_loss": "losses",
    "r_match": "correlation",
    "relate_pairs": "relations",
    "rmac": "pooling",
    "rmac_regions": "pooling",
    "second_order_pool": "second_order",
    "soft_spearman_loss": "losses",
    "spoc": "pooling",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zoo.ops' has no attribute '{name}'")
    return getattr(importlib.import_module(f"zoo.ops.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
