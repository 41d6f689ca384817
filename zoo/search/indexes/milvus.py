"""Search in Milvus: a file of Milvus Lite, or a server by its address, through the same client."""

from __future__ import annotations

import json
import logging
import os
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from zoo.checks import check_integers
from zoo.files import BadFile
from zoo.registry import UsageError
from zoo.search import storage
from zoo.search._expressions import among, payload_filter
from zoo.search.index import Index
from zoo.search.rows import Ids, payload_texts
from zoo.search.stored import check_metric, rows_of
from zoo.types import Ranking, Representation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_METRICS = {"dot": "IP", "cosine": "COSINE", "l2": "L2"}
_PROPERTY = "spatial_zoo.fingerprint"  # of a collection; Milvus Lite forgets descriptions
_LONGEST_ID = 4096  # bytes, as long as a path may be
_NAMES = 1000  # ids in one expression
_PAGE = 10_000  # rows in one answer; servers return at most 16,384
_BYTES = 16 << 20  # of vectors in one message; servers refuse more than 64 MiB


class MilvusIndex(Index):
    """Keeps vectors and payloads in a collection of Milvus; what is added is there at once, without `save`.

    `uri` is a path that ends with .db (Milvus Lite, extra `milvus`) or the address of a server, whose token, if it
    wants one, stands in the environment variable MILVUS_TOKEN. `metric`: dot, cosine or l2; with cosine the vectors are
    L2-normalised when they are added, and `get` returns them so. The folder that `save` writes only tells where the
    collection is: save an empty index before a long build, then a killed one goes on after `open_index`, with the ids
    that it lacks. Of equally near items any comes first; a search returns 10,000 items at most, as servers do.
    """

    tiny: ClassVar[Mapping[str, Any]] = {"uri": "{folder}/milvus.db", "metric": "dot"}

    immediate: ClassVar[bool] = True

    def __init__(self, *, uri: str, collection: str, metric: str) -> None:
        check_metric(metric)
        self._lite = "://" not in uri
        if self._lite and not uri.endswith(".db"):
            raise ValueError(
                f"uri must be a path that ends with .db, or an address such as http://host:19530, got {uri!r}"
            )
        self.uri, self.collection, self.metric = os.path.abspath(uri) if self._lite else uri, collection, metric
        self._given = uri
        self._registered: dict[str, Any] | None = None
        self._client: Any = None
        self._dimension: int | None = None
        self._integers: bool | None = None  # whether ids are ints
        self._folder: tuple[Path, int] | None = None  # where it was saved, and the generation of what stands there

    def add(
        self,
        ids: Sequence[str] | Sequence[int],
        items: Representation,
        payloads: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Adds items at once; see `Index.add`."""
        names, rows, texts = self._checked(ids, items, payloads)
        there = self._existing(names)
        if there:
            clash = next(name for name in names if name in there)
            raise ValueError(f"the index already has an item with the id {clash!r}: use replace")
        self._write(names, rows, texts, items.fingerprint)

    def replace(
        self,
        ids: Sequence[str] | Sequence[int],
        items: Representation,
        payloads: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Replaces items at once; see `Index.replace`."""
        names, rows, texts = self._checked(ids, items, payloads)
        self._require(names, self._existing(names))
        self._write(names, rows, texts, items.fingerprint)

    def remove(self, ids: Sequence[str] | Sequence[int]) -> None:
        """Removes items at once; see `Index.remove`."""
        names = Ids().checked(ids).tolist()
        self._require(names, self._existing(names))
        for part in _parts(names, _NAMES):
            self._connected().delete(self.collection, filter=among("id", part))

    def search(
        self,
        queries: Representation | None,
        k: int,
        where: Mapping[str, Any] | None = None,
        words: Sequence[Sequence[str]] | None = None,
    ) -> list[Ranking]:
        """Returns the k nearest items of each query; see `Index.search`. It can't count words, so that it takes none.

        Milvus answers by distance or by a condition, and counting the words of all items here would read all of them.
        """
        check_integers(1, k=k)
        self.refuse_words(words)
        if queries is None:
            raise ValueError("queries must be a Representation: the index milvus can't search by words alone, got None")
        client = self._connected()
        queries.require(self.needs, "the index milvus")
        self.check_model(queries, "queries")
        rows, condition = rows_of(queries.vector, self._dimension, "queries", False), payload_filter(where or {})
        if self._dimension is None or condition is None or not len(rows):
            return [Ranking([], torch.empty(0)) for _ in rows]
        found = []
        for part in _parts(list(rows), _NAMES):
            found += client.search(
                self.collection,
                data=part,
                limit=min(k, _PAGE),
                filter=condition,
                output_fields=["id"],
                search_params={"metric_type": _METRICS[self.metric]},
                consistency_level="Strong",
            )
        return [self._ranking(hits) for hits in found]

    def get(self, ids: Sequence[str] | Sequence[int]) -> Representation:
        """Returns the stored vectors; see `Index.get`."""
        rows = np.array(self._fetch(list(ids), "vector"), np.float32).reshape(len(ids), -1 if len(ids) else 0)
        return Representation(vector=torch.from_numpy(rows), fingerprint=self.fingerprint)

    def payloads(self, ids: Sequence[str] | Sequence[int]) -> list[dict[str, Any]]:
        """Returns the payloads of items; see `Index.payloads`."""
        return [dict(payload) for payload in self._fetch(list(ids), "payload")]

    @property
    def ids(self) -> list[str] | list[int]:
        """Returns all ids, oldest first."""
        self._connected()
        found = [] if self._dimension is None else [row for page in self._pages() for row in page]
        return [row["id"] for row in sorted(found, key=lambda row: row["position"])]

    def __len__(self) -> int:
        self._connected()
        return 0 if self._dimension is None else self._count("")

    def __contains__(self, item: object) -> bool:
        return bool(self._existing([item]))

    def known(self, ids: Sequence[str] | Sequence[int]) -> list[str] | list[int]:
        """Returns those of `ids` that are there; see `Index.known`."""
        there = self._existing(list(ids))
        return [name for name in ids if name in there]

    @property
    def registered(self) -> dict[str, Any] | None:
        """Returns name and parameters, with the whole path of a file: which one it is must not depend on where from."""
        if self._registered is None:
            return None
        return {**self._registered, "parameters": {**self._registered["parameters"], "uri": self.uri}}

    @registered.setter
    def registered(self, registered: dict[str, Any]) -> None:
        self._registered = registered

    def place(self, folder: Path) -> None:
        """Puts the file of Milvus Lite into `folder`, if its name was given without a whole path."""
        if self._lite and self._client is None:
            self.uri = str(Path(folder).resolve() / self._given)

    def save(self, folder: Path, about: Mapping[str, Any] | None = None) -> None:
        """Writes where the collection is; see `Index.save`."""
        folder = Path(folder).resolve()
        if about is not None:
            self.about = dict(about)
        described = self.described()
        described["index"]["parameters"]["uri"] = self._uri_from(folder)
        generation = self._folder[1] if self._folder and self._folder[0] == folder else None
        if self._dimension is not None:
            self._connected().flush(self.collection)
        with storage.committing(folder, generation) as (commit, manifest):
            manifest.update(described)
        self._folder = folder, commit.generation

    def restore(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        """Finds the collection again; raises BadFile where it is gone or holds another model's vectors."""
        uri = manifest["index"]["parameters"]["uri"]
        self.uri = str((Path(folder) / uri).resolve()) if self._lite else uri
        self._folder = Path(folder).resolve(), manifest["generation"]
        expected = self.fingerprint
        self._connected()
        if expected is not None and (self._dimension is None or self.fingerprint != expected):
            there = "no such collection" if self._dimension is None else f"vectors of the model {self.fingerprint}"
            raise BadFile(
                f"{folder} is an index of the model {expected} in the collection '{self.collection}' of {self.uri}, "
                f"which holds {there}"
            )

    def close(self) -> None:
        """Lets go of the connection; the next use makes a new one."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _connected(self) -> Any:
        """Returns the client; what the collection says of itself is known from the first call on."""
        if self._client is None:
            self._client = _connect(self.uri, self._lite)
            if self._client.has_collection(self.collection):
                self._adopt()
        return self._client

    def _adopt(self) -> None:
        from pymilvus import DataType

        if self._folder is None and self._dimension is None:
            raise ValueError(
                f"{self.uri} already has a collection '{self.collection}': open the folder of its index with "
                f"open_index, or choose another collection"
            )
        described = self._client.describe_collection(self.collection)
        fields = {field["name"]: field for field in described["fields"]}
        if fields.keys() != {"id", "vector", "position", "payload"} or _PROPERTY not in described["properties"]:
            raise BadFile(f"the collection '{self.collection}' of {self.uri} was not made by the zoo")
        self._dimension = fields["vector"]["params"]["dim"]
        self._integers = fields["id"]["type"] == DataType.INT64
        self.fingerprint = described["properties"][_PROPERTY] or None
        self._client.load_collection(self.collection)

    def _checked(self, ids: Any, items: Representation, payloads: Any) -> tuple[list[Any], np.ndarray, np.ndarray]:
        self._connected()
        names = Ids().checked(ids).tolist()
        items.require(self.needs, "the index milvus")
        if len(items) != len(names):
            raise ValueError(f"items must be one per id, got {len(items)} for {len(names)} ids")
        self.check_model(items, "items")
        if names and self._integers not in (None, isinstance(names[0], int)):
            there, got = "int" if self._integers else "str", type(names[0]).__name__
            raise ValueError(f"ids must be of one kind: the index has {there}, got {got}")
        if names and isinstance(names[0], str) and max(len(name.encode()) for name in names) > _LONGEST_ID:
            raise ValueError(f"ids must have at most {_LONGEST_ID} bytes, got {max(names, key=len)!r}")
        rows = rows_of(items.vector, self._dimension, "items", self.metric == "cosine")
        return names, rows, payload_texts(payloads, len(names))

    def _write(self, names: list[Any], rows: np.ndarray, texts: np.ndarray, fingerprint: str | None) -> None:
        if not names:
            return
        if self._dimension is None:
            self._create(rows.shape[1], isinstance(names[0], int), fingerprint)
        now = time.time_ns()
        size = max(1, _BYTES // rows[0].nbytes)
        for start in range(0, len(names), size):
            part = range(start, min(len(names), start + size))
            data = [
                {"id": names[i], "vector": rows[i], "position": now + i, "payload": json.loads(texts[i] or "{}")}
                for i in part
            ]
            self._client.upsert(self.collection, data)

    def _create(self, dimension: int, integers: bool, fingerprint: str | None) -> None:
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        kind = {"datatype": DataType.INT64} if integers else {"datatype": DataType.VARCHAR, "max_length": _LONGEST_ID}
        schema.add_field("id", is_primary=True, **kind)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimension)
        schema.add_field("position", DataType.INT64)
        schema.add_field("payload", DataType.JSON)
        how = self._client.prepare_index_params()
        how.add_index("vector", index_type="FLAT", metric_type=_METRICS[self.metric])
        self._client.create_collection(
            self.collection, schema=schema, index_params=how, properties={_PROPERTY: fingerprint or ""}
        )
        self._dimension, self._integers, self.fingerprint = dimension, integers, fingerprint

    def _ranking(self, hits: Sequence[Mapping[str, Any]]) -> Ranking:
        scores = torch.tensor([hit["distance"] for hit in hits], dtype=torch.float32)
        return Ranking([hit["id"] for hit in hits], -scores.clamp(min=0).sqrt() if self.metric == "l2" else scores)

    def _pages(self) -> Iterator[list[Mapping[str, Any]]]:
        """Yields ids and positions, in ranges of positions that a server returns at once.

        pymilvus' own iterator writes ids into its conditions without escaping them.
        """
        ranges = [(0, 1 << 61)]
        while ranges:
            first, last = ranges.pop()
            condition = f"position >= {first} and position < {last}"
            count = self._count(condition)
            if count > _PAGE:
                middle = (first + last) // 2
                ranges += [(middle, last), (first, middle)]
            elif count:
                yield self._query(condition, ["id", "position"])

    def _count(self, condition: str) -> int:
        return self._query(condition, ["count(*)"])[0]["count(*)"]

    def _query(self, condition: str, fields: list[str]) -> list[Mapping[str, Any]]:
        return self._client.query(self.collection, filter=condition, output_fields=fields, consistency_level="Strong")

    def _existing(self, names: list[Any]) -> set[Any]:
        return {row["id"] for row in self._rows(names, ["id"])}

    def _fetch(self, names: list[Any], field: str) -> list[Any]:
        found = {row["id"]: row[field] for row in self._rows(names, ["id", field])}
        self._require(names, found)
        return [found[name] for name in names]

    def _rows(self, names: list[Any], fields: list[str]) -> Iterator[Mapping[str, Any]]:
        self._connected()
        names = [name for name in names if type(name) is (int if self._integers else str)]
        for part in _parts(names if self._dimension is not None else [], _NAMES):
            yield from self._query(among("id", part), fields)

    def _require(self, names: list[Any], there: Any) -> None:
        missing = [name for name in names if name not in there]
        if missing:
            raise ValueError(f"the index has no item with the id {missing[0]!r}")

    def _uri_from(self, folder: Path) -> str:
        """Returns a path below the folder relative to it, so that both may be moved together."""
        inside = self._lite and Path(self.uri).is_relative_to(folder)
        return str(Path(self.uri).relative_to(folder)) if inside else self.uri


def _connect(uri: str, lite: bool) -> Any:
    try:
        from pymilvus import MilvusClient
        from pymilvus.exceptions import MilvusException
    except ImportError:
        raise UsageError("the index milvus needs an extra: pip install 'spatial-zoo[milvus]'") from None
    if lite:
        Path(uri).parent.mkdir(parents=True, exist_ok=True)
    try:
        client = MilvusClient(uri, token=os.environ.get("MILVUS_TOKEN", ""))
    except MilvusException as error:
        hint = "; another process may have it open" if lite else ""
        raise UsageError(f"Milvus at {uri} can't be reached: {error.message}{hint}") from error
    if lite:
        logger = logging.getLogger("grpc._server")
        expected = _Unimplemented()
        logger.addFilter(expected)
        weakref.finalize(client, logger.removeFilter, expected)
    return client


class _Unimplemented(logging.Filter):
    """Keeps back that Milvus Lite lacks what pymilvus asks it for (AllocTimestamp) and can do without."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Says whether a record is anything else."""
        return "Method not implemented!" not in record.getMessage()


def _parts(names: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(names), size):
        yield names[start : start + size]


export = MilvusIndex
