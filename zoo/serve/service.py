"""What the routes of one server process share."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.serve.decoding import Decoder
from zoo.serve.drawings import packed, unpacked
from zoo.serve.engine import Answer, Asked, Engine
from zoo.serve.gate import Gate
from zoo.serve.metrics import Metrics
from zoo.serve.photos import PhotoStore
from zoo.serve.problems import Refused
from zoo.serve.thumbnails import Thumbnails

if TYPE_CHECKING:
    from zoo.serve.schemas import SearchRequest
    from zoo.serve.settings import Settings

_TILES = 256  # thumbnails that may wait: a page of hits asks for all of its at once


class Service:
    """The engine with the limits, caches and counters of a process; its functions run in the threads of `Gate`s."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self.settings, self.engine = settings, engine
        self.metrics = Metrics(str(os.getpid()))
        self.searches = Gate("searches", settings.running, settings.waiting)
        self.uploads = Gate("photos", 1, settings.waiting)
        self.pictures = Gate("thumbnails", settings.running, max(settings.waiting, _TILES))
        self.photos = PhotoStore(Path(settings.photos), int(settings.photos_mb * 1e6))
        self.thumbnails = Thumbnails(engine.upright)
        self.decoder = Decoder(engine.upright, int(settings.megapixels * 1e6), settings.decode_seconds)
        self.described = engine.described()
        self.started = time.time()

    def start(self) -> None:
        """Starts what a photo will need."""
        if self.engine.takes_photos:
            self.decoder.start()

    def close(self) -> None:
        """Ends threads and processes."""
        self.decoder.close()
        for gate in (self.searches, self.uploads, self.pictures):
            gate.close()

    def asked(self, request: SearchRequest) -> Asked:
        """Returns a search with all that its request names; raises Refused for what isn't there or can't be."""
        engine, drawing, k = self.engine, request.drawing, request.k or self.settings.k
        if request.offset + k > self.settings.most:
            got = f"{request.offset} + {k}"
            raise Refused(400, "offset + k", f"be at most {self.settings.most}", got)
        if request.photo is not None and request.item is not None:
            raise Refused(400, "photo and item", "not both be given", "both")
        if request.text.strip() and not self.described["captions"]:
            raise Refused(400, "text", "be left out: the images of the index have no captions", request.text)
        labels = None
        if drawing is not None:
            if engine.grid is None:
                raise Refused(409, "drawing", "be left out: the index holds no probability maps", "a drawing")
            labels = unpacked(drawing.runs, drawing.size, engine.grid, engine.index.codebook.classes)
        return Asked(
            k,
            request.offset,
            labels,
            None if request.photo is None else self.photos.get(request.photo),
            request.item,
            request.text,
            request.where,
            request.rerankers,
            request.explain,
        )

    def search(self, request: SearchRequest) -> Answer:
        """Searches."""
        return self.engine.search(self.asked(request))

    def take_photo(self, content: bytes) -> dict[str, Any]:
        """Decodes, describes and keeps a photo, unless it is there already; returns its token and size."""
        token = self.photos.token(content)
        photo = self.photos.find(token)
        if photo is None:
            photo = self.engine.describe(self.decoder(content))
            self.photos.put(token, photo)
        return {"token": token, **photo.metadata}

    def map_of(self, name: str) -> dict[str, Any]:
        """Returns an item's label map."""
        labels = self.engine.label_map(name)
        return {"size": labels.shape, "runs": packed(labels)}

    def metrics_text(self) -> str:
        """Returns all counters."""
        gates = (self.searches, self.uploads, self.pictures)
        inside = [({"queue": gate.name}, gate.inside) for gate in gates]
        refused = [({"queue": gate.name}, gate.refused) for gate in gates]
        gauges = {
            "zoo_requests_inside": ("Requests that are worked on or wait", inside),
            "zoo_requests_refused_total": ("Requests refused since too many waited", refused),
            "zoo_index_images": ("Images of the index", [({}, len(self.engine))]),
            "zoo_uptime_seconds": ("Seconds since the process began to serve", [({}, time.time() - self.started)]),
        }
        return self.metrics.text(gauges)
