"""INSTRE: instances of buildings, flat and solid objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.data._published import ListedImages, beside
from zoo.truth.readers import read_instre

if TYPE_CHECKING:
    from zoo.truth import RelevanceLists


class Instre(ListedImages):
    """INSTRE (Wang and Jiang 2015) in the split of Iscen et al. 2017: 27,293 images, 1,250 queries with boxes.

    `root` holds INSTRE-S1/, INSTRE-S2/ (100 classes each) and INSTRE-M/ (50 pairs of them), a folder for each class,
    and `gnd_instre.mat`. Images are called by their path, such as INSTRE-S1/01a_canada_book/013. The text files beside
    the images (x, y, width, height of each object) aren't needed. Shared parameters: `ImageSplits`.
    """

    names = "path"

    def read(self) -> RelevanceLists:
        """Returns the list of each query's positives; raises FileNotFoundError or ValueError if it can't be read."""
        return read_instre(beside(self.root, ("gnd_instre.mat",), "gnd_instre.mat beside INSTRE-S1, -S2 and -M"))


export = Instre
