"""`zoo info`: what a registered name is and what can be set, with the remarks of its config."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

from zoo import config, registry
from zoo.commands import until_reader_leaves
from zoo.commands._ending import one_line_errors
from zoo.commands._parsing import Parser

_HELP = """\
Shows where a name comes from, what it is, every key that can be set with its default and its meaning, and of a
model its weights and its card, which holds what was measured."""
_EXAMPLES = """\
examples:
  zoo info oxford                 a benchmark
  zoo info model two_stage_rn     by kind and name, where two kinds share one
  zoo info experiment demo        an experiment, or a config of any other group: as it is
"""


@until_reader_leaves()
def main() -> None:
    """Runs the command."""
    parser = Parser("info", _HELP, _EXAMPLES)
    parser.add_argument(
        "words",
        nargs="+",
        metavar="[KIND] NAME",
        help=f"KIND: {', '.join(registry.KINDS)}, or another group of configs",
    )
    words = [part for word in parser.parse_args().words for part in re.split("[=/]", word)]
    with one_line_errors():
        for kind, name in _found(words):
            _print(kind, name)


def _found(words: list[str]) -> list[tuple[str, str]]:
    """Returns the kinds and names that are meant; raises UsageError, with the nearest name, if there is none."""
    if len(words) == 2 and words[0] not in registry.KINDS and words[1] in config.options(words[0]):
        return [tuple(words)]
    if len(words) == 2:
        registry.check_kind(words[0])
        return [(words[0], registry.lookup(words[0], words[1]).name)]
    if len(words) > 2:
        raise registry.UsageError(f"info: name one thing, as NAME or KIND NAME, got {' '.join(words)}")
    others = [group for group in config.groups() if group not in registry.KINDS]
    names = {name for group in others for name in config.options(group)}
    names |= {name for kind in registry.KINDS for name in registry.entries(kind)}
    found = [(kind, words[0]) for kind in registry.KINDS if words[0] in registry.entries(kind)]
    found = found or [(group, words[0]) for group in others if words[0] in config.options(group)]
    if not found:
        raise registry.UsageError(
            f"nothing is called '{words[0]}'.{registry.suggest(words[0], names)} All names: zoo list"
        )
    return found


def _print(kind: str, name: str) -> None:
    if kind not in registry.KINDS:
        use = f"copied with zoo copy sweep/{name}" if kind == "sweep" else f"chosen as {kind}={name}"
        print(f"{kind} {name}  [{config.provider(kind, name)}]  {use}")
        print(config.config_file(kind, name).read_text(encoding="utf-8"), end="")
        return
    path = config.config_file(kind, name)
    print(f"{kind} {name}  [{registry.lookup(kind, name).origin}]  chosen as {kind}={name}")
    print(config.description(kind, name) or "(no config)")
    lines = path.read_text(encoding="utf-8").splitlines() if path else []
    folder = registry.folder(registry.lookup(kind, name))
    for file in sorted((folder / "weights").glob("*.safetensors")):
        size, count = file.stat().st_size / 1e6, _numbers(file)
        print(f"weights that come along: {file.stem}  {size:.1f} MB, {count / 1e6:.2f} million numbers")
    package = lines[0].removeprefix("# @package ") if lines and lines[0].startswith("# @package ") else kind
    for line in lines:
        key = line.partition(":")[0]
        if line and not line.startswith(("#", "_")) and key not in ("kind", "name"):
            print(f"  {package}.{line}" if line[0] != " " else f"  {line}")
    card = folder / "README.md"
    if kind == "model" and card.is_file():
        print(f"\n{card.read_text(encoding='utf-8')}", end="")


def _numbers(file: Path) -> int:
    """Returns how many numbers a file of weights holds, by its head alone."""
    with file.open("rb") as stream:
        head = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return sum(math.prod(each["shape"]) for name, each in head.items() if name != "__metadata__")


if __name__ == "__main__":
    main()
