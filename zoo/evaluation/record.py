"""Prints what a run found and writes it down with everything needed to repeat it."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.evaluation.report import SCHEMA, Report, write_json, write_text
from zoo.files import replacing

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image

    from zoo.evaluation.rankings import Rankings

log = logging.getLogger("zoo")

PACKAGES = (
    "spatial-zoo", "torch", "torchvision", "timm", "lightning", "torchmetrics", "hydra-core",
    "numpy", "scipy", "pillow", "faiss-cpu",
)  # fmt: skip


def write_run(report: Report, rankings: Rankings | None, folder: Path, about: dict[str, Any]) -> None:
    """Prints the tables; writes table.md, rankings.json (if there are rankings) and, last, results.json to `folder`.

    A report with a curve gets a table of it too, and curve.png.
    """
    from zoo.evaluation.curves import curve_table, write_curve

    tables = report.tables()
    if report.curve is not None:
        tables.append(curve_table(report, report.curve))
        write_curve(report, report.curve, folder)
    for table in tables:
        table.print()
    write_text(folder / "table.md", "\n".join(table.markdown() for table in tables))
    if rankings is not None:
        write_json(folder / "rankings.json", rankings.as_json(report.fingerprint["hash"]), indent=None)
    write_json(folder / "results.json", {"schema": SCHEMA, **about, **environment(), **report.as_json()})


def write_sheet(draw: Callable[[], Image.Image | None], folder: Path) -> Image.Image | None:
    """Draws and writes contact_sheet.png; a picture that can't be read costs the sheet and no more."""
    try:
        sheet = draw()
    except (OSError, ValueError) as error:
        log.warning("no contact sheet: %s", error)
        return None
    if sheet is not None:
        with replacing(folder / "contact_sheet.png") as file:
            sheet.save(file, format="PNG")
    return sheet


def environment() -> dict[str, Any]:
    """Returns versions, commit, command, folder and time of this run."""
    return {
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}},
        "commit": _commit(),
        "command": _command(),
        "cwd": os.getcwd(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _command() -> list[str]:
    """Returns the command line as a user would type it."""
    program = Path(sys.argv[0])
    ours = program.parent.name == "commands" and program.parent.parent.name == "zoo"
    return ["zoo", program.stem, *sys.argv[1:]] if ours else sys.argv


def _commit() -> str | None:
    """Returns the commit of the checkout that this file is tracked in, "-dirty" if files were changed since.

    None from a wheel or without git.
    """
    if shutil.which("git") is None:
        return None
    words = [
        ["ls-files", "--error-unmatch", __file__],
        ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
    ]
    here = Path(__file__).resolve().parent
    done = [subprocess.run(["git", *rest], cwd=here, capture_output=True, text=True, check=False) for rest in words]
    return done[1].stdout.strip() if all(answer.returncode == 0 for answer in done) else None
