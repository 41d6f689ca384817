"""What the tests of ranked benchmarks share: names, made-up scores, and a file to judge."""

from __future__ import annotations

import json

import numpy as np

from zoo.evaluation.predictions import Predictions
from zoo.evaluation.source import Source

NAMES = tuple(f"i{number:02}" for number in range(30))
QUERIES = ("qa", "qb", "qc")


def judged(benchmark, predictions, data=None):
    benchmark.open_source(Source.of_predictions(predictions, data, benchmark.name))
    return benchmark.score_predictions(predictions)


def values(report, label):
    return list(report.own.cells[label].per_query)


def random_scores(queries=3, items=30, seed=0):
    return np.random.default_rng(seed).normal(size=(queries, items))


def dense(scores, queries=QUERIES, names=NAMES):
    return Predictions(tuple(queries), tuple(names), scores=scores)


def order(scores, drop=()):
    """Names by falling score, without those to drop."""
    return [NAMES[place] for place in np.argsort(-scores, kind="stable") if NAMES[place] not in drop]


def write_json(path, content):
    path.write_text(json.dumps(content))
    return str(path)
