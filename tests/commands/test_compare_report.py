"""`zoo compare` and `zoo report` as a user calls them."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from run_files import ranked, write_run

A = {"map": [0.5, 0.25, 0.75, 1.0], "mp@5": [0.2, 0.4, 0.6, 0.8]}
B = {"map": [0.75, 0.5, 1.0, 1.0], "mp@5": [0.4, 0.4, 0.6, 0.8]}
HEAVY = ("torch", "lightning", "hydra", "omegaconf", "wandb", "numba", "jinja2", "scipy")


@pytest.fixture
def zoo(command):
    def run(verb, *words, **more):
        return command("python", "-m", f"zoo.commands.{verb}", *words, **more)

    return run


@pytest.fixture
def runs(tmp_path):
    return write_run(tmp_path / "a", A, run_name="first"), write_run(tmp_path / "b", B, run_name="second")


def test_a_table_is_printed(zoo, runs):
    shown = zoo("compare", *runs).stdout
    assert re.search(r"│ first +│ 0\.625 ± 0\.\d{3} +│ +– │", shown)
    assert re.search(r"│ second +│ 0\.812 ± 0\.\d{3} +│ 0\.250 │", shown)
    assert "fingerprint feedface" in shown


@pytest.mark.parametrize(
    ("form", "ending", "holds"),
    [
        ("markdown", "md", "| second | **0.812 ± "),
        ("latex", "tex", r"second & \textbf{0.812 $\pm$ "),
        ("csv", "csv", "second,map,0.8125,"),
        ("terminal", "txt", "│ second │ 0.812 ± "),
    ],
)
def test_every_form_is_printed_or_written(zoo, runs, tmp_path, form, ending, holds):
    printed = zoo("compare", *runs, "--format", form).stdout
    assert holds in printed
    assert zoo("compare", *runs, "--output", f"new/table.{ending}").stdout == f"wrote new/table.{ending}\n"
    assert (tmp_path / f"new/table.{ending}").read_text() == printed


def test_names_metrics_and_rows_are_chosen(zoo, runs):
    words = ("compare", f"x={runs[0]}", f"y={runs[1] / 'results.json'}", "--format", "csv", "--metric", "mp@5", "map")
    records = list(csv.DictReader(io.StringIO(zoo(*words).stdout)))
    assert [(record["run"], record["metric"]) for record in records] == [
        ("x", "mp@5"), ("x", "map"), ("y", "mp@5"), ("y", "map"),
    ]  # fmt: skip
    assert zoo(*words, "--all-rows").stdout.startswith("run,descriptor,l2_normalised,metric,")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "zoo: compare: name at least one run, before the options. `zoo compare --help` shows examples"),
        (["--metric", "map", "a"], "zoo: compare: name at least one run, before the options."),
        (["a", "--metrc", "map"], "unrecognized arguments: --metrc map. Did you mean '--metric'?"),
        (["a", "--format", "html"], "invalid choice: 'html'"),
        (["a", "--metric", "mapp"], "run 'first' has no metric 'mapp'; it has map, mp@5. Did you mean 'map'?"),
        (["nowhere"], "zoo: there is no nowhere; a run is the folder that `zoo eval` or `zoo score` wrote"),
        (["a", "a"], "is given twice"),
        (["a", "--output", "a"], "argument --output: must be a file, got the folder a"),
    ],
)
def test_misuse_ends_with_two_and_one_line(zoo, runs, words, line):
    done = zoo("compare", *words, code=2)
    assert line in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize("verb", ["compare", "report"])
def test_unlike_runs_are_refused(zoo, runs, tmp_path, verb):
    write_run(tmp_path / "c", A, fingerprint={"gallery": 11_084, "hash": "other"})
    done = zoo(verb, "a", "c", code=2)
    assert "gallery: 5,063 against 11,084" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("verb", ["compare", "report"])
def test_help_teaches_and_loads_nothing_heavy(command, verb):
    script = (
        f"import atexit, sys; sys.argv = ['zoo {verb}', '--help']\n"
        f"atexit.register(lambda: print('LOADED', sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr))\n"
        f"from zoo.commands.{verb} import main; main()"
    )
    done = command("python", "-c", script)
    assert done.stderr == "LOADED []\n"
    assert "examples:" in done.stdout
    assert f"zoo {verb} " in done.stdout


@pytest.mark.parametrize("form", ["terminal", "csv"])
def test_a_reader_that_leaves_is_no_error(tmp_path, runs, form):
    script = f"{sys.executable} -m zoo.commands.compare a b --format {form} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode in (0, 141), done.stderr) == (True, "")


@pytest.fixture
def pictures(tmp_path):
    """Makes images below `elsewhere/`, and two runs evaluated there, whose data names them by a relative path."""
    names = [f"image_{number}" for number in range(5)]
    (tmp_path / "elsewhere/images").mkdir(parents=True)
    for number, name in enumerate(names):
        colours = np.full((60, 90, 3), 40 * number, np.uint8)
        Image.fromarray(colours).save(tmp_path / f"elsewhere/images/{name}.png")
    data = {"_target_": "zoo.create", "_convert_": "all", "kind": "data", "name": "folder", "root": "images"}
    for folder, metrics in (("a", A), ("b", B)):
        lists = [
            ranked(number, f"q{number}", [(name, 0.5, "relevant", None) for name in names], image=names[number])
            for number in range(4)
        ]
        place = {"data": data, "cwd": str(tmp_path / "elsewhere"), "run_name": folder}
        write_run(tmp_path / folder, metrics, rankings=lists, **place)
    return tmp_path


def test_a_report_has_pictures_though_it_is_called_from_elsewhere(zoo, pictures):
    done = zoo("report", "first=a", "b", "--queries", "3", "--top", "2", "--output", "new/page.html")
    assert re.fullmatch(r"wrote new/page\.html \(0\.\d MB\)\n", done.stdout)
    assert done.stderr == ""
    page = (pictures / "new/page.html").read_text()
    assert page.count('src="data:image/webp;base64,') == 3 * (1 + 2 * 2)
    assert re.findall(r'id="query-(\d)"', page) == ["1", "0", "2"]
    assert [path.name for path in (pictures / "new").iterdir()] == ["page.html"]


def test_a_report_by_another_metric_of_one_run(zoo, pictures):
    zoo("report", "b", "--metric", "mp@5", "--queries", "2")
    assert re.findall(r'id="query-(\d)"', (pictures / "report.html").read_text()) == ["0", "1"]


def test_one_missing_picture_is_no_reason_to_give_up(zoo, pictures):
    (pictures / "elsewhere/images/image_4.png").unlink()
    done = zoo("report", "a")
    assert "zoo: 1 of 9 pictures can't be read (ValueError: split 'gallery' of 4 images has none" in done.stderr
    page = (pictures / "report.html").read_text()
    assert page.count("no picture</span>") == 4
    assert "1 of 9 pictures can&#39;t be read" in page


def test_data_without_a_single_picture_is_told_as_such(zoo, pictures):
    for file in (pictures / "elsewhere/images").iterdir():
        file.write_bytes(b"no picture")
    assert "zoo: No pictures: none of the 9 is there, such as " in zoo("report", "a").stderr
    assert 'src="data:image' not in (pictures / "report.html").read_text()


def test_moved_images_leave_a_page_that_says_why(zoo, pictures):
    (pictures / "elsewhere").rename(pictures / "moved")
    done = zoo("report", "a", "b")
    assert done.stderr.startswith(
        "zoo: No pictures, since the data can't be opened (a: FileNotFoundError: root must be"
    )
    page = (pictures / "report.html").read_text()
    assert 'role="note">No pictures, since the data can&#39;t be opened' in page
    assert "<img" not in page


def test_the_data_of_another_run_serves_where_the_first_has_none(zoo, pictures):
    file = pictures / "a/results.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"data": None}))
    assert zoo("report", "a", "b").stderr == ""
    assert (
        zoo("report", "a").stderr
        == "zoo: No pictures, since the data can't be opened (a: ValueError: results.json names no data).\n"
    )


def test_a_report_without_ranked_lists_says_so(zoo, runs, tmp_path):
    done = zoo("report", *runs)
    assert "No ranked lists" in done.stderr
    assert "No ranked lists" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "zoo: report: name at least one run, before the options. `zoo report --help` shows examples"),
        (["a", "--queries", "0"], "argument --queries: must be an integer of at least 1, got '0'"),
        (["a", "--top", "ten"], "argument --top: must be an integer of at least 1, got 'ten'"),
        (["a", "--metric", "mapp"], "Did you mean 'map'?"),
        (["a", "--output", "."], "argument --output: must be a file, got the folder ."),
    ],
)
def test_misuse_of_report_ends_with_two_and_one_line(zoo, runs, words, line):
    done = zoo("report", *words, code=2)
    assert line in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
