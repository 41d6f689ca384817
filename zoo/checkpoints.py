"""Self-describing weights: a checkpoint or safetensors file alone rebuilds its model; nothing in it is executed."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import config, registry
from zoo.files import replacing
from zoo.registry import UsageError
from zoo.types import CHECKPOINT_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

log = logging.getLogger("zoo")

BORROWED, BACKBONE = "borrowed", "backbone_weights"
_HOW = "write it with `zoo train`, or with zoo.checkpoints.save_weights"


def load_model(source: str, weights: str | None = None, **parameters: Any) -> Any:
    """Rebuilds a trained model in evaluation mode on the CPU; see `zoo.load_model`."""
    path = weights_file(source, weights) if weights or not _is_file_name(source) else Path(source)
    described, state = read(path)
    if weights and described["name"] != source:
        raise UsageError(f"weights '{path}' belong to the model '{described['name']}', not to '{source}'")
    try:
        on_reload = dict(registry.load("model", described["name"]).on_reload)
    except registry.UnknownName as error:
        raise UsageError(f"weights '{path}' were written by {described['origin']}: {error}") from error
    if BORROWED in described:
        del on_reload[BACKBONE]
        described["parameters"][BACKBONE] = config.resolved(described["parameters"][BACKBONE])
    try:
        model = config.create("model", described["name"], **{**described["parameters"], **parameters, **on_reload})
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"weights '{path}': {error}") from error
    fill(model, state, path, described=described)
    typed = {key: value for key, value in parameters.items() if key not in on_reload}  # the others were not heeded
    values = {**model.registered["parameters"], **described["parameters"], **typed}
    # What the file doesn't state was added to the YAML later: the model is what it was, and so is its fingerprint.
    stated = described["parameters"].keys() | typed.keys()
    model.registered["parameters"] = {key: value for key, value in values.items() if key in stated}
    model.registered.update({key: described[key] for key in ("fitted_on",) if key in described})
    return model.eval()


def weights_file(model: str, weights: str | None) -> Path:
    """Returns the file of `weights`: a path, or the name of a file in the `weights/` folder beside the model's module.

    Raises UsageError naming the weights that exist.
    """
    if weights and _is_file_name(weights):
        return Path(weights).expanduser()
    folder = registry.folder(registry.lookup("model", model)) / "weights"
    known = sorted(path.stem for path in folder.glob("*.safetensors"))
    if weights is None:
        raise UsageError(f"model '{model}': say which weights; known: {', '.join(known) or 'none'}")
    if weights not in known:
        hint = registry.suggest(weights, known)
        raise UsageError(f"model '{model}' has no weights '{weights}'; known: {', '.join(known) or 'none'}.{hint}")
    return folder / f"{weights}.safetensors"


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns (description, state dict) of a `.ckpt` or `.safetensors` file; raises UsageError if it isn't ours."""
    if not path.is_file():
        raise UsageError(f"weights '{path}': no such file")
    try:
        described, state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_checkpoint(path)
    except UsageError:
        raise
    except Exception as error:
        cause = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(f"weights '{path}' can't be read without executing it, or are damaged: {cause}") from error
    if not described:
        raise UsageError(f"weights '{path}' don't say which model they belong to; {_HOW}")
    return described, state


def save_weights(model: Any, path: Path, half: bool = False, trained_only: bool = False) -> None:
    """Writes the model's weights and description as safetensors (fp16 if `half`), atomically.

    `trained_only` leaves out the weights that the model has `borrowed`: whoever loads the file reads them from its
    parameter `backbone_weights`, and is warned where they aren't the same. Those that differ from what
    `backbone_weights` gives now, since the training began with other weights, are kept. Raises UsageError where none is
    left out.
    """
    import torch
    from safetensors.torch import save

    if not getattr(model, "registered", None):
        raise UsageError(f"{type(model).__name__} wasn't built with zoo.create_model, so its file couldn't be loaded")
    described = model.registered
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    if trained_only:
        lent = _lent(model)
        described = {**described, BORROWED: {"weights": lent, "hash": weights_hash(model, lent)}}
        state = {key: value for key, value in state.items() if not key.startswith(lent)}
    if half:
        state = {key: _halved(key, value) if value.dtype == torch.float32 else value for key, value in state.items()}
    with replacing(path) as file:
        file.write(save(state, metadata={CHECKPOINT_KEY: json.dumps(described)}))


def _lent(model: Any) -> tuple[str, ...]:
    """Returns the prefixes of those weights that a new model has as well; raises UsageError where there are none."""
    name, parameters = model.registered["name"], model.registered["parameters"]
    lent = ()
    if model.borrowed and parameters.get(BACKBONE) is not None:
        lender = {BACKBONE: config.resolved(parameters[BACKBONE])}
        new = config.create("model", name, **{**parameters, **model.on_reload, **lender})
        lent = tuple(part for part in model.borrowed if weights_hash(new, part) == weights_hash(model, part))
    if not lent:
        raise UsageError(f"model '{name}' has no weights that {BACKBONE}={parameters.get(BACKBONE)} gives: save all")
    return lent


def _halved(name: str, value: Tensor) -> Tensor:
    half = value.half()
    if not half.isfinite().all():
        most = value.abs().max().item()
        raise UsageError(f"half=True needs numbers up to 65,504, '{name}' has {most:.3g}: save the model without it")
    return half


def weights_hash(model: nn.Module, prefixes: str | tuple[str, ...] = "") -> str:
    """Returns a hash of all parameters and buffers whose names begin with one of `prefixes`, names and values."""
    from zoo.module import add_weights

    digest = hashlib.sha256()
    add_weights(digest, {key: value for key, value in model.state_dict().items() if key.startswith(prefixes)})
    return digest.hexdigest()[:16]


def _is_file_name(source: str) -> bool:
    return source.endswith((".ckpt", ".safetensors"))


def _read_checkpoint(path: Path) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    import torch

    content = torch.load(path, map_location="cpu", weights_only=True)
    return content.get(CHECKPOINT_KEY), content["state_dict"]


def _read_safetensors(path: Path) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        described = json.loads((file.metadata() or {}).get(CHECKPOINT_KEY, "null"))
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (a safetensors handle, not a dict)
    return described, {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def fill(
    model: Any,
    state: dict[str, Tensor],
    path: str | Path,
    start: bool = False,
    described: Mapping[str, Any] | None = None,
) -> None:
    """Loads a state dict; raises UsageError with the tensors that do not fit.

    Of the model's `optional_weights`, those that it has no use for are left out; to `start` a training, they may all be
    absent and then stay as they are. So do the borrowed weights that the file lacks, where it is `described` as one of
    what was trained; a warning tells where they aren't those that it was trained with.
    """
    own = model.state_dict()
    if described and BORROWED in described:
        lent = tuple(described[BORROWED]["weights"])
        state = {**{name: own[name] for name in own if name.startswith(lent)}, **state}
        if weights_hash(model, lent) != described[BORROWED]["hash"]:
            log.warning("weights '%s' were trained with other weights of the backbone: their figures don't hold", path)
    optional = {name for name in own.keys() | state.keys() if name.startswith(model.optional_weights)}
    state = {name: value for name, value in state.items() if name in own or name not in optional}
    if start and not optional & state.keys():
        state |= {name: own[name] for name in optional & own.keys()}
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise UsageError(f"weights '{path}' don't fit the model '{model.registered['name']}': {error}") from error
