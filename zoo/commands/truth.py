"""`zoo truth`: edit distances between scene graphs, as files for evaluation or as a search by a scene."""

from __future__ import annotations

import argparse
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.commands import until_reader_leaves
from zoo.commands._ending import one_line_errors, stop
from zoo.commands._parsing import Parser, count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoo.truth.scene_words import SceneSet

_HELP = """\
Computes how far apart scenes are as scene graphs: objects with attributes, and the relations between them.

Without --search, writes the distances of query and gallery scenes to FOLDER/distances_NODES_METHOD.npy (rows are
queries) and the names of both to FOLDER/names.json. A run that was stopped goes on where it was.
With --search, ranks the gallery by each scene of QUERY and says what differs.

GALLERY and QUERY are JSON: CLEVR scenes, COCO annotations (boxes become right, below, inside, overlap), or
  {"objects": [{"id": "a", "color": "red", "shape": "cube", ...}, ...], "relations": [["a", "left", "b"], ...]}
or {"scenes": [such scenes, each with a "name"]}. A query uses the gallery's words.

methods:
  bipartite  nodes are matched by the cheapest assignment; fast, for any two scenes (up to 64 objects)
  authors    as the public code of Messina et al. 2018 does; depends on object order
  exact      the least cost of all maps; up to 10 objects (--max-nodes)
  part       cost of finding the query inside a scene, whatever else that holds; the query may leave attributes out
"""
_EXAMPLES = """\
examples:
  zoo truth CLEVR_val_scenes.json --output truth                          the first 500 scenes against all
  zoo truth SCENES.json --nodes soft --method authors --queries all --output truth
  zoo truth SCENES.json --queries QUERIES.json --output truth
  zoo truth SCENES.json --search QUERY.json --images images/val --output found     also a contact sheet
  zoo truth SCENES.json --search QUERY.json --method part -k 20
  zoo truth instances_val2017.json --search QUERY.json --method part      {"objects": [{"category": "dog"}, ...]}
"""


_USAGE = """\
zoo truth GALLERY [--queries N|FILE] [--nodes soft,hard] [--method NAME] --output FOLDER
       zoo truth GALLERY --search QUERY [-k K] [--nodes soft] [--method NAME] [--images FOLDER] [--output FOLDER]"""


@until_reader_leaves()
def main() -> None:
    """Runs the command."""
    arguments = _parse()
    with _stopped(arguments), one_line_errors():
        from zoo.truth.readers.scenes import read_scenes

        gallery = read_scenes(arguments.gallery)
        _print_notes(gallery)
        if arguments.search is None:
            _write_distances(gallery, arguments)
            return
        from zoo.commands._scene_search import search

        queries = read_scenes(arguments.search, gallery.vocabulary, partial=arguments.method == "part")
        _print_notes(queries)
        search(gallery, queries, arguments)


def _parse() -> argparse.Namespace:
    parser = Parser("truth", _HELP, _EXAMPLES, _USAGE)
    add = parser.add_argument
    add("gallery", type=Path, metavar="GALLERY", help="scene graphs (JSON) to compare with")
    add("--queries", metavar="N|FILE", help="the first N scenes of the gallery, all, or another file; default 500")
    add("--search", type=Path, metavar="QUERY", help="rank the gallery by the scenes of this file")
    add(
        "--nodes", type=_nodes, metavar="WHICH", help="cost of a changed object: soft (share of its attributes) or hard"
    )
    add("--method", type=_method, metavar="NAME", default="bipartite", help="see above; default: %(default)s")
    add("--max-nodes", type=count, default=10, metavar="N", help="limit of exact and part; default: %(default)s")
    add("-k", type=count, metavar="K", help="scenes to show for a query; default 10")
    add("--images", type=Path, metavar="FOLDER", help="pictures of the scenes, for a contact sheet")
    add("--output", type=_folder, metavar="FOLDER", help="where the files go")
    arguments = parser.parse_args()
    _check_modes(parser, arguments)
    return arguments


def _check_modes(parser: Parser, arguments: argparse.Namespace) -> None:
    """Fills in what is left out, and refuses options of the other mode."""
    searching = arguments.search is not None
    foreign = {"--queries": arguments.queries} if searching else {"-k": arguments.k, "--images": arguments.images}
    for option, value in foreign.items():
        if value is not None:
            parser.error(f"argument {option}: is for {'distances, not for' if searching else ''} --search")
    if arguments.output is None and (arguments.images is not None or not searching):
        parser.error("argument --output: name the folder for the files")
    if arguments.images is not None and not arguments.images.is_dir():
        parser.error(f"argument --images: must be a folder, got '{arguments.images}'")
    if searching and len(arguments.nodes or ()) > 1:
        parser.error(f"argument --nodes: a search takes one, got {','.join(arguments.nodes)}")
    arguments.nodes = arguments.nodes or _nodes("soft" if searching else "soft,hard")
    arguments.k = arguments.k or 10


