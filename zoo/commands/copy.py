"""`zoo copy`: copies a packaged config to where one's own are looked for."""

from __future__ import annotations

import re
from pathlib import Path

from zoo import config, registry
from zoo.commands import until_reader_leaves
from zoo.commands._ending import one_line_errors
from zoo.commands._parsing import Parser
from zoo.files import replacing

_HELP = f"""\
Copies a packaged config into the folder {config.LOCAL}/ of the current one. What stands there is chosen like what is
packaged, by every command that is called from here. Names of the package can't be taken: they keep their meaning."""
_EXAMPLES = """\
examples:
  zoo copy experiment/demo                 writes zoo_conf/experiment/my_demo.yaml: zoo train experiment=my_demo
  zoo copy experiment/demo long_demo       under another name
  zoo copy reranker superglobal            zoo search photo.jpg reranker=my_superglobal
  zoo copy sweep/two_stage_rn              wandb sweep zoo_conf/sweep/my_two_stage_rn.yaml
"""


@until_reader_leaves()
def main() -> None:
    """Runs the command."""
    parser = Parser("copy", _HELP, _EXAMPLES)
    parser.add_argument("--names", action="store_true", help="list what can be copied, of one group or the groups")
    parser.add_argument("words", nargs="*", metavar="GROUP/NAME [NEW]", help="NEW: the copy's name (my_NAME)")
    arguments = parser.parse_args()
    words = [part for word in arguments.words for part in re.split("[=/]", word)]
    if arguments.names:
        print(*([f"{words[0]}/{name}" for name in config.options(words[0])] if words else config.groups()), sep="\n")
        return
    with one_line_errors():
        _copy(*_asked(words))


def _asked(words: list[str]) -> tuple[str, str, str]:
    """Returns group, name and the new name; raises UsageError for what isn't there or can't be a name."""
    if len(words) not in (2, 3):
        raise registry.UsageError(f"copy: name one config, as GROUP/NAME or GROUP/NAME NEW, got {' '.join(words)}")
    group, name, new = words if len(words) == 3 else (*words, f"my_{words[1]}")
    known = config.options(group)
    if not known:
        groups = config.groups()
        raise registry.UsageError(
            f"unknown group '{group}'; groups: {', '.join(groups)}.{registry.suggest(group, groups)}"
        )
    if name not in known:
        raise registry.UsageError(
            f"unknown {group} '{name}'; known: {', '.join(known)}.{registry.suggest(name, known)}"
        )
    if not re.fullmatch(r"\w+", new):
        raise registry.UsageError(f"the copy's name must be of letters, digits and underscores, got '{new}'")
    if new in known:
        raise registry.UsageError(
            f"the copy's name must be new, got '{new}', which is {config.config_file(group, new)}"
        )
    return group, name, new


def _copy(group: str, name: str, new: str) -> None:
    """Writes the copy, which says what it was made of."""
    path = Path(config.LOCAL) / group / f"{new}.yaml"
    text = config.config_file(group, name).read_text(encoding="utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(_renamed(text, group, name, new).encode())
    use = f"started with: wandb sweep {path}" if group == "sweep" else f"chosen as {group}={new}"
    print(f"written: {path}; {use}; what can be set: zoo info {group} {name}")


def _renamed(text: str, group: str, name: str, new: str) -> str:
    """Returns a config under its new name: package, commands, the name of its runs, and whose figures it quotes."""
    text = text.replace(f"# @package {group}.{name}\n", f"# @package {group}.{new}\n")
    text = re.sub(rf"\b{group}={name}\b", f"{group}={new}", text)
    text = re.sub(rf"^run_name: {name}$", f"run_name: {new}", text, flags=re.MULTILINE)
    return text.replace("# expected:", f"# expected of {name}, from which this was copied:")


if __name__ == "__main__":
    main()
