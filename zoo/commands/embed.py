"""`zoo embed`: write what a model knows of a folder of images."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.commands import _app
from zoo.commands._searching import check_count, check_switch, folder_name

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """Runs the command."""
    _app.run("embed", embed, files="data.root")


def embed(cfg: DictConfig) -> None:
    """Embeds the images that the features folder lacks, and writes the exports that were asked for."""
    from lightning.pytorch.utilities import rank_zero_only

    from zoo import checkpoints
    from zoo.commands import _setup
    from zoo.search import _features_files, _features_folder
    from zoo.search._features_shards import Shards
    from zoo.search.features import MODEL, SHARDS

    _setup.prepare(cfg)
    model, source = _setup.trained_model(cfg)
    _check(cfg, model)
    data = _opened(cfg)
    for name in _exports(cfg):
        _features_files.check_export(name, model.kinds)
    folder = _folder(cfg)
    stamps = _stamps(data)
    with _setup.usage_errors():
        _features_folder.begin(folder, model.kinds, model.fingerprint(), _about(cfg, model, source, data))
        if not (folder / MODEL).is_file():  # else it is this model's: `begin` has compared fingerprints
            checkpoints.save_weights(model, folder / MODEL)
    plan = _features_folder.plan(folder, stamps)
    _tell(plan, len(stamps), folder, cfg.prune)
    if cfg.prune:
        _features_folder.check_prune(folder, plan, stamps, _given_roots(cfg))
    if plan.todo:
        _run(cfg, model, data, plan, stamps, folder)
    if cfg.prune and plan.gone and rank_zero_only.rank == 0:  # last: what is embedded comes before what is dropped
        Shards(folder / SHARDS).drop(plan.gone, cfg.shard_size)
    _conclude(cfg, folder)


def _check(cfg: DictConfig, model: Any) -> None:
    from zoo.registry import UsageError

    check_switch("prune", cfg.prune)
    check_count("shard_size", cfg.shard_size)
    if not hasattr(model, "represent"):
        raise UsageError(f"model '{cfg.model.name}' is no embedder, so it can't describe images")


def _opened(cfg: DictConfig) -> Any:
    from zoo.commands import _setup
    from zoo.registry import UsageError

    data = _setup.build(cfg.data)
    if not hasattr(data, "selection"):
        raise UsageError(f"zoo embed finds images by name: choose data=folder, got data={cfg.data.name}")
    with _setup.usage_errors():
        data.prepare_data()
        data.setup("test")
    return data


def _exports(cfg: DictConfig) -> list[str]:
    return [cfg.export] if isinstance(cfg.export, str) else list(cfg.export or ())


def _folder(cfg: DictConfig) -> Path:
    """Returns where the features go: `out`, else a folder named after the images and the run."""
    if cfg.out is not None:
        return Path(cfg.out).expanduser()
    return Path(cfg.paths.output_dir) / "features" / folder_name(f"{Path(_roots(cfg)[0]).name}-{cfg.run_name}")


def _roots(cfg: DictConfig) -> list[str]:
    return [str(root.resolve()) for root in _given_roots(cfg)]


def _given_roots(cfg: DictConfig) -> list[Path]:
    roots = cfg.data.get("root") or []
    return [Path(root).expanduser() for root in ([roots] if isinstance(roots, str) else roots)]


def _stamps(data: Any) -> dict[str, dict[str, Any]]:
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


def _about(cfg: DictConfig, model: Any, source: str | None, data: Any) -> dict[str, Any]:
    from zoo.evaluation.record import environment

    return {
        "model": {**(model.registered or {}), "weights": source},
        "data": {key: value for key, value in data.registered.items() if key in ("name", "parameters")},
        "preprocessing": data.preprocessing,
        "roots": _roots(cfg),
        **environment(),
    }


def _tell(plan: Any, total: int, folder: Path, prune: bool) -> None:
    from zoo.commands._setup import log
    from zoo.search._names import named

    held = total - len(plan.todo)
    log.info("%s: %s images to embed%s", folder, f"{len(plan.todo):,}", f", {held:,} are there already" if held else "")
    if plan.changed:
        log.info("%d of them have changed since (%s)", len(plan.changed), named(plan.changed))
    if plan.gone:
        kept = "their features are dropped" if prune else "their features stay: prune=true drops them"
        log.warning("%d embedded images are gone (%s); %s", len(plan.gone), named(plan.gone), kept)


def _run(cfg: DictConfig, model: Any, data: Any, plan: Any, stamps: dict[str, Any], folder: Path) -> None:
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    from zoo.commands import _setup
    from zoo.search._features_loop import EmbeddingLoop, ImagesProgress, KeepFinished, Selected

    callbacks = [KeepFinished()]
    if cfg.trainer.enable_progress_bar:
        callbacks.append(ImagesProgress(len(plan.todo)))
        cfg.trainer.enable_progress_bar = False  # Lightning's own counts batches
    trainer = _setup.trainer(cfg, callbacks=callbacks, logger=[])
    loop = EmbeddingLoop(model, plan.todo, stamps, folder, plan.run, cfg.shard_size)
    try:
        trainer.test(loop, datamodule=Selected(data, data.gallery_split, plan.todo), verbose=False)
    except SIGTERMException:  # a SystemExit with code 0, as if all had been done
        sys.exit(143)
    except SystemExit:  # how Lightning ends on Ctrl-C
        if trainer.interrupted:
            _setup.log.info("stopped; what is embedded is kept, the same command goes on there")
            sys.exit(130)
        raise
    if not trainer.is_global_zero:
        sys.exit(0)


def _conclude(cfg: DictConfig, folder: Path) -> None:
    from zoo.commands._setup import log
    from zoo.registry import UsageError
    from zoo.search import _features_files
    from zoo.search.features import UNREADABLE, open_features

    features = open_features(folder)
    if not len(features):
        raise UsageError(f"no image could be read, so there are no features: see {folder / UNREADABLE}")
    for name in _exports(cfg):
        log.info("written: %s", _features_files.export(features, name))
    searchable = {"vector", "regions"} & set(features.kinds)
    then = shlex.join(["zoo", "index", str(folder)]) if searchable else f"zoo search … features='{folder}'"
    log.info("written: %s, %s images; next: %s", folder, f"{len(features):,}", then)


if __name__ == "__main__":
    main()
