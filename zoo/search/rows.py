"""What an index keeps beside its descriptors: growing arrays, the caller's ids, and small JSON payloads."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.search.captions import CaptionWords, captions_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LINE = 64  # bytes of a cache line
_SEPARATOR = "\0"  # between texts on disk; no path and no JSON holds it
_ESCAPED = "surrogatepass"  # names of files that are not UTF-8 hold lone surrogates


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Returns an empty array that begins with a cache line; vector instructions read another half as fast."""
    dtype = np.dtype(dtype)
    if dtype.hasobject:
        return np.empty(shape, dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(size + _LINE, np.uint8)
    start = -raw.ctypes.data % _LINE
    return raw[start : start + size].view(dtype).reshape(shape)


class Growing:
    """Rows that grow by amortised doubling, so that adding a million items in small batches stays linear."""

    def __init__(self, dtype: Any, *shape: int) -> None:
        self._store = aligned((0, *shape), dtype)
        self._count = 0

    @classmethod
    def over(cls, rows: np.ndarray) -> Growing:
        """Returns `rows` (n, …), which stay where they are, in a mapped file say, until something is added."""
        growing = cls(rows.dtype, *rows.shape[1:])
        growing._store, growing._count = rows, len(rows)
        return growing

    @property
    def rows(self) -> np.ndarray:
        """Returns what was appended, (n, …), as a view."""
        return self._store[: self._count]

    def append(self, rows: np.ndarray) -> None:
        """Adds rows behind the last one."""
        end = self._count + len(rows)
        if end > len(self._store):
            bigger = aligned((max(end, len(self._store) * 3 // 2), *self._store.shape[1:]), self._store.dtype)
            bigger[: self._count] = self.rows
            self._store = bigger
        self._store[self._count : end] = rows
        self._count = end

    def keep(self, mask: np.ndarray) -> None:
        """Drops the rows where `mask (n,)` is False; the others keep their order."""
        kept = self.rows[mask]
        self._store = aligned(kept.shape, kept.dtype)
        self._store[:], self._count = kept, len(kept)


class Ids:
    """The caller's ids, all strings or all ints, by position and by value."""

    def __init__(self) -> None:
        self._rows: Growing | None = None
        self._positions: dict[Any, int] | None = None  # made when first asked for: searching alone needs none

    def __len__(self) -> int:
        """Returns the number of ids."""
        return 0 if self._rows is None else len(self._rows.rows)

    @property
    def array(self) -> np.ndarray:
        """Returns the ids (n,) as objects or int64."""
        return np.empty(0, object) if self._rows is None else self._rows.rows

    def checked(self, ids: Sequence[Any]) -> np.ndarray:
        """Returns ids as an array.

        Raises ValueError where they are neither all strings nor all ints, not of the kind of those that are there, or
        where one appears twice.
        """
        array = _integers(ids)
        if array is None:
            array = _names_or_integers(ids if isinstance(ids, list) else list(ids))
        if len(self) and len(array) and array.dtype != self._rows.rows.dtype:
            there, got = ("str" if rows.dtype == object else "int" for rows in (self._rows.rows, array))
            raise ValueError(f"ids must be of one kind: the index has {there}, got {got}")
        if array.dtype == object or not (array[1:] > array[:-1]).all():
            _check_unique(array.tolist() if array.dtype != object or not isinstance(ids, list) else ids)
        return array

    def append(self, ids: np.ndarray) -> None:
        """Adds ids that `checked` returned and that are not there yet."""
        if self._positions is not None:
            self._positions.update(zip(ids.tolist(), range(len(self), len(self) + len(ids)), strict=True))
        if len(self):
            self._rows.append(ids)
        else:
            self._rows = Growing.over(ids)

    def keep(self, mask: np.ndarray) -> None:
        """Drops the ids where `mask (n,)` is False."""
        self._rows.keep(mask)
        self._positions = None

    def find(self, value: Any) -> int | None:
        """Returns the position of an id, or None."""
        if self._positions is None:
            self._positions = dict(zip(self.array.tolist(), range(len(self)), strict=True))
        return self._positions.get(value)

    def positions(self, ids: Sequence[Any]) -> np.ndarray:
        """Returns the positions (n,) int64 of ids; raises ValueError naming the first that is not there."""
        ids = ids.tolist() if hasattr(ids, "tolist") else ids
        found = [self.find(value) for value in ids]
        if None in found:
            raise ValueError(f"the index has no item with the id {list(ids)[found.index(None)]!r}")
        return np.array(found, np.int64)

    def clash(self, ids: np.ndarray) -> Any:
        """Returns the first of `ids` that is there already, or None."""
        return next((value for value in ids.tolist() if self.find(value) is not None), None) if len(self) else None


class Payloads:
    """A small JSON mapping beside every item, with the filter that `where` asks for."""

    def __init__(self) -> None:
        self._texts: Growing | None = None  # made for the first that isn't empty
        self._empty = 0  # as long as all are
        self._columns: dict[str, tuple[np.ndarray, dict[Any, int]]] = {}
        self._words: CaptionWords | None = None  # made when first asked for

    def __len__(self) -> int:
        """Returns the number of payloads."""
        return self._empty if self._texts is None else len(self._texts.rows)

    def append(self, texts: np.ndarray) -> None:
        """Adds payloads in the form that `payload_texts` returns."""
        self._columns.clear()
        if self._texts is None and not texts.any():
            self._empty += len(texts)
            return
        if self._texts is None:
            self._texts = Growing(object)
            self._texts.append(self._blank())
        self._texts.append(texts)

    def keep(self, mask: np.ndarray) -> None:
        """Drops the payloads where `mask (n,)` is False."""
        self._columns.clear()
        if self._words is not None:
            self._words.keep(mask[: len(self._words)])
        if self._texts is None:
            self._empty = int(mask.sum())
        else:
            self._texts.keep(mask)

    @property
    def texts(self) -> np.ndarray:
        """Returns the payloads (n,) as JSON, "" for an empty one."""
        return self._blank() if self._texts is None else self._texts.rows

    def _blank(self) -> np.ndarray:
        return np.full(self._empty, "", object)

    def at(self, positions: np.ndarray) -> list[dict[str, Any]]:
        """Returns the mappings at `positions`."""
        if self._texts is None and not isinstance(positions, slice):
            return [{} for _ in positions]
        return [json.loads(text) if text else {} for text in self.texts[positions].tolist()]

    def matching(self, where: Mapping[str, Any]) -> np.ndarray:
        """Returns where (n,) all of `where` holds: payload[key] equals the value, or one of a list of values."""
        mask = np.ones(len(self.texts), bool)
        for key, values in wanted(where).items():
            codes, known = self._column(key)
            mask &= np.isin(codes, [known[value] for value in values if value in known])
        return mask

    def word_counts(self, words: Sequence[str]) -> np.ndarray:
        """Returns how many different ones of `words` the captions of every item hold, (n,) int64.

        Raises ValueError where the captions of a payload aren't a list of strings.
        """
        return self._up_to_date().counts(words)

    def captioned(self) -> int:
        """Returns how many items have captions; raises as `word_counts` does."""
        return self._up_to_date().captioned

    def _up_to_date(self) -> CaptionWords:
        if self._words is None:
            self._words = CaptionWords()
        if len(self._words) < len(self):
            self._words.append([captions_of(payload) for payload in self.at(slice(len(self._words), None))])
        return self._words

    def put(self, positions: np.ndarray, texts: np.ndarray) -> None:
        """Puts other payloads, in the form that `payload_texts` returns, in the place of those at `positions`."""
        whole = self.texts
        whole[positions] = texts
        if self._texts is None:
            self._texts = Growing(object)
            self._texts.append(whole)
        self._columns.clear()
        self._words = None

    def _column(self, key: str) -> tuple[np.ndarray, dict[Any, int]]:
        """Returns a number for the value of `key` in every payload, -1 without one, and the values' numbers."""
        if key not in self._columns:
            known: dict[Any, int] = {}
            codes = np.full(len(self.texts), -1, np.int32)
            for place, payload in enumerate(self.at(slice(None))):
                value = payload.get(key)
                if isinstance(value, str | int | float):
                    codes[place] = known.setdefault(value, len(known))
            self._columns[key] = codes, known
        return self._columns[key]


def wanted(where: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Returns the values that each key of a filter may have; raises ValueError for what can't be compared."""
    result = {}
    for key, values in where.items():
        values = list(values) if isinstance(values, list | tuple | set | frozenset) else [values]
        if not isinstance(key, str) or not all(isinstance(v, str) or _is_finite(v) for v in values):
            raise ValueError(f"where must map names to strings, numbers, booleans or lists of them, got {where!r}")
        result[key] = values
    return result


def payload_texts(payloads: Sequence[Mapping[str, Any]] | None, count: int) -> np.ndarray:
    """Returns payloads as JSON (count,), "" for an empty one; raises ValueError for another number or no JSON."""
    if payloads is None:
        return np.full(count, "", object)
    if len(payloads) != count:
        raise ValueError(f"payloads must be one mapping per id, got {len(payloads)} for {count} ids")
    try:
        dumped = [json.dumps(dict(p), ensure_ascii=False, separators=(",", ":")) if p else "" for p in payloads]
    except (TypeError, ValueError) as error:
        raise ValueError(f"payloads must be mappings that JSON can hold: {error}") from None
    return _array(dumped)


def pack(values: np.ndarray) -> np.ndarray:
    """Returns ids or texts in the form that is written: int64, or the bytes of all strings with separators."""
    if values.dtype != object:
        return values
    return np.frombuffer(_SEPARATOR.join(values.tolist()).encode("utf-8", _ESCAPED), np.uint8)


def unpack(stored: np.ndarray, count: int) -> np.ndarray:
    """Returns what `pack` was given, `count` values; raises ValueError where the number differs."""
    if count and stored.dtype == np.uint8 and len(stored) == count - 1 and not stored.any():
        # A million empty payloads take no memory.
        return np.broadcast_to(np.array("", object), count)
    if stored.dtype != np.uint8:
        values = stored
    else:
        values = _array(stored.tobytes().decode("utf-8", _ESCAPED).split(_SEPARATOR) if count else [])
    if len(values) != count:
        raise ValueError(f"it holds {len(values)} values instead of {count}")
    return values


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _integers(ids: Any) -> np.ndarray | None:
    """Returns an array, a tensor or a range of integers as int64, None for anything else."""
    if isinstance(ids, range):
        return np.arange(ids.start, ids.stop, ids.step)
    array = np.asarray(ids) if hasattr(ids, "dtype") else None
    return array.astype(np.int64) if array is not None and array.ndim == 1 and array.dtype.kind == "i" else None


def _names_or_integers(ids: list[Any]) -> np.ndarray:
    ids = [value.item() if isinstance(value, np.generic) else value for value in ids] if _holds_numpy(ids) else ids
    if ids and type(ids[0]) is int and set(map(type, ids)) == {int}:
        try:
            return np.array(ids, np.int64)
        except OverflowError:
            raise ValueError("ids that are ints must fit into 64 bits") from None
    try:
        return _array(ids)
    except TypeError:
        kinds = sorted({type(value).__name__ for value in ids})
        raise ValueError(f"ids must be all strings or all ints, got {kinds}") from None


def _holds_numpy(ids: list[Any]) -> bool:
    return bool(ids) and isinstance(ids[0], np.generic)


def _check_unique(ids: list[Any]) -> None:
    if len(set(ids)) < len(ids):
        seen: set[Any] = set()
        repeated = next(value for value in ids if value in seen or seen.add(value))
        raise ValueError(f"ids must be unique, got {repeated!r} twice")


def _array(texts: list[str]) -> np.ndarray:
    """Returns strings as objects; raises TypeError for anything else."""
    if texts and _SEPARATOR.join(texts).count(_SEPARATOR) != len(texts) - 1:
        raise ValueError("ids and payloads must not hold the character NUL")
    array = np.empty(len(texts), object)
    array[:] = texts
    return array
