"""The ground truth of INSTRE as retrieval papers use it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.truth.readers.files import naming
from zoo.truth.relevance import RelevanceLists

if TYPE_CHECKING:
    from pathlib import Path


def read_instre(path: Path) -> RelevanceLists:
    """Reads `gnd_instre.mat` of Iscen et al. 2017: 1,250 queries with a box, five a class, 27,293 gallery images.

    Names are paths without suffix, such as INSTRE-S1/01a_canada_book/013. `imlist` and `qimlist` hold file names, `gnd`
    for each query the positions of its positives in `imlist`, counted from 1, and its box. Public readers disagree on
    what the box's four numbers are; they are taken for x, y, width, height if any third is not above the first or
    fourth not above the second, otherwise for x0, y0, x1, y1. Raises FileNotFoundError, or ValueError that names the
    file and the rule.
    """
    from scipy.io import loadmat

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of ground truth")
    with naming(path):
        try:
            content = loadmat(path, squeeze_me=True)
        except Exception as error:  # damaged bytes can fail anywhere in SciPy, and in any way
            raise ValueError(f"not a readable MATLAB file ({type(error).__name__}: {error})") from error
        missing = [key for key in ("imlist", "qimlist", "gnd") if key not in content]
        if missing:
            raise ValueError(f"the variables {missing} are missing")
        images, queries = (_names(key, content[key]) for key in ("imlist", "qimlist"))
        entries = np.atleast_1d(content["gnd"])
        if entries.dtype.names is None or len(entries.dtype.names) < 2 or len(entries) != len(queries):
            raise ValueError(f"gnd must be {len(queries)} structures of positives and a box, as many as qimlist names")
        positives, boxes = (entries[entries.dtype.names[field]] for field in (0, 1))
        groups = {"relevant": tuple(map(_positives, queries, positives, [images] * len(queries)))}
        return RelevanceLists(queries, queries, groups, _corners(queries, boxes), images)


def _names(key: str, value: Any) -> tuple[str, ...]:
    names = [str(name) for name in np.atleast_1d(value)]
    if not names or not all("." in name for name in names):
        raise ValueError(f"{key} must hold file names, got {names[:1]}")
    return tuple(name.replace("\\", "/").rpartition(".")[0] for name in names)


def _positives(query: str, positions: Any, images: tuple[str, ...]) -> tuple[str, ...]:
    places = np.atleast_1d(positions)
    if places.dtype.kind not in "iuf" or ((places < 1) | (places > len(images)) | (places % 1 != 0)).any():
        raise ValueError(f"query {query!r}: positives must be positions in imlist, from 1 to {len(images)}")
    return tuple(images[place - 1] for place in places.astype(int))


def _corners(queries: tuple[str, ...], boxes: Any) -> np.ndarray:
    numbers = [np.asarray(box, dtype=np.float64).ravel() for box in boxes]
    wrong = [query for query, box in zip(queries, numbers, strict=True) if box.shape != (4,)]
    if wrong:
        raise ValueError(f"query {wrong[0]!r}: a box must be four numbers")
    corners = np.stack(numbers)
    if (corners[:, 2:] <= corners[:, :2]).any():
        corners[:, 2:] += corners[:, :2]
    return corners
