"""What a search is asked with: pictures, described as the index's images were, or items of the index."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.commands._searching import in_blocks, log
from zoo.files import BadFile
from zoo.registry import UsageError
from zoo.search._names import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omegaconf import DictConfig

    from zoo.commands._drawings import Drawing
    from zoo.search.features import Features
    from zoo.search.index import Index
    from zoo.serve.describing import Describer
    from zoo.types import Representation

_SMALL = 16  # px of a box's shorter side below which a picture is hardly one
_MANY = 4  # queries from which a bar shows how far they are


@dataclass(frozen=True)
class Query:
    """A picture file, cut to `box` (x0, y0, x1, y1 px) where there is one, or the index' own item `id`, or neither.

    `drawing` lies over it, or stands alone.
    """

    name: str
    path: Path | None
    box: list[float] | None = None
    id: str | int | None = None
    drawing: Drawing | None = None


@dataclass(frozen=True)
class Queries:
    """The queries (Q), their representation, that by the model of the further features, and the ids they leave out.

    `metadata` holds width and height in px of each, where known; `models` are those that described them, if any did;
    `words` are those that all of them look for, `items` then may be None: nothing but the words is asked for; `classes`
    are the names of those that a probability map tells apart.
    """

    each: Sequence[Query]
    items: Representation | None
    extra: Representation | None
    exclude: list[str | int | None]
    metadata: list[dict[str, Any]]
    models: Sequence[Any] = ()
    words: list[str] | None = None
    classes: Sequence[str] | None = None

    def __len__(self) -> int:
        """Returns Q."""
        return len(self.each)


def _describer(what: str, file: Path, about: dict[str, Any], fingerprint: str | None) -> Describer:
    from zoo.serve.describing import Describer

    if not file.is_file() or "data" not in about:
        raise UsageError(
            f"{what} brings no model, so that a picture can't be compared with it: search by query_id=…, or build it "
            "from what zoo embed writes"
        )
    return Describer(what, file, about, fingerprint)


def _described(describe: Sequence[Describer], query: Query) -> list[tuple[Representation, dict[str, int]]]:
    """Returns what each model makes of a query, warning of a box that is hardly a picture."""
    parts = [each(query.path, query.box) for each in describe]
    size = parts[0][1]
    if query.box and min(size.values()) < _SMALL:
        log.warning("box is %(width)d × %(height)d px: so few show little of what is asked for", size)
    return parts


def read_queries(cfg: DictConfig, index: Index, folder: Path, extra: Features | None) -> Queries:
    """Returns the queries of the command line; raises UsageError or BadFile for what can't be one."""
    if cfg.query_id is not None:
        return _stored(cfg, index, extra)
    from zoo.search._features_join import joined
    from zoo.search.features import MODEL

    box = _box(cfg)
    paths = _paths(cfg)
    if box and len(paths) > 1:
        raise UsageError(f"box is for a single picture, got {len(paths)}")
    describe = [_describer(f"index {folder}", folder / MODEL, index.about, index.fingerprint)]
    if extra is not None:
        file = extra.model_file or extra.path / MODEL
        describe.append(_describer(f"features {extra.path}", file, extra.about, extra.fingerprint))
    done, described = [], []
    blocks = in_blocks(paths, 1, "describing queries") if len(paths) > _MANY else ([path] for path in paths)
    for (path,) in blocks:
        query = Query(path.name if len(paths) == 1 else str(path), path, box)
        try:
            described.append(_described(describe, query))
        except BadFile as error:
            if len(paths) == 1:
                raise
            log.warning("left out: %s", error)
            continue
        done.append(query)
    if not done:
        raise BadFile(f"query: none of {len(paths)} pictures can be read")
    items = [joined([part for part, _ in parts]) for parts in zip(*described, strict=True)]
    metadata = [parts[0][1] for parts in described]
    models = [each.model for each in describe]
    return Queries(done, items[0], items[1] if extra is not None else None, [None] * len(done), metadata, models)


