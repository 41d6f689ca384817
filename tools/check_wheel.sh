#!/usr/bin/env bash
# Installs our wheel, a plugin's and a broken plugin's into a clean environment outside the checkout, and uses them there.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
uv=${UV:-uv}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/elsewhere" "$work/tests"
unset PYTHONPATH PYTHONDONTWRITEBYTECODE VIRTUAL_ENV
export ZOO_CACHE=$work/cache OMP_NUM_THREADS=1 PYTHONPYCACHEPREFIX=
tiny=(data.train_size=64 data.val_size=16 data.test_size=8 data.gallery_size=40 trainer.max_epochs=1)
tiny+=(trainer.enable_progress_bar=false trainer.enable_model_summary=false)

ok() { echo "ok: $*"; }

fail() {
    echo "FAILED: $*" >&2
    echo "--- its output:" >&2
    cat "$work/log" >&2
    exit 1
}

# expect CODE COMMAND…: runs a command of the clean environment, keeps its output in $work/log.
expect() {
    local code=0
    "$work/venv/bin/$2" "${@:3}" >"$work/log" 2>&1 || code=$?
    [[ $code == "$1" ]] || fail "${*:2} ended with $code instead of $1"
}

says() { grep -qF -- "$1" "$work/log" || fail "nothing says '$1'"; }
silent_on() { ! grep -qF -- "$1" "$work/log" || fail "something says '$1'"; }

