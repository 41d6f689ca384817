"""Pictures with label maps in folders of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.classes import class_list
from zoo.data._label_maps import LabelReader
from zoo.data._segmentation import Labelled, Layout, SegmentationSplits, check_texts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class LabelMaps(SegmentationSplits):
    """Pictures below `images`, their label maps below `labels`, folders below `root` or absolute.

    `lists` is a text file of a split's names, None where all label maps below a split's folder belong to it; `ending`
    is what stands behind a picture's name in the name of its label map. `classes` and `id_names` are as `class_list`
    takes them; `ignore`, `offset`, `unlisted` and `rest` are explained by `LabelReader`. Other parameters:
    `SegmentationSplits`. Raises ValueError for a value out of range, BadFile for a damaged list.
    """

    def __init__(
        self,
        *,
        root: str,
        images: str,
        labels: str,
        lists: str | None,
        ending: str,
        classes: str | Sequence[str | Mapping[str, str]],
        ignore: Sequence[int],
        offset: int,
        unlisted: str,
        id_names: str | None,
        rest: str | None,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        texts = {"root": root, "images": images, "labels": labels, "lists": lists, "ending": ending, "rest": rest}
        check_texts(texts, optional=("lists", "rest"))
        names = None if id_names is None else class_list(id_names)
        by_id = None if names is None else dict(zip(names.ids, names.names, strict=True))
        self.reader = LabelReader(class_list(classes), ignore, offset, unlisted, by_id, rest)
        self._layout = Layout(Path(root).expanduser(), images, labels, lists, ending)
        self._layout.check(self.splits)

    def pairs(self, split: str) -> dict[str, Labelled]:
        """See `Layout.pairs`."""
        return self._layout.pairs(split)


export = LabelMaps
