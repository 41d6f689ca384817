"""`zoo truth --search`: ranks scenes by a scene, and shows what differs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.commands._ending import stop

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    import numpy as np

    from zoo.truth.scene_words import SceneSet


def search(gallery: SceneSet, queries: SceneSet, arguments: argparse.Namespace) -> None:
    """Ranks the gallery by every query and prints, and where asked writes, what was found."""
    from zoo.truth import edit_distances
    from zoo.truth.pairs import Unfinished

    sides, nodes = (queries.graphs, gallery.graphs), arguments.nodes[0]
    slow = arguments.method in ("exact", "part") or len(queries) * len(gallery) > 100_000
    try:
        found = edit_distances(*sides, nodes, arguments.method, arguments.max_nodes, progress=slow)
    except Unfinished as error:
        stop(error.naming(f"query {queries.names[error.query]!r}", f"scene {gallery.names[error.item]!r}"))
    except ValueError as error:
        stop(str(error).replace("max_nodes", "--max-nodes"))
    ranked = [
        {"name": name, "ranked": _ranked(gallery, queries.graphs[place], found[place], nodes, arguments)}
        for place, name in enumerate(queries.names)
    ]
    for query in ranked:
        _print(query, arguments)
    if arguments.output is not None:
        _write(ranked, nodes, arguments)


def _ranked(
    gallery: SceneSet, query: Any, distances: np.ndarray, nodes: str, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    from zoo.truth.edits import edit_map, edits

    rows = []
    for rank, item in enumerate(distances.argsort(kind="stable")[: arguments.k].tolist(), start=1):
        graph = gallery.graphs[item]
        mapping = edit_map(query, graph, nodes, arguments.method)
        found = edits(query, graph, mapping, gallery.vocabulary, arguments.method)
        row = {"rank": rank, "name": gallery.names[item], "distance": round(float(distances[item]), 4)}
        rows.append({**row, "differences": found.text(), **found.record()})
    return rows


def _print(query: dict[str, Any], arguments: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    title = Text(f"{query['name']} ({arguments.nodes[0]}, {arguments.method})")
    table = Table("rank", "scene", "distance", "what differs", title=title, title_justify="left")
    for row in query["ranked"]:
        cells = (str(row["rank"]), row["name"], f"{row['distance']:.4g}", row["differences"])
        table.add_row(*(Text(cell) for cell in cells))
    Console().print(table)


def _write(ranked: list[dict[str, Any]], nodes: str, arguments: argparse.Namespace) -> None:
    import json

    from zoo.files import replacing

    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / "search.json"
    about = {"gallery": str(arguments.gallery), "nodes": nodes, "method": arguments.method, "queries": ranked}
    with replacing(path) as stream:
        stream.write(json.dumps(about, indent=1, ensure_ascii=False).encode("utf-8", "replace"))
    print(f"wrote {path}")
    if arguments.images is not None:
        _write_sheet(ranked, arguments.images, arguments.output / "contact_sheet.png")


def _write_sheet(ranked: list[dict[str, Any]], folder: Path, path: Path) -> None:
    from zoo.evaluation.pictures import SheetRow, Tile, contact_sheet
    from zoo.files import BadFile, replacing

    picture = _pictures(folder)
    rows, missing = [], []
    for query in ranked:
        try:
            own = picture(query["name"])
            found = [(row, picture(row["name"])) for row in query["ranked"]]
        except BadFile as error:
            stop(str(error))
        tiles = [] if own is None else [Tile(own, "query")]
        tiles += [Tile(tile, f"{row['rank']}: {row['distance']:.4g}") for row, tile in found if tile is not None]
        missing += [row["name"] for row, tile in found if tile is None]
        if tiles:
            rows.append(SheetRow(query["name"], tiles))
    if not rows:
        stop(f"--images: {folder} has none of the pictures, such as {missing[0]}")
    with replacing(path) as stream:
        contact_sheet(rows).save(stream, "PNG")
    lacking = f" ({len(missing)} scenes without a picture in {folder}, such as {missing[0]})" if missing else ""
    print(f"wrote {path}{lacking}")


def _pictures(folder: Path) -> Callable[[str], np.ndarray | None]:
    """Opens a folder; what it returns gives the picture of a scene as (H, W, 3) uint8, None where there is none."""
    from zoo.config import create

    data = create("data", "folder", root=str(folder))  # its rules of names and formats, and nothing outside the folder
    try:
        data.setup()
    except ValueError as error:
        stop(f"--images{str(error).removeprefix('root')}")
    names = set(data.ids("gallery"))
    return lambda name: data.picture_by_id("gallery", name) if name in names else None
