"""Mapillary Street-Level Sequences with the queries of leaderboards: a different protocol, never in one table."""

from __future__ import annotations

from zoo.evaluation.benchmarks.msls import Msls


class MslsLeaderboard(Msls):
    """As `Msls`, with those queries and database images alone that `subtask_index.csv` marks for all subtasks.

    In the validation cities these are reported to be 740 queries with positives, and 18,871 database images.
    """

    name, title = "msls_leaderboard", "MSLS, leaderboard queries"
    leaderboard = True


export = MslsLeaderboard
