"""PASCAL-Context (Mottaghi et al. 2014): VOC 2010's pictures with a label for every pixel, 59 classes and background.

Two orders of the ids circulate, so that an id says nothing without its name: the publisher's `59_labels.txt` has VOC's
classes first, exports made with the Detail API have all in alphabetical order.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from zoo.classes import class_list
from zoo.data._label_maps import LabelReader
from zoo.data._segmentation import Labelled, Layout, SegmentationSplits, check_texts

CLASSES, VOC_FIRST, BACKGROUND = "pascal_context60", "pascal_context60_voc_first", "background"
VOID = 255
FORMS = {  # → folder of the label maps, what their names end in
    "alphabetical": ("SegmentationClassContext", ".png"),
    "voc_first": ("59_context_labels", ".png"),
    "matlab": ("trainval", ".mat"),
}


class PascalContext(SegmentationSplits):
    """Pictures in JPEGImages; label maps in one of three `form`s, in the folder `labels` (None: the form's usual one).

    "alphabetical" and "voc_first" are PNG files of ids 0 (background) … 59 in these orders, 255 being void; "matlab"
    are the publisher's matrices of some 459 classes, whose names stand in `label_names`: what is none of the 59 becomes
    background, pixels that nobody labelled too. Other parameters: `SegmentationSplits`. Raises ValueError for another
    form.
    """

    def __init__(
        self, *, root: str, form: str, labels: str | None, label_names: str, lists: str, **shared: Any
    ) -> None:
        super().__init__(**shared)
        check_texts({"root": root, "labels": labels, "label_names": label_names, "lists": lists}, optional=("labels",))
        if form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
        self._form, folder = form, Path(root).expanduser()
        self._names_file = folder / label_names
        usual, ending = FORMS[form]
        self._layout = Layout(folder, "JPEGImages", labels or usual, lists, ending)
        self._layout.check(self.splits)

    @cached_property
    def reader(self) -> LabelReader:
        """Returns what reads the form; raises ValueError where the file of names is missing or lacks a class."""
        classes = class_list(CLASSES)
        if self._form == "alphabetical":
            return LabelReader(classes, [VOID])
        named = class_list(VOC_FIRST if self._form == "voc_first" else self._names_file)
        names = dict(zip(named.ids, named.names, strict=True))
        if self._form == "voc_first":
            return LabelReader(classes, [VOID], names=names)
        return LabelReader(classes, names={0: "unlabelled", **names}, rest=BACKGROUND)

    def pairs(self, split: str) -> dict[str, Labelled]:
        """See `Layout.pairs`."""
        return self._layout.pairs(split)


export = PascalContext
