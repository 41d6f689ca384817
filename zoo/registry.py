"""Names of the zoo: kind and name → where the class stands. Nothing is imported until it is asked for."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import re
import sys
import warnings
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent
DISTRIBUTION = "spatial-zoo"
_EXPORT = re.compile(r"^export = (\w+)", re.MULTILINE)


class UsageError(ValueError):
    """What the caller asked for can't be done; commands print the message without a traceback and exit with 2."""


class UnknownName(UsageError):
    """A name that nobody registers."""


class BrokenPlugin(UsageError):
    """A registered name whose class can't be loaded; the message tells the distribution and the cause."""


@dataclass(frozen=True)
class Kind:
    """One table of names: its config group, where the built-ins' modules stand, the plugins' entry points.

    A pattern whose last folder is "*" names things after their folder, another one after their file.
    """

    group: str
    modules: tuple[str, ...]
    entry_points: str


KINDS = {
    kind.group: kind
    for kind in (
        Kind("model", ("models/*/module.py",), "zoo.models"),
        Kind("data", ("data/*.py",), "zoo.data"),
        Kind("benchmark", ("evaluation/benchmarks/*.py",), "zoo.benchmarks"),
        Kind("index", ("search/indexes/*.py",), "zoo.indexes"),
        Kind("reranker", ("search/rerankers/*.py", "models/*/reranker.py"), "zoo.rerankers"),
        Kind("metrics", ("metrics/*.py",), "zoo.metrics"),
        Kind("affinity", ("affinities/*.py",), "zoo.affinities"),
    )
}


# kind → former name → the name now. A former name is taken, with a warning, until the next minor version but one; its
# YAML holds nothing but `defaults: [the name now]`.
RENAMED = {"data": {"images": "folder"}}


@dataclass(frozen=True)
class Entry:
    """A registered name: `reference` is "module:attribute", `origin` the distribution and its version.

    `problem` is None, or why the name can't be used (two plugins claim it).
    """

    kind: str
    name: str
    reference: str
    origin: str
    problem: str | None = None


def suggest(word: str, candidates: Any) -> str:
    """Returns " Did you mean 'x'?" for the nearest of `candidates`, or an empty string."""
    names = [str(candidate) for candidate in candidates]
    begun = [name for name in names if len(word) > 2 and name.startswith(word)]
    near = begun or difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else ""


def check_kind(kind: str) -> Kind:
    """Returns the table called `kind`; raises UnknownName for another word."""
    if kind not in KINDS:
        raise UnknownName(f"unknown kind '{kind}'; kinds are {', '.join(KINDS)}.{suggest(kind, KINDS)}")
    return KINDS[kind]


def entries(kind: str) -> dict[str, Entry]:
    """Returns every usable or ambiguous name of `kind`, sorted; plugins can't take a built-in's name."""
    found = {**_plugin_entries(kind), **_builtin_entries(kind)}
    return dict(sorted(found.items()))


def shadowed(kind: str) -> list[Entry]:
    """Returns the plugin entries that claim a built-in's name and are therefore ignored."""
    builtin = _builtin_entries(kind)
    return [entry for name, entry in _plugin_entries(kind).items() if name in builtin]


def lookup(kind: str, name: str) -> Entry:
    """Returns the entry of `name`; raises UnknownName with the nearest name, or BrokenPlugin if two claim it."""
    table, name = entries(kind), current_name(kind, name)
    if name not in table:
        known = ", ".join(table) or "none"
        raise UnknownName(f"unknown {kind} '{name}'; known: {known}.{suggest(name, table)}")
    if table[name].problem:
        raise BrokenPlugin(f"{kind} '{name}': {table[name].problem}")
    return table[name]


def current_name(kind: str, name: str) -> str:
    """Returns the name that a former one of the zoo stands for, with a FutureWarning; any other name as it is."""
    new = RENAMED.get(kind, {}).get(name)
    if new is None or name in _plugin_entries(kind):
        return name
    warnings.warn(f"{kind} '{name}' is called '{new}' now; the old name will go", FutureWarning, stacklevel=2)
    return new


def plugin_versions() -> dict[str, str]:
    """Returns distribution → version of every installed plugin, whatever it registers."""
    return dict(sorted((point.dist.name, point.dist.version) for point in plugin_points()))


def plugin_points(kind: str | None = None) -> list[metadata.EntryPoint]:
    """Returns the entry points of one kind, or of all, that installed distributions declare."""
    kinds = [check_kind(kind)] if kind else KINDS.values()
    installed = _installed_points(_state_of_path())
    return [point for each in kinds for point in installed.select(group=each.entry_points)]


