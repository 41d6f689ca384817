"""`zoo new-plugin`: writes a package that brings a model of its own, to begin from."""

from __future__ import annotations

import importlib.util
import keyword
import os
import re
import shutil
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from zoo import __version__, registry
from zoo.commands import until_reader_leaves
from zoo.commands._ending import one_line_errors
from zoo.commands._parsing import Parser

if TYPE_CHECKING:
    from collections.abc import Iterator

_RENAMED = {"package": None, "name": None, "checks": "tests"}  # parts of the template's paths; None = NAME
_TEMPLATE = Path(__file__).parent / "plugin_template"
_HELP = """\
Writes a package with a model, its config, an experiment, a test and a README. It works as it is: installed, it is
found, trains, and passes its own test."""
_EXAMPLES = """\
examples:
  zoo new-plugin acme_rank                 writes the folder acme_rank
  zoo new-plugin acme_rank --folder src    writes src/acme_rank
  pip install -e acme_rank && zoo train experiment=acme_rank_demo
"""


@until_reader_leaves()
def main() -> None:
    """Runs the command."""
    parser = Parser("new-plugin", _HELP, _EXAMPLES)
    parser.add_argument("name", metavar="NAME", help="of the package and its model, such as acme_rank")
    parser.add_argument("--folder", type=Path, default=Path(), help="in which the package's own folder is made (here)")
    arguments = parser.parse_args()
    with one_line_errors():
        check_name(arguments.name)
        _write(arguments.name, arguments.folder / arguments.name)


def check_name(name: str) -> None:
    """Raises UsageError for what can't be the name of a package, or is taken."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise registry.UsageError(
            f"NAME must be of small letters, digits and underscores, a letter first, like acme_rank, got '{name}'"
        )
    if name in registry.entries("model"):
        origin = registry.entries("model")[name].origin
        raise registry.UsageError(f"NAME must be new, got '{name}', a model of {origin}")
    if importlib.util.find_spec(name) is not None:
        raise registry.UsageError(f"NAME must be new, got '{name}', which Python imports something else by")


def _write(name: str, folder: Path) -> None:
    """Fills the template's files into a folder, which appears whole or not at all."""
    if folder.exists():
        raise registry.UsageError(f"NAME must be of a folder that isn't there, got {folder}")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    words = _words(name)
    try:
        for target, template in _files(name):
            path = temporary / target
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(Template(template.read_text(encoding="utf-8")).substitute(words), encoding="utf-8")
        temporary.rename(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise registry.UsageError(f"the folder {folder} can't be made: {error}") from error
    print(f"written: {folder}; next:")
    for line in (f"pip install -e {folder}", f"zoo train experiment={name}_demo", f"python -m pytest {folder}"):
        print(f"  {line}")


def _words(name: str) -> dict[str, str]:
    major, minor = (int(part) for part in __version__.split(".")[:2])
    return {
        "name": name,
        "distribution": name.replace("_", "-"),
        "cls": "".join(part.capitalize() for part in name.split("_")),
        "at_least": f"{major}.{minor}",
        "below": f"{major}.{minor + 1}",
    }


def _files(name: str) -> Iterator[tuple[Path, Path]]:
    """Yields where a file of the template goes, and where it is; theirs end in .txt, so that no tool takes them."""
    for template in sorted(_TEMPLATE.rglob("*.txt")):
        target = template.relative_to(_TEMPLATE).with_suffix("")
        parts = (re.sub("|".join(_RENAMED), lambda found: _RENAMED[found[0]] or name, part) for part in target.parts)
        yield Path(*parts), template


if __name__ == "__main__":
    main()
