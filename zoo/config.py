"""Where configs live, how they are composed, and the one place where they become objects."""

from __future__ import annotations

import importlib.util
import os
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from omegaconf import DictConfig

_DDP_VARIABLES = (
    "LOCAL_RANK", "RANK", "GLOBAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE",
    "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED", "PL_SEED_WORKERS",
)  # fmt: skip

LOCAL = "zoo_conf"  # folder of the user's own configs, looked for where the command is called
_MISSING = "???"  # how OmegaConf spells a value that has to be given


def conf_dir() -> Path:
    """Returns the folder of the built-in configs: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    for candidate in (package / "conf", package.parent / "conf"):
        if (candidate / "train.yaml").is_file():
            return candidate
    raise FileNotFoundError(f"the zoo's configs are missing: no train.yaml in {package}/conf or {package.parent}/conf")


@cache
def plugin_conf_dirs() -> dict[str, Path]:
    """Returns package → its `conf` folder for every plugin that ships configs, without importing any of them."""
    found: dict[str, Path] = {}
    for package in {point.value.split(":")[0].split(".")[0] for point in registry.plugin_points()}:
        folder = _conf_beside(package)
        if folder is not None:
            found[package] = folder
    return dict(sorted(found.items()))  # which of two equal names wins must not depend on the order of a directory


def _conf_beside(package: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    for location in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(location) / "conf").is_dir():
            return Path(location) / "conf"
    return None


def conf_dirs() -> dict[str, Path]:
    """Returns who provides configs → the folder, in the order in which they are looked through.

    The user's own come last: they add names, and can't change what a packaged name means.
    """
    local = {LOCAL: Path(LOCAL).resolve()} if Path(LOCAL).is_dir() else {}
    return {registry.DISTRIBUTION: conf_dir(), **plugin_conf_dirs(), **local}


def groups() -> list[str]:
    """Returns the groups of which a command line chooses."""
    folders = [path for folder in conf_dirs().values() for path in folder.iterdir() if path.is_dir()]
    return sorted({path.name for path in folders if not path.name.startswith((".", "_"))})


def options(group: str) -> list[str]:
    """Returns the names of all YAMLs of a group."""
    return sorted({path.stem for folder in conf_dirs().values() for path in (folder / group).glob("*.yaml")})


def config_file(group: str, name: str) -> Path | None:
    """Returns the YAML of a name: the zoo's own, else a plugin's, else the user's, else None."""
    for folder in conf_dirs().values():
        path = folder / group / f"{name}.yaml"
        if path.is_file():
            return path
    return None


def provider(group: str, name: str) -> str:
    """Returns who a config is of: a distribution with its version, or the folder of the user's own."""
    path = config_file(group, name)
    who = next(who for who, folder in conf_dirs().items() if path and path.is_relative_to(folder))
    if who == registry.DISTRIBUTION:
        return registry.origin_of_builtins()
    versions = {point.value.split(":")[0].split(".")[0]: point.dist for point in registry.plugin_points()}
    return f"{versions[who].name} {versions[who].version}" if who in versions else who


def description(group: str, name: str) -> str:
    """Returns the first comment line of a name's YAML (after a `# @package` line), or an empty string."""
    path = config_file(group, name)
    for line in path.read_text(encoding="utf-8").splitlines() if path else ():
        if line.startswith("#") and not line.startswith("# @package"):
            return line.lstrip("# ").strip()
    return ""


def register_plugin_configs() -> None:
    """Lets Hydra find plugins' configs and the user's, in this process only; they add names and can't override ours."""
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    class ZooSearchPath(SearchPathPlugin):
        def manipulate_search_path(self, search_path: Any) -> None:
            for provider, folder in list(conf_dirs().items())[1:]:
                search_path.append(provider=provider, path=folder.resolve().as_uri())

    if not any(plugin.__name__ == "ZooSearchPath" for plugin in Plugins.instance().discover(SearchPathPlugin)):
        Plugins.instance().register(ZooSearchPath)


