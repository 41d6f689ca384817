"""Ground truth from the files in which benchmarks publish it; nothing that is read is ever executed."""

from zoo.truth.readers.coco import read_coco
from zoo.truth.readers.gnd import read_gnd
from zoo.truth.readers.graded import read_graded
from zoo.truth.readers.holidays import holidays_lists
from zoo.truth.readers.instre import read_instre
from zoo.truth.readers.msls import read_msls
from zoo.truth.readers.scenes import iter_scenes, read_scenes

__all__ = [
    "holidays_lists",
    "iter_scenes",
    "read_coco",
    "read_gnd",
    "read_graded",
    "read_instre",
    "read_msls",
    "read_scenes",
]
