"""Mapillary Street-Level Sequences with the queries of leaderboards: a different protocol, never in one table."""

from __future__ import annotations

from zoo.evaluation.benchmarks.msls import Msls


class MslsLeaderboard(Msls):
    """As `Msls` with the centre frames alone as queries (740 of the validation cities)."""

    name, title = "msls_leaderboard", "MSLS, leaderboard queries"
    leaderboard = True


export = MslsLeaderboard
