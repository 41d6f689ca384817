from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

VERBS = (
    "train",
    "eval",
    "embed",
    "index",
    "search",
    "serve",
    "rerank",
    "score",
    "compare",
    "report",
    "truth",
    "info",
    "copy",
    "new-plugin",
    "list",
    "completion",
)
HEAVY = ("torch", "lightning", "timm", "torchmetrics", "wandb", "numba", "zoo_acme", "zoo_broken")
LIGHT_COMMANDS = [
    "--help",
    "--version",
    "rerank --help",
    "list",
    "list model",
    "info oxford",
    "info two_stage_rn",
    "info experiment/demo",
    "list experiment",
    "copy --help",
    "new-plugin --help",
    "copy --names experiment",
    "completion bash",
    "train --help",
    "train --cfg job",
    "train -sc query=bash",
    "eval --help",
    "embed --help",
    "index --help",
    "search --help",
    "serve --help",
    "score --help",
    "compare --help",
    "report --help",
]


def test_help_shows_every_verb(command):
    shown = command("zoo", "--help").stdout
    assert shown == command("zoo").stdout
    for verb in VERBS:
        assert f"\n  {verb} " in shown


@pytest.mark.parametrize("line", LIGHT_COMMANDS)
def test_what_only_informs_loads_nothing_heavy_and_no_plugin(command, plugin_site, line):
    script = (
        "import atexit, sys\n"
        f"sys.argv = ['zoo', *{line!r}.split()]\n"
        f"atexit.register(lambda: print('LOADED', sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr))\n"
        "from zoo.commands import main\n"
        "main()\n"
    )
    done = command("python", "-c", script, PYTHONPATH=plugin_site, COMP_LINE="zoo-train model=", COMP_POINT=16)
    assert done.stderr.splitlines()[-1] == "LOADED []"
    assert done.stdout


def test_list_shows_kinds_names_origins_and_descriptions(command):
    shown = command("zoo", "list").stdout
    for kind in ("model", "data", "benchmark", "index", "reranker", "metrics"):
        assert f"\n{kind}\n" in f"\n{shown}"
    assert re.search(r"^  two_stage_rn +\[spatial-zoo 0\.", shown, re.MULTILINE)
    assert "Relation Network and two-stage Relation Network" in shown
    only = command("zoo-list", "data").stdout
    assert "sort_of_clevr" in only
    assert "two_stage_rn" not in only


def test_list_flags_plugins_that_are_broken_or_shadow_ours(command, plugin_site):
    shown = command("zoo", "list", PYTHONPATH=plugin_site).stdout
    assert "[zoo-acme 1.2.0]  Acme: a small CNN" in shown
    assert re.search(r"  two_stage_rn +\[zoo-broken 0\.0\.7\]  IGNORED: the name belongs to spatial-zoo", shown)
    assert "BROKEN: no module 'zoo_broken.absent'" in shown  # seen without running any of its code
    assert "licence server" not in shown


def test_list_check_imports_plugins_and_names_each_cause(command, plugin_site):
    shown = command("zoo", "list", "model", "--check", PYTHONPATH=plugin_site).stdout
    assert "[zoo-acme 1.2.0]  Acme: a small CNN" in shown
    for cause in (
        "raised RuntimeError: the licence server",
        "imports 'acme_solver",
        "which doesn't exist",
        "'Nameless'",
    ):
        assert cause in shown


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            "tran",
            f"verbs are {', '.join(VERBS)}. Did you mean 'train'?",
        ),
        (
            "list modle",
            "unknown kind 'modle'; kinds are model, data, benchmark, index, reranker, metrics, affinity, experiment, "
            "sweep. Did you mean 'model'?",
        ),
        (
            "train model=two_stage_rm",
            "unknown model 'two_stage_rm'; known: fcn_segment, global_descriptor, gnn_rerank, local_features, "
            "local_similarity, regional_aggregation, stored_descriptors, two_stage_rn. Did you mean 'two_stage_rn'?",
        ),
        ("eval data=sort_of_clever", "Did you mean 'sort_of_clevr'?"),
        ("train trainer=cqu", "Did you mean 'cpu'?"),
        ("train callbacks=[checkpoint,lats]", "Did you mean 'last'?"),
        ("train modle=two_stage_rn", "unknown key 'modle'. Did you mean 'model'?"),
        ("train model.agregation=max", "unknown key 'model.agregation'. Did you mean 'model.aggregation'?"),
        ("train data=clevr data.batchsize=3", "unknown key 'data.batchsize'. Did you mean 'data.batch_size'?"),
        ("train trainer.max_epoch=3", "unknown key 'trainer.max_epoch'. Did you mean 'trainer.max_epochs'?"),
        ("train sed=3", "unknown key 'sed'. Did you mean 'seed'?"),
        ("train -m model.agregation=max,avg", "unknown key 'model.agregation'. Did you mean 'model.aggregation'?"),
        ("train experiment=demmo", "unknown experiment 'demmo'"),
        ("train -m model=two_stage_rm,foo", "Did you mean 'two_stage_rn'?"),
        ("train model.g=[16", "'model.g=[16' is no valid override, which is key=value: no viable alternative"),
        ("train seed", "'seed' is no valid override, which is key=value: missing EQUAL"),
        ("train seed=0,1", "'seed=0,1' has several values: add -m to run a job for each, or write key=[…] for a list"),
        (
            "train --config-name=tran",
            "unknown config 'tran'; known: embed, eval, index, rerank, score, search, serve, train. Did you mean "
            "'train'?",
        ),
    ],
)
def test_a_slip_names_the_nearest_word_and_exits_2(command, line, says):
    done = command("zoo", *line.split(), code=2)
    assert says in done.stderr
    assert done.stderr.startswith("zoo: ")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_a_plugin_that_two_claim_or_that_ships_no_config_says_so(command, distribution, tmp_path):
    module = {"twice.py": "class Twice: ...\n"}
    distribution("twice-a", "1", {"twice": "twice:Twice", "bare": "twice:Twice"}, module)
    distribution("twice-b", "2", {"twice": "twice:Twice"})
    site = tmp_path / "site"
    done = command("zoo", "train", "model=twice", code=2, PYTHONPATH=site)
    assert done.stderr == "zoo: model 'twice': claimed by twice-a 1 and twice-b 2; uninstall one of them\n"
    done = command("zoo", "train", "model=bare", code=2, PYTHONPATH=site)
    assert done.stderr == "zoo: model 'bare' of twice-a 1 ships no config: its package lacks conf/model/bare.yaml\n"


