"""What commands build from their configs: models, data, benchmarks, callbacks and loggers."""

from __future__ import annotations

import logging
import os
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from zoo import checkpoints, config, registry
from zoo.checks import is_integer
from zoo.commands._ending import usage_errors
from zoo.evaluation.runner import Companion
from zoo.evaluation.validation import RankingValidation
from zoo.registry import UsageError
from zoo.search.fit import check_batches
from zoo.training import EpochSeed, Interruption, take_the_best

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lightning.pytorch.loggers import Logger

log = logging.getLogger("zoo")

_CHATTER = ("Tip:", "GPU available: False", "TPU available", "Loading `train_dataloader`")
_WARNINGS = (
    ".*LeafSpec.*",
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*is not supported by the model summary.*",
    ".*The dirpath has changed.*",
    ".*your dataloader is not resumable.*",  # its sampler is: SplitDataModule
    ".*in eval mode at the start of training.*",  # a model with a frozen part means it
)


def prepare(cfg: DictConfig) -> None:
    """Seeds everything, keeps Lightning from saying every line twice, and drops what is of no use to a user."""
    if not is_integer(cfg.seed) or not 0 <= cfg.seed < 2**32:
        raise UsageError(f"seed must be an integer in 0 … 2^32 - 1, got {cfg.seed!r}")
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).handlers.clear()
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: not any(noise in record.getMessage() for noise in _CHATTER)
    )
    for noise in _WARNINGS:
        warnings.filterwarnings("ignore", message=noise)


def build(node: DictConfig, **extra: Any) -> Any:
    """Builds what a node names; a wrong parameter ends as a usage error, since its message names rule and value."""
    missing = sorted(key.rpartition(".")[2] for key in OmegaConf.missing_keys(node))
    if missing:
        raise UsageError(config.explain_missing(node.kind, node.name, missing))
    try:
        return config.instantiate(node, **extra)
    except Exception as error:
        if isinstance(error.__cause__, UsageError):
            raise error.__cause__ from None
        if isinstance(error.__cause__, (ValueError, MisconfigurationException)):
            what = f"{node.kind} '{node.name}'" if "kind" in node else node._target_
            raise UsageError(f"{what}: {error.__cause__}") from error
        raise


def new_model(cfg: DictConfig) -> Any:
    """Builds the model that `zoo train` starts with: fresh, or from `weights`."""
    model = build(cfg.model)
    if cfg.weights is not None:
        described, state = checkpoints.read(_weights_file(cfg))
        checkpoints.fill(model, state, cfg.weights, start=True, described=described)
    elif _keeps_random(cfg, model):
        log.warning("weights is null: the part of the model that isn't trained keeps its random weights")
    return _compiled(cfg, model)


def _keeps_random(cfg: DictConfig, model: Any) -> bool:
    """Tells whether nothing gives weights to a part that isn't trained."""
    given = cfg.ckpt_path is not None or cfg.model.get("backbone_weights") is not None
    return not given and model.trained and not all(each.requires_grad for each in model.parameters())


def trained_model(cfg: DictConfig) -> tuple[Any, str | None]:
    """Returns the model that `zoo eval` judges and the file it came from; untrained, with a warning, if none is named.

    Raises UsageError if both `weights` and `ckpt_path` are given.
    """
    if cfg.weights and cfg.ckpt_path:
        raise UsageError(f"weights='{cfg.weights}' and ckpt_path='{cfg.ckpt_path}' are both given; name one")
    if not (cfg.weights or cfg.ckpt_path):
        model = build(cfg.model).eval()
        if model.needs_fitting:
            raise UsageError(unfitted(cfg.model.name))
        if model.trained:
            log.warning(
                "neither weights nor ckpt_path is given: the model %s is evaluated untrained; model=… names another",
                cfg.model.name,
            )
        return _compiled(cfg, model), None
    if cfg.ckpt_path and not str(cfg.ckpt_path).endswith((".ckpt", ".safetensors")):
        raise UsageError(f"ckpt_path must name a .ckpt or .safetensors file, got '{cfg.ckpt_path}'")
    path = cfg.ckpt_path or str(_weights_file(cfg))
    return _compiled(cfg, checkpoints.load_model(path, **_typed_parameters())), path


def unfitted(name: str) -> str:
    """Returns what to do about a model whose statistics nothing has fitted."""
    return (
        f"model '{name}' has statistics that must be fitted on images first: zoo train model={name} … data=folder "
        "data.root=FOLDER; then name the file that it wrote: weights=….safetensors"
    )


def _weights_file(cfg: DictConfig) -> Path:
    """Returns the file of `weights`; raises UsageError, with how the experiment makes it, if there is none."""
    path = checkpoints.weights_file(cfg.model.name, cfg.weights)
    experiment = HydraConfig.get().runtime.choices.get("experiment")
    if not path.is_file() and experiment:
        lines = config.config_file("experiment", experiment).read_text(encoding="utf-8").splitlines()
        how = next(line.removeprefix("# ") for line in lines if not line.startswith("# @package"))
        raise UsageError(f"weights '{path}': no such file; the experiment's commands: {how}")
    return path


def _typed_parameters() -> dict[str, Any]:
    """Returns the `model.x=y` of the command line, which change what a checkpoint's own parameters say."""
    typed = [line for line in HydraConfig.get().overrides.task if line.startswith("model.")]
    return OmegaConf.to_container(OmegaConf.from_dotlist(typed)).get("model", {})


