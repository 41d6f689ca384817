"""INRIA Holidays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.data._published import PublishedImages
from zoo.files import BadFile
from zoo.truth.readers import holidays_lists

if TYPE_CHECKING:
    from zoo.truth import RelevanceLists


class Holidays(PublishedImages):
    """The 1,491 images of Holidays (Jégou et al. 2008) below `root`, 500 of them queries; keys: `ImageSplits`.

    A name has six digits: four of the group, and 00 for its query. Some photos lie on their side, without a word of it
    in EXIF; papers differ in whether they turn them by hand. `rotations` is a text file with a line `name degrees` for
    each (clockwise, a multiple of 90), None to leave them. Raises ValueError for a value outside its range.
    """

    def __init__(self, *, root: str, rotations: str | None, **shared: Any) -> None:
        super().__init__(root=root, **shared)
        self.rotations = None if rotations is None else Path(rotations).expanduser()
        self._quarters: dict[str, int] = {}

    def find(self) -> dict[str, dict[str, Path]]:
        """Lists the folder and reads the rotations; raises FileNotFoundError, BadFile, or ValueError for no images."""
        found = super().find()
        if self.rotations is not None:
            self._quarters = _read_rotations(self.rotations, found["gallery"])
        return found

    def turn(self, path: Path) -> int:
        """Returns by how many clockwise quarters the file is turned beyond EXIF."""
        return self._quarters.get(path.stem, 0)

    def ground_truth(self) -> RelevanceLists:
        """Returns for each query the others of its group; raises ValueError where names aren't Holidays'."""
        return holidays_lists(self.ids("gallery"))


def _read_rotations(file: Path, names: dict[str, Path]) -> dict[str, int]:
    if not file.is_file():
        raise FileNotFoundError(f"rotations must be a text file, got {file}, which doesn't exist: set data.rotations")
    quarters = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        name = Path(words[0]).stem
        degrees = words[1] if len(words) == 2 else ""
        if name not in names or not degrees.lstrip("-").isdecimal() or int(degrees) % 90:
            rule = "the name of an image and degrees, a multiple of 90"
            raise BadFile(f"rotations {file}, line {number} must hold {rule}, got '{line}'")
        quarters[name] = int(degrees) // 90 % 4
    return quarters


export = Holidays
