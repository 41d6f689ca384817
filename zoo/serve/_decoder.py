"""The process that decodes pictures of strangers: bytes in, pixels out, nothing else; `zoo.serve.decoding` starts it.

A message is its length, 8 bytes, and its bytes. Of each picture come back a JSON object and, where that names no
problem, the RGB pixels.
"""

from __future__ import annotations

import io
import json
import os
import sys
import warnings

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
LENGTH = 8  # bytes of a message's length


def decoded(content: bytes, upright: bool, pixels: int) -> tuple[dict, bytes]:
    """Returns what is said of a picture, and its pixels (H, W, 3) uint8; none where there is a problem."""
    from PIL import Image, UnidentifiedImageError

    from zoo.data._pictures import convert_picture
    from zoo.files import BadFile

    Image.MAX_IMAGE_PIXELS = None  # the rule here is stricter, and looked at before anything is decoded
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > pixels:
                rule = f"have at most {pixels / 1e6:g} million pixels"
                return {"status": 413, "rule": rule, "got": f"{width} × {height}"}, b""
            picture = convert_picture(image, upright).pixels
    except (UnidentifiedImageError, SyntaxError):
        return {"status": 415, "rule": f"be a picture ({', '.join(FORMATS)})", "got": _beginning(content)}, b""
    except (BadFile, OSError, ValueError) as error:
        return {"status": 400, "rule": "be a whole, undamaged picture", "got": str(error)}, b""
    return {"width": picture.width, "height": picture.height}, picture.tobytes()


def _beginning(content: bytes) -> str:
    return f"{len(content)} bytes that begin with {content[:12]!r}"


def main() -> None:
    """Answers until standard input ends, as it does with the process at its other side."""
    upright, pixels = sys.argv[1] == "True", int(sys.argv[2])
    # Whatever prints, prints to standard error: standard output is for answers.
    given, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    decoded(b"", upright, pixels)  # imports everything
    _send(answers, b"ready")
    while len(head := given.read(LENGTH)) == LENGTH:
        size = int.from_bytes(head, "big")
        content = given.read(size)
        if len(content) < size:
            return
        said, picture = decoded(content, upright, pixels)
        _send(answers, json.dumps(said).encode())
        _send(answers, picture)


def _send(stream: io.BufferedIOBase, content: bytes) -> None:
    stream.write(len(content).to_bytes(LENGTH, "big"))
    stream.write(content)
    stream.flush()


if __name__ == "__main__":
    main()
