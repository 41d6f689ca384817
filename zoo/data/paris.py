"""Paris6k as first published, or as the code of Radenović et al. keeps it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from zoo.data._published import PublishedImages, beside
from zoo.data.oxford import QUERY_TEXTS
from zoo.truth import read_gnd

if TYPE_CHECKING:
    from pathlib import Path

    from zoo.truth import RelevanceLists

# Pages of a server's error in the published archives; named by the publisher in corrupt.txt.
CORRUPT = {
    "louvre": "000136 000146",
    "moulinrouge": "000422",
    "museedorsay": "001059",
    "notredame": "000188",
    "pantheon": "000284 000960 000974",
    "pompidou": "000195 000196 000201 000467 000640",
    "sacrecoeur": "000299 000330 000353",
    "triomphe": "000662 000833 000863 000867",
}


class Paris(PublishedImages):
    """The 6,392 readable images of Paris6k (Philbin et al. 2008) below `root`, and 55 queries; keys: `ImageSplits`.

    The 20 files that the publisher names as corrupt are left out, of images and lists, as everywhere. The ground truth
    is looked for in `root`: `gnd_paris6k.pkl` or `.json`, or the published text files in it or a sub-folder.
    """

    def find(self) -> dict[str, dict[str, Path]]:
        """Lists the folder without the corrupt files; raises as `PublishedImages.find` does."""
        corrupt = corrupt_names()
        return {split: _without(files, corrupt) for split, files in super().find().items()}

    def ground_truth(self) -> RelevanceLists:
        """Returns the lists good, ok and junk; raises FileNotFoundError or ValueError where they can't be read."""
        what = "gnd_paris6k.pkl, gnd_paris6k.json or the published *_query.txt, *_good.txt, *_ok.txt, *_junk.txt"
        lists = read_gnd(beside(self.root, ("gnd_paris6k.pkl", "gnd_paris6k.json", *QUERY_TEXTS), what))
        corrupt = corrupt_names()
        groups = {
            name: tuple(tuple(item for item in ids if item not in corrupt) for ids in rows)
            for name, rows in lists.groups.items()
        }
        gallery = lists.gallery_ids and tuple(name for name in lists.gallery_ids if name not in corrupt)
        return replace(lists, groups=groups, gallery_ids=gallery)


def corrupt_names() -> frozenset[str]:
    """Returns the names of the 20 corrupt images."""
    return frozenset(f"paris_{place}_{number}" for place, numbers in CORRUPT.items() for number in numbers.split())


def _without(files: dict[str, Path], names: frozenset[str]) -> dict[str, Path]:
    return {name: path for name, path in files.items() if name not in names}


export = Paris
