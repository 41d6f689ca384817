"""Files of label maps as class ids: palette entries, grey levels, colours, or matrices of MATLAB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zoo.checks import check_integers, is_integer
from zoo.data._pictures import read_values
from zoo.files import BadFile
from zoo.ops.label_maps import VOID

if TYPE_CHECKING:
    from zoo.classes import ClassList

UNLISTED = ("refuse", "void")
_VALUES = 1 << 16  # ids of a file; a colour is one of 2^24
_MATRIX = "LabelMap"  # what PASCAL-Context calls it
_REFUSED = -2


class LabelReader:
    """Reads label maps as positions in `classes`, -1 where a pixel has none.

    The number in a file, less `offset`, is the class with this id, or in `names` (id → name) the class of this name;
    one that `names` knows and `classes` doesn't becomes the class `rest`, void without one. Numbers in `ignore` are
    void, as they stand in the file. Files of colours hold those of `classes`; black is void where no class is black.
    What is none of these raises BadFile, or is void with `unlisted="void"`. Raises ValueError for a value out of range,
    or names that lack a class.
    """

    def __init__(
        self,
        classes: ClassList,
        ignore: Sequence[int] = (),
        offset: int = 0,
        unlisted: str = "refuse",
        names: Mapping[int, str] | None = None,
        rest: str | None = None,
    ) -> None:
        if unlisted not in UNLISTED:
            raise ValueError(f"unlisted must be one of {', '.join(UNLISTED)}, got {unlisted!r}")
        if not is_integer(offset):
            raise ValueError(f"offset must be a whole number, got {offset!r}")
        _check_ignore(ignore)
        self.classes = classes
        self._table = np.full(_VALUES, VOID if unlisted == "void" else _REFUSED, np.int32)
        for number, position in _positions(classes, names, rest).items():
            if 0 <= number + offset < _VALUES:
                self._table[number + offset] = position
        self._table[list(ignore)] = VOID
        colours = [_packed(np.array(colour)) for colour in classes.colours]
        self._colours = {0: VOID, **dict(zip(map(int, colours), range(len(classes)), strict=True))}
        self._void = unlisted == "void"
        if len(set(colours)) < len(colours):
            self._colours = {}

    def read(self, path: Path) -> np.ndarray:
        """Returns (H, W) int64; raises BadFile for a file that can't be read or holds what is no class."""
        values = _matrix(path) if path.suffix == ".mat" else read_values(path)
        if values.ndim == 3:
            return self._of_colours(values, path)
        if values.dtype.kind not in "iu" or (values.size and not 0 <= values.min() <= values.max() < _VALUES):
            raise BadFile(f"label map {path} must hold whole numbers from 0 to {_VALUES - 1}, it doesn't")
        found = self._table[values]
        if not self._void and found.size and found.min() == _REFUSED:
            row, column = np.argwhere(found == _REFUSED)[0]
            raise BadFile(
                f"label map {path} must hold ids of {self.classes.name} ({len(self.classes)} classes), got "
                f"{values[row, column]} at row {row}, column {column}: name it in data.ignore, or set data.offset, "
                "data.classes or data.unlisted=void"
            )
        return found.astype(np.int64)

    def _of_colours(self, values: np.ndarray, path: Path) -> np.ndarray:
        if not self._colours:
            raise BadFile(f"label map {path} holds colours, of which classes {self.classes.name} share some")
        known, places = np.unique(_packed(values), return_inverse=True)
        found = np.array([self._colours.get(int(colour), _REFUSED) for colour in known])
        if (found == _REFUSED).any() and not self._void:
            colour = int(known[found == _REFUSED][0])
            raise BadFile(
                f"label map {path} must hold colours of {self.classes.name}, got #{colour:06x}: set data.classes to a "
                "list that has it, or data.unlisted=void"
            )
        return np.where(found == _REFUSED, VOID, found)[places].reshape(values.shape[:2]).astype(np.int64)


def _check_ignore(ignore: Sequence[int]) -> None:
    if not isinstance(ignore, (list, tuple)):
        raise ValueError(f"ignore must be a list of ids, got {ignore!r}")
    for value in ignore:
        check_integers(0, ignore=value)
        if value >= _VALUES:
            raise ValueError(f"ignore must list ids below {_VALUES}, got {value}")


def _positions(classes: ClassList, names: Mapping[int, str] | None, rest: str | None) -> dict[int, int]:
    """Returns id → position in `classes`, -1 for what is void."""
    other = VOID if rest is None else classes.position(rest)
    if names is None:
        return {number: position for position, number in enumerate(classes.ids)}
    lacking = sorted(set(classes.names) - set(names.values()) - {rest})
    if lacking:
        raise ValueError(f"the ids' names must hold every class of {classes.name}, they lack {', '.join(lacking)}")
    own = {name: position for position, name in enumerate(classes.names)}
    return {number: own.get(name, other) for number, name in names.items()}


def _packed(colours: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(colours.astype(np.int64), -1, 0)
    return red << 16 | green << 8 | blue


def _matrix(path: Path) -> np.ndarray:
    """Returns the matrix of a MATLAB file; such files hold numbers alone, nothing in them is executed."""
    from scipy.io import loadmat

    try:
        content = loadmat(path, variable_names=[_MATRIX])
    except Exception as error:  # damaged bytes can fail anywhere
        raise BadFile(f"label map {path} can't be read ({error or type(error).__name__})") from error
    if _MATRIX not in content or content[_MATRIX].ndim != 2:
        raise BadFile(f"label map {path} must hold a matrix {_MATRIX}, it doesn't")
    return content[_MATRIX]
