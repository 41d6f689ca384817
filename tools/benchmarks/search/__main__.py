"""Prints the tables of all benchmarks of the search: those modules of this folder that have `rows(repeats)`.

python tools/benchmarks/search [repeats]
"""

from __future__ import annotations

import os
import sys

# Before anything imports NumPy or torch.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import importlib
from pathlib import Path


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    folder = Path(__file__).resolve().parent
    sys.path.insert(0, str(folder))
    for path in sorted(folder.glob("[!_]*.py")):
        module = importlib.import_module(path.stem)
        if hasattr(module, "rows"):
            print_table(path.stem, module.rows(repeats))


def print_table(title: str, rows: list[dict[str, object]]) -> None:
    print(f"\n{title}\n")
    print(f"| {' | '.join(rows[0])} |")
    print(f"|{'---|' * len(rows[0])}")
    for row in rows:
        cells = (f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values())
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
