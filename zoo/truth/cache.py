"""Matrices on disk, filled block by block: what is finished survives a kill, and the whole appears by rename."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import sys
import threading
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.files import replacing

Block = tuple[int, int, int, int]  # rows q0:q1, columns g0:g1; whole rows, or a part of one
Write = Callable[[Block, np.ndarray], None]
_PIECE = 1 << 20  # bytes read at a time
Fill = Callable[[Collection[Block], Write], None]


@dataclass(frozen=True)
class MatrixFile:
    """A float32 matrix at `path` (.npy) and what belongs to it.

    Beside it stands a sidecar, of the same name ending in .json, with its SHA-256 and `key`, which stands for what was
    computed. Until it is whole there is `<path>.partial`, and `<path>.journal` with the blocks that are finished.
    """

    path: Path
    shape: tuple[int, int]
    key: str

    @property
    def sidecar(self) -> Path:
        """The file that holds checksum and key."""
        return self.path.with_suffix(".json")

    @property
    def partial(self) -> Path:
        """The unfinished matrix."""
        return self.path.with_name(f"{self.path.name}.partial")

    @property
    def journal(self) -> Path:
        """The finished blocks of the unfinished matrix."""
        return self.path.with_name(f"{self.path.name}.journal")

    def read(self, fill: Fill) -> np.ndarray:
        """Read the matrix, read-only and memory-mapped; where it isn't there or is damaged, complete it first.

        fill(done, write) computes every block that is not in `done` and hands it to `write`, on any thread. One process
        at a time fills a file; others wait and read what it made. Raises OSError where a file can't be written.
        """
        if self.journal.exists() or not self.intact():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self.journal) as journal:
                self._complete(journal, fill)
        return np.load(self.path, mmap_mode="r", allow_pickle=False)

    def foreign(self) -> Path | None:
        """Find a file in the matrix's places that holds something else, or that another program wrote."""
        for path, key in ((self.sidecar, _sidecar_key(self.sidecar)), (self.journal, self._journal_key())):
            if path.exists() and key != self.key:
                return path
        for path, beside in ((self.path, self.sidecar), (self.partial, self.journal)):
            if path.exists() and not beside.exists():
                return path
        return None

    def _journal_key(self) -> str | None:
        """Key of the journal; a kill can leave it empty, or with a part of its first line."""
        try:
            first = self.journal.read_bytes().partition(b"\n")[0]
        except OSError:
            return None
        return self.key if self._header().startswith(first) else _key(first)

    def finished(self) -> int:
        """Count the matrix elements that an interrupted run left finished."""
        try:
            blocks = _entries(self.journal.read_bytes(), self._header(), self.shape)[0]
        except OSError:
            return 0
        return sum((q1 - q0) * (g1 - g0) for q0, q1, g0, g1 in blocks)

    def _complete(self, journal: int, fill: Fill) -> None:
        if not self.intact():  # else another process has finished it while this one waited
            with _Partial(self, journal) as partial:
                fill(partial.done, partial.write)
                partial.finish()
        self.journal.unlink(missing_ok=True)

    def _header(self) -> bytes:
        return json.dumps({"key": self.key, "shape": list(self.shape)}).encode() + b"\n"

    def record(self, checksum: str) -> dict[str, Any]:
        """Content of the sidecar."""
        return {"key": self.key, "shape": list(self.shape), "dtype": "float32", "sha256": checksum}

    def intact(self) -> bool:
        """Tell whether the whole matrix is there, undamaged."""
        try:
            if json.loads(self.sidecar.read_text()) != self.record(_checksum(self.path)):
                return False
            matrix = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, RecursionError):
            return False
        return matrix.shape == self.shape and matrix.dtype == np.float32