def compose(config_name: str | None, overrides: list[str]) -> DictConfig:
    """Composes a config as a command would; leaves a running Hydra application's own state untouched."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    register_plugin_configs()
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return hydra.compose(config_name, overrides)
    finally:
        GlobalHydra.instance().hydra = running


def defaults(kind: str, name: str) -> dict[str, Any]:
    """Returns the hyper-parameters of a registered name as its YAML states them, as plain values."""
    from omegaconf import OmegaConf

    node = OmegaConf.to_container(compose(None, [f"+{kind}@node={name}"]).node, resolve=True)
    return {key: value for key, value in node.items() if key not in ("_target_", "_convert_", "kind", "name")}


def resolved(text: str) -> str:
    """Returns a text with its interpolations, such as those of environment variables, filled in.

    Raises UsageError where one can't be: a variable that isn't set and has no default.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.create({"text": text}).text
    except OmegaConfBaseException as error:
        raise registry.UsageError(f"'{text}' can't be filled in: {str(error).splitlines()[0]}") from None


def create(kind: str, name: str, **parameters: Any) -> Any:
    """Builds a registered class; what is not passed comes from its YAML. An unknown key is refused with the nearest.

    A plugin's class without a YAML is built from `parameters` alone.
    """
    name = registry.current_name(kind, name)
    cls = registry.load(kind, name)
    if config_file(kind, name) is not None:
        parameters = complete(kind, name, parameters)
        missing = [key for key, value in parameters.items() if isinstance(value, str) and value == _MISSING]
        if missing:
            raise registry.UsageError(explain_missing(kind, name, missing))
    built = cls(**parameters)
    origin = registry.lookup(kind, name).origin
    built.registered = {"kind": kind, "name": name, "origin": origin, "parameters": parameters}
    return built


def complete(kind: str, name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Returns `parameters` with what is missing filled from the YAML; raises UsageError for a key the YAML lacks."""
    known = defaults(kind, name)
    for key in parameters:
        if key not in known:
            hint = registry.suggest(key, known)
            raise registry.UsageError(f"{kind} '{name}' has no parameter '{key}'; it has {', '.join(known)}.{hint}")
    return {**known, **parameters}


def explain_missing(kind: str, name: str, missing: list[str]) -> str:
    """Returns what a name can't be built without, with the YAML's remark on each key."""
    lines = config_file(kind, name).read_text(encoding="utf-8").splitlines()
    remarks = {line.partition(":")[0]: line.partition("# ")[2] for line in lines if _MISSING in line}
    packaged = lines[0].removeprefix("# @package ") if lines[0].startswith("# @package ") else kind
    wanted = "; ".join(f"{packaged}.{key}=… ({remarks.get(key, 'no remark')})" for key in missing)
    return f"{kind} '{name}' has no default for what only you can know: {wanted}"


def instantiate(node: Any, **extra: Any) -> Any:
    """Turns a config node with `_target_` into its object."""
    from hydra.utils import instantiate as hydra_instantiate

    return hydra_instantiate(node, **extra)


@contextmanager
def isolated_job() -> Iterator[None]:
    """Gives one job of a multirun its own arguments and distributed state, and restores both afterwards.

    Lightning's `ddp` strategy starts the other ranks by re-running `sys.argv`; under `--multirun` that would re-run the
    whole sweep, so the arguments are narrowed to this job's overrides (Lightning pull request 18175, hydra issue 2070).
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    arguments, environment = sys.argv, {name: os.environ.get(name) for name in _DDP_VARIABLES}
    hydra_config = HydraConfig.get()
    if hydra_config.mode == RunMode.MULTIRUN:
        sys.argv = [arguments[0], *hydra_config.overrides.task]
        # Lightning hands `hydra.run.dir` to the other ranks, which must be the folder of this very job.
        _set_run_dir(hydra_config)
    try:
        yield
    finally:
        sys.argv = arguments
        _restore(environment)
        _destroy_process_group()


def _set_run_dir(hydra_config: Any) -> None:
    from omegaconf import open_dict, read_write

    with read_write(hydra_config), open_dict(hydra_config):
        hydra_config.run.dir = hydra_config.runtime.output_dir


def _restore(environment: dict[str, str | None]) -> None:
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _destroy_process_group() -> None:
    torch = sys.modules.get("torch")
    if torch and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
