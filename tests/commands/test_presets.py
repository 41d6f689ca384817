"""`zoo copy` and what becomes of a copy; `zoo info` and `zoo list` on what isn't registered by name."""

from __future__ import annotations

import re

import pytest
import yaml

from zoo import config


def test_a_copied_experiment_is_chosen_like_a_packaged_one(command, tmp_path):
    said = command("zoo", "copy", "experiment/demo").stdout
    assert said.startswith("written: zoo_conf/experiment/my_demo.yaml; chosen as experiment=my_demo; ")
    path = tmp_path / "zoo_conf/experiment/my_demo.yaml"
    assert "# zoo train experiment=my_demo && zoo eval experiment=my_demo " in path.read_text(encoding="utf-8")
    packaged, copied = (
        command("zoo", "train", f"experiment={name}", "--cfg", "job").stdout for name in ("demo", "my_demo")
    )
    assert packaged.replace("run_name: demo", "run_name: my_demo") == copied
    path.write_text(path.read_text(encoding="utf-8").replace("max_epochs: 18", "max_epochs: 3"), encoding="utf-8")
    shown = yaml.safe_load(command("zoo", "train", "experiment=my_demo", "--cfg", "job").stdout)
    assert (shown["trainer"]["max_epochs"], shown["run_name"]) == (3, "my_demo")
    listed = command("zoo", "list", "experiment").stdout
    assert re.search(r"^  my_demo +\[zoo_conf\]  zoo train experiment=my_demo", listed, re.MULTILINE)
    assert re.search(r"^  demo +\[spatial-zoo 0\.", listed, re.MULTILINE)
    told = command("zoo", "info", "my_demo").stdout
    assert told.startswith("experiment my_demo  [zoo_conf]  chosen as experiment=my_demo\n")
    assert told.endswith(path.read_text(encoding="utf-8"))
    assert "Did you mean 'my_demo'?" in command("zoo", "train", "experiment=my_dem", code=2).stderr


def test_copies_of_what_several_may_be_chosen_stand_side_by_side(command):
    command("zoo", "copy", "reranker", "superglobal", "second")
    words = ["reranker=[superglobal,second]", "reranker.second.beta=0.5", "--cfg", "job"]
    chosen = yaml.safe_load(command("zoo", "search", *words).stdout)["reranker"]
    assert list(chosen) == ["superglobal", "second"]
    assert chosen["second"] == {**chosen["superglobal"], "beta": 0.5}


def test_a_copied_model_is_built_from_its_own_numbers(command, tmp_path):
    command("zoo", "copy", "model=two_stage_rn", "small_rn")
    path = tmp_path / "zoo_conf/model/small_rn.yaml"
    path.write_text(re.sub(r"^dropout: \S+", "dropout: 0.25", path.read_text(encoding="utf-8"), flags=re.MULTILINE))
    shown = yaml.safe_load(command("zoo", "train", "model=small_rn", "--cfg", "job").stdout)["model"]
    assert (shown["name"], shown["dropout"]) == ("two_stage_rn", 0.25)


def test_figures_of_a_copy_are_said_to_be_of_the_original(command, tmp_path):
    command("zoo", "copy", "experiment/two_stage_rn_table1")
    text = (tmp_path / "zoo_conf/experiment/my_two_stage_rn_table1.yaml").read_text(encoding="utf-8")
    assert "# expected of two_stage_rn_table1, from which this was copied:" in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["experiment/demmo"], "unknown experiment 'demmo'; known: "),
        (["experimnt/demo"], "Did you mean 'experiment'?"),
        (["demo"], "copy: name one config, as GROUP/NAME or GROUP/NAME NEW, got demo"),
        (["experiment/demo", "search_oxford"], "the copy's name must be new, got 'search_oxford', which is "),
        (["experiment/demo", "my-demo"], "must be of letters, digits and underscores, got 'my-demo'"),
    ],
)
def test_what_cant_be_copied_is_told(command, tmp_path, words, says):
    assert says in command("zoo", "copy", *words, code=2).stderr
    assert not (tmp_path / "zoo_conf").exists()


def test_a_second_copy_does_not_undo_what_was_edited(command, tmp_path):
    command("zoo", "copy", "experiment/demo")
    path = tmp_path / "zoo_conf/experiment/my_demo.yaml"
    path.write_text("run_name: edited\n", encoding="utf-8")
    assert "must be new, got 'my_demo'" in command("zoo", "copy", "experiment/demo", code=2).stderr
    assert path.read_text(encoding="utf-8") == "run_name: edited\n"


def test_ones_own_config_cannot_change_what_a_packaged_name_means(command, tmp_path):
    folder = tmp_path / "zoo_conf/experiment"
    folder.mkdir(parents=True)
    (folder / "demo.yaml").write_text("# @package _global_\nrun_name: other\n", encoding="utf-8")
    assert yaml.safe_load(command("zoo", "train", "experiment=demo", "--cfg", "job").stdout)["run_name"] == "demo"


def test_info_tells_sizes_and_shows_the_card(command):
    shown = command("zoo", "info", "model", "two_stage_rn").stdout
    assert re.search(r"weights that come along: sort_of_clevr  \d+\.\d MB, \d+\.\d\d million numbers", shown)
    assert "\n# two_stage_rn\n" in shown


def test_every_experiment_is_listed_and_shown(command):
    listed = command("zoo", "list", "experiment").stdout.splitlines()
    assert [line.split()[0] for line in listed[1:]] == config.options("experiment")
    assert "override /model: two_stage_rn" in command("zoo", "info", "experiment/demo").stdout
