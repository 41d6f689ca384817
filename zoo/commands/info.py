"""`zoo info`: what a registered name is and what can be set, with the remarks of its config."""

from __future__ import annotations

import argparse
import re
import sys

from zoo import config, registry
from zoo.commands import until_reader_leaves

_HELP = "Shows where a name comes from, what it is, and every key that can be set with its default and its meaning."
_EXAMPLES = """\
examples:
  zoo info oxford                 a benchmark
  zoo info model two_stage_rn     by kind and name, where two kinds share one
"""


@until_reader_leaves()
def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="zoo info", description=_HELP, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="+", metavar="[KIND] NAME", help=f"KIND: {', '.join(registry.KINDS)}")
    words = [part for word in parser.parse_args().words for part in re.split("[=/]", word)]
    try:
        for kind, name in _found(words):
            _print(kind, name)
    except registry.UsageError as error:
        print(f"zoo: {error}", file=sys.stderr)
        sys.exit(2)


def _found(words: list[str]) -> list[tuple[str, str]]:
    """Returns the kinds and names that are meant; raises UsageError, with the nearest name, if there is none."""
    if len(words) == 2:
        registry.check_kind(words[0])
        return [(words[0], registry.lookup(words[0], words[1]).name)]
    if len(words) > 2:
        raise registry.UsageError(f"info: name one thing, as NAME or KIND NAME, got {' '.join(words)}")
    names = {name for kind in registry.KINDS for name in registry.entries(kind)}
    found = [(kind, words[0]) for kind in registry.KINDS if words[0] in registry.entries(kind)]
    if not found:
        raise registry.UsageError(
            f"nothing is called '{words[0]}'.{registry.suggest(words[0], names)} All names: zoo list"
        )
    return found


def _print(kind: str, name: str) -> None:
    path = config.config_file(kind, name)
    print(f"{kind} {name}  [{registry.lookup(kind, name).origin}]  chosen as {kind}={name}")
    print(config.description(kind, name) or "(no config)")
    lines = path.read_text(encoding="utf-8").splitlines() if path else []
    weights = sorted(
        file.stem for file in (registry.folder(registry.lookup(kind, name)) / "weights").glob("*.safetensors")
    )
    if weights:
        print(f"weights that come along: {', '.join(weights)}")
    package = lines[0].removeprefix("# @package ") if lines and lines[0].startswith("# @package ") else kind
    for line in lines:
        key = line.partition(":")[0]
        if line and not line.startswith(("#", "_")) and key not in ("kind", "name"):
            print(f"  {package}.{line}" if line[0] != " " else f"  {line}")


if __name__ == "__main__":
    main()
