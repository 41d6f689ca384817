"""What answers requests: an index, the model that made it, and re-rankers; nothing of HTTP."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.serve.describing import Describer, Photo, preparing
from zoo.serve.hits import class_names, told
from zoo.serve.problems import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from PIL import Image

    from zoo.serve.settings import Settings
    from zoo.types import Ranking, Representation

Id = str | int
_LOOKED_AT = 1000  # items by whose payloads it is told whether there are captions


@dataclass(frozen=True)
class Asked:
    """A search: what is drawn, as labels (H, W) with -1 where nothing is, over a photo or an item of the index.

    Without any of them and without `text` the images come oldest first, or as an index without captions likes.
    """

    k: int
    offset: int = 0
    labels: np.ndarray | None = None
    photo: Photo | None = None
    item: str | None = None
    text: str = ""
    where: Mapping[str, Any] | None = None
    rerankers: Sequence[str] | None = None
    explain: bool = False

    @property
    def drawn(self) -> bool:
        """Says whether anything is drawn."""
        return self.labels is not None and bool((self.labels >= 0).any())

    @property
    def base(self) -> bool:
        """Says whether there is a photo or an item."""
        return self.photo is not None or self.item is not None

    @property
    def empty(self) -> bool:
        """Says whether nothing is asked for."""
        return not (self.drawn or self.base or self.text.strip())


@dataclass(frozen=True)
class Answer:
    """Hits as JSON has them, whether there are more behind them, and the milliseconds that it took."""

    hits: list[dict[str, Any]]
    more: bool
    milliseconds: float
    rerankers: list[str]


class Engine:
    """Searches the index of a folder, as `settings` say. Opening it never executes what the folder holds.

    Raises BadFile or UsageError for an index, model or features that can't be used, or re-rankers that don't fit.
    """

    def __init__(self, settings: Settings) -> None:
        from zoo import config
        from zoo.search.features import open_features
        from zoo.search.index import open_index
        from zoo.types import name_of

        self.settings, self.folder = settings, Path(settings.index)
        self.index = open_index(self.folder)
        self.extra = open_features(settings.features) if settings.features else None
        stages = [config.instantiate(node) for node in settings.rerankers]
        self.rerankers = {name_of(stage): stage for stage in stages}
        self._describers = self._opened_models()
        for stage in stages:
            for describer in self._describers if hasattr(stage, "use_model") else ():
                stage.use_model(describer.model)
        self._data = self._describers[0].data if self._describers else preparing(self.index.about)
        self._ids = self.index.ids
        self.classes = class_names(self.index, self._describers) if self.grid else None

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def maps(self) -> bool:
        """Says whether the index holds probability maps, so that one can draw."""
        return "probability_map" in self.index.needs

    @property
    def grid(self) -> tuple[int, int] | None:
        """Returns (H, W) of the maps, None for an index of another kind, or without a codebook."""
        book = getattr(self.index, "codebook", None) if self.maps else None
        return None if book is None else book.grid

    @property
    def upright(self) -> bool:
        """Says whether pictures are turned as their EXIF orientation says."""
        return bool(self._data.preprocessing.get("upright", True))

    @property
    def takes_photos(self) -> bool:
        """Says whether photos of requests can be described, which takes the model of the index."""
        return bool(self._describers) and (self.extra is None or len(self._describers) == 2)

    def described(self) -> dict[str, Any]:
        """Returns what the index is, as JSON has it."""
        from zoo.search.captions import KEY

        classes = None
        if self.classes is not None:
            from zoo.classes import hex_colour

            classes = [{"name": name, "colour": hex_colour(colour)} for name, colour in self.classes]
        payloads = self.index.payloads(self._ids[:_LOOKED_AT]) if len(self) else []
        return {
            "name": self.folder.name,
            "index": (self.index.registered or {}).get("name"),
            "model": (self.index.about.get("model") or {}).get("name"),
            "images": len(self),
            "needs": list(self.index.needs),
            "classes": classes,
            "map_size": None if self.grid is None else list(self.grid),
            "captions": KEY in self.index.about or any(KEY in payload for payload in payloads),
            "pictures": any("path" in payload for payload in payloads),
            "photos": self.takes_photos,
            "rerankers": list(self.rerankers),
            "k": self.settings.k,
            "most": self.settings.most,
            "upload_bytes": int(self.settings.upload_mb * 1e6),
        }

    def describe(self, picture: Image.Image) -> Photo:
        """Returns what the models make of a photo; raises Refused where the index brings no model."""
        if not self.takes_photos:
            raise Refused(409, "photo", "be an item instead: the index brings no model to describe photos", "a photo")
        parts = [describer(picture) for describer in self._describers]
        return Photo(parts[0][0], parts[1][0] if len(parts) > 1 else None, parts[0][1])

    def search(self, asked: Asked) -> Answer:
        """Returns the hits from rank `offset` on; raises Refused for what can't be searched by."""
        start = time.perf_counter()
        stages = self._stages(asked)
        count = asked.offset + asked.k + 1  # one more tells whether there are more
        try:
            ranking = self._ranked(asked, count, [self.rerankers[name] for name in stages])
        except ValueError as error:
            raise Refused(400, "query", "fit the index", error) from error
        end = asked.offset + asked.k
        part = slice(asked.offset, end)
        payloads = self.index.payloads(ids) if (ids := list(ranking.ids)[part]) else []
        scored = "score" if asked.drawn or asked.base else "no"
        scored = "distance" if scored == "score" and self.maps and not stages else scored
        hits = told(ranking, part, payloads, scored, self.classes if asked.explain else None)
        return Answer(hits, len(ranking) > end, 1e3 * (time.perf_counter() - start), stages)

    def label_map(self, name: str) -> np.ndarray:
        """Returns an item's map as the most probable class of each location, (H, W); raises Refused."""
        if not self.maps:
            raise Refused(409, "index", "hold probability maps, to have one of an item", self.index.needs)
        return self.index.get([self.id_of(name)]).probability_map[0].argmax(0).numpy()

    def picture_of(self, name: str) -> tuple[Id, dict[str, Any]]:
        """Returns an item's id and payload, which names its file; raises Refused where it names none."""
        key = self.id_of(name)
        payload = self.index.payloads([key])[0]
        if "path" not in payload:
            raise Refused(404, "id", "be that of an item whose picture is known", name)
        return key, payload

    def id_of(self, name: str, argument: str = "id") -> Id:
        """Returns the id of an item that the index holds and that may be seen; raises Refused for any other."""
        try:
            key = type(self._ids[0])(name) if len(self) else name
        except ValueError:
            key = name
        if key not in self.index or not _fits(self.index.payloads([key])[0], self.settings.where):
            raise Refused(404, argument, "be that of an item of the index", repr(name))
        return key

    def _opened_models(self) -> list[Describer]:
        from zoo.search.features import MODEL

        device, opened = self.settings.device, []
        places = [(f"index {self.folder}", self.folder / MODEL, self.index)]
        if self.extra is not None:
            extra = self.extra
            places.append((f"features {extra.path}", extra.model_file or extra.path / MODEL, extra))
        for what, file, source in places:
            if file.is_file() and "data" in source.about:
                opened.append(Describer(what, file, source.about, source.fingerprint, device))
        return opened

    def _stages(self, asked: Asked) -> list[str]:
        """Returns the re-rankers that are used: all where none are named, none with text, whose order they'd undo."""
        for name in asked.rerankers or ():
            if name not in self.rerankers:
                known = ", ".join(self.rerankers)
                rule = f"be among {known}" if known else "be left out: the server has none"
                raise Refused(400, "rerankers", rule, name)
        if asked.text.strip() and asked.rerankers:
            raise Refused(400, "rerankers", "be left out with text, whose order they would undo", asked.rerankers)
        if asked.empty or asked.text.strip():
            return []
        return list(self.rerankers) if asked.rerankers is None else list(asked.rerankers)

    def _ranked(self, asked: Asked, count: int, stages: Sequence[Any]) -> Ranking:
        from zoo.search.captions import words_of
        from zoo.search.pipeline import Pipeline
        from zoo.types import Ranking

        if not len(self):
            import torch

            return Ranking([], torch.empty(0))
        where = self._where(asked.where)
        words = [words_of(asked.text)]
        if not (asked.drawn or asked.base):
            return self._listed(count, where, words)
        items, extra, metadata = self._query(asked)
        exclude = None if asked.item is None else self.id_of(asked.item, "item")
        text = {"words": words} if words[0] else {}
        further = () if extra is None else (self.extra, extra)
        pipeline = Pipeline(self.index, stages, self.settings.shortlist)
        return pipeline.search(items, count, where, [exclude], [metadata], *further, **text)[0]

    def _listed(self, count: int, where: dict[str, Any] | None, words: list[list[str]]) -> Ranking:
        """Returns images by their captions alone, the oldest first where nothing tells them apart."""
        from zoo.search.captions import with_words

        if words[0]:
            self.index.refuse_words(words)
            return with_words(self.index.search(None, count, where, words)[0])
        if self.index.reads_captions:
            return self.index.search(None, count, where, words)[0]
        # It is always asked by vectors, and any will do: these are images, whatever their order.
        return self.index.search(self.index.get(self._ids[:1]), count, where)[0]

    def _query(self, asked: Asked) -> tuple[Representation, Representation | None, Mapping[str, Any]]:
        """Returns the query, that of the further features, and its metadata."""
        extra, metadata = None, {}
        if asked.item is not None:
            key = self.id_of(asked.item, "item")
            items, payload = self.index.get([key]), self.index.payloads([key])[0]
            extra = None if self.extra is None else self.extra.get([key])
            metadata = {name: payload[name] for name in ("width", "height") if name in payload}
        elif asked.photo is not None:
            items, extra, metadata = asked.photo
        else:
            return self._sketch(asked.labels), None, {}
        return (self._over(asked.labels, items) if asked.drawn else items), extra, metadata

    def _sketch(self, labels: np.ndarray) -> Representation:
        import torch

        from zoo.ops.sketches import sketch_query
        from zoo.types import Representation

        maps, counts = sketch_query(torch.from_numpy(labels)[None], self.index.codebook.classes)
        return Representation(probability_map=maps, class_mask=counts, fingerprint=self.index.fingerprint)

    def _over(self, labels: np.ndarray, items: Representation) -> Representation:
        from dataclasses import replace

        import torch

        from zoo.ops.sketches import combined_query

        return replace(items, probability_map=combined_query(torch.from_numpy(labels)[None], items.probability_map))

    def _where(self, asked: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """Returns the request's filter within the server's own."""
        if asked and "path" in asked:
            raise Refused(400, "where", "name keys of payloads other than path", "path")
        both = {key: _values(value) for key, value in self.settings.where.items()}
        for key, value in (asked or {}).items():
            mine = _values(value)
            both[key] = [one for one in mine if one in both[key]] if key in both else mine
        return both or None


def _values(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _fits(payload: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    return all(payload.get(key) in _values(value) for key, value in where.items())
