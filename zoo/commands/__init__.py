"""The `zoo` command: hands each verb to its own module."""

from __future__ import annotations

import os
import runpy
import select
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from zoo import __version__
from zoo.registry import suggest

if TYPE_CHECKING:
    from collections.abc import Iterator

VERBS = {
    "train": "train a model on a data set",
    "eval": "evaluate a trained model on a benchmark",
    "embed": "write what a model knows of a folder of images",
    "index": "make features searchable",
    "search": "find the images of an index that are nearest to a picture",
    "serve": "search an index from a web page, by drawing, photo or text, and over HTTP",
    "rerank": "put hits from any vector database into a better order",
    "score": "judge a file of ranked lists or scores by a benchmark",
    "compare": "put runs of one protocol into a table, with p-values",
    "report": "write runs and their ranked results as one HTML page",
    "truth": "compare scene graphs: distances as ground truth, or a search by a scene",
    "info": "show what can be set about a name, with defaults and meaning",
    "copy": "copy a packaged config into zoo_conf/, to edit and to choose like the others",
    "new-plugin": "write a package that brings a model of one's own, to begin from",
    "list": "show every registered name, where it comes from and what it is",
    "completion": 'print the shell completion: eval "$(zoo completion bash)"',
}

_HELP = """\
zoo {version}: models, indexes and evaluators for spatial and relational image retrieval

usage: zoo VERB [overrides]

{verbs}

Each verb explains itself:   zoo train --help
A first run:                 zoo train experiment=demo
One's own photos:            zoo embed photos/ && zoo index && zoo search photo.jpg
What can be set about a name: zoo info oxford
Another hyper-parameter:     zoo train model=two_stage_rn model.aggregation=avg
Several runs:                zoo train -m model.aggregation=max,avg
What will run, without running it:  zoo train experiment=demo --cfg job
"""


@contextmanager
def until_reader_leaves() -> Iterator[None]:
    """Ends the command quietly, as SIGPIPE would, once nobody reads its output any more (`zoo list | head -1`)."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_left():
            raise
        # What is still buffered would fail again, loudly, when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _reader_left() -> bool:
    """Tells a broken stdout from any other broken pipe, such as that to a loader process."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


@until_reader_leaves()
def main() -> None:
    """Runs `zoo VERB …` as `python -m zoo.commands.VERB …`."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        verbs = "\n".join(f"  {verb:<12}{text}" for verb, text in VERBS.items())
        print(_HELP.format(version=__version__, verbs=verbs))
        return
    verb = arguments[0]
    if verb in ("--version", "-V"):
        print(f"zoo {__version__}")
        return
    if verb not in VERBS:
        print(f"zoo: unknown verb '{verb}'; verbs are {', '.join(VERBS)}.{suggest(verb, VERBS)}", file=sys.stderr)
        sys.exit(2)
    # alter_sys makes `__main__` the verb's module, so that Lightning's `ddp` re-runs `python -m zoo.commands.VERB …`.
    sys.argv = sys.argv[:1] + arguments[1:]
    runpy.run_module(f"zoo.commands.{verb.replace('-', '_')}", run_name="__main__", alter_sys=True)
