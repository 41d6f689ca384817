"""Described photos, by token: files that all workers share, and the last few in memory."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.files import replacing
from zoo.serve.describing import Photo
from zoo.serve.problems import Refused

if TYPE_CHECKING:
    from zoo.types import Representation

_IN_MEMORY = 16
_SUFFIX = ".safetensors"


class PhotoStore:
    """Keeps what was made of photos in `folder`, at most so many bytes; those that weren't asked for longest go first.

    A token is the hash of the photo's bytes, so that the same photo is described once. No text of a request names a
    file: tokens are hashed again.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self.folder, self.most = folder, most
        self._recent: OrderedDict[str, Photo] = OrderedDict()
        self._lock = threading.Lock()

    def token(self, content: bytes) -> str:
        """Returns the token of a photo."""
        return hashlib.sha256(content).hexdigest()

    def put(self, token: str, photo: Photo) -> None:
        """Keeps a photo, and drops the oldest ones where they get too many."""
        from safetensors.torch import save

        tensors = {f"items.{name}": value.contiguous() for name, value in photo.items.filled().items()}
        if photo.extra is not None:
            tensors |= {f"extra.{name}": value.contiguous() for name, value in photo.extra.filled().items()}
        said = {
            "metadata": json.dumps(dict(photo.metadata)),
            "items": photo.items.fingerprint or "",
            "extra": (photo.extra.fingerprint or "") if photo.extra is not None else "",
        }
        with replacing(self._file(token)) as file:
            file.write(save(tensors, metadata=said))
        self._remember(token, photo)
        self._drop_oldest()

    def find(self, token: str) -> Photo | None:
        """Returns a photo, None for one that isn't there (any more)."""
        with self._lock:
            found = self._recent.get(token)
        if found is None:
            found = self._read(self._file(token))
            if found is None:
                return None
        with suppress(OSError):  # dropped meanwhile: it is in memory all the same
            os.utime(self._file(token))
        self._remember(token, found)
        return found

    def get(self, token: str) -> Photo:
        """Returns a photo; raises Refused (404) for one that isn't there, which may be sent again."""
        found = self.find(token)
        if found is None:
            raise Refused(
                404, "photo", "be the token of a photo that was sent and isn't forgotten: send it again", token
            )
        return found

    def _file(self, token: str) -> Path:
        return self.folder / f"{hashlib.sha256(token.encode()).hexdigest()}{_SUFFIX}"

    def _read(self, file: Path) -> Photo | None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, "pt") as opened:
                said = opened.metadata()
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118, it is no mapping
        except (OSError, SafetensorError):  # not there, or damaged
            return None
        items, extra = (_representation(tensors, part, said[part]) for part in ("items", "extra"))
        return Photo(items, extra, json.loads(said["metadata"]))

    def _remember(self, token: str, photo: Photo) -> None:
        with self._lock:
            self._recent[token] = photo
            self._recent.move_to_end(token)
            while len(self._recent) > _IN_MEMORY:
                self._recent.popitem(last=False)

    def _drop_oldest(self) -> None:
        known = []
        for file in self.folder.glob(f"*{_SUFFIX}"):
            with suppress(OSError):  # another worker has dropped it
                stat = file.stat()
                known.append((stat.st_mtime_ns, stat.st_size, file))
        total = sum(size for _, size, _ in known)
        for _, size, file in sorted(known)[:-1]:  # the last one was just asked for
            if total <= self.most:
                return
            file.unlink(missing_ok=True)
            total -= size


def _representation(tensors: dict, part: str, fingerprint: str) -> Representation | None:
    from zoo.types import Representation

    own = {name.partition(".")[2]: value for name, value in tensors.items() if name.startswith(f"{part}.")}
    return Representation(**own, fingerprint=fingerprint or None) if own else None
