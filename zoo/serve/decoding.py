"""Decodes photos of requests in a process of their own, which is ended where it takes too long or breaks."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from zoo.serve._decoder import LENGTH
from zoo.serve.problems import Refused

if TYPE_CHECKING:
    from PIL import Image

_START = 120.0  # s that a new process may take to import what it needs, on a machine that is busy


class Decoder:
    """Gives pictures of bytes, one at a time; `upright` turns them as their EXIF orientation says.

    A picture may have so many `pixels`, looked at before it is decoded, and take so many `seconds`.
    """

    def __init__(self, upright: bool, pixels: int, seconds: float) -> None:
        self._words = [sys.executable, "-m", "zoo.serve._decoder", str(upright), str(pixels)]
        self.seconds = seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._ready = False

    def start(self) -> None:
        """Starts the process, which imports what it needs meanwhile."""
        # A session of its own: Ctrl-C is for the server, which then closes this one's standard input.
        self._process = subprocess.Popen(
            self._words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self._ready = False

    def __call__(self, content: bytes) -> Image.Image:
        """Returns the picture, RGB; raises Refused for bytes that are none, are damaged, too large or too slow."""
        from PIL import Image

        with self._lock:
            self._get_ready()
            said, pixels = self._exchange(content)
        if "rule" in said:
            raise Refused(said["status"], "photo", said["rule"], said["got"])
        return Image.frombytes("RGB", (said["width"], said["height"]), pixels)

    def close(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                with suppress(OSError):
                    stream.close()

    def _get_ready(self) -> None:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self.start()
        if not self._ready:
            with _Deadline(self._process, _START):
                if self._read() != b"ready":
                    raise RuntimeError("the decoding process doesn't start; its error is above")
            self._ready = True

    def _exchange(self, content: bytes) -> tuple[dict, bytes]:
        process = self._process
        deadline = _Deadline(process, self.seconds)
        try:
            with deadline:
                process.stdin.write(len(content).to_bytes(LENGTH, "big"))
                process.stdin.write(content)
                process.stdin.flush()
                return json.loads(self._read()), self._read()
        except (OSError, ValueError) as error:  # it is gone
            self.close()
            self.start()  # imports while nobody waits for it
            if deadline.passed:
                rule = f"be decoded within {self.seconds:g} s"
                raise Refused(400, "photo", rule, "one that takes longer") from error
            raise Refused(400, "photo", "be decoded", "one that ended the decoding process") from error

    def _read(self) -> bytes:
        stream = self._process.stdout
        head = stream.read(LENGTH)
        size = int.from_bytes(head, "big")
        content = stream.read(size) if len(head) == LENGTH else b""
        if len(head) < LENGTH or len(content) < size:
            raise OSError("the decoding process has ended")
        return content


class _Deadline:
    """Kills a process that isn't done when the time is over."""

    def __init__(self, process: subprocess.Popen, seconds: float) -> None:
        self.passed = False
        self._process = process
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def _end(self) -> None:
        self.passed = True
        self._process.kill()

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
