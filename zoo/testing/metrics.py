"""The contract test of metrics."""

from __future__ import annotations

import copy
import inspect
import pickle
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torchmetrics import Metric, MetricCollection

from zoo import config, registry
from zoo.testing.models import _require, check_signature

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

_QUERIES, _ITEMS = 9, 40
_NOTHING = 4  # the query without anything relevant
_PARTS = ([5, 0, 8], [], [1, 7, 2, 6, 4], [3])  # uneven batches of the queries, in another order, one of them empty
_COMPARED = ("scores", "relevant", "gains", "ignore", "n_relevant", "ideal", "a", "b", "query")


def check_metric(name: str, **parameters: Any) -> None:
    """Checks that the registered metric `name` keeps the contract; raises AssertionError saying which clause it breaks.

    In order: signature equals YAML; it is a `torchmetrics.Metric` with a `label`, the sense `higher_is_better`, and
    `per_query`, built with `parameters`; `update` asks for what benchmarks know, queries' ids among it, and takes the
    keywords of all metrics from a collection; there is one value a query, by its id, and `compute` is the mean of those
    that aren't NaN, all whatever the batches, the order of queries and that of items; a query with nothing relevant is
    counted as undefined or has a finite value; what is ignored counts for nothing; a perfect order is the best; the
    half-width of the interval is what queries say; two processes find what one does, also where one of them saw no
    query, and none waits for what another doesn't send; ids that don't fit are refused; `reset` forgets; it can be
    copied and pickled.
    """
    check_signature("metrics", name)
    cls = registry.load("metrics", name)
    _require(issubclass(cls, Metric), f"{cls.__name__} must derive from torchmetrics.Metric")

    built = config.create("metrics", name, **{"per_query": True, **parameters})

    def make() -> Metric:
        return copy.deepcopy(built)

    _check_description(make())
    names = _check_update(make())
    asked = {key: value for key, value in _judged().items() if key in names}
    values = _check_values(make, asked)
    _check_batches(make, asked, values)
    _check_items(make, asked, values)
    _check_order(make, asked, names)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*was called before the ``update`` method.*")  # as a rank has to
        _check_ranks(make, asked)
    _check_ids(make(), asked)
    _check_life(make, asked)


def _check_description(metric: Metric) -> None:
    label = getattr(metric, "label", None)
    _require(isinstance(label, str) and bool(label), f"label must be a text that isn't empty, got {label!r}")
    sense = metric.higher_is_better
    _require(isinstance(sense, bool), f"higher_is_better must be True or False, got {sense!r}")
    _require(getattr(metric, "per_query", None) is True, "per_query must be an attribute, as it was built")
    for method in ("half_width", "per_query_values"):
        _require(hasattr(metric, method), f"{method}() must be there, as zoo.metrics.query_mean.QueryMean has it")


def _check_update(metric: Metric) -> tuple[str, ...]:
    """Returns the names of what `update` takes."""
    taken = inspect.signature(type(metric).update).parameters
    names = tuple(name for name in taken if name != "self")
    unknown = [n for n in names if n not in _COMPARED and taken[n].default is inspect.Parameter.empty]
    _require(not unknown, f"update may ask for {', '.join(_COMPARED)}, got {', '.join(unknown)}, which nobody gives")
    pairs = ({"scores", "relevant"}, {"scores", "gains"}, {"a", "b"})
    _require(any(pair <= set(names) for pair in pairs), "update must take scores with relevant or gains, or a with b")
    _require("query" in names, "update must take query, the ids of the queries")
    return names


