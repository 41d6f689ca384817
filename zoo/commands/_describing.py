"""What commands that describe images share: the data module, and what is known of an image before it is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.commands._ending import usage_errors
from zoo.registry import UsageError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def check_embedder(cfg: DictConfig, model: Any) -> None:
    """Raises UsageError for a model that doesn't describe images."""
    if not hasattr(model, "represent"):
        raise UsageError(f"model '{cfg.model.name}' is no embedder, so it can't describe images")


def opened(cfg: DictConfig, model: Any) -> Any:
    """Returns the data module, ready to hand out its images; UsageError for one that the model can't describe."""
    from zoo.commands import _setup
    from zoo.search.fit import check_batches

    data = _setup.build(cfg.data)
    if not (hasattr(data, "selection") and hasattr(data, "path")):
        raise UsageError(f"images are found by name: choose data=folder, got data={cfg.data.name}")
    check_batches(model, data)
    with usage_errors():
        data.prepare_data()
        data.setup("test")
    return data


def roots(cfg: DictConfig) -> list[str]:
    """Returns the folders of the images, absolute."""
    return [str(root.resolve()) for root in given_roots(cfg)]


def given_roots(cfg: DictConfig) -> list[Path]:
    """Returns the folders of the images as they were typed."""
    named = cfg.data.get("root") or []
    return [Path(root).expanduser() for root in ([named] if isinstance(named, str) else named)]


def stamps(data: Any) -> dict[str, dict[str, Any]]:
    """Returns for each image what tells whether its file has changed, and its label where the data has labels."""
    split = data.gallery_split
    ids = data.ids(split)
    try:
        labels = [{"label": label} if label else {} for label in data.labels(split)]
    except (ValueError, NotImplementedError):  # all in one folder
        labels = [{} for _ in ids]
    stamps = {}
    for id_, label in zip(ids, labels, strict=True):
        path = Path(data.path(split, id_)).absolute()
        try:
            stat = path.stat()
        except OSError:  # named as unreadable when its turn comes
            stamps[id_] = {"path": str(path), **label}
            continue
        stamps[id_] = {"path": str(path), "bytes": stat.st_size, "modified": stat.st_mtime_ns // 1000, **label}
    return stamps


def about(cfg: DictConfig, model: Any, source: str | None, data: Any) -> dict[str, Any]:
    """Returns what is kept beside representations: model, data and preparation, roots, command and versions."""
    from zoo.evaluation.record import environment

    return {
        "model": {**(model.registered or {}), "weights": source},
        "data": {key: value for key, value in data.registered.items() if key in ("name", "parameters")},
        "preprocessing": data.preprocessing,
        "roots": roots(cfg),
        **environment(),
    }
