"""Turns Hydra's complaints about a command line into one line that names the nearest word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo import config, registry
from zoo.registry import suggest

if TYPE_CHECKING:
    from collections.abc import Iterator


def explain(error: Exception, config_name: str, arguments: list[str]) -> str:
    """Returns what is wrong with the command line, with the nearest group option or key of this command's config."""
    from hydra.errors import MissingConfigException, OverrideParseException

    lines = [str(error).splitlines()[0], *str(error.__cause__ or "").splitlines()[:1]]
    message = ": ".join(dict.fromkeys(line for line in lines if line))
    if isinstance(error, OverrideParseException):
        why = next(line for line in str(error).splitlines() if not line.startswith("Error parsing"))
        key, equals, value = error.override.partition("=")
        quoted = f"; a value with spaces, commas or = is quoted twice: '{key}=\"{value}\"'" if equals else ""
        return f"'{error.override}' is no valid override, which is key=value: {why}{quoted}"
    for override in _overrides(arguments):
        if override.is_sweep_override() and not {"-m", "--multirun"} & set(arguments):
            return (
                f"'{override.input_line}' has several values: add -m to run a job for each, or write key=[…] for a list"
            )
    for override in _overrides(arguments):
        if override.is_add() and (_is_group(override) or override.key_or_group in _known_keys(config_name, [])):
            return f"'{override.input_line}': leave out the +, the config has '{override.key_or_group}' already"
    group, _, word = (getattr(error, "missing_cfg_file", None) or "").rpartition("/")
    if isinstance(error, MissingConfigException) and config.options(group):
        if group in registry.KINDS and word in registry.entries(group):
            return _without_config(group, word)
        known = config.options(group)
        return f"unknown {group or 'config'} '{word}'; known: {', '.join(known)}.{suggest(word, known)}"
    if isinstance(error, MissingConfigException) and group == "hydra/launcher":
        more = "" if "joblib" in error.options else "; joblib and submitit come with spatial-zoo[launchers]"
        return f"unknown {group} '{word}'; known: {', '.join(error.options)}{more}.{suggest(word, error.options)}"
    for key in _override_keys(arguments):
        if key.startswith(("hydra/", "hydra.launcher", "hydra.sweeper")):
            continue
        words = _known_keys(config_name, arguments)
        if words and key not in words:
            return f"unknown key '{key}'.{suggest(key, words)} All keys: zoo {config_name} --cfg job"
    return message


def _without_config(kind: str, name: str) -> str:
    """Says what is wrong with a registered name that has no YAML, which is only ever a plugin's."""
    try:
        registry.load(kind, name)
    except registry.BrokenPlugin as error:
        return str(error)
    origin = registry.lookup(kind, name).origin
    return f"{kind} '{name}' of {origin} ships no config: its package lacks conf/{kind}/{name}.yaml"


def _overrides(arguments: list[str]) -> list[Any]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parsed = []
    for argument in arguments:
        try:
            parsed += OverridesParser.create().parse_overrides([argument]) if not argument.startswith("-") else []
        except HydraException:
            continue
    return parsed


def _override_keys(arguments: list[str]) -> list[str]:
    return [o.key_or_group for o in _overrides(arguments) if not (o.is_add() or o.is_delete() or _is_group(o))]


def _is_group(override: Any) -> bool:
    return bool(config.options(override.key_or_group.split("@")[0]))


def _known_keys(config_name: str, arguments: list[str]) -> set[str]:
    """Collects every dotted key of the config that the command line's group choices lead to."""
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    choices = [o.input_line for o in _overrides(arguments) if _is_group(o) and not o.is_sweep_override()]
    for attempt in (choices, []):
        try:
            composed = OmegaConf.to_container(config.compose(config_name, attempt), resolve=False)
        except (HydraException, OmegaConfBaseException):
            continue
        return {*_dotted(composed), "hydra", *_hydra_keys()}
    return set()


def _hydra_keys() -> set[str]:
    return {"hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.verbose", "hydra.job.name"}


def _dotted(node: Any, prefix: str = "") -> Iterator[str]:
    for key, value in node.items() if isinstance(node, dict) else ():
        yield f"{prefix}{key}"
        yield from _dotted(value, f"{prefix}{key}.")
