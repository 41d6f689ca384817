"""The whole zoo: which models go with which data, indexes and re-rankers, and that what doesn't is told why.

The tables say what is expected of every registered name; a new one has to be added to them. Everything is composed and
built as the commands do, and refused by what they refuse it with, before any image is read.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
from dataclasses import replace
from functools import cache, partial

import pytest
import torch
from data_trees import TREES
from omegaconf import OmegaConf

import zoo
from zoo import config, registry
from zoo.commands import _describing, _setup
from zoo.commands import eval as eval_command
from zoo.commands import train as train_command
from zoo.evaluation.collect import Collected
from zoo.evaluation.protocol import Shard
from zoo.evaluation.searching import Searching
from zoo.evaluation.source import Source
from zoo.registry import UsageError
from zoo.search.fit import check_batches, check_training
from zoo.search.pipeline import Pipeline, joined_fields
from zoo.testing.indexes import _gallery
from zoo.testing.rerankers import made_up
from zoo.types import Representation

# t: `zoo train` learns from it, f: fits statistics on it. s: images are described and found by name, so that they can
# be embedded, indexed, searched; d: described, for benchmarks that look at all of them. A dot: refused, with a reason.
MODELS_AND_DATA = """
                      camvid clevr cut_paste folder holidays instre label_maps oxford paris pascal_context revisited simulated_city sort_of_clevr street_level voc
fcn_segment           ts     d     .         s      s        s      ts         s      s     ts             s         .              d             .            ts
global_descriptor     s      d     .         s      s        s      s          s      s     s              s         .              d             .            s
gnn_rerank            .      .     .         .      .        .      .          .      .     .              .         t              .             t            .
local_features        s      d     .         s      s        s      s          s      s     s              s         .              d             .            s
local_similarity      s      d     t         s      s        s      s          s      s     s              s         .              d             .            s
regional_aggregation  fs     fd    .         fs     fs       fs     fs         fs     fs    fs             fs        .              fd            .            fs
stored_descriptors    .      .     .         .      .        .      .          .      .     .              .         s              .             s            .
two_stage_rn          s      td    .         s      s        s      s          s      s     s              s         .              td            .            s
"""  # noqa: E501

# Which re-rankers go with a model's images in an index, by the letters of LETTERS ("-" stands for none); a dot: not
# even the index does. Geometric verification takes another model's features beside those of the index.
SEARCHES = """
                      flat      ivf_pq    local_maps  milvus    probability_maps  regions
fcn_segment           .         .         .           .         -f                .
global_descriptor     -aqdgfs   -aqdgfs   .           -aqdgfs   .                 .
gnn_rerank            .         .         .           .         .                 .
local_features        .         .         .           .         .                 .
local_similarity      -aqdglmfs -aqdglmfs -aqdglmfs   -aqdglmfs .                 .
regional_aggregation  -aqdgfs   -aqdgfs   .           -aqdgfs   .                 -aqdgfes
stored_descriptors    -aqdgfs   -aqdgfs   .           -aqdgfs   .                 .
two_stage_rn          -aqdgfs   -aqdgfs   .           -aqdgfs   .                 .
"""
LETTERS = {
    "none": "-", "alpha_qe": "a", "aqe": "q", "dba": "d", "geometric_verification": "v", "gnn_rerank": "g",
    "local_similarity": "l", "r_match": "m", "rank_fusion": "f", "regional_qe": "e", "superglobal": "s",
}  # fmt: skip

# What a model is built with to learn from certain data; without it, it is refused with what the two have.
SUITED = {
    ("fcn_segment", "camvid"): {"classes": "camvid11"},
    ("fcn_segment", "pascal_context"): {"classes": "pascal_context60"},
    ("fcn_segment", "voc"): {"classes": "voc21"},
    ("gnn_rerank", "simulated_city"): {"dimension": 512},
    ("gnn_rerank", "street_level"): {"dimension": 90},
    ("two_stage_rn", "clevr"): {"vocabulary": "clevr", "answers": 28, "question_groups": None},
}

LIST = r"\[('\w+', )*'\w+'\]"
REASONS = {  # every refusal says what is wanted and what is there
    "batch": rf"model '\w+' reads the batch fields {LIST}, data '\w+' gives {LIST}",
    "representation": rf"[\w, ]+ need the representation fields {LIST}, the model fills {LIST}: .*\w+ lacks \w+",
    "expansion": rf"\w+ searches again by the representation fields {LIST}, the index \w+ is searched by {LIST}",
    "re-orders hits": r"model '\w+' re-orders hits, it describes no images: name it as reranker=\w+",
    "no embedder": r"model '\w+' is no embedder",
    "nothing to rank by": rf"\w+ fills {LIST}, it has no vector to rank by",
    "names": r"finds images by name: choose data=folder, got data of type \w+",
    "label maps": r"data must give label maps, data=\w+ doesn't: label_maps, camvid, voc and pascal_context do",
    "classes": r"model\.classes must be those of the data in its order \(\w+, \d+\), got 3",
    "pairs": r"data must give pairs of images that show one object, data=\w+ doesn't: cut_paste does",
    "shortlists": r"data must give shortlists of descriptors, data=\w+ doesn't: street_level does",
    "dimension": r"model\.dimension must be that of the descriptors, \d+, got 8",
    "questions": r"data must give questions and answers, data=\w+ doesn't: sort_of_clevr and clevr do",
    "vocabulary": r"model\.vocabulary must be that of the data's questions, 'clevr', got None",
    "untrained": r"model '\w+' has nothing to train",
}


def table(text):
    """Returns the columns' names, and row → column → cell."""
    head, *lines = [line.split() for line in text.strip().splitlines()]
    return head, {line[0]: dict(zip(head, line[1:], strict=True)) for line in lines}


