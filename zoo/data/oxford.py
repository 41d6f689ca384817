"""Oxford5k as first published, or as the code of Radenović et al. keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.data._published import PublishedImages, beside
from zoo.truth import read_gnd

if TYPE_CHECKING:
    from zoo.truth import RelevanceLists

QUERY_TEXTS = ("*_query.txt", "*/*_query.txt")


class Oxford(PublishedImages):
    """The 5,063 images of Oxford5k (Philbin et al. 2007) below `root`, and their 55 queries; keys: `ImageSplits`.

    The ground truth is looked for in `root`: `gnd_oxford5k.pkl` or `.json`, or the published text files
    (`*_query.txt` …) in it or a sub-folder. Queries are images of the gallery.
    """

    def ground_truth(self) -> RelevanceLists:
        """Returns the lists good, ok and junk; raises FileNotFoundError or ValueError where they can't be read."""
        patterns = ("gnd_oxford5k.pkl", "gnd_oxford5k.json", *QUERY_TEXTS)
        what = "gnd_oxford5k.pkl, gnd_oxford5k.json or the published *_query.txt, *_good.txt, *_ok.txt, *_junk.txt"
        return read_gnd(beside(self.root, patterns, what))


export = Oxford
