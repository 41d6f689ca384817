from __future__ import annotations

import importlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from fork_server import ForkServer
from hypothesis import settings
from places import BIN, ROOT, build_wheel

# Before torch is imported anywhere: tests run side by side, and more threads than cores slow all of them down.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says what else the machine does, not whether the code is right.
settings.register_profile("zoo", deadline=None)
settings.load_profile("zoo")

collect_ignore = ["plugins"]  # packages of their own, which tools/check_wheel.sh installs and tests


@pytest.fixture(scope="session", autouse=True)
def zoo_cache(tmp_path_factory):
    """Keeps generated data and ground truth of the tests out of the user's cache."""
    os.environ["ZOO_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def tiny():
    """Overrides with which `zoo train` takes seconds."""
    network = ["model.g=[16,16]", "model.h=[16]", "model.f=[16,16]", "model.question_layer=2"]
    sizes = ["data.train_size=64", "data.val_size=16", "data.test_size=8", "data.gallery_size=40"]
    return [*network, *sizes, "trainer.max_epochs=1", "trainer.enable_progress_bar=false"]


@pytest.fixture(scope="session")
def command_in(tmp_path_factory):
    """Runs a command of the environment in a folder; `code` is the exit code that it must end with.

    `fresh` starts the interpreter from nothing; else the heavy libraries are there already (fork_server.py).
    """
    server = ForkServer()

    def run(cwd, *words, code=0, fresh=False, **environment):
        words = [str(BIN / words[0]), *map(str, words[1:])]
        variables = {**os.environ, **{name: str(value) for name, value in environment.items()}}
        if fresh or not Path(words[0]).name.startswith("zoo"):
            done = subprocess.run(
                words, cwd=cwd, env=variables, capture_output=True, text=True, timeout=300, check=False
            )
        else:
            done = server.run(words, cwd, variables, tmp_path_factory.mktemp("output"), timeout=300)
        assert done.returncode == code, f"{words} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done

    yield run
    server.close()


@pytest.fixture
def command(tmp_path, command_in):
    """Runs a command as `command_in` does, in a folder of the test's own unless `cwd` says where."""

    def run(*words, cwd=tmp_path, **options):
        return command_in(cwd, *words, **options)

    return run


@pytest.fixture(scope="session")
def plugin_site(tmp_path_factory):
    """Returns a folder for sys.path into which the wheels of zoo_acme and zoo_broken are installed."""
    folder = tmp_path_factory.mktemp("plugins")
    for name in ("zoo_acme", "zoo_broken"):
        build_wheel(ROOT / "tests" / "plugins" / name, folder / "dist")
    for wheel in (folder / "dist").glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def plugins(plugin_site, monkeypatch):
    """Installs zoo_acme and zoo_broken in this process for the duration of a test."""
    with _visible(plugin_site, monkeypatch):
        yield plugin_site


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Installs distributions made up by a test: dist-info and files on sys.path, as pip leaves them."""
    site = tmp_path / "site"

    def install(name, version, points, files=None, kind="zoo.models"):
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        lines = [f"[{kind}]", *(f"{point} = {value}" for point, value in points.items())]
        written = {
            info / "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            info / "entry_points.txt": "\n".join(lines) + "\n",
            **{site / path: text for path, text in (files or {}).items()},
        }
        for path, text in written.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        importlib.invalidate_caches()

    site.mkdir()
    with _visible(site, monkeypatch):
        yield install


class _visible:
    """Puts a folder on sys.path and forgets, before and after, what was read from there."""

    def __init__(self, site, monkeypatch):
        self.site, self.monkeypatch = site, monkeypatch

    def __enter__(self):
        self.monkeypatch.syspath_prepend(str(self.site))
        self._forget()

    def __exit__(self, *_):
        sys.path.remove(str(self.site))
        self._forget()

    def _forget(self):
        from zoo import config

        config.plugin_conf_dirs.cache_clear()
        for name, module in list(sys.modules.items()):
            if str(self.site) in (getattr(module, "__file__", None) or ""):
                del sys.modules[name]
