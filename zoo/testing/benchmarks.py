"""The contract test of benchmarks."""

from __future__ import annotations

import json
import math
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import lightning
import torch
import torch.nn.functional as F

from zoo import config, registry
from zoo.evaluation.protocol import Benchmark
from zoo.evaluation.runner import evaluate
from zoo.evaluation.searching import Searching
from zoo.module import Embedder
from zoo.testing.models import _require, check_signature
from zoo.types import Representation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from zoo.types import Batch, Role

_NOTED = ("benchmark", "gallery", "queries", "metrics", "hash")
_GRID = 4, 5  # of the probe's probability maps
_CLOSE = 1e-6


def check_benchmark(name: str, folder: Path, *, data: Any, **parameters: Any) -> None:
    """Checks that the registered benchmark `name` keeps the contract; raises AssertionError saying which clause breaks.

    A small untrained model is judged on `data`, a data module that the benchmark goes with, of more than one batch. In
    order: signature equals YAML; it is a `Benchmark`, built with `parameters`, that calls itself by its name; it says
    before any image is read that it can't judge a model without anything to compare; it has a loader for each of its
    roles; it writes results with one value a query and their mean, NaN left out; the fingerprint says what was judged,
    and is the same for every model; the same model gets the same figures again, and on two processes where the system
    can fork; missing images are refused; ranked lists name images of the gallery, by falling scores; an index and
    re-rankers are refused, or their result is the shown row. Files go to `folder`.
    """
    check_signature("benchmark", name)
    cls = registry.load("benchmark", name)
    _require(issubclass(cls, Benchmark), f"{cls.__name__} must derive from zoo.evaluation.protocol.Benchmark")

    def make() -> Benchmark:
        return config.create("benchmark", name, **parameters)

    benchmark = make()
    _require(
        getattr(benchmark, "name", None) == name, f"name must be '{name}', got {getattr(benchmark, 'name', None)!r}"
    )
    _check_opening(benchmark, data)
    run = partial(_run, make, data, folder)
    results = run("one", _Probe(data, 0))
    _check_results(results)
    _same(results, run("again", _Probe(data, 0)), "the same model must get the same figures again")
    other = run("other", _Probe(data, 1))
    _require(_print(other) == _print(results), "fingerprint must not depend on the model")
    if hasattr(os, "fork"):
        two = run("two", _Probe(data, 0), devices=2)
        _same(results, two, "two processes must find what one does")
    _check_missing(benchmark, data, run)
    _check_rankings(folder / "one" / "rankings.json", results, data)
    _check_search(make, data, folder)


class _Probe(Embedder):
    """Describes images by their colours in a seeded direction; where data have classes, it takes each place for one."""

    def __init__(self, data: Any, seed: int) -> None:
        super().__init__()
        names = getattr(getattr(data, "classes", None), "names", ())
        self.class_names, self.kinds = tuple(names), ("vector", "probability_map") if names else ("vector",)
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("mix", torch.randn(12, 12, generator=generator))
        self.register_buffer("paint", torch.randn(len(names), 3, generator=generator))

    def embed(self, batch: Batch, role: Role = "gallery") -> Representation:
        """Returns vectors, and probability maps of a few cells."""
        if batch.descriptors is not None:
            return Representation(vector=batch.descriptors.float() * self.mix[0, 0])
        # Rounded, so that equal images stay equal whichever batches they come in.
        vector = (F.adaptive_avg_pool2d(batch.images - 0.5, 2).flatten(1) @ self.mix).mul(1024).round() / 1024
        if not self.class_names:
            return Representation(vector=vector)
        cells = F.adaptive_avg_pool2d(batch.images - 0.5, _GRID)
        maps = torch.einsum("kc,bchw->bkhw", self.paint, 9 * cells).softmax(1)
        return Representation(vector=vector, probability_map=maps)


class _Mute(Embedder):
    """Describes nothing that could be ranked."""

    kinds = ("keypoints",)


def _check_opening(benchmark: Benchmark, data: Any) -> None:
    try:
        benchmark.check(_Mute(), data)
    except ValueError:
        pass
    else:
        raise AssertionError("check() must raise ValueError for a model without anything to compare")
    benchmark.check(_Probe(data, 0), data)
    data.prepare_data()
    benchmark.open(data)
    texts = all(isinstance(note, str) for note in benchmark.notes)
    _require(texts, f"notes must be texts, got {list(benchmark.notes)}")
    roles = tuple(benchmark.roles)
    known = "gallery" in roles and set(roles) <= {"gallery", "query"}
    _require(known, f"roles must be gallery, or gallery and query, got {roles}")
    data.setup("test")
    loaders = benchmark.loaders(data)
    _require(len(loaders) == len(roles), f"loaders must be one for each of {roles}, got {len(loaders)}")


