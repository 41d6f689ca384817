"""Where the images, scenes and questions of a CLEVR split are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.data._pictures import SUFFIXES, is_picture
from zoo.files import BadFile

# A path below the root, in which {split} stands for the split's name; a list of them joins several trees; a mapping
# gives each split its own.
Pattern = str | Sequence[str | None] | Mapping[str, str | Sequence[str | None] | None] | None


@dataclass(frozen=True)
class Part:
    """One tree of a split: the folder of its images, its scenes file and its questions file, if it has them."""

    images: Path
    scenes: Path | None
    questions: Path | None


def split_parts(root: Path, split: str, images: Pattern, scenes: Pattern, questions: Pattern) -> list[Part]:
    """Returns the trees of which a split is joined, most often one.

    Raises ValueError for a pattern that is no path, a split without a folder of images, or lists of unequal length.
    """
    folders = _paths("images", images, root, split)
    if None in folders:
        raise ValueError(f"images must name a folder for split '{split}', got {images!r}")
    columns = [folders]
    for argument, pattern in (("scenes", scenes), ("questions", questions)):
        files = _paths(argument, pattern, root, split)
        files = files * len(folders) if files == [None] else files
        if len(files) != len(folders):
            raise ValueError(
                f"{argument} must name a file, or null, for each of the {len(folders)} folders of images of split "
                f"'{split}', got {pattern!r}"
            )
        columns.append(files)
    return [Part(*paths) for paths in zip(*columns, strict=True)]


def _paths(argument: str, pattern: Pattern, root: Path, split: str) -> list[Path | None]:
    value = pattern.get(split) if isinstance(pattern, Mapping) else pattern
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    if not values or not all(item is None or (isinstance(item, (str, Path)) and str(item)) for item in values):
        raise ValueError(
            f"{argument} must be a path below root with {{split}} in it, null, a list of these, or a mapping from "
            f"splits to them, got {pattern!r}"
        )
    return [None if item is None else root / Path(str(item).replace("{split}", split)).expanduser() for item in values]


def image_files(folder: Path, split: str) -> dict[str, Path]:
    """Returns the images of a folder by stem, sorted; of files of one stem the first by `SUFFIXES` (.png before .jpg).

    Raises FileNotFoundError where there is no such folder, BadFile where it holds no image.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"images of split '{split}' must be in a folder, got {folder}, which doesn't exist: set data.root (the "
            "folder of images/, scenes/ and questions/) or data.images"
        )
    ranked = [(path.stem, -SUFFIXES.index(path.suffix.lower()), path) for path in folder.iterdir() if is_picture(path)]
    if not ranked:
        kinds = ", ".join(SUFFIXES)
        raise BadFile(f"images of split '{split}' must be picture files ({kinds}), got a folder without any: {folder}")
    return {stem: path for stem, _, path in sorted(ranked)}  # the last of a stem stays