def _judged() -> dict[str, Tensor]:
    """Returns what a benchmark gives metrics to judge: no two scores of a query are equal, some items are ignored."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.stack([torch.randperm(_ITEMS, generator=generator) for _ in range(_QUERIES)]).double() / 7 - 1
    ignore = torch.rand(_QUERIES, _ITEMS, generator=generator) < 0.2
    gains = (torch.randint(0, 16, (_QUERIES, _ITEMS), generator=generator) - 12).clamp(min=0).double()
    gains[:, 0], gains[:, 1:3], ignore[:, :3] = 3, 0, False
    gains[_NOTHING] = 0
    ideal = (gains * ~ignore).sort(dim=1, descending=True).values
    return {
        "scores": scores,
        "relevant": gains > 0,
        "gains": gains,
        "ignore": ignore,
        "n_relevant": ((gains > 0) & ~ignore).sum(1),
        "ideal": ideal,
        "a": scores,
        "b": gains,
        "query": 10 + torch.arange(_QUERIES),
    }


def _check_values(make: Callable[[], Metric], asked: dict[str, Tensor]) -> Tensor:
    """Returns the value of every query, as a benchmark has it computed."""
    metric = make()
    collection = MetricCollection({metric.label: metric.clone()}, compute_groups=False)
    try:
        collection.update(**_judged())
    except TypeError as error:
        raise AssertionError(f"update must take what a collection of metrics is given: {error}") from error
    metric = collection[metric.label]
    ids, values = metric.per_query_values()
    _require(ids.tolist() == asked["query"].tolist(), f"per_query_values must hold each id once, got {ids.tolist()}")
    _require(values.shape == (_QUERIES,), f"there must be one value a query, got the shape {tuple(values.shape)}")
    _require(not bool(values.isinf().any()), "values must be finite, or NaN where a query has none")
    _require(bool(values[:_NOTHING].isfinite().all()), "a query with relevant items must have a value")
    _same(metric.compute(), values.nanmean(), "compute() must be the mean of the queries' values, NaN left out")
    defined = values[~values.isnan()]
    undefined = getattr(metric, "undefined", None)
    if undefined is not None:
        _require(int(undefined) == _QUERIES - len(defined), "undefined must count the queries without a value")
    width = torch.as_tensor(metric.half_width())
    _require(bool(width >= 0) and bool(width.isfinite()), f"half_width() must be finite and not negative, got {width}")
    alone = make()
    alone.update(**{key: value[:1] for key, value in asked.items()})
    _require(bool(torch.as_tensor(alone.half_width()).isnan()), "half_width() must be NaN for a single query")
    return values


def _check_batches(make: Callable[[], Metric], asked: dict[str, Tensor], values: Tensor) -> None:
    metric = make()
    for part in _PARTS:
        metric.update(**{key: value[torch.tensor(part, dtype=torch.int64)] for key, value in asked.items()})
    ids, found = metric.per_query_values()
    _require(ids.tolist() == asked["query"].tolist(), "per_query_values must be in the order of the ids")
    _same(found, values, "a query's value must not depend on the batches, nor on the order of the queries")
    _same(metric.compute(), values.nanmean(), "compute() must not depend on the batches")


def _check_items(make: Callable[[], Metric], asked: dict[str, Tensor], values: Tensor) -> None:
    order = torch.randperm(_ITEMS, generator=torch.Generator().manual_seed(1))
    columns = ("scores", "relevant", "gains", "ignore", "a", "b")
    mixed = {key: value[:, order] if key in columns else value for key, value in asked.items()}
    _same(_values(make, mixed), values, "a query's value must not depend on the order of the items")
    if "ignore" not in asked:
        return
    changed = dict(asked)
    for key in ("scores", "a"):
        if key in asked:
            changed[key] = torch.where(asked["ignore"], asked[key].max() + 1, asked[key])
    _same(_values(make, changed), values, "what is ignored must count for nothing, whatever its score")


def _check_order(make: Callable[[], Metric], asked: dict[str, Tensor], names: Sequence[str]) -> None:
    good = asked["relevant"].double() if "gains" not in names and "relevant" in names else _judged()["gains"]
    key = "scores" if "scores" in asked else "a"
    best, worst = (_values(make, {**asked, key: sign * good}) for sign in (1, -1))
    sense = 1 if make().higher_is_better else -1
    what = "higher" if sense > 0 else "lower"
    better = sense * (best - worst).nanmean() > 0 and bool(
        (sense * (best - _values(make, asked)).nan_to_num() >= 0).all()
    )
    _require(bool(better), f"a perfect order must be the best, and {what} is better by higher_is_better")


def _check_ranks(make: Callable[[], Metric], asked: dict[str, Tensor]) -> None:
    """Plays two processes in one: each hears what the other sends, in the order in which it is sent."""
    whole = make()
    whole.update(**asked)
    for split in (5, _QUERIES):
        metrics = [make(), make()]
        for metric, rows in zip(metrics, (slice(0, split), slice(split, None)), strict=True):
            if len(asked["query"][rows]):
                metric.update(**{key: value[rows] for key, value in asked.items()})
        for call in (lambda metric: metric.compute(), lambda m: m.half_width(), lambda m: m.per_query_values()[1]):
            sent = [_sent(copy.deepcopy(metric), call) for metric in metrics]
            kinds = [[(part.dtype, part.dim()) for part in each] for each in sent]
            _require(kinds[0] == kinds[1], "every process must send the same states, also one that saw no query")
            found = _hearing(metrics[0], sent[1], call)
            who = "two processes" if split < _QUERIES else "a process beside one that saw no query"
            _same(found, call(whole), f"{who} must find what one does: states must be sums, or lists")


def _sent(metric: Metric, call: Callable[[Metric], Any]) -> list[Tensor]:
    sent: list[Tensor] = []

    def gather(part: Tensor, group: Any = None) -> list[Tensor]:
        sent.append(part.clone())
        return [part]

    metric.dist_sync_fn, metric.distributed_available_fn = gather, lambda: True
    call(metric)
    return sent


def _hearing(metric: Metric, others: list[Tensor], call: Callable[[Metric], Any]) -> Any:
    metric, waiting = copy.deepcopy(metric), list(others)
    metric.dist_sync_fn = lambda part, group=None: [part, waiting.pop(0)]
    metric.distributed_available_fn = lambda: True
    return call(metric)


def _check_ids(metric: Metric, asked: dict[str, Tensor]) -> None:
    for what, ids in (("no ids", None), ("fewer ids than queries", asked["query"][:-1])):
        try:
            metric.update(**{**asked, "query": ids})
        except ValueError:
            continue
        raise AssertionError(f"{what} must raise ValueError where per_query is set")


def _check_life(make: Callable[[], Metric], asked: dict[str, Tensor]) -> None:
    metric = make()
    metric.update(**asked)
    value = metric.compute()
    for what, other in (("a copy", metric.clone()), ("a pickled one", pickle.loads(pickle.dumps(metric)))):
        _same(other.compute(), value, f"{what} must hold the same")
    metric.reset()
    metric.update(**{key: each[:1] for key, each in asked.items()})
    _same(metric.per_query_values()[1], _values(make, asked)[:1], "reset() must forget")


def _values(make: Callable[[], Metric], asked: dict[str, Tensor]) -> Tensor:
    metric = make()
    metric.update(**asked)
    return metric.per_query_values()[1]


def _same(found: Any, wanted: Any, clause: str) -> None:
    found, wanted = torch.as_tensor(found), torch.as_tensor(wanted)
    fits = found.shape == wanted.shape and torch.allclose(found.double(), wanted.double(), atol=1e-9, equal_nan=True)
    _require(fits, f"{clause}: {found.tolist()} against {wanted.tolist()}")
