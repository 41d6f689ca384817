"""Makes distractors of the images that a ground truth calls relevant, and extends the ground truth by them.

    python tools/make_shuffled_distractors.py --images FOLDER --truth gnd.json --output OxfShf
    python tools/make_shuffled_distractors.py --images A B --names stem --truth gnd.pkl --output out --copies 1
    python tools/make_shuffled_distractors.py --images FOLDER --truth table.csv --output mirrored --kind mirror
    python tools/make_shuffled_distractors.py --images FOLDER --truth gnd.json --output out --kind swap --boxes my.json
    python tools/make_shuffled_distractors.py --images FOLDER --truth gnd.json --output control --kind affine

and then

    zoo eval benchmark=shuffled benchmark.ground_truth=OxfShf/ground_truth.json \\
      model=global_descriptor data=folder data.root=[FOLDER,OxfShf/images]

Every image that is relevant to any query is taken once, and COPIES others are made of it, of its size:

  patches  cut into GRID × GRID patches that change places, so that no two neighbours stay neighbours. OxfShf and
           ParShf of Chen et al. 2019 have three copies of 10 × 10: 5,063 + 3 · 567 = 6,764 and 6,412 + 3 · 1,790 =
           11,782 images. Where a side doesn't divide by GRID, a patch in a smaller place loses its last line of px,
           one in a larger place shows its first line twice
  mirror   left and right exchanged: every relation to the side is reversed
  swap     two objects exchanged, by the boxes of --boxes or of a table, each resized to the other's box; an image
           without two separate boxes is left out, and COPIES takes different pairs as long as there are some
  affine   turned, scaled and sheared, reflected at the borders: a control. Such a map keeps the arrangement (Sec.
           3.2), so these copies become RELEVANT wherever their image is, and a search must still find them

The copies of the first three kinds are distractors: irrelevant to every query. OUTPUT holds ground_truth.json (the same
truth and the copies), images/NAME__shuffled_0.jpg … (__mirrored_, __swapped_, __affine_), sheet.png to look at, and
made.json (parameters and counts). A run that was stopped goes on where it was; what exists is not made again. A copy
depends on its image, name, number and SEED alone. To add a second kind, give the first's ground_truth.json as TRUTH.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

COPIES = {"patches": 3, "affine": 3, "mirror": 1, "swap": 1}
NAMES = ("path", "stem", "file")


def parsed(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the options; ends the process with 2 and a message where they don't fit."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    add = parser.add_argument
    add("--images", nargs="+", required=True, metavar="FOLDER", help="folders of the gallery's images")
    forms = "gnd_*.pkl or .json, lists in JSON, Oxford's text files, or a table image,label,x0,y0,x1,y1 (.csv)"
    add("--truth", type=Path, required=True, help=forms)
    add("--output", type=Path, required=True, metavar="FOLDER", help="new, or one to go on with")
    add("--kind", choices=COPIES, default="patches", help="default: %(default)s")
    add("--grid", type=int, default=10, help="patches a side (paper: %(default)s)")
    add("--copies", type=int, help="of every image; default 3 (paper), 1 of mirror and swap")
    add("--seed", type=int, default=0, help="default: %(default)s")
    add("--names", choices=NAMES, default="path", help="what an image is called, as in data=folder (%(default)s)")
    add("--queries", nargs="+", metavar="FOLDER", help="folders of the queries, if they aren't among the images")
    add(
        "--boxes",
        type=Path,
        help="swap: a table (.csv) or a COCO file (.json); default: those of a table given as TRUTH",
    )
    add("--incomplete", choices=("refuse", "restrict"), default="refuse", help="relevant images that are missing")
    add(
        "--upright",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="turn images as EXIF says, like data.upright",
    )
    add("--format", choices=("jpg", "png"), default="jpg", help="JPEG of quality 95, or PNG; default: %(default)s")
    add("--limit", type=int, help="take the first LIMIT relevant images only, for a trial")
    options = parser.parse_args(words)
    options.copies = COPIES[options.kind] if options.copies is None else options.copies
    for name, least in (("copies", 1), ("grid", 2), ("limit", 1), ("seed", 0)):
        if getattr(options, name) is not None and getattr(options, name) < least:
            parser.error(f"--{name} must be at least {least}, got {getattr(options, name)}")
    if options.kind == "mirror" and options.copies != 1:
        parser.error(f"--copies must be 1 with --kind mirror, since all would be equal, got {options.copies}")
    if any(options.output.resolve().is_relative_to(Path(folder).expanduser().resolve()) for folder in options.images):
        parser.error(f"--output must lie outside the folders of --images, got {options.output}")
    return options


def main(words: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options = parsed(words)
    from distractor_sets import make  # here, since --help should not wait for torch

    try:
        print(make(options))
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