COLUMNS, DATA = table(MODELS_AND_DATA)
INDEXES, SEARCHED = table(SEARCHES)
MODELS, STAGES = list(DATA), list(LETTERS)


def goes_with(model, index, stage):
    """Says whether the table has it that what a model fills is enough for an index and a re-ranker."""
    return LETTERS[stage] in SEARCHED[model][index]


def plain(value):
    """Returns a value as Hydra's command line has it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {plain(each)}" for key, each in value.items()) + "}"
    return "[" + ", ".join(map(plain, value)) + "]" if isinstance(value, list | tuple) else json.dumps(value)


def typed(prefix, values):
    return [f"{prefix}.{key}={plain(value)}" for key, value in values.items()]


def reason(message):
    """Returns which of the reasons a refusal gives; there is no other."""
    found = [name for name, pattern in REASONS.items() if re.search(pattern, message)]
    assert len(found) == 1, f"{found}: {message}"
    return found[0]


class Parts:
    """Nodes composed as for `zoo eval`, and what the commands build of them, each once."""

    def __init__(self, folder):
        self.folder, self.build = folder, _setup.build
        self.words, self.node, self.built = cache(self.words), cache(self.node), cache(self.built)

    def words(self, kind, name, more=()):
        """Returns the command line's words for one part."""
        if kind == "data":
            (self.folder / name).mkdir(exist_ok=True)
            return [f"data={name}", *typed("data", TREES[name](self.folder / name))]
        tiny = {**getattr(registry.load(kind, name), "tiny", {}), **dict(more)}
        place = {"folder": self.folder}
        filled = {key: each.format(**place) if isinstance(each, str) else each for key, each in tiny.items()}
        return [f"{kind}={name}", *typed(f"reranker.{name}" if kind == "reranker" else kind, filled)]

    def node(self, kind, name, more=()):
        composed = config.compose("eval", self.words(kind, name, more))[kind]
        return composed[name] if kind == "reranker" else composed

    def built(self, kind, name, more=()):
        made = self.build(self.node(kind, name, more))
        return made.eval() if kind == "model" else made


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return Parts(tmp_path_factory.mktemp("matrix"))


def test_the_tables_hold_every_name():
    for kind, names in (("model", MODELS), ("data", COLUMNS), ("index", INDEXES), ("reranker", STAGES[1:])):
        assert sorted(names) == list(registry.entries(kind)), f"{kind}: the tables of tests/test_matrix.py lack a name"
    assert STAGES[0] == "none"
    assert list(SEARCHED) == MODELS
    assert not set("".join(cell for row in DATA.values() for cell in row.values())) - set("tfsd.")


def trained(parts, model, data, **changed):
    """Returns how `zoo train` goes on, t or f, or raises what it refuses with."""
    built = parts.built("model", model, tuple(sorted(changed.items())))
    train_command._refuse_untrained(OmegaConf.create({"model": {"name": model}, "ckpt_path": None}), built)
    check_training(built, parts.built("data", data))
    return "t" if built.trained else "f"


def described(parts, model, data):
    """Returns how images are described, s or d, or raises what commands refuse with."""
    built, images = parts.built("model", model), parts.built("data", data)
    _describing.check_embedder(OmegaConf.create({"model": {"name": model}}), built)
    check_batches(built, images)
    return "s" if hasattr(images, "selection") else "d"