def _nodes(text: str) -> list[str]:
    from zoo.truth.distance import NODES

    words = text.split(",")
    if not set(words) <= set(NODES):
        raise argparse.ArgumentTypeError(f"must be some of {', '.join(NODES)}, got '{text}'")
    return list(dict.fromkeys(words))


def _method(text: str) -> str:
    from zoo.truth.distance import METHODS

    if text not in METHODS:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(METHODS)}, got '{text}'")
    return text


def _folder(text: str) -> Path:
    if Path(text).exists() and not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"must be a folder, got the file '{text}'")
    return Path(text)


@contextmanager
def _stopped(arguments: argparse.Namespace) -> Iterator[None]:
    """Says after Ctrl-C what a run keeps."""
    try:
        yield
    except SystemExit as end:
        if end.code == 130 and arguments.search is None and any(arguments.output.glob("*.npy.journal")):
            print(f"finished pairs are kept in {arguments.output}: the same command goes on there", file=sys.stderr)
        raise


def _print_notes(scenes: SceneSet) -> None:
    for note in scenes.notes:
        print(note, file=sys.stderr)


def _write_distances(gallery: SceneSet, arguments: argparse.Namespace) -> None:
    from zoo.truth.distance import checked_sides, distance_file
    from zoo.truth.pairs import Unfinished

    names, queries = _queries(gallery, arguments)
    files = []
    for nodes in arguments.nodes:
        try:
            sides = checked_sides(queries, gallery.graphs, nodes, arguments.method, arguments.max_nodes)
        except ValueError as error:
            stop(str(error).replace("max_nodes", "--max-nodes"))
        name = f"distances_{nodes}_{arguments.method}.npy"
        files.append((distance_file(sides, nodes, arguments.method, arguments.output, name), sides, nodes))
        foreign = files[-1][0].foreign()
        if foreign is not None:
            stop(f"{foreign} is of something else: choose another --output, or remove {Path(name).stem}.*")
    _write_names(arguments.output / "names.json", {"queries": names, "gallery": list(gallery.names)})
    for file, sides, nodes in files:
        try:
            _write_one(file, sides, nodes, arguments.method)
        except Unfinished as error:
            stop(error.naming(f"query {names[error.query]!r}", f"scene {gallery.names[error.item]!r}"))


def _queries(gallery: SceneSet, arguments: argparse.Namespace) -> tuple[list[str], Any]:
    """Returns names and graphs of the queries."""
    from zoo.truth.readers.scenes import read_scenes

    text = arguments.queries or "500"
    if text == "all" or text.isdecimal():
        count = len(gallery) if text == "all" else int(text)
        if arguments.queries and not 1 <= count <= len(gallery):
            stop(f"--queries must lie in 1…{len(gallery)}, the scenes of {arguments.gallery}, got {text}")
        return list(gallery.names[:count]), gallery.graphs[:count]
    queries = read_scenes(Path(text), gallery.vocabulary, partial=arguments.method == "part")
    _print_notes(queries)
    return list(queries.names), queries.graphs


def _write_names(path: Path, names: dict[str, list[str]]) -> None:
    import json

    from zoo.files import replacing

    content = json.dumps(names, indent=0, ensure_ascii=False).encode("utf-8", "surrogatepass")
    if path.exists() and path.read_bytes() != content:
        stop(f"{path} holds other names: choose another --output, or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as stream:
        stream.write(content)


def _write_one(file: Any, sides: Any, nodes: str, method: str) -> None:
    import time

    from zoo.truth.distance import stored_distances

    total, before = file.shape[0] * file.shape[1], file.finished()
    ready, start = file.intact(), time.perf_counter()
    stored_distances(file, sides, nodes, method, progress=True)
    seconds = time.perf_counter() - start
    shape = f"{file.shape[0]:,} × {file.shape[1]:,} distances"
    if ready:
        print(f"{file.path}: {shape}, there already")
        return
    resumed = f", the other {before:,} were there already" if before else ""
    rate = f"{total - before:,} in {seconds:.1f} s ({(total - before) / max(seconds, 1e-9):,.0f} a second{resumed})"
    print(f"wrote {file.path}: {shape}, {rate}")


if __name__ == "__main__":
    main()
