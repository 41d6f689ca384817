"""Ground truth for retrieval: scene graphs and the edit distance between them, relevance lists and graded gains."""

from zoo.truth.distance import edit_distance, edit_distances
from zoo.truth.graphs import PackedGraphs, SceneGraph
from zoo.truth.readers import read_gnd, read_graded, read_msls
from zoo.truth.relevance import GradedLists, RelevanceLists
from zoo.truth.scenes import clevr_graph, sort_of_clevr_graphs

__all__ = [
    "GradedLists",
    "PackedGraphs",
    "RelevanceLists",
    "SceneGraph",
    "clevr_graph",
    "edit_distance",
    "edit_distances",
    "read_gnd",
    "read_graded",
    "read_msls",
    "sort_of_clevr_graphs",
]