@pytest.mark.parametrize("model", MODELS)
def test_models_go_with_data_or_say_why_not(parts, model):
    cells, reasons = {}, set()
    for data in COLUMNS:
        cells[data] = ""
        for step, more in ((trained, SUITED.get((model, data), {})), (described, {})):
            try:
                cells[data] += step(parts, model, data, **more)
            except ValueError as error:
                reasons.add(reason(str(error)))
    assert {data: cell or "." for data, cell in cells.items()} == DATA[model]
    assert reasons


@pytest.mark.parametrize(("model", "data"), SUITED)
def test_a_model_that_does_not_suit_the_data_says_what_both_have(parts, model, data):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the reason is looked up)
        trained(parts, model, data)
    assert reason(str(error.value)) in ("classes", "dimension", "vocabulary")


@pytest.fixture(scope="module")
def benchmark():
    return zoo.create("benchmark", "instances")


@pytest.fixture
def built_once(parts, monkeypatch):
    """Lets `zoo eval` take indexes and re-rankers that are built already."""
    monkeypatch.setattr(_setup, "build", lambda node, **extra: parts.built(node.kind, node.name))


def refusal(parts, benchmark, model, data, cfg):
    """Returns what `zoo eval` refuses a combination with, None where it goes on to reading images."""
    built, images = parts.built("model", model), parts.built("data", data)
    try:
        eval_command._refuse_reranker(built, None)
        _setup.check_judged(benchmark, built, images, [])
        eval_command.searching(cfg, built, images, benchmark)
        if not hasattr(images, "selection"):  # how benchmarks begin, which then list files
            Source.of_data(images, benchmark.name)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize(("model", "index"), itertools.product(MODELS, INDEXES))
def test_every_combination_is_built_or_refused_with_a_reason(parts, benchmark, built_once, model, index):
    if index == "milvus":
        needs_milvus()
    for stage in STAGES:
        chosen = {} if stage == "none" else {stage: parts.node("reranker", stage)}
        cfg = OmegaConf.create({"index": parts.node("index", index), "reranker": chosen, "shortlist": 5})
        for data in COLUMNS:
            refused = refusal(parts, benchmark, model, data, cfg)
            fits = goes_with(model, index, stage) and "s" in DATA[model][data]
            assert (refused is None) == fits, f"{model}, {data}, {index}, {stage}: {refused}"
            if refused is None:
                assert list(benchmark.search.stages) == list(chosen)
                assert benchmark.search.make_index() is parts.built("index", index)
            else:
                reason(refused)


