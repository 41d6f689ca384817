"""What a server is told: one JSON text, so that worker processes read it from one environment variable."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

VARIABLE = "ZOO_SERVE"  # of the environment, by which workers are told


@dataclass(frozen=True)
class Settings:
    """An index, how it is searched, and what one request may cost.

    `index` and `features` are folders; `rerankers` are config nodes; `where` filters every search; `k` hits are given
    where a request doesn't say how many, and `most` is the last rank that can be asked for. `upload_mb` (10^6 bytes),
    `megapixels` and `decode_seconds` bound a photo, `photos_mb` the described ones that are kept in `photos`, a
    folder that all workers share. `running` requests are worked on at once and `waiting` more may wait. `threads` are
    those of a computation. `hosts` are the names by which the server may be called, empty for any; `parent` is the
    process after whose end a worker ends too, None for none.
    """

    index: str
    photos: str
    features: str | None = None
    rerankers: list[dict[str, Any]] = field(default_factory=list)
    shortlist: int | None = None
    where: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    k: int = 48
    most: int = 1000
    upload_mb: float = 20.0
    megapixels: float = 50.0
    decode_seconds: float = 10.0
    photos_mb: float = 256.0
    running: int = 2
    waiting: int = 32
    threads: int = 1
    hosts: list[str] = field(default_factory=list)
    parent: int | None = None

    def text(self) -> str:
        """Returns the settings as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str) -> Settings:
        """Returns the settings that `text` wrote."""
        return cls(**json.loads(text))
