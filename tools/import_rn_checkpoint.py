"""Turns a checkpoint of the public code of Messina et al. 2018 (RN or 2S-RN on CLEVR) into a weights file of the zoo.

    python tools/import_rn_checkpoint.py [FILE.pth] [--output FILE.safetensors]

Without FILE the 2S-RN of ../shared/data/rn_checkpoints (ZOO_DATA moves it) is taken. The authors' word order was never
published, so the result serves image features (`zoo eval weights=FILE.safetensors`) and answers no questions.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zoo
from zoo import checkpoints
from zoo.files import BadFile
from zoo.pretrained import import_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    State = dict[str, Tensor]

_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
_LSTM = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


def load(path: Path) -> Any:
    """Returns the model of an authors' checkpoint, built from its shapes, every tensor of the file used once.

    Raises BadFile for a file that can't be read without executing it, lacks a tensor, holds one too many, or one of an
    unexpected shape.
    """
    authors = _read(path)
    try:
        parameters = architecture(authors)
        model = zoo.create_model("two_stage_rn", **parameters)
        _fill(model, translate(authors, parameters["question_layer"]))
    except (IndexError, KeyError, ValueError) as error:
        reason = f"it lacks the tensor {error}" if isinstance(error, KeyError) else error
        raise BadFile(f"{path} isn't an RN or 2S-RN for CLEVR of the authors: {reason}") from error
    return model.eval()


def architecture(authors: State) -> dict[str, Any]:
    """Returns the parameters of `two_stage_rn` that a state dict's shapes imply.

    The question joins the layer whose input is wider, by the LSTM's width, than what the layer before puts out.
    Raises ValueError unless there is exactly one; KeyError for a missing tensor.
    """
    conv = [authors[name].shape[0] for name in _numbered(authors, "conv.conv{}.weight", 1)]
    layers = [authors[name].shape for name in _numbered(authors, "rl.g_layers.{}.weight", 0)]
    answer = [authors[name].shape[0] for name in _numbered(authors, "rl.f_fc{}.weight", 1)]
    question_dim = authors["text.lstm.weight_hh_l0"].shape[1]
    widths = [shape[0] for shape in layers]
    expected = [2 * (conv[-1] + 2), *widths]
    extra = [shape[1] - before for shape, before in zip(layers, expected, strict=False)]
    if sorted(extra) != [0] * (len(extra) - 1) + [question_dim]:
        raise ValueError(
            f"one layer of g must take {question_dim} question features, got {extra} features beyond pairs"
        )
    question_layer = extra.index(question_dim)
    middle = question_layer or len(widths) // 2
    return {
        "conv": conv,
        "g": widths[:middle],
        "h": widths[middle:],
        "f": answer[:-1],
        "answers": answer[-1],
        "question_layer": question_layer,
        "question_dim": question_dim,
        "word_dim": authors["text.wembedding.weight"].shape[1],
        "vocabulary": "unknown",
        "question_groups": None,
        "pair_scale": 1.0,
        "dropout": 0.5,
        "chunk": 2,
        "feature": "relation" if question_layer else "conv",
        "aggregation": "avg",
        "convention": "authors",
    }


def translate(authors: State, question_layer: int) -> State:
    """Returns our names → tensors, without `num_batches_tracked`, which the authors' torch didn't have.

    Raises ValueError naming the tensors that have no place; KeyError for a missing one.
    """
    rest = dict(authors)
    ours = {"net.text.embedding.weight": rest.pop("text.wembedding.weight")}
    ours |= {f"net.text.lstm.{name}": rest.pop(f"text.lstm.{name}") for name in _LSTM}
    for place, name in enumerate(_numbered(authors, "conv.conv{}.weight", 1)):
        ours |= _linear(rest.pop, name.removesuffix(".weight"), f"net.conv.{place}.0")
        ours |= {f"net.conv.{place}.1.{part}": rest.pop(f"conv.batchNorm{place + 1}.{part}") for part in _BATCH_NORM}
    for layer in range(len(_numbered(authors, "rl.g_layers.{}.weight", 0))):
        place = f"g.{layer}" if layer < question_layer else f"h.{layer - question_layer - 1}"
        ours |= _linear(rest.pop, f"rl.g_layers.{layer}", "net.h_pair" if layer == question_layer else f"net.{place}")
    for place in range(len(_numbered(authors, "rl.f_fc{}.weight", 1))):
        ours |= _linear(rest.pop, f"rl.f_fc{place + 1}", f"net.f.{place}")
    # The authors concatenate the pair first and the question after it.
    width = ours["net.h_pair.weight"].shape[1] - authors["text.lstm.weight_hh_l0"].shape[1]
    ours["net.h_pair.weight"], ours["net.h_question.weight"] = ours["net.h_pair.weight"].tensor_split([width], dim=1)
    if rest:
        raise ValueError(f"no place for the tensors {', '.join(sorted(rest))}")
    return ours


def default_input() -> Path:
    """Returns the authors' 2S-RN checkpoint."""
    data = os.environ.get("ZOO_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(data) / "rn_checkpoints" / "ir_fp_epoch_312.pth"


def default_output(question_layer: int) -> Path:
    """Returns where a converted RN (question_layer 0) or 2S-RN goes."""
    return import_folder() / f"{'two_stage_rn' if question_layer else 'rn'}_clevr_authors.safetensors"


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", nargs="?", type=Path, default=default_input(), help="default: %(default)s")
    parser.add_argument("--output", type=Path, help="default: weights/…_clevr_authors.safetensors in the zoo's cache")
    arguments = parser.parse_args()
    try:
        model = load(arguments.checkpoint)
        question_layer = model.registered["parameters"]["question_layer"]
        output = arguments.output or default_output(question_layer)
        output.parent.mkdir(parents=True, exist_ok=True)
        checkpoints.save_weights(model, output)
    except (BadFile, OSError) as error:
        raise SystemExit(str(error)) from error
    count = sum(parameter.numel() for parameter in model.parameters())
    kind = f"2S-RN, question joins layer {question_layer}" if question_layer else "RN"
    print(f"{output}: {kind}, {count:,} parameters, weights {checkpoints.weights_hash(model)}")


def _read(path: Path) -> State:
    import torch

    if not path.is_file():
        raise BadFile(f"{path}: no such file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch's own message advises to load the file unsafely.
        raise BadFile(f"{path} is no state dict saved by torch, or is damaged ({type(error).__name__})") from error
    named = isinstance(content, dict) and all(isinstance(name, str) for name in content)
    if not named or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise BadFile(f"{path} must hold a state dict (names and tensors)")
    authors = {name.removeprefix("module."): value for name, value in content.items()}
    if len(authors) < len(content):
        raise BadFile(f"{path} holds a tensor twice, with `module.` before its name and without")
    wrong = [name for name, value in authors.items() if not value.isfinite().all()]
    if wrong:
        raise BadFile(f"{path} holds numbers that are not finite, in {', '.join(wrong)}")
    return authors


def _numbered(authors: State, pattern: str, start: int) -> list[str]:
    """Returns the names that a pattern gives for start, start + 1 … as far as they exist; at least one."""
    names = [pattern.format(start)]
    while (name := pattern.format(start + len(names))) in authors:
        names.append(name)
    return names


def _linear(take: Callable[[str], Tensor], theirs: str, ours: str) -> State:
    return {f"{ours}.{part}": take(f"{theirs}.{part}") for part in ("weight", "bias")}


def _fill(model: Any, state: State) -> None:
    """Loads a translated state dict; raises ValueError where names or shapes differ."""
    counters = {name: value for name, value in model.state_dict().items() if name.endswith("num_batches_tracked")}
    try:
        model.load_state_dict({**counters, **state}, strict=True)
    except RuntimeError as error:
        raise ValueError(" ".join(str(error).split())) from error


if __name__ == "__main__":
    main()
