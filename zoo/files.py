"""Files: names in order, tables, files that are written whole or not at all, and files that can't be used."""

from __future__ import annotations

import csv
import os
import re
import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class BadFile(ValueError):
    """A file of the user's that can't be used; the message says which and why, and commands print it alone."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Opens a temporary file that becomes `path` on success and is removed on any failure, Ctrl-C included."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == str(temporary):
            error.filename = str(path)  # the name that the caller knows
        raise


def csv_rows(file: Path, what: str) -> tuple[list[dict[str, str]], list[str]]:
    """Returns the rows of a CSV, whose first line names its columns, and these names; cells a row lacks are empty.

    Raises BadFile, which calls the file `what`, for another encoding than UTF-8, quotes that don't end, a row with more
    cells than names, or no row at all.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, strict=True, restval="")
            rows, columns = list(reader), list(reader.fieldnames or ())
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadFile(f"{what} {file} can't be read as CSV in UTF-8 ({error})") from error
    for number, row in enumerate(rows, start=1):
        if None in row:
            raise BadFile(f"{what} {file}, row {number} must have no more cells than columns, got {row[None]} beyond")
    return rows, columns


def natural(name: str) -> list[tuple[int, int, str]]:
    """Returns a key that sorts names with their numbers as numbers: q2 before q10."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]
