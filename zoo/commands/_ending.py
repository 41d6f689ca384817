"""How commands end when something is wrong: with one line on stderr and exit code 2, or 130 after Ctrl-C."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from zoo.files import BadFile
from zoo.registry import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


def stop(message: str) -> NoReturn:
    """Prints what is wrong and ends the command with 2."""
    print(f"zoo: {message}", file=sys.stderr)
    sys.exit(2)


def interrupted() -> NoReturn:
    """Ends the command as one that Ctrl-C has stopped."""
    print("interrupted", file=sys.stderr)
    sys.exit(130)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Ends the command with one line for a wrong word, a file that can't be used or written, and after Ctrl-C."""
    try:
        yield
    except (UsageError, BadFile) as error:
        stop(str(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        stop(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except KeyboardInterrupt:
        interrupted()


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turns what is raised for wrong values and files into UsageErrors: such messages name rule and value."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
