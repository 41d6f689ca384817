"""Small pictures of the index' images, made when they are asked for."""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.files import BadFile
from zoo.serve.problems import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

SIDES = {"small": 320, "large": 960}  # px of the longer side; a tile of the page is 160 px, twice that on sharp screens
MEDIA_TYPE = "image/webp"
_QUALITY = 80
_KEPT = 64 << 20  # bytes of small pictures in memory


class Thumbnails:
    """Makes small pictures, and keeps the last ones; `upright` turns them as their EXIF orientation says."""

    def __init__(self, upright: bool) -> None:
        self.upright = upright
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def tag(self, payload: Mapping[str, Any], size: str) -> str:
        """Returns what changes with the picture: its ETag."""
        known = [payload["path"], payload.get("bytes"), payload.get("modified"), SIDES[size], self.upright]
        return hashlib.sha256(repr(known).encode(errors="surrogatepass")).hexdigest()[:24]

    def make(self, name: str, payload: Mapping[str, Any], size: str) -> bytes:
        """Returns the picture that an item's payload names; raises Refused where it is gone or damaged."""
        tag = self.tag(payload, size)
        with self._lock:
            if tag in self._kept:
                self._kept.move_to_end(tag)
                return self._kept[tag]
        try:
            content = _small(payload["path"], SIDES[size], self.upright)
        except (OSError, BadFile) as error:
            raise Refused(404, "id", "be that of an item whose picture is still there and whole", repr(name)) from error
        with self._lock:
            if tag not in self._kept:
                self._kept[tag] = content
                self._size += len(content)
            while self._size > _KEPT:
                self._size -= len(self._kept.popitem(last=False)[1])
        return content


def _small(path: str, side: int, upright: bool) -> bytes:
    from PIL import Image

    from zoo.data._pictures import convert_picture, opened_picture

    with opened_picture(Path(path)) as image:
        image.draft("RGB", (2 * side, 2 * side))  # a JPEG at a part of its size, much sooner
        picture = convert_picture(image, upright).pixels
    picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    written = io.BytesIO()
    picture.save(written, "WEBP", quality=_QUALITY, method=2)
    return written.getvalue()
