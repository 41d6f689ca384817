from __future__ import annotations

import re
import sys

import pytest

import zoo
from zoo import registry


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Replaces the zoo's own package folder by an empty one, to be filled with built-ins."""
    monkeypatch.setattr(registry, "PACKAGE", tmp_path)
    registry._builtin_entries.cache_clear()
    yield tmp_path
    registry._builtin_entries.cache_clear()


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_builtins_are_found_by_folder_and_module_name():
    assert {"two_stage_rn"} <= set(registry.entries("model"))
    assert {"sort_of_clevr", "clevr"} <= set(registry.entries("data"))
    entry = registry.lookup("model", "two_stage_rn")
    assert entry.reference == "zoo.models.two_stage_rn.module:TwoStageRN"
    assert entry.origin.startswith("spatial-zoo ")
    assert registry.load("model", "two_stage_rn").__name__ == "TwoStageRN"


def test_a_builtin_is_a_module_that_exports_and_is_not_private(package):
    put(package / "data" / "stars.py", "class Stars: ...\nexport = Stars\n")
    put(package / "data" / "_shared.py", "class Shared: ...\nexport = Shared\n")
    put(package / "data" / "helpers.py", "class Helper: ...\n")
    put(package / "models" / "rank" / "module.py", "export = Rank\n")
    put(package / "models" / "rank" / "net.py", "export = Net\n")
    assert {name: e.reference for name, e in registry.entries("data").items()} == {"stars": "zoo.data.stars:Stars"}
    assert {name: e.reference for name, e in registry.entries("model").items()} == {
        "rank": "zoo.models.rank.module:Rank"
    }


def test_an_error_inside_the_zoo_passes_through_unchanged(package):
    put(package / "data" / "ghost.py", "export = Ghost\n")
    with pytest.raises(ModuleNotFoundError, match=r"zoo\.data\.ghost"):
        registry.load("data", "ghost")


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_one_letter_slip_is_corrected(kind):
    names = list(registry.entries(kind))
    for name in names:
        for position in range(len(name)):
            slip = name[:position] + name[position + 1 :]
            assert registry.suggest(slip, names) == f" Did you mean '{name}'?"


def test_nothing_is_suggested_for_a_far_word():
    assert registry.suggest("zzzzzzzz", ["two_stage_rn"]) == ""


def test_unknown_names_and_kinds_name_the_nearest():
    with pytest.raises(
        registry.UnknownName, match=r"unknown model 'two_stage_rm'; known: .*Did you mean 'two_stage_rn'\?"
    ):
        registry.lookup("model", "two_stage_rm")
    with pytest.raises(registry.UnknownName, match=r"unknown kind 'modle'; kinds are .*Did you mean 'model'\?"):
        registry.entries("modle")


def test_plugins_are_listed_beside_builtins_without_being_imported(plugins):
    found = registry.entries("model")
    assert list(found) == sorted(found)
    assert found["acme_rank"] == registry.Entry("model", "acme_rank", "zoo_acme.module:AcmeRank", "zoo-acme 1.2.0")
    assert found["acme_broken"].origin == "zoo-broken 0.0.7"
    assert not {"zoo_acme", "zoo_broken"} & set(sys.modules)


def test_a_plugin_is_imported_when_it_is_asked_for_and_alone(plugins):
    assert registry.load("model", "acme_rank").__module__ == "zoo_acme.module"
    assert "zoo_broken" not in sys.modules


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        (
            "acme_broken",
            "importing 'zoo_broken.raises' raised RuntimeError: the licence server of Acme does not answer",
        ),
        ("acme_unmet", "'zoo_broken.unmet' imports 'acme_solver_that_nobody_installed', which is not installed"),
        ("acme_absent", "it names the module 'zoo_broken.absent', which doesn't exist"),
        ("acme_nameless", "'zoo_broken.empty' has no 'Nameless'"),
    ],
)
def test_a_broken_plugin_tells_distribution_version_and_cause(plugins, name, cause):
    with pytest.raises(registry.BrokenPlugin) as caught:
        registry.load("model", name)
    assert str(caught.value) == f"model '{name}' of zoo-broken 0.0.7 can't be loaded: {cause}"
    assert caught.value.__cause__ is not None


def test_a_plugin_can_neither_shadow_a_builtin_nor_break_it(plugins):
    assert [(e.name, e.origin) for e in registry.shadowed("model")] == [("two_stage_rn", "zoo-broken 0.0.7")]
    assert registry.lookup("model", "two_stage_rn").origin.startswith("spatial-zoo ")
    assert registry.load("model", "two_stage_rn").__module__ == "zoo.models.two_stage_rn.module"


