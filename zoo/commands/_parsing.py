"""What commands with options of their own share: their parsers, and types of options."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from zoo.commands._ending import stop
from zoo.registry import suggest

RUN = "folder of a run or a multirun, or a results.json; NAME is what to call it"


class Parser(argparse.ArgumentParser):
    """Shows examples below its help, and answers misuse with one line that names the nearest option."""

    def __init__(self, verb: str, description: str, examples: str = "", usage: str | None = None) -> None:
        super().__init__(
            prog=f"zoo {verb}",
            usage=usage,
            description=description,
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Prints the line, with the nearest option for an unknown one, and ends with 2."""
        words = message.split()
        known = [option for action in self._actions for option in action.option_strings]
        hint = suggest(words[2].split("=")[0], known) if message.startswith("unrecognized") else ""
        more = "examples" if self.epilog else "more"
        stop(f"{self.prog.split()[-1]}: {message}.{hint} `{self.prog} --help` shows {more}")


class RunParser(Parser):
    """Takes runs before its options."""

    def __init__(self, verb: str, options: str, description: str, examples: str) -> None:
        super().__init__(verb, description, examples, usage=f"zoo {verb} [NAME=]RUN … {options}")
        self.add_argument("runs", nargs="*", metavar="[NAME=]RUN", help=RUN)

    def parse(self) -> argparse.Namespace:
        """Returns the arguments of the command line, with at least one run."""
        arguments = self.parse_args()
        if not arguments.runs:
            self.error("name at least one run, before the options")
        return arguments


def count(text: str) -> int:
    """Returns an integer of at least 1; raises argparse's error for anything else."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, got '{text}'")
    return int(text)


def output_file(text: str) -> Path:
    """Returns the path of `--output`; raises argparse's error where it is a folder."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file, got the folder {path}")
    return path