build() {
    "$uv" build --quiet --out-dir "$work/dist" "$root"  # the wheel is made from the source archive
    "$uv" build --quiet --wheel --out-dir "$work/dist" "$root/tests/plugins/zoo_acme"
    "$uv" build --quiet --wheel --out-dir "$work/dist" "$root/tests/plugins/zoo_broken"
    "$uv" venv --quiet --no-python-downloads --python "$root/.venv/bin/python" "$work/venv"
    "$uv" pip install --quiet --python "$work/venv" --constraint "$root/constraints.txt" "$work"/dist/*.whl pytest
    ok "built and installed $(cd "$work/dist" && echo *.whl)"
}

check_contents() {
    expect 0 python -m zipfile -l "$work"/dist/spatial_zoo-*.whl
    says zoo/conf/train.yaml
    says zoo/conf/model/two_stage_rn.yaml
    says zoo/vocabularies/clevr.json
    says licenses/LICENSE
    for unwanted in tests/ tools/ conftest __pycache__ outputs/; do silent_on "$unwanted"; done
    expect 0 python - "$root" <<'PYTHON'
import sys
from pathlib import Path

import zoo
from zoo import config

root, environment = Path(sys.argv[1]).resolve(), Path(sys.prefix).resolve()
assert environment in Path(zoo.__file__).resolve().parents, zoo.__file__
assert config.conf_dir() == Path(zoo.__file__).resolve().parent / "conf", config.conf_dir()
inside = [entry for entry in sys.path if root in (Path(entry).resolve(), *Path(entry).resolve().parents)]
assert not inside, f"the checkout is on sys.path: {inside}"
assert zoo.list_models().count("acme_rank") == 1, zoo.list_models()
loaded = {"torch", "lightning", "zoo_acme", "zoo_broken"} & set(sys.modules)
assert not loaded, f"`import zoo` and list_models() loaded {loaded}"
PYTHON
    ok "the wheel holds zoo/conf and no tests; nothing of the checkout is on sys.path"
}

check_list() {
    expect 0 zoo list
    says "[zoo-acme 1.2.0]  Acme: a small CNN"
    says "[zoo-broken 0.0.7]  IGNORED: the name belongs to spatial-zoo"
    silent_on "licence server"
    expect 0 zoo-list model --check
    says "importing 'zoo_broken.raises' raised RuntimeError: the licence server of Acme does not answer"
    says "[zoo-acme 1.2.0]  Acme: a small CNN"
    ok "zoo list shows the plugin, flags the shadowed name, and with --check the broken ones"
}

check_broken() {
    expect 2 zoo train model=acme_broken
    says "zoo-broken 0.0.7"
    says "RuntimeError: the licence server of Acme does not answer"
    silent_on Traceback
    expect 2 zoo train model=acme_unmet
    says "'zoo_broken.unmet' imports 'acme_solver_that_nobody_installed', which is not installed"
    expect 2 zoo train model=acme_absent
    says "it names the module 'zoo_broken.absent', which doesn't exist"
    ok "a broken plugin answers with distribution, version and cause, exit code 2"
}

check_commands() {
    expect 0 python -m zoo.commands.train --info searchpath
    says "$work/venv"
    says zoo_acme/conf
    silent_on "$root/conf"
    expect 0 zoo-train model=acme_rank --cfg job
    says "name: acme_rank"
    expect 0 zoo-eval --help
    expect 2 zoo train model=acme_rnk
    says "Did you mean 'acme_rank'?"
    expect 2 zoo train model=acme_rank model.hiden=3
    says "Did you mean 'model.hidden'?"
    ok "commands find the plugin's configs and suggest its names"
}

check_training() {
    expect 0 zoo train model=acme_rank "${tiny[@]}" hydra.run.dir="$work/elsewhere/acme"
    expect 0 zoo train experiment=acme_demo "${tiny[@]:4}" hydra.run.dir="$work/elsewhere/demo"
    expect 0 zoo-train "${tiny[@]}" 'model.g=[16,16]' 'model.h=[16]' 'model.f=[16,16]' model.question_layer=2 \
        hydra.run.dir="$work/elsewhere/own"
    for run in acme demo own; do
        [[ -s $work/elsewhere/$run/checkpoints/best.ckpt ]] || fail "run '$run' left no checkpoint"
    done
    expect 0 zoo eval ckpt_path="$work/elsewhere/acme/checkpoints/best.ckpt" "${tiny[@]:0:4}" benchmark.queries=10 \
        hydra.run.dir="$work/elsewhere/eval"
    [[ -s $work/elsewhere/eval/results.json ]] || fail "zoo eval left no results.json"
    expect 0 python -c "import sys, zoo; print(zoo.load_model(sys.argv[1]))" "$work/elsewhere/demo/checkpoints/best.ckpt"
    says AcmeRank
    ok "the plugin's model trains, by name and by its experiment, is evaluated and loaded, and so is ours"
}

check_judging() {
    expect 0 python - <<'PYTHON'
import numpy as np
names = ["a-1", "a-2", "b-1", "b-2"]
for run in (0, 1):
    scores = np.random.default_rng(run).normal(size=(4, 4))
    np.savez(f"scores{run}.npz", scores=scores, query_ids=names, gallery_ids=names)
PYTHON
    for run in 0 1; do
        expect 0 zoo score predictions=scores$run.npz run_name=run$run benchmark=acme_shelves 'metrics=[acme_mrr]' \
            hydra.run.dir="$work/elsewhere/judged$run"
        says mrr
    done
    says "Acme's shelves"
    expect 0 zoo compare judged0 judged1 --format csv
    says run1,mrr,
    expect 0 zoo-report judged0 judged1 --output page.html
    grep -q '</html>' page.html || fail "zoo report left no page"
    expect 2 zoo compare judged0 eval
    says "evaluated differently"
    grep -q '"zoo-acme": "1.2.0"' judged0/results.json || fail "results.json lacks the plugin's version"
    ok "a plugin's benchmark and metric judge a file; compare and report read the runs and refuse unlike ones"
}

check_truth() {
    expect 0 python - <<'PYTHON'
import json
words = {"color": "red blue green".split(), "shape": "cube sphere cylinder".split()}
scenes = [
    {"name": f"scene{n}", "relations": [["a", "left", "b"]],
     "objects": [{"id": name, **{word: values[(n + k) % 3] for word, values in words.items()}} for k, name in enumerate("ab")]}
    for n in range(6)
]
json.dump({"scenes": scenes}, open("scenes.json", "w"))
json.dump(scenes[2], open("query.json", "w"))
PYTHON
    expect 0 zoo truth scenes.json --method exact --output distances
    expect 0 zoo-truth scenes.json --search query.json -k 2
    says scene2
    expect 2 zoo truth scenes.json --search nothing.json
    silent_on Traceback
    ok "zoo truth compares scenes and searches by one"
}

check_search() {
    expect 0 python - <<'PYTHON'
import numpy as np
from pathlib import Path
from PIL import Image
Path("my photos").mkdir()
for number in range(4):
    pixels = np.random.default_rng(number).integers(0, 255, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).resize((64, 48)).save(f"my photos/photo ({number}).jpg")
PYTHON
    expect 0 zoo-embed "my photos" model.backbone=test_resnet model.backbone_weights=random trainer.enable_progress_bar=false
    expect 0 zoo-index
    expect 0 zoo-search "my photos/photo (2).jpg" k=2
    says "photo (2)"
    [[ -s $(echo outputs/search/found/*/contact_sheet.png) ]] || fail "zoo search left no contact sheet"
    expect 2 zoo search "my photos/photo (9).jpg"
    says "no such file or folder"
    ok "photos are embedded, indexed and searched"
}

check_new_plugin() {
    expect 0 zoo new-plugin shelf_rank
    "$uv" pip install --quiet --python "$work/venv" --constraint "$root/constraints.txt" ./shelf_rank
    expect 0 zoo list model
    says "shelf_rank            [shelf-rank 0.1.0]"
    expect 0 zoo train experiment=shelf_rank_demo "${tiny[@]}" hydra.run.dir="$work/elsewhere/shelf"
    expect 0 zoo eval experiment=shelf_rank_demo "${tiny[@]:0:4}" benchmark.queries=10 \
        ckpt_path="$work/elsewhere/shelf/checkpoints/best.ckpt" hydra.run.dir="$work/elsewhere/shelf_eval"
    expect 0 python -m pytest -q -p no:cacheprovider shelf_rank
    ok "zoo new-plugin writes a package that installs, trains, is evaluated and passes its own test"
}

check_plugin_tests() {
    cp "$root"/tests/plugins/zoo_acme/tests/*.py "$work/tests"
    expect 0 python -m pytest -q -p no:cacheprovider "$work/tests"
    ok "the plugin's own tests pass: $(tail -n 1 "$work/log")"
}

build
cd "$work/elsewhere"
check_contents
check_list
check_broken
check_commands
check_training
check_judging
check_truth
check_search
check_plugin_tests
check_new_plugin
ok "wheel and plugins"
