"""What commands with options of their own share: their parser, and how they end when something is wrong."""

from __future__ import annotations

import argparse
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from zoo.registry import suggest

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN = "folder of a run or a multirun, or a results.json; NAME is what to call it"


class Parser(argparse.ArgumentParser):
    """Takes runs, shows examples below its help, and answers misuse with one line."""

    def __init__(self, verb: str, options: str, description: str, examples: str) -> None:
        super().__init__(
            prog=f"zoo {verb}",
            usage=f"zoo {verb} [NAME=]RUN … {options}",
            description=description,
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument("runs", nargs="*", metavar="[NAME=]RUN", help=RUN)

    def parse(self) -> argparse.Namespace:
        """Returns the arguments of the command line, with at least one run."""
        arguments = self.parse_args()
        if not arguments.runs:
            self.error("name at least one run, before the options")
        return arguments

    def error(self, message: str) -> NoReturn:
        """Prints the line, with the nearest option for an unknown one, and ends with 2."""
        words = message.split()
        known = [option for action in self._actions for option in action.option_strings]
        hint = suggest(words[2].split("=")[0], known) if message.startswith("unrecognized") else ""
        stop(f"{self.prog.split()[-1]}: {message}.{hint} `{self.prog} --help` shows examples")


def output_file(text: str) -> Path:
    """Returns the path of `--output`; raises argparse's error where it is a folder."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file, got the folder {path}")
    return path


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Ends the command with one line for runs that can't be used and files that can't be written, 130 for Ctrl-C."""
    from zoo.evaluation.results import RunError

    try:
        yield
    except RunError as error:
        stop(str(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        stop(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def stop(message: str) -> NoReturn:
    """Prints what is wrong and ends the command with 2."""
    print(f"zoo: {message}", file=sys.stderr)
    sys.exit(2)
