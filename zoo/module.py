"""The contract that every model of the zoo and every plugin fills."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import lightning
import torch

from zoo.types import CHECKPOINT_KEY, Batch, Representation, Role, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor


class _SelfDescribing(lightning.LightningModule):
    """Writes registry name and plain hyper-parameters into its checkpoints, so that the file alone rebuilds it.

    `registered` is set by `zoo.create`: {"kind", "name", "origin", "parameters"}, and where statistics were fitted by
    `zoo train`, "fitted_on". `trained` is False where there is nothing to train by gradient; `fitted_with` then says
    which parameters give an embedder statistics to fit, if not all do. `on_reload` holds the parameters that only say
    where starting weights are read from, each with the value that reads none: a model rebuilt from its own file must
    not need another. `optional_weights` are prefixes of weights that not every model of the class has: where a file
    holds them and the model has no use for them, they are left out; where `zoo train weights=…` doesn't find them, they
    start anew. `borrowed` are prefixes of weights that training leaves as `backbone_weights` has them: a file of what
    was trained needn't hold them.
    """

    registered: dict[str, Any] | None = None
    trained: ClassVar[bool] = True
    fitted_with: ClassVar[str] = ""
    on_reload: ClassVar[Mapping[str, Any]] = {}
    optional_weights: ClassVar[tuple[str, ...]] = ()
    borrowed: tuple[str, ...] = ()

    def check_data(self, data: Any) -> None:
        """Raises ValueError where the model can't be trained on a data module; asked before anything is run."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the description; a model built past `zoo.create` has none and can't be rebuilt from its checkpoint."""
        if self.registered:
            checkpoint[CHECKPOINT_KEY] = self.registered


class Embedder(_SelfDescribing):
    """A model that turns images into representations.

    A subclass implements `embed` and, unless `trained` is False, the usual Lightning `training_step` and
    `configure_optimizers`; it is built from keyword arguments without defaults, which all stand in its YAML. `kinds`
    names the `Representation` fields it fills, `takes` those of a `Batch` that it makes them of; `monitor` is the
    metric by which the best checkpoint is kept, `monitor_mode` its sense; a model that `judges_itself` in validation
    logs it, of others the vectors are ranked.
    `tiny` holds the overrides with which the contract test (`zoo.testing.check_model`) builds it in seconds,
    `tiny_batch` makes the batch that it is tested on. `apart_from_embedding` holds the names of parameters, and
    prefixes of weights, that `embed` doesn't depend on, and so the fingerprint doesn't.
    """

    kinds: ClassVar[tuple[str, ...]] = ("vector",)
    takes: ClassVar[tuple[str, ...]] = ("images",)
    monitor: ClassVar[str] = "val/spearman"
    monitor_mode: ClassVar[str] = "max"
    judges_itself: ClassVar[bool] = False
    tiny: ClassVar[Mapping[str, Any]] = {}
    apart_from_embedding: ClassVar[tuple[str, ...]] = ()
    _fingerprint: tuple[Any, str] | None = None

    def embed(self, batch: Batch, role: Role = "gallery") -> Representation:
        """Returns the representation of a batch as a query or as gallery items."""
        raise NotImplementedError(f"{type(self).__name__} must implement embed(batch, role)")

    @property
    def descriptor_name(self) -> str:
        """Returns the row of `descriptors` that `embed` returns: what logs, sweeps and sheets show of the model."""
        return "vector"

    def descriptors(self, batch: Batch, role: Role = "gallery") -> dict[str, Tensor]:
        """Returns every named vector (B, D) that an evaluation compares side by side; by default `embed`'s only."""
        return {self.descriptor_name: self.embed(batch, role).vector}

    def check_descriptors(self) -> None:
        """Raises ValueError where `descriptors` has nothing to rank images by; asked before anything is run."""
        if "vector" not in self.kinds and type(self).descriptors is Embedder.descriptors:
            name = name_of(self)
            raise ValueError(
                f"model '{name}' fills {list(self.kinds)}, no vector to rank images by: evaluate another model, and "
                "let a re-ranker compare what this one describes"
            )

    def represent(self, batch: Batch, role: Role = "gallery") -> Representation:
        """Returns `embed`'s representation, in full precision, without a graph, with the model's fingerprint.

        Indexes take nothing else: vectors of another model would give wrong answers without a word.
        """
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            return replace(self.embed(batch, role), fingerprint=self.fingerprint())

    def fingerprint(self) -> str:
        """Returns 16 hex digits over name, parameters and weights; worked out again where weights have changed."""
        stamp = _stamp(self)
        if self._fingerprint is None or self._fingerprint[0] != stamp:
            self._fingerprint = (stamp, _fingerprint(self))
        return self._fingerprint[1]

    @property
    def needs_fitting(self) -> bool:
        """Tells whether, with these parameters, the model has statistics that `fit_statistics` must fit, or has fitted.

        Until then `embed` raises RuntimeError.
        """
        return False

    def check_fitting(self, images: int, labels: Sequence[Any] | None) -> None:
        """Raises ValueError where statistics can't be fitted on so many images, or not without labels; asked first."""

    def fit_statistics(self, batches: Iterable[Batch], labels: Sequence[Any] | None) -> None:
        """Fits what isn't trained by gradient: PCA, whitening, k-means. It is kept in buffers and saved with the model.

        `batches` may be gone through more than once, and some may be empty; `labels` says of each position of
        `Batch.index` what its image shows. Called on one process alone. Raises ValueError for images or labels that
        don't suffice.
        """
        raise NotImplementedError(f"{type(self).__name__} has nothing to fit")

    def task_scores(self, batch: Batch) -> dict[str, Tensor]:
        """Returns what the model is trained for, as name → (sum, count) over the batch; `{}` if there is no such task.

        Evaluators add them up over batches and ranks: accuracy of answers, for example.
        """
        return {}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Returns what `zoo.evaluation.RankingValidation` gathers: positions, vectors and task scores of the batch."""
        with torch.autocast(self.device.type, enabled=False):  # descriptors of mixed precision tie and misrank
            vector = self.embed(batch).vector
        return {"index": batch.index, "vector": vector, "scores": self.task_scores(batch)}

    @classmethod
    def tiny_batch(cls) -> Batch:
        """Returns a batch of two to four items on which `tiny` models train and embed."""
        raise NotImplementedError(f"{cls.__name__} must implement tiny_batch()")

    @classmethod
    def tiny_training_batch(cls) -> Any:
        """Returns the batch that `tiny` models train on, where that is of another kind."""
        return cls.tiny_batch()


class Reranker(_SelfDescribing):
    """A trained model that re-orders a shortlist, wherever the hits come from.

    It needs neither the images nor an index of ours. A subclass implements `rerank` and the usual Lightning steps, logs
    `monitor` itself, and is built as an `Embedder` is; `reads` names the columns of metadata that it can't do without.
    Beside it, in the module `reranker`, stands what takes representations with a model's fields
    (`zoo.search.reranking.HitReranker`), for indexes and evaluations of ours.
    """

    monitor: ClassVar[str] = "val/map@10"
    monitor_mode: ClassVar[str] = "max"
    judges_itself: ClassVar[bool] = True
    needs_fitting: ClassVar[bool] = False
    tiny: ClassVar[Mapping[str, Any]] = {}
    reads: tuple[str, ...] = ()

    def rerank(self, query: Any, hits: Any, metadata: Any = None) -> tuple[Tensor, Tensor]:
        """Returns the new order (K,) int64 of the hits (K, D) of one query (D,), and their scores (K,) in that order.

        Plain arrays or tensors from any database will do. `metadata` holds what else is known of the hits: columns, or
        a mapping for each.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement rerank(query, hits, metadata)")

    @classmethod
    def tiny_training_batch(cls) -> Any:
        """Returns a batch on which `tiny` models train."""
        raise NotImplementedError(f"{cls.__name__} must implement tiny_training_batch()")

    @classmethod
    def tiny_hits(cls) -> tuple[Tensor, Tensor, Any]:
        """Returns a query (D,), hits (K, D) and their metadata, or None, for `rerank` of `tiny` models."""
        raise NotImplementedError(f"{cls.__name__} must implement tiny_hits()")


def _stamp(model: Embedder) -> Any:
    """Returns what changes whenever a weight does: which memory it lies in, and how often that was written to.

    Tensors made in inference mode don't count how often; their stamp equals no other.
    """
    return tuple(
        (name, value.data_ptr(), object() if value.is_inference() else value._version)
        for name, value in model.state_dict().items()
    )


def _fingerprint(model: Embedder) -> str:
    described = model.registered or {"name": type(model).__name__, "parameters": {}}
    left_out = {*model.on_reload, *model.apart_from_embedding}
    parameters = {key: value for key, value in described["parameters"].items() if key not in left_out}
    digest = hashlib.sha256(json.dumps([described["name"], parameters], sort_keys=True, default=str).encode())
    state = {
        name: value for name, value in model.state_dict().items() if not name.startswith(model.apart_from_embedding)
    }
    add_weights(digest, state)
    return digest.hexdigest()[:16]


def add_weights(digest: Any, state: Mapping[str, Tensor]) -> None:
    """Updates a hash of `hashlib` with parameters and buffers, names and values."""
    for name, value in sorted(state.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
