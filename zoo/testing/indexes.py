"""The contract test of indexes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from zoo import config, registry
from zoo.search.index import Index, open_index
from zoo.search.local_maps import local_map_of
from zoo.testing.models import _require, check_signature
from zoo.types import Representation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_COUNT, _REGIONS, _DIMENSION, _CLASSES, _GRID = 40, 3, 16, 4, (5, 5)
_MODEL = "0123456789abcdef"
_LABELS = ("cat", 'a "dog" \\ or so', "Å\n")  # what a filter may not trip over


def check_index(name: str, folder: Path) -> None:
    """Checks that the registered index `name` keeps the contract; raises AssertionError saying which clause it breaks.

    In order: signature equals YAML; built with its `tiny` overrides (in whose strings "{folder}" stands for a folder),
    it returns ranked lists of the caller's ids, strings or ints, finds most items by themselves, keeps to filters,
    refuses what would give wrong answers, forgets what is removed, finds what is replaced, and is the same after it
    was saved and opened, also when it was changed in between. An approximate index must pass too. Files go to `folder`.
    """
    check_signature("index", name)
    cls = registry.load("index", name)
    _require(issubclass(cls, Index), f"{cls.__name__} must derive from zoo.search.index.Index")
    items = _gallery()
    for number, ids in enumerate(([f"photos/{i} 'é\"\\.jpg" for i in range(_COUNT)], list(range(7, 7 + _COUNT)))):
        place = folder / str(number)
        place.mkdir(parents=True, exist_ok=True)
        index = _build(name, cls, place)
        _check_empty(index, ids, items)
        payloads = [{"label": _LABELS[i % 3], "number": i, "even": i % 2 == 0} for i in range(_COUNT - 1)] + [{}]
        index.add(ids[:30], items.rows(slice(0, 30)), payloads[:30])
        index.add(ids[30:], items.rows(slice(30, None)), payloads[30:])
        _check_lists(index, ids, items)
        _check_filters(index, ids, items)
        _check_refusals(index, ids, items)
        _check_changes(index, ids, items)
        _check_files(index, ids, items, place / "index")
        _close(index)


def _build(name: str, cls: type[Index], folder: Path) -> Index:
    filled = {key: value.format(folder=folder) if isinstance(value, str) else value for key, value in cls.tiny.items()}
    return config.create("index", name, **filled)


def _gallery() -> Representation:
    """Returns images of several regions each, of which region 0 is the vector, some without the last one, and maps."""
    generator = torch.Generator().manual_seed(0)
    regions = F.normalize(torch.randn(_COUNT, _REGIONS, _DIMENSION, generator=generator), dim=2)
    mask = torch.ones(_COUNT, _REGIONS, dtype=torch.bool)
    mask[::4, -1] = False
    regions = torch.where(mask[..., None], regions, regions[:, :1])
    boxes = torch.rand(_COUNT, _REGIONS, 4, generator=generator)
    boxes = torch.where(mask[..., None], boxes, boxes[:, :1])
    maps = F.normalize(torch.randn(_COUNT, _DIMENSION, *_GRID, generator=generator), dim=1)
    hulls = boxes[:, :, [0, 1, 2, 1, 2, 3, 0, 3]].unflatten(2, (4, 2))
    return Representation(
        vector=regions[:, 0],
        local_map=maps,
        regions=regions,
        region_mask=mask,
        region_boxes=boxes,
        region_hulls=hulls,
        probability_map=(4 * torch.randn(_COUNT, _CLASSES, *_GRID, generator=generator)).softmax(dim=1),
        fingerprint=_MODEL,
    )


def _check_empty(index: Index, ids: list[Any], items: Representation) -> None:
    _require(len(index) == 0 and list(index.ids) == [], "a new index must be empty")
    _require(ids[0] not in index, "a new index must contain nothing")
    rankings = index.search(items.rows(slice(0, 2)), 3)
    _require([len(ranking) for ranking in rankings] == [0, 0], "an empty index must return an empty list per query")


def _check_lists(index: Index, ids: list[Any], items: Representation) -> None:
    _require(index.fingerprint == _MODEL, "fingerprint must be that of the first items")
    _require(len(index) == _COUNT and list(index.ids) == ids, "ids must be the caller's, oldest first")
    _require(ids[3] in index and "no such id" not in index and -1 not in index, "`in` must know the ids")
    _require(index.known([ids[9], ids[2]]) == [ids[9], ids[2]], "known must return the ids that are there, in order")
    rankings = index.search(items, 5)
    _require(len(rankings) == _COUNT, "search must return one ranking per query")
    for ranking in rankings:
        _require(len(ranking) == 5 and len(set(ranking.ids)) == 5, "a ranking must hold k different ids")
        _require(set(ranking.ids) <= set(ids), f"a ranking must hold the caller's ids, got {ranking.ids}")
        _require(bool((ranking.scores.diff() <= 0).all()), "scores must not increase")
    themselves = sum(ranking.ids[0] == own for ranking, own in zip(rankings, ids, strict=True))
    _require(themselves >= 0.8 * _COUNT, f"most items must be found by themselves, only {themselves} of {_COUNT} are")
    alone = [index.search(items.rows(slice(i, i + 1)), 5)[0].ids[0] for i in range(3)]
    _require(alone == [ranking.ids[0] for ranking in rankings[:3]], "a list must not depend on the other queries")
    _require(len(index.search(items.rows(slice(0, 1)), 10 * _COUNT)[0]) <= _COUNT, "k may be larger than the index")
    _check_stored(index, ids, items)


def _check_stored(index: Index, ids: list[Any], items: Representation) -> None:
    chosen = [ids[5], ids[0], ids[39]]
    stored = index.get(chosen)
    stored.require(index.needs, "check_index")
    _require(len(stored) == 3 and stored.fingerprint == _MODEL, "get must return one row an id, with the fingerprint")
    near = F.cosine_similarity(*_comparable(stored, items.rows([5, 0, 39])))
    _require(bool((near > 0.5).all()), "get must return what is stored, in the order of the ids")
    if stored.local_codes is not None:
        near = F.cosine_similarity(local_map_of(stored), items.local_map[[5, 0, 39]]).mean(dim=(1, 2))
        _require(bool((near > 0.5).all()), "local_codes must decode to nearly the local maps, in the order of the ids")
    numbers = [payload.get("number") for payload in index.payloads(chosen)]
    _require(numbers == [5, 0, None], f"payloads must be those of the ids, in their order, got {numbers}")


def _comparable(stored: Representation, items: Representation) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns what an index keeps of items, a row each, and what it was given."""
    if stored.probability_map is not None:
        return stored.probability_map.flatten(1), items.probability_map.flatten(1)
    return stored.vector if stored.vector is not None else stored.regions[:, 0], items.vector


