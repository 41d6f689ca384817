"""Every registered metric keeps the contract, and one that breaks a clause of it is told which."""

from __future__ import annotations

import inspect

import pytest
import torch

from zoo import registry
from zoo.metrics.map import RetrievalMAP
from zoo.metrics.ndcg import RetrievalNDCG
from zoo.metrics.query_mean import QueryMean
from zoo.metrics.spearman import RankSpearman
from zoo.testing import check_metric


@pytest.mark.parametrize("name", registry.entries("metrics"))
def test_every_metric_keeps_the_contract(name):
    check_metric(name)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("map", {"k": 4}),
        ("map", {"convention": "trapezoid"}),
        ("ndcg", {"k": 5, "gain": "exponential"}),
        ("precision", {"k": 3, "capped": False}),
        ("recall", {"k": 2, "any_hit": False}),
    ],
)
def test_so_it_does_with_other_settings(name, parameters):
    check_metric(name, **parameters)


def test_a_plugins_metric_is_held_to_it_too(plugins):
    check_metric("acme_mrr")


class LastBatch(RetrievalMAP):
    """Remembers the last batch alone."""

    def add(self, values, query):
        if len(values):
            self.reset()
        super().add(values, query)


class ByPlace(RetrievalMAP):
    """Looks at where items stand in the gallery."""

    def measure(self, scores, relevant, ignore, n_relevant):
        found = super().measure(scores, relevant, ignore, n_relevant)
        return torch.where(found.isnan(), found, scores.argmax(1).double())


class Lower(RetrievalMAP):
    higher_is_better = False


class Senseless(RetrievalMAP):
    higher_is_better = None


class Junk(RetrievalMAP):
    """Counts what is ignored as irrelevant."""

    def measure(self, scores, relevant, ignore, n_relevant):
        return super().measure(scores, relevant & ~ignore, None, None)


class Infinite(RetrievalMAP):
    def measure(self, scores, relevant, ignore, n_relevant):
        return super().measure(scores, relevant, ignore, n_relevant).nan_to_num(torch.inf)


class Undefined(RetrievalMAP):
    def measure(self, scores, relevant, ignore, n_relevant):
        return super().measure(scores, relevant, ignore, n_relevant) * torch.nan


class Forgotten(RetrievalMAP):
    """Leaves queries without a value out, uncounted."""

    def add(self, values, query):
        super().add(values, query)
        self.undefined.zero_()


class MeanOfMeans(RetrievalMAP):
    def compute(self):
        return super().compute() / 2


class Mean(RetrievalMAP):
    """Has states of which processes take the mean, as torchmetrics offers it."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self._reductions["total"] = torch.mean


class Silent(RetrievalMAP):
    """Sends nothing where a process saw no query."""

    def _fill_empty_lists(self):
        pass


class AnyIds(RetrievalMAP):
    def add(self, values, query):
        super().add(values, torch.arange(len(values)) if query is None else query)


class Sticky(RetrievalMAP):
    def reset(self):
        pass


class Wide(RetrievalMAP):
    def half_width(self):
        return -super().half_width()


class Local(RetrievalMAP):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.keep = lambda: 0


class Unnamed(RetrievalMAP):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.label = ""


class Secret(RetrievalMAP):
    def update(self, scores, relevant, colours, ignore=None, query=None):
        super().update(scores, relevant, ignore, None, query)


class Nameless(RetrievalMAP):
    def update(self, scores, relevant, ignore=None):
        super().update(scores, relevant, ignore)


class Blind(RetrievalMAP):
    def update(self, scores, query):
        self.add(scores[:, 0], query)


@pytest.mark.filterwarnings("ignore:.*was called before the ``update`` method.*")
@pytest.mark.parametrize(
    ("broken", "clause"),
    [
        (object, "must derive from torchmetrics.Metric"),
        (Unnamed, "label must be a text that isn't empty"),
        (Secret, "colours, which nobody gives"),
        (Blind, "update must take scores with relevant or gains, or a with b"),
        (Nameless, "update must take query"),
        (Infinite, "values must be finite, or NaN"),
        (Undefined, "a query with relevant items must have a value"),
        (MeanOfMeans, r"compute\(\) must be the mean of the queries' values"),
        (Forgotten, "undefined must count the queries without a value"),
        (Wide, r"half_width\(\) must be finite and not negative"),
        (LastBatch, "per_query_values must be in the order of the ids"),
        (ByPlace, "must not depend on the order of the items"),
        (Junk, "what is ignored must count for nothing"),
        (Senseless, "higher_is_better must be True or False, got None"),
        (Lower, "a perfect order must be the best, and lower is better"),
        (Mean, "two processes must find what one does"),
        (Silent, "every process must send the same states"),
        (AnyIds, "no ids must raise ValueError"),
        (Local, "pickle"),
        (Sticky, r"reset\(\) must forget"),
    ],
)
def test_a_broken_clause_is_named(broken, clause, monkeypatch):
    monkeypatch.setattr("zoo.testing.metrics.check_signature", lambda kind, name: None)
    monkeypatch.setattr(registry, "load", lambda kind, name: broken)
    with pytest.raises((AssertionError, AttributeError), match=clause):
        check_metric("map")


def test_values_must_not_depend_on_the_batch(monkeypatch):
    def relative(self, values, query):
        QueryMean.add(self, values - (values.nanmean() if len(values) else 0), query)

    monkeypatch.setattr(RankSpearman, "add", relative, raising=False)
    with pytest.raises(AssertionError, match="a query's value must not depend on the batches"):
        check_metric("spearman")


def test_what_is_ignored_must_not_be_ranked(monkeypatch):
    update = RetrievalNDCG.update

    def careless(self, scores, gains, ignore=None, ideal=None, query=None):
        update(self, scores, torch.where(ignore, 0, gains), None, ideal, query)

    assert list(inspect.signature(careless).parameters) == list(inspect.signature(update).parameters)
    monkeypatch.setattr(RetrievalNDCG, "update", careless)
    with pytest.raises(AssertionError, match="what is ignored must count for nothing"):
        check_metric("ndcg")


def test_an_argument_beside_the_yaml_is_named(monkeypatch):
    class More(RetrievalMAP):
        def __init__(self, *, depth, **shared):
            super().__init__(**shared)

    monkeypatch.setattr(registry, "load", lambda kind, name: More)
    with pytest.raises(AssertionError, match=r"only in YAML \[\], only in code \['depth'\]"):
        check_metric("map")
