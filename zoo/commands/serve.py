"""`zoo serve`: search an index from a web page, and over HTTP."""

from __future__ import annotations

import importlib.util
import logging
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.checks import is_integer, is_number
from zoo.commands import _app
from zoo.commands._searching import check_count, newest
from zoo.registry import UsageError

if TYPE_CHECKING:
    import socket

    from omegaconf import DictConfig

    from zoo.serve.settings import Settings

log = logging.getLogger("zoo")

_NEEDED = ("fastapi", "uvicorn", "python_multipart")
_LOCAL = ("127.0.0.1", "localhost", "::1")
_BLOCK = 200  # images between commits of an index that is made here


def main() -> None:
    """Runs the command."""
    _app.run("serve", serve)


def serve(cfg: DictConfig) -> None:
    """Makes the index where there is none, checks everything, and answers requests until it is told to stop."""
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        raise UsageError("zoo serve needs more packages: pip install 'spatial-zoo[serve]'")
    from zoo.commands import _serving

    _check(cfg)
    with _serving.listening(cfg.host, cfg.port) as listener:  # first: to index is in vain where it can't be served
        folder = _index(cfg)
        with tempfile.TemporaryDirectory(prefix="zoo-serve-") as photos:
            settings = _settings(cfg, folder, photos)
            engine = _serving.checked_engine(settings)
            tell = partial(_tell, cfg, listener, folder, len(engine))
            if cfg.workers == 1:
                _serving.serve_here(settings, engine, listener, cfg.grace, tell)
            else:
                del engine  # every worker opens its own, of the same mapped files
                _serving.serve_in_workers(settings, listener, cfg.workers, cfg.grace, tell)
    log.info("stopped")


def _check(cfg: DictConfig) -> None:
    for key in ("workers", "k", "most", "running", "waiting", "threads"):
        check_count(key, cfg[key])
    if cfg.shortlist is not None:
        check_count("shortlist", cfg.shortlist)
    if cfg.k > cfg.most:
        raise UsageError(f"k must be at most most={cfg.most}, got {cfg.k}")
    for key in ("upload_mb", "megapixels", "decode_seconds", "photos_mb", "grace"):
        value = cfg[key]
        if not is_number(value) or not 0 < value < 1e6:
            raise UsageError(f"{key} must be a number above 0, got {value!r}")
    if not is_integer(cfg.port) or not 0 <= cfg.port < 1 << 16:
        raise UsageError(f"port must be an integer in 0 … 65535, got {cfg.port!r}")
    _plain(cfg, "where", dict)
    _plain(cfg, "hosts", list)


def _plain(cfg: DictConfig, key: str, kind: type) -> Any:
    """Returns a mapping or a list as plain values, empty for null; raises UsageError for anything else."""
    from omegaconf import OmegaConf

    value = OmegaConf.to_container(cfg[key]) if OmegaConf.is_config(cfg[key]) else cfg[key]
    if value is not None and not isinstance(value, kind):
        example = "a mapping such as '{label: cat}'" if kind is dict else "a list such as [my.host]"
        raise UsageError(f"{key} must be {example}, got {value!r}")
    return value or kind()


def _index(cfg: DictConfig) -> Path:
    """Returns the folder of the index, which is made first where a model is named and it isn't there, or not whole."""
    from zoo.search.storage import MANIFEST, read_manifest

    if cfg.get("model") is None:
        how = "zoo index makes one, and model=… index_path=FOLDER data=… makes it when first called"
        return Path(cfg.index_path or newest(cfg.paths.output_dir, "indexes", "index_path", how)).expanduser()
    if cfg.index_path is None or cfg.get("index") is None or cfg.get("data") is None:
        raise UsageError("model=… makes an index of pictures: name index_path=FOLDER, index=KIND and data=… too")
    folder = Path(cfg.index_path).expanduser()
    if (folder / MANIFEST).exists():
        state = (read_manifest(folder).get("about") or {}).get("features") or {}
        if state.get("state") == "complete":
            log.info("index_path=%s is there already; remove it to index the pictures anew", folder)
            return folder
    _make(cfg, folder)
    return folder


def _make(cfg: DictConfig, folder: Path) -> None:
    """Does what `zoo index` does, which goes on where it was stopped."""
    from omegaconf import OmegaConf

    from zoo import config
    from zoo.commands.index import index

    said = config.compose("index", [])
    OmegaConf.set_struct(said, False)
    for key in ("model", "data", "index", "paths", "weights", "ckpt_path", "seed", "device"):
        said[key] = cfg[key]
    said.out, said.block = str(folder), _BLOCK
    log.info("there is no whole index in %s yet: it is made now, and kept", folder)
    index(said)


def _settings(cfg: DictConfig, folder: Path, photos: str) -> Settings:
    from omegaconf import OmegaConf

    from zoo.serve.settings import Settings

    same = ("shortlist", "device", "k", "most", "upload_mb", "megapixels", "decode_seconds", "photos_mb")
    hosts = _plain(cfg, "hosts", list)
    return Settings(
        index=str(folder.resolve()),
        photos=photos,
        features=None if cfg.features is None else str(cfg.features),
        rerankers=[OmegaConf.to_container(node, resolve=True) for node in cfg.reranker.values() if node],
        where=_plain(cfg, "where", dict),
        hosts=hosts or ([*_LOCAL[:2], "[::1]"] if cfg.host in _LOCAL else []),
        parent=os.getpid() if cfg.workers > 1 else None,
        **{key: cfg[key] for key in (*same, "running", "waiting", "threads")},
    )


def _tell(cfg: DictConfig, listener: socket.socket, folder: Path, images: int) -> None:
    host = "localhost" if cfg.host in ("0.0.0.0", "::") else cfg.host
    port = listener.getsockname()[1]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    log.info("serving %s images of %s at %s (Ctrl-C ends it)", f"{images:,}", folder, address)


if __name__ == "__main__":
    main()