def _state_of_path() -> tuple[tuple[str, int], ...]:
    """Returns what changes when a distribution is installed or removed while the process runs."""
    folders = [Path(entry or ".") for entry in sys.path]
    return tuple((str(folder), folder.stat().st_mtime_ns) for folder in folders if folder.is_dir())


@lru_cache(maxsize=1)
def _installed_points(state: tuple[tuple[str, int], ...]) -> Any:
    # A walk over all distributions takes 60 ms of processor time, and one for each kind most of what `zoo list` took.
    return metadata.entry_points()


def folder(entry: Entry) -> Path:
    """Returns the folder of an entry's module, found without importing it (a model's `weights/` stand there)."""
    top, *rest = entry.reference.partition(":")[0].split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        raise BrokenPlugin(f"{entry.kind} '{entry.name}' of {entry.origin}: its package '{top}' is not installed")
    return Path(spec.submodule_search_locations[0]).joinpath(*rest[:-1])


def load(kind: str, name: str) -> type:
    """Imports and returns the class registered as `name`.

    Raises UnknownName, or BrokenPlugin naming distribution, version and cause when a plugin's import fails; an error
    inside the zoo itself passes through unchanged.
    """
    entry = lookup(kind, name)
    module, _, attribute = entry.reference.partition(":")
    if entry.origin == origin_of_builtins():
        return getattr(importlib.import_module(module), attribute)
    try:
        return getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:
        raise BrokenPlugin(_explain(entry, module, attribute, error)) from error


def _explain(entry: Entry, module: str, attribute: str, error: BaseException) -> str:
    who = f"{entry.kind} '{entry.name}' of {entry.origin} can't be loaded"
    if not attribute:
        return f"{who}: its entry point '{entry.reference}' names no class; write it as module:Class"
    if isinstance(error, ModuleNotFoundError) and error.name:
        if module == error.name or module.startswith(f"{error.name}."):
            return f"{who}: it names the module '{module}', which doesn't exist"
        return f"{who}: '{module}' imports '{error.name}', which is not installed"
    if isinstance(error, AttributeError) and not error.__traceback__.tb_next:
        return f"{who}: '{module}' has no '{attribute}'"
    return f"{who}: importing '{module}' raised {type(error).__name__}: {error}"


@cache
def origin_of_builtins() -> str:
    """Returns the name and version of this distribution, as `Entry.origin` spells them."""
    try:
        return f"{DISTRIBUTION} {metadata.version(DISTRIBUTION)}"
    except metadata.PackageNotFoundError:
        return f"{DISTRIBUTION} (not installed)"


@cache
def _builtin_entries(kind: str) -> dict[str, Entry]:
    found = {}
    patterns = check_kind(kind).modules
    for pattern, path in [(each, path) for each in patterns for path in sorted(PACKAGE.glob(each))]:
        name = path.parent.name if pattern.split("/")[-2] == "*" else path.stem
        export = _EXPORT.search(path.read_text(encoding="utf-8"))
        if name.startswith("_") or not export:
            continue
        module = ".".join(("zoo", *path.relative_to(PACKAGE).with_suffix("").parts))
        found[name] = Entry(kind, name, f"{module}:{export[1]}", origin_of_builtins())
    return found


def _plugin_entries(kind: str) -> dict[str, Entry]:
    claims: dict[str, dict[str, Entry]] = {}
    for point in plugin_points(kind):
        origin = f"{point.dist.name} {point.dist.version}"
        entry = Entry(kind, point.name, point.value, origin, _made_for_another(point.dist))
        claims.setdefault(point.name, {})[origin] = entry
    return {name: _settle(list(by_origin.values())) for name, by_origin in claims.items()}


def _made_for_another(plugin: metadata.Distribution) -> str | None:
    """Returns what is wrong where a plugin's own metadata rule out this version of the zoo; nothing of it is run."""
    wanted = [line for line in plugin.requires or () if re.match(rf"{DISTRIBUTION}\b(?!-)", line)]
    version = origin_of_builtins().split()[1]
    if not wanted or not version[0].isdigit():
        return None
    from packaging.requirements import Requirement

    for each in map(Requirement, wanted):
        if not each.specifier.contains(version, prereleases=True):
            return (
                f"{plugin.name} {plugin.version} is made for {DISTRIBUTION} {each.specifier}, this is {version}: "
                f"install another version of {plugin.name}, or of {DISTRIBUTION}"
            )
    return None


def _settle(claims: list[Entry]) -> Entry:
    if len(claims) == 1:
        return claims[0]
    owners = " and ".join(sorted(claim.origin for claim in claims))
    first = claims[0]
    return Entry(first.kind, first.name, first.reference, owners, f"claimed by {owners}; uninstall one of them")
