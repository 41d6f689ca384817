"""The fenced blocks of the documentation: found, written as one script for each page, and run as a reader runs them.

A block's first line is ```LANGUAGE, then nothing, or `file=PATH` (the block is that file), or `no-run: REASON`. Blocks
of bash are typed into one shell, Python blocks that follow one another are one program, and a block of YAML is a file.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socketserver
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fork_server import ForkServer

BIN = Path(sys.executable).parent
RUN = ("bash", "python", "yaml")  # languages that can be run, or are files; others are to look at
_FENCE = re.compile(r" *```(\w*) *(.*)")


@dataclass(frozen=True)
class Block:
    """A fenced block: the page and line on which it begins."""

    page: Path
    line: int
    language: str
    info: str
    text: str

    @property
    def file(self) -> str | None:
        return self.info.removeprefix("file=") if self.info.startswith("file=") else None

    @property
    def reason(self) -> str | None:
        """Returns why it isn't run, None where it is."""
        return self.info.removeprefix("no-run:").strip() if self.info.startswith("no-run:") else None

    @property
    def place(self) -> str:
        return f"{self.page.parent.name}/{self.page.name}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    found, begun = [], None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.fullmatch(line)
        if begun is None and fence:
            begun = (number, fence[1], fence[2].strip(), [])
        elif fence:
            found.append(Block(page, *begun[:3], "\n".join(begun[3]) + "\n"))
            begun = None
        elif begun:
            begun[3].append(line)
    assert begun is None, f"{page}: the block of line {begun[0]} has no end"
    return found


def write_script(blocks: list[Block], folder: Path) -> Path:
    """Writes the blocks that are run into a folder, and a shell script that goes through them."""
    lines, program = ["set -euo pipefail"], None
    for block in blocks:
        if block.reason is not None or (block.language not in RUN and block.file is None):
            continue
        if block.language == "python" and block.file is None and program:
            program.write_text(program.read_text(encoding="utf-8") + "\n" + block.text, encoding="utf-8")
            continue
        own = folder / f"{block.line}.{block.language}"
        own.write_text(block.text, encoding="utf-8")
        program = own if block.language == "python" and block.file is None else None
        lines.append(f"echo '--- {block.place}' >&2")
        if block.file is not None:
            target = shlex.quote(block.file)
            lines.append(f"mkdir -p $(dirname {target}) && cp {own} {target}")
        elif program:
            lines.append(f"run-program {own}")
        else:
            lines.append(block.text)
    script = folder / "page.sh"
    script.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return script


class Shell:
    """Runs scripts with the environment's commands on the PATH, `zoo` being forks of a process that has torch loaded.

    `pip install [-e] FOLDER` goes to a folder of the page's own, so that the environment of the tests stays as it is.
    """

    def __init__(self, folder: Path) -> None:
        self.bin, self.output = folder / "bin", folder / "output"
        for path in (self.bin, self.output):
            path.mkdir(parents=True)
        self._forks, self._lock, self._count = ForkServer(), threading.Lock(), 0
        self._address = Path(tempfile.mkdtemp()) / "socket"  # of pytest's own folders the paths may be too long
        self._server = _server(str(self._address), self._forked)
        for name, text in (("zoo", _ZOO), ("run-program", _PROGRAM), ("pip", _PIP)):
            script = self.bin / name
            script.write_text(text.format(python=sys.executable, bin=BIN, socket=self._address), encoding="utf-8")
            script.chmod(0o755)

    def run(self, script: Path, cwd: Path, site: Path, timeout: float, **environment: str) -> str:
        """Returns what was printed; raises AssertionError with its end where the script fails."""
        site.mkdir(parents=True)
        (site / "sitecustomize.py").write_text("import site\n\nsite.addsitedir(__file__.rpartition('/')[0])\n")
        variables = {
            **os.environ, **environment, "PATH": f"{self.bin}:{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(site),
            "SITE": str(site),
        }  # fmt: skip
        words = ["bash", str(script)]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        started = subprocess.Popen(words, cwd=cwd, env=variables, text=True, start_new_session=True, **pipes)
        try:
            said, _ = started.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            said = started.communicate()[0] + f"\nstopped after {timeout} s"
        finally:
            with suppress(ProcessLookupError):  # what it left in the background
                os.killpg(started.pid, signal.SIGKILL)
        assert started.returncode == 0, f"{script} ended with {started.returncode}:\n{said[-6000:]}"
        return said

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._forks.close()
        shutil.rmtree(self._address.parent)

    def _forked(self, request: dict) -> dict:
        environment = request["environment"]
        site = Path(environment["SITE"])
        linked = [line for path in sorted(site.glob("*.pth")) for line in path.read_text().split()]
        environment["PYTHONPATH"] = os.pathsep.join([str(site), *linked])
        with self._lock:
            self._count += 1
            folder = self.output / str(self._count)
            folder.mkdir()
            done = self._forks.run(request["words"], request["cwd"], environment, folder, timeout=300)
        return {"code": done.returncode, "stdout": done.stdout, "stderr": done.stderr}


def _server(address: str, answer) -> socketserver.ThreadingUnixStreamServer:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(json.dumps(answer(json.loads(self.rfile.readline()))).encode())

    server = socketserver.ThreadingUnixStreamServer(address, Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@contextmanager
def shell(folder: Path):
    """Opens a Shell whose files lie in a folder."""
    opened = Shell(folder)
    try:
        yield opened
    finally:
        opened.close()


_ASK = """\
#!{python} -SE
import json, os, socket, sys

def ask(words):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect("{socket}")
        request = {{"words": words, "cwd": os.getcwd(), "environment": dict(os.environ)}}
        connection.sendall(json.dumps(request).encode() + b"\\n")
        answer = json.load(connection.makefile())
    sys.stdout.write(answer["stdout"])
    sys.stderr.write(answer["stderr"])
    sys.exit(answer["code"])

"""
_PROGRAM = _ASK + "ask(sys.argv[1:])\n"
_ZOO = (
    _ASK
    + """\
if sys.argv[1:2] == ["serve"] or "WORLD_SIZE" in os.environ:  # stays, and is sent signals; waits for another
    os.execv("{bin}/zoo", ["{bin}/zoo", *sys.argv[1:]])
ask(["{bin}/zoo", *sys.argv[1:]])
"""
)
_PIP = """\
#!{python}
# Editable: the metadata alone, and a line that says where the package lies, as hatchling's own editable wheel has them.
import os, sys, tempfile, zipfile
from hatchling import build

*words, folder = sys.argv[1:]
if words not in (["install"], ["install", "-e"]):
    sys.exit(f"pip install [-e] FOLDER, got {{sys.argv[1:]}}")
os.chdir(folder)
with tempfile.TemporaryDirectory() as made, zipfile.ZipFile(os.path.join(made, build.build_wheel(made))) as wheel:
    own = [name for name in wheel.namelist() if "-e" not in words or ".dist-info/" in name]
    wheel.extractall(os.environ["SITE"], own)
if "-e" in words:
    with open(os.path.join(os.environ["SITE"], os.path.basename(os.getcwd()) + ".pth"), "w") as path:
        path.write(os.getcwd() + "\\n")
"""
