"""CamVid road scenes (Brostow et al. 2008) with the 11 classes that are usual since SegNet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo.classes import class_list
from zoo.data._label_maps import LabelReader
from zoo.data._segmentation import Labelled, Layout, SegmentationSplits, check_texts

UNLABELLED = 11


class CamVid(SegmentationSplits):
    """Pictures in images/SPLIT, label maps with ids 0 … 11 (11 = void) in labels/SPLIT, names in SPLIT.txt.

    Parameters beside `root`: `SegmentationSplits`.
    """

    def __init__(self, *, root: str, **shared: Any) -> None:
        super().__init__(**shared)
        check_texts({"root": root})
        self.reader = LabelReader(class_list("camvid11"), [UNLABELLED])
        self._layout = Layout(Path(root).expanduser(), "images/{split}", "labels/{split}", "{split}.txt", ".png")

    def pairs(self, split: str) -> dict[str, Labelled]:
        """See `Layout.pairs`."""
        return self._layout.pairs(split)


export = CamVid
