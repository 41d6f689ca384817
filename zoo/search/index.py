"""The contract of indexes: what is asked of one that holds a gallery and finds the items nearest to a query."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from zoo import registry
from zoo.files import BadFile
from zoo.search import storage
from zoo.search._features_join import joined
from zoo.search._tiers import has_text
from zoo.types import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from zoo.types import Ranking, Representation


class Index:
    """A gallery that is searched; ids are the caller's, all strings or all ints.

    An index is built from keyword arguments without defaults, which all stand in its YAML; `needs` names the fields of
    a `Representation` that it stores, `searched_by` those of a query of which one will do to search it, `()` for the
    first of `needs`; `tiny` holds the overrides with which `zoo.testing.check_index` builds it.
    `immediate` says that what is added is kept at once, without `save`; `largest_block` how many items should be added
    at a time, None for any number, where they are large.
    `fingerprint` is that of the model whose descriptors it holds, taken from the first `add`: items and queries of
    another model are refused, since they would give wrong answers without a word. An index without one (descriptors of
    unknown origin) takes anything of the right dimension. `about` is what `save` was told (model file, preprocessing).
    `reads_captions` says that `search` takes `words`; one that doesn't needs no such argument.
    `payloads` are small JSON mappings beside the items. `zoo.search.stored.StoredIndex` does all but the search.
    """

    needs: ClassVar[tuple[str, ...]] = ("vector",)
    searched_by: ClassVar[tuple[str, ...]] = ()
    tiny: ClassVar[Mapping[str, Any]] = {}
    immediate: ClassVar[bool] = False
    reads_captions: ClassVar[bool] = False
    largest_block: ClassVar[int | None] = None
    registered: dict[str, Any] | None = None
    fingerprint: str | None = None
    about: Mapping[str, Any] = {}

    @property
    def ready(self) -> bool:
        """Says whether it has learnt what it needs to be saved; those that learn nothing always are."""
        return True

    def sample_size(self, one: Representation) -> int:
        """Returns from how many items like `one` it wants to learn before anything is added; 0 where from none."""
        return 0

    def train(self, items: Representation) -> None:
        """Learns from a sample of the items that are going to be added; without it, from the first ones that are.

        Those with nothing to learn do nothing. Raises ValueError where something has been learnt already.
        """

    def learn(self, count: int, blocks: Callable[[int], Iterable[Representation]], stamp: str) -> None:
        """Learns as `train` does, from `count` items that come block by block, as `blocks(start)` gives them.

        What keeps them meanwhile can go on where it was interrupted: it asks for those from number `start` on, where
        `stamp`, which names the sample, is the same. Others take all of them at once.
        """
        self.train(joined(list(blocks(0))))

    def add(
        self,
        ids: Sequence[str] | Sequence[int],
        items: Representation,
        payloads: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Adds items (leading dimension one per id) behind those that are there.

        Raises ValueError for an id that is there already, another number of items than ids, another dimension, values
        that are not finite, or another model.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement add(ids, items, payloads)")

    def remove(self, ids: Sequence[str] | Sequence[int]) -> None:
        """Removes items; raises ValueError, changing nothing, where one is not there."""
        raise NotImplementedError(f"{type(self).__name__} must implement remove(ids)")

    def replace(
        self,
        ids: Sequence[str] | Sequence[int],
        items: Representation,
        payloads: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Puts other items in the place of those with the same ids, payloads too; they then count as the newest."""
        raise NotImplementedError(f"{type(self).__name__} must implement replace(ids, items, payloads)")

    def annotate(self, ids: Sequence[str] | Sequence[int], payloads: Sequence[Mapping[str, Any]]) -> None:
        """Puts other payloads in the place of those of items, which stay what and where they are.

        Raises ValueError, changing nothing, where an item is not there, or for payloads that aren't one mapping each.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement annotate(ids, payloads)")

    def search(
        self,
        queries: Representation | None,
        k: int,
        where: Mapping[str, Any] | None = None,
        words: Sequence[Sequence[str]] | None = None,
    ) -> list[Ranking]:
        """Returns for each query the (at most) k nearest items, nearest first; of equal ones the older comes first.

        `where` keeps the items whose payload has these values, or one of a list of values, under these keys. `words`
        holds for each query words as `zoo.search.captions.words_of` returns them, none for no text: items are then
        ranked by how many of them their `captions` in the payload hold, equal ones by score, so that scores fall
        among those of equally many `words` in the evidence; without `queries` (None) the older of equal ones comes
        first, of all items where there are no words either. Raises ValueError for k < 1, another dimension or another
        model, and for words where `reads_captions` is False.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement search(queries, k, where)")

    def get(self, ids: Sequence[str] | Sequence[int]) -> Representation:
        """Returns what is stored of items, in the order of `ids`; raises ValueError where one is not there."""
        raise NotImplementedError(f"{type(self).__name__} must implement get(ids)")

    def payloads(self, ids: Sequence[str] | Sequence[int]) -> list[dict[str, Any]]:
        """Returns the payloads of items, `{}` for one without; raises ValueError where one is not there."""
        raise NotImplementedError(f"{type(self).__name__} must implement payloads(ids)")

    @property
    def ids(self) -> list[str] | list[int]:
        """Returns all ids, oldest first."""
        raise NotImplementedError(f"{type(self).__name__} must implement ids")

    def __len__(self) -> int:
        """Returns N."""
        raise NotImplementedError(f"{type(self).__name__} must implement __len__()")

    def __contains__(self, item: object) -> bool:
        """Says whether an item with this id is there."""
        raise NotImplementedError(f"{type(self).__name__} must implement __contains__(id)")

    def known(self, ids: Sequence[str] | Sequence[int]) -> list[str] | list[int]:
        """Returns those of `ids` that are there, in their order; one question where each `in` would be a request."""
        return [name for name in ids if name in self]

    def place(self, folder: Path) -> None:
        """Tells a new index which folder it will be saved to, so that one with files of its own can put them there."""

    def save(self, folder: Path, about: Mapping[str, Any] | None = None) -> None:
        """Makes what the index holds the state of `folder`; a crash on the way leaves the former state.

        Raises ValueError where the folder holds another index, or was written since this one was opened.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement save(folder, about)")

    def restore(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        """Fills a new index with what `folder` holds; `open_index` calls it. Raises BadFile for damaged files."""
        raise NotImplementedError(f"{type(self).__name__} must implement restore(folder, manifest)")

    def described(self) -> dict[str, Any]:
        """Returns what a manifest says of every index: enough to build it again.

        Raises ValueError for one that was built past `zoo.create`.
        """
        if self.registered is None:
            raise ValueError(
                f"only an index made by zoo.create('index', …) can be saved, not a bare {type(self).__name__}"
            )
        return {"index": self.registered, "fingerprint": self.fingerprint, "about": dict(self.about)}

    def refuse_words(self, words: Sequence[Sequence[str]] | None) -> None:
        """Raises ValueError where there are words and this index doesn't take any."""
        if has_text(words) and not self.reads_captions:
            name = name_of(self)
            raise ValueError(
                f"words need an index that reads captions, which {name} doesn't: index=flat and the others that keep "
                f"their items in a folder do; got {next(list(own) for own in words if len(own))}"
            )

    def check_model(self, items: Representation, what: str) -> None:
        """Raises ValueError where `items` come from another model than what the index holds."""
        if self.fingerprint is not None and items.fingerprint != self.fingerprint:
            other = f"the model {items.fingerprint}" if items.fingerprint else "an unknown model (no fingerprint)"
            raise ValueError(f"the index holds descriptors of the model {self.fingerprint}, got {what} of {other}")


def open_index(folder: Path | str) -> Index:
    """Returns the index, of whatever kind, that `save` wrote to `folder`, after checking every file of it.

    Raises BadFile naming the file and the cause where it can't be used; nothing in the folder is ever executed.
    """
    folder = Path(folder)
    manifest = storage.read_manifest(folder)
    registered = manifest.get("index")
    if not isinstance(registered, dict) or not {"name", "parameters"} <= registered.keys():
        raise BadFile(f"{folder / storage.MANIFEST} does not say which index it is")
    try:
        index = registry.load("index", registered["name"])(**registered["parameters"])
    except registry.UsageError as error:
        raise registry.UsageError(f"{folder} was written by {registered.get('origin')}: {error}") from error
    except TypeError as error:
        raise BadFile(
            f"{folder / storage.MANIFEST} has other parameters than '{registered['name']}': {error}"
        ) from None
    index.registered, index.fingerprint, index.about = registered, manifest["fingerprint"], manifest["about"]
    index.restore(folder, manifest)
    return index