def hand_over_models(queries: Queries, stages: Sequence[Any], folder: Path, extra: Features | None) -> None:
    """Gives stages that use a part of the model which described the images that model."""
    from zoo import checkpoints
    from zoo.search.features import MODEL

    users = [stage for stage in stages if hasattr(stage, "use_model")]
    if not users:
        return
    files = [folder / MODEL, *([] if extra is None or extra.model_file is None else [extra.model_file])]
    models = queries.models or [checkpoints.load_model(str(file)) for file in files if file.is_file()]
    for stage in users:
        for model in models:
            stage.use_model(model)


def tell_of_themselves(queries: Queries, index: Index) -> None:
    """Says which whole pictures are themselves in the index, so that re-rankers find them first and average them."""
    files = {
        str(path): query
        for query in queries.each
        if query.path and not query.box and query.id is None
        for path in (query.path.absolute(), query.path.resolve())
    }
    if not files:
        return
    # Any query will do: the filter alone says which items these are.
    ids = list(index.search(queries.items.rows(slice(0, 1)), len(files), {"path": list(files)})[0].ids)
    found = [(files[payload["path"]], id_) for id_, payload in zip(ids, index.payloads(ids), strict=True)]
    for query, id_ in found[:1]:
        how = f"{shlex.quote(f'query_id={id_}')} leaves it out, expansions then average other images"
        others = f" (so are {len(found) - 1} others)" if len(found) > 1 else ""
        log.info("%s is itself in the index as %s%s: %s", one_line(query.name), one_line(str(id_)), others, how)


def _stored(cfg: DictConfig, index: Index, extra: Features | None) -> Queries:
    from omegaconf import ListConfig

    from zoo.commands._ending import usage_errors

    asked = list(cfg.query_id) if isinstance(cfg.query_id, ListConfig) else [cfg.query_id]
    if not asked:
        raise UsageError("query_id must name at least one id, got an empty list")
    kind = type(index.ids[0]) if len(index) else str
    try:
        ids = [kind(id_) for id_ in asked]  # an id of digits is read as a number
    except ValueError as error:
        raise UsageError(f"query_id must be an integer in this index, got {asked}") from error
    for id_ in ids:
        if id_ not in index:
            from zoo.registry import suggest

            hint = suggest(str(id_), index.ids) if len(index) < 100_000 else ""
            raise UsageError(f"query_id: the index of {len(index)} images has none called {id_!r}.{hint}")
    payloads = index.payloads(ids)
    each = [
        Query(str(id_), Path(payload["path"]) if "path" in payload else None, id=id_)
        for id_, payload in zip(ids, payloads, strict=True)
    ]
    sizes = [{key: payload[key] for key in ("width", "height") if key in payload} for payload in payloads]
    with usage_errors():  # the features may be of other images
        further = None if extra is None else extra.get(ids)
    return Queries(each, index.get(ids), further, list(ids), sizes)


def _paths(cfg: DictConfig) -> list[Path]:
    """Returns the picture files that are meant, those of a folder in natural order."""
    from omegaconf import ListConfig

    paths = []
    for name in cfg.query if isinstance(cfg.query, ListConfig) else [cfg.query]:
        path = Path(str(name)).expanduser()
        if path.is_dir():
            paths += _pictures(path)
        elif path.is_file():
            paths.append(path)
        else:
            raise UsageError(f"query: no such file or folder, '{path}'")
    if not paths:
        raise UsageError("query must name at least one picture, got an empty list")
    return paths


def _pictures(folder: Path) -> list[Path]:
    from zoo import config
    from zoo.commands._ending import usage_errors

    data = config.create("data", "folder", root=str(folder))
    with usage_errors():
        data.setup()
    return [data.path(data.gallery_split, id_) for id_ in data.ids(data.gallery_split)]


def _box(cfg: DictConfig) -> list[float] | None:
    if cfg.box is None:
        return None
    box = list(cfg.box) if hasattr(cfg.box, "__iter__") and not isinstance(cfg.box, str) else [cfg.box]
    numbers = all(isinstance(value, (int, float)) for value in box)
    if len(box) != 4 or not numbers or not all(map(math.isfinite, box)) or box[0] >= box[2] or box[1] >= box[3]:
        raise UsageError(f"box must be [x0, y0, x1, y1] in px, x0 < x1 and y0 < y1, got {cfg.box}")
    return box