def needs_milvus():
    for package in ("pymilvus", "milvus_lite"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed (extra milvus)")


def made_of(kinds):
    """Returns made-up images with the fields that a model fills, of the sizes that all re-rankers take."""
    whole = joined_fields(made_up(40, 0), _gallery())
    return Representation(**{kind: getattr(whole, kind) for kind in kinds}, fingerprint=whole.fingerprint)


@pytest.mark.parametrize("index", INDEXES)
def test_what_fits_is_searched_and_what_does_not_could_not_be(parts, index, tmp_path):
    if index == "milvus":
        needs_milvus()
    cls = registry.load("index", index)
    known = config.complete("index", index, dict(cls.tiny))
    kinds_of = {model: getattr(registry.load("model", model), "kinds", ()) for model in MODELS}
    alike = {kinds: model for model, kinds in kinds_of.items() if kinds}  # the others re-order hits
    assert all(SEARCHED[model][index] == SEARCHED[alike[kinds]][index] for model, kinds in kinds_of.items() if kinds)
    for (kinds, model), stage in itertools.product(alike.items(), STAGES):
        place = tmp_path / f"{model}-{stage}"
        place.mkdir()
        filled = {key: each.format(folder=place) if isinstance(each, str) else each for key, each in known.items()}
        stages = {} if stage == "none" else {stage: parts.built("reranker", stage)}
        if goes_with(model, index, stage):
            found = searched(Searching(partial(cls, **filled), index, stages, 6), made_of(kinds))
            assert [list(part.items.shape) for part in found] == [[2, 40]], (model, stage)
        elif index != "milvus":  # takes what flat does, and a server for each
            with pytest.raises((ValueError, AttributeError, TypeError, KeyError)):
                searched(Searching(partial(cls, **filled), index, stages, 6), made_of(kinds))


def searched(search, items):
    """Returns the lists of two queries, found as `zoo eval` finds them."""
    rows = {name: value for name, value in items.filled().items() if name in search.fields}
    two = {name: value[:2] for name, value in rows.items()}
    collected = {
        role: Collected(torch.arange(count), {}, {}, fields)
        for role, count, fields in (("gallery", len(items), rows), ("query", 2, two))
    }
    return list(search.lists(collected, Shard(), torch.full((2,), -1), 5))


def test_key_points_of_another_model_stand_beside_the_index(parts):
    kinds = registry.load("model", "local_features").kinds

    class Beside:
        fingerprint = None

        def __init__(self):
            self.kinds, self.items = kinds, replace(made_up(40, 0), vector=None)

        def get(self, ids):
            return self.items.rows(torch.tensor([int(name) for name in ids]))

    index, items, extra = zoo.create("index", "flat"), made_of(("vector",)), Beside()
    index.add([f"{place}" for place in range(len(items))], items)
    stage = parts.built("reranker", "geometric_verification")
    asked = extra.items.rows(slice(0, 2))
    found = Pipeline(index, [stage], 6).search(items.rows(slice(0, 2)), 5, extra=extra, extra_queries=asked)
    assert [len(ranking) for ranking in found] == [5, 5]


@pytest.mark.parametrize("place", range(len(COLUMNS)))
def test_nodes_do_not_depend_on_what_they_are_composed_with(parts, place):
    """So that composing each part once is as good as composing every combination."""
    names = {"model": MODELS, "data": COLUMNS, "index": INDEXES, "reranker": STAGES[1:]}
    chosen = {kind: own[place % len(own)] for kind, own in names.items()}
    whole = config.compose("eval", [word for kind, name in chosen.items() for word in parts.words(kind, name, ())])
    for kind, name in chosen.items():
        node = whole[kind][name] if kind == "reranker" else whole[kind]
        assert OmegaConf.to_container(node, resolve=True) == OmegaConf.to_container(
            parts.node(kind, name), resolve=True
        )


@pytest.fixture
def damaged(tmp_path):
    """Returns a folder of files that no command could read."""
    for name in ("a/1", "a/2", "b/1"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / f"{name}.png").write_bytes(b"no picture")
    return f"data.root={tmp_path / 'photos'}"


GLOBAL = ["model=global_descriptor", "model.backbone=test_resnet", "model.backbone_weights=random"]
BARE = ["model=stored_descriptors", "data=folder"]
EVAL = ["data=folder", "benchmark=instances"]


@pytest.mark.parametrize(
    ("verb", "words", "why"),
    [
        ("eval", [*GLOBAL, *EVAL, "index=regions"], "representation"),
        ("eval", [*GLOBAL, *EVAL, "reranker=[superglobal,r_match]"], "representation"),
        ("eval", ["model=local_features", *EVAL], "nothing to rank by"),
        ("eval", [*BARE, "benchmark=instances"], "batch"),
        ("train", ["model=two_stage_rn", "data=folder"], "questions"),
        ("train", ["model=local_features", "data=folder"], "untrained"),
        ("embed", BARE, "batch"),
        ("index", [*BARE, "index=flat"], "batch"),
    ],
)
def test_commands_refuse_before_any_image_is_read(command, verb, words, why, damaged):
    assert reason(command("zoo", verb, *words, damaged, code=2).stderr) == why


@pytest.mark.parametrize(
    ("verb", "words", "why"),
    [
        ("eval", ["benchmark=relational"], "'relational' needs scene graphs, data=folder has none"),
        ("eval", ["benchmark=segmentation"], r"\['probability_map'\], the model fills \['vector'\]"),
        ("index", ["index=regions"], "'regions' needs regions; features .* hold vector"),
    ],
)
def test_so_they_do_with_benchmarks_and_live_indexes(command, verb, words, why, damaged):
    assert re.search(why, command("zoo", verb, *GLOBAL, "data=folder", damaged, *words, code=2).stderr)


def test_what_is_known_of_hits_is_asked_for_before_any_image_is_read(damaged, tmp_path, monkeypatch):
    monkeypatch.setattr(registry.load("reranker", "gnn_rerank"), "reads", ("easting", "heading"))
    words = [*GLOBAL, *EVAL, "reranker=gnn_rerank", "reranker.gnn_rerank.weights=simulated_city"]
    wanted = r"'gnn_rerank' reads \['easting', 'heading'\] of every hit, data 'folder' knows \[\]"
    with pytest.raises(UsageError, match=wanted):
        eval_command.evaluate(config.compose("eval", [*words, damaged, f"paths.run_dir={tmp_path}"]))
