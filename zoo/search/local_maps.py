"""Local maps as codes: correlation volumes by tables, what codes decode to, and the codebook of an index."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from zoo.files import BadFile
from zoo.ops.correlation import correlation_volume
from zoo.search import storage
from zoo.search.quantizer import ProductQuantizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from zoo.types import Representation

CODEBOOK = "quantizer"  # what an index calls it in its manifest
_LEAST = 2.0**-24  # above 0 in half precision: a feature shorter than 1/4096 of what is possible counts as zeros


def correlations(
    query: Tensor, hits: Representation, renormalise: bool = True, block: int = 64
) -> Iterator[tuple[slice, Tensor]]:
    """Yields the correlation volumes of one query with `block` hits at a time: which hits, and (b, Hq*Wq, Hg, Wg).

    `query (D, Hq, Wq)`; `hits` hold a `local_map`, or `local_codes` with their `quantizer`. Volumes are those of
    `zoo.ops.correlation.correlation_volume`, of codes with what they decode to; `renormalise` L2-normalises that at
    every location, and leaves maps that aren't codes as they are. Codes are not decoded: for each query a table holds
    the products of its locations with all centroids, and every location of a hit adds up M of the table's rows. The
    table is in half precision: products differ from those of decoded maps by up to 1e-3 of the product of both lengths.
    Everything is computed on the query's device. Raises ValueError for another D, or hits without either field.
    """
    hits.require(("local_map",), "a correlation")
    if query.dim() != 3:
        raise ValueError(f"query must be (D, Hq, Wq), got {tuple(query.shape)}")
    table = None if hits.local_map is not None else _Table(query, _quantizer_of(hits), renormalise)
    for start in range(0, len(hits), block):
        part = slice(start, min(start + block, len(hits)))
        if table is None:
            yield part, correlation_volume(hits.local_map[part].to(query), query[None])
        else:
            codes = hits.local_codes[part].to(query.device)
            yield part, table.volumes(hits.quantizer.table_rows(codes))


def quantised(maps: Tensor, quantizer: ProductQuantizer, renormalise: bool = True) -> Tensor:
    """Returns `maps (B, D, H, W)` as they come back from codes, for training a network on what it will be given.

    `renormalise` L2-normalises every location again. No gradient passes. Raises ValueError for another D.
    """
    return map_of(encoded(maps, quantizer), quantizer, renormalise).to(maps.dtype)


def encoded(maps: Tensor, quantizer: ProductQuantizer) -> Tensor:
    """Returns the codes (B, H, W, M) uint8 of `maps (B, D, H, W)`; raises ValueError for another D."""
    if maps.dim() != 4:
        raise ValueError(f"local maps must be (B, D, H, W), got {tuple(maps.shape)}")
    rows = maps.permute(0, 2, 3, 1)
    return quantizer.encode(rows.flatten(0, 2)).unflatten(0, rows.shape[:3])


def map_of(codes: Tensor, quantizer: ProductQuantizer, renormalise: bool = True) -> Tensor:
    """Returns (B, D, H, W): what `codes (B, H, W, M)` decode to, L2-normalised at every location where asked for."""
    return quantizer.decode(codes, renormalise).permute(0, 3, 1, 2).contiguous()


def local_map_of(items: Representation, renormalise: bool = True) -> Tensor:
    """Returns the local map (B, D, H, W) of items, decoded where they hold codes; ValueError where they hold neither.

    Decoded maps take 64 times and more the memory of codes; of many items, ask for `correlations` instead.
    """
    items.require(("local_map",), "a local map")
    if items.local_map is not None:
        return items.local_map
    return map_of(items.local_codes, _quantizer_of(items), renormalise)


def read_quantizer(path: Path | str) -> ProductQuantizer:
    """Returns the quantiser of a saved index `local_maps` (its folder), or of a safetensors file with `centroids`.

    Raises BadFile for what is neither, and for damaged files.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        return ProductQuantizer.from_bytes(_content(path), path)
    entry = storage.read_manifest(path).get("snapshot", {}).get(CODEBOOK)
    if entry is None:
        raise BadFile(f"{path} is an index without a quantiser: zoo index index=local_maps makes one with it")
    return ProductQuantizer.from_bytes(storage.read_bytes(path, entry).tobytes(), path)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadFile(f"{path} can't be read: {error.strerror}") from None


def _quantizer_of(items: Representation) -> ProductQuantizer:
    if not isinstance(items.quantizer, ProductQuantizer):
        raise ValueError(f"local_codes need the quantizer that made them, got {items.quantizer!r}")
    return items.quantizer


class _Table:
    """The products of a query's locations with all centroids, and with `renormalise` the centroids' squared lengths.

    Each column is divided by the most that M of its rows can add up to, so that no feature is too long, and hardly one
    too short, for half precision; of which twice as much fits into the cache as of single precision.
    """

    def __init__(self, query: Tensor, quantizer: ProductQuantizer, renormalise: bool) -> None:
        locations, squares = query.flatten(1).mT, torch.from_numpy(quantizer.squared_norms).to(query.device)
        longest = squares.amax(dim=1)
        lengths = locations.float().unflatten(1, (quantizer.parts, -1)).norm(dim=2)
        self.scales = (lengths @ longest.sqrt()).clamp(min=torch.finfo(torch.float).tiny)
        rows = squares.new_empty(*squares.shape, len(locations) + renormalise, dtype=torch.half)
        rows[..., : len(locations)] = quantizer.product_tables(locations / self.scales[:, None])
        if renormalise:
            most = longest.sum().clamp(min=torch.finfo(torch.float).tiny)
            self.scales /= most.sqrt()
            rows[..., -1] = squares / most
        self.rows, self.renormalise = rows.flatten(0, 1), renormalise

    def volumes(self, chosen: Tensor) -> Tensor:
        """Returns the sums (b, Hq*Wq, Hg, Wg) of the rows that `chosen (b, Hg, Wg, M)` names."""
        sums = F.embedding_bag(chosen.flatten(0, 2), self.rows, mode="sum")
        found, factors = sums.unflatten(0, (len(chosen), -1)).mT.contiguous().float(), self.scales[:, None]
        if self.renormalise:  # the products instead of the features, which are many more numbers
            found, factors = found[:, :-1], factors * found[:, -1:].clamp(min=_LEAST).rsqrt()
        return (found * factors).unflatten(2, chosen.shape[1:3])
