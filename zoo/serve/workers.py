"""The processes that answer requests side by side."""

from __future__ import annotations

import logging

from uvicorn.supervisors.multiprocess import Multiprocess, Process

log = logging.getLogger("zoo")

_CANNOT_START = 3  # how a worker of uvicorn ends whose application can't be built


class Workers(Multiprocess):
    """Replaces workers that have ended, and doesn't ask the others whether they live.

    One that opens the index or describes a photo may answer late without being dead, and whoever waits for it heeds no
    signal meanwhile.
    """

    def keep_subprocess_alive(self) -> None:
        """Starts another worker in the place of one that has ended; ends all where it couldn't start."""
        for place, worker in enumerate(self.processes):
            if self.should_exit.is_set() or worker.process.is_alive():
                continue
            worker.kill()  # closes its pipes
            worker.join()
            code = worker.process.exitcode
            if code == _CANNOT_START:
                log.error("worker %d could not start; the server ends", worker.pid)
                self.should_exit.set()
                return
            log.warning("worker %d has ended with %s; another takes its place", worker.pid, code)
            self.processes[place] = Process(self.config, self.sockets)
            self.processes[place].start()
