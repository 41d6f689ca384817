"""What timm and torchvision publish: networks, the normalisation they were trained with, and their weights.

Models that have one call their keys `backbone` and `backbone_weights`; the errors here name these.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

TORCHVISION = "torchvision/"

log = logging.getLogger("zoo")

_CHOICES = "name a .safetensors or .pth file (model.backbone_weights=FILE), or say hub (download them) or random"


class Parts(NamedTuple):
    """A network that is taken apart.

    `size` is the side in px of the images that the network was trained on; `classifier` lists the prefixes of
    tensors that a file may hold and the network doesn't need. `per_class` is the number of classes where a file of
    another number will do, the layers that end in it starting anew; None where there is no such layer.
    """

    network: nn.Module
    mean: Sequence[float]
    std: Sequence[float]
    size: int
    classifier: tuple[str, ...]
    download: Callable[[], dict[str, Tensor]]
    per_class: int | None = None


def parts_of(name: str, whole: bool, **options: Any) -> Parts:
    """Takes a network of timm, or of torchvision, apart; `whole` keeps its classifier.

    `options` are further arguments of `timm.create_model`. Raises ValueError for a name that neither knows, one without
    a feature map of images of any size where it isn't whole, and options that the network doesn't take.
    """
    if not name.startswith(TORCHVISION):
        return _timm(name, whole, **options)
    if options:
        raise ValueError(f"backbone must be a model of timm to take {', '.join(options)}, got {name!r}")
    return _torchvision(name.removeprefix(TORCHVISION), whole)


def segmenter_parts(name: str, classes: int) -> Parts:
    """Takes a segmentation network of torchvision apart, its name with the prefix or without; ValueError for no such.

    What serves training alone (an auxiliary classifier) isn't among its parts.
    """
    from torchvision import models

    name = name.removeprefix(TORCHVISION)
    known = models.list_models(module=models.segmentation)
    if name not in known:
        raise ValueError(_unknown(name, known, "one of torchvision's segmentation networks"))
    published = models.get_model_weights(name).DEFAULT
    network = models.get_model(name, weights=None, weights_backbone=None, num_classes=classes)
    prepared = published.transforms()
    download = lambda: published.get_state_dict(progress=False, check_hash=True, weights_only=True)  # noqa: E731
    size = prepared.resize_size[0]
    return Parts(network, prepared.mean, prepared.std, size, ("aux_classifier",), download, per_class=classes)


def start(parts: Parts, name: str, weights: str | None) -> None:
    """Fills a network with `weights`: hub, random (which logs a warning), a file, or None for none.

    Raises ValueError where they can't be had, can't be read without executing code, or don't fit.
    """
    if weights == "random":
        log.warning("backbone_weights=random: %s has learnt nothing", name)
    elif weights is not None:
        _fill(parts, name, weights)


def _timm(name: str, whole: bool, **options: Any) -> Parts:
    import timm
    from timm.data import resolve_model_data_config

    if not timm.is_model(name):
        raise ValueError(_unknown(name, timm.list_models(), "a model of timm"))
    without = options if whole else {"num_classes": 0, **options}
    try:
        network = timm.create_model(name, **without)
    except RuntimeError as error:  # a tag of weights that the network doesn't have
        raise ValueError(f"backbone {name!r}: {error}") from error
    except (TypeError, AssertionError, NotImplementedError) as error:
        if not options:
            raise
        given = ", ".join(f"{key}={value!r}" for key, value in options.items())
        raise ValueError(f"backbone {name!r} doesn't take {given} ({error or type(error).__name__})") from error
    if network.pretrained_cfg.get("fixed_input_size") and not whole:
        size = "×".join(map(str, network.pretrained_cfg["input_size"][1:]))
        raise ValueError(f"backbone must take images of any size, {name} takes {size} px only")
    classifier = () if whole else network.pretrained_cfg.get("classifier") or ()
    config = resolve_model_data_config(network)
    return Parts(
        network,
        config["mean"],
        config["std"],
        config["input_size"][-1],
        (classifier,) if isinstance(classifier, str) else tuple(classifier),
        lambda: timm.create_model(name, pretrained=True, **without).state_dict(),
    )


def _torchvision(name: str, whole: bool) -> Parts:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise ValueError(_unknown(TORCHVISION + name, [TORCHVISION + each for each in known], "one of torchvision"))
    published = models.get_model_weights(name).DEFAULT
    network = models.get_model(name, weights=None)
    children = dict(network.named_children())
    if whole:
        kept = list(children)
    elif "features" in children:
        kept = ["features"]
    elif isinstance(network, models.ResNet | models.RegNet):
        kept = list(children)[: list(children).index("avgpool")]
    else:
        raise ValueError(f"backbone must end in a feature map, {TORCHVISION}{name} has none; timm may have the network")
    preprocessing = published.transforms()
    return Parts(
        network if whole else nn.Sequential(OrderedDict((child, children[child]) for child in kept)),
        preprocessing.mean,
        preprocessing.std,
        preprocessing.crop_size[0],
        tuple(child for child in children if child not in kept),
        lambda: published.get_state_dict(progress=False, check_hash=True, weights_only=True),
    )


def _unknown(name: str, known: list[str], what: str) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"backbone must be a model of timm, or {TORCHVISION}NAME; '{name}' isn't {what}.{hint}"


def _fill(parts: Parts, name: str, weights: str) -> None:
    """Loads every tensor of `weights` into the network; fp16 becomes fp32."""
    state = _downloaded(parts, name) if weights == "hub" else read_tensors(weights)
    own = parts.network.state_dict()
    head = tuple(f"{prefix}." for prefix in parts.classifier)
    state = {key: value for key, value in state.items() if key in own or not key.startswith(head)}
    state |= _anew(parts, own, state, weights)
    misfits = {
        "missing": [key for key in own if key not in state],
        "not of the network": [key for key in state if key not in own],
        "of another shape": [key for key in own if key in state and state[key].shape != own[key].shape],
    }
    said = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', …' * (len(keys) > 3)})" for what, keys in misfits.items() if keys
    ]
    if said:
        raise ValueError(f"backbone_weights '{weights}' don't fit {name}: tensors {'; '.join(said)}")
    parts.network.load_state_dict(state, strict=True)


def _anew(parts: Parts, own: dict[str, Tensor], state: dict[str, Tensor], weights: str) -> dict[str, Tensor]:
    """Returns the network's own tensors of those that the file holds for another number of classes."""
    found = {
        key: own[key]
        for key, value in state.items()
        if parts.per_class is not None and key in own and len(own[key].shape) == len(value.shape) > 0
        if own[key].shape[0] == parts.per_class != value.shape[0] and own[key].shape[1:] == value.shape[1:]
    }
    if found:
        count = state[next(iter(found))].shape[0]
        log.warning(
            "backbone_weights '%s' are for %d classes, not for %d: %s start anew",
            weights, count, parts.per_class, ", ".join(found),
        )  # fmt: skip
    return found


