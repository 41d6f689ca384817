"""`zoo new-plugin`: what it writes installs, is found, trains, is evaluated and passes its own test."""

from __future__ import annotations

import json
import re
import zipfile

import pytest
from places import build_wheel

TINY = (
    "data.train_size=64", "data.val_size=16", "data.test_size=8", "data.gallery_size=40", "benchmark.queries=10",
    "trainer.enable_progress_bar=false",
)  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory, command_in):
    """Returns the folder of a new plugin, and one for sys.path into which its wheel is installed."""
    folder = tmp_path_factory.mktemp("new")
    said = command_in(folder, "zoo", "new-plugin", "rename_rank").stdout
    assert said.splitlines()[0] == "written: rename_rank; next:"
    build_wheel(folder / "rename_rank", folder / "dist")
    for wheel in (folder / "dist").glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "rename_rank", folder / "site"


def test_every_word_is_filled_in_and_the_code_is_clean(written, command):
    project, _ = written
    files = [path for path in project.rglob("*") if path.is_file()]
    assert sorted(str(path.relative_to(project)) for path in files) == [
        "README.md",
        "pyproject.toml",
        "rename_rank/__init__.py",
        "rename_rank/conf/experiment/rename_rank_demo.yaml",
        "rename_rank/conf/model/rename_rank.yaml",
        "rename_rank/module.py",
        "tests/test_rename_rank.py",
    ]
    assert not [path for path in files if "$" in path.read_text(encoding="utf-8")]
    assert "class RenameRank(Embedder):" in (project / "rename_rank/module.py").read_text(encoding="utf-8")
    rules = ("--isolated", "--line-length", "120")
    command(
        "ruff", "check", *rules, "--select", "E,F,I,B,UP,SIM,RUF,D1,C4", "--ignore", "RUF001,D107,D100,D103", project
    )
    command("ruff", "format", "--check", *rules, project)


def test_it_is_listed_trains_and_is_evaluated(written, command, tmp_path):
    _, site = written
    listed = command("zoo", "list", "model", PYTHONPATH=site).stdout
    assert re.search(r"^  rename_rank +\[rename-rank 0\.1\.0\]  A small CNN", listed, re.MULTILINE)
    words = ("experiment=rename_rank_demo", *TINY)
    command("zoo", "train", *words, "trainer.max_epochs=1", "hydra.run.dir=run", PYTHONPATH=site)
    best = tmp_path / "run/checkpoints/best.ckpt"
    command("zoo", "eval", *words, f"ckpt_path={best}", "hydra.run.dir=judged", PYTHONPATH=site)
    results = json.loads((tmp_path / "judged/results.json").read_text(encoding="utf-8"))
    assert results["model"]["name"] == "rename_rank"
    assert results["plugins"]["rename-rank"] == "0.1.0"


def test_its_own_test_passes(written, command):
    project, site = written
    words = ("python", "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", project, project / "tests")
    assert "2 passed" in command(*words, PYTHONPATH=site).stdout


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("two_stage_rn", "NAME must be new, got 'two_stage_rn', a model of spatial-zoo"),
        ("json", "NAME must be new, got 'json', which Python imports something else by"),
        (
            "Acme-Rank",
            "NAME must be of small letters, digits and underscores, a letter first, like acme_rank, got 'Acme",
        ),
        ("class", "NAME must be of small letters"),
        ("1bad", "a letter first, like acme_rank, got '1bad'"),
        ("there", "NAME must be of a folder that isn't there, got there"),
    ],
)
def test_names_that_cant_be_are_refused(command, tmp_path, name, says):
    (tmp_path / "there").mkdir()
    assert says in command("zoo", "new-plugin", name, code=2).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
