"""`zoo serve` as a process, and the words that make it index photos with a tiny network."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

NETWORK = [
    "model=fcn_segment", "model.backbone=test_resnet", "model.backbone_weights=random", "model.head=light",
    "model.dilations=[1,2]", "model.width=8", "model.output_stride=16", "model.classes=[sky,ground,thing]",
    "data.image_size=64", "index=probability_maps", "index.centroids=8",
]  # fmt: skip


class Server:
    """`zoo serve` as a user starts it, at a free port."""

    def __init__(self, folder, *words):
        self.log = folder / "log.txt"
        command = [str(Path(sys.executable).parent / "zoo"), "serve", "port=0", *words]
        # SIGINT is ignored in what a script runs in the background, and in its children.
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )  # fmt: skip
        self.url = self._address()

    def _address(self):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            found = re.search(r"at (http://\S+)", text := self.log.read_text(encoding="utf-8"))
            if found:
                return found[1]
            assert self.process.poll() is None, text
            time.sleep(0.1)
        self.stop(signal.SIGKILL)
        raise AssertionError(text)

    def stop(self, number):
        """Sends a signal and returns the exit code."""
        self.process.send_signal(number)
        try:
            return self.process.wait(30)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
