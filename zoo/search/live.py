"""Images that a model describes when they are asked for: features that are never written."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from zoo.search._features_join import joined, to_original
from zoo.search._names import named
from zoo.search.features import Features

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from zoo.search.features import Id
    from zoo.types import Representation

log = logging.getLogger("zoo")

_SIZES = ("width", "height")  # known once an image was read
_KEPT = 1 << 28  # bytes of descriptions that are kept: what an index has learnt from is added to it soon
_AT_ONCE = 32  # images


class _Described(NamedTuple):
    """What the model makes of one image, and its height and width in px."""

    items: Representation
    size: list[int]


class LiveFeatures(Features):
    """The images of a data module's gallery, described by the model when they are asked for.

    For representations that are too large to be kept, but for the first 256 MB, which aren't described twice.
    `payloads` says of each id what is known before it is read; width and height are added then. What can't be read is
    named in the log, collected in `unreadable` with the reason, and left out by `described`; `rows` raises what reading
    raises.
    """

    def __init__(
        self, root: Path, model: Any, data: Any, payloads: Mapping[str, Mapping[str, Any]], about: Any
    ) -> None:
        super().__init__(root, list(payloads), model.kinds, model.fingerprint(), about)
        self.model, self._data, self._known = model, data, payloads
        self.unreadable: dict[Id, str] = {}
        self._kept: dict[Id, _Described] = {}
        self._room = _KEPT

    @property
    def at_once(self) -> int | None:
        """Returns how many images are best asked for at a time: few, so that a bar moves, but where workers start."""
        return None if self._data.num_workers else max(_AT_ONCE, self._data.batch_size)

    def rows(self, places: Sequence[int]) -> Representation:
        """Returns the images at these positions."""
        return self._read([self.ids[place] for place in places], tolerant=False)[1]

    def row_payloads(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """Returns what is known of the images at these positions before they are read."""
        return [dict(self._known[self.ids[place]]) for place in places]

    def described(self, ids: Sequence[Id]) -> tuple[list[Id], Representation | None, list[dict[str, Any]]]:
        """Returns those of the images that can be read: their ids, what the model makes of them, and payloads."""
        done, items, sizes = self._read(ids, tolerant=True)
        payloads = [
            {**self._known[id_], "width": width, "height": height}
            for id_, (height, width) in zip(done, sizes, strict=True)
        ]
        return done, items, payloads

    def same(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
        """Tells whether the payload of an index is that of an image which hasn't changed."""
        return {key: value for key, value in old.items() if key not in _SIZES} == new

    def _read(self, ids: Sequence[Id], tolerant: bool) -> tuple[list[Id], Representation | None, list[list[int]]]:
        found = {id_: self._kept[id_] for id_ in ids if id_ in self._kept}
        found |= self._described([id_ for id_ in ids if id_ not in found], tolerant)
        done = [id_ for id_ in ids if id_ in found]
        if not done:
            return [], None, []
        return done, joined([found[id_].items for id_ in done]), [found[id_].size for id_ in done]

    def _described(self, ids: Sequence[Id], tolerant: bool) -> dict[Id, _Described]:
        """Returns those of the images that can be read, and keeps them while there is room."""
        found: dict[Id, _Described] = {}
        for batch in self._data.selection(self._data.gallery_split, list(ids), tolerant=tolerant) if ids else ():
            for position, reason in batch.unreadable:
                if ids[position] not in self.unreadable:
                    log.warning("left out: %s", reason)
                self.unreadable[ids[position]] = reason
            if not len(batch):
                continue
            batch = batch.to(self.model.device)
            items = to_original(self.model.represent(batch, "gallery"), batch.images.shape[2:], batch.original_size)
            items = items.to("cpu")
            for row, (position, size) in enumerate(
                zip(batch.index.tolist(), batch.original_size.tolist(), strict=True)
            ):
                found[ids[position]] = _Described(items.rows([row]), size)
        for id_, one in found.items():
            bytes_ = sum(value.nbytes for value in one.items.filled().values())
            if bytes_ <= self._room:
                self._kept[id_] = one
                self._room -= bytes_
        return found

    def tell_unreadable(self) -> None:
        """Sums up in a warning what could not be read."""
        if self.unreadable:
            count, names = len(self.unreadable), named(list(self.unreadable))
            log.warning("%d images could not be read, and aren't in the index (%s)", count, names)