def _compiled(cfg: DictConfig, model: Any) -> Any:
    # Child by child: training and evaluation enter a LightningModule through its steps, not through `forward`.
    for child in model.children() if cfg.compile else ():
        child.compile()
    return model


def companions(cfg: DictConfig) -> list[Companion]:
    """Builds the models of `beside`, each with the data as it wants to see them; UsageError for what it can't build."""
    entries = [entry for entry in (cfg.get("beside") or {}).values() if entry]
    for key in ("label", "name"):
        if not all(entry.get(key) for entry in entries):
            raise UsageError(f"beside: every model needs a {key}, got {OmegaConf.to_container(cfg.beside)}")
    labels = [entry.label for entry in entries]
    if len(set(labels)) < len(labels):
        raise UsageError(f"beside: every model needs a label of its own, got {', '.join(labels)}")
    return [_companion(cfg, entry) for entry in entries]


def _companion(cfg: DictConfig, entry: DictConfig) -> Companion:
    parameters = OmegaConf.to_container(entry.get("parameters") or OmegaConf.create({}), resolve=True)
    make = partial(checkpoints.load_model, entry.name, entry.weights) if entry.get("weights") else None
    try:
        model = (make or partial(config.create, "model", entry.name))(**parameters).eval()
    except ValueError as error:
        raise UsageError(f"beside '{entry.label}': {error}; beside=none leaves it out") from error
    if model.needs_fitting and make is None:
        raise UsageError(f"beside '{entry.label}': {unfitted(entry.name)}")
    node = cfg.data.copy()
    for key, value in (entry.get("data") or {}).items():
        if key not in node:
            raise UsageError(f"beside '{entry.label}': data '{node.name}' has no parameter '{key}'")
        node[key] = value
    return Companion(entry.label, model, build(node))


def callbacks(cfg: DictConfig, model: Any) -> list[lightning.Callback]:
    """Builds the configured callbacks; what they leave open is the model's own metric. Adds seeding and ranking."""
    own = {"monitor": model.monitor, "mode": model.monitor_mode}
    nodes = [node for node in (cfg.get("callbacks") or {}).values() if node]
    built = [
        build(node, **{key: value for key, value in own.items() if key in node and node[key] is None}) for node in nodes
    ]
    interruption = Interruption(Path(cfg.paths.run_dir) / "checkpoints")
    return [EpochSeed(cfg.seed), RankingValidation(), interruption, *built]


def loggers(cfg: DictConfig, ids: Mapping[str, Any] | None = None) -> list[Logger]:
    """Builds the configured loggers; one whose `id` is open goes on with the run that had the one in `ids`."""
    built = []
    for name, node in chosen_loggers(cfg).items():
        own = {"id": ids[name]} if ids and name in ids and "id" in node and node.id is None else {}
        if node.get("offline") and "log_model" in node:
            own["log_model"] = False  # Lightning refuses what couldn't be sent
        built.append(take_the_best(build(node, **own)))
    return built


def chosen_loggers(cfg: DictConfig) -> dict[str, DictConfig]:
    return {name: node for name, node in (cfg.get("logger") or {}).items() if node}


def benchmark(cfg: DictConfig) -> Any:
    """Builds the benchmark with the metrics chosen beside its own."""
    built = build(cfg.benchmark)
    metrics = [build(node) for node in (cfg.get("metrics") or {}).values() if node]
    with usage_errors():
        built.add_metrics(metrics)
    return built


def check_judged(benchmark: Any, model: Any, data: Any, companions: Sequence[Companion]) -> None:
    """Raises UsageError, before any image is read, where the benchmark can't judge a model on the data it is shown."""
    for each, images in ((model, data), *((companion.model, companion.data) for companion in companions)):
        check_batches(each, images)
        with usage_errors():
            benchmark.check(each, images)


def opened(benchmark: Any, data: Any) -> Any:
    """Returns the benchmark after it has read its ground truth, saying what of that was left out."""
    with usage_errors():
        benchmark.open(data)
    log_notes(benchmark)
    return benchmark


def made_folder(cfg: DictConfig) -> Path:
    """Returns the run's folder, which exists from now on."""
    run_dir = Path(cfg.paths.run_dir)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"paths.run_dir: the run's folder can't be made: {error}") from error
    return run_dir


def log_notes(benchmark: Any) -> None:
    """Says what of the ground truth was left out, if anything."""
    for note in benchmark.notes:
        log.warning("%s: %s", benchmark.name, note)


def about(cfg: DictConfig, model: Any, source: str | None, companions: Sequence[Companion] = ()) -> dict[str, Any]:
    """Returns what results.json says of the model, its weights, its companions and the data."""
    described = {**_described(model), "weights": source}
    beside = {companion.label: _described(companion.model) for companion in companions}
    return {"run_name": cfg.run_name, "model": described, **about_protocol(cfg), "beside": beside, "seed": cfg.seed}


def _described(model: Any) -> dict[str, Any]:
    return {**(model.registered or {}), "weights_hash": checkpoints.weights_hash(model)}


def about_protocol(cfg: DictConfig) -> dict[str, Any]:
    """Returns what results.json says of data, benchmark, plugins, overrides and the folder."""
    return {
        "overrides": list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else [],
        "data": OmegaConf.to_container(cfg.data, resolve=True) if cfg.get("data") else None,
        "benchmark": OmegaConf.to_container(cfg.benchmark, resolve=True),
        "plugins": registry.plugin_versions(),
        "run_dir": os.fspath(Path(cfg.paths.run_dir).resolve()),
    }
