from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

import zoo
from zoo import config, registry

ROOT = Path(__file__).resolve().parent.parent
SEVERAL = (
    "reranker",
    "metrics",
    "callbacks",
    "logger",
    "beside",
)  # groups of which a command line may choose more than one
REGISTERED = [(kind, name) for kind in registry.KINDS for name in registry.entries(kind)]
OWN_KEYS = ("_target_", "_convert_", "kind", "name")


def options(group):
    return sorted(path.stem for path in (config.conf_dir() / group).glob("*.yaml"))


def choices(command):
    """Lists group=name for everything that a command's config may be composed of; experiments that name their own."""
    groups = [
        next(iter(entry))
        for entry in yaml.safe_load((config.conf_dir() / f"{command}.yaml").read_text())["defaults"][1:]
    ]
    also = {"zoo eval"} if command == "eval" else set()
    fitting = {name for name in options("experiment") if _commands(name) & {"zoo train", *also}}
    return [
        (command, f"{group}={name}")
        for group in groups
        for name in (sorted(fitting) if group == "experiment" else options(group))
    ]


def _commands(experiment):
    """Lists the commands in an experiment's first line; those that only evaluate may choose what training lacks."""
    lines = (config.conf_dir() / "experiment" / f"{experiment}.yaml").read_text().splitlines()
    return set(re.findall(r"zoo \w+", lines[1]))


# Where configs are found


def test_configs_of_a_checkout_stand_beside_the_package():
    assert config.conf_dir() == ROOT / "conf"


def test_configs_inside_the_package_come_first(tmp_path, monkeypatch):
    package = tmp_path / "zoo"
    monkeypatch.setattr(config, "__file__", str(package / "config.py"))
    with pytest.raises(FileNotFoundError, match=r"no train\.yaml in"):
        config.conf_dir()
    for folder in (tmp_path / "conf", package / "conf"):
        folder.mkdir(parents=True)
        (folder / "train.yaml").touch()
        assert config.conf_dir() == folder.resolve()


def test_plugin_configs_are_found_without_importing_the_plugin(plugins):
    folders = config.plugin_conf_dirs()
    assert list(folders) == ["zoo_acme", "zoo_broken"]
    assert folders["zoo_acme"] == plugins / "zoo_acme" / "conf"
    assert config.config_file("model", "acme_rank") == plugins / "zoo_acme" / "conf" / "model" / "acme_rank.yaml"
    assert config.description("model", "acme_rank").startswith("Acme: a small CNN")
    assert config.compose("train", ["experiment=acme_demo"]).model.name == "acme_rank"
    assert not {"zoo_acme", "zoo_broken"} & set(sys.modules)


def test_a_plugin_whose_package_raises_or_lacks_still_leaves_the_others_configs(distribution):
    distribution("bad-one", "1", {"bad": "bad_one.module:Bad"}, {"bad_one/__init__.py": "raise RuntimeError"})
    distribution("no-one", "1", {"none": "no_such_package.module:None"})
    distribution("flat", "1", {"flat": "flat:Flat"}, {"flat.py": ""})
    distribution(
        "fine", "1", {"fine": "fine.m:F"}, {"fine/conf/model/fine.yaml": "name: fine\n", "fine/__init__.py": ""}
    )
    assert list(config.plugin_conf_dirs()) == ["fine"]
    assert config.compose("train", ["model=fine"]).model == {"name": "fine"}
    assert config.config_file("model", "none") is None
    assert config.description("model", "none") == ""


def test_a_plugin_adds_configs_and_cannot_replace_ours(plugins):
    assert (plugins / "zoo_broken" / "conf" / "model" / "two_stage_rn.yaml").is_file()
    assert config.compose("train", []).model.name == "two_stage_rn"
    assert config.config_file("model", "two_stage_rn") == ROOT / "conf" / "model" / "two_stage_rn.yaml"
    assert "aggregation" in config.defaults("model", "two_stage_rn")


def test_composing_leaves_a_running_application_alone():
    from hydra.core.global_hydra import GlobalHydra

    before = GlobalHydra.instance().hydra
    marker = object()
    GlobalHydra.instance().hydra = marker
    try:
        config.compose("train", [])
        assert GlobalHydra.instance().hydra is marker
    finally:
        GlobalHydra.instance().hydra = before


# What the YAML files hold