def test_two_plugins_that_claim_a_name_hurt_only_that_name(distribution):
    module = "class Rank: ...\n"
    distribution("one-rank", "1.0", {"rank": "one_rank:Rank", "first": "one_rank:Rank"}, {"one_rank.py": module})
    distribution("two-rank", "2.0", {"rank": "two_rank:Rank", "second": "two_rank:Rank"}, {"two_rank.py": module})
    with pytest.raises(registry.BrokenPlugin, match=r"model 'rank': claimed by one-rank 1\.0 and two-rank 2\.0"):
        registry.load("model", "rank")
    assert not {"one_rank", "two_rank"} & set(sys.modules)
    assert registry.load("model", "first").__module__ == "one_rank"
    assert registry.load("model", "second").__module__ == "two_rank"


def test_a_name_may_be_taken_in_two_kinds(distribution):
    files = {"both.py": "class Model: ...\nclass Reranker: ...\n"}
    distribution("both-one", "1", {"both": "both:Model"}, files)
    distribution("both-two", "1", {"both": "both:Reranker"}, kind="zoo.rerankers")
    assert registry.load("model", "both").__name__ == "Model"
    assert registry.load("reranker", "both").__name__ == "Reranker"


@pytest.mark.parametrize(
    ("reference", "source", "cause"),
    [
        ("quits:Rank", "raise SystemExit(0)", "importing 'quits' raised SystemExit: 0"),
        ("old:Rank", "import sys\nsys.no_such_thing", "importing 'old' raised AttributeError: "),
        ("typo:Rank", "class Rank(:", "importing 'typo' raised SyntaxError: "),
        ("deep.down:Rank", None, "it names the module 'deep.down', which doesn't exist"),
        ("bare", "class Rank: ...", "its entry point 'bare' names no class; write it as module:Class"),
    ],
)
def test_every_other_way_to_fail_is_the_plugins_own(distribution, reference, source, cause):
    module = reference.split(":")[0]
    distribution("bad-luck", "3.1", {"rank": reference}, {f"{module}.py": source} if source else {})
    with pytest.raises(registry.BrokenPlugin) as caught:
        registry.load("model", "rank")
    assert str(caught.value).startswith(f"model 'rank' of bad-luck 3.1 can't be loaded: {cause}")


def require(tmp_path, distribution, version):
    """Lets a made-up distribution declare which versions of the zoo it is made for."""
    file = next((tmp_path / "site").glob(f"{distribution}-*.dist-info")) / "METADATA"
    file.write_text(file.read_text() + f"Requires-Dist: spatial-zoo{version}\nRequires-Dist: spatial-zoo-extra<0.0.1\n")


@pytest.mark.parametrize(("version", "fits"), [("<0.0.5", False), (">=99", False), (">=0.0.1", True), ("", True)])
def test_a_plugin_made_for_another_version_of_the_zoo_says_so_before_its_code_runs(
    distribution, tmp_path, version, fits
):
    distribution("old_rank", "2.0", {"rank": "old_rank:Rank"}, {"old_rank.py": "class Rank: ...\nimport sys\n"})
    require(tmp_path, "old_rank", version)
    if fits:
        assert registry.load("model", "rank").__name__ == "Rank"
        return
    ours = registry.origin_of_builtins().split()[1]
    says = f"model 'rank': old_rank 2.0 is made for spatial-zoo {version}, this is {ours}: install another version"
    with pytest.raises(registry.BrokenPlugin, match=re.escape(says)):
        registry.load("model", "rank")
    assert registry.entries("model")["rank"].problem is not None
    assert "old_rank" not in sys.modules


def test_a_former_name_is_taken_with_a_warning(monkeypatch):
    monkeypatch.setitem(registry.RENAMED, "model", {"relation_net": "two_stage_rn"})
    with pytest.warns(FutureWarning, match="model 'relation_net' is called 'two_stage_rn' now"):
        assert registry.lookup("model", "relation_net").name == "two_stage_rn"
    with pytest.warns(FutureWarning, match="'relation_net'"):
        model = zoo.create_model("relation_net", g=[8, 8], h=[8], f=[8, 8], question_layer=2)
    assert model.registered["name"] == "two_stage_rn"


def test_a_plugin_may_take_a_name_that_was_ours_once(monkeypatch, distribution):
    monkeypatch.setitem(registry.RENAMED, "model", {"relation_net": "two_stage_rn"})
    distribution("net", "1", {"relation_net": "net:Net"}, {"net.py": "class Net: ...\n"})
    assert registry.lookup("model", "relation_net").origin == "net 1"


@pytest.mark.parametrize(
    ("kind", "old", "new"), [(k, *pair) for k, names in registry.RENAMED.items() for pair in names.items()]
)
def test_every_former_name_composes_to_the_present_one(command, kind, old, new):
    assert new in registry.entries(kind)
    assert old not in registry.entries(kind)
    verb = {"data": "embed"}.get(kind, "eval")
    shown = {command("zoo", verb, f"{kind}={name}", "--cfg", "job").stdout for name in (old, new)}
    assert len(shown) == 1


def test_a_former_name_on_the_command_line_is_told(command):
    done = command(
        "zoo", "eval", "data=images", "data.root=nowhere", "model=global_descriptor", "benchmark=instances", code=2
    )
    assert "data=images is called data=folder now; the old name will go" in done.stdout
