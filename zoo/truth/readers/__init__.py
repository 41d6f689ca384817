"""Ground truth from the files in which benchmarks publish it; nothing that is read is ever executed."""

from zoo.truth.readers.gnd import read_gnd
from zoo.truth.readers.graded import read_graded
from zoo.truth.readers.msls import read_msls

__all__ = ["read_gnd", "read_graded", "read_msls"]
