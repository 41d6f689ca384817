"""Writes docs/models/NAME.md, a page for every model of the zoo: what `zoo info` says of it, what can read what it
fills, the experiments that use it, and its card. With --check nothing is written: pages that are out of date are named
and the exit code is 1.

    python tools/model_pages.py
    python tools/model_pages.py --check
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo import config, registry
from zoo.commands import info
from zoo.files import replacing
from zoo.module import Embedder

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "models"
# Re-rankers whose needs depend on a parameter: the values, and what each needs.
WAYS = {"r_match": {f"reranker.r_match.field={field}": (field,) for field in ("local_map", "regions")}}
LINK = re.compile(r"(\]\()([^)\s]+)(\))")


@dataclass(frozen=True)
class Said:
    """What `zoo info` says of a model; `keys` holds (name, default, meaning) of each hyper-parameter."""

    description: str
    weights: list[str]
    keys: list[tuple[str, str, str]]
    card: str


def main() -> None:
    """Writes the pages, or checks them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, fail where a page is out of date")
    if parser.parse_args().check:
        stale = out_of_date(pages())
        for path in stale:
            print(f"out of date: {path.relative_to(ROOT)}; python tools/model_pages.py makes it anew", file=sys.stderr)
        sys.exit(bool(stale))
    wanted = pages()
    for path in out_of_date(wanted):
        if path not in wanted:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(wanted[path].encode())
        print(f"written: {path.relative_to(ROOT)}")


def out_of_date(wanted: dict[Path, str]) -> list[Path]:
    """Returns the pages that are missing, differ, or are of a model that is gone."""
    there = {path: path.read_text(encoding="utf-8") for path in sorted(PAGES.glob("*.md"))}
    return [path for path in sorted({*wanted, *there}) if wanted.get(path) != there.get(path)]


def pages() -> dict[Path, str]:
    """Returns the text of every page."""
    names = [entry.name for entry in registry.entries("model").values() if _ours("model", entry.name)]
    used = experiments()
    return {PAGES / f"{name}.md": page(name, used) for name in names}


def page(name: str, used: dict[str, tuple[Any, list[str]]]) -> str:
    """Returns the page of a model."""
    said = what_info_says(name)
    parts = [
        f"<!-- python tools/model_pages.py makes this of conf/model/{name}.yaml and zoo/models/{name}/README.md -->",
        f"# {name}",
        f"{said.description}.",
        *_reading(name),
        "## What can be set",
        f"The keys of [conf/model/{name}.yaml](../../conf/model/{name}.yaml): `model.KEY=VALUE` on the command line, "
        f'`zoo.create_model("{name}", KEY=VALUE)` in Python.'
        if said.keys
        else "Nothing.",
        *_table(said.keys),
        "## Weights that come along",
        *_weights(name, said.weights),
        "## Experiments with it",
        *_experiments(name, used),
        "## Its card",
        card(said.card, name),
    ]
    return "\n\n".join(parts) + "\n"


def what_info_says(name: str) -> Said:
    """Returns what `zoo info model NAME` prints, taken apart."""
    shown, arguments = io.StringIO(), sys.argv
    sys.argv = ["zoo info", "model", name]
    try:
        with redirect_stdout(shown):
            info.main()
    finally:
        sys.argv = arguments
    facts, _, text = shown.getvalue().partition("\n\n")
    _, description, *lines = facts.splitlines()
    begin = "weights that come along: "
    keys = [line.removeprefix("  model.") for line in lines if not line.startswith(begin)]
    split = [re.fullmatch(r"(\w+): *(.*?)(?: +# (.*))?", line).groups("") for line in keys]
    return Said(description, [line.removeprefix(begin) for line in lines if line.startswith(begin)], split, text)


def _table(keys: list[tuple[str, str, str]]) -> list[str]:
    if not keys:
        return []
    rows = [
        f"| `{key}` | {f'`{default}`' if default else ''} | {meaning} |" for key, default, meaning in _escaped(keys)
    ]
    return ["\n".join(["| key | default | meaning |", "|---|---|---|", *rows])]


def _escaped(keys: list[tuple[str, str, str]]) -> list[list[str]]:
    return [[text.replace("|", "\\|").replace("<", "&lt;") for text in key] for key in keys]


def _weights(name: str, lines: list[str]) -> list[str]:
    if not lines:
        return ["None."]
    rows = [line.split("  ", 1) for line in lines]
    first = rows[0][0]
    both = name in registry.entries("reranker")
    as_model = issubclass(registry.load("model", name), Embedder) or not both
    words = [f"`weights={first}` with `model={name}`"] * as_model + [f"`reranker.{name}.weights={first}`"] * both
    return [
        "\n".join(f"- `{file}`: {size}" for file, size in rows),
        f'{" or ".join(words)} on the command line, `zoo.load_model("{name}", weights="{first}")` in Python.',
    ]


