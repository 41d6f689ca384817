"""`zoo embed`: write what a model knows of a folder of images."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.commands import _app, _describing
from zoo.commands._ending import usage_errors
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
    data = _describing.opened(cfg, model)
    for name in _exports(cfg):
        _features_files.check_export(name, model.kinds)
    folder = _folder(cfg)
    stamps = _describing.stamps(data)
    with usage_errors():
        _features_folder.begin(folder, model.kinds, model.fingerprint(), _describing.about(cfg, model, source, data))
        if not (folder / MODEL).is_file():  # else it is this model's: `begin` has compared fingerprints
            checkpoints.save_weights(model, folder / MODEL)
    plan = _features_folder.plan(folder, stamps)
    _tell(plan, len(stamps), folder, cfg.prune)
    if cfg.prune:
        _features_folder.check_prune(folder, plan, stamps, _describing.given_roots(cfg))
    if plan.todo:
        _run(cfg, model, data, plan, stamps, folder)
    if cfg.prune and plan.gone and rank_zero_only.rank == 0:  # last: what is embedded comes before what is dropped
        Shards(folder / SHARDS).drop(plan.gone, cfg.shard_size)
    _conclude(cfg, folder)


def _check(cfg: DictConfig, model: Any) -> None:
    check_switch("prune", cfg.prune)
    check_count("shard_size", cfg.shard_size)
    _describing.check_embedder(cfg, model)


def _exports(cfg: DictConfig) -> list[str]:
    return [cfg.export] if isinstance(cfg.export, str) else list(cfg.export or ())


def _folder(cfg: DictConfig) -> Path:
    """Returns where the features go: `out`, else a folder named after the images and the run."""
    if cfg.out is not None:
        return Path(cfg.out).expanduser()
    name = Path(_describing.roots(cfg)[0]).name
    return Path(cfg.paths.output_dir) / "features" / folder_name(f"{name}-{cfg.run_name}")


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

    from zoo.commands import _setup, _trainer
    from zoo.search._features_loop import EmbeddingLoop, ImagesProgress, KeepFinished, Selected

    callbacks = [KeepFinished()]
    if cfg.trainer.enable_progress_bar:
        callbacks.append(ImagesProgress(len(plan.todo)))
        cfg.trainer.enable_progress_bar = False  # Lightning's own counts batches
    trainer = _trainer.trainer(cfg, callbacks=callbacks, logger=[])
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
    then = f"zoo search … {shlex.quote(f'features={folder}')}"
    if {"vector", "regions", "probability_map"} & set(features.kinds):
        maps = [] if "vector" in features.kinds or "regions" in features.kinds else ["index=probability_maps"]
        then = shlex.join(["zoo", "index", str(folder), *maps])
    log.info("written: %s, %s images; next: %s", folder, f"{len(features):,}", then)


if __name__ == "__main__":
    main()
