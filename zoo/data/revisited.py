"""Revisited Oxford and Paris in the layout of the public code of Radenović et al."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.data._published import ListedImages, beside
from zoo.truth import read_gnd

if TYPE_CHECKING:
    from zoo.truth import RelevanceLists


class Revisited(ListedImages):
    """roxford5k (4,993 + 70 images) or rparis6k (6,322 + 70), Radenović et al. 2018: `root` holds jpg/ and gnd_*.pkl.

    Split gallery is the file's imlist, split query its qimlist. Shared parameters: `ImageSplits`.
    """

    def read(self) -> RelevanceLists:
        """Returns the lists easy, hard and junk; raises FileNotFoundError or ValueError where they can't be read."""
        what = "gnd_roxford5k.pkl or gnd_rparis6k.pkl beside its folder jpg"
        return read_gnd(beside(self.root, ("gnd_roxford5k.pkl", "gnd_rparis6k.pkl"), what))


export = Revisited