@pytest.mark.parametrize(("kind", "name"), REGISTERED)
def test_the_yaml_of_a_registered_name_is_complete(kind, name):
    from zoo.testing import check_signature

    path = config.conf_dir() / kind / f"{name}.yaml"
    content = yaml.safe_load(path.read_text())
    assert {key: content.get(key) for key in OWN_KEYS} == {
        "_target_": "zoo.create",
        "_convert_": "all",
        "kind": kind,
        "name": name,
    }
    first = next(line for line in path.read_text().splitlines() if not line.startswith("# @package"))
    assert re.match(r"# \w.{10,}", first), f"{path} must begin with a one-line description"
    assert config.description(kind, name) == first[2:]
    check_signature(kind, name)


@pytest.mark.parametrize(("kind", "name"), REGISTERED)
def test_every_hyper_parameter_is_explained_and_refers_to_no_other_group(kind, name):
    lines = (config.conf_dir() / kind / f"{name}.yaml").read_text().splitlines()
    parameters = [line for line in lines if re.match(r"\w+:", line) and line.split(":")[0] not in OWN_KEYS]
    assert [line for line in parameters if not re.search(r"\s#\s\S", line)] == []
    assert [line for line in parameters if re.search(r"\$\{(?!oc\.env:)", line)] == []


def test_groups_of_which_several_may_be_chosen_carry_their_package(plugins):
    for folder in (config.conf_dir(), *config.plugin_conf_dirs().values()):
        for path in (path for group in SEVERAL for path in (folder / group).glob("*.yaml")):
            first = path.read_text().splitlines()[0]
            assert first == f"# @package {path.parent.name}.{path.stem}", path


@pytest.mark.parametrize("group", ["callbacks", "logger"])
def test_several_choices_of_a_group_keep_their_order_and_lose_none(group):
    chosen = [name for name in options(group) if name != "none"]
    for order in (chosen, chosen[::-1]):
        assert list(config.compose("train", [f"{group}=[{','.join(order)}]"])[group]) == order


@pytest.mark.parametrize(("command", "choice"), [*choices("train"), *choices("eval")])
def test_every_choice_composes(command, choice):
    from omegaconf import OmegaConf

    composed = config.compose(command, [choice])
    group, name = choice.split("=")
    if group in registry.KINDS and group not in SEVERAL:
        assert composed[group].name == registry.RENAMED.get(group, {}).get(name, name)
    assert {"seed", "run_name", "model", "trainer"} <= set(OmegaConf.to_container(composed, resolve=False))


@pytest.mark.parametrize("name", options("experiment"))
def test_an_experiment_begins_with_the_command_that_runs_it(name):
    lines = (config.conf_dir() / "experiment" / f"{name}.yaml").read_text().splitlines()
    comments = [line for line in lines if line.startswith("# ") and not line.startswith("# @package")]
    assert "# @package _global_" in lines
    assert re.match(rf"# (python tools/\S+( [^&]+)? && )?zoo (train|eval|serve) .*\bexperiment={name}\b", comments[0])
    from hydra.core.override_parser.overrides_parser import OverridesParser

    words = [word for word in shlex.split(comments[0][2:]) if "=" in word and not re.search("[…<>]", word)]
    OverridesParser.create().parse_overrides(words)  # as a shell hands them over


def test_no_class_path_of_ours_stands_in_any_config():
    for path in config.conf_dir().rglob("*.yaml"):
        targets = re.findall(r"_target_:\s*(\S+)", path.read_text())
        assert all(target == "zoo.create" or target.startswith("lightning.") for target in targets), path


# From configs to objects


def test_what_is_not_passed_comes_from_the_yaml_and_is_remembered():
    model = zoo.create_model("two_stage_rn", g=[8], h=[8], f=[8, 8], question_layer=1, aggregation="avg")
    stated = config.defaults("model", "two_stage_rn")
    parameters = model.registered["parameters"]
    assert parameters == {**stated, "g": [8], "h": [8], "f": [8, 8], "question_layer": 1, "aggregation": "avg"}
    assert type(parameters["conv"]) is list  # plain, so that a checkpoint loads with weights_only


def test_an_unknown_parameter_is_refused_with_the_nearest():
    with pytest.raises(registry.UsageError, match=r"has no parameter 'agregation'; .* Did you mean 'aggregation'\?"):
        zoo.create_model("two_stage_rn", agregation="avg")
    with pytest.raises(registry.UnknownName, match=r"Did you mean 'two_stage_rn'\?"):
        zoo.create_model("two_stage_n")


def test_a_plugin_without_a_config_is_built_from_what_is_passed(distribution):
    source = "class Flat:\n    def __init__(self, *, width):\n        self.width = width\n"
    distribution("flat", "1", {"flat": "flat:Flat"}, {"flat.py": source})
    built = zoo.create("model", "flat", width=3)
    assert built.width == 3
    assert built.registered == {"kind": "model", "name": "flat", "origin": "flat 1", "parameters": {"width": 3}}