def _run(
    make: Callable[[], Benchmark],
    data: Any,
    folder: Path,
    run: str,
    model: Embedder,
    search: Any = None,
    **changed: Any,
) -> dict[str, Any]:
    """Evaluates as `zoo eval` does; returns results.json."""
    benchmark = make()
    benchmark.open(data)
    if search is not None:
        benchmark.search_with(search)
    devices = changed.pop("devices", 1)
    trainer = lightning.Trainer(
        accelerator="cpu", devices=devices, strategy="ddp_fork" if devices > 1 else "auto", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, default_root_dir=folder, **changed,
    )  # fmt: skip
    evaluate(model.eval(), data, benchmark, trainer, folder / run, {"run_name": run})
    return json.loads((folder / run / "results.json").read_text(encoding="utf-8"))


def _check_results(results: dict[str, Any]) -> None:
    queries, rows = results["query_ids"], results["rows"]
    _require(bool(queries) and len(set(queries)) == len(queries), "every query must have a name of its own")
    _require(0 <= results["own"] < len(rows), "the report's own row must be one of its rows")
    cells = [(label, cell) for row in rows for label, cell in row["metrics"].items()]
    _require(bool(cells), "a row must have at least one metric")
    for label, cell in cells:
        values = cell["per_query"]
        _require(len(values) == len(queries), f"{label}: one value a query, got {len(values)} for {len(queries)}")
        known = [value for value in values if value is not None]
        mean = sum(known) / len(known) if known else math.nan
        found = math.nan if cell["mean"] is None else cell["mean"]
        close = math.isclose(mean, found, rel_tol=_CLOSE, abs_tol=_CLOSE) or (math.isnan(mean) and math.isnan(found))
        _require(close, f"{label}: the mean must be that of the queries' values, {mean}, got {found}")
    lacking = [part for part in _NOTED if part not in results["fingerprint"]]
    _require(not lacking, f"fingerprint must hold {', '.join(_NOTED)}, {', '.join(lacking)} is missing")


def _print(results: dict[str, Any]) -> str:
    return results["fingerprint"]["hash"]


def _same(results: dict[str, Any], others: dict[str, Any], clause: str) -> None:
    _require(_print(results) == _print(others) and results["query_ids"] == others["query_ids"], clause)
    pairs = zip(results["rows"], others["rows"], strict=True)
    for one, other in pairs:
        for label, cell in one["metrics"].items():
            both = zip(cell["per_query"], other["metrics"][label]["per_query"], strict=True)
            wrong = [pair for pair in both if not _equal(*pair)]
            _require(not wrong, f"{clause}: {label} of {one['descriptor']} is {wrong[:1]}")


def _equal(one: float | None, other: float | None) -> bool:
    return one == other if one is None or other is None else math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-5)


def _check_missing(benchmark: Benchmark, data: Any, run: Callable[..., Any]) -> None:
    if len(benchmark.loaders(data)[0]) < 2:
        return
    try:
        run("missing", _Probe(data, 0), limit_test_batches=1)
    except ValueError:
        return
    raise AssertionError(
        "images that weren't described must raise ValueError: a part of the gallery is another protocol"
    )


def _check_rankings(file: Path, results: dict[str, Any], data: Any) -> None:
    if not file.is_file():
        return
    content = json.loads(file.read_text(encoding="utf-8"))
    known = set(data.ids(content["gallery_split"]))
    ids = [query["id"] for query in content["queries"]]
    _require(ids == results["query_ids"], "ranked lists must be those of the queries, in their order")
    for query in content["queries"]:
        strange = [item["id"] for item in query["ranked"] if item["id"] not in known]
        _require(not strange, f"ranked lists must hold images of the gallery, got {strange[:3]}")
        scores = [item["score"] for item in query["ranked"]]
        _require(
            scores == sorted(scores, reverse=True), f"scores must not rise along a list, they do for '{query['id']}'"
        )


def _check_search(make: Callable[[], Benchmark], data: Any, folder: Path) -> None:
    search = Searching(partial(config.create, "index", "flat"), "flat", {}, None)
    benchmark = make()
    try:
        benchmark.search_with(search)
    except ValueError:
        return
    _require(benchmark.search is search, "search_with must keep the search, or raise ValueError")
    results = _run(make, data, folder, "search", _Probe(data, 0), search)
    shown, label = results["rows"][results["own"]]["descriptor"], search.label("vector")
    _require(shown.endswith(label), f"the search must be the shown row, '{label}', got '{shown}'")
