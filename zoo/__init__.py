"""A model zoo for spatial and relational image retrieval."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "create", "create_model", "list_models", "load_model"]


def create(kind: str, name: str, **parameters: Any) -> Any:
    """Builds what is registered as `name` of `kind` (model, data, benchmark, index, reranker, metrics, affinity).

    Parameters that are not passed come from `conf/<kind>/<name>.yaml`. Raises `registry.UsageError` for an unknown
    kind, name or parameter, naming the nearest.
    """
    from zoo import config

    return config.create(kind, name, **parameters)


def create_model(name: str, **parameters: Any) -> Any:
    """Builds a model by name, untrained: `create_model("two_stage_rn", aggregation="avg")`."""
    return create("model", name, **parameters)


def load_model(source: str, weights: str | None = None, **parameters: Any) -> Any:
    """Rebuilds a trained model in evaluation mode on the CPU.

    `source` is a checkpoint (`.ckpt`), a weights file (`.safetensors`), or a model's name together with `weights`, the
    name of a file in its `weights/` folder. `parameters` override stored hyper-parameters that don't change the
    weights' shapes. Nothing in the file is executed. Raises `registry.UsageError` for a file that isn't the zoo's or
    doesn't fit.
    """
    from zoo import checkpoints

    return checkpoints.load_model(source, weights, **parameters)


def list_models() -> list[str]:
    """Returns the names of all models, built-in and third-party, without importing any."""
    from zoo import registry

    return list(registry.entries("model"))
