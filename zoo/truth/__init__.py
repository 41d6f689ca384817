"""Ground truth for retrieval: scene graphs and the edit distance between them, relevance lists and graded gains."""

from zoo.truth.boxes import box_graph
from zoo.truth.distance import edit_distance, edit_distances
from zoo.truth.graphs import PackedGraphs, SceneGraph
from zoo.truth.readers import iter_scenes, read_coco, read_gnd, read_graded, read_msls, read_scenes
from zoo.truth.relevance import GradedLists, RelevanceLists
from zoo.truth.sampling import sample_clevr_graphs
from zoo.truth.scene_words import SceneSet, SceneVocabulary
from zoo.truth.scenes import clevr_graph, sort_of_clevr_graphs

__all__ = [
    "GradedLists",
    "PackedGraphs",
    "RelevanceLists",
    "SceneGraph",
    "SceneSet",
    "SceneVocabulary",
    "box_graph",
    "clevr_graph",
    "edit_distance",
    "edit_distances",
    "iter_scenes",
    "read_coco",
    "read_gnd",
    "read_graded",
    "read_msls",
    "read_scenes",
    "sample_clevr_graphs",
    "sort_of_clevr_graphs",
]
