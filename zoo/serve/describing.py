"""Pictures as an index' model describes them: photos of requests, or files of the command line."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zoo.files import BadFile
from zoo.registry import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL import Image

    from zoo.types import Representation


class Photo(NamedTuple):
    """What is known of a photo: as the index' model describes it, as that of further features does, and its size."""

    items: Representation
    extra: Representation | None
    metadata: Mapping[str, Any]


class Describer:
    """Describes pictures as the images of an index, or of features, were described; one at a time.

    `file` is the model's, `about` what is kept beside the representations. Raises BadFile where the model is another
    one than that which made them, UsageError for a `device` that torch can't use.
    """

    def __init__(
        self, what: str, file: Path, about: Mapping[str, Any], fingerprint: str | None, device: str = "cpu"
    ) -> None:
        from zoo import checkpoints

        self.model, self.data = checkpoints.load_model(str(file)), preparing(about)
        if self.model.fingerprint() != fingerprint:
            raise BadFile(
                f"{file} is the model {self.model.fingerprint()}, {what} was made by {fingerprint}, with another "
                "version of the zoo, or the file was replaced: run zoo embed and zoo index again"
            )
        try:
            self.model.to(device)
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"device must be one that torch can use, got {device!r}: {error}") from error
        self._lock = threading.Lock()

    def __call__(
        self, picture: Image.Image | Path, box: Sequence[float] | None = None
    ) -> tuple[Representation, dict[str, int]]:
        """Returns a picture's representation, in px of the picture or of its `box`, and that one's width and height.

        Raises BadFile where the picture can't be read.
        """
        from zoo.search._features_join import to_original

        batch = self.data.prepare_picture(picture, box)
        height, width = batch.original_size[0].tolist()
        with self._lock:
            items = self.model.represent(batch.to(self.model.device), "query")
        items = to_original(items.to("cpu"), batch.images.shape[2:], batch.original_size)
        return items, {"width": width, "height": height}


def preparing(about: Mapping[str, Any]) -> Any:
    """Returns the data module that says how pictures are prepared; without one, as they come."""
    from zoo import config

    said = about.get("data") or {"name": "folder", "parameters": {"root": "."}}  # nothing is listed
    return config.create("data", said["name"], **said["parameters"])
