"""Keeps the import arrows of DESIGN.md, the work that may not happen at import time, and the sizes."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "zoo").rglob("*.py"))
SOURCES = sorted(path for folder in ("zoo", "tests", "tools") for path in (ROOT / folder).rglob("*.py"))

# A layer may import those it names, and whatever they may import.
ARROWS = {
    "registry": (),
    "types": (),
    "files": (),
    "progress": (),
    "vocabulary": (),
    "classes": ("files",),
    "checks": (),
    "ops": ("checks",),
    "config": ("registry",),
    "truth": ("ops", "types", "files", "progress"),
    "metrics": ("ops", "types"),
    "search": ("ops", "types", "files", "progress", "registry"),
    "affinities": ("config", "ops", "types"),
    "data": ("truth", "checks", "ops", "types", "vocabulary", "classes", "search", "progress"),
    "pretrained": (),
    "backbones": ("types", "pretrained"),
    "module": ("types", "metrics", "search"),
    "models/net": ("ops", "backbones", "types"),
    "models/module": ("module", "metrics", "search", "vocabulary", "classes", "affinities", "models/net"),
    "models/reranker": ("checkpoints", "models/module"),
    "evaluation": ("metrics", "truth", "search", "types"),
    "checkpoints": ("registry", "config", "module", "types", "files"),
    "training": ("registry", "progress"),
    "serve": ("search", "config", "registry", "checkpoints", "classes", "data", "files", "ops", "types"),
    "commands": ("config", "registry", "evaluation", "truth", "search", "serve", "checkpoints", "training"),
    "testing": ("affinities", "checkpoints", "config", "evaluation", "registry", "module", "search", "types"),
    "__init__": ("registry", "config", "checkpoints"),
}
AT_IMPORT = {
    "open",
    "read_text",
    "read_bytes",
    "load",
    "loads",
    "import_module",
    "getenv",
    "register",
    "set_num_threads",
}


@cache
def allowed(layer):
    below = {layer}
    for arrow in ARROWS[layer]:
        below |= allowed(arrow)
    return frozenset(below)


def layer(module):
    """Returns the layer of a dotted module name, and the model that it belongs to, if any."""
    parts = module.split(".")[1:] or ["__init__"]
    if parts[0] != "models":
        return parts[0], None
    name = parts[1] if len(parts) > 1 else None
    return (f"models/{parts[-1]}" if parts[-1] in ("module", "reranker") else "models/net"), name


def dotted(path):
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path):
    """Lists every module that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            members = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from members if node.module == "zoo" or node.module.startswith("zoo.") else [node.module]


def ours(path):
    """Lists the imported modules of the zoo; a member of a module counts as that module."""
    for name in imports(path):
        if name.split(".")[0] != "zoo":
            continue
        parts = name.split(".")
        while len(parts) > 1 and not (
            (ROOT.joinpath(*parts)).is_dir() or ROOT.joinpath(*parts).with_suffix(".py").is_file()
        ):
            parts.pop()
        yield ".".join(parts)


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_follow_the_arrows(path):
    own, own_model = layer(dotted(path))
    for name in ours(path):
        other, model = layer(name)
        # The version, and `zoo.create` as a config's target, are all that the package itself offers.
        assert other in allowed(own) or (own == "commands" and other == "__init__"), f"{dotted(path)} imports {name}"
        assert model in (None, own_model), f"{dotted(path)} imports another model, {name}"


def test_the_arrows_go_one_way():
    for name in ARROWS:
        assert all(name not in allowed(arrow) for arrow in ARROWS[name])


def test_a_forbidden_import_is_seen():
    assert "models/module" not in allowed("evaluation")
    assert "config" not in allowed("data")
    assert layer("zoo.models.a.net") == ("models/net", "a")


@pytest.mark.parametrize(
    ("library", "homes"),
    [("hydra", ("config", "commands")), ("omegaconf", ("config", "commands")), ("wandb", ())],
)
def test_libraries_stay_in_their_place(library, homes):
    users = {layer(dotted(path))[0] for path in MODULES if library in {name.split(".")[0] for name in imports(path)}}
    assert users <= set(homes)


def module_level(tree):
    """Lists the statements that run when a module is imported, leaving out script guards and type checking."""
    pending = list(tree.body)
    while pending:
        node = pending.pop()
        guard = ast.unparse(node.test) if isinstance(node, ast.If) else ""
        if guard in ("__name__ == '__main__'", "TYPE_CHECKING"):
            continue
        yield node
        if isinstance(node, ast.ClassDef | ast.If | ast.With | ast.Try | ast.For):
            pending += node.body


def calls(node):
    """Lists the names of the functions that a statement calls, not looking into functions it only defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom):
        return []
    called = (inner.func for inner in ast.walk(node) if isinstance(inner, ast.Call))
    return [func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "") for func in called]


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_nothing_happens_at_import_time(path):
    for node in module_level(ast.parse(path.read_text(encoding="utf-8"))):
        bare = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        assert not bare, f"{path}:{node.lineno} calls {ast.unparse(node)}"
        assert not AT_IMPORT & set(calls(node)), f"{path}:{node.lineno} reads or registers: {ast.unparse(node)}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_and_files_stay_small(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{path.name}: {node.name} has more than 60 lines"
