"""Runs console scripts as forks of a process that has the heavy libraries loaded.

Starting `zoo` on data costs some 7 s of processor time, most of it the import of torch and lightning, and hundreds of
tests do it. Here each command is a process of its own with its own arguments, environment, folder and output, and all
of zoo is imported anew; only third-party libraries are there already. A command that must start from nothing (to time
it, to see what it loads, to interrupt it) is run with `fresh=True` of the fixture `command`.
"""

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path

PRELOADED = ("torch", "torchvision", "lightning.pytorch", "torchmetrics", "hydra", "numba", "scipy.stats", "rich")


class ForkServer:
    """The side of the tests: one server, one command at a time."""

    def __init__(self):
        self.socket, theirs = socket.socketpair()
        words = [sys.executable, __file__, str(theirs.fileno())]
        self.process = subprocess.Popen(words, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()

    def run(self, words, cwd, environment, folder, timeout):
        """Returns what subprocess.run does for `words`, the first of which is a console script's path."""
        files = [folder / name for name in ("stdout", "stderr")]
        with files[0].open("wb") as stdout, files[1].open("wb") as stderr:
            request = json.dumps({"words": words, "cwd": str(cwd), "environment": environment}).encode()
            socket.send_fds(self.socket, [len(request).to_bytes(8, "big")], [stdout.fileno(), stderr.fileno()])
            self.socket.sendall(request)
        child = self._number()
        self.socket.settimeout(timeout)
        try:
            code = self._number()
        except TimeoutError:
            os.kill(child, signal.SIGKILL)
            self.socket.settimeout(None)
            self._number()
            raise subprocess.TimeoutExpired(words, timeout) from None
        finally:
            self.socket.settimeout(None)
        return subprocess.CompletedProcess(words, code, *(file.read_text(encoding="utf-8") for file in files))

    def close(self):
        self.socket.close()
        self.process.wait(10)

    def _number(self):
        return int.from_bytes(_exactly(self.socket, 8), "big", signed=True)


def _exactly(connection, size):
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def serve(connection):
    """Answers until the tests leave; returns in each child alone, with what that is to run."""
    while True:
        try:
            head, files, *_ = socket.recv_fds(connection, 8, 2)
            request = json.loads(_exactly(connection, int.from_bytes(head, "big"))) if head else None
        except EOFError:
            request = None
        if request is None:
            os._exit(0)
        child = os.fork()
        if child == 0:
            connection.close()
            return request, files
        for file in files:
            os.close(file)
        connection.sendall(child.to_bytes(8, "big", signed=True))
        _, status = os.waitpid(child, 0)
        connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, "big", signed=True))


def become(request, files):
    """Turns this process into one that the interpreter has just started with `request`."""
    for target, file in zip((1, 2), files, strict=True):
        os.dup2(file, target)
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    script = request["words"][0]
    added = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.argv[:] = request["words"]
    sys.path[:] = [str(Path(script).parent), *added, *sys.path[1:]]
    return script


def run(script):
    """Returns the exit code of a console script, having run what it left for the end of the interpreter."""
    code = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if code and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    for module in PRELOADED:
        __import__(module)
    gc.freeze()  # a collection in a child would copy all of that
    SCRIPT = become(*serve(socket.socket(fileno=int(sys.argv[1]))))
    os._exit(run(SCRIPT))  # the interpreter would take each of the libraries' objects apart
