"""What is told of hits: numbers, evidence, and what every class contributes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from zoo.serve.describing import Describer
    from zoo.types import Ranking

Named = tuple[str, tuple[int, int, int]]  # a class: its name and colour
_NEGLIGIBLE = 1e-4  # of the largest contribution, below which one isn't worth telling


def told(
    ranking: Ranking,
    part: slice,
    payloads: Sequence[Mapping[str, Any]],
    scored: str,
    classes: Sequence[Named] | None,
) -> list[dict[str, Any]]:
    """Returns the hits of a part of a ranking, whose `payloads` these are, as JSON has them.

    `scored` says what their scores mean: "no" (nothing was compared), "score", or "distance" (minus a squared
    distance). With `classes` it is told what each of them contributes.
    """
    first = part.start + 1
    rows = zip(
        list(ranking.ids)[part],
        ranking.scores[part].tolist(),
        (ranking.evidence or [{}] * len(ranking))[part],
        payloads,
        strict=True,
    )
    hits = []
    for rank, (key, score, seen, payload) in enumerate(rows, start=first):
        # A distance of zero may come out as a little less, or as minus zero.
        distance = max(0.0, -score) if scored == "distance" else None
        hit = {"rank": rank, "id": str(key), "score": None if scored == "no" else score, "distance": distance}
        hit |= {name: payload.get(name) for name in ("label", "width", "height", "captions")}
        hit |= _seen(seen or {})
        if classes is not None:
            hit["contributions"] = _contributions(seen or {}, classes)
        hits.append(hit)
    return hits


def class_names(index: Any, describers: Sequence[Describer]) -> list[Named]:
    """Returns names and colours of the classes of an index of maps: its model's, else those that it says, else numbers.

    The model's description is kept beside the index, whether its file is there or not.
    """
    from zoo.classes import class_list, palette

    count = index.codebook.classes
    model = describers[0].model if describers else None
    if hasattr(model, "class_names"):
        return list(zip(model.class_names, model.class_colours, strict=True))
    said = ((index.about.get("model") or {}).get("parameters") or {}).get("classes")
    try:
        classes = class_list(said)
    except ValueError:
        classes = None
    if classes is not None and len(classes) == count:
        return list(zip(classes.names, classes.colours, strict=True))
    return [(f"class {number}", colour) for number, colour in enumerate(palette(count))]


def _contributions(evidence: Mapping[str, Any], classes: Sequence[Named]) -> list[dict[str, Any]]:
    """Returns what each class adds to the squared distance, most first.

    Of a drawing's few classes each is told, also those that fit exactly; of a photo's many those that matter.
    """
    numbers, parts = (evidence.get(key) for key in ("classes", "class_distances"))
    if numbers is None or not len(numbers):
        return []
    parts = parts.clip(min=0)  # rounding can make a distance of zero a little less
    total = float(parts.sum()) or 1.0
    least = _NEGLIGIBLE * float(parts.max()) if len(numbers) == len(classes) else -1.0
    rows = [(int(number), float(part)) for number, part in zip(numbers, parts, strict=True) if part > least]
    return [
        {"class": number, "name": classes[number][0], "distance": part, "share": part / total}
        for number, part in sorted(rows, key=lambda row: -row[1])
    ]


def _seen(evidence: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what of evidence a request is told: the box of what was found, inliers, query words in captions."""
    counts = {name: int(evidence[name]) for name in ("words", "inliers") if name in evidence}
    box = evidence.get("box")
    if box is None or len(box) != 4 or hasattr(box[0], "__len__"):
        return counts
    return {**counts, "box": [float(edge) for edge in box]}