def _downloaded(parts: Parts, name: str) -> dict[str, Tensor]:
    try:
        return parts.download()
    except Exception as error:  # each library and version has its own for "no network"
        cause = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"backbone_weights=hub: those of {name} can't be downloaded ({cause}); {_CHOICES}") from error


def tensor_names(weights: str | None) -> list[str]:
    """Returns what a `.safetensors` file holds, without reading it; nothing of whatever else `weights` may be."""
    from safetensors import SafetensorError, safe_open

    path = Path(str(weights)).expanduser()
    if path.suffix != ".safetensors" or not path.is_file():
        return []
    try:
        with safe_open(path, "pt") as file:
            return list(file.keys())
    except SafetensorError:  # whoever reads it says so
        return []


def read_tensors(weights: str) -> dict[str, Tensor]:
    """Returns name → tensor of a `.safetensors` or `.pth` file; raises ValueError where it can't be had or read."""
    path = Path(str(weights)).expanduser()
    if path.suffix not in (".safetensors", ".pth"):
        raise ValueError(f"backbone_weights: {_CHOICES}; got '{path}'")
    if not path.is_file():
        made = "; a tools/import_….py makes it" if path.parent == import_folder() else ""
        raise ValueError(f"backbone_weights: there is no file '{path}'{made}; {_CHOICES}")
    try:
        state = _tensors(path)
    except Exception as error:
        cause = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"backbone_weights '{path}' can't be read without executing it, or is damaged: {cause}"
        ) from error
    if not (isinstance(state, dict) and all(isinstance(value, torch.Tensor) for value in state.values())):
        raise ValueError(f"backbone_weights '{path}' must hold named tensors and nothing else")
    return state


def import_folder() -> Path:
    """Returns the folder in which the import tools put what they make; the variable ZOO_CACHE moves it."""
    return Path(os.environ.get("ZOO_CACHE") or "~/.cache/spatial-zoo").expanduser() / "weights"


def _tensors(path: Path) -> Any:
    if path.suffix == ".pth":
        return torch.load(path, map_location="cpu", weights_only=True)
    from safetensors.torch import load_file

    return load_file(path)
