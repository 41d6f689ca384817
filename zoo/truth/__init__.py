"""Ground truth for retrieval: scene graphs and the edit distance between them."""

from zoo.truth.distance import edit_distance, edit_distances
from zoo.truth.graphs import PackedGraphs, SceneGraph
from zoo.truth.scenes import clevr_graph, sort_of_clevr_graphs

__all__ = ["PackedGraphs", "SceneGraph", "clevr_graph", "edit_distance", "edit_distances", "sort_of_clevr_graphs"]
