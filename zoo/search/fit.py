"""Whether a model, data, an index and re-rankers fit together: every command asks here, before any image is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.registry import UsageError
from zoo.types import name_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_USUAL = ("images",)  # of a batch, where neither model nor data says otherwise


def check_batches(model: Any, data: Any) -> None:
    """Raises UsageError, naming both lists, where the batches of `data` lack a field that the model reads."""
    reads, gives = tuple(getattr(model, "takes", _USUAL)), tuple(getattr(data, "gives", _USUAL))
    if not set(reads) <= set(gives):
        raise UsageError(
            f"model '{name_of(model)}' reads the batch fields {list(reads)}, data '{name_of(data)}' gives {list(gives)}"
        )


def check_training(model: Any, data: Any) -> None:
    """Raises ValueError where the model can't be trained on `data`; one that is only fitted reads it as it is."""
    if not model.trained:
        check_batches(model, data)
    model.check_data(data)  # first: it knows best which data would do
    if model.trained and not getattr(data, "gives_training", True):
        raise UsageError(
            f"model '{name_of(model)}' is trained by gradient, data '{name_of(data)}' serves evaluation, embedding and "
            "fitting alone: it says nothing to train on"
        )


def check_search(
    index: Any, stages: Mapping[str, Any], held: Collection[str], holder: str, index_name: str | None = None
) -> None:
    """Raises UsageError where an index or a re-ranker needs fields that aren't `held`, naming both lists and whose.

    Also where a re-ranker that searches again expands the query to what the index isn't searched by. `stages` are name
    → re-ranker; `index_name` is what the index is called, None where nobody chose it; `holder` begins the list of what
    there is: "the model fills".
    """
    users = {index_name or f"the index {name_of(index)}": index, **stages}
    lacking = {name: fields for name, user in users.items() if (fields := lacking_fields(user, held))}
    if lacking:
        needs = list(dict.fromkeys(kind for user in users.values() for kind in user.needs))
        chain = ", ".join([*([index_name] if index_name else []), *stages]) or f"the index {name_of(index)}"
        told = "; ".join(f"{name} lacks {', '.join(fields)}" for name, fields in lacking.items())
        raise UsageError(f"{chain} need the representation fields {needs}, {holder} {list(held)}: {told}")
    check_expansions(index, stages)


def lacking_fields(user: Any, held: Collection[str]) -> list[str]:
    """Returns what an index or a re-ranker needs of a representation and isn't `held`."""
    return [field for field in user.needs if field not in held]


def check_expansions(index: Any, stages: Mapping[str, Any]) -> None:
    """Raises UsageError where a re-ranker searches again by fields that the index isn't searched by."""
    searched_by = tuple(index.searched_by) or tuple(index.needs[:1])
    for name, stage in stages.items():
        expands = tuple(getattr(stage, "expands", ())) if hasattr(stage, "expand") else ()
        if expands and not set(searched_by) & set(expands):
            raise UsageError(
                f"{name} searches again by the representation fields {list(expands)}, the index {name_of(index)} is "
                f"searched by {list(searched_by)}: choose another index"
            )
