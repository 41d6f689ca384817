"""What a third party's data modules derive from: loaders over named splits, and splits of picture files."""

from __future__ import annotations

from zoo.data._images import ImageSplits, folders_of, named_pictures
from zoo.data._loading import SplitDataModule, check_size

__all__ = [
    "ImageSplits",
    "SplitDataModule",
    "check_size",
    "folders_of",
    "named_pictures",
]