def _check_filters(index: Index, ids: list[Any], items: Representation) -> None:
    one = items.rows(slice(0, 1))
    for where, wanted in (
        ({"label": _LABELS[1]}, [i for i in range(_COUNT - 1) if i % 3 == 1]),
        (
            {"label": [_LABELS[0], _LABELS[2]], "even": True},
            [i for i in range(_COUNT - 1) if i % 3 != 1 and i % 2 == 0],
        ),
        ({"number": [4, 5, 1000]}, [4, 5]),
        ({"label": []}, []),
        ({"nothing": "here"}, []),
    ):
        found = index.search(one, _COUNT, where)[0].ids
        expected = [ids[i] for i in wanted]
        _require(sorted(found, key=ids.index) == expected, f"where={where} must return {expected}, got {found}")


def _check_refusals(index: Index, ids: list[Any], items: Representation) -> None:
    one = items.rows(slice(0, 1))
    other, unknown = replace(one, fingerprint="fedcba9876543210"), replace(one, fingerprint=None)
    broken = one._map(lambda tensor: tensor * torch.nan if tensor.dtype == torch.float32 else tensor)
    maps = {"local_map": one.local_map[:, :4], "probability_map": one.probability_map[:, :2]}
    short = replace(one, vector=one.vector[:, :4], regions=one.regions[..., :4], **maps)
    kind = "a string" if isinstance(ids[0], int) else 1
    new = "new" if isinstance(ids[0], str) else 1000
    for what, refused in (
        ("an id that is there", lambda: index.add(ids[:1], one)),
        ("an id twice", lambda: index.add([new, new], items.rows(slice(0, 2)))),
        ("another kind of id", lambda: index.add([kind], one)),
        ("fewer ids than items", lambda: index.add([new], items.rows(slice(0, 2)))),
        ("fewer payloads than items", lambda: index.add([new], one, [])),
        ("another dimension", lambda: index.add([new], short)),
        ("a query of another dimension", lambda: index.search(short, 1)),
        ("values that are not finite", lambda: index.add([new], broken)),
        ("items of another model", lambda: index.add([new], other)),
        ("items of an unknown model", lambda: index.add([new], unknown)),
        ("queries of another model", lambda: index.search(other, 1)),
        ("queries of an unknown model", lambda: index.search(unknown, 1)),
        ("k = 0", lambda: index.search(one, 0)),
        ("removing what is not there", lambda: index.remove([ids[0], new])),
        ("replacing what is not there", lambda: index.replace([new], one)),
        ("getting what is not there", lambda: index.get([new])),
        ("payloads of what is not there", lambda: index.payloads([new])),
    ):
        _refuses(what, refused)
    _require(list(index.ids) == ids, "what is refused must change nothing")