def _reading(name: str) -> list[str]:
    """Returns what a model fills and what can read it, or of a re-ranker what it reads."""
    cls = registry.load("model", name)
    if not issubclass(cls, Embedder):
        needs = registry.load("reranker", name).needs
        filling = [
            f"[{each}]({each}.md)" for each in _models() if set(needs) <= set(registry.load("model", each).kinds)
        ]
        return [
            f"It re-orders hits (`reranker={name}`) by {_listed(needs)}, of any origin. "
            f"Models that fill it: {', '.join(filling)}."
        ]
    fields = "fields" if len(cls.kinds) > 1 else "a field"
    lines = [f"- **fills** {_listed(cls.kinds)}, {fields} of `zoo.types.Representation`"]
    lines += [f"- **indexes** that hold it: {_readers('index', cls.kinds)}"]
    lines += [f"- **re-rankers** that can read it: {_readers('reranker', cls.kinds)}"]
    lines += [f"- **learns**: {_learning(cls)}"]
    if name in registry.entries("reranker"):
        lines += [f"- is a **re-ranker** too: `reranker={name}`, which needs {_listed(_ways('reranker', name)[name])}"]
    return ["\n".join(lines)]


def _learning(cls: type[Embedder]) -> str:
    if cls.trained:
        return "by gradient, with `zoo train`"
    if cls.fitted_with:
        options = cls.fitted_with.replace(" | ", ", ")
        return f"nothing by gradient; `zoo train` fits statistics with {options}"
    fits = "fit_statistics" in vars(cls)
    return "nothing by gradient; `zoo train` fits its statistics" if fits else "nothing"


def _readers(kind: str, kinds: tuple[str, ...]) -> str:
    """Returns the names of a kind that need no more than a model fills."""
    found = [
        f"`{way}`" if needs else f"`{way}` (ranks alone)"
        for name in registry.entries(kind)
        if _ours(kind, name)
        for way, needs in _ways(kind, name).items()
        if set(needs) <= set(kinds)
    ]
    return ", ".join(found) or "none"


def _ways(kind: str, name: str) -> dict[str, tuple[str, ...]]:
    return WAYS[name] if name in WAYS else {name: registry.load(kind, name).needs}


def _models() -> list[str]:
    names = [name for name in registry.entries("model") if _ours("model", name)]
    return [name for name in names if issubclass(registry.load("model", name), Embedder)]


def _ours(kind: str, name: str) -> bool:
    return registry.entries(kind)[name].origin == registry.origin_of_builtins()


def _listed(fields: tuple[str, ...]) -> str:
    return ", ".join(f"`{field}`" for field in fields)


def experiments() -> dict[str, tuple[Any, list[str]]]:
    """Returns for every experiment of the zoo what it composes to, and the comments at its beginning."""
    found = {}
    for name in config.options("experiment"):
        if config.provider("experiment", name) != registry.origin_of_builtins():
            continue
        comments = []
        for line in config.config_file("experiment", name).read_text(encoding="utf-8").splitlines()[1:]:
            if not line.startswith("# "):
                break
            comments.append(line.removeprefix("# "))
        verb = re.search(rf"zoo (\w+) (?:-m )?experiment={name}\b", comments[0])[1]
        found[name] = config.compose(verb, [f"experiment={name}"]), comments
    return found


def _experiments(name: str, used: dict[str, tuple[Any, list[str]]]) -> list[str]:
    lines = []
    for experiment, (composed, (command, *others)) in used.items():
        beside = [each.name for each in (composed.get("beside") or {}).values() if each]
        as_reranker = re.search(rf"\breranker={name}\b", command) or name in (composed.get("reranker") or {})
        if composed.model.name != name and name not in beside and not as_reranker:
            continue
        role = "" if composed.model.name == name else " (as a re-ranker)" if as_reranker else " (a row beside it)"
        lines.append(f"- **{experiment}**{role}: `{command}`")
        for other in others:
            label, _, rest = other.partition("expected: ")
            text = other if label else f"*expected:* {rest}"
            lines[-1] += "<br>\n  " + text.replace("<", "&lt;")
    return ["\n".join(lines) or "None."]


def card(text: str, name: str) -> str:
    """Returns a card without its title, its links being those of a page."""
    lines, fenced = [], False
    for line in text.rstrip().splitlines()[1:]:
        fenced ^= line.startswith("```")
        lines.append(line if fenced else LINK.sub(lambda link: link[1] + _moved(link[2], name) + link[3], line))
    return "\n".join(lines).strip()


def _moved(target: str, name: str) -> str:
    """Returns a link of a card as a page has to write it; to another card, the link to its page."""
    path, mark, anchor = target.partition("#")
    if not path or re.match(r"[a-z]+:", path):
        return target
    file = (ROOT / "zoo" / "models" / name / path).resolve()
    if file.name == "README.md" and file.parent.parent == ROOT / "zoo" / "models":
        return f"{file.parent.name}.md{mark}{anchor}"
    return Path(os.path.relpath(file, PAGES)).as_posix() + mark + anchor


if __name__ == "__main__":
    main()
