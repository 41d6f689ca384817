"""The first stage of the region index: nearest single regions in clusters of 8-bit codes, through faiss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.checks import check_integers

if TYPE_CHECKING:
    from zoo.search._packed import Regions

_REGIONS_PER_IMAGE = 4  # regions asked for, per image of the shortlist: the best ones are often of the same images
_GROWTH = 4  # times the regions it was trained on, from which it is trained anew


class CoarseRegions:
    """Says which images hold the regions nearest to a query's; made when first asked, from the regions that are there.

    About √T clusters, of which a region of a query looks into the `probes` nearest.
    """

    def __init__(self, probes: int) -> None:
        check_integers(1, probes=probes)
        self.probes = probes
        self._codes: Any = None
        self._images = 0  # those that it knows, the first ones of the index
        self._trained_on = 0

    def clear(self) -> None:
        """Forgets the codes, after images moved, and keeps the clusters."""
        if self._codes is not None:
            self._codes.reset()
        self._images = 0

    def images(self, query: np.ndarray, stored: Regions, count: int, allowed: np.ndarray | None) -> np.ndarray:
        """Returns at most `count` images with the regions nearest to any of `query (R, D)`."""
        import faiss

        self._update(stored)
        chosen = None if allowed is None else faiss.IDSelectorBatch(np.flatnonzero(allowed))
        parameters = faiss.SearchParametersIVF(nprobe=min(self.probes, self._codes.nlist), sel=chosen)
        asked = min(_REGIONS_PER_IMAGE * count, len(stored.regions))
        scores, images = (cells.ravel() for cells in self._codes.search(query, asked, params=parameters))
        best_first = images[np.argsort(-scores, kind="stable")]
        names, places = np.unique(best_first[best_first >= 0], return_index=True)
        return names[np.argsort(places)][:count]

    def content(self, stored: Regions) -> np.ndarray:
        """Returns clusters and codes of all regions as bytes."""
        import faiss

        self._update(stored)
        return faiss.serialize_index(self._codes)

    def restore(self, content: np.ndarray, stored: Regions) -> None:
        """Takes what `content` returned; raises ValueError where it isn't that, or of other regions."""
        import faiss

        codes = faiss.deserialize_index(content)
        if not isinstance(codes, faiss.IndexIVFScalarQuantizer) or codes.ntotal != len(stored.regions):
            rows = len(stored.regions)
            raise ValueError(f"its codes are {type(codes).__name__} of {codes.ntotal} regions instead of {rows}")
        self._codes, self._images, self._trained_on = codes, len(stored.counts), len(stored.regions)

    def _update(self, stored: Regions) -> None:
        if self._codes is None or len(stored.regions) > _GROWTH * self._trained_on:
            self._train(stored.regions)
        if self._images < len(stored.counts):
            names = np.repeat(np.arange(self._images, len(stored.counts)), stored.counts[self._images :])
            self._codes.add_with_ids(stored.regions[stored.starts[self._images] :], names)
            self._images = len(stored.counts)

    def _train(self, regions: np.ndarray) -> None:
        import faiss

        lists, dimension = max(1, int(len(regions) ** 0.5)), regions.shape[1]
        quantizer = faiss.IndexFlatIP(dimension)
        kind = faiss.ScalarQuantizer.QT_8bit
        codes = faiss.IndexIVFScalarQuantizer(quantizer, dimension, lists, kind, faiss.METRIC_INNER_PRODUCT)
        codes.cp.min_points_per_centroid = 1
        codes.train(np.ascontiguousarray(regions))
        self._codes, self._images, self._trained_on = codes, 0, len(regions)
