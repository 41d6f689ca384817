"""Picks captions to search by, as Furuta et al. 2018 do: those that name three or more classes, some of them at random.

    python tools/coco_caption_queries.py captions_val2014.json pascal_context60 queries.csv --count 30

writes the columns file and caption, which benchmark=coco_captions reads as benchmark.texts, one caption an image. The
paper (Sec. 4.2, steps 1 and 2) finds 2,896 of 202,654 captions with the names of its 60 classes. A name of several
words counts where all of them stand in the caption.
"""

from __future__ import annotations

import argparse
import csv
import io
import random
from pathlib import Path

from zoo.classes import ClassList, class_list
from zoo.files import replacing
from zoo.search.caption_files import Captions, read_captions
from zoo.search.captions import words_of


def captions_with_classes(captions: Captions, classes: ClassList, least: int) -> list[tuple[str, str]]:
    """Returns file and caption of all captions that name at least so many different classes."""
    names = [set(words_of(name)) for name in classes.names]
    return [
        (file, text)
        for file, texts in zip(captions.files, captions.texts, strict=True)
        for text in texts
        if sum(name <= set(words_of(text)) for name in names) >= least
    ]


def picked(found: list[tuple[str, str]], count: int | None, seed: int) -> list[tuple[str, str]]:
    """Returns one caption an image, of `count` images drawn at random (None: of all), in the order of the file."""
    drawn = random.Random(seed)
    by_file: dict[str, list[str]] = {}
    for file, text in found:
        by_file.setdefault(file, []).append(text)
    files = list(by_file) if count is None else drawn.sample(list(by_file), min(count, len(by_file)))
    chosen = {file: drawn.choice(by_file[file]) for file in files}
    return [(file, chosen[file]) for file in by_file if file in chosen]


def main(arguments: list[str] | None = None) -> None:
    """Runs the tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions", help="COCO's captions_….json, or a CSV")
    parser.add_argument("classes", help="a packaged list, such as pascal_context60, or a file with a name a line")
    parser.add_argument("output", type=Path, help="the CSV to write")
    parser.add_argument("--least", type=int, default=3, help="classes that a caption must name (the paper: 3)")
    parser.add_argument("--count", type=int, help="images to draw; all without it")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    asked = parser.parse_args(arguments)
    captions = read_captions(asked.captions)
    found = captions_with_classes(captions, class_list(asked.classes), asked.least)
    chosen = picked(found, asked.count, asked.seed)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("file", "caption"), *chosen])
    with replacing(asked.output) as file:
        file.write(text.getvalue().encode())
    total = sum(map(len, captions.texts))
    print(f"{len(found):,} of {total:,} captions name {asked.least} classes or more; {len(chosen):,} are written")


if __name__ == "__main__":
    main()
