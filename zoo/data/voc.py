"""PASCAL VOC segmentation (Everingham et al. 2010): 20 classes and background."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo.classes import class_list
from zoo.data._label_maps import LabelReader
from zoo.data._segmentation import Labelled, Layout, SegmentationSplits, check_texts

BORDER = 255  # of objects, and what is hard to tell


class VOC(SegmentationSplits):
    """Pictures in JPEGImages, label maps (255 = void) in `labels`, names in `lists`.

    `lists` None takes every label map there is; then there is one split. Other parameters: `SegmentationSplits`.
    """

    def __init__(self, *, root: str, labels: str, lists: str | None, **shared: Any) -> None:
        super().__init__(**shared)
        check_texts({"root": root, "labels": labels, "lists": lists}, optional=("lists",))
        self.reader = LabelReader(class_list("voc21"), [BORDER])
        self._layout = Layout(Path(root).expanduser(), "JPEGImages", labels, lists, ".png")
        self._layout.check(self.splits)

    def pairs(self, split: str) -> dict[str, Labelled]:
        """See `Layout.pairs`."""
        return self._layout.pairs(split)


export = VOC
