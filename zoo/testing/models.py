"""The contract test of models, and of the keys of anything that is registered."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import lightning
import torch
from torch.utils.data import DataLoader

from zoo import checkpoints, config, registry
from zoo.module import Embedder, Reranker
from zoo.types import Batch, Representation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def check_model(name: str, folder: Path, **parameters: Any) -> None:
    """Checks that the registered model `name` keeps the contract; raises AssertionError saying which clause it breaks.

    In order: signature equals YAML; it builds from its `tiny` preset and `parameters`; where it `needs_fitting`, it
    refuses to embed before, and is fitted on its `tiny_batch`; embeds that into the fields that `kinds` names, one row
    an image, each independent of its neighbours; trains one step that changes weights, or, if `trained` is False, is
    frozen; its checkpoint or weights file rebuilds the same model from the file alone. Of a `Reranker` instead: it puts
    its `tiny_hits` into an order, trains one step, and is rebuilt. Files go to `folder`.
    """
    check_signature("model", name)
    cls = registry.load("model", name)
    torch.manual_seed(0)
    if issubclass(cls, Reranker):
        _check_trained_reranker(config.create("model", name, **{**cls.tiny, **parameters}), folder)
        return
    _require(issubclass(cls, Embedder), f"{cls.__name__} must derive from zoo.module.Embedder or Reranker")
    model, batch = config.create("model", name, **{**cls.tiny, **parameters}), cls.tiny_batch()
    if model.needs_fitting:
        _check_fitting(model.eval(), batch)
    _check_embedding(model.eval(), batch)
    file = _check_training(model, folder) if cls.trained else _check_frozen(model, batch, folder)
    _check_reload(model.eval(), batch, file)


def check_signature(kind: str, name: str) -> None:
    """Checks that the constructor's keyword-only arguments, without defaults, are exactly the keys of the YAML.

    `**shared` in a constructor stands for the arguments of the base class.
    """
    own = list(_constructor_parameters(registry.load(kind, name)))
    loose = [p.name for p in own if p.kind is not inspect.Parameter.KEYWORD_ONLY or p.default is not p.empty]
    _require(not loose, f"{kind} '{name}': arguments must be keyword-only, with defaults in the YAML alone: {loose}")
    keys = set(config.defaults(kind, name))
    names = {p.name for p in own}
    only = f"only in YAML {sorted(keys - names)}, only in code {sorted(names - keys)}"
    _require(keys == names, f"{kind} '{name}': {only}")


def _constructor_parameters(cls: type) -> Iterator[inspect.Parameter]:
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(base.__init__).parameters.values())[1:]
        yield from (p for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD)
        if all(p.kind is not inspect.Parameter.VAR_KEYWORD or p.name != "shared" for p in parameters):
            return


def _check_trained_reranker(model: Reranker, folder: Path) -> None:
    """Each hit comes once, by falling scores, arrays doing as well as tensors; equal hits keep their order."""
    query, hits, metadata = type(model).tiny_hits()
    file = _check_training(model, folder)
    order, scores = model.eval().rerank(query, hits, metadata)
    _require(
        sorted(order.tolist()) == list(range(len(hits))), f"rerank must return each hit once, got {order.tolist()}"
    )
    finite = bool(scores.isfinite().all()) and bool((scores.diff() <= 0).all())
    _require(finite and len(scores) == len(hits), "scores must be finite, one a hit, and not rise along the order")
    again = model.rerank(query.numpy(), hits.numpy(), metadata)[0]
    _require(torch.equal(order, again), "NumPy arrays must give the order of tensors, and the same call the same order")
    alike = None if metadata is None else {name: [column[0]] * len(hits) for name, column in metadata.items()}
    same = model.rerank(query, hits[:1].expand(len(hits), -1), alike)[0].tolist()
    _require(same == list(range(len(hits))), f"equal hits must keep their order, got {same}")
    none = model.rerank(query, hits[:0], None if metadata is None else {name: [] for name in metadata})[0]
    _require(not len(none), "no hits must give an empty order")
    rebuilt = checkpoints.load_model(str(file)).rerank(query, hits, metadata)
    _require(torch.equal(rebuilt[1], scores), "a model rebuilt from its checkpoint must return the same scores")


def _check_fitting(model: Embedder, batch: Batch) -> None:
    """The first two images show the same, which learned whitening needs."""
    try:
        model.embed(batch)
    except RuntimeError:
        pass
    else:
        raise AssertionError("a model that needs fitting must raise RuntimeError where it embeds unfitted")
    before = model.fingerprint()
    model.fit_statistics([batch], [max(position, 1) for position in range(len(batch))])
    _require(model.fingerprint() != before, "fitted statistics must lie in buffers or parameters")


def _check_embedding(model: Embedder, batch: Batch) -> None:
    known = {f.name for f in fields(Representation)}
    _require(set(model.kinds) <= known, f"kinds {list(model.kinds)} must be among {sorted(known)}")
    with torch.no_grad():
        together = model.embed(batch)
        together.require(model.kinds, "check_model")
        alone = model.embed(_first(batch))
    for kind in model.kinds:
        rows = getattr(together, kind)
        _require(len(rows) == len(batch), f"{kind}: one row per image, got {len(rows)} for {len(batch)} images")
        _require(bool(rows.isfinite().all()), f"{kind}: values must be finite")
        close = torch.allclose(getattr(alone, kind)[0], rows[0], atol=1e-4, rtol=1e-4)
        _require(close, f"{kind}: an image's representation must not depend on its batch in evaluation mode")
    if "vector" in model.kinds:  # others are compared by re-rankers alone
        _check_descriptors(model, batch)


@torch.no_grad()
def _check_descriptors(model: Embedder, batch: Batch) -> None:
    vectors = model.descriptors(batch, "query")
    _require(model.descriptor_name in vectors, f"descriptors() must hold the row '{model.descriptor_name}'")
    shaped = all(rows.ndim in (2, 3) and len(rows) == len(batch) for rows in vectors.values())
    _require(shaped, "descriptors() must return (B, D) or (B, R, D) tensors")


def _check_training(model: Embedder | Reranker, folder: Path) -> Path:
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    trainer = _trainer(folder)
    trainer.fit(model, DataLoader([type(model).tiny_training_batch()], batch_size=None))
    changed = [name for name, value in model.named_parameters() if not torch.equal(value, before[name])]
    _require(bool(changed), "one training step must change weights")
    bad = [name for name, value in model.named_parameters() if not value.isfinite().all()]
    _require(not bad, f"weights must stay finite, not so: {bad}")
    trainer.save_checkpoint(folder / "model.ckpt")
    return folder / "model.ckpt"


def _check_frozen(model: Embedder, batch: Batch, folder: Path) -> Path:
    own_step = type(model).training_step is not lightning.LightningModule.training_step
    _require(not own_step, "a model with a training_step must have trained = True")
    for kind in model.kinds:
        rows, modes = getattr(model.eval().embed(batch), kind), getattr(model.train().embed(batch), kind)
        _require(not rows.requires_grad, f"{kind}: a model that isn't trained must not keep a graph of gradients")
        _require(torch.equal(rows, modes), f"{kind}: a model that isn't trained must stay in evaluation mode")
    checkpoints.save_weights(model, folder / "model.safetensors")
    return folder / "model.safetensors"


def _check_reload(model: Embedder, batch: Batch, file: Path) -> None:
    again = checkpoints.load_model(str(file))
    with torch.no_grad():
        old, new = model.embed(batch), again.embed(batch)
    for kind in model.kinds:
        same = torch.equal(getattr(old, kind), getattr(new, kind))
        _require(same, f"{kind}: a model rebuilt from its checkpoint must return the same values")
    _require(model.fingerprint() == again.fingerprint(), "a model rebuilt from its checkpoint must be the same model")


def _first(batch: Batch) -> Batch:
    return batch._map(lambda tensor: tensor[:1])


def _trainer(folder: Path) -> Any:
    return lightning.Trainer(
        accelerator="cpu",
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        use_distributed_sampler=False,
    )


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)
