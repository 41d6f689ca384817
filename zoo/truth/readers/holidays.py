"""The ground truth of Holidays, which the names of its images state."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from zoo.truth.relevance import RelevanceLists

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAME = re.compile(r"\d{6}")


def holidays_lists(names: Sequence[str]) -> RelevanceLists:
    """Returns the lists of INRIA Holidays (Jégou et al. 2008) for a gallery of these names, such as 100301.

    The first four digits are a group, and the image that ends in 00 asks for the others of its group; a name of another
    form is a distractor. Raises ValueError where no name ends in 00.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        if _NAME.fullmatch(name):
            groups.setdefault(name[:4], []).append(name)
    queries = tuple(f"{group}00" for group in sorted(groups) if f"{group}00" in groups[group])
    if not queries:
        first = next(iter(names), "nothing")
        raise ValueError(f"names must be those of Holidays, six digits, of a query 00 at the end, got '{first}'")
    relevant = tuple(tuple(name for name in groups[query[:4]] if name != query) for query in queries)
    return RelevanceLists(queries, queries, {"relevant": relevant}, boxes=None, gallery_ids=tuple(names))
