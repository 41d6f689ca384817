"""Oxford5k and Paris6k with every image of a landmark as the query in turn: more queries than the published 55."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.evaluation.benchmarks.oxford import Oxford
from zoo.truth.regroup import in_turn

if TYPE_CHECKING:
    from zoo.evaluation.source import Source
    from zoo.truth.relevance import RelevanceLists


class OxfordLeaveOneOut(Oxford):
    """Trapezoidal mAP, each good or ok image asking for the others; see `conf/benchmark/oxford_leave_one_out.yaml`.

    Queries are whole images and are left out of the gallery's list. An image of several landmarks asks for those of all
    of them; junk of its landmarks is taken out. Raises ValueError where queries lie outside the gallery.
    """

    name, title = "oxford_leave_one_out", "Oxford/Paris, leave one out"
    leave_out_query = True

    def read(self, source: Source) -> RelevanceLists:
        """Returns for each good or ok image the others of its landmarks."""
        if not source.queries_in_gallery:
            raise ValueError(f"benchmark '{self.name}' asks with images of the gallery: leave out data.queries")
        return in_turn(super().read(source))


export = OxfordLeaveOneOut
