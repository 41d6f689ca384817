"""`zoo list`: every registered name, where it comes from and what it is."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from zoo import config, registry
from zoo.commands import until_reader_leaves
from zoo.commands._ending import one_line_errors
from zoo.commands._parsing import Parser

_FILES = ("experiment", "sweep")  # groups of YAMLs that nothing registers
_HELP = "Lists what can be chosen by name. No plugin code runs unless --check is given."


@until_reader_leaves()
def main() -> None:
    """Runs the command."""
    parser = Parser("list", _HELP)
    parser.add_argument("kind", nargs="?", help=f"one of {', '.join((*registry.KINDS, *_FILES))}; all if left out")
    parser.add_argument("--check", action="store_true", help="import every plugin's class and report those that fail")
    arguments = parser.parse_args()
    with one_line_errors():
        kinds = [_known(arguments.kind)] if arguments.kind else [*registry.KINDS, *_FILES]
    for kind in kinds:
        if kind in _FILES:
            _print_files(kind)
        else:
            _print_kind(kind, arguments.check)


def _known(word: str) -> str:
    """Returns the word; raises UsageError, with the nearest, where it is no kind."""
    kinds = (*registry.KINDS, *_FILES)
    if word not in kinds:
        raise registry.UsageError(
            f"unknown kind '{word}'; kinds are {', '.join(kinds)}.{registry.suggest(word, kinds)}"
        )
    return word


def _print_files(group: str) -> None:
    print(group)
    names = config.options(group)
    width = max(map(len, names))
    for name in names:
        print(f"  {name:<{width}}  [{config.provider(group, name)}]  {config.description(group, name)}")


def _print_kind(kind: str, check: bool) -> None:
    print(f"{kind}")
    entries = registry.entries(kind)
    width = max((len(name) for name in entries), default=0)
    for name, entry in entries.items():
        problem = _problem(entry, check)
        text = f"BROKEN: {problem}" if problem else config.description(kind, name) or "(no config)"
        print(f"  {name:<{width}}  [{entry.origin}]  {text}")
    for entry in registry.shadowed(kind):
        print(f"  {entry.name:<{width}}  [{entry.origin}]  IGNORED: the name belongs to {registry.DISTRIBUTION}")
    if not entries:
        print("  (none yet)")


def _problem(entry: registry.Entry, check: bool) -> str | None:
    if entry.problem or entry.origin == registry.origin_of_builtins():
        return entry.problem
    if check:
        try:
            registry.load(entry.kind, entry.name)
        except registry.BrokenPlugin as error:
            return str(error)
    return None if _module_exists(entry.reference.split(":")[0]) else f"no module '{entry.reference.split(':')[0]}'"


def _module_exists(module: str) -> bool:
    """Looks for the module's file without importing the packages around it."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    if spec is None or not rest:
        return spec is not None
    places = [Path(location).joinpath(*rest) for location in spec.submodule_search_locations or ()]
    # A compiled module's file name carries an ABI tag.
    return any(place.is_dir() or any(place.parent.glob(f"{place.name}.*")) for place in places)


if __name__ == "__main__":
    main()