def _refuses(what: str, call: Callable[[], Any]) -> None:
    try:
        call()
    except ValueError:
        return
    raise AssertionError(f"{what} must raise ValueError")


def _check_changes(index: Index, ids: list[Any], items: Representation) -> None:
    index.remove(ids[:4])
    index.replace([ids[10]], items.rows(slice(0, 1)), [{"label": "new"}])
    left = [*ids[4:10], *ids[11:], ids[10]]
    _require(
        list(index.ids) == left and len(index) == len(left), "ids must follow: removed ones gone, replaced ones last"
    )
    _require(ids[0] not in index and ids[10] in index, "`in` must follow what is removed and replaced")
    found = index.search(items.rows(slice(0, 1)), _COUNT)[0].ids
    _require(not set(found) & set(ids[:4]), "what is removed must not be found")
    _require(found[0] == ids[10], "what is replaced must be found by its new descriptor")
    _require(index.payloads([ids[10]]) == [{"label": "new"}], "replace must replace the payload")


def _check_files(index: Index, ids: list[Any], items: Representation, folder: Path) -> None:
    index.save(folder, {"model": "some.ckpt", "image_size": 224})
    before = index.search(items, 5)
    _close(index)
    opened = open_index(folder)
    _require(type(opened) is type(index), "open_index must return the class that was saved")
    _require(opened.about == {"model": "some.ckpt", "image_size": 224}, "about must be what save was given")
    _require(opened.fingerprint == _MODEL, "the fingerprint must survive")
    _same(before, opened.search(items, 5))
    opened.add(ids[:2], items.rows(slice(0, 2)), [{"label": "back"}] * 2)
    opened.remove(ids[20:22])
    opened.save(folder)
    after = opened.search(items, 5)
    _close(opened)
    again = open_index(folder)
    _require(list(again.ids) == list(opened.ids), "ids must survive an append and a removal")
    _require(again.about == opened.about, "about must stay when save is given none")
    _require(again.payloads(ids[:1]) == [{"label": "back"}], "payloads must survive an append")
    _same(after, again.search(items, 5))
    _close(again)
    _close(opened)


def _same(before: list[Any], after: list[Any]) -> None:
    for one, other in zip(before, after, strict=True):
        same = list(one.ids) == list(other.ids) and torch.allclose(one.scores, other.scores, atol=1e-5)
        _require(same, f"an opened index must return the same lists, got {other.ids} instead of {one.ids}")


def _close(index: Index) -> None:
    if hasattr(index, "close"):
        index.close()
