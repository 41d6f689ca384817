"""JSON files read piece by piece: damage, repeated keys and absurd nesting are errors that name the file."""

from __future__ import annotations

import re
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from zoo.files import BadFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DEEPEST = 100  # brackets open at once; each costs the parser memory, and real files open fewer than ten
_ALL_BUT_MARKS = bytes(set(range(256)) - set(b'[]{}"'))


def iter_items(path: Path, key: str) -> Iterator[Any]:
    """Yields the entries of the list under a top-level key of a JSON file, holding one at a time.

    Raises OSError where the file can't be opened, BadFile where it is damaged, truncated or nested more than 100 deep,
    or a key occurs twice in one object.
    """
    return _items(path, f"{key}.item", f" of {key!r}")


def read_whole(path: Path) -> Any:
    """Reads a JSON file as one value; raises as `iter_items` does."""
    (value,) = _items(path, "", "")
    return value


def iter_keys(path: Path) -> Iterator[tuple[str, bool]]:
    """Yields the top-level keys of a JSON object, and whether a list stands there; raises as `iter_items` does."""
    import ijson

    key = None
    with path.open("rb") as file, _naming(path, lambda: "no JSON, or damaged"):
        for prefix, event, value in ijson.parse(_Shallow(path, file)):
            if prefix == "" and event == "map_key":
                key = value
            elif key is not None and prefix == key:
                yield key, event == "start_array"
                key = None


def _items(path: Path, prefix: str, of: str) -> Iterator[Any]:
    import ijson

    number, twice = -1, []

    def place() -> str:
        entry = f" after entry {number}" if number >= 0 else " before the first entry"
        return f"damaged or truncated{entry + of if of else ''}; fetch it again"

    with path.open("rb") as file, _naming(path, place):
        objects = partial(_Unique, twice)
        for item in ijson.items(_Shallow(path, file), prefix, use_float=True, map_type=objects):
            number += 1
            if twice:  # perhaps in a later entry, for the parser builds ahead
                raise BadFile(f"{path}: a key may occur once in an object{of}, got {twice[0]!r} twice")
            yield item


class _Unique(dict):
    """An object that notes keys which occur twice; the parser would answer an exception with one of its own."""

    def __init__(self, twice: list[str]) -> None:
        super().__init__()
        self._twice = twice

    def __setitem__(self, key: str, value: Any) -> None:
        if key in self:
            self._twice.append(key)
        super().__setitem__(key, value)


class _Shallow:
    """A JSON file as the parser reads it, which refuses brackets nested deeper than `DEEPEST`."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._depth, self._quoted, self._backslash = 0, False, b""

    def read(self, size: int) -> bytes:
        """Reads as the file does; raises BadFile."""
        content = self._file.read(size)
        brackets = np.frombuffer(self._brackets(self._backslash + content), np.uint8)
        depths = self._depth + np.cumsum((brackets & 2).astype(np.int64) - 1)  # bit 1 tells [ and { from ] and }
        if depths.max(initial=0) > DEEPEST:
            raise BadFile(f"{self._path}: must be nested at most {DEEPEST} deep, got more")
        self._depth = int(depths[-1]) if len(depths) else self._depth
        return content

    def _brackets(self, content: bytes) -> bytes:
        """Returns the brackets outside strings; an escape that the next piece ends is kept for it."""
        self._backslash = b""
        if b"\\" in content:
            content = re.sub(rb"\\.", b"", content, flags=re.DOTALL)
            self._backslash = b"\\" if content.endswith(b"\\") else b""
        parts = content.translate(None, delete=_ALL_BUT_MARKS).split(b'"')
        outside = b"".join(parts[self._quoted :: 2])
        self._quoted ^= len(parts) % 2 == 0
        return outside


@contextmanager
def _naming(path: Path, place: Callable[[], str]) -> Iterator[None]:
    import ijson

    try:
        yield
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise BadFile(f"{path}: {place()} ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    text = error.args[0] if error.args else ""
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(error)
    return text.strip().splitlines()[0][:120] if text.strip() else type(error).__name__
