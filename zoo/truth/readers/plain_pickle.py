"""Pickles of plain data, read without executing anything that they name.

Neither NumPy's own unpickling nor any other foreign function is called: arrays are rebuilt here from their bytes,
since a hostile pickle could hand NumPy a type whose bytes are taken for object pointers.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

DTYPES = re.compile(r"b1|[iu][1248]|f[248]|[US]\d{1,6}|O8?")
OLD_MODULES = {"__builtin__": "builtins"}  # Python 2
NEW_MODULES = {"numpy._core.multiarray": "numpy.core.multiarray", "numpy._core.numeric": "numpy.core.numeric"}


class Refused(pickle.UnpicklingError):
    """A pickle asks for something that is no plain data."""


class PlainArray:
    """An array as a pickle describes it; `tolist` gives its values once the pickle is read."""

    __slots__ = ("_values",)

    def __init__(self, values: np.ndarray | list) -> None:
        self._values = values

    def __setstate__(self, state: tuple) -> None:
        shape, dtype, fortran, data = state[-4:]  # a version number may come first
        if isinstance(data, str):
            data = data.encode("latin1")  # Python 2's bytes
        self._values = dtype.values(data, shape, "F" if fortran else "C")

    def tolist(self) -> Any:
        """Returns the values as nested lists of plain numbers and strings."""
        return self._values if isinstance(self._values, list) else self._values.tolist()


class _PlainType:
    """An element type as a pickle describes it: numbers, strings of fixed length, or objects in a list."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        if not (isinstance(code, str) and DTYPES.fullmatch(code)):
            raise Refused(f"a NumPy type {code!r}")
        self.code, self.order = code, "|"

    def __setstate__(self, state: tuple) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise Refused(f"a byte order {state[1]!r}")
        self.order = state[1]

    def values(self, data: Any, shape: tuple[int, ...], order: str) -> np.ndarray | list:
        if self.code.startswith("O"):
            if not isinstance(data, list) or len(shape) != 1:
                raise Refused("an array of objects that is no list")
            return data
        dtype = np.dtype(self.order + self.code)
        if len(data) != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"an array of shape {shape} and type {dtype} can't have {len(data)} bytes")
        array = np.frombuffer(bytes(data), dtype).reshape(shape, order=order)
        return np.char.decode(array, "latin1") if dtype.kind == "S" else array


class _StandIn:
    """A function that a pickle may call and that it can't change."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise Refused("a change of a function")


class _PlainUnpickler(pickle.Unpickler):
    """Finds a fixed table of stand-ins, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        home = NEW_MODULES.get(module, OLD_MODULES.get(module, module))
        known: dict[tuple[str, str], Callable | str] = {
            ("builtins", "set"): set,
            ("builtins", "frozenset"): frozenset,
            ("builtins", "bytes"): self._no_bytes,
            ("_codecs", "encode"): self._encode,
            ("numpy", "dtype"): self._dtype,
            ("numpy", "ndarray"): "numpy.ndarray",
            ("numpy.core.multiarray", "_reconstruct"): self._reconstruct,
            ("numpy.core.multiarray", "scalar"): self._scalar,
            ("numpy.core.numeric", "_frombuffer"): self._frombuffer,
        }
        if (home, name) not in known:
            raise Refused(f"{module}.{name}")
        found = known[home, name]
        return _StandIn(found) if hasattr(found, "__func__") else found

    def _no_bytes(self) -> bytes:
        return b""  # how protocols 0 to 2 write it; other bytes go through _codecs.encode

    def _encode(self, text: str, encoding: str) -> bytes:
        if encoding not in ("latin1", "latin-1"):
            raise Refused(f"the encoding {encoding!r}")
        return text.encode("latin1")

    def _dtype(self, code: str, *_: Any) -> _PlainType:
        return _PlainType(code)

    def _reconstruct(self, *_: Any) -> PlainArray:
        return PlainArray([])

    def _scalar(self, dtype: _PlainType, data: bytes | str) -> Any:
        raw = data.encode("latin1") if isinstance(data, str) else data
        return PlainArray(dtype.values(raw, (), "C")).tolist()

    def _frombuffer(self, data: bytes, dtype: _PlainType, shape: tuple[int, ...], order: str) -> PlainArray:
        return PlainArray(dtype.values(data, shape, order))


def read_plain_pickle(path: Path) -> Any:
    """Reads a pickle (protocols 0 to 5, Python 2's too) of containers, strings, numbers and NumPy arrays.

    Arrays come as `PlainArray`, NumPy's scalars as Python's. Raises ValueError, and executes nothing, where the
    pickle names anything else, is truncated or damaged.
    """
    content = path.read_bytes()
    try:
        _check_memo(content)
        return _PlainUnpickler(io.BytesIO(content), encoding="latin1").load()
    except Refused as refused:
        kinds = "containers, strings, numbers and NumPy arrays"
        raise ValueError(f"the pickle asks for {refused}; only {kinds} are read from it") from None
    except Exception as error:  # damaged bytes can fail anywhere in the unpickler, and in any way
        raise ValueError(f"not a readable pickle ({type(error).__name__}: {error})") from error


def _check_memo(content: bytes) -> None:
    """Refuses memo positions beyond the length of the pickle: five bytes could ask the unpickler for gigabytes."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > len(content):
            raise ValueError(f"memo position {argument} in {len(content)} bytes")
