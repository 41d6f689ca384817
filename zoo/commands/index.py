"""`zoo index`: make features searchable."""

from __future__ import annotations

import logging
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.commands import _app
from zoo.commands._ending import usage_errors
from zoo.commands._searching import check_count, check_switch, folder_name, newest
from zoo.registry import UsageError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from zoo.search.features import Features
    from zoo.search.index import Index

log = logging.getLogger("zoo")

_LIVE = 1000  # items between commits where describing them is what takes the time


def main() -> None:
    """Runs the command."""
    _app.run("index", index, files="features")


def index(cfg: DictConfig) -> None:
    """Adds what the index lacks, replaces what has changed, commits block by block, and says what there is now."""
    from zoo.commands import _captioning, _indexing
    from zoo.commands._ending import usage_errors
    from zoo.search.caption_files import read_captions

    check_count("block", cfg.block)
    check_switch("prune", cfg.prune)
    start = time.perf_counter()
    live = cfg.get("model") is not None
    features = _described(cfg) if live else _opened_features(cfg)
    folder = _folder(cfg, features)
    built, before = _opened(cfg, folder, features)
    file = _captioning.captions_file(cfg.captions, built)
    captions = None if file is None else read_captions(file)
    if captions is not None and cfg.captions is not None:
        _captioning.check_some_fit(captions, built, features)
    noted = file or dict(built.about).get("captions")
    gone = _indexing.gone(built, features, cfg.prune)
    block = min(cfg.block, _LIVE) if live else cfg.block
    with usage_errors():
        counts = _indexing.fill(built, features, folder, before, block, gone if cfg.prune else (), noted)
        if captions is not None and (_captioning.attach(built, captions, file) or built.about.get("captions") != file):
            built.save(folder, {**built.about, "captions": file})
    _indexing.keep_model(features, folder)
    _print(built, folder, counts, time.perf_counter() - start)


def _opened_features(cfg: DictConfig) -> Features:
    from zoo.search.features import open_features

    source = cfg.features or newest(cfg.paths.output_dir, "features", "features", "zoo embed FOLDER makes some")
    if not isinstance(source, (str, Path)):
        raise UsageError(f"features must be one folder or file, got {list(source)}")
    return open_features(source)


def _described(cfg: DictConfig) -> Features:
    """Returns the images of `data`, which the model describes as they are asked for."""
    from zoo.commands import _describing, _setup
    from zoo.search.live import LiveFeatures

    if cfg.features is not None:
        raise UsageError(f"features={cfg.features} and model={cfg.model.name} are both given; name one")
    _setup.prepare(cfg)
    model, source = _setup.trained_model(cfg)
    _describing.check_embedder(cfg, model)
    data = _describing.opened(cfg, model)
    with usage_errors():
        model.to(cfg.device)
    about = _describing.about(cfg, model, source, data)
    return LiveFeatures(Path(_describing.roots(cfg)[0]), model, data, _describing.stamps(data), about)


def _folder(cfg: DictConfig, features: Features) -> Path:
    if cfg.out is not None:
        return Path(cfg.out).expanduser()
    name = features.path.name if features.path.is_dir() else features.path.stem
    return Path(cfg.paths.output_dir) / "indexes" / folder_name(f"{name}-{cfg.index.name}")


def _opened(cfg: DictConfig, folder: Path, features: Features) -> tuple[Index, dict[str, Any]]:
    """Returns the index, as it is in `folder` or new, and what it says of an earlier run's features.

    Raises UsageError where it is of another kind, of another model, or needs fields that the features lack.
    """
    from zoo.commands import _setup
    from zoo.search.fit import lacking_fields
    from zoo.search.index import open_index
    from zoo.search.storage import MANIFEST, is_unused

    built = _setup.build(cfg.index)
    built.place(folder)
    if lacking_fields(built, features.kinds):
        raise UsageError(
            f"index '{cfg.index.name}' needs {', '.join(built.needs)}; features {features.path} hold "
            f"{', '.join(features.kinds)}: choose another index=, or embed with another model"
        )
    if not (folder / MANIFEST).exists():
        if not is_unused(folder):
            raise UsageError(f"out must be an index, a new or an empty folder, got {folder}")
        return built, {}
    there = open_index(folder)
    _compare(there, built, features, folder)
    return there, dict(there.about.get("features") or {})


def _compare(there: Index, asked: Index, features: Features, folder: Path) -> None:
    from zoo.search._features_folder import differing

    otherwise = "choose another out=, or remove that folder"
    old, new = ({"index": index.registered["name"], **index.registered["parameters"]} for index in (there, asked))
    if old != new:
        was, wanted = differing(old, new)
        raise UsageError(f"out {folder} holds an index with {was}, not {wanted}: {otherwise}")
    if (len(there) or there.fingerprint) and there.fingerprint != features.fingerprint:
        raise UsageError(
            f"out {folder} holds vectors of the model {there.fingerprint}, features {features.path} are of "
            f"{features.fingerprint}: {otherwise}"
        )
    old, new = (about.get("preprocessing") for about in (there.about, features.about))
    if len(there) and old != new and old and new:
        was, given = differing(old, new)
        raise UsageError(f"out {folder} holds images with preprocessing {was}, {features.path} {given}: {otherwise}")


def _print(built: Index, folder: Path, counts: dict[str, int], seconds: float) -> None:
    from rich.console import Console
    from rich.table import Table

    from zoo.search.features import MODEL

    row = {"items": f"{len(built):,}", **{what: f"{count:,}" for what, count in counts.items()}}
    if len(built):
        items = built.get(built.ids[:1])
        row["dimension"] = str(getattr(items, built.needs[0]).shape[-1])
        if items.local_codes is not None:
            codes = items.local_codes[0]
            log.info("local maps: %d x %d codes of %d B, %.1f KB an item", *codes.shape, codes.numel() / 1e3)
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != MODEL]
    row |= {
        "kind": built.registered["name"],
        "on disk": f"{sum(path.stat().st_size for path in files) / 1e6:,.1f} MB",
        "seconds": f"{seconds:.1f}",
    }
    table = Table(*row)
    table.add_row(*row.values())
    Console().print(table)
    pictures = (folder / MODEL).is_file() and "data" in built.about  # else none can be described
    how = "PICTURE" if pictures else "query_id=ID"
    log.info("written: %s; next: zoo search %s %s", folder, how, shlex.quote(f"index_path={folder}"))


if __name__ == "__main__":
    main()
