"""Re-ranking by a graph neural network over a query and its hits.

Hanning 2024, "Image Retrieval Re-ranking using Graph Neural Networks" (Lund University, 2024:E18), Sec. 3.2; its
network simplifies Ouyang et al. 2021, "Contextual Similarity Aggregation with Self-attention for Visual Re-ranking".
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.ops.affinity import affinity_features, fitted_anchors, with_query_row, without_mean

NORMS = ("none", "pre")


class Layer(nn.Module):
    """Lets every node take messages from all others: x + MLP(x + m), m by multi-head self-attention (eqs. 3.4, 3.5).

    `norm="pre"` normalises (LayerNorm) what goes into the attention and into the MLP, as Ouyang et al. have it.
    """

    def __init__(self, width: int, heads: int, expansion: int, dropout: float, norm: str) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.to_messages = nn.Linear(width, 3 * width)
        self.from_heads = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, expansion * width), nn.GELU(), nn.Linear(expansion * width, width))
        self.before_messages, self.before_mlp = (
            nn.LayerNorm(width) if norm == "pre" else nn.Identity() for _ in range(2)
        )

    def forward(self, nodes: Tensor, valid: Tensor | None) -> Tensor:
        """Returns the nodes (B, 1+K, width) after one round; `valid (B, 1+K)` bool names those that exist."""
        parts = self.to_messages(self.before_messages(nodes)).unflatten(2, (3, self.heads, -1))
        asking, asked, told = parts.permute(2, 0, 3, 1, 4)
        mask = None if valid is None else valid[:, None, None, :]
        dropout = self.dropout if self.training else 0.0
        heard = F.scaled_dot_product_attention(asking, asked, told, attn_mask=mask, dropout_p=dropout)
        messages = self.from_heads(heard.transpose(1, 2).flatten(2))
        return nodes + self.mlp(self.before_mlp(nodes + messages))


class GnnRerankNet(nn.Module):
    """Projects descriptors, describes each image by its affinities to the first hits, and refines these.

    `dimension` is D; `projection` the outputs P of the first layer, None for none: descriptors of any D are then
    compared as they are. `anchors` is L; `affinities` says how many affinities beside the visual one each hit has with
    each anchor. With `centre` the mean of query and hits is taken out before they are compared. Without `layers` the
    projected descriptors are the result.
    """

    def __init__(
        self, *, dimension: int, projection: int | None, anchors: int, affinities: int, width: int, layers: int,
        heads: int, expansion: int, dropout: float, norm: str, centre: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.anchors, self.affinities, self.centre = anchors, affinities, centre
        self.dropout = nn.Dropout(dropout)
        self.projection = None if projection is None else nn.Linear(dimension, projection)
        inputs = 1 + anchors * (1 + affinities)
        self.embedding = nn.Linear(inputs, width) if layers else None
        self.layers = nn.ModuleList(Layer(width, heads, expansion, dropout, norm) for _ in range(layers))

    def project(self, descriptors: Tensor) -> Tensor:
        """Returns (..., P) L2-normalised of (..., D): the first layer, behind dropout in training."""
        dropped = self.dropout(descriptors)
        return F.normalize(dropped if self.projection is None else self.projection(dropped), dim=-1)

    def features(self, projected: Tensor, affinities: Tensor | None, valid: Tensor | None) -> Tensor:
        """Returns what the nodes begin with: (B, 1+K, 1+L+A·L) affinities (eqs. 2.8, 2.9 and 3.1)."""
        compared = without_mean(projected, valid) if self.centre else projected
        parts = [affinity_features(compared, self.anchors, valid)]
        if self.affinities:
            parts.append(with_query_row(fitted_anchors(affinities, self.anchors).flatten(2).to(projected.dtype)))
        return torch.cat(parts, dim=2)

    def refine(self, projected: Tensor, affinities: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
        """Returns (B, 1+K, width) L2-normalised: the refined query, then the refined hits.

        `projected (B, 1+K, P)`, the query first; `affinities (B, K, A, L')` of the hits with the first L' of them, A
        for each; `valid (B, K)` bool, False where a list has ended. L' may be below L, and K below that of training.
        """
        if not self.layers:
            return projected
        nodes = self.embedding(self.features(projected, affinities, valid))
        exist = None if valid is None else F.pad(valid, (1, 0), value=True)
        for layer in self.layers:
            nodes = layer(nodes, exist)
        return F.normalize(nodes, dim=-1)

    def forward(self, projected: Tensor, affinities: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
        """Returns new scores (B, K): the cosines of the refined query with the refined hits; arguments as `refine`."""
        refined = self.refine(projected, affinities, valid)
        return similarities(refined)


def similarities(descriptors: Tensor) -> Tensor:
    """Returns the dot products (B, K) of the first row of (B, 1+K, D) with the others."""
    return (descriptors[:, 1:] @ descriptors[:, 0, :, None]).squeeze(2)