def test_configs_are_found_from_any_folder_by_every_form_of_the_command(command, plugin_site):
    forms = (("zoo", "train"), ("zoo-train",), ("python", "-m", "zoo.commands.train"))
    line = ("model=acme_rank", "--cfg", "job")
    shown = {command(*form, *line, PYTHONPATH=plugin_site, cwd="/").stdout for form in forms}
    assert len(shown) == 1
    assert "name: acme_rank" in shown.pop()
    found = command("zoo", "train", "--info", "searchpath", PYTHONPATH=plugin_site, cwd="/").stdout
    ours, acme, broken = (found.index(part) for part in ("/conf", "zoo_acme/conf", "zoo_broken/conf"))
    assert ours < acme < broken


@pytest.mark.parametrize("line", ["--help", "list", "completion bash", "train --help", "train --cfg job"])
def test_a_reader_that_leaves_early_is_no_error(line):
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-c", "from zoo.commands import main; main()", *line.split()]
    done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_info_shows_every_key_with_default_and_meaning(command):
    shown = command("zoo", "info", "oxford").stdout
    assert shown.startswith("data oxford  [spatial-zoo ")
    assert "\nbenchmark oxford  [spatial-zoo " in shown
    assert "  benchmark.incomplete: refuse  # listed images that the gallery lacks: refuse | restrict" in shown
    assert "  metrics.ndcg.k: " in command("zoo-info", "metrics", "ndcg").stdout
    for words, message in (
        (["oxfrod"], "nothing is called 'oxfrod'. Did you mean 'oxford'?"),
        (["benchmark", "list"], "unknown benchmark 'list'"),
        (["bench", "lists"], "unknown kind 'bench'"),
        (["a", "b", "c"], "name one thing"),
    ):
        assert message in command("zoo", "info", *words, code=2).stderr


def test_a_value_that_needs_quotes_is_shown_with_them(command):
    done = command("zoo", "score", "predictions=a b, c=d.npz", code=2)
    assert """quoted twice: 'predictions="a b, c=d.npz"'""" in done.stderr


def test_a_refused_run_leaves_no_folder(command, tmp_path):
    command("zoo", "score", "predictions=x.npz", "benchmark=lists", code=2)
    command("zoo", "eval", "benchmark=instances", "data=folder", "data.root=nowhere", code=2)
    assert not list(tmp_path.rglob(".hydra"))
    (tmp_path / "kept" / ".hydra").mkdir(parents=True)
    (tmp_path / "kept" / ".hydra" / "mine.txt").touch()
    command("zoo", "score", "predictions=x.npz", "benchmark=revisited", "hydra.run.dir=kept", code=2)
    assert (tmp_path / "kept" / ".hydra" / "mine.txt").is_file()


def test_a_folder_that_can_not_be_made_ends_in_one_line(command, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "truth.json").write_text('{"a": ["b"]}')
    (tmp_path / "names.txt").write_text("b")
    (tmp_path / "ranks.txt").write_text("a b")
    words = ["predictions=ranks.txt", "benchmark.ground_truth=truth.json", "benchmark.gallery=names.txt"]
    for folder in ("hydra.run.dir=file/run", "paths.run_dir=file/run"):
        done = command("zoo", "score", *words, folder, code=2)
        assert "the run's folder can't be made" in done.stderr
        assert "Traceback" not in done.stderr
