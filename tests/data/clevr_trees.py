"""Small trees in the layout of CLEVR v1.0, written for tests."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from PIL import Image

from zoo.data.clevr import Clevr

REAL = Path(os.environ.get("ZOO_DATA", Path(__file__).parents[3] / "shared" / "data"))
CONF = Path(__file__).parents[2] / "conf" / "data" / "clevr.yaml"
HEAD = ("_target_", "kind", "_convert_", "name")


def clevr(root: Path, **changed: Any) -> Clevr:
    """Makes the module with its YAML's values, small batches and a cache beside the tree."""
    node = OmegaConf.load(CONF)
    known = {key: value for key, value in OmegaConf.to_container(node, resolve=True).items() if key not in HEAD}
    small = {"root": str(root), "cache": str(root / "cache"), "image_size": 20, "batch_size": 2}
    return Clevr(**{**known, **small, **changed})


def thing(color: str, shape: str = "cube", material: str = "metal", size: str = "small") -> dict[str, str]:
    return {"color": color, "shape": shape, "material": material, "size": size}


def scene(number: int, *objects: dict[str, str]) -> dict[str, Any]:
    right = [list(range(i + 1, len(objects))) for i in range(len(objects))]
    relationships = {"right": right, "front": right, "left": [], "behind": []}
    return {"image_filename": f"CLEVR_{number}.png", "objects": list(objects), "relationships": relationships}


def question(image: int, text: str, answer: Any = None, function: str | None = None, key: str = "function") -> dict:
    asked = {"image_filename": f"CLEVR_{image}.png", "question": text}
    asked |= {} if answer is None else {"answer": answer}
    program = [{"inputs": [], "value_inputs": [], key: word} for word in ("scene", function)]
    return asked if function is None else {**asked, "program": program}


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_tree(root: Path, split: str = "val") -> Path:
    """Writes scenes 0 … 3, images of 3 (.jpg), 0 (.png) and 1 (.png with an alpha channel, and .jpg), none of 2."""
    images = root / "images" / split
    images.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(images / "CLEVR_0.png")
    Image.new("RGBA", (40, 30), (10, 20, 30, 255)).save(images / "CLEVR_1.png")
    Image.new("RGB", (40, 30), (200, 0, 0)).save(images / "CLEVR_1.jpg")
    Image.new("RGB", (40, 30), (0, 0, 255)).save(images / "CLEVR_3.jpg")
    (images / "notes.txt").write_text("no image")
    objects = [thing("red"), thing("red", "sphere", "rubber", "large"), thing("cyan", "cylinder")]
    scenes = [scene(n, *objects[: n + 1]) for n in range(3)] + [scene(3)]
    write(root / "scenes" / f"CLEVR_{split}_scenes.json", {"info": {}, "scenes": scenes})
    questions = [
        question(3, "Are there any things?", False, "exist"),
        question(0, "How many cubes are there?", 1, "count", key="type"),
        question(2, "How many balls are there?", "0", "count"),
        question(0, "What size is the red cube?", "small", "query_size"),
    ]
    write(root / "questions" / f"CLEVR_{split}_questions.json", {"info": {}, "questions": questions})
    return root
