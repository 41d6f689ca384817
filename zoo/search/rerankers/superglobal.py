"""SuperGlobal re-ranking."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.checks import check_integers, check_positive
from zoo.search.refinement import CONVENTIONS, superglobal
from zoo.search.reranking import HitReranker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from zoo.search.reranking import Evidence
    from zoo.types import Representation

PRESETS = {"paper": {"p": 1, "beta": 0.6}, "authors": {"p": 9, "beta": 0.15}}


class SuperGlobal(HitReranker):
    """Scores hits refined by their neighbours, with the query and with a refined query.

    `conf/reranker/superglobal.yaml` explains the parameters; None takes the convention's value. Raises ValueError for
    an unknown convention, p below 1 and beta of 0 or below.
    """

    def __init__(self, *, convention: str, p: int | None, beta: float | None) -> None:
        if convention not in CONVENTIONS:
            raise ValueError(f"convention must be one of {', '.join(CONVENTIONS)}, got {convention!r}")
        preset = PRESETS[convention]
        self.convention = convention
        self.p = preset["p"] if p is None else p
        self.beta = preset["beta"] if beta is None else beta
        check_integers(1, p=self.p)
        check_positive(beta=self.beta)

    def score(
        self,
        query: Representation,
        hits: Representation,
        query_metadata: Mapping[str, Any],
        hit_metadata: Sequence[Mapping[str, Any]],
    ) -> tuple[Tensor, Evidence | None]:
        """Returns the averaged similarities."""
        vectors = hits.vector[None]
        return superglobal(query.vector, vectors, self.p, self.beta, convention=self.convention)[0], None


export = SuperGlobal
