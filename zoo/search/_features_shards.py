"""Shards of a features folder: written by every process for itself, each whole or not at all."""

from __future__ import annotations

import json
import secrets
import time
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zoo.files import BadFile, natural, replacing
from zoo.search._features_join import joined
from zoo.types import Representation

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from torch import Tensor

_STALE = 3600  # s after which a temporary file is what a kill left


class ShardWriter:
    """Collects the images of one process and writes a shard whenever `size` of them are there.

    A name starts with the run's number, by which a later run's images replace those of an earlier one.
    """

    def __init__(self, folder: Path, run: int, rank: int, size: int) -> None:
        self.folder, self.size = folder, size
        self._stem = f"{run:05d}-{rank:03d}-{secrets.token_hex(4)}"
        self._written = 0
        self._batches: list[tuple[Sequence[str], Representation, Sequence[dict[str, Any]]]] = []

    def add(self, ids: Sequence[str], items: Representation, payloads: Sequence[dict[str, Any]]) -> None:
        """Takes a batch."""
        # In one step: Ctrl-C, which may come while the device is waited for, must not part ids and items.
        self._batches.append((ids, items._map(lambda tensor: tensor.detach().cpu()), payloads))
        if sum(len(ids) for ids, _, _ in self._batches) >= self.size:
            self.flush()

    def flush(self) -> None:
        """Writes what was collected, if anything."""
        from safetensors.torch import save

        if not self._batches:
            return
        ids, items, payloads = zip(*self._batches, strict=True)
        tensors = {name: _stored(name, value).contiguous() for name, value in joined(items).filled().items()}
        said = {"ids": json.dumps(list(chain(*ids))), "payloads": json.dumps(list(chain(*payloads)))}
        with replacing(self.folder / f"{self._stem}-{self._written:06d}.safetensors") as file:
            file.write(save(tensors, metadata=said))
        self._written += 1
        self._batches = []


class Shards:
    """The shards of a folder, in the order in which later ones replace earlier ones."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.glob("[0-9]*-*.safetensors"))
        self._folder = folder
        self._payloads: dict[int, list[dict[str, Any]]] = {}

    def next_run(self) -> int:
        """Returns a number above those of all runs so far."""
        return 1 + max((int(path.name.partition("-")[0]) for path in self.files), default=0)

    def locate(self) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Returns the ids in natural order, and for each the shard and the row that hold it."""
        places: dict[str, tuple[int, int]] = {}
        for number in range(len(self.files)):
            for row, id_ in enumerate(self._said(number, "ids")):
                places[id_] = (number, row)
        ids = sorted(places, key=natural)
        where = np.array([places[id_] for id_ in ids], dtype=np.int64).reshape(-1, 2)
        return ids, where[:, 0], where[:, 1]

    def payloads(self, number: int) -> list[dict[str, Any]]:
        """Returns the payloads of a shard's rows."""
        if number not in self._payloads:
            self._payloads[number] = self._said(number, "payloads")
        return self._payloads[number]

    def read(self, number: int, rows: np.ndarray, fingerprint: str | None) -> Representation:
        """Returns rows of a shard; only these are read from the disk."""
        index = torch.from_numpy(np.ascontiguousarray(rows))
        with self._opened(number) as file:
            tensors = {name: _given(name, file.get_tensor(name)[index]) for name in file.keys()}  # noqa: SIM118
        return Representation(**tensors, fingerprint=fingerprint)

    def drop(self, ids: Collection[str], size: int) -> None:
        """Forgets images: writes what else their shards hold anew, at most `size` in a file, then removes those shards.

        After a kill on the way some of the images are still there, and nothing else is missing.
        """
        names, owners, rows = self.locate()
        run, dropped = self.next_run(), set(ids)
        shards = [number for number in range(len(self.files)) if not dropped.isdisjoint(self._said(number, "ids"))]
        writer = ShardWriter(self._folder, run, 0, size)
        for number in shards:
            mine = [place for place in np.flatnonzero(owners == number) if names[place] not in dropped]
            for start in range(0, len(mine), size):
                part = mine[start : start + size]
                payloads = [self.payloads(number)[rows[place]] for place in part]
                writer.add([names[place] for place in part], self.read(number, rows[part], None), payloads)
        writer.flush()
        for number in shards:
            self.files[number].unlink(missing_ok=True)

    def clean(self) -> None:
        """Removes what a killed process left half written."""
        for path in self._folder.glob(".*.tmp"):
            if time.time() - path.stat().st_mtime > _STALE:
                path.unlink(missing_ok=True)

    def _said(self, number: int, key: str) -> list[Any]:
        with self._opened(number) as file:
            said = file.metadata() or {}
        if key not in said:
            raise BadFile(f"shard {self.files[number]} doesn't name its {key}: zoo embed didn't write it")
        return json.loads(said[key])

    def _opened(self, number: int) -> AbstractContextManager[Any]:
        from safetensors import SafetensorError, safe_open

        path = self.files[number]
        try:
            return safe_open(path, framework="pt")
        except (OSError, SafetensorError) as error:
            raise BadFile(f"shard {path} is damaged ({error}): remove it and run zoo embed again") from error


def _stored(name: str, value: Tensor) -> Tensor:
    """Returns a local map, which takes a megabyte and more, in half precision, where its numbers fit into that."""
    if name != "local_map" or not len(value) or value.abs().max() > torch.finfo(torch.half).max:
        return value
    return value.half()


def _given(name: str, value: Tensor) -> Tensor:
    return value.float() if name == "local_map" else value