class _Partial:
    """The unfinished matrix of a process that holds the journal's lock; `done` are the blocks found intact."""

    def __init__(self, target: MatrixFile, journal: int) -> None:
        self._target, self._journal, self._lock = target, journal, threading.Lock()
        self._start = _npy_header(target.shape)
        self._file = os.open(target.partial, os.O_RDWR | os.O_CREAT, 0o666)
        size = len(self._start) + 4 * target.shape[0] * target.shape[1]
        if os.fstat(self._file).st_size != size or os.pread(self._file, len(self._start), 0) != self._start:
            os.ftruncate(self._file, 0)
            os.ftruncate(self._file, size)
            os.pwrite(self._file, self._start, 0)
        self.done = self._resume()
        self._kept = len(self.done)

    def __enter__(self) -> _Partial:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
        if not self._kept:  # nothing in it is worth keeping
            for path in (self._target.partial, self._target.journal):
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    def _resume(self) -> frozenset[Block]:
        """Read the journal, cut off what a kill left half written, and check every block that it lists."""
        header = self._target._header()
        blocks, end = _entries(os.pread(self._journal, os.fstat(self._journal).st_size, 0), header, self._target.shape)
        os.ftruncate(self._journal, end)
        if not end:
            _write_all(self._journal, header)
        return frozenset(block for block, checksum in blocks.items() if self._stored(block) == checksum)

    def _stored(self, block: Block) -> int:
        """Checksum of what the file holds of a block, which a damaged journal may have made huge."""
        q0, q1, g0, g1 = block
        start, checksum = self._offset(block), 0
        end = start + 4 * (q1 - q0) * (g1 - g0)
        for place in range(start, end, _PIECE):
            checksum = zlib.crc32(os.pread(self._file, min(_PIECE, end - place), place), checksum)
        return checksum

    def _offset(self, block: Block) -> int:
        return len(self._start) + 4 * (block[0] * self._target.shape[1] + block[2])

    def write(self, block: Block, values: np.ndarray) -> None:
        """Store the values of one block, then note it in the journal."""
        content = np.ascontiguousarray(values, "<f4").tobytes()
        line = f"{' '.join(map(str, block))} {zlib.crc32(content)}\n".encode()
        try:
            self._store(content, self._offset(block))
            with self._lock:
                _write_all(self._journal, line)
                self._kept += 1
        except OSError as error:
            error.filename = str(self._target.path)
            raise

    def _store(self, content: bytes, place: int) -> None:
        # Not through a memory map: a full disk is then an error with a name instead of a SIGBUS.
        written = 0
        while written < len(content):
            written += os.pwrite(self._file, content[written:], place + written)

    def finish(self) -> None:
        """Give the complete matrix its name, after its checksum."""
        os.fsync(self._file)
        target = self._target
        with replacing(target.sidecar) as stream:
            stream.write(json.dumps(target.record(_checksum(target.partial))).encode())
        os.replace(target.partial, target.path)


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Open `path` for appending and hold its lock; yields the descriptor."""
    import fcntl

    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            _wait_for(fcntl, descriptor, path)
            if _same_file(descriptor, path):  # else its last owner finished, and removed it
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _wait_for(fcntl: Any, descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"another process is computing {path.stem}: waiting for it", file=sys.stderr)
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _entries(content: bytes, header: bytes, shape: tuple[int, int]) -> tuple[dict[Block, int], int]:
    """Blocks of a journal with their checksums, and where its last good line ends; none for another header."""
    if not content.startswith(header):
        return {}, 0
    blocks, end = {}, len(header)
    for line in content[end:].splitlines(keepends=True):
        fields = line.split()
        if not line.endswith(b"\n") or len(fields) != 5 or not all(f.isdigit() and len(f) < 20 for f in fields):
            break
        q0, q1, g0, g1, checksum = map(int, fields)
        if not (q0 < q1 <= shape[0] and g0 < g1 <= shape[1]):
            break
        blocks[q0, q1, g0, g1] = checksum
        end += len(line)
    return blocks, end


def _sidecar_key(path: Path) -> str | None:
    try:
        return _key(path.read_bytes())
    except OSError:
        return None


def _key(content: bytes) -> str | None:
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return record.get("key") if isinstance(record, dict) else None


def _npy_header(shape: tuple[int, int]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue()


def _write_all(descriptor: int, content: bytes) -> None:
    # One call, so that a kill tears at most the last line.
    if os.write(descriptor, content) != len(content):
        raise OSError(errno.ENOSPC, "the journal of finished blocks can't be written whole")


def _checksum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
